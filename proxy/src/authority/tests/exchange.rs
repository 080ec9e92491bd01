use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use caracal_mandates::{Claims, Expect, Use, jti_millis, verify};
use caracal_policies::Resource;
use serde_json::{Value, json};

use crate::authority::exchange::{MintFault, mint_resource};
use crate::authority::testkit::{ISSUER, Kit, NOW, OTHER_SECRET, Provision, Reply, SECRET, claims};
use crate::gate::authenticate::{Shown, Source, gateway_mandate};
use crate::ledger::LedgerOptions;
use crate::state::{Extent, Target};

const BILLING: &str = "resource://billing";

fn of_billing() -> Value {
    json!({ "resources": [BILLING] })
}

async fn delegated(kit: &Kit) -> Provision {
    kit.provision(&["invoice.read", "invoice.write", "invoice.pay"], &of_billing()).await
}

fn reason(reply: &Reply) -> String {
    assert_eq!(reply.told(), (403, "access_denied"), "{reply:?}");
    let text = reply.text("error_description");
    text.strip_prefix("policy denied (").and_then(|rest| rest.strip_suffix(')')).unwrap_or(&text).to_owned()
}

#[tokio::test]
async fn a_lifecycle_mandate_is_a_session_mandate() {
    let kit = Kit::new().await;
    let reply = kit.mint(&[("resource", BILLING), ("scope", "agent:lifecycle")]).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers["content-type"], "application/json");
    assert_eq!(reply.headers["cache-control"], "no-store");
    assert_eq!(reply.headers["x-request-id"], "req-1");
    let token = reply.text("access_token");
    assert_eq!(
        reply.json,
        json!({
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": 900,
            "scope": "agent:lifecycle",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "target_resources": [BILLING],
        })
    );
    let claims = claims(&token);
    let (sid, jti) = (claims["sid"].as_str().unwrap(), claims["jti"].as_str().unwrap());
    assert_eq!(
        claims,
        json!({
            "iss": ISSUER, "sub": "billing-agent", "aud": [ISSUER], "exp": 1_790_000_900, "iat": 1_790_000_000,
            "jti": jti, "zone_id": "z1", "client_id": "billing-agent", "scope": "agent:lifecycle",
            "sid": sid, "root_sid": sid, "use": "session", "sub_type": "application", "target": [BILLING],
        })
    );
    assert_eq!(jti_millis(jti), Some(NOW));
    let record = kit.app.state.live_record("z1", sid, NOW).unwrap();
    assert_eq!((&*record.subject, record.expires_at), ("billing-agent", 1_790_000_900_000));
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let shown = Shown::new(&kit.app, token.as_str().into());
    gateway_mandate(&kit.app, "z1", &shown, peer, NOW / 1_000).unwrap_err();
}

#[tokio::test]
async fn an_exchange_is_in_the_ledger_before_it_is_answered() {
    let kit = Kit::new().await;
    let token = kit.mint(&[("resource", BILLING), ("scope", "agent:lifecycle")]).await.text("access_token");
    let refused = kit.mint(&[("resource", "resource://other"), ("scope", "agent:lifecycle")]).await;
    let lines = kit.ledger("z1").await;
    let events: Vec<&Value> = lines.iter().filter(|line| line["event_type"] == "token_exchange").collect();
    assert_eq!(events.len(), 2);
    assert_eq!((&events[0]["decision"], &events[1]["decision"]), (&json!("allow"), &json!("deny")));
    assert_eq!(events[0]["evaluation_status"], "complete");
    assert_eq!(events[0]["determining_policies_json"], json!([{ "policy": "caracal-bootstrap" }]));
    let metadata = &events[0]["metadata_json"];
    assert_eq!(metadata["client_request_id"], "req-1");
    assert_eq!(metadata["mandate"]["sid"], claims(&token)["sid"]);
    assert_eq!(events[1]["id"], refused.json["decision_id"]);
    assert_eq!(events[1]["evaluation_status"], "resource_not_granted");
    assert_eq!(events[1]["diagnostics_json"], json!([{ "reason": "resource_not_granted" }]));
    let text = format!("{lines:?}");
    assert!(!text.contains(SECRET) && !text.contains(&token));
}

