//! An upstream that says the injected secret back: in its head, in its body, whole, encoded and in pieces.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use caracal::serve::ServeOptions;
use futures_util::StreamExt as _;

use crate::edge::{Agent, CANARY, ECHO, Edge, Plan, ZONE, write_private};
use crate::framing::exchange;
use crate::scripted::Scripted;
use crate::tokens::{CLIENT, CLIENT_SECRET, TokenServer};

const BODIES: &str = "plugins = [{ name = \"response_scrub\", bodies = true }]";

async fn with(resource: &str) -> Edge {
    Edge::with(Plan { resource: resource.to_owned(), ..Plan::default() }).await
}

/// Every form that is easy to make, each between other text.
fn forms() -> String {
    let percent: String = CANARY.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let json: String = CANARY.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let basic = STANDARD.encode(format!("user:{CANARY}"));
    format!("key={CANARY}; {percent} \"{json}\" {hex}, Basic {basic}. The end, sk-canary-")
}

fn holds_no_secret(text: &str) {
    let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let lower = text.to_ascii_lowercase();
    for form in [CANARY, "%73%6b%2d", "\\u0073\\u006b", &hex, "dXNlcjpzay1j", "LWNhbmFyeS"] {
        assert!(!text.contains(form) && !lower.contains(form), "{form} in {text}");
    }
}

/// The whole answer to one request, as it is on the wire.
async fn raw(edge: &Edge, more: &str) -> String {
    let mandate = edge.mandate().await;
    let head = format!(
        "GET /read/a HTTP/1.1\r\nHost: edge\r\nX-Caracal-Resource: {ECHO}\r\nAuthorization: Bearer {mandate}\r\n{more}Connection: close\r\n\r\n"
    );
    exchange(edge, head.as_bytes()).await.1
}

