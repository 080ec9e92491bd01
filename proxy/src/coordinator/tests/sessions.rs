use std::time::Duration;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use crate::authority::testkit::{Kit, OPERATOR, OTHER_SECRET, SECRET, claims};
use crate::ledger::LedgerOptions;

const AGENTS: &str = "/zones/z1/agents";

async fn bearer(kit: &Kit) -> String {
    kit.lifecycle("billing-agent", SECRET, "resource://billing").await
}

async fn other(kit: &Kit) -> String {
    kit.lifecycle("other-agent", OTHER_SECRET, "resource://other").await
}

fn path(id: &str, rest: &str) -> String {
    format!("{AGENTS}/{id}{rest}")
}

#[tokio::test]
async fn a_task_starts_with_the_documented_body() {
    let kit = Kit::new().await;
    let token = bearer(&kit).await;
    let body = json!({
        "application_id": "billing-agent", "labels": [" billing-agent "], "ttl_seconds": 1_020,
        "parent_id": null, "metadata": { "run": 7 }, "subject_token": "ignored", "surprise": 1,
    });
    let reply = kit.call("POST", AGENTS, &token, &body).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(reply.headers["x-request-id"], "req-2");
    let id = reply.text("agent_session_id");
    assert_eq!(
        reply.json,
        json!({
            "agent_session_id": id, "zone_id": "z1", "application_id": "billing-agent", "parent_id": null,
            "subject_authority_record_id": claims(&token)["sid"], "lifecycle": "task",
            "labels": ["billing-agent"], "status": "active", "depth": 0, "ttl_seconds": 1_020,
            "started_at": "2026-09-21T14:13:20.250Z", "last_heartbeat_at": null,
            "heartbeat_deadline_at": null, "lease_generation": 0, "delegation_edge_id": null,
        })
    );
    let read = kit.call("GET", &path(&id, ""), &token, &Value::Null).await;
    assert_eq!((read.status, &read.json["metadata"]), (200, &json!({ "run": 7 })));
    assert_eq!(read.json["termination_reason"], Value::Null);
}

#[tokio::test]
async fn a_service_has_a_lease_that_is_kept_and_fenced() {
    let kit = Kit::new().await;
    let token = bearer(&kit).await;
    let body = json!({ "application_id": "billing-agent", "lifecycle": "service" });
    let started = kit.call("POST", AGENTS, &token, &body).await;
    assert_eq!((started.status, &started.json["ttl_seconds"]), (201, &Value::Null));
    assert_eq!(started.json["lease_generation"], 1);
    assert_eq!(started.json["heartbeat_deadline_at"], "2026-09-21T14:15:20.250Z");
    let id = started.text("agent_session_id");

    kit.clock.advance(Duration::from_secs(10));
    let beat = json!({ "status": "healthy", "lease_generation": 1 });
    let reply = kit.call("POST", &path(&id, "/heartbeat"), &token, &beat).await;
    assert_eq!(
        reply.json,
        json!({
            "agent": {
                "id": id, "zone_id": "z1", "application_id": "billing-agent", "status": "active",
                "last_active_at": "2026-09-21T14:13:30.250Z", "last_heartbeat_at": "2026-09-21T14:13:30.250Z",
                "heartbeat_deadline_at": "2026-09-21T14:15:30.250Z", "lease_generation": 1,
            },
            "service": null, "active_invocations": 0,
        })
    );
    let lease = kit.call("POST", &path(&id, "/lease"), &token, &Value::Null).await;
    assert_eq!(
        lease.json,
        json!({ "status": "active", "heartbeat_deadline_at": "2026-09-21T14:15:30.250Z", "lease_generation": 2 })
    );
    let fenced = kit.call("POST", &path(&id, "/heartbeat"), &token, &beat).await;
    assert_eq!(fenced.told(), (409, "session_lease_fenced"));
    let none = kit.call("DELETE", &path(&id, ""), &token, &Value::Null).await;
    assert_eq!(none.told(), (400, "lease_generation_required"));
    let old = kit.call("DELETE", &path(&id, ""), &token, &json!({ "lease_generation": 1 })).await;
    assert_eq!(old.told(), (409, "session_lease_fenced"));

    kit.call("PATCH", &path(&id, "/suspend"), OPERATOR, &Value::Null).await;
    let suspended = kit.call("POST", &path(&id, "/lease"), &token, &Value::Null).await;
    assert_eq!(suspended.told(), (409, "session_suspended"));
    kit.call("PATCH", &path(&id, "/resume"), OPERATOR, &Value::Null).await;
    kit.clock.advance(Duration::from_secs(121));
    let beat = json!({ "lease_generation": 2 });
    let late = kit.call("POST", &path(&id, "/heartbeat"), &token, &beat).await;
    assert_eq!(late.told(), (409, "session_lease_expired"));
    let ended = kit.call("DELETE", &path(&id, ""), OPERATOR, &Value::Null).await;
    assert_eq!((ended.status, ended.json), (204, Value::Null));
    let dead = kit.call("POST", &path(&id, "/heartbeat"), &token, &beat).await;
    assert_eq!(dead.told(), (409, "session_not_live"));
}