#[tokio::test]
async fn a_strict_ledger_is_on_disk_before_the_answer() {
    let kit = Kit::strict().await;
    let token = kit.lifecycle("billing-agent", SECRET, BILLING).await;
    let sid = &claims(&token)["sid"];
    assert!(kit.on_disk("z1").iter().any(|line| line["metadata_json"]["mandate"]["sid"] == *sid));
    let id = kit.session(&token, &json!({})).await;
    assert!(kit.on_disk("z1").iter().any(|line| line["metadata_json"]["agent_session_id"] == id));
}

#[tokio::test]
async fn a_full_ledger_refuses_before_anything_is_minted() {
    let kit = Kit::with_options(LedgerOptions { queue: 4, ..LedgerOptions::default() }).await;
    let held: Vec<_> = (0..8).map_while(|_| kit.app.ledger.admit("z1").ok()).collect();
    let reply = kit.mint(&[("resource", BILLING), ("scope", "agent:lifecycle")]).await;
    assert_eq!(reply.told(), (503, "sts_unavailable"));
    assert_eq!(reply.headers["retry-after"], "1");
    drop(held);
    assert_eq!(kit.mint(&[("resource", BILLING), ("scope", "agent:lifecycle")]).await.status, 200);
}

#[tokio::test]
async fn a_delegated_mandate_carries_its_whole_chain_and_works_once() {
    let kit = Kit::new().await;
    let held = delegated(&kit).await;
    let reply = kit.mint(&held.fields(BILLING, "invoice.write invoice.read", &[])).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let token = reply.text("access_token");
    let claims = claims(&token);
    assert_eq!(claims["use"], "gateway");
    assert_eq!(claims["scope"], "invoice.write invoice.read");
    assert_eq!(claims["agent_session_id"], held.target);
    assert_eq!(claims["delegation_edge_id"], held.edge);
    assert_eq!(claims["source_session_id"], held.source);
    assert_eq!(claims["target_session_id"], held.target);
    assert_eq!(claims["delegation_path"], json!([held.edge]));
    assert_eq!(
        claims["delegation_chain"],
        json!([
            { "application_id": "billing-agent", "agent_session_id": held.source, "delegation_edge_id": held.edge },
            { "application_id": "billing-agent", "agent_session_id": held.target },
        ])
    );
    assert_eq!(claims["hop_count"], 1);
    assert_eq!(claims["caracal_epoch"], kit.app.state.epoch());
    assert!(claims.get("caracal_reusable").is_none());
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let shown = Shown::new(&kit.app, token.as_str().into());
    let (_, source) = gateway_mandate(&kit.app, "z1", &shown, peer, NOW / 1_000).unwrap();
    assert_eq!(source, Source::Hit, "minting has verified it already");
    assert!(kit.app.state.live_record("z1", claims["sid"].as_str().unwrap(), NOW).is_some());
}

