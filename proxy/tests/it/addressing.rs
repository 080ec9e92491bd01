//! What a request addresses, in which slot its mandate may stand, and what happens to it anywhere else.

use serde_json::Value;

use crate::edge::{Agent, ECHO, Edge, Plan, ZONE, ledger_lines};
use crate::framing::exchange;

async fn status(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_of_an_absolute_target_must_agree_with_the_host() {
    let edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    for (target, host, expected) in [
        ("http://echo.test/read/a", "echo.test", 200),
        ("http://other.test/read/a", "echo.test", 400),
        ("http://echo.test/read/a", "other.test", 400),
        ("http://user@echo.test/read/a", "echo.test", 400),
        ("ftp://echo.test/read/a", "echo.test", 400),
        ("http://echo.test?x=1", "echo.test", 400),
    ] {
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {mandate}\r\nConnection: close\r\n\r\n"
        );
        let (status, text) = exchange(&edge, head.as_bytes()).await;
        assert_eq!(status, expected, "{target} at {host}: {text}");
        if expected == 200 {
            assert_eq!(edge.upstream.last().line(), "GET /read/a HTTP/1.1");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_header_the_path_never_routes() {
    let edge = Edge::with(Plan {
        resource: "operation_enforcement = \"transport_uniform\"".into(),
        ..Plan::default()
    })
    .await;
    let mandate = edge.mandate().await;
    assert_eq!(status(edge.get("/echo/read/a", &mandate)).await, 200);
    assert_eq!(edge.upstream.last().line(), "GET /echo/read/a HTTP/1.1", "the prefix is not cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_and_host_must_name_the_same_resource_once() {
    let edge = Edge::start().await;
    let mandate = edge.mandate().await;
    let request = || {
        edge.http.get(format!("{}/read/a", edge.gateway())).header("host", "echo.test").bearer_auth(&mandate)
    };
    assert_eq!(status(request().header("x-caracal-resource", "resource://other")).await, 400);
    let twice = request().header("x-caracal-resource", ECHO).header("x-caracal-resource", ECHO);
    assert_eq!(status(twice).await, 400);
    assert_eq!(status(request().header("x-caracal-resource", ECHO)).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_header_mode_the_mandate_is_read_from_authorization_only() {
    let edge = Edge::start().await;
    let mandate = edge.mandate().await;
    let in_key = edge
        .http
        .get(format!("{}/read/a", edge.gateway()))
        .header("x-caracal-resource", ECHO)
        .header("x-api-key", &mandate);
    assert_eq!(status(in_key).await, 401);
    assert_eq!(status(edge.get("/read/a", &mandate)).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_token_may_stand_in_two_slots_and_two_tokens_may_not() {
    let edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let (one, two) = (agent.mint(&edge, &["echo:read"]).await, agent.mint(&edge, &["echo:read"]).await);
    let request = || edge.http.get(format!("{}/echo/read/a", edge.gateway()));
    assert_eq!(status(request().bearer_auth(&one).header("x-api-key", &two)).await, 400);
    assert_eq!(status(request().header("x-api-key", &one).header("x-api-key", &two)).await, 400);
    assert_eq!(status(request().bearer_auth(&one).header("x-api-key", &one)).await, 200);
    let seen = edge.upstream.last();
    assert!(!seen.head.contains(&one), "it is taken out of both");
    assert_eq!(status(request().header("x-api-key", &two)).await, 200, "a conflict burns neither");
}

const QUERY_KEY: &str = "kind = \"api_key\"\nlocation = \"query\"\nquery_param_name = \"key\"\nsecret = \"secret://echo/api_key\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_slot_is_read_only_where_the_resource_says_so_and_never_forwarded() {
    let closed = Edge::with(Plan { provider: QUERY_KEY.into(), ..Plan::default() }).await;
    let mandate = closed.mandate().await;
    let url = format!("{}/echo/read/a?a=1&key={mandate}&b=2", closed.gateway());
    assert_eq!(status(closed.http.get(url)).await, 401);
    let open = Edge::with(Plan {
        provider: QUERY_KEY.into(),
        resource: "query_key_slots = true".into(),
        ..Plan::default()
    })
    .await;
    let mandate = open.mandate().await;
    let url = format!("{}/echo/read/a?a=1&key={mandate}&b=2", open.gateway());
    assert_eq!(status(open.http.get(url)).await, 200);
    let seen = open.upstream.last();
    assert!(!seen.head.contains(&mandate));
    assert!(seen.line().starts_with("GET /read/a?a=1&b=2&key=sk"), "{}", seen.line());
    let all = open.ledger().await.iter().map(Value::to_string).collect::<String>();
    assert!(!all.contains(&mandate));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_basic_client_puts_the_mandate_where_its_password_goes() {
    let provider = "kind = \"http_basic\"\nusername = \"edge\"\nsecret = \"secret://echo/api_key\"";
    let edge = Edge::with(Plan { provider: provider.into(), ..Plan::default() }).await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let request = || edge.http.get(format!("{}/echo/read/a", edge.gateway()));
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    assert_eq!(status(request().basic_auth("anybody", Some(&mandate))).await, 200);
    assert!(!edge.upstream.last().head.contains(&mandate));
    assert_eq!(edge.upstream.last().header("authorization").len(), 1);
    for password in ["x-oauth-basic", ""] {
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        assert_eq!(
            status(request().basic_auth(&mandate, Some(password))).await,
            200,
            "in place of the user name"
        );
    }
    let (one, two) = (agent.mint(&edge, &["echo:read"]).await, agent.mint(&edge, &["echo:read"]).await);
    assert_eq!(status(request().basic_auth(&one, Some(&two))).await, 400, "user name or password, not both");
    assert_eq!(status(request().basic_auth("anybody", Some("no mandate"))).await, 401);
    assert_eq!(status(request().basic_auth("anybody", Some(&two))).await, 200, "neither was burnt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mandate_that_would_reach_the_upstream_is_refused_before_it_is_burnt_and_not_recorded() {
    let edge = Edge::with(Plan {
        resource: "operation_enforcement = \"transport_uniform\"".into(),
        ..Plan::default()
    })
    .await;
    let mandate = edge.mandate().await;
    let cases = [
        edge.get(&format!("/read/{mandate}"), &mandate),
        edge.get(&format!("/read/a?note={mandate}"), &mandate),
        edge.get(&format!("/read/a?{mandate}"), &mandate),
        edge.get("/read/a", &mandate).header("sec-websocket-protocol", format!("realtime, key.{mandate}")),
        edge.get("/read/a", &mandate).header("cookie", format!("t={mandate}")),
        edge.get("/read/a", &mandate).header("referer", format!("http://x/?t={mandate}")),
    ];
    let count = cases.len();
    for request in cases {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 400);
        let body = response.text().await.unwrap();
        assert!(body.contains("token_misplaced") && !body.contains(&mandate), "{body}");
    }
    assert_eq!(edge.upstream.count(), 0);
    let lines = edge.ledger().await;
    let refused = lines.iter().filter(|line| line["evaluation_status"] == "token_misplaced");
    assert_eq!(refused.count(), count, "an identity was proven, so each has a record of its own");
    let text = lines.iter().map(Value::to_string).collect::<String>();
    let system =
        ledger_lines(&edge.path("state/ledger/_system")).iter().map(Value::to_string).collect::<String>();
    assert!(!text.contains(&mandate) && !system.contains(&mandate));
    assert_eq!(status(edge.get("/read/a", &mandate)).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_readiness_answer_on_the_gateway_only_where_nothing_is_addressed() {
    let edge = Edge::with(Plan {
        resource: "operation_enforcement = \"transport_uniform\"".into(),
        ..Plan::default()
    })
    .await;
    let plain = |path: &str| edge.http.get(format!("{}{path}", edge.gateway()));
    assert_eq!(status(plain("/health")).await, 200);
    assert_eq!(status(plain("/ready")).await, 200);
    for path in ["/metrics", "/metrics.json", "/healthz"] {
        assert_eq!(status(plain(path)).await, 421, "{path} is no page of the gateway");
    }
    for listener in [edge.authority(), edge.coordinator()] {
        let metrics = edge.http.get(format!("{listener}/metrics")).send().await.unwrap();
        assert!(metrics.status().is_client_error(), "{listener}");
        assert!(!metrics.text().await.unwrap().contains("caracal_"));
    }
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    for path in ["/health", "/ready", "/metrics"] {
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        let named = edge.get(path, &mandate).send().await.unwrap().text().await.unwrap();
        assert_eq!(named, format!("hello GET {path} HTTP/1.1"), "the upstream's own page");
        for host in ["echo.test", "Echo.Test.", "ECHO.test:8081"] {
            let mandate = agent.mint(&edge, &["echo:read"]).await;
            let routed = plain(path).header("host", host).bearer_auth(mandate).send().await.unwrap();
            assert_eq!(routed.text().await.unwrap(), format!("hello GET {path} HTTP/1.1"), "{host}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_source_address_is_what_a_trusted_proxy_saw_and_nothing_the_caller_wrote() {
    let source = async |trusted: &str| {
        let edge = Edge::with(Plan { config: trusted.into(), ..Plan::default() }).await;
        let mandate = edge.mandate().await;
        let request = edge.get("/read/a", &mandate).header("x-forwarded-for", "6.6.6.6, 9.9.9.9");
        assert_eq!(status(request).await, 200);
        let line =
            edge.ledger().await.into_iter().find(|line| line["event_type"] == "gateway_decision").unwrap();
        let seen = edge.upstream.last().header("x-forwarded-for").join(",");
        (line["metadata_json"]["peer"].as_str().unwrap().to_owned(), seen)
    };
    assert_eq!(source("").await, ("127.0.0.1".to_owned(), "127.0.0.1".to_owned()));
    let behind = source("trusted_proxies = [\"127.0.0.0/8\"]").await;
    assert_eq!(behind, ("9.9.9.9".to_owned(), "9.9.9.9".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_callers_request_id_is_echoed_and_kept_but_is_never_the_ledgers_key() {
    let edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    for _ in 0..2 {
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        let response = edge.get("/read/a", &mandate).header("x-request-id", "same").send().await.unwrap();
        assert_eq!(response.headers()["x-request-id"], "same");
    }
    let denied = edge.get("/read/a", "junk").header("x-request-id", "mine").send().await.unwrap();
    assert_eq!(denied.headers()["x-request-id"], "mine");
    assert_eq!(denied.json::<Value>().await.unwrap()["requestId"], "mine");
    for unusable in ["two words", &"x".repeat(129)] {
        let denied = edge.get("/read/a", "junk").header("x-request-id", unusable).send().await.unwrap();
        assert_ne!(denied.headers()["x-request-id"], unusable);
    }
    let lines = edge.ledger_with("gateway_resource_request", 2).await;
    let decisions: Vec<_> = lines.iter().filter(|line| line["event_type"] == "gateway_decision").collect();
    assert_eq!(decisions.len(), 2);
    assert!(decisions.iter().all(|line| line["metadata_json"]["client_request_id"] == "same"));
    assert_ne!(decisions[0]["request_id"], decisions[1]["request_id"]);
    assert!(decisions.iter().all(|line| line["request_id"] != "same" && line["zone_id"] == ZONE));
}
