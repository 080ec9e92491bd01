//! Budgets and rates at the listener: exact, told, recorded, narrowing with delegation, and kept over a stop.

use caracal::clock::Clock;
use caracal::serve::{Embedding, ServeOptions};
use serde_json::{Value, json};

use crate::edge::{APP, Agent, ECHO, Edge, Plan, bootstrap, eventually, post, session};

const AN_HOUR: &str = "
[[budgets]]
name = \"hour\"
per = \"application\"
calls = 3
window_seconds = 3600
";

async fn edge(zone: &str) -> Edge {
    Edge::with(Plan { zone: zone.into(), ..Plan::default() }).await
}

async fn call(edge: &Edge, agent: &Agent) -> reqwest::Response {
    let mandate = agent.mint(edge, &["echo:read"]).await;
    edge.get("/read/a", &mandate).send().await.unwrap()
}

async fn statuses(edge: &Edge, agent: &Agent, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(call(edge, agent).await.status().as_u16());
    }
    statuses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_up_budget_is_told_to_the_caller_and_named_in_the_ledger() {
    let edge = edge(AN_HOUR).await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    assert_eq!(statuses(&edge, &agent, 3).await, [200; 3]);
    let refused = call(&edge, &agent).await;
    assert_eq!(refused.status(), 429);
    let head = refused.headers().clone();
    let wait: u64 = head["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=3_600).contains(&wait), "{wait}");
    assert_eq!(head["ratelimit-policy"], "\"hour\";q=3;w=3600");
    assert_eq!(head["ratelimit"], format!("\"hour\";r=0;t={wait}"));
    assert_eq!(head["x-caracal-error"], "budget_exhausted");
    let body: Value = refused.json().await.unwrap();
    assert_eq!((&body["error"], &body["retryable"]), (&json!("budget_exhausted"), &json!(true)));
    assert_eq!((&body["limit"]["name"], &body["limit"]["remaining"]), (&json!("hour"), &json!(0)));
    let ledger = edge.ledger().await;
    let denied = ledger.iter().find(|line| line["evaluation_status"] == "budget_exhausted").unwrap();
    let told = &denied["metadata_json"];
    assert_eq!(
        (&told["budget"], &told["budget_used"], &told["budget_limit"]),
        (&json!("hour"), &json!(3), &json!(3))
    );
    assert_eq!(told["budget_reset_seconds"], wait);
    let metrics = edge.running().app.metrics.render().unwrap();
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(metrics.contains("caracal_budget_refusals_total{budget=\"hour\",zone=\"z1\"} 1"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_fills_again_with_time_and_a_refused_call_takes_nothing() {
    let clock = Clock::manual(Clock::system().now());
    let edge = Edge::with(Plan {
        zone: "[[rates]]\nname = \"steady\"\nper = \"session\"\ncalls = 1\nwindow_seconds = 10\nburst = 2\n"
            .into(),
        embedding: Embedding { clock: clock.clone(), ..Embedding::default() },
        ..Plan::default()
    })
    .await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    assert_eq!(statuses(&edge, &agent, 4).await, [200, 200, 429, 429]);
    let refused = call(&edge, &agent).await;
    assert_eq!(refused.headers()["retry-after"], "10");
    assert_eq!(refused.json::<Value>().await.unwrap()["error"], "rate_limited");
    clock.advance(std::time::Duration::from_secs(10));
    assert_eq!(statuses(&edge, &agent, 2).await, [200, 429]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_below_one_session_share_what_it_has() {
    let edge = edge("[[budgets]]\nname = \"life\"\nper = \"session\"\ncalls = 5\n").await;
    let bearer = bootstrap(&edge).await;
    let source = session(&edge, &bearer, json!({})).await.unwrap();
    let mut agents = Vec::new();
    for _ in 0..2 {
        let target = session(&edge, &bearer, json!({})).await.unwrap();
        let (status, body) = post(
            &edge,
            &bearer,
            "/delegations",
            json!({
                "issuer_application_id": APP, "receiver_application_id": APP,
                "source_session_id": source, "target_session_id": target,
                "constraints": { "resources": [ECHO] }, "scopes": ["echo:read"], "ttl_seconds": 1020,
            }),
        )
        .await
        .unwrap();
        assert_eq!(status, 201, "{body}");
        let edge_id = body["delegation_edge_id"].as_str().unwrap().to_owned();
        agents.push(Agent { bearer: bearer.clone(), source: source.clone(), target, edge_id });
    }
    assert_eq!(statuses(&edge, &agents[0], 3).await, [200; 3]);
    assert_eq!(statuses(&edge, &agents[1], 3).await, [200, 200, 429], "five for both together");
    let refused = call(&edge, &agents[0]).await;
    assert_eq!(refused.status(), 429);
    assert!(!refused.headers().contains_key("retry-after"), "it does not come back");
    assert_eq!(refused.json::<Value>().await.unwrap()["retryable"], false);
    let used = |subject: &str| {
        let rows = edge.running().app.budgets.standing(0);
        rows.iter().find(|row| *row.subject == *format!("session:{subject}")).map(|row| row.used)
    };
    assert_eq!(used(&source), Some(5));
    assert_eq!((used(&agents[0].target), used(&agents[1].target)), (Some(3), Some(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_set_aside_and_settled_by_what_went_over_the_wire() {
    let zone = "[[budgets]]\nname = \"traffic\"\nper = \"delegation\"\nbytes = 1000\nmax_per_call = 900\n";
    let edge = edge(zone).await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let answer = call(&edge, &agent).await;
    assert_eq!(answer.status(), 200);
    let length = u64::try_from(answer.bytes().await.unwrap().len()).unwrap();
    let app = &edge.running().app;
    let used = || app.budgets.standing(app.clock.now()).first().map(|row| row.used);
    eventually("what was not used is given back", async || used() == Some(length)).await;
    assert!(length < 100, "the next call has its 900 again");
    let next = call(&edge, &agent).await;
    assert_eq!(next.status(), 200);
    drop(next.bytes().await);
    eventually("settled again", async || used() == Some(length * 2)).await;
    let other = Agent::provision(&edge, &["echo:read"]).await;
    assert_eq!(call(&edge, &other).await.status(), 200, "another delegation has its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_used_is_still_used_after_a_stop_and_after_a_crash_that_comes_a_moment_later() {
    let mut edge = edge(AN_HOUR).await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    assert_eq!(statuses(&edge, &agent, 1).await, [200]);
    edge.stop().await;
    edge.boot(ServeOptions::default()).await.unwrap();
    assert_eq!(statuses(&edge, &agent, 1).await, [200]);
    let app = std::sync::Arc::clone(&edge.running().app);
    eventually("it is stored", async || {
        let stored = sqlite_used(&edge).await;
        stored == Some(2)
    })
    .await;
    drop(app);
    edge.crash().await;
    edge.boot(ServeOptions::default()).await.unwrap();
    assert_eq!(statuses(&edge, &agent, 2).await, [200, 429]);
}

/// What the store says is used, read beside the running edge.
async fn sqlite_used(edge: &Edge) -> Option<i64> {
    use sqlx::ConnectOptions as _;
    let path = edge.path("state/state.db");
    let mut connection =
        sqlx::sqlite::SqliteConnectOptions::new().filename(path).read_only(true).connect().await.ok()?;
    sqlx::query_scalar("SELECT used FROM budgets").fetch_optional(&mut connection).await.ok()?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_mints_no_faster_than_it_may() {
    let edge = Edge::with(Plan { config: "[limits]\nmints_per_minute = 4".into(), ..Plan::default() }).await;
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(edge.try_token(&[]).await.unwrap());
    }
    let statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 2, "{answers:?}");
    let (_, body) = &answers[5];
    assert_eq!((&body["error"], &body["retryable"]), (&json!("rate_limited"), &json!(true)));
    assert!(edge.ledger().await.iter().any(|line| line["evaluation_status"] == "rate_limited"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_above_the_cap_is_closed_and_one_that_ends_makes_room() {
    use tokio::io::AsyncReadExt as _;
    let edge = Edge::with(Plan { config: "[limits]\nmax_connections = 2".into(), ..Plan::default() }).await;
    let address = edge.gateway().replace("http://", "");
    let metrics = &edge.running().app.metrics;
    let first = tokio::net::TcpStream::connect(&address).await.unwrap();
    let second = tokio::net::TcpStream::connect(&address).await.unwrap();
    eventually("both are open", async || metrics.connections.get() == 2).await;
    let mut third = tokio::net::TcpStream::connect(&address).await.unwrap();
    assert_eq!(third.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed without an answer");
    assert_eq!(metrics.connections_refused.get(), 1);
    drop(first);
    eventually("a place is free", async || metrics.connections.get() == 1).await;
    assert_eq!(edge.http.get(format!("{}/health", edge.gateway())).send().await.unwrap().status(), 200);
    drop(second);
}
