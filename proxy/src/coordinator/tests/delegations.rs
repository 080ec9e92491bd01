use serde_json::{Value, json};

use crate::authority::testkit::{Kit, OPERATOR, OTHER_SECRET, delegation};

const DELEGATIONS: &str = "/zones/z1/delegations";
const BILLING: &str = "resource://billing";

fn of_billing() -> Value {
    json!({ "resources": [BILLING] })
}

fn path(rest: &str) -> String {
    format!("{DELEGATIONS}/{rest}")
}

/// The body with one member replaced.
fn but(body: &Value, name: &str, value: Value) -> Value {
    let mut body = body.clone();
    body[name] = value;
    body
}

#[tokio::test]
async fn a_delegation_is_created_with_the_documented_body() {
    let kit = Kit::new().await;
    let held = kit.provision(&["invoice.read"], &of_billing()).await;
    let third = kit.session(&held.bearer, &json!({})).await;
    let body = delegation(&held.source, &third, &["invoice.read"], &json!({}));
    let reply = kit.call("POST", DELEGATIONS, &held.bearer, &but(&body, "resource_id", json!(BILLING))).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    let id = reply.text("delegation_edge_id");
    assert_eq!(
        reply.json,
        json!({
            "delegation_edge_id": id, "zone_id": "z1", "source_session_id": held.source,
            "target_session_id": third, "issuer_application_id": "billing-agent",
            "receiver_application_id": "billing-agent", "parent_edge_id": null, "resource_id": "row-billing",
            "scopes": ["invoice.read"], "constraints_json": { "ttl_seconds": 1_020 }, "status": "active",
            "expires_at": "2026-09-21T14:30:20.250Z", "edge_version": 1, "revoked_at": null,
            "created_at": "2026-09-21T14:13:20.250Z", "warnings": [],
            "allow_reason": [
                "same_zone_endpoints_active", "resource_scope_checked", "source_authority_root",
                "typed_constraints_validated",
            ],
            "effective_authority": {
                "source_session_id": held.source, "target_session_id": third, "parent_edge_id": null,
                "resource_id": "row-billing", "resources": [BILLING], "scopes": ["invoice.read"],
                "expires_at": "2026-09-21T14:30:20.250Z", "max_hops": 1, "ttl_seconds": 1_020, "broad": false,
                "parent_edges_considered": [],
            },
        })
    );
}

#[tokio::test]
async fn constraints_are_strict_and_have_their_own_codes() {
    let kit = Kit::new().await;
    let held = kit.provision(&["invoice.read"], &of_billing()).await;
    let cases = [
        (json!({ "surprise": 1 }), "invalid_delegation_constraint"),
        (json!([]), "invalid_delegation_constraint"),
        (json!({ "max_hops": 11 }), "invalid_max_hops"),
        (json!({ "ttl_seconds": 0 }), "invalid_ttl_seconds"),
        (json!({ "resources": "x" }), "invalid_resources"),
        (json!({ "budget": 65 }), "invalid_budget"),
        (json!({ "policy_approved": 1 }), "invalid_policy_approved"),
    ];
    for (constraints, code) in cases {
        let body = delegation(&held.source, &held.target, &["invoice.read"], &constraints);
        let reply = kit.call("POST", DELEGATIONS, &held.bearer, &body).await;
        assert_eq!(reply.told(), (400, code), "{constraints}");
    }
}