#[tokio::test]
async fn a_body_is_refused_with_every_problem_and_its_place() {
    let kit = Kit::new().await;
    let token = bearer(&kit).await;
    let too_many = vec!["x"; 33];
    let long = "x".repeat(65);
    let cases = [
        (json!({}), "application_id"),
        (json!({ "application_id": "" }), "application_id"),
        (json!({ "application_id": "billing-agent", "lifecycle": "forever" }), "lifecycle"),
        (json!({ "application_id": "billing-agent", "ttl_seconds": 0 }), "ttl_seconds"),
        (json!({ "application_id": "billing-agent", "ttl_seconds": 86_401 }), "ttl_seconds"),
        (
            json!({ "application_id": "billing-agent", "lifecycle": "service", "ttl_seconds": 5 }),
            "ttl_seconds",
        ),
        (json!({ "application_id": "billing-agent", "labels": too_many }), "labels"),
        (json!({ "application_id": "billing-agent", "labels": [long] }), "labels"),
        (json!({ "application_id": "billing-agent", "labels": [" "] }), "labels"),
        (json!({ "application_id": "billing-agent", "metadata": [] }), "metadata"),
        (json!({ "application_id": "billing-agent", "parent_authority": "all" }), "parent_authority"),
    ];
    for (body, member) in cases {
        let reply = kit.call("POST", AGENTS, &token, &body).await;
        assert_eq!(reply.told(), (400, "invalid_body"), "{body}");
        assert_eq!(reply.json["details"]["issues"][0]["path"], json!([member]), "{body}");
        assert_eq!((reply.text("requestId"), reply.text("request_id")), ("req-2".into(), "req-2".into()));
        assert!(reply.json["error_description"].is_string());
    }
    let raw = |body: String, content_type: &'static str| {
        Request::post(AGENTS)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", content_type)
            .body(Body::from(body))
            .unwrap()
    };
    let json = "application/json";
    assert_eq!(Kit::send(&kit.coordinator, raw("{".into(), json)).await.told(), (400, "invalid_body"));
    assert_eq!(Kit::send(&kit.coordinator, raw(String::new(), json)).await.told(), (400, "invalid_body"));
    let text = Kit::send(&kit.coordinator, raw("{}".into(), "text/plain")).await;
    assert_eq!(text.told(), (415, "unsupported_media_type"));
    let large = Kit::send(&kit.coordinator, raw("x".repeat(256 * 1024 + 1), json)).await;
    assert_eq!(large.told(), (413, "payload_too_large"));
}

#[tokio::test]
async fn a_start_is_judged_in_the_documented_order() {
    let kit = Kit::new().await;
    let token = bearer(&kit).await;
    let start = |body: Value| {
        let (kit, token) = (&kit, &token);
        async move { kit.call("POST", AGENTS, token, &body).await }
    };
    let foreign = start(json!({ "application_id": "other-agent" })).await;
    assert_eq!(foreign.told(), (403, "application_ownership_required"));
    let unknown = start(json!({ "application_id": "billing-agent", "subject_session_id": "r" })).await;
    assert_eq!(unknown.told(), (404, "session_not_found"));
    assert!(unknown.json["detail"].is_string());
    let orphan = start(json!({ "application_id": "billing-agent", "parent_id": "p" })).await;
    assert_eq!(orphan.told(), (404, "parent_not_found"));
    let task = kit.session(&token, &json!({})).await;
    let service = json!({ "application_id": "billing-agent", "parent_id": task, "lifecycle": "service" });
    assert_eq!(start(service).await.told(), (409, "task_session_cannot_start_service"));
    let theirs = other(&kit).await;
    let under = json!({ "application_id": "other-agent", "parent_id": task });
    assert_eq!(kit.call("POST", AGENTS, &theirs, &under).await.told(), (403, "parent_ownership_required"));
}

