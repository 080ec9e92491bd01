use std::time::Duration;

use serde_json::{Value, json};

use crate::authority::testkit::{Kit, OPERATOR, OTHER_SECRET, SECRET, claims};
use crate::state::{Extent, Target};

const AGENTS: &str = "/zones/z1/agents";

async fn bearer(kit: &Kit) -> String {
    kit.lifecycle("billing-agent", SECRET, "resource://billing").await
}

#[tokio::test]
async fn a_bearer_is_required_and_must_be_a_session_mandate_of_the_zone() {
    let kit = Kit::new().await;
    let held = kit.provision(&["invoice.read"], &json!({ "resources": ["resource://billing"] })).await;
    let gateway =
        kit.mint(&held.fields("resource://billing", "invoice.read", &[])).await.text("access_token");
    let two = [("zone_id", "z2"), ("application_id", "two-agent"), ("client_secret", OTHER_SECRET)];
    let two =
        kit.mint(&[&two[..], &[("resource", "resource://two"), ("scope", "agent:lifecycle")]].concat()).await;
    let good = &held.bearer;
    let long = "x".repeat(4_097);
    let cases = [
        ("", 401, "missing_token"),
        (&*long, 401, "missing_token"),
        ("nonsense", 401, "invalid_token"),
        (&*format!("{good}x"), 401, "invalid_token"),
        (&*gateway, 401, "invalid_token"),
        (&*two.text("access_token"), 403, "zone_mismatch"),
        (OPERATOR, 200, ""),
        (good, 200, ""),
    ];
    for (bearer, status, code) in cases {
        let reply = kit.call("GET", AGENTS, bearer, &Value::Null).await;
        assert_eq!(reply.told(), (status, code), "{bearer:.20}");
        if status == 401 {
            assert_eq!(reply.text("request_id"), "req-2");
            let bare = code == "missing_token";
            let challenge = if bare { "Bearer" } else { "Bearer error=\"invalid_token\"" };
            assert_eq!(reply.headers["www-authenticate"], challenge);
        }
    }
    let twice = [("authorization", "Bearer other")];
    let reply = kit.call_with("GET", AGENTS, good, &Value::Null, &twice).await;
    assert_eq!(reply.told(), (401, "missing_token"));
}

#[tokio::test]
async fn a_mandate_counts_while_its_record_and_application_do() {
    let kit = Kit::new().await;
    let token = bearer(&kit).await;
    let sid = claims(&token)["sid"].as_str().unwrap().to_owned();
    kit.app.state.revoke("z1", &Target::Record(sid.into()), "test").await.unwrap();
    assert_eq!(kit.call("GET", AGENTS, &token, &Value::Null).await.told(), (401, "identity_revoked"));

    let token = bearer(&kit).await;
    let cut = Target::Application { id: "billing-agent".into(), extent: Extent::Cut };
    kit.app.state.revoke("z1", &cut, "test").await.unwrap();
    assert_eq!(kit.call("GET", AGENTS, &token, &Value::Null).await.told(), (401, "identity_revoked"));

    kit.clock.advance(Duration::from_secs(1));
    let token = bearer(&kit).await;
    assert_eq!(kit.call("GET", AGENTS, &token, &Value::Null).await.status, 200);
    kit.clock.advance(Duration::from_secs(900));
    assert_eq!(kit.call("GET", AGENTS, &token, &Value::Null).await.told(), (401, "invalid_token"));
}