#[tokio::test]
async fn a_delegation_is_judged_in_the_documented_order() {
    let kit = Kit::new().await;
    let held = kit.provision(&["invoice.read"], &of_billing()).await;
    let third = kit.session(&held.bearer, &json!({})).await;
    let good = delegation(&held.source, &third, &["invoice.read"], &of_billing());
    let cases = [
        (but(&good, "source_session_id", json!("")), 400, "invalid_body"),
        (but(&good, "scopes", json!(["two words"])), 400, "invalid_body"),
        (but(&good, "ttl_seconds", json!(86_401)), 400, "invalid_body"),
        (but(&good, "expires_at", json!("soon")), 400, "invalid_body"),
        (but(&good, "ttl_seconds", Value::Null), 400, "delegation_expiry_required"),
        (but(&good, "issuer_application_id", json!("other-agent")), 403, "issuer_ownership_required"),
        (but(&good, "target_session_id", json!(held.source)), 400, "self_delegation_denied"),
        (but(&good, "constraints", json!({})), 403, "broad_delegation_permission_required"),
        (but(&good, "target_session_id", json!("nothing")), 404, "delegation_endpoint_not_found"),
        (but(&good, "receiver_application_id", json!("other-agent")), 409, "delegation_application_mismatch"),
        (but(&good, "resource_id", json!("resource://nowhere")), 404, "resource_not_found"),
        (but(&good, "resource_id", json!("resource://plain")), 400, "delegation_resource_scope_mismatch"),
        (but(&good, "scopes", json!(["invoice.unknown"])), 403, "delegation_scopes_exceed_resource"),
        (but(&good, "expires_at", json!("2020-01-01T00:00:00Z")), 400, "delegation_expired"),
    ];
    for (body, status, code) in cases {
        let reply = kit.call("POST", DELEGATIONS, &held.bearer, &body).await;
        assert_eq!(reply.told(), (status, code), "{body}");
    }
    let back = delegation(&held.target, &held.source, &["invoice.read"], &of_billing());
    let reply = kit.call("POST", DELEGATIONS, &held.bearer, &back).await;
    assert!([403, 409].contains(&reply.status), "{reply:?}");
}

#[tokio::test]
async fn a_repeated_delegation_is_answered_again() {
    let kit = Kit::new().await;
    let held = kit.provision(&["invoice.read"], &of_billing()).await;
    let third = kit.session(&held.bearer, &json!({})).await;
    let body = delegation(&held.source, &third, &["invoice.read"], &of_billing());
    let key = [("idempotency-key", "d1")];
    let first = kit.call_with("POST", DELEGATIONS, &held.bearer, &body, &key).await;
    let again = kit.call_with("POST", DELEGATIONS, &held.bearer, &body, &key).await;
    assert_eq!((first.status, again.status, &first.json), (201, 201, &again.json));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let other = but(&body, "ttl_seconds", json!(60));
    let conflict = kit.call_with("POST", DELEGATIONS, &held.bearer, &other, &key).await;
    assert_eq!(conflict.told(), (409, "idempotency_key_conflict"));
}

#[tokio::test]
async fn holders_and_givers_read_their_delegations() {
    let kit = Kit::new().await;
    let held = kit.provision(&["invoice.read"], &of_billing()).await;
    let get = |rest: String, bearer: &str| {
        let (kit, bearer) = (&kit, bearer.to_owned());
        async move { kit.call("GET", &path(&rest), &bearer, &Value::Null).await }
    };
    let inbound = get(format!("inbound/{}", held.target), &held.bearer).await;
    let row = &inbound.json["items"][0];
    assert_eq!((&row["id"], &row["status"]), (&json!(held.edge), &json!("active")));
    assert!(row["expires_at"].is_string());
    assert_eq!(inbound.json["next_cursor"], Value::Null);
    let outbound = get(format!("outbound/{}", held.source), &held.bearer).await;
    assert_eq!(outbound.json["items"][0]["id"], held.edge);
    let one = get(format!("inbound/{}/{}", held.target, held.edge), &held.bearer).await;
    assert_eq!(one.json, json!({ "id": held.edge, "status": "active" }));
    let active = get("active".to_owned(), &held.bearer).await;
    assert_eq!(active.json["items"][0]["broad_reason"], Value::Null);

    let stranger = kit.lifecycle("other-agent", OTHER_SECRET, "resource://other").await;
    assert_eq!(get(format!("inbound/{}", held.target), &stranger).await.told(), (404, "session_not_found"));
    let hidden = get(format!("inbound/{}/{}", held.target, held.edge), &stranger).await;
    assert_eq!(hidden.told(), (404, "delegation_not_found"));
    assert_eq!(get("active".to_owned(), &stranger).await.json["items"], json!([]));
    let missing = get(format!("inbound/{}/nothing", held.target), &held.bearer).await;
    assert_eq!(missing.told(), (404, "delegation_not_found"));
    assert_eq!(get("active?cursor=nothing".to_owned(), &held.bearer).await.told(), (400, "invalid_cursor"));
}