#[tokio::test]
async fn unknown_and_not_granted_resources_are_identical_twins() {
    let kit = Kit::new().await;
    let mut bodies = Vec::new();
    for resource in ["resource://other", "resource://two", "resource://nowhere", "nonsense"] {
        for scope in ["agent:lifecycle", "other.read", ""] {
            let mut reply = kit.mint(&[("resource", resource), ("scope", scope)]).await;
            assert_eq!(reason(&reply), "resource_not_granted");
            reply.json["decision_id"] = json!("");
            bodies.push(reply.json);
        }
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test]
async fn policy_decides_and_says_why() {
    let kit = Kit::new().await;
    let held = delegated(&kit).await;
    let cases: [(&str, Vec<(&str, &str)>); 4] = [
        (
            "scope_mismatch",
            held.fields(BILLING, "invoice.unknown", &[("agent_session_id", ""), ("delegation_edge_id", "")]),
        ),
        ("no_rule_matched", vec![("resource", BILLING), ("scope", "agent:lifecycle invoice.read")]),
        ("no_rule_matched", held.fields(BILLING, "", &[])),
        ("resource_outside_delegation", held.fields("resource://plain", "invoice.read", &[])),
    ];
    for (expected, fields) in cases {
        assert_eq!(reason(&kit.mint(&fields).await), expected, "{fields:?}");
    }
}

#[tokio::test]
async fn a_role_must_grant_every_scope() {
    let kit = Kit::new().await;
    let bearer = kit.lifecycle("billing-agent", SECRET, BILLING).await;
    let source = kit.session(&bearer, &json!({})).await;
    let target = kit.session(&bearer, &json!({ "labels": ["reader"] })).await;
    let edge =
        kit.delegate(&bearer, &source, &target, &["invoice.read", "invoice.write"], &of_billing()).await;
    let held = Provision { bearer, source, target, edge };
    assert_eq!(kit.mint(&held.fields(BILLING, "invoice.read", &[])).await.status, 200);
    let refused = kit.mint(&held.fields(BILLING, "invoice.read invoice.write", &[])).await;
    assert_eq!(reason(&refused), "role_scope_mismatch");
}

#[tokio::test]
async fn several_resources_are_granted_together_or_not_at_all() {
    let kit = Kit::new().await;
    let both = [("resource", "resource://plain"), ("resource", BILLING), ("scope", "agent:lifecycle")];
    let reply = kit.mint(&both).await;
    assert_eq!(reply.json["target_resources"], json!([BILLING, "resource://plain"]));
    let one_too_many = [&both[..], &[("resource", "resource://other")]].concat();
    assert_eq!(reason(&kit.mint(&one_too_many).await), "resource_not_granted");
}

#[tokio::test]
async fn a_resource_may_be_named_by_its_row_id() {
    let kit = Kit::new().await;
    let reply =
        kit.mint(&[("resource", "row-billing"), ("resource", BILLING), ("scope", "agent:lifecycle")]).await;
    assert_eq!(reply.json["target_resources"], json!([BILLING]));
}

#[tokio::test]
async fn malformed_requests_of_a_proven_client_are_400() {
    let kit = Kit::new().await;
    let id_token = ("subject_token_type", "urn:ietf:params:oauth:token-type:id_token");
    let cases: [&[(&str, &str)]; 5] = [
        &[("scope", "agent:lifecycle")],
        &[("resource", BILLING), ("scope", "agent:lifecycle"), ("ttl_seconds", "3601")],
        &[("resource", BILLING), ("scope", "agent:lifecycle"), ("reusable", "true")],
        &[("subject_token", "x"), id_token, ("resource", BILLING)],
        &[("subject_token", "x"), id_token, ("agent_session_id", "s")],
    ];
    for fields in cases {
        let reply = kit.mint(fields).await;
        assert_eq!(reply.told(), (400, "invalid_token"), "{fields:?}");
        assert!(reply.json["decision_id"].is_string());
    }
    let federated = kit.mint(&[("subject_token", "x"), id_token]).await;
    assert_eq!(federated.told(), (401, "invalid_token"));
    assert_eq!(federated.text("error_description"), "no subject issuer is registered for this zone");
}

#[tokio::test]
async fn a_lifetime_may_be_asked_for_up_to_an_hour() {
    let kit = Kit::new().await;
    for (asked, got) in [("0", 900), ("1", 1), ("3600", 3_600)] {
        let fields = [("resource", BILLING), ("scope", "agent:lifecycle"), ("ttl_seconds", asked)];
        assert_eq!(kit.mint(&fields).await.json["expires_in"], got);
    }
}

#[tokio::test]
async fn a_mandate_never_buys_another_one() {
    let kit = Kit::new().await;
    let session = kit.lifecycle("billing-agent", SECRET, BILLING).await;
    let held = delegated(&kit).await;
    let gateway = kit.mint(&held.fields(BILLING, "invoice.read", &[])).await.text("access_token");
    let with = |token: String| {
        let kit = &kit;
        async move {
            let kind = ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token");
            let fields = [("resource", BILLING), ("scope", "invoice.read"), ("subject_token", &*token), kind];
            kit.mint(&fields).await
        }
    };
    assert_eq!(with(session.clone()).await.told(), (403, "access_denied"));
    assert_eq!(with(gateway).await.told(), (401, "invalid_token"));
    assert_eq!(with(format!("{session}x")).await.told(), (401, "invalid_token"));
    assert_eq!(with("nonsense".to_owned()).await.told(), (401, "invalid_token"));
    kit.clock.advance(Duration::from_secs(900));
    assert_eq!(with(session).await.told(), (401, "invalid_token"));
}

#[tokio::test]
async fn an_approval_that_nobody_asked_for_changes_nothing() {
    let kit = Kit::new().await;
    let reply = kit.mint(&[("resource", BILLING), ("scope", "agent:lifecycle"), ("approval_id", "a1")]).await;
    assert_eq!(reply.status, 200, "a retry must not fail because policy stopped asking: {reply:?}");
}

#[tokio::test]
async fn references_must_be_live_and_the_callers_own() {
    let kit = Kit::new().await;
    let held = delegated(&kit).await;
    let other = kit.lifecycle("other-agent", OTHER_SECRET, "resource://other").await;
    let foreign = claims(&other)["sid"].as_str().unwrap().to_owned();
    let own = claims(&held.bearer)["sid"].as_str().unwrap().to_owned();
    let cases: [Vec<(&str, &str)>; 6] = [
        held.fields(BILLING, "invoice.read", &[("session_id", "nothing")]),
        held.fields(BILLING, "invoice.read", &[("session_id", &foreign)]),
        held.fields(BILLING, "invoice.read", &[("agent_session_id", "nothing")]),
        held.fields(BILLING, "invoice.read", &[("agent_session_id", &held.source)]),
        held.fields(BILLING, "invoice.read", &[("agent_session_id", "")]),
        held.fields(BILLING, "invoice.read", &[("delegation_edge_id", "nothing")]),
    ];
    for fields in cases {
        let reply = kit.mint(&fields).await;
        assert_eq!(reply.told(), (403, "access_denied"), "{fields:?}");
        assert_eq!(reply.text("error_description"), "the session or delegation does not carry this request");
    }
    assert_eq!(kit.mint(&held.fields(BILLING, "invoice.read", &[("session_id", &own)])).await.status, 200);

    let stolen = held.fields(
        BILLING,
        "invoice.read",
        &[("application_id", "other-agent"), ("client_secret", OTHER_SECRET)],
    );
    assert_eq!(kit.mint(&stolen).await.told(), (403, "access_denied"));

    kit.call("PATCH", &format!("/zones/z1/delegations/{}/revoke", held.edge), &held.bearer, &Value::Null)
        .await;
    assert_eq!(kit.mint(&held.fields(BILLING, "invoice.read", &[])).await.told(), (403, "access_denied"));
}

#[tokio::test]
async fn a_delegation_bounds_scopes_and_lifetime() {
    let kit = Kit::new().await;
    let constraints = json!({ "resources": [BILLING], "ttl_seconds": 120 });
    let held = kit.provision(&["invoice.read"], &constraints).await;
    let beyond = kit.mint(&held.fields(BILLING, "invoice.write", &[])).await;
    assert_eq!(beyond.told(), (403, "access_denied"));
    let long = kit.mint(&held.fields(BILLING, "invoice.read", &[("ttl_seconds", "121")])).await;
    assert_eq!(long.told(), (403, "access_denied"));
    assert_eq!(kit.mint(&held.fields(BILLING, "invoice.read", &[])).await.json["expires_in"], 120);
    // The delegation itself ends 120 s after it was made, in the middle of a second.
    kit.clock.advance(Duration::from_secs(100));
    assert_eq!(kit.mint(&held.fields(BILLING, "invoice.read", &[])).await.json["expires_in"], 20);
    kit.clock.advance(Duration::from_millis(19_500));
    assert_eq!(kit.mint(&held.fields(BILLING, "invoice.read", &[])).await.json["expires_in"], 1);
    kit.clock.advance(Duration::from_millis(400));
    assert_eq!(kit.mint(&held.fields(BILLING, "invoice.read", &[])).await.told(), (403, "access_denied"));
}

/// Two edges, source → middle → target, and the mandate minted at the end.
async fn two_hops(kit: &Kit, first: u32, second: u32) -> Reply {
    let bearer = kit.lifecycle("billing-agent", SECRET, BILLING).await;
    let labels = json!({ "labels": ["billing-agent"] });
    let source = kit.session(&bearer, &labels).await;
    let middle = kit.session(&bearer, &labels).await;
    let target = kit.session(&bearer, &labels).await;
    let hops = |hops: u32| json!({ "resources": [BILLING], "max_hops": hops });
    kit.delegate(&bearer, &source, &middle, &["invoice.read"], &hops(first)).await;
    let edge = kit.delegate(&bearer, &middle, &target, &["invoice.read"], &hops(second)).await;
    let held = Provision { bearer, source, target, edge };
    kit.mint(&held.fields(BILLING, "invoice.read", &[])).await
}

#[tokio::test]
async fn a_chain_mints_in_both_readings_of_its_hops() {
    let kit = Kit::new().await;
    for (first, second) in [(3, 2), (2, 1)] {
        let reply = two_hops(&kit, first, second).await;
        assert_eq!(reply.status, 200, "{first} {second}: {reply:?}");
        assert_eq!(claims(&reply.text("access_token"))["hop_count"], 2);
    }
}

#[tokio::test]
async fn an_inherited_delegation_without_a_hop_left_is_held_but_mints_nothing() {
    let kit = Kit::new().await;
    for (hops, status) in [(1, 403), (2, 200)] {
        let constraints = json!({ "resources": [BILLING], "max_hops": hops });
        let held = kit.provision(&["invoice.read"], &constraints).await;
        let body = json!({
            "application_id": "billing-agent", "parent_id": held.target, "labels": ["billing-agent"],
        });
        let child = kit.call("POST", "/zones/z1/agents", &held.bearer, &body).await;
        assert_eq!(child.status, 201);
        let fields = [
            ("agent_session_id", &*child.text("agent_session_id")),
            ("delegation_edge_id", &*child.text("delegation_edge_id")),
        ];
        let reply = kit.mint(&held.fields(BILLING, "invoice.read", &fields)).await;
        assert_eq!(reply.status, status, "{hops}: {reply:?}");
    }
}

#[tokio::test]
async fn a_reusable_mandate_needs_three_yeses() {
    let kit = Kit::new().await;
    let both = json!({ "resources": [BILLING, "resource://plain"] });
    let held = kit.provision(&["invoice.read"], &both).await;
    let asked = ("reusable", "true");
    let reply = kit.mint(&held.fields(BILLING, "invoice.read", &[asked])).await;
    assert_eq!(reply.json["expires_in"], 900);
    assert_eq!(claims(&reply.text("access_token"))["caracal_reusable"], true);
    let closed = kit.mint(&held.fields("resource://plain", "invoice.read", &[asked])).await;
    assert_eq!(reason(&closed), "reusable_mandate_not_allowed");
    let long = kit.mint(&held.fields(BILLING, "invoice.read", &[asked, ("ttl_seconds", "901")])).await;
    assert_eq!(long.told(), (400, "invalid_token"));
    let fields = held.fields("resource://plain", "invoice.read", &[asked]);
    let two = kit.mint(&[&fields[..], &[("resource", BILLING)]].concat()).await;
    assert_eq!(two.told(), (400, "invalid_token"));
}

#[tokio::test]
async fn a_frozen_zone_and_a_revoked_application_get_nothing() {
    let kit = Kit::new().await;
    let fields = [("resource", BILLING), ("scope", "agent:lifecycle")];
    kit.app.state.freeze("z1").await.unwrap();
    assert_eq!(reason(&kit.mint(&fields).await), "restriction_active");
    kit.app.state.unfreeze("z1").await.unwrap();
    assert_eq!(kit.mint(&fields).await.status, 200);
    let revoked = Target::Application { id: "billing-agent".into(), extent: Extent::Block };
    kit.app.state.revoke("z1", &revoked, "test").await.unwrap();
    let revoked = kit.mint(&fields).await;
    assert_eq!(revoked.told(), (403, "access_denied"));
    kit.app.state.restore_application("z1", "billing-agent").await.unwrap();
    kit.clock.advance(Duration::from_millis(1));
    assert_eq!(kit.mint(&fields).await.status, 200);
}

async fn gateway_claims(kit: &Kit) -> (Claims, Arc<Resource>) {
    let held = delegated(kit).await;
    let token = kit.mint(&held.fields(BILLING, "invoice.read", &[])).await.text("access_token");
    let claims = serde_json::from_value(claims(&token)).unwrap();
    let zone = Arc::clone(&kit.app.snapshot.load().zones["z1"]);
    (claims, Arc::clone(zone.zone.resource(BILLING).unwrap()))
}

#[tokio::test]
async fn a_resource_mandate_names_one_audience_and_ends_with_its_parent() {
    let kit = Kit::new().await;
    let (parent, resource) = gateway_claims(&kit).await;
    let token = mint_resource(&kit.app, &parent, &resource, NOW).unwrap();
    let keys = kit.app.keyring.zone("z1").unwrap();
    let now = NOW / 1_000;
    let expect =
        Expect { issuer: ISSUER, audience: BILLING, zone: "z1", uses: &[Use::Resource], now, leeway: 0 };
    let mandate = verify(keys.keys.public(), &token, &expect).unwrap();
    let minted = mandate.claims();
    assert_eq!((&*minted.aud, &*minted.target), (&[BILLING.to_owned()][..], &[BILLING.to_owned()][..]));
    assert_eq!((minted.exp - minted.iat, minted.scope.as_deref()), (60, Some("invoice.read")));
    assert_eq!((&minted.root_sid, &minted.delegation_chain), (&parent.root_sid, &parent.delegation_chain));
    assert_ne!((&minted.sid, &minted.jti), (&parent.sid, &parent.jti));
    assert_eq!((minted.epoch.as_ref(), minted.reusable), (None, false));
    assert!(kit.app.state.live_record("z1", &minted.sid, NOW).is_some());
    let root = Target::Root(parent.root_sid.as_str().into());
    kit.app.state.revoke("z1", &root, "test").await.unwrap();
    assert!(kit.app.state.live_record("z1", &minted.sid, NOW).is_none());

    let late = (parent.exp - 10) * 1_000;
    let short = claims(&mint_resource(&kit.app, &parent, &resource, late).unwrap());
    assert_eq!(short["exp"], parent.exp);
    assert_eq!(mint_resource(&kit.app, &parent, &resource, parent.exp * 1_000), Err(MintFault::NoTimeLeft));
    let elsewhere = Claims { zone_id: "z9".into(), ..parent };
    assert_eq!(mint_resource(&kit.app, &elsewhere, &resource, NOW), Err(MintFault::NoKeys));
}
