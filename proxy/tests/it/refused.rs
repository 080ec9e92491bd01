//! Every way to be refused: status, code, and what does not happen.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::edge::{Agent, ECHO, Edge, Plan, bootstrap};

async fn answer(request: reqwest::RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    assert!(body["requestId"].is_string(), "{body}");
    (status, body["error"].as_str().unwrap().to_owned())
}

fn pair(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_and_misplaced_mandates_get_the_codes_of_the_contract() {
    let edge = Edge::start().await;
    let url = format!("{}/read/a", edge.gateway());
    let named = || edge.http.get(&url).header("x-caracal-resource", ECHO);
    let with = |token: &str| named().header("authorization", format!("Bearer {token}"));
    assert_eq!(answer(named()).await, pair(401, "invalid_token"));
    assert_eq!(answer(named().header("authorization", "Basic eDp5")).await, pair(401, "invalid_token"));
    for token in ["x", "a.b.c", "a.b", "....", &"a".repeat(5_000)] {
        assert_eq!(answer(with(token)).await, pair(401, "invalid_token"), "{token}");
    }
    let good = edge.mandate().await;
    let parts: Vec<&str> = good.split('.').collect();
    let forged = format!("{}.{}.{}", parts[0], parts[1], URL_SAFE_NO_PAD.encode([7_u8; 64]));
    assert_eq!(answer(with(&forged)).await, pair(401, "invalid_token"));
    assert_eq!(answer(with(&good).header("x-caracal-client-id", "x")).await, pair(400, "invalid_token"));
    let unnamed = edge.http.get(&url).bearer_auth(&good);
    assert_eq!(answer(unnamed).await, pair(400, "invalid_token"));
    let empty = edge.http.get(&url).bearer_auth(&good).header("x-caracal-resource", " ");
    assert_eq!(answer(empty).await, pair(400, "invalid_token"));
    let misplaced = with(&good).header("x-note", good.as_str());
    assert_eq!(answer(misplaced).await, pair(400, "token_misplaced"));
    assert_eq!(edge.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_whose_clients_expect_an_object_says_no_with_one() {
    let edge = Edge::with(Plan { resource: "error_format = \"object\"".into(), ..Plan::default() }).await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let call = async |method: &str, path: &str, mandate: &str| {
        let url = format!("{}{path}", edge.gateway());
        let request = edge.http.request(method.parse().unwrap(), url).bearer_auth(mandate);
        request.send().await.unwrap().json::<Value>().await.unwrap()
    };
    let kinds = |body: &Value| {
        let error = &body["error"];
        [&error["code"], &error["type"]].map(|member| member.as_str().unwrap_or_default().to_owned())
    };
    let unproven = call("GET", "/echo/read/a", "sk_guessed").await;
    assert_eq!(kinds(&unproven), ["invalid_token", "authentication_error"]);
    let denied = call("POST", "/echo/write/a", &agent.mint(&edge, &["echo:read"]).await).await;
    assert_eq!(kinds(&denied), ["operation_not_permitted", "permission_error"]);
    let message = denied["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("the mandate does not cover this operation; mint a mandate"), "{message}");
    assert_eq!(denied["missing"]["scopes"], serde_json::json!(["echo:write"]));
    let failed = call("GET", "/echo/read/reset", &agent.mint(&edge, &["echo:read"]).await).await;
    assert_eq!(kinds(&failed), ["internal_error", "api_error"]);

    // What no resource is known for, and what only a header names without proof, is told as ever.
    assert!(call("GET", "/nowhere", "").await["error"].is_string());
    let named = edge.get("/read/a", "sk_guessed").send().await.unwrap().json::<Value>().await.unwrap();
    assert_eq!(named["error"], "invalid_token");
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let proven = edge.get("/none", &mandate).send().await.unwrap().json::<Value>().await.unwrap();
    assert_eq!(kinds(&proven), ["operation_not_permitted", "permission_error"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mandate_with_less_than_35_seconds_left_is_refused_before_it_is_burnt() {
    let edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let (status, body) = agent.try_mint(&edge, &["echo:read"], &[("ttl_seconds", "30")]).await;
    assert_eq!(status, 200, "{body}");
    let short = body["access_token"].as_str().unwrap();
    assert_eq!(answer(edge.get("/read/a", short)).await, pair(401, "credential_expired_not_renewable"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_and_ungranted_resources_look_the_same() {
    let other = r#"
[[providers]]
identifier = "provider://none"
kind = "none"
[[resources]]
identifier = "resource://secret"
upstream_url = "http://127.0.0.1:1"
scopes = ["s:read"]
credential_provider = "provider://none"
operations = [{ method = "GET", path = "/read/**", scope = "s:read" }]
[grants."resource://secret"]
application = "two"
roles = { agent-2 = ["s:read"] }
"#;
    let edge = Edge::with(Plan { zone: other.into(), ..Plan::default() }).await;
    let mut bodies = Vec::new();
    for resource in ["resource://secret", "resource://nothing"] {
        let mandate = edge.mandate().await;
        let response = edge
            .http
            .get(format!("{}/read/a", edge.gateway()))
            .header("x-caracal-resource", resource)
            .bearer_auth(&mandate)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 403);
        let mut body: Value = response.json().await.unwrap();
        assert_eq!(body["error_description"], "policy denied (resource_not_granted)");
        for variable in ["requestId", "decision_id"] {
            body[variable] = Value::Null;
        }
        bodies.push(body.to_string());
    }
    assert_eq!(bodies[0], bodies[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstreams_that_fail_get_their_own_codes_and_a_result_record() {
    let edge =
        Edge::with(Plan { resource: "limits = { response_timeout_ms = 300 }".into(), ..Plan::default() })
            .await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let call = async |path: &str| {
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        answer(edge.get(path, &mandate)).await
    };
    assert_eq!(call("/read/reset").await, pair(502, "internal_error"));
    assert_eq!(call("/read/slow").await, pair(504, "internal_error"));
    let recorded = async || {
        let lines = edge.ledger().await;
        let results = lines.iter().filter(|line| {
            line["event_type"] == "gateway_resource_request"
                && line["evaluation_status"] == "upstream_error"
                && line["metadata_json"]["error_kind"] == "transport_error"
        });
        results.count() == 2
    };
    crate::edge::eventually("both results are recorded", recorded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_is_down_is_502() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = dead.local_addr().unwrap();
    drop(dead);
    let edge = Edge::start().await;
    let text = edge.bundle_text().replace(&edge.upstream.url(), &format!("http://{address}"));
    std::fs::write(edge.bundle(), text).unwrap();
    crate::edge::write_private(
        &edge.path("secrets.toml"),
        &format!(
            "schema = 1\n[secrets.echo]\nzones = [\"z1\"]\nhosts = [\"{address}\"]\napi_key = \"{}\"\n",
            crate::edge::CANARY
        ),
    );
    edge.running().app.reloader.reload().await;
    let mandate = edge.mandate().await;
    assert_eq!(answer(edge.get("/read/a", &mandate)).await, pair(502, "internal_error"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_the_limit_is_413_whether_or_not_its_length_is_declared() {
    let edge =
        Edge::with(Plan { resource: "limits = { max_request_bytes = 1000 }".into(), ..Plan::default() })
            .await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let post = |mandate: String| {
        edge.http
            .post(format!("{}/read/a", edge.gateway()))
            .header("x-caracal-resource", ECHO)
            .bearer_auth(mandate)
    };
    let declared = post(agent.mint(&edge, &["echo:read"]).await).body(vec![b'x'; 2_000]);
    assert_eq!(answer(declared).await, pair(413, "payload_too_large"));
    let chunks = futures_util::stream::iter((0..4).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 500])));
    let chunked = post(agent.mint(&edge, &["echo:read"]).await).body(reqwest::Body::wrap_stream(chunks));
    assert_eq!(answer(chunked).await, pair(413, "payload_too_large"));
    let fits = post(agent.mint(&edge, &["echo:read"]).await).body(vec![b'x'; 1_000]);
    assert_eq!(fits.send().await.unwrap().status(), 200);
    let seen = edge.upstream.last();
    assert_eq!(seen.header("content-length"), ["1000"], "the length is kept");
    assert_eq!(seen.body.len(), 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_in_a_loop_is_held_to_its_cap() {
    let edge = Edge::start().await;
    let text =
        edge.bundle_text().replacen("name = \"Agent one\"", "name = \"Agent one\"\nmax_concurrent = 1", 1);
    std::fs::write(edge.bundle(), text).unwrap();
    edge.running().app.reloader.reload().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let first = agent.mint(&edge, &["echo:read"]).await;
    let mut stream = edge.get("/read/sse", &first).send().await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some());
    let second = agent.mint(&edge, &["echo:read"]).await;
    let refused = edge.get("/read/a", &second).send().await.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    drop((stream, refused));
    crate::edge::eventually("the place comes back", async || edge.running().app.live.count() == 0).await;
    assert_eq!(edge.get("/read/a", &second).send().await.unwrap().status(), 200, "it was not burnt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_verifications_from_one_address_run_out_but_known_mandates_pass() {
    let edge = Edge::with(Plan {
        config: "[limits]\nfailed_verifications_per_minute = 3".into(),
        ..Plan::default()
    })
    .await;
    let good = edge.mandate().await;
    let parts: Vec<&str> = good.split('.').collect();
    let mut codes = Vec::new();
    for byte in 0..5_u8 {
        let forged = format!("{}.{}.{}", parts[0], parts[1], URL_SAFE_NO_PAD.encode([byte; 64]));
        codes.push(answer(edge.get("/read/a", &forged)).await.0);
    }
    assert_eq!(codes, [401, 401, 401, 429, 429]);
    assert_eq!(edge.get("/read/a", &good).send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn junk_is_counted_in_a_lane_of_its_own() {
    let edge = Edge::start().await;
    bootstrap(&edge).await;
    let junk = (0..400).map(|_| edge.get("/read/a", "junk").send());
    for answer in futures_util::future::join_all(junk).await {
        assert_eq!(answer.unwrap().status(), 401);
    }
    let mandate = edge.mandate().await;
    assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200);
    let zone = edge.ledger().await;
    assert!(
        zone.iter().all(|line| !line.to_string().contains("token_malformed")),
        "no claim selects a chain"
    );
    let counted = || async {
        edge.running().app.ledger.flush().await.unwrap();
        let lines = crate::edge::ledger_lines(&edge.path("state/ledger/_system"));
        let counts = lines.iter().filter(|line| line["evaluation_status"] == "token_malformed");
        counts.map(|line| line["metadata_json"]["count"].as_u64().unwrap_or(1)).sum::<u64>() == 400
    };
    crate::edge::eventually("every junk request is accounted for", counted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_after_which_the_connection_is_closed_says_so() {
    let edge = Edge::start().await;
    let mandate = edge.mandate().await;
    let failed = edge.get("/read/reset", &mandate).send().await.unwrap();
    assert_eq!(failed.status(), 502);
    assert_eq!(failed.headers()["connection"], "close");
}
