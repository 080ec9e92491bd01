//! Requests that two parsers could read differently. The oracle: the upstream parsed exactly the requests that
//! the edge authorized.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::edge::{Agent, ECHO, Edge};

/// Sends raw bytes and gives the first status and the whole answer; 0 when the connection closed without one.
pub async fn exchange(edge: &Edge, bytes: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(edge.running().addresses.gateway).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    drop(tokio::time::timeout(std::time::Duration::from_secs(3), read).await);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ambiguous_framing_never_makes_the_upstream_see_more_than_was_authorized() {
    let edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let smuggled = "GET /read/smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let cases = [
        ("cl.te", format!("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}")),
        ("te.cl", format!("Transfer-Encoding: chunked\r\nContent-Length: 100\r\n\r\n0\r\n\r\n{smuggled}")),
        (
            "te.te",
            format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        ("xchunked", format!("Transfer-Encoding: xchunked\r\n\r\n{smuggled}")),
        ("cl differ", format!("Content-Length: 0\r\nContent-Length: 44\r\n\r\n{smuggled}")),
        ("cl plus", format!("Content-Length: +0\r\n\r\n{smuggled}")),
        ("obs-fold", format!("X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n{smuggled}")),
        ("space colon", format!("Content-Length : 44\r\n\r\n{smuggled}")),
        ("upgrade", format!("Upgrade: x\r\nConnection: upgrade\r\n\r\n{smuggled}")),
        ("nominated", "Connection: x-api-key, authorization\r\nContent-Length: 0\r\n\r\n".to_owned()),
    ];
    for (name, rest) in cases {
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        let before = edge.upstream.count();
        let head = format!(
            "POST /read/a HTTP/1.1\r\nHost: edge\r\nX-Caracal-Resource: {ECHO}\r\nAuthorization: Bearer {mandate}\r\n{rest}"
        );
        let (status, _) = exchange(&edge, head.as_bytes()).await;
        let reached = edge.upstream.count() - before;
        let authorized = usize::from((200..300).contains(&status));
        assert_eq!(reached, authorized, "{name}: answered {status}");
        if authorized == 1 {
            assert_eq!(edge.upstream.last().header("x-api-key"), [crate::edge::CANARY], "{name}");
        }
    }
}

/// A request with this mandate, and `rest` after its head's usual fields.
fn request(mandate: &str, rest: &str) -> String {
    format!(
        "POST /read/a HTTP/1.1\r\nHost: edge\r\nX-Caracal-Resource: {ECHO}\r\nAuthorization: Bearer {mandate}\r\n{rest}"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_could_not_be_forwarded_is_refused_before_the_mandate_is_used_up() {
    let edge = Edge::start().await;
    let mandate = edge.mandate().await;
    for (rest, word) in [
        ("Connection: close, host\r\n\r\n", "Connection names"),
        ("Connection: close, X-Forwarded-For\r\n\r\n", "Connection names"),
        ("Connection: close, b, c, d, e, f, g, h, i, j\r\n\r\n", "Connection names"),
        ("Connection: close\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "Content-Length"),
        ("Connection: close\r\nContent-Length: 5, 5\r\n\r\nhello", "Content-Length"),
    ] {
        let (status, text) = exchange(&edge, request(&mandate, rest).as_bytes()).await;
        assert_eq!(status, 400, "{rest}: {text}");
        assert!(text.contains(word), "{rest}: {text}");
    }
    assert_eq!(edge.upstream.count(), 0);
    let (status, text) = exchange(&edge, request(&mandate, "Connection: close\r\n\r\n").as_bytes()).await;
    assert_eq!(status, 200, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_whose_chunks_are_broken_is_answered() {
    let edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    for body in ["x\r\nhello\r\n0\r\n\r\n", "5\r\nhelloXX0\r\n\r\n", "5\r\nhello\r\nffffffffffffffff5\r\n"] {
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        let rest = format!("Transfer-Encoding: chunked\r\n\r\n{body}");
        let (status, text) = exchange(&edge, request(&mandate, &rest).as_bytes()).await;
        assert_eq!(status, 400, "{body}: {text}");
        assert!(text.contains("chunks") && text.to_ascii_lowercase().contains("connection: close"), "{text}");
    }
    let results = edge.ledger_with("gateway_resource_request", 3).await;
    let results = results.iter().filter(|line| line["event_type"] == "gateway_resource_request");
    for result in results {
        assert_eq!(result["metadata_json"]["gateway_status"], 400, "{result}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_that_echo_or_tunnel_and_heads_without_a_host_are_refused() {
    let edge = Edge::start().await;
    for (head, expected) in [
        ("TRACE /read/a HTTP/1.1\r\nHost: edge\r\n\r\n", 405),
        ("TRACK /read/a HTTP/1.1\r\nHost: edge\r\n\r\n", 405),
        ("GET /read/a HTTP/1.1\r\nX-A: b\r\n\r\n", 400),
        ("GET /read/a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ] {
        assert_eq!(exchange(&edge, head.as_bytes()).await.0, expected, "{head}");
    }
    let connect = exchange(&edge, b"CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\n\r\n").await.0;
    assert!(matches!(connect, 400 | 405), "{connect}");
    assert_eq!(edge.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_over_the_limit_is_refused() {
    let edge = Edge::start().await;
    let head = format!("GET /read/a HTTP/1.1\r\nHost: edge\r\nX-Long: {}\r\n\r\n", "a".repeat(20_000));
    assert_eq!(exchange(&edge, head.as_bytes()).await.0, 431);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_with_an_unread_body_is_answered_and_the_connection_closed() {
    let edge = Edge::start().await;
    let mut head = b"POST /read/a HTTP/1.1\r\nHost: edge\r\nX-Caracal-Resource: x\r\nAuthorization: Bearer junk\r\nContent-Length: 3000000\r\n\r\n".to_vec();
    head.resize(head.len() + 3_000_000, b'x');
    let (status, text) = exchange(&edge, &head).await;
    assert_eq!(status, 401);
    assert!(text.to_ascii_lowercase().contains("connection: close"));
}
