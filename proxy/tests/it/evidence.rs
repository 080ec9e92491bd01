//! No record, no request: what the ledger, the marks and the clock stop when they cannot do their part.

use std::sync::Arc;
use std::time::Duration;

use caracal::clock::Clock;
use caracal::ledger::Event;
use caracal::serve::{Embedding, ServeOptions};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::edge::{APP, Agent, ECHO, Edge, Plan, ZONE, eventually, ledger_lines};
use crate::scripted::Scripted;

fn configured(text: &str) -> Plan {
    Plan { config: text.into(), ..Plan::default() }
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default();
    (status, body["error"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_strict_mode_the_decision_is_on_disk_before_the_upstream_sees_anything() {
    let mut edge = Edge::with(configured("[ledger]\nmode = \"strict\"")).await;
    let chain = edge.path("state/ledger").join(ZONE);
    let found: Arc<Mutex<Vec<usize>>> = Arc::default();
    let noted = Arc::clone(&found);
    Scripted::behind(&mut edge, move |_, _| {
        let decisions =
            ledger_lines(&chain).iter().filter(|line| line["event_type"] == "gateway_decision").count();
        noted.lock().push(decisions);
        Some(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec())
    })
    .await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    for _ in 0..5 {
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200);
    }
    assert_eq!(*found.lock(), [1, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_ledger_refuses_new_requests_and_keeps_those_under_way() {
    let edge = Edge::with(configured("[ledger]\nqueue = 16")).await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let mut mandates = Vec::new();
    for _ in 0..24 {
        mandates.push(agent.mint(&edge, &["echo:read"]).await);
        edge.running().app.ledger.flush().await.unwrap();
    }
    let mut streams = Vec::new();
    let refused = loop {
        let mandate = mandates.pop().expect("16 places are filled by fewer than 24 streams");
        let mut response = edge.get("/read/sse", &mandate).send().await.unwrap();
        if response.status() != 200 {
            let retry = response.headers()["retry-after"].to_str().unwrap().to_owned();
            break (mandate, response.status().as_u16(), retry, response.text().await.unwrap());
        }
        assert!(response.chunk().await.unwrap().is_some());
        streams.push(response);
        edge.running().app.ledger.flush().await.unwrap();
    };
    let (mandate, status, retry, body) = refused;
    assert_eq!((status, retry.as_str()), (503, "1"));
    assert!(body.contains("ledger_unavailable"), "{body}");
    assert!(streams.len() >= 8, "each holds the place of its result: {}", streams.len());
    streams.clear();
    eventually("the places come back", async || edge.running().app.live.count() == 0).await;
    edge.running().app.ledger.flush().await.unwrap();
    assert_eq!(answer(edge.get("/read/a", &mandate)).await.0, 200, "the refused mandate was not burnt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn junk_takes_no_place_from_authenticated_requests_however_small_the_ledger() {
    let edge = Edge::with(configured("[ledger]\nqueue = 16")).await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    for _ in 0..5 {
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        let junk = (0..200).map(|_| edge.get("/read/a", "junk").send());
        for refused in futures_util::future::join_all(junk).await {
            assert_eq!(refused.unwrap().status(), 401);
        }
        assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200);
    }
    let counted = async || {
        edge.running().app.ledger.flush().await.unwrap();
        let lines = ledger_lines(&edge.path("state/ledger/_system"));
        let counts = lines.iter().filter(|line| line["evaluation_status"] == "token_malformed");
        counts.map(|line| line["metadata_json"]["count"].as_u64().unwrap_or(1)).sum::<u64>() == 1_000
    };
    eventually("the counts add up", counted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_cannot_write_refuses_everything_and_recovers() {
    let edge = Edge::start().await;
    let mandate = edge.mandate().await;
    edge.running().app.ledger.flush().await.unwrap();
    let folder = edge.path("state/ledger/full");
    std::fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink("/dev/full", folder.join("000001.jsonl")).unwrap();
    let event = Event { id: "e".into(), zone_id: "full".into(), event_type: "test", ..Event::default() };
    edge.running().app.ledger.event(event).unwrap();
    let ready =
        async || edge.http.get(format!("{}/ready", edge.ops())).send().await.unwrap().text().await.unwrap();
    eventually("readiness says so", async || ready().await.contains("ledger_unavailable")).await;
    assert_eq!(answer(edge.get("/read/a", &mandate)).await, (503, "ledger_unavailable".to_owned()));
    let (status, _) = edge.try_token(&[("resource", ECHO), ("scope", "agent:lifecycle")]).await.unwrap();
    assert_eq!(status, 503, "nothing is minted either");
    assert_eq!(edge.upstream.count(), 0);
    std::fs::remove_file(folder.join("000001.jsonl")).unwrap();
    eventually("it recovers", async || edge.running().app.readiness().is_ok()).await;
    assert_eq!(answer(edge.get("/read/a", &mandate)).await.0, 200, "the mandate was not burnt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_fills_its_marks_leaves_the_others_theirs() {
    let edge = Edge::with(configured("[limits]\nmax_marks = 1000")).await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let app = &edge.running().app;
    let keep = app.clock.now() + 600_000;
    let mut filled = 0;
    while app.state.use_once(ZONE, &format!("jti-{filled}"), APP, keep).is_ok() {
        filled += 1;
        assert!(filled < 1_000, "one application takes everything");
    }
    let refused = edge.get("/read/a", &mandate).send().await.unwrap();
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    assert!(refused.text().await.unwrap().contains("\"capacity\""));
    assert_eq!(edge.upstream.count(), 0);
    app.state.use_once(ZONE, "jti-of-another", "agent-2", keep).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_clock_cannot_be_relied_on_nothing_is_minted() {
    let clock = Clock::manual(Clock::system().now());
    let embedding = Embedding { clock: clock.clone(), ..Embedding::default() };
    let edge = Edge::with(Plan { embedding, ..Plan::default() }).await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    clock.step(-6_000);
    let (status, body) = agent.try_mint(&edge, &["echo:read"], &[]).await;
    assert_eq!((status, body["error"].as_str()), (503, Some("sts_unavailable")), "{body}");
    assert_eq!(body["retryable"].as_bool(), Some(true), "{body}");
    assert!(body["detail"].as_str().unwrap().contains("clock"), "{body}");
    let ready = edge.http.get(format!("{}/ready", edge.ops())).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains("clock"));
    assert_eq!(answer(edge.get("/read/a", &mandate)).await.0, 200, "what was minted before is still decided");
    clock.step(6_000);
    agent.mint(&edge, &["echo:read"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_that_is_set_ends_what_may_be_over_and_revives_nothing() {
    let clock = Clock::manual(Clock::system().now());
    let embedding = Embedding { clock: clock.clone(), ..Embedding::default() };
    let edge = Edge::with(Plan { embedding, ..Plan::default() }).await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let mandates = [agent.mint(&edge, &["echo:read"]).await, agent.mint(&edge, &["echo:read"]).await];
    clock.step(-86_400_000);
    assert_eq!(answer(edge.get("/read/a", &mandates[0])).await.0, 200, "a day back changes nothing");
    clock.step(2 * 86_400_000);
    assert_eq!(answer(edge.get("/read/a", &mandates[1])).await.0, 401, "a day ahead, it may be over");
    clock.step(-86_400_000);
    assert_eq!(answer(edge.get("/read/a", &mandates[1])).await.0, 401, "and stays so");
    assert_eq!(agent.try_mint(&edge, &["echo:read"], &[]).await.0, 503, "nothing is dated into the future");
    assert_eq!(edge.upstream.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_does_not_outlive_a_restart() {
    let mut edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let (first, second) = (agent.mint(&edge, &["echo:read"]).await, agent.mint(&edge, &["echo:read"]).await);
    let head = |mandate: &str| {
        format!(
            "GET /read/a HTTP/1.1\r\nHost: edge\r\nX-Caracal-Resource: {ECHO}\r\nAuthorization: Bearer {mandate}\r\n\r\n"
        )
    };
    let mut kept = TcpStream::connect(edge.running().addresses.gateway).await.unwrap();
    kept.write_all(head(&first).as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    kept.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer[..], b"HTTP/1.1 200");
    edge.stop().await;
    edge.boot(ServeOptions::default()).await.unwrap();
    // The old process has gone, so nothing of it may answer again.
    drop(kept.write_all(head(&second).as_bytes()).await);
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), kept.read_to_end(&mut rest)).await;
    drop(read.expect("the connection was closed"));
    assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
    assert_eq!(edge.upstream.count(), 1);
    assert_eq!(edge.get("/read/a", &first).send().await.unwrap().status(), 401, "used is used");
    assert_eq!(edge.get("/read/a", &second).send().await.unwrap().status(), 200);
}
