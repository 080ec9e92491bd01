//! What an upstream says beside its answer: early heads, its own copies of our headers, derived logins.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::edge::{CANARY, ECHO, Edge, Plan, ZONE};
use crate::framing::exchange;
use crate::scripted::Scripted;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_heads_are_cleaned_like_the_last_one() {
    let plan = Plan { resource: "plugins = [{ name = \"response_scrub\" }]".into(), ..Plan::default() };
    let mut edge = Edge::with(plan).await;
    let said = format!(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nSet-Cookie: early=1\r\nServer: stack\r\nX-Echo: {CANARY}\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: late=1\r\nX-Echo: {CANARY}\r\nX-Caracal-Error: invalid_token\r\n\r\nok"
    );
    Scripted::behind(&mut edge, move |_, _| Some(said.clone().into_bytes())).await;
    let mandate = edge.mandate().await;
    let head = format!(
        "GET /read/a HTTP/1.1\r\nHost: edge\r\nX-Caracal-Resource: {ECHO}\r\nAuthorization: Bearer {mandate}\r\nConnection: close\r\n\r\n"
    );
    let (_, text) = exchange(&edge, head.as_bytes()).await;
    let lower = text.to_ascii_lowercase();
    assert!(lower.contains(" 200 ok") && lower.ends_with("ok"), "{text}");
    for gone in ["set-cookie", "server: stack", "x-caracal-error", CANARY] {
        assert!(!lower.contains(gone), "{gone}: {text}");
    }
    let lines = edge.ledger_with("gateway_resource_request", 1).await;
    let result = lines.iter().find(|line| line["event_type"] == "gateway_resource_request").unwrap();
    assert_eq!(result["metadata_json"]["upstream_status"], 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_derived_from_a_forwarded_identity_does_not_come_back() {
    let provider = "kind = \"none\"\nforward_caracal_identity = true";
    let edge = Edge::with(Plan { provider: provider.into(), ..Plan::default() }).await;
    let mandate = edge.mandate().await;
    let response = edge.get("/read/cookie", &mandate).header("cookie", "session=mine").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers().get("set-cookie").is_none());
    let seen = edge.upstream.last();
    assert_eq!(seen.header("x-caracal-identity").len(), 1);
    assert!(seen.header("cookie").is_empty());
}

/// The answer is longer than what the kernel takes for a reader that has stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stopped_is_given_up_and_one_that_goes_on_is_not() {
    const LENGTH: u32 = 32 * 1_024 * 1_024;
    let plan = Plan { resource: "limits = { idle_timeout_ms = 300 }".into(), ..Plan::default() };
    let mut edge = Edge::with(plan).await;
    Scripted::behind(&mut edge, |_, _| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
        Some([head.as_bytes(), &vec![b'x'; usize::try_from(LENGTH).unwrap()]].concat())
    })
    .await;
    let open = async || {
        let mandate = edge.mandate().await;
        let head = format!(
            "GET /read/a HTTP/1.1\r\nHost: edge\r\nX-Caracal-Resource: {ECHO}\r\nAuthorization: Bearer {mandate}\r\n\r\n"
        );
        let mut stream = TcpStream::connect(edge.running().addresses.gateway).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut first = [0; 4_096];
        stream.read_exact(&mut first).await.unwrap();
        stream
    };
    let mut reads = open().await;
    let (mut read, mut piece) = (4_096, vec![0; 65_536]);
    while read < usize::try_from(LENGTH).unwrap() {
        read += reads.read(&mut piece).await.unwrap();
    }
    let stopped = open().await;
    let lines = edge.ledger_with("gateway_resource_request", 2).await;
    let results: Vec<_> =
        lines.iter().filter(|line| line["event_type"] == "gateway_resource_request").collect();
    assert_eq!(results[0]["evaluation_status"], "executed");
    assert!(results[1]["metadata_json"]["response_bytes"].as_u64().unwrap() < LENGTH.into());
    assert_eq!(results[1]["metadata_json"]["error_kind"], "transport_error", "{}", results[1]);
    let given_up = edge.running().app.metrics.requests.with_label_values(&[ZONE, ECHO, "client_gone"]).get();
    assert_eq!(given_up, 1, "it is the caller who stopped");
    drop(stopped);
}