#[tokio::test]
async fn invalid_signatures_have_an_allowance() {
    let kit = Kit::new().await;
    let token = bearer(&kit).await;
    let (head, signature) = token.rsplit_once('.').unwrap();
    let backwards: String = signature.chars().rev().skip(1).chain(['A']).collect();
    let forged = format!("{head}.{backwards}");
    let mut last = None;
    for _ in 0..200 {
        let reply = kit.call("GET", AGENTS, &forged, &Value::Null).await;
        last = Some(reply);
        if last.as_ref().is_some_and(|reply| reply.status == 429) {
            break;
        }
    }
    let last = last.unwrap();
    assert_eq!(last.told(), (429, "rate_limited"));
    assert!(last.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn the_operator_token_opens_only_its_routes() {
    let kit = Kit::new().await;
    let token = bearer(&kit).await;
    let id = kit.session(&token, &json!({})).await;
    let body = json!({ "application_id": "billing-agent" });
    for (method, path) in [
        ("POST", "/zones/z1/agents".to_owned()),
        ("POST", format!("/zones/z1/agents/{id}/lease")),
        ("POST", format!("/zones/z1/agents/{id}/heartbeat")),
        ("POST", "/zones/z1/delegations".to_owned()),
    ] {
        assert_eq!(kit.call(method, &path, OPERATOR, &body).await.told(), (401, "invalid_token"), "{path}");
    }
    for path in [
        "/zones/z1/agents".to_owned(),
        format!("/zones/z1/agents/{id}"),
        format!("/zones/z1/agents/{id}/children"),
        format!("/zones/z1/agents/{id}/effective-authority"),
        "/zones/z1/delegations/active".to_owned(),
        format!("/zones/z1/delegations/inbound/{id}"),
        format!("/zones/z1/delegations/outbound/{id}"),
    ] {
        assert_eq!(kit.call("GET", &path, OPERATOR, &Value::Null).await.status, 200, "{path}");
    }
    for (method, verb) in [("PATCH", "/suspend"), ("PATCH", "/resume"), ("DELETE", "")] {
        let reply = kit.call(method, &format!("/zones/z1/agents/{id}{verb}"), OPERATOR, &Value::Null).await;
        assert!(reply.status < 300, "{verb} {reply:?}");
    }
}

#[tokio::test]
async fn paths_methods_and_ids_are_checked() {
    let kit = Kit::new().await;
    let token = bearer(&kit).await;
    for path in ["/zones/z1/agents/a%20b", "/zones/z1/agents/%ff", "/zones/z1/delegations/inbound/a/b%2Fc"] {
        let reply = kit.call("GET", path, &token, &Value::Null).await;
        assert_eq!(reply.told(), (400, "invalid_params"), "{path}");
    }
    assert_eq!(kit.call("GET", "/zones/z1/other", &token, &Value::Null).await.told(), (404, "not_found"));
    let wrong = kit.call("PUT", AGENTS, &token, &Value::Null).await;
    assert_eq!(wrong.told(), (405, "method_not_allowed"));
    let allow = wrong.headers["allow"].to_str().unwrap();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    assert_eq!(kit.call("GET", "/health", "", &Value::Null).await.json, json!({ "ok": true }));
    assert_eq!(kit.call("GET", "/ready", "", &Value::Null).await.json, json!({ "ok": true }));
}

#[tokio::test]
async fn verification_is_open_to_everybody() {
    let kit = Kit::new().await;
    let token = bearer(&kit).await;
    let verify = |body: Value| {
        let kit = &kit;
        async move { kit.call("POST", "/v1/verify", "", &body).await }
    };
    let good = verify(json!({ "token": token, "zone_id": "z1", "required_scope": "agent:lifecycle" })).await;
    assert_eq!((good.status, &good.json["valid"]), (200, &json!(true)));
    assert_eq!(good.json["claims"], claims(&token));
    let header = verify(json!({ "authorization": format!("Bearer {token}"), "zone_id": "z1" })).await;
    assert_eq!(header.status, 200);
    for refused in [
        json!({ "token": token, "zone_id": "z2" }),
        json!({ "token": token, "zone_id": "z1", "required_scope": "other" }),
        json!({ "token": token, "zone_id": "z1", "require_session": true }),
        json!({ "token": token, "zone_id": "z1", "require_delegation": true }),
        json!({ "token": "nonsense", "zone_id": "z1" }),
    ] {
        let reply = verify(refused).await;
        assert_eq!((reply.status, reply.json), (401, json!({ "valid": false, "error": "token_invalid" })));
    }
    assert_eq!(verify(json!({ "zone_id": "z1" })).await.told(), (400, "missing_token"));
    assert_eq!(verify(json!({ "token": token })).await.told(), (400, "invalid_request"));
    assert_eq!(verify(json!([])).await.told(), (400, "invalid_request"));
    let mut last = 0;
    for _ in 0..60 {
        last = verify(json!({ "token": "nonsense", "zone_id": "z1" })).await.status;
    }
    assert_eq!(last, 429);
}
