//! The gate stands in front of every kind of request alike: what is refused for a plain GET is refused with a
//! body, with an upgrade, and over HTTP/2, and nothing of it reaches the upstream.

use bytes::Bytes;
use http_body_util::Full;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::edge::{APP, Agent, ECHO, Edge, Plan, ZONE};
use crate::framing::exchange;
use crate::scripted::Scripted;
use crate::secure;

/// Kinds of request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Get,
    Head,
    PostWithBody,
    Upgrade,
    WebSocket,
    UpgradeWithBody,
}

const KINDS: [Kind; 6] =
    [Kind::Get, Kind::Head, Kind::PostWithBody, Kind::Upgrade, Kind::WebSocket, Kind::UpgradeWithBody];

/// What is sent, apart from its kind.
struct Sent<'a> {
    path: &'a str,
    resource: &'a str,
    token: &'a str,
}

async fn over_h1(edge: &Edge, kind: Kind, sent: &Sent<'_>) -> u16 {
    let (method, more, body) = match kind {
        Kind::Get => ("GET", "", ""),
        Kind::Head => ("HEAD", "", ""),
        Kind::PostWithBody => ("POST", "Content-Length: 7\r\n", "payload"),
        Kind::Upgrade => ("GET", "Upgrade: x\r\nConnection: close, upgrade\r\n", ""),
        Kind::WebSocket => (
            "GET",
            "Upgrade: websocket\r\nConnection: close, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "",
        ),
        Kind::UpgradeWithBody => {
            ("POST", "Upgrade: x\r\nConnection: upgrade\r\nContent-Length: 7\r\n", "payload")
        }
    };
    let Sent { path, resource, token } = sent;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: edge\r\nX-Caracal-Resource: {resource}\r\nAuthorization: Bearer {token}\r\n{more}{}\r\n{body}",
        if more.contains("Connection") { "" } else { "Connection: close\r\n" }
    );
    exchange(edge, head.as_bytes()).await.0
}

async fn over_h2(edge: &Edge, kind: Kind, sent: &Sent<'_>) -> u16 {
    let (method, body) = match kind {
        Kind::Head => ("HEAD", ""),
        Kind::PostWithBody | Kind::UpgradeWithBody => ("POST", "payload"),
        Kind::Get | Kind::Upgrade | Kind::WebSocket => ("GET", ""),
    };
    let request = http::Request::builder()
        .method(method)
        .uri(format!("https://localhost{}", sent.path))
        .header("x-caracal-resource", sent.resource)
        .header("authorization", format!("Bearer {}", sent.token))
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .unwrap();
    let mut sender = secure::connect(edge).await;
    let answer =
        tokio::time::timeout(std::time::Duration::from_secs(5), secure::send(&mut sender, request)).await;
    let (head, body) = answer.unwrap_or_else(|_| panic!("no answer: {kind:?} {}", sent.path));
    if head.status.as_u16() >= 400 && method != "HEAD" {
        assert_eq!(secure::json(&body)["error"], *head.headers["x-caracal-error"].to_str().unwrap());
    }
    head.status.as_u16()
}

