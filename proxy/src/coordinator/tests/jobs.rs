use serde_json::{Value, json};

use crate::authority::testkit::{Kit, OPERATOR, OTHER_SECRET, Reply, SECRET};

const SERVICES: &str = "/zones/z1/agent-services";
const INVOCATIONS: &str = "/zones/z1/invocations";

struct Parties {
    kit: Kit,
    asks: String,
    serves: String,
    service: String,
}

impl Parties {
    async fn new() -> Self {
        let kit = Kit::new().await;
        let asks = kit.lifecycle("billing-agent", SECRET, "resource://billing").await;
        let serves = kit.lifecycle("other-agent", OTHER_SECRET, "resource://other").await;
        let registered = kit.call("POST", SERVICES, &serves, &description()).await;
        assert_eq!(registered.status, 201, "{registered:?}");
        Self { service: registered.text("id"), kit, asks, serves }
    }

    async fn create(&self, more: &Value) -> Reply {
        let mut body = json!({ "service_id": self.service, "idempotency_key": "k", "method": "run" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.kit.call("POST", INVOCATIONS, &self.asks, &body).await
    }

    async fn step(&self, id: &str, step: &str, bearer: &str, body: &Value) -> Reply {
        self.kit.call("PATCH", &format!("{INVOCATIONS}/{id}/{step}"), bearer, body).await
    }
}

fn description() -> Value {
    json!({
        "application_id": "other-agent", "endpoint_url": "http://127.0.0.1:7000/run",
        "protocol_versions": ["1"], "framework": { "name": "own", "version": "2" },
        "capabilities": ["summarise"], "metadata": { "team": "x" },
    })
}

#[tokio::test]
async fn a_service_is_registered_listed_and_heard_of() {
    let parties = Parties::new().await;
    let kit = &parties.kit;
    let listed = kit.call("GET", SERVICES, &parties.asks, &Value::Null).await;
    let row = &listed.json["items"][0];
    assert_eq!((&row["framework_name"], &row["health"]), (&json!("own"), &json!("starting")));
    assert_eq!(row["endpoint_url"], "http://127.0.0.1:7000/run");
    assert_eq!(kit.call("GET", SERVICES, OPERATOR, &Value::Null).await.status, 200);
    assert_eq!(kit.call("POST", SERVICES, OPERATOR, &description()).await.told(), (401, "invalid_token"));
    let foreign = kit.call("POST", SERVICES, &parties.asks, &description()).await;
    assert_eq!(foreign.told(), (403, "application_ownership_required"));
    for (member, bad) in [
        ("endpoint_url", json!("ftp://a.example")),
        ("endpoint_url", json!("http://u:p@a.example")),
        ("framework", json!({ "version": "1" })),
        ("capabilities", json!([""])),
        ("application_id", json!(7)),
    ] {
        let mut body = description();
        body[member] = bad;
        let reply = kit.call("POST", SERVICES, &parties.serves, &body).await;
        assert_eq!(reply.told(), (400, "invalid_body"), "{member}");
        assert_eq!(reply.json["details"]["issues"][0]["path"], json!([member]));
    }

    let start = json!({ "application_id": "other-agent", "lifecycle": "service" });
    let session =
        kit.call("POST", "/zones/z1/agents", &parties.serves, &start).await.text("agent_session_id");
    let path = format!("/zones/z1/agents/{session}/heartbeat");
    let beat = json!({ "lease_generation": 1, "service_id": parties.service, "status": "degraded" });
    let heard = kit.call("POST", &path, &parties.serves, &beat).await;
    assert_eq!(heard.json["service"]["health"], "degraded", "{heard:?}");
    assert!(heard.json["service"]["last_heartbeat_at"].is_string());
}

#[tokio::test]
async fn an_invocation_is_created_once_and_worked_on() {
    let parties = Parties::new().await;
    let made = parties.create(&json!({ "params": [1, 2], "retry_policy": { "max_attempts": 1 } })).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!((&made.json["status"], &made.json["timeout_ms"]), (&json!("pending"), &json!(30_000)));
    assert_eq!(made.json["retry_policy_json"], json!({ "max_attempts": 1, "backoff_ms": 1_000 }));
    assert_eq!(made.json["deadline_at"], Value::Null);
    let again = parties.create(&json!({ "params": [1, 2], "retry_policy": { "max_attempts": 1 } })).await;
    assert_eq!(
        (again.status, &again.headers["idempotency-replayed"]),
        (201, &http::HeaderValue::from_static("true"))
    );
    assert_eq!(again.json["id"], made.json["id"]);
    assert_eq!(parties.create(&json!({ "params": [3] })).await.told(), (409, "idempotency_key_conflict"));

    let id = made.text("id");
    let not_theirs = parties.step(&id, "start", &parties.asks, &Value::Null).await;
    assert_eq!(not_theirs.told(), (403, "application_ownership_required"));
    let running = parties.step(&id, "start", &parties.serves, &Value::Null).await;
    assert_eq!((&running.json["status"], &running.json["attempts"]), (&json!("running"), &json!(1)));
    assert!(running.json["deadline_at"].is_string());
    let stop = parties.step(&id, "cancel", &parties.asks, &json!({ "reason": "late" })).await;
    assert_eq!(stop.json["status"], "cancel_requested");
    let bad = parties.step(&id, "complete", &parties.serves, &json!({ "status": "maybe" })).await;
    assert_eq!(bad.told(), (400, "invalid_body"));
    let done = json!({ "status": "succeeded", "metadata": { "rows": 3 } });
    assert_eq!(parties.step(&id, "complete", &parties.serves, &done).await.json["status"], "succeeded");
    let over = parties.step(&id, "cancel", &parties.asks, &Value::Null).await;
    assert_eq!(over.told(), (409, "invocation_not_cancelable"));

    let path = format!("{INVOCATIONS}/{id}");
    let shown = parties.kit.call("GET", &path, &parties.asks, &Value::Null).await;
    assert_eq!(
        (&shown.json["params"], &shown.json["outcome"]["metadata"]["rows"]),
        (&json!([1, 2]), &json!(3))
    );
    let list = |query: &str| format!("{INVOCATIONS}?{query}");
    let found = parties.kit.call("GET", &list("status=succeeded"), OPERATOR, &Value::Null).await;
    assert_eq!(found.json["items"].as_array().unwrap().len(), 1);
    assert!(found.json["items"][0].get("params").is_none(), "lists carry no payloads");
    let none = parties.kit.call("GET", &list("status=dead"), &parties.asks, &Value::Null).await;
    assert_eq!(none.json["items"], json!([]));
    let events = parties.kit.ledger("z1").await;
    for kind in [
        "agent_service_register",
        "invocation_create",
        "invocation_start",
        "invocation_cancel",
        "invocation_complete",
    ] {
        assert!(events.iter().any(|event| event["event_type"] == kind), "{kind}");
    }
}

#[tokio::test]
async fn a_failed_invocation_with_an_attempt_left_can_be_given_up() {
    let parties = Parties::new().await;
    let id = parties.create(&json!({})).await.text("id");
    parties.step(&id, "start", &parties.serves, &Value::Null).await;
    let failed = parties.step(&id, "complete", &parties.serves, &json!({ "status": "failed" })).await;
    assert_eq!(failed.json["status"], "failed");
    let canceled = parties.step(&id, "cancel", &parties.asks, &Value::Null).await;
    assert_eq!((canceled.status, &canceled.json["status"]), (200, &json!("canceled")));
}

#[tokio::test]
async fn odd_invocations_are_refused_with_the_place_of_the_problem() {
    let parties = Parties::new().await;
    for (more, place) in [
        (json!({ "idempotency_key": null }), "idempotency_key"),
        (json!({ "method": "" }), "method"),
        (json!({ "timeout_ms": 900_001 }), "timeout_ms"),
        (json!({ "retry_policy": { "max_attempts": 11 } }), "retry_policy"),
        (json!({ "metadata": [] }), "metadata"),
    ] {
        let reply = parties.create(&more).await;
        assert_eq!(reply.told(), (400, "invalid_body"), "{place}");
        assert_eq!(reply.json["details"]["issues"][0]["path"], json!([place]));
    }
    let spaced = parties.create(&json!({ "idempotency_key": " k" })).await;
    assert_eq!(spaced.told(), (400, "idempotency_key_invalid"));
    let lost = parties.create(&json!({ "service_id": "nobody" })).await;
    assert_eq!(lost.told(), (404, "agent_service_not_found"));
    let path = format!("{INVOCATIONS}/nobody");
    assert_eq!(
        parties.kit.call("GET", &path, &parties.asks, &Value::Null).await.told(),
        (404, "invocation_not_found")
    );
    assert_eq!(parties.kit.call("GET", &path, OPERATOR, &Value::Null).await.told(), (401, "invalid_token"));
}
