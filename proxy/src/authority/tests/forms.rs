use axum::body::Body;
use http::Request;

use crate::authority::testkit::{Kit, Reply, SECRET, form};

async fn post(
    kit: &Kit,
    uri: &str,
    content_type: Option<&str>,
    body: String,
    headers: &[(&str, &str)],
) -> Reply {
    let mut request = Request::post(uri).header("x-request-id", "req-1");
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Kit::send(&kit.authority, request.body(Body::from(body)).unwrap()).await
}

const FORM: Option<&str> = Some("application/x-www-form-urlencoded");

fn good() -> String {
    let base = [
        ("zone_id", "z1"),
        ("application_id", "billing-agent"),
        ("client_secret", SECRET),
        ("resource", "resource://billing"),
        ("scope", "agent:lifecycle"),
    ];
    form(&base, &[])
}

#[tokio::test]
async fn a_form_is_refused_before_anybody_is_authenticated() {
    let kit = Kit::new().await;
    let uri = "/oauth/2/token";
    let token = "subject_token_type=urn:ietf:params:oauth:token-type";
    let cases = [
        ("duplicate field", format!("{}&scope=x", good()), 400),
        ("duplicate unknown field", format!("{}&audience=a&audience=b", good()), 400),
        ("actor token", format!("{}&actor_token=", good()), 400),
        ("client assertion", format!("{}&client_assertion=x", good()), 400),
        ("client assertion type", format!("{}&client_assertion_type=x", good()), 400),
        ("bad escape", format!("{}&x=%4", good()), 400),
        ("negative ttl", format!("{}&ttl_seconds=-1", good()), 400),
        ("fractional ttl", format!("{}&ttl_seconds=1.5", good()), 400),
        ("blank resource", format!("{}&resource=%20", good()), 400),
        ("other grant", good().replace(&form(&[], &[]), "grant_type=client_credentials"), 400),
        ("no grant", good().replace(&form(&[], &[]), "x=y"), 400),
        ("unknown token type", format!("{}&subject_token=x&{token}:saml2", good()), 400),
        ("token without type", format!("{}&subject_token=x", good()), 400),
        ("type without token", format!("{}&{token}:access_token", good()), 400),
        ("bad reusable", format!("{}&reusable=maybe", good()), 400),
    ];
    for (name, body, status) in cases {
        let reply = post(&kit, uri, FORM, body, &[]).await;
        assert_eq!(reply.told(), (status, "invalid_token"), "{name}");
        assert_eq!(reply.text("requestId"), "req-1", "{name}");
        assert!(reply.json.get("decision_id").is_none(), "{name}");
    }
    let query = post(&kit, "/oauth/2/token?zone_id=z1", Some("text/plain"), good(), &[]).await;
    assert_eq!(query.told(), (400, "invalid_token"));
    let ok = post(&kit, "/oauth/2/token?", FORM, good(), &[]).await;
    assert_eq!(ok.status, 200);
}

#[tokio::test]
async fn only_forms_of_at_most_64_kib_are_read() {
    let kit = Kit::new().await;
    let uri = "/oauth/2/token";
    for content_type in [None, Some("application/json"), Some("multipart/form-data"), Some("text/plain")] {
        let reply = post(&kit, uri, content_type, good(), &[]).await;
        assert_eq!(reply.told(), (415, "invalid_token"), "{content_type:?}");
    }
    let packed = post(&kit, uri, FORM, good(), &[("content-encoding", "gzip")]).await;
    assert_eq!(packed.told(), (415, "invalid_token"));
    let typed = Some("Application/X-WWW-Form-Urlencoded; charset=UTF-8");
    assert_eq!(post(&kit, uri, typed, good(), &[]).await.status, 200);
    let large = post(&kit, uri, FORM, format!("{}&pad={}", good(), "x".repeat(64 * 1024)), &[]).await;
    assert_eq!(large.told(), (413, "payload_too_large"));
}

#[tokio::test]
async fn gateway_signatures_are_refused_in_their_place_in_the_order() {
    let kit = Kit::new().await;
    let uri = "/oauth/2/token";
    let signed = [("x-caracal-gateway-signature", "00")];
    assert_eq!(post(&kit, uri, FORM, good(), &signed).await.told(), (401, "access_denied"));
    let blank = post(&kit, uri, FORM, format!("{}&resource=", good()), &signed).await;
    assert_eq!(blank.told(), (401, "access_denied"));
    let twice = post(&kit, uri, FORM, format!("{}&scope=x", good()), &signed).await;
    assert_eq!(twice.told(), (400, "invalid_token"));
}
