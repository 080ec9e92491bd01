//! The governed call: authenticated, decided, given a credential its caller never saw, proxied, recorded.

use serde_json::{Value, json};

use crate::edge::{APP, Agent, CANARY, ECHO, Edge, Plan, ZONE, bootstrap};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_reaches_its_upstream_with_the_credential_and_without_the_mandate() {
    let edge = Edge::start().await;
    let mandate = edge.mandate().await;
    let response = edge.get("/read/a?b=c", &mandate).header("x-request-id", "req-7").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-request-id"], "req-7");
    let left: i64 = response.headers()["x-caracal-token-expires-in"].to_str().unwrap().parse().unwrap();
    assert!((880..=900).contains(&left), "{left}");
    assert_eq!(response.text().await.unwrap(), "hello GET /read/a?b=c HTTP/1.1");
    let seen = edge.upstream.last();
    assert_eq!(seen.header("x-api-key"), [CANARY]);
    assert_eq!(seen.header("host"), [edge.upstream.address.to_string()]);
    assert_eq!(seen.header("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.header("x-forwarded-proto"), ["http"]);
    assert!(seen.header("authorization").is_empty() && !seen.head.contains(&mandate));
    assert!(!seen.head.to_ascii_lowercase().contains("x-caracal"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decision_and_result_are_recorded_and_the_secret_is_nowhere_but_at_the_upstream() {
    let edge = Edge::start().await;
    let mandate = edge.mandate().await;
    let response = edge.get("/read/a", &mandate).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let lines = edge.ledger_with("gateway_resource_request", 1).await;
    let decision = lines.iter().find(|line| line["event_type"] == "gateway_decision").unwrap();
    let result = lines.iter().find(|line| line["event_type"] == "gateway_resource_request").unwrap();
    assert_eq!(decision["request_id"], result["request_id"]);
    assert_eq!(decision["decision"], "allow");
    assert_eq!(decision["determining_policies_json"], json!([{ "policy": "caracal-one-use" }]));
    assert_eq!(decision["metadata_json"]["scopes"], json!(["echo:read"]));
    assert_eq!(decision["metadata_json"]["path"], "/read/a");
    assert_eq!(result["metadata_json"]["decision_id"], decision["id"]);
    assert_eq!(result["metadata_json"]["upstream_status"], 200);
    assert_eq!(result["metadata_json"]["auth_mode"], "provider_apikey");
    assert_eq!(result["evaluation_status"], "executed");
    let metrics =
        edge.http.get(format!("{}/metrics", edge.ops())).send().await.unwrap().text().await.unwrap();
    let text = lines.iter().map(Value::to_string).collect::<String>() + &metrics;
    assert!(!text.contains(CANARY) && !text.contains(&mandate));
    assert!(
        metrics.contains(
            "caracal_gateway_requests_total{code=\"ok\",resource=\"resource://echo\",zone=\"z1\"} 1"
        )
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mandate_is_good_for_one_call() {
    let edge = Edge::start().await;
    let mandate = edge.mandate().await;
    assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200);
    let again = edge.get("/read/a", &mandate).send().await.unwrap();
    assert_eq!(again.status(), 401);
    assert_eq!(again.headers()["www-authenticate"], "Bearer error=\"invalid_token\"");
    let body: Value = again.json().await.unwrap();
    assert_eq!(body["error"], "invalid_token");
    assert_eq!(body["error_description"], "token replay detected");
    assert_eq!(edge.upstream.count(), 1);
    let replays = edge.ledger().await.into_iter().filter(|line| line["event_type"] == "replay_detected");
    assert_eq!(replays.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_simultaneous_uses_exactly_one_passes() {
    let edge = Edge::start().await;
    for _ in 0..5 {
        let mandate = edge.mandate().await;
        let uses = (0..8).map(|_| edge.get("/read/a", &mandate).send());
        let answers = futures_util::future::join_all(uses).await;
        let passed = answers.into_iter().filter(|answer| answer.as_ref().unwrap().status() == 200);
        assert_eq!(passed.count(), 1);
    }
    assert_eq!(edge.upstream.count(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_request_before_the_mark_does_not_burn_the_mandate() {
    let edge = Edge::start().await;
    let mandate = edge.mandate().await;
    let malformed = edge.get("/read/%252e%252e/admin", &mandate).send().await.unwrap();
    assert_eq!(malformed.status(), 400);
    assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_that_the_mandate_does_not_cover_burns_it_and_says_what_is_missing() {
    let edge = Edge::start().await;
    let mandate = edge.mandate().await;
    let denied = edge
        .http
        .post(format!("{}/write/x", edge.gateway()))
        .header("x-caracal-resource", ECHO)
        .bearer_auth(&mandate)
        .body("payload")
        .send()
        .await
        .unwrap();
    assert_eq!(denied.status(), 403);
    assert_eq!(denied.headers()["x-caracal-error"], "operation_not_permitted");
    let body: Value = denied.json().await.unwrap();
    assert_eq!(body["error"], "operation_not_permitted");
    assert_eq!(body["missing"]["scopes"], json!(["echo:write"]));
    assert!(body["decision_id"].is_string() && body["next_step"].is_string());
    assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 401, "burnt");
    assert_eq!(edge.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_that_policy_does_not_grant_is_refused_at_mint() {
    let edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read", "echo:write"]).await;
    let (status, body) = agent.try_mint(&edge, &["echo:write"], &[]).await;
    assert_eq!(status, 403);
    assert_eq!(body["error"], "access_denied");
    assert_eq!(body["error_description"], "policy denied (role_scope_mismatch)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unmodified_client_may_use_a_host_or_a_prefix_and_its_own_key_slot() {
    let edge = Edge::start().await;
    let prefixed = |mandate: String| {
        edge.http.get(format!("{}/echo/read/a", edge.gateway())).header("x-api-key", mandate)
    };
    let by_prefix = prefixed(edge.mandate().await).send().await.unwrap();
    assert_eq!(by_prefix.text().await.unwrap(), "hello GET /read/a HTTP/1.1");
    assert_eq!(edge.upstream.last().header("x-api-key"), [CANARY]);
    let by_host = edge
        .http
        .get(format!("{}/read/b", edge.gateway()))
        .header("host", "Echo.Test")
        .bearer_auth(edge.mandate().await)
        .send()
        .await
        .unwrap();
    assert_eq!(by_host.text().await.unwrap(), "hello GET /read/b HTTP/1.1");
    let conflict = prefixed(edge.mandate().await).bearer_auth(edge.mandate().await).send().await.unwrap();
    assert_eq!(conflict.status(), 400);
    let nowhere = edge.http.get(format!("{}/nowhere", edge.gateway())).send().await.unwrap();
    assert_eq!(nowhere.status(), 421);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_stream_passes_without_buffering() {
    let edge = Edge::start().await;
    let mandate = edge.mandate().await;
    let mut response =
        edge.get("/read/sse", &mandate).header("accept", "text/event-stream").send().await.unwrap();
    let first =
        tokio::time::timeout(std::time::Duration::from_secs(5), response.chunk()).await.unwrap().unwrap();
    assert_eq!(first.unwrap(), "data: one\n\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reusable_mandate_needs_the_resource_the_mint_and_the_claim() {
    let plain = Edge::start().await;
    let agent = Agent::provision(&plain, &["echo:read"]).await;
    let (status, _) = agent.try_mint(&plain, &["echo:read"], &[("reusable", "true")]).await;
    assert_eq!(status, 403, "the resource does not allow it");
    let edge = Edge::with(Plan { resource: "reusable_mandates = true".into(), ..Plan::default() }).await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let single = agent.mint(&edge, &["echo:read"]).await;
    assert_eq!(edge.get("/read/a", &single).send().await.unwrap().status(), 200);
    assert_eq!(edge.get("/read/a", &single).send().await.unwrap().status(), 401, "nobody asked for reuse");
    let (status, body) = agent.try_mint(&edge, &["echo:read"], &[("reusable", "true")]).await;
    assert_eq!(status, 200, "{body}");
    let reusable = body["access_token"].as_str().unwrap();
    for _ in 0..3 {
        assert_eq!(edge.get("/read/a", reusable).send().await.unwrap().status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_mandate_is_not_accepted_at_the_gateway() {
    let edge = Edge::start().await;
    let bearer = bootstrap(&edge).await;
    let response = edge.get("/read/a", &bearer).send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.json::<Value>().await.unwrap()["error"], "invalid_token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_wants_mandates_gets_one_of_its_own() {
    let plan = Plan { provider: "kind = \"caracal_mandate\"".into(), ..Plan::default() };
    let edge = Edge::with(plan).await;
    let mandate = edge.mandate().await;
    assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200);
    let seen = edge.upstream.last();
    let resource = seen.header("authorization")[0].strip_prefix("Bearer ").unwrap().to_owned();
    assert_ne!(resource, mandate);
    let claims = claims(&resource);
    assert_eq!(claims["use"], "resource");
    assert_eq!(claims["aud"], json!([ECHO]));
    assert_eq!((&claims["zone_id"], &claims["client_id"]), (&json!(ZONE), &json!(APP)));
    let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert!((1..=60).contains(&life), "{life}");
    let presented = edge.get("/read/a", &resource).send().await.unwrap();
    assert_eq!(presented.status(), 401, "a resource mandate is no gateway mandate");
}

fn claims(token: &str) -> Value {
    use base64::Engine;
    let payload = token.split('.').nth(1).unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}
