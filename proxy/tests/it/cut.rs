//! How a request in flight ends when its authority does: what its caller still hears, and what the record says.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::edge::{Agent, ECHO, Edge, Plan, ZONE, eventually};
use crate::secure;

/// Longest anything may take here before it counts as not happening.
const PATIENCE: Duration = Duration::from_secs(5);

async fn revoke(edge: &Edge, agent: &Agent) {
    let url = format!("{}/zones/{ZONE}/agents/{}", edge.coordinator(), agent.target);
    let ended = edge.http.delete(url).bearer_auth(&agent.bearer).send().await.unwrap();
    assert_eq!(ended.status(), 204);
}

/// The metadata of the only result record.
async fn result(edge: &Edge) -> Value {
    let lines = edge.ledger_with("gateway_resource_request", 1).await;
    let mut results = lines.iter().filter(|line| line["event_type"] == "gateway_resource_request");
    let result = results.next().unwrap();
    assert_eq!(results.next(), None, "one record for one request");
    assert_eq!(result["evaluation_status"], "interrupted");
    assert_eq!(result["metadata_json"]["revocation_interrupted"], true);
    result["metadata_json"].clone()
}

/// Sends a request as it is written, waits for `first`, and gives what came after a revocation until the end.
async fn heard_after_revocation(edge: &Edge, agent: &Agent, request: &str, first: &str) -> String {
    let mut stream = TcpStream::connect(edge.running().addresses.gateway).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut before = Vec::new();
    while !String::from_utf8_lossy(&before).contains(first) {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut before)).await.unwrap().unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&before));
    }
    revoke(edge, agent).await;
    let mut after = Vec::new();
    // With an end or with a reset, but over.
    drop(tokio::time::timeout(PATIENCE, stream.read_to_end(&mut after)).await.expect("it is cut"));
    String::from_utf8(after).unwrap()
}

fn head(method: &str, path: &str, mandate: &str, more: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: edge\r\nX-Caracal-Resource: {ECHO}\r\n\
         Authorization: Bearer {mandate}\r\n{more}\r\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_stream_hears_why_and_does_not_look_complete() {
    let edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let request = head("GET", "/read/sse", &mandate, "Accept: text/event-stream\r\n");
    let after = heard_after_revocation(&edge, &agent, &request, "data: one\n\n").await;
    assert!(after.contains("\n\nevent: caracal-revoked\ndata: {"), "{after:?}");
    assert!(!after.ends_with("0\r\n\r\n"), "{after:?}");
    let result = result(&edge).await;
    assert_eq!(result["cut"], "revoked");
    let sent = result["response_bytes"].as_u64().unwrap();
    assert!(sent > 11, "the first event and the last word: {sent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_did_not_ask_for_events_just_ends_and_the_record_counts_what_went_out() {
    let edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let request = head("GET", "/read/sse", &mandate, "");
    let after = heard_after_revocation(&edge, &agent, &request, "data: one\n\n").await;
    assert!(after.is_empty() || after == "\r\n", "{after:?}");
    assert_eq!(result(&edge).await["response_bytes"], 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sized_download_ends_short_and_the_record_counts_what_went_out() {
    let edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let request = head("GET", "/read/part", &mandate, "");
    let after = heard_after_revocation(&edge, &agent, &request, "xxxx").await;
    assert!(after.bytes().all(|byte| byte == b'x') && after.len() < 60_000, "nothing but its rest");
    let sent = result(&edge).await["response_bytes"].as_u64().unwrap();
    assert!((4..=60_000).contains(&sent), "{sent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_upload_ends_in_the_middle_and_the_record_counts_what_came_in() {
    let plan = Plan { granted: vec!["echo:read", "echo:write"], ..Plan::default() };
    let edge = Edge::with(plan).await;
    let agent = Agent::provision(&edge, &["echo:write"]).await;
    let mandate = agent.mint(&edge, &["echo:write"]).await;
    let mut stream = TcpStream::connect(edge.running().addresses.gateway).await.unwrap();
    let head = head("POST", "/write/slow", &mandate, "Content-Length: 1000\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[b'x'; 400]).await.unwrap();
    eventually("it is under way", async || edge.running().app.live.count() == 1).await;
    stream.write_all(&[b'x'; 100]).await.unwrap();
    revoke(&edge, &agent).await;
    let mut after = Vec::new();
    drop(tokio::time::timeout(PATIENCE, stream.read_to_end(&mut after)).await.expect("it is cut"));
    assert!(after.is_empty(), "{}", String::from_utf8_lossy(&after));
    let received = result(&edge).await["request_bytes"].as_u64().unwrap();
    assert!(received <= 500, "{received}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_http_2_an_event_stream_ends_with_the_trailer_and_its_connection_goes_on() {
    let edge = secure::start(Plan::default()).await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let other = Agent::provision(&edge, &["echo:read"]).await;
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let mut sender = secure::connect(&edge).await;
    let request = secure::request("GET", "/read/sse", &mandate).header("accept", "text/event-stream");
    let response = sender.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "data: one\n\n");
    revoke(&edge, &agent).await;
    let rest = tokio::time::timeout(PATIENCE, body.collect()).await.expect("it ends").expect("it ends well");
    let trailers = rest.trailers().expect("there are trailers").clone();
    assert_eq!(trailers["x-caracal-revoked"], "true");
    let text = rest.to_bytes();
    assert!(text.starts_with(b"\n\nevent: caracal-revoked\n"), "{text:?}");
    assert_eq!(result(&edge).await["cut"], "revoked");
    let mandate = other.mint(&edge, &["echo:read"]).await;
    let request = secure::request("GET", "/read/a", &mandate).body(Full::new(Bytes::new())).unwrap();
    assert_eq!(secure::send(&mut sender, request).await.0.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_http_2_anything_else_is_reset_and_its_connection_goes_on() {
    let edge = secure::start(Plan::default()).await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let other = Agent::provision(&edge, &["echo:read"]).await;
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let mut sender = secure::connect(&edge).await;
    let request = secure::request("GET", "/read/part", &mandate).body(Full::new(Bytes::new())).unwrap();
    let mut body = sender.send_request(request).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    revoke(&edge, &agent).await;
    let rest = tokio::time::timeout(PATIENCE, body.collect()).await.expect("it ends");
    assert!(rest.is_err(), "a cut body does not look complete");
    let mandate = other.mint(&edge, &["echo:read"]).await;
    let request = secure::request("GET", "/read/a", &mandate).body(Full::new(Bytes::new())).unwrap();
    assert_eq!(secure::send(&mut sender, request).await.0.status, 200);
}