/// The cases that must be refused whatever the kind, with their status.
async fn refused_everywhere(edge: &Edge, send: impl AsyncFn(Kind, &Sent<'_>) -> u16) {
    let agent = Agent::provision(edge, &["echo:read"]).await;
    let used = agent.mint(edge, &["echo:read"]).await;
    let fine = Sent { path: "/read/a", resource: ECHO, token: &used };
    assert_eq!(send(Kind::Get, &fine).await, 200);
    let ended = Agent::provision(edge, &["echo:read"]).await;
    let revoked = ended.mint(edge, &["echo:read"]).await;
    let url = format!("{}/zones/{ZONE}/agents/{}", edge.coordinator(), ended.target);
    assert_eq!(edge.http.delete(url).bearer_auth(&ended.bearer).send().await.unwrap().status(), 204);
    let before = edge.upstream.count();
    for kind in KINDS {
        let fresh = agent.mint(edge, &["echo:read"]).await;
        let other = agent.mint(edge, &["echo:read"]).await;
        let third = agent.mint(edge, &["echo:read"]).await;
        for (name, path, resource, token, expected) in [
            ("no token", "/read/a", ECHO, "", 401),
            ("junk", "/read/a", ECHO, "junk", 401),
            ("replay", "/read/a", ECHO, used.as_str(), 401),
            ("revoked", "/read/a", ECHO, revoked.as_str(), 401),
            ("traversal", "/read/%2e%2e/x", ECHO, fresh.as_str(), 400),
            ("no resource", "/read/a", " ", fresh.as_str(), 400),
            ("other resource", "/read/a", "resource://other", fresh.as_str(), 403),
            ("other operation", "/admin", ECHO, other.as_str(), 403),
        ] {
            assert_eq!(send(kind, &Sent { path, resource, token }).await, expected, "{name}, {kind:?}");
        }
        edge.running().app.state.freeze(ZONE).await.unwrap();
        let frozen = Sent { path: "/read/a", resource: ECHO, token: &third };
        assert_eq!(send(kind, &frozen).await, 403, "frozen, {kind:?}");
        edge.running().app.state.unfreeze(ZONE).await.unwrap();
    }
    assert_eq!(edge.upstream.count(), before, "nothing of it reached the upstream");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_holds_for_every_kind_of_request_over_http_1() {
    let edge = Edge::start().await;
    refused_everywhere(&edge, async |kind, sent| over_h1(&edge, kind, sent).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_holds_for_every_kind_of_request_over_http_2() {
    let edge = secure::start(Plan::default()).await;
    refused_everywhere(&edge, async |kind, sent| over_h2(&edge, kind, sent).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_over_http_2_is_governed_like_any_other() {
    let edge = secure::start(Plan::default()).await;
    let mandate = edge.mandate().await;
    let mut sender = secure::connect(&edge).await;
    let request = secure::request("POST", "/read/a?x=%2F", &mandate)
        .body(Full::new(Bytes::from_static(b"payload")))
        .unwrap();
    let (head, body) = secure::send(&mut sender, request).await;
    assert_eq!((head.status.as_u16(), &body[..]), (200, &b"hello POST /read/a?x=%2F HTTP/1.1"[..]));
    let seen = edge.upstream.last();
    assert_eq!(seen.header("x-api-key"), [crate::edge::CANARY]);
    assert_eq!(seen.header("x-forwarded-proto"), ["https"]);
    assert!(!seen.head.contains(&mandate));
    let again = secure::request("GET", "/read/a", &mandate).body(Full::default()).unwrap();
    let (head, body) = secure::send(&mut sender, again).await;
    assert_eq!(head.status, 401);
    assert_eq!(secure::json(&body)["error_description"], "token replay detected");
    let other_host = secure::request("GET", "/read/a", &mandate)
        .header("host", "other.test")
        .body(Full::default())
        .unwrap();
    assert_eq!(secure::send(&mut sender, other_host).await.0.status, 400, ":authority and Host must agree");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_http_2_a_denial_with_an_unread_body_is_whole_and_the_connection_lives_on() {
    let edge = secure::start(Plan::default()).await;
    let mut sender = secure::connect(&edge).await;
    for _ in 0..3 {
        let body = Full::new(Bytes::from(vec![b'x'; 3_000_000]));
        let (head, body) =
            secure::send(&mut sender, secure::request("POST", "/read/a", "junk").body(body).unwrap()).await;
        assert_eq!(head.status, 401);
        assert_eq!(secure::json(&body)["error"], "invalid_token");
    }
    let mandate = edge.mandate().await;
    let request = secure::request("GET", "/read/a", &mandate).body(Full::default()).unwrap();
    assert_eq!(secure::send(&mut sender, request).await.0.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_a_refused_head_has_no_body_and_the_connection_goes_on() {
    let edge = Edge::start().await;
    let head =
        "HEAD /read/a HTTP/1.1\r\nHost: edge\r\nX-Caracal-Resource: x\r\nAuthorization: Bearer junk\r\n\r\n";
    let mut stream = TcpStream::connect(edge.running().addresses.gateway).await.unwrap();
    for _ in 0..3 {
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
        }
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 401") && !text.contains('{'), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_pooled_connection_costs_one_retry_for_safe_methods_and_none_for_others() {
    let mut edge = Edge::start().await;
    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    // Answers the first request of a connection and hangs up on the second.
    let scripted = Scripted::behind(&mut edge, |at, _| (at == 0).then(|| ok.to_vec())).await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let call = async |post: bool| {
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        let url = format!("{}/read/a", edge.gateway());
        let request = if post { edge.http.post(url).body("x") } else { edge.http.get(url) };
        let request = request.header("x-caracal-resource", ECHO).bearer_auth(mandate);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(call(false).await, 200);
    assert_eq!((scripted.connections(), scripted.heads()), (1, 1));
    assert_eq!(call(false).await, 200, "sent again on a new connection");
    assert_eq!((scripted.connections(), scripted.heads()), (2, 3));
    assert_eq!(call(true).await, 502, "nobody knows whether it had an effect");
    assert_eq!(scripted.heads(), 4, "so it is not sent again");
    let lines = edge.ledger_with("gateway_resource_request", 3).await;
    let count = |kind: &str| lines.iter().filter(|line| line["event_type"] == kind).count();
    assert_eq!(
        (count("gateway_decision"), count("gateway_resource_request")),
        (3, 3),
        "a retry is no new request"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_nominated_by_connection_cannot_strip_what_the_edge_adds_or_change_the_framing() {
    let edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    for nominated in [
        "x-api-key",
        "X-Api-Key, close",
        "host",
        "content-length",
        "x-forwarded-for",
        "authorization",
        "x-caracal-resource",
        "transfer-encoding",
        "x-request-id",
    ] {
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        let before = edge.upstream.count();
        let head = format!(
            "POST /read/a HTTP/1.1\r\nHost: edge\r\nX-Caracal-Resource: {ECHO}\r\nAuthorization: Bearer {mandate}\r\n\
             X-Api-Key: mine\r\nConnection: {nominated}\r\nConnection: close\r\nContent-Length: 37\r\n\r\nGET /read/x HTTP/1.1\r\nHost: edge\r\n\r\n1"
        );
        let (status, _) = exchange(&edge, head.as_bytes()).await;
        let reached = edge.upstream.count() - before;
        assert_eq!(reached, usize::from(status == 200), "{nominated}: {status}");
        if status == 200 {
            let seen = edge.upstream.last();
            assert_eq!(seen.header("x-api-key"), [crate::edge::CANARY], "{nominated}");
            assert_eq!(seen.header("host").len(), 1, "{nominated}");
            assert_eq!(seen.header("x-forwarded-for"), ["127.0.0.1"], "{nominated}");
            assert!(seen.line().starts_with("POST /read/a"), "{nominated}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accepted_upgrade_is_recorded_and_ends_with_its_session() {
    let mut edge = Edge::start().await;
    let switching =
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst frame";
    Scripted::behind(&mut edge, |_, _| Some(switching.to_vec())).await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let head = format!(
        "GET /read/ws HTTP/1.1\r\nHost: edge\r\nX-Caracal-Resource: {ECHO}\r\nAuthorization: Bearer {mandate}\r\n\
         Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let address = edge.running().addresses.gateway;
    let open = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        // Ends when the edge cuts it, with an error or without one.
        drop(stream.read_to_end(&mut all).await);
        String::from_utf8_lossy(&all).into_owned()
    });
    let under_way = async || {
        let lines = edge.ledger().await;
        lines.iter().any(|line| {
            line["event_type"] == "gateway_decision" && line["metadata_json"]["path"] == "/read/ws"
        })
    };
    crate::edge::eventually("the upgrade is decided", under_way).await;
    assert_eq!(edge.running().app.live.count(), 1, "{:?}", edge.ledger().await.last());
    let url = format!("{}/zones/{ZONE}/agents/{}", edge.coordinator(), agent.target);
    assert_eq!(edge.http.delete(url).bearer_auth(&agent.bearer).send().await.unwrap().status(), 204);
    let text =
        tokio::time::timeout(std::time::Duration::from_secs(5), open).await.expect("it is cut").unwrap();
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 101"), "{text}");
    let lines = edge.ledger_with("gateway_resource_request", 1).await;
    let result = lines.iter().find(|line| line["event_type"] == "gateway_resource_request").unwrap();
    assert_eq!(result["metadata_json"]["cut"], "revoked");
    assert_eq!(result["metadata_json"]["application_id"], Value::from(APP));
}
