//! An upstream that is served at several places: calls are spread, and what cannot be reached is left alone.

use std::sync::Arc;
use std::time::Duration;

use caracal::clock::Clock;
use caracal::serve::{Embedding, ServeOptions};

use crate::edge::{Agent, CANARY, ECHO, Edge, Plan, ZONE, eventually, write_private};
use crate::egress::Names;
use crate::upstream::Upstream;

struct Case {
    edge: Edge,
    clock: Clock,
    agent: Agent,
}

impl Case {
    /// An edge whose echo resource is served at these addresses.
    async fn at(targets: &[String]) -> Self {
        let clock = Clock::manual(1_790_000_000_000);
        let resource = format!("targets = {targets:?}");
        let embedding = Embedding { clock: clock.clone(), ..Embedding::default() };
        let mut edge = Edge::prepared(Plan {
            resource,
            embedding,
            granted: vec!["echo:read", "echo:write"],
            ..Plan::default()
        })
        .await;
        secrets(&edge, "\"127.0.0.1\"");
        edge.boot(ServeOptions::default()).await.unwrap();
        let agent = Agent::provision(&edge, &["echo:read", "echo:write"]).await;
        Self { edge, clock, agent }
    }

    async fn get(&self, path: &str) -> u16 {
        let mandate = self.agent.mint(&self.edge, &["echo:read"]).await;
        self.edge.get(path, &mandate).send().await.unwrap().status().as_u16()
    }