#[tokio::test]
async fn a_repeated_start_is_answered_again() {
    let kit = Kit::new().await;
    let token = bearer(&kit).await;
    let key = [("idempotency-key", "k1"), ("idempotency-key-kind", "generated")];
    let body = json!({ "application_id": "billing-agent" });
    let first = kit.call_with("POST", AGENTS, &token, &body, &key).await;
    assert_eq!(first.status, 201);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    // A renewed mandate has another sid; the retry is still the same request.
    let renewed = bearer(&kit).await;
    let again = kit.call_with("POST", AGENTS, &renewed, &body, &key).await;
    assert_eq!((again.status, &again.json), (201, &first.json));
    assert_eq!(again.headers["idempotency-replayed"], "true");

    let different = json!({ "application_id": "billing-agent", "labels": ["x"] });
    let conflict = kit.call_with("POST", AGENTS, &token, &different, &key).await;
    assert_eq!(conflict.told(), (409, "idempotency_key_conflict"));
    assert!(conflict.json["message"].is_string() && conflict.json["request_id"].is_string());
    kit.call("DELETE", &path(&first.text("agent_session_id"), ""), &token, &Value::Null).await;
    let gone = kit.call_with("POST", AGENTS, &token, &body, &key).await;
    assert_eq!(gone.told(), (409, "idempotency_result_inactive"));

    let two = [("idempotency-key", "a"), ("idempotency-key", "b")];
    let multiple = kit.call_with("POST", AGENTS, &token, &body, &two).await;
    assert_eq!(multiple.told(), (400, "idempotency_key_multiple"));
    let invalid = kit.call_with("POST", AGENTS, &token, &body, &[("idempotency-key", "a\tb")]).await;
    assert_eq!(invalid.told(), (400, "idempotency_key_invalid"));
}

#[tokio::test]
async fn an_application_sees_only_its_own_sessions() {
    let kit = Kit::new().await;
    let (mine, theirs) = (bearer(&kit).await, other(&kit).await);
    let id = kit.session(&mine, &json!({})).await;
    let hidden = kit.call("GET", &path(&id, ""), &theirs, &Value::Null).await;
    assert_eq!(hidden.told(), (404, "session_not_found"));
    let list = kit.call("GET", AGENTS, &theirs, &Value::Null).await;
    assert_eq!(list.json, json!({ "items": [], "next_cursor": null }));
    for (method, verb) in [("PATCH", "/suspend"), ("DELETE", ""), ("POST", "/lease")] {
        let reply = kit.call(method, &path(&id, verb), &theirs, &Value::Null).await;
        assert!(reply.status == 403 || reply.status == 404, "{verb}: {reply:?}");
    }
    assert_eq!(kit.call("GET", &path(&id, ""), &mine, &Value::Null).await.json["status"], "active");
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    let kit = Kit::new().await;
    let token = bearer(&kit).await;
    let mut ids = Vec::new();
    for label in ["a", "b", "a"] {
        kit.clock.advance(Duration::from_millis(1));
        ids.push(kit.session(&token, &json!({ "labels": [label] })).await);
    }
    let list = |query: String| {
        let (kit, token) = (&kit, &token);
        async move { kit.call("GET", &format!("{AGENTS}?{query}"), token, &Value::Null).await }
    };
    let first = list("limit=2".into()).await;
    let cursor = first.text("next_cursor");
    assert_eq!((first.json["items"].as_array().unwrap().len(), &cursor), (2, &ids[1]));
    let rest = list(format!("limit=2&cursor={cursor}")).await;
    assert_eq!(rest.json["items"][0]["agent_session_id"], ids[0]);
    assert_eq!(rest.json["next_cursor"], Value::Null);
    assert_eq!(
        list("label=a&status=active&lifecycle=task".into()).await.json["items"].as_array().unwrap().len(),
        2
    );
    assert_eq!(list("limit=0".into()).await.told(), (400, "invalid_query"));
    assert_eq!(list("cursor=nothing".into()).await.told(), (400, "invalid_cursor"));
}

