//! What passes in which direction: bytes of path and query, headers, cookies, redirects, echoed secrets.

use crate::edge::{Agent, CANARY, Edge, Plan};

/// Query for query parameters in the order and spelling the client chose.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn path_and_query_arrive_byte_for_byte() {
    let edge = Edge::with(Plan {
        resource: "operation_enforcement = \"transport_uniform\"".into(),
        ..Plan::default()
    })
    .await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    for target in [
        "/a%2Fb//c?x=1&y=%20&x=2",
        "/read/%E4%BD%A0?z=%2B&a=b",
        "/read/100%25?",
        "/read?b=2&a=1&empty=&flag",
        "/read/~tilde!$&'()*+,=:@",
    ] {
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        let status = raw_get(&edge, target, &mandate).await;
        assert_eq!(status, 200, "{target}");
        assert_eq!(edge.upstream.last().line(), format!("GET {target} HTTP/1.1"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_that_could_be_read_in_two_ways_are_refused() {
    let edge = Edge::with(Plan {
        resource: "operation_enforcement = \"transport_uniform\"".into(),
        ..Plan::default()
    })
    .await;
    let mandate = edge.mandate().await;
    for target in [
        "/read/../x",
        "/read/%2e%2e/x",
        "/read/%252e%252e/x",
        "/read/.%2e",
        "/./read",
        "/read/..;/x",
        "/read/a\\b",
        "/read/%5c..",
        "/read/%zz",
        "/read/%ff",
        "/read/%00",
    ] {
        assert_eq!(raw_get(&edge, target, &mandate).await, 400, "{target}");
    }
    assert_eq!(edge.upstream.count(), 0);
    assert_eq!(raw_get(&edge, "/read/a", &mandate).await, 200, "none of them burnt the mandate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_headers_that_could_mislead_the_upstream_are_taken_out() {
    let edge = Edge::start().await;
    let mandate = edge.mandate().await;
    let request = edge
        .get("/read/a", &mandate)
        .header("x-caracal-anything", "1")
        .header("x-forwarded-for", "6.6.6.6")
        .header("forwarded", "for=6.6.6.6")
        .header("x-real-ip", "6.6.6.6")
        .header("x-http-method-override", "DELETE")
        .header("x-original-url", "/admin")
        .header("cookie", "session=mine")
        .header("api-key", "something")
        .header("x-goog-api-key", "something")
        .header("traceparent", "not-a-traceparent")
        .header("baggage", "caracal.hop=3, tenant=blue,caracal.session=x")
        .header("x-business", "kept");
    assert_eq!(request.send().await.unwrap().status(), 200);
    let seen = edge.upstream.last();
    assert_eq!(seen.header("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.header("x-business"), ["kept"]);
    assert_eq!(seen.header("baggage"), ["tenant=blue"]);
    assert_eq!(seen.header("traceparent")[0].len(), 55);
    let gone = [
        "x-caracal-anything",
        "x-caracal-resource",
        "forwarded",
        "x-real-ip",
        "x-http-method-override",
        "x-original-url",
        "cookie",
        "api-key",
        "x-goog-api-key",
    ];
    for name in gone {
        assert!(seen.header(name).is_empty(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_do_not_redirect_set_cookies_or_name_the_stack() {
    let edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let call = async |path: &str| {
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        edge.get(path, &mandate).send().await.unwrap()
    };
    let absolute = call("/read/redirect").await;
    assert_eq!(absolute.status(), 302, "returned to the caller, never followed");
    assert!(absolute.headers().get("location").is_none());
    let relative = call("/read/relative").await;
    assert_eq!(relative.headers()["location"], "/next");
    assert!(relative.headers().get("server").is_none());
    assert!(call("/read/cookie").await.headers().get("set-cookie").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cookies_pass_by_name_where_the_resource_says_so() {
    let edge = Edge::with(Plan { resource: "cookies = [\"theme\"]".into(), ..Plan::default() }).await;
    let mandate = edge.mandate().await;
    let request = edge.get("/read/cookie", &mandate).header("cookie", "session=mine; theme=dark");
    let response = request.send().await.unwrap();
    let set: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
    assert_eq!(set, ["theme=dark"]);
    assert_eq!(edge.upstream.last().header("cookie"), ["theme=dark"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_echoes_the_credential_in_a_header_does_not_leak_it() {
    let edge =
        Edge::with(Plan { resource: "plugins = [{ name = \"response_scrub\" }]".into(), ..Plan::default() })
            .await;
    let mandate = edge.mandate().await;
    let response = edge.get("/read/leak", &mandate).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-echo"].to_str().unwrap(), "*".repeat(CANARY.len()));
    let all = format!("{:?}", response.headers());
    let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(!all.contains(CANARY) && !all.contains(&hex), "{all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_headers_plugin_changes_what_it_declares() {
    let plugin = "plugins = [{ name = \"headers\", request_set = { x-team = \"agents\" }, response_remove = [\"content-type\"] }]";
    let edge = Edge::with(Plan { resource: plugin.into(), ..Plan::default() }).await;
    let mandate = edge.mandate().await;
    assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200);
    assert_eq!(edge.upstream.last().header("x-team"), ["agents"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_provider_kind_puts_its_credential_where_it_belongs() {
    for (provider, check) in [
        ("kind = \"none\"", None),
        (
            "kind = \"bearer_token\"\nsecret = \"secret://echo/api_key\"",
            Some(("authorization", format!("Bearer {CANARY}"))),
        ),
        (
            "kind = \"http_basic\"\nusername = \"edge\"\nsecret = \"secret://echo/api_key\"",
            Some(("authorization", basic("edge"))),
        ),
        (
            "kind = \"api_key\"\nlocation = \"header\"\nheader_name = \"X-Key\"\nauth_scheme = \"Token\"\nsecret = \"secret://echo/api_key\"",
            Some(("x-key", format!("Token {CANARY}"))),
        ),
    ] {
        let edge = Edge::with(Plan { provider: provider.into(), ..Plan::default() }).await;
        let mandate = edge.mandate().await;
        assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200);
        let seen = edge.upstream.last();
        match check {
            Some((name, value)) => assert_eq!(seen.header(name), [value], "{provider}"),
            None => assert!(seen.header("authorization").is_empty() && !seen.head.contains(CANARY)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_credential_replaces_every_spelling_of_its_parameter() {
    let provider = "kind = \"api_key\"\nlocation = \"query\"\nquery_param_name = \"key\"\nsecret = \"secret://echo/api_key\"";
    let edge = Edge::with(Plan { provider: provider.into(), ..Plan::default() }).await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    assert_eq!(raw_get(&edge, "/read/a?b=1&%6bey=mine&key=too&c=%20", &mandate).await, 200);
    let encoded = CANARY.replace('-', "%2D");
    assert_eq!(edge.upstream.last().line(), format!("GET /read/a?b=1&c=%20&key={encoded} HTTP/1.1"));
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    assert_eq!(raw_get(&edge, "/read/a?b=1;key=mine", &mandate).await, 400);
    let lines = edge.ledger().await;
    assert!(lines.iter().all(|line| !line.to_string().contains(CANARY)));
}

fn basic(user: &str) -> String {
    use base64::Engine;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{CANARY}")))
}

/// A GET whose target no client library may tidy up.
async fn raw_get(edge: &Edge, target: &str, mandate: &str) -> u16 {
    let head = format!(
        "GET {target} HTTP/1.1\r\nHost: edge\r\nX-Caracal-Resource: {}\r\nAuthorization: Bearer {mandate}\r\nConnection: close\r\n\r\n",
        crate::edge::ECHO
    );
    crate::framing::exchange(edge, head.as_bytes()).await.0
}