    async fn failures(&self) -> u64 {
        let metrics = self.edge.http.get(format!("{}/metrics", self.edge.ops())).send().await.unwrap();
        let text = metrics.text().await.unwrap();
        let name = format!("caracal_upstream_connect_failures_total{{resource=\"{ECHO}\",zone=\"{ZONE}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_default()
    }
}

fn secrets(edge: &Edge, hosts: &str) {
    let text = format!(
        "schema = 1\n[secrets.echo]\nzones = [\"{ZONE}\"]\nhosts = [{hosts}]\napi_key = \"{CANARY}\"\n"
    );
    write_private(&edge.path("secrets.toml"), &text);
}

/// An address where nobody listens.
fn nobody() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_spread_and_each_target_sees_the_upstreams_name() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let case = Case::at(&[one.address.to_string(), two.address.to_string()]).await;
    for _ in 0..40 {
        assert_eq!(case.get("/read/a").await, 200);
    }
    // Each of forty goes to one of two that are idle alike: that one gets none of them, nobody lives to see.
    assert!(one.count() > 0 && two.count() > 0, "{} and {}", one.count(), two.count());
    assert_eq!(one.count() + two.count(), 40);
    assert_eq!(case.edge.upstream.count(), 0, "the upstream's own host is not dialled");
    for target in [&one, &two] {
        assert_eq!(target.last().header("host"), [case.edge.upstream.address.to_string()]);
        assert_eq!(target.last().header("x-api-key"), [CANARY]);
    }
    let lines = case.edge.ledger_with("gateway_resource_request", 40).await;
    let went = |to: &Upstream| {
        let address = to.address.to_string();
        lines.iter().filter(|line| line["metadata_json"]["upstream_address"] == address.as_str()).count()
    };
    assert_eq!((went(&one), went(&two)), (one.count(), two.count()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_target_with_fewer_requests_in_flight_is_chosen() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let case = Case::at(&[one.address.to_string(), two.address.to_string()]).await;
    let mandate = case.agent.mint(&case.edge, &["echo:read"]).await;
    let request = case.edge.get("/read/sse", &mandate).header("accept", "text/event-stream");
    let _open = request.send().await.unwrap();
    let (busy, idle) = if one.count() == 1 { (&one, &two) } else { (&two, &one) };
    for _ in 0..10 {
        // The answer is there a moment before its request is over.
        let in_flight = &case.edge.running().app.metrics.in_flight;
        eventually("only the stream is in flight", async || in_flight.get() == 1).await;
        assert_eq!(case.get("/read/a").await, 200);
    }
    assert_eq!((busy.count(), idle.count()), (1, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_cannot_be_reached_fails_no_call_and_is_left_alone() {
    let one = Upstream::start().await;
    let case = Case::at(&[nobody(), one.address.to_string()]).await;
    for _ in 0..30 {
        assert_eq!(case.get("/read/a").await, 200);
    }
    assert_eq!(case.failures().await, 1, "one call found out, and the clock stands still");
    let mandate = case.agent.mint(&case.edge, &["echo:write"]).await;
    case.clock.advance(Duration::from_secs(2));
    for _ in 0..30 {
        assert_eq!(case.get("/read/a").await, 200);
    }
    assert_eq!(case.failures().await, 2, "after the pause one more found out");
    case.clock.advance(Duration::from_secs(3));
    let url = format!("{}/write/a", case.edge.gateway());
    let post = case.edge.http.post(url).header("x-caracal-resource", ECHO).bearer_auth(&mandate);
    assert_eq!(post.body("a body").send().await.unwrap().status(), 200);
    assert_eq!(one.last().body, b"a body", "a body passes too: nothing had been sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_once_is_not_sent_to_another_target() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let case = Case::at(&[one.address.to_string(), two.address.to_string()]).await;
    assert_eq!(case.get("/read/reset").await, 502);
    assert_eq!(one.count() + two.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_every_target_away_the_caller_is_told_so() {
    let case = Case::at(&[nobody(), nobody(), nobody()]).await;
    assert_eq!(case.get("/read/a").await, 502);
    assert_eq!(case.failures().await, 3, "each was tried");
    assert_eq!(case.get("/read/a").await, 502, "and is again: trying is better than not");
    assert_eq!(case.failures().await, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_with_several_addresses_is_served_by_the_one_that_answers() {
    let resolver = Names::of(&[("several.test", &[&["127.0.0.2", "127.0.0.1", "127.0.0.3"]])]);
    let plan = Plan {
        provider: "kind = \"none\"".to_owned(),
        embedding: Embedding { resolver: Arc::<Names>::clone(&resolver), ..Embedding::default() },
        ..Plan::default()
    };
    let mut edge = Edge::prepared(plan).await;
    let named = format!("http://several.test:{}", edge.upstream.address.port());
    std::fs::write(edge.bundle(), edge.bundle_text().replace(&edge.upstream.url(), &named)).unwrap();
    edge.boot(ServeOptions::default()).await.unwrap();
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    for _ in 0..5 {
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200);
    }
    assert_eq!(edge.upstream.count(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_is_held_to_what_an_upstream_is_held_to() {
    for (target, hosts, expected) in [
        ("169.254.169.254:80", "\"127.0.0.1\", \"169.254.169.254\"", "egress_address"),
        ("127.0.0.9:80", "\"127.0.0.1\"", "secret_host"),
        ("10.0.0.9:80", "\"127.0.0.1\", \"10.0.0.9\"", "secret_insecure"),
        ("127.0.0.1", "\"127.0.0.1\"", "error[target]"),
        ("http://127.0.0.1:80", "\"127.0.0.1\"", "error[target]"),
    ] {
        let resource = format!("targets = [\"{target}\"]");
        let mut edge = Edge::prepared(Plan { resource, ..Plan::default() }).await;
        secrets(&edge, hosts);
        let error = edge.boot(ServeOptions::default()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{target}: {error}");
    }
}

/// One place, one in the queue: the third is told to come back, the second gets its turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_waits_for_a_place_where_the_queue_has_room() {
    let resource = "limits = { max_concurrent = 1, max_waiting = 1, max_wait_ms = 60000 }".to_owned();
    let edge = Arc::new(Edge::with(Plan { resource, ..Plan::default() }).await);
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let request = edge.get("/read/sse", &mandate).header("accept", "text/event-stream");
    let open = request.send().await.unwrap();
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let second = tokio::spawn(edge.get("/read/second", &mandate).send());
    let in_flight = &edge.running().app.metrics.in_flight;
    eventually("the second is there", async || in_flight.get() == 2).await;
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let refused = async || {
        let third = edge.get("/read/third", &mandate).send().await.unwrap();
        third.status() == 503 && third.headers()["retry-after"] == "1"
    };
    // The second counts as in flight a moment before it waits.
    eventually("the queue is full", refused).await;
    assert_eq!(edge.upstream.count(), 1);
    drop(open);
    assert_eq!(second.await.unwrap().unwrap().status(), 200);
    assert_eq!(
        edge.get("/read/third", &mandate).send().await.unwrap().status(),
        200,
        "its mandate was not used up"
    );
}
