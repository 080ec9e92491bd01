//! Guards at the gateway: what they see of a request, what its caller is told, and what is sent on.

use serde_json::{Value, json};

use crate::edge::{Agent, CANARY, ECHO, Edge, Plan};
use crate::framing::exchange;

const READ: &str = "echo:read";

async fn guarded(guards: &str) -> (Edge, Agent) {
    let edge = Edge::with(Plan { resource: format!("guards = [{guards}]"), ..Plan::default() }).await;
    let agent = Agent::provision(&edge, &[READ]).await;
    (edge, agent)
}

/// A guard on everything that is posted below `/read`.
fn on_posts(when: &str) -> String {
    format!("{{ name = \"amounts\", when = '{when}', operations = [\"POST /read/**\"] }}")
}

async fn post(edge: &Edge, agent: &Agent, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
    let mandate = agent.mint(edge, &[READ]).await;
    let url = format!("{}/read/a", edge.gateway());
    edge.http.post(url).header("x-caracal-resource", ECHO).bearer_auth(mandate).body(body)
}

async fn told(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_refused_by_its_body_and_otherwise_sent_on_byte_for_byte() {
    let (edge, agent) = guarded(&on_posts("body.amount > 1000")).await;
    let small = "{ \"amount\" : 1000,\n  \"note\": \"\\u00e9\" }";
    let (status, _) = told(post(&edge, &agent, small).await).await;
    assert_eq!(status, 200);
    let seen = edge.upstream.last();
    assert_eq!(seen.body, small.as_bytes());
    assert_eq!(seen.header("content-length"), [small.len().to_string()]);
    assert_eq!(seen.header("x-api-key"), [CANARY]);

    let (status, body) = told(post(&edge, &agent, "{\"amount\":1000.5}").await).await;
    assert_eq!((status, &body["error"]), (403, &json!("guard_denied")));
    // Nothing of the rule, and no name of it.
    assert!(!body.to_string().contains("amount"), "{body}");
    assert_eq!(edge.upstream.count(), 1);
    let lines = edge.ledger_with("gateway_decision", 2).await;
    let decision = lines.iter().rfind(|line| line["event_type"] == "gateway_decision").unwrap();
    assert_eq!(decision["decision"], "deny");
    let guard = &decision["metadata_json"]["guard"];
    assert_eq!((&guard["name"], &guard["outcome"]), (&json!("amounts"), &json!("held")));
    assert!(guard["place"].as_str().unwrap().contains(".toml:"), "{guard}");
    assert_eq!(body["decision_id"], decision["id"]);
    let fired = edge.running().app.metrics.guards.with_label_values(&["z1", ECHO, "amounts", "denied"]);
    assert_eq!(fired.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_in_pieces_of_every_size_arrives_whole() {
    let (edge, agent) = guarded(&on_posts("body.amount > 1000")).await;
    for size in [1, 100, 63 * 1024, 64 * 1024, 65 * 1024, 200 * 1024, 1024 * 1024 - 40] {
        let body =
            format!("{{\"amount\":1,\"pad\":[{}1]}}", "1,".repeat(size / 2).get(..size / 2 * 2).unwrap());
        // Lists are looked at only where a condition names them.
        let (status, told) = told(post(&edge, &agent, body.clone()).await).await;
        assert_eq!(status, 200, "{size}: {told}");
        assert_eq!(edge.upstream.last().body, body.as_bytes(), "{size}");
    }
}

/// What a guard on the body cannot be walked around with: name, head fields, body, status and code.
fn corpus() -> Vec<(&'static str, &'static str, Vec<u8>, u16, &'static str)> {
    let json = "Content-Type: application/json\r\n";
    let deep = format!("{{\"amount\":1,\"x\":{}{}}}", "[".repeat(64), "]".repeat(64));
    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xab, 0x56, 0, 0].to_vec();
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        ("duplicate keys", json, text("{\"amount\":1,\"amount\":9000}"), 400, "body_not_json"),
        ("keys in two cases", json, text("{\"amount\":1,\"Amount\":9000}"), 400, "body_not_json"),
        ("escaped duplicate", json, text("{\"amount\":1,\"\\u0061mount\":9000}"), 400, "body_not_json"),
        ("byte order mark", json, text("\u{feff}{\"amount\":1}"), 400, "body_not_json"),
        ("trailing data", json, text("{\"amount\":1}{\"amount\":9000}"), 400, "body_not_json"),
        ("infinite number", json, text("{\"amount\":1e400}"), 400, "body_not_json"),
        (
            "number that does not survive",
            json,
            text("{\"amount\":0.12345678901234567891}"),
            400,
            "body_not_json",
        ),
        ("nested too deep", json, text(&deep), 400, "body_not_json"),
        (
            "form",
            "Content-Type: application/x-www-form-urlencoded\r\n",
            text("amount=9000"),
            400,
            "body_not_json",
        ),
        ("json as text", "Content-Type: text/plain\r\n", text("{\"amount\":9000}"), 403, "guard_denied"),
        ("no content type", "", text("{\"amount\":9000}"), 403, "guard_denied"),
        ("text as a number", json, text("{\"amount\":\"9000\"}"), 403, "guard_unanswered"),
        ("list as a number", json, text("{\"amount\":[9000]}"), 403, "guard_unanswered"),
        ("another name", json, text("{\"Amount\":9000}"), 403, "guard_unanswered"),
        ("list around it", json, text("[{\"amount\":9000}]"), 403, "guard_unanswered"),
        ("empty", json, Vec::new(), 403, "guard_unanswered"),
        ("not utf-8", json, b"{\"amount\":1,\"x\":\"\xff\"}".to_vec(), 400, "body_not_json"),
        ("gzip", "Content-Encoding: gzip\r\n", gzip.clone(), 415, "body_encoded"),
        (
            "identity and gzip",
            "Content-Encoding: identity\r\nContent-Encoding: gzip\r\n",
            gzip,
            415,
            "body_encoded",
        ),
        ("identity", "Content-Encoding: identity\r\n", text("{\"amount\":9000}"), 403, "guard_denied"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_on_the_body_cannot_be_walked_around() {
    let (edge, agent) = guarded(&on_posts("body.amount > 1000")).await;
    for (name, fields, body, status, code) in corpus() {
        let mandate = agent.mint(&edge, &[READ]).await;
        let head = format!(
            "POST /read/a HTTP/1.1\r\nHost: edge\r\nX-Caracal-Resource: {ECHO}\r\nAuthorization: Bearer {mandate}\r\n\
             Connection: close\r\n{fields}Content-Length: {}\r\n\r\n",
            body.len()
        );
        let (answered, text) = exchange(&edge, &[head.as_bytes(), &body].concat()).await;
        assert_eq!(answered, status, "{name}: {text}");
        assert!(text.contains(&format!("\"error\":\"{code}\"")), "{name}: {text}");
    }
    assert_eq!(edge.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_long_to_judge_is_refused_before_it_is_read() {
    let (edge, agent) = guarded(&on_posts("body.amount > 1000")).await;
    let mandate = agent.mint(&edge, &[READ]).await;
    let head = |fields: &str, mandate: &str| {
        format!(
            "POST /read/a HTTP/1.1\r\nHost: edge\r\nX-Caracal-Resource: {ECHO}\r\nAuthorization: Bearer {mandate}\r\n\
             Connection: close\r\n{fields}\r\n"
        )
    };
    let (status, text) = exchange(&edge, head("Content-Length: 1048577\r\n", &mandate).as_bytes()).await;
    assert_eq!(status, 413, "{text}");
    let mandate = agent.mint(&edge, &[READ]).await;
    let long = format!("{:x}\r\n{}\r\n0\r\n\r\n", 70_000, " ".repeat(70_000));
    let chunked = head("Transfer-Encoding: chunked\r\n", &mandate) + &long;
    let (status, text) = exchange(&edge, chunked.as_bytes()).await;
    assert_eq!(status, 411, "{text}");
    assert_eq!(edge.upstream.count(), 0);
    let mandate = agent.mint(&edge, &[READ]).await;
    let short = head("Transfer-Encoding: chunked\r\n", &mandate) + "c\r\n{\"amount\":1}\r\n0\r\n\r\n";
    let (status, text) = exchange(&edge, short.as_bytes()).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(edge.upstream.last().body, b"{\"amount\":1}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_without_a_body_pass_a_guard_that_tests_for_one() {
    let when = "has(body.amount) && body.amount > 1000";
    let (edge, agent) = guarded(&format!("{{ name = \"any\", when = '{when}' }}")).await;
    let mandate = agent.mint(&edge, &[READ]).await;
    assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200);
    assert_eq!(told(post(&edge, &agent, "").await).await.0, 200);
    assert_eq!(told(post(&edge, &agent, "{\"amount\":2000}").await).await.0, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_query_path_and_caller_are_seen_as_they_are_forwarded() {
    let guards = [
        r#"{ name = "tenant", when = 'headers["x-tenant"] != "acme"' }"#,
        r#"{ name = "page", when = 'has(query.limit) && int(query.limit) > 100' }"#,
        r#"{ name = "path", when = 'segments[1] == "secret"' }"#,
        r#"{ name = "caller", when = 'caller.application != "agent-1" || source.address != "127.0.0.1"' }"#,
        r#"{ name = "time", when = 'time.seconds < 1700000000 || time.weekday > 7' }"#,
    ];
    let (edge, agent) = guarded(&guards.join(", ")).await;
    let get = async |path: &str, tenants: &[&str]| {
        let mandate = agent.mint(&edge, &[READ]).await;
        let mut request = edge.get(path, &mandate);
        for tenant in tenants {
            request = request.header("x-tenant", *tenant);
        }
        let (status, body) = told(request).await;
        (status, body["error"].as_str().unwrap_or_default().to_owned())
    };
    let ok = (200, String::new());
    let denied = (403, "guard_denied".to_owned());
    let unanswered = (403, "guard_unanswered".to_owned());
    assert_eq!(get("/read/a", &["acme"]).await, ok);
    assert_eq!(get("/read/a?limit=100", &["acme"]).await, ok);
    assert_eq!(get("/read/a?limit=101", &["acme"]).await, denied);
    assert_eq!(get("/read/a?lim%69t=101", &["acme"]).await, denied);
    assert_eq!(get("/read/a?limit=1&limit=101", &["acme"]).await, unanswered);
    assert_eq!(get("/read/a?a=1;limit=101", &["acme"]).await, unanswered);
    assert_eq!(get("/read/secret", &["acme"]).await, denied);
    assert_eq!(get("/read/s%65cret", &["acme"]).await, denied);
    assert_eq!(get("/read/a", &["evil"]).await, denied);
    assert_eq!(get("/read/a", &["acme", "evil"]).await, unanswered);
    assert_eq!(get("/read/a", &[]).await, unanswered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_in_shadow_is_counted_and_recorded_and_refuses_nothing() {
    let guards = r#"{ name = "held", when = 'method == "GET"', mode = "shadow" },
                    { name = "broken", when = 'query.x == "1"', mode = "shadow" }"#;
    let (edge, agent) = guarded(&guards.replace('\n', " ")).await;
    let mandate = agent.mint(&edge, &[READ]).await;
    assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200);
    let lines = edge.ledger_with("gateway_decision", 1).await;
    let decision = lines.iter().find(|line| line["event_type"] == "gateway_decision").unwrap();
    let shadow = decision["metadata_json"]["guards_in_shadow"].as_array().unwrap();
    let told: Vec<_> = shadow.iter().map(|one| (one["name"].as_str(), one["outcome"].as_str())).collect();
    assert_eq!(told, [(Some("broken"), Some("fact_missing")), (Some("held"), Some("held"))]);
    let count = |guard: &str, outcome: &str| {
        edge.running().app.metrics.guards.with_label_values(&["z1", ECHO, guard, outcome]).get()
    };
    assert_eq!((count("held", "shadow_denied"), count("broken", "shadow_unanswered")), (1, 1));
}
