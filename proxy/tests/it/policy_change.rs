//! Requests that are under way when the policy changes.

use std::time::Duration;

use caracal::clock::Clock;
use caracal::serve::Embedding;

use crate::edge::{APP, Agent, ECHO, Edge, Plan, eventually};

const BOTH: [&str; 2] = ["echo:read", "echo:write"];

struct Streams {
    edge: Edge,
    clock: Clock,
    read: reqwest::Response,
    write: reqwest::Response,
}

/// An edge with two open streams: one that needs `echo:read` and one that needs `echo:write`.
async fn two_streams() -> Streams {
    let clock = Clock::manual(Clock::system().now());
    let embedding = Embedding { clock: clock.clone(), ..Embedding::default() };
    let edge = Edge::with(Plan { granted: BOTH.to_vec(), embedding, ..Plan::default() }).await;
    let agent = Agent::provision(&edge, &BOTH).await;
    let (one, two) = (agent.mint(&edge, &BOTH[..1]).await, agent.mint(&edge, &BOTH[1..]).await);
    let mut read = edge.get("/read/sse", &one).send().await.unwrap();
    assert!(read.chunk().await.unwrap().is_some());
    let url = format!("{}/write/sse", edge.gateway());
    let mut write =
        edge.http.post(url).header("x-caracal-resource", ECHO).bearer_auth(two).send().await.unwrap();
    assert!(write.chunk().await.unwrap().is_some());
    Streams { edge, clock, read, write }
}

async fn ends(stream: &mut reqwest::Response) {
    let end = tokio::time::timeout(Duration::from_secs(5), stream.chunk()).await.expect("the stream is cut");
    end.expect_err("a cut stream does not look complete");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_cuts_the_streams_that_it_denies_and_no_other() {
    let Streams { mut edge, clock, mut read, mut write } = two_streams().await;
    clock.advance(Duration::from_millis(1_500));
    edge.plan.granted = vec!["echo:write"];
    edge.write_files();
    edge.running().app.reloader.reload().await;
    ends(&mut read).await;
    let lines = edge.ledger_with("gateway_resource_request", 1).await;
    let cut: Vec<_> = lines.iter().filter(|line| line["event_type"] == "gateway_resource_request").collect();
    assert_eq!(cut.len(), 1);
    assert_eq!(cut[0]["metadata_json"]["cut"], "policy");
    assert_eq!(cut[0]["evaluation_status"], "interrupted");
    eventually("one is left", async || edge.running().app.live.count() == 1).await;
    edge.plan.granted = vec!["echo:read"];
    edge.write_files();
    edge.running().app.reloader.reload().await;
    ends(&mut write).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_leaves_the_bundle_takes_its_streams_with_it() {
    let Streams { edge, clock, mut read, mut write } = two_streams().await;
    clock.advance(Duration::from_millis(1_500));
    let without = edge
        .bundle_text()
        .replace(&format!("id = \"{APP}\""), "id = \"agent-9\"")
        .replace(&format!("one = \"{APP}\""), "one = \"agent-9\"");
    std::fs::write(edge.bundle(), without).unwrap();
    edge.running().app.reloader.reload().await;
    ends(&mut read).await;
    ends(&mut write).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_younger_than_a_second_has_its_turn_when_it_is_older() {
    let Streams { mut edge, clock, mut read, write: _write } = two_streams().await;
    edge.plan.granted = vec!["echo:write"];
    edge.write_files();
    edge.running().app.reloader.reload().await;
    let app = &edge.running().app;
    assert_eq!(app.live.decide_again(&app.snapshot.load(), app.clock.now()), 0);
    assert_eq!(app.live.count(), 2);
    clock.advance(Duration::from_millis(1_000));
    ends(&mut read).await;
}