#[tokio::test]
async fn only_an_administrator_walks_the_graph() {
    let kit = Kit::new().await;
    let held = kit.provision(&["invoice.read"], &json!({ "resources": [BILLING], "max_hops": 3 })).await;
    let third = kit.session(&held.bearer, &json!({})).await;
    let below = kit.delegate(&held.bearer, &held.target, &third, &["invoice.read"], &of_billing()).await;
    for route in ["traverse", "impact"] {
        let reply =
            kit.call("GET", &path(&format!("{}/{route}", held.edge)), &held.bearer, &Value::Null).await;
        assert_eq!(reply.told(), (403, "coordinator_admin_required"));
        let missing = kit.call("GET", &path(&format!("nothing/{route}")), OPERATOR, &Value::Null).await;
        assert_eq!(missing.told(), (404, "delegation_not_found"));
    }
    let walk = kit.call("GET", &path(&format!("{}/traverse", held.edge)), OPERATOR, &Value::Null).await;
    assert_eq!(
        walk.json,
        json!([
            { "id": held.edge, "source_session_id": held.source, "target_session_id": held.target, "depth": 0 },
            { "id": below, "source_session_id": held.target, "target_session_id": third, "depth": 1 },
        ])
    );
    let impact = kit.call("GET", &path(&format!("{}/impact", held.edge)), OPERATOR, &Value::Null).await;
    assert_eq!(
        (&impact.json["edge_id"], &impact.json["affected_edges"]),
        (&json!(held.edge), &json!([held.edge, below]))
    );
    let authority = kit
        .call("GET", &format!("/zones/z1/agents/{third}/effective-authority"), OPERATOR, &Value::Null)
        .await;
    assert_eq!(authority.json["effective_scopes"], json!(["invoice.read"]));
    assert_eq!(authority.json["effective_resources"], json!([BILLING]));
}

#[tokio::test]
async fn a_revocation_takes_back_everything_below_and_ends_the_holders() {
    let kit = Kit::new().await;
    let held = kit.provision(&["invoice.read"], &of_billing()).await;
    let stranger = kit.lifecycle("other-agent", OTHER_SECRET, "resource://other").await;
    let revoke = path(&format!("{}/revoke", held.edge));
    let refused = kit.call("PATCH", &revoke, &stranger, &Value::Null).await;
    assert_eq!(refused.told(), (403, "issuer_ownership_required"));
    let done = kit.call("PATCH", &revoke, &held.bearer, &Value::Null).await;
    assert_eq!(done.status, 200);
    assert_eq!(done.json, json!({ "revoked_edges": 1, "affected_sessions": 1, "terminated_sessions": 1 }));
    let again = kit.call("PATCH", &revoke, &held.bearer, &Value::Null).await;
    assert_eq!(again.told(), (404, "delegation_not_found"));
    let target =
        kit.call("GET", &format!("/zones/z1/agents/{}", held.target), &held.bearer, &Value::Null).await;
    assert_eq!(target.json["termination_reason"], "delegation_revoked");
    let lines = kit.ledger("z1").await;
    let event =
        lines.iter().rfind(|line| line["event_type"] == "delegation_revoke" && line["decision"] == "allow");
    assert_eq!(event.unwrap()["metadata_json"]["delegations"], json!([held.edge]));
}