async fn result(edge: &Edge) -> serde_json::Value {
    let lines = edge.ledger_with("gateway_resource_request", 1).await;
    lines.into_iter().find(|line| line["event_type"] == "gateway_resource_request").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_are_searched_on_every_resource() {
    let mut edge = with("").await;
    let basic = STANDARD.encode(format!("user:{CANARY}"));
    let said = format!(
        "HTTP/1.1 200 {CANARY}\r\nContent-Length: 2\r\nX-Echo: {CANARY}\r\nX-Basic: {basic}\r\nX-{CANARY}: 1\r\nLink: </a?key={CANARY}>\r\n\r\nok"
    );
    Scripted::behind(&mut edge, move |_, _| Some(said.clone().into_bytes())).await;
    let answer = raw(&edge, "").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("ok"), "{answer}");
    holds_no_secret(&answer);
    assert!(
        answer.to_ascii_lowercase().contains(&format!("x-echo: {}", "*".repeat(CANARY.len()))),
        "{answer}"
    );
    let result = result(&edge).await;
    assert_eq!(result["metadata_json"]["scrubbed"], 4, "{result}");
    let metrics =
        edge.http.get(format!("{}/metrics", edge.ops())).send().await.unwrap().text().await.unwrap();
    let line = format!("caracal_responses_scrubbed_total{{resource=\"{ECHO}\",zone=\"{ZONE}\"}} 4");
    assert!(metrics.contains(&line), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_searched_across_pieces_where_the_resource_asks() {
    let mut edge = with(BODIES).await;
    let body = forms();
    let pieces: String = body
        .as_bytes()
        .chunks(3)
        .map(|piece| format!("{:x}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece)))
        .collect();
    let said = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{pieces}0\r\n\r\n");
    let asked = std::sync::Arc::new(parking_lot::Mutex::new(String::new()));
    let heard = std::sync::Arc::clone(&asked);
    Scripted::behind(&mut edge, move |_, head| {
        *heard.lock() = head.to_ascii_lowercase();
        Some(said.clone().into_bytes())
    })
    .await;
    let mandate = edge.mandate().await;
    let request =
        edge.get("/read/a", &mandate).header("range", "bytes=0-3").header("accept-encoding", "gzip");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let text = response.text().await.unwrap();
    holds_no_secret(&text);
    assert_eq!(text.len(), body.len(), "{text}");
    assert!(text.starts_with("key=****") && text.ends_with(". The end, sk-canary-"), "{text}");
    let asked = asked.lock().clone();
    assert!(asked.contains("accept-encoding: identity\r\n") && !asked.contains("range:"), "{asked}");
    let metadata = &result(&edge).await["metadata_json"];
    assert_eq!(metadata["scrubbed"], 5, "{metadata}");
    assert_eq!(metadata["response_bytes"], body.len(), "what was sent is counted: {metadata}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sized_body_keeps_its_size_and_an_unasked_one_its_bytes() {
    for (resource, expected) in [(BODIES, false), ("", true)] {
        let mut edge = with(resource).await;
        let body = forms();
        let said = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        Scripted::behind(&mut edge, move |_, _| Some(said.clone().into_bytes())).await;
        let answer = raw(&edge, "").await;
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.to_ascii_lowercase().contains(&format!("content-length: {}", body.len())), "{head}");
        assert_eq!(text.len(), body.len());
        assert_eq!(text == body, expected, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_encoded_cannot_be_searched_and_is_refused() {
    let mut edge = with(BODIES).await;
    let said = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x08ab";
    Scripted::behind(&mut edge, move |_, _| Some(said.as_bytes().to_vec())).await;
    let mandate = edge.mandate().await;
    let response = edge.get("/read/a", &mandate).send().await.unwrap();
    assert_eq!(response.status(), 502);
    let body: serde_json::Value = response.json().await.unwrap();
    assert_eq!(body["detail"], "the upstream's answer is encoded and cannot be searched", "{body}");
    assert_eq!(result(&edge).await["metadata_json"]["error_kind"], "response_refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_changes_its_protocol_cannot_be_searched_and_is_refused() {
    let edge = with(BODIES).await;
    let answer = raw(&edge, "Upgrade: websocket\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains("the resource takes no protocol upgrade"), "{answer}");
    assert_eq!(edge.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_not_held_back_while_the_stream_is_searched() {
    let edge = with(BODIES).await;
    let mandate = edge.mandate().await;
    let request = edge.get("/read/sse", &mandate).header("accept", "text/event-stream");
    let mut events = request.send().await.unwrap().bytes_stream();
    let first = tokio::time::timeout(std::time::Duration::from_secs(10), events.next()).await;
    assert_eq!(&*first.unwrap().unwrap().unwrap(), b"data: one\n\n");
}

/// The secret of the client never goes there; the token that was got with it does, and comes back covered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_the_edge_fetched_is_searched_for_too() {
    let server = TokenServer::start().await;
    let provider = format!(
        "kind = \"oauth2_client_credentials\"\nclient_id = \"{CLIENT}\"\ntoken_endpoint = \"{}\"\nclient_secret = \"secret://idp/client_secret\"",
        server.url()
    );
    let plan = Plan { provider, resource: BODIES.to_owned(), ..Plan::default() };
    let mut edge = Edge::prepared(plan).await;
    let secrets = format!(
        "schema = 1\n[secrets.idp]\nzones = [\"{ZONE}\"]\nhosts = [\"{}\", \"{}\"]\nclient_secret = \"{CLIENT_SECRET}\"\n",
        edge.upstream.address, server.address
    );
    write_private(&edge.path("secrets.toml"), &secrets);
    edge.boot(ServeOptions::default()).await.unwrap();
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let response = edge.get("/read/mirror", &mandate).send().await.unwrap();
    let seen = edge.upstream.last().header("authorization").concat();
    let token = seen.strip_prefix("Bearer ").unwrap();
    let stars = "*".repeat(token.len());
    assert_eq!(response.headers()["x-seen"].to_str().unwrap(), format!("Bearer {stars}"));
    let text = response.text().await.unwrap();
    assert_eq!(text, format!("{{\"seen\":\"{stars}\",\"hex\":\"{stars}{stars}\"}}"));
}