#[tokio::test]
async fn suspending_and_ending_reach_the_whole_subtree() {
    let kit = Kit::new().await;
    let token = bearer(&kit).await;
    let root = kit.session(&token, &json!({})).await;
    let child = kit.session(&token, &json!({ "parent_id": root })).await;
    let children = kit.call("GET", &path(&root, "/children"), &token, &Value::Null).await;
    assert_eq!(children.json["items"][0]["agent_session_id"], child);
    assert!(children.json["items"][0].get("terminated_at").is_none());

    let suspend = kit.call("PATCH", &path(&root, "/suspend"), &token, &Value::Null).await;
    assert_eq!((suspend.status, suspend.json), (200, json!({ "suspended": 2 })));
    let twice = kit.call("PATCH", &path(&root, "/suspend"), &token, &Value::Null).await;
    assert_eq!(twice.told(), (409, "session_not_found_or_not_active"));
    let resume = kit.call("PATCH", &path(&root, "/resume"), &token, &Value::Null).await;
    assert_eq!((resume.status, resume.json), (200, json!({ "resumed": 2 })));
    let twice = kit.call("PATCH", &path(&root, "/resume"), &token, &Value::Null).await;
    assert_eq!(twice.told(), (409, "session_not_found_or_not_suspended"));

    let bad = kit.call("DELETE", &path(&root, "?reason="), &token, &Value::Null).await;
    assert_eq!(bad.told(), (400, "invalid_query"));
    let bad = kit.call("DELETE", &path(&root, ""), &token, &json!({ "lease_generation": "one" })).await;
    assert_eq!(bad.told(), (400, "invalid_body"));
    let ended = kit.call("DELETE", &path(&root, "?reason=done"), &token, &Value::Null).await;
    assert_eq!(ended.status, 204);
    let read = kit.call("GET", &path(&root, ""), &token, &Value::Null).await;
    assert_eq!(
        (&read.json["status"], &read.json["termination_reason"]),
        (&json!("terminated"), &json!("done"))
    );
    let below = kit.call("GET", &path(&child, ""), &token, &Value::Null).await;
    assert_eq!(below.json["termination_reason"], "parent_terminated");
    let again = kit.call("DELETE", &path(&root, ""), &token, &Value::Null).await;
    assert_eq!(again.told(), (404, "session_not_found"));
    for verb in ["/suspend", "/resume"] {
        let missing = kit.call("PATCH", &path("nothing", verb), &token, &Value::Null).await;
        assert_eq!(missing.told(), (404, "session_not_found"));
    }
}

#[tokio::test]
async fn heartbeats_are_checked() {
    let kit = Kit::new().await;
    let token = bearer(&kit).await;
    let task = kit.session(&token, &json!({})).await;
    let beat = |id: String, body: Value| {
        let (kit, token) = (&kit, &token);
        async move { kit.call("POST", &path(&id, "/heartbeat"), token, &body).await }
    };
    assert_eq!(
        beat(task.clone(), json!({ "lease_generation": 1 })).await.told(),
        (409, "session_not_service")
    );
    assert_eq!(beat(task.clone(), json!({})).await.told(), (400, "invalid_body"));
    assert_eq!(beat(task.clone(), json!({ "lease_generation": 0 })).await.told(), (400, "invalid_body"));
    let odd = json!({ "lease_generation": 1, "status": "splendid" });
    assert_eq!(beat(task.clone(), odd).await.told(), (400, "invalid_body"));
    let service = json!({ "lease_generation": 1, "service_id": "s" });
    assert_eq!(beat(task, service).await.told(), (404, "agent_service_not_found"));
    assert_eq!(
        beat("nothing".into(), json!({ "lease_generation": 1 })).await.told(),
        (404, "session_not_found")
    );
}

#[tokio::test]
async fn every_change_is_in_the_ledger_and_none_happens_without_it() {
    let kit = Kit::with_options(LedgerOptions { queue: 4, ..LedgerOptions::default() }).await;
    let token = bearer(&kit).await;
    let id = kit.session(&token, &json!({})).await;
    kit.call("PATCH", &path(&id, "/resume"), &token, &Value::Null).await;
    let lines = kit.ledger("z1").await;
    let find = |kind: &str| lines.iter().find(|line| line["event_type"] == kind).unwrap();
    let start = find("session_start");
    assert_eq!((&start["decision"], &start["evaluation_status"]), (&json!("allow"), &json!("complete")));
    assert_eq!(start["metadata_json"]["agent_session_id"], id);
    assert_eq!(start["metadata_json"]["caller"], "billing-agent");
    assert_eq!(start["metadata_json"]["client_request_id"], "req-2");
    let resume = find("session_resume");
    assert_eq!(resume["decision"], "deny");
    assert_eq!(resume["evaluation_status"], "session_not_found_or_not_suspended");
    assert!(!format!("{lines:?}").contains(&token));

    let held: Vec<_> = (0..8).map_while(|_| kit.app.ledger.admit("z1").ok()).collect();
    let refused = kit.call("DELETE", &path(&id, ""), &token, &Value::Null).await;
    assert_eq!(refused.told(), (503, "audit_unavailable"));
    drop(held);
    let read = kit.call("GET", &path(&id, ""), &token, &Value::Null).await;
    assert_eq!(read.json["status"], "active");
}

#[tokio::test]
async fn a_frozen_zone_starts_nothing_and_still_ends_things() {
    let kit = Kit::new().await;
    let token = bearer(&kit).await;
    let id = kit.session(&token, &json!({})).await;
    kit.app.state.freeze("z1").await.unwrap();
    let start = kit.call("POST", AGENTS, &token, &json!({ "application_id": "billing-agent" })).await;
    assert_eq!(start.told(), (403, "zone_frozen"));
    assert_eq!(kit.call("DELETE", &path(&id, ""), OPERATOR, &Value::Null).await.status, 204);
}
