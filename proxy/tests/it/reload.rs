//! Bundles and secrets that change under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::edge::{Agent, Edge, eventually};

const ROUNDS: usize = 200;

/// Agents that call without pause until they are told to stop; every answer must be 200.
pub async fn load(
    edge: &Arc<Edge>,
    stop: &Arc<AtomicBool>,
) -> (Vec<tokio::task::JoinHandle<()>>, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (edge, stop, calls) = (Arc::clone(edge), Arc::clone(stop), Arc::clone(&calls));
        let agent = Agent::provision(&edge, &["echo:read"]).await;
        tasks.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let mandate = agent.mint(&edge, &["echo:read"]).await;
                let answer = edge.get("/read/a", &mandate).send().await.unwrap();
                assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
                calls.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    (tasks, calls)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_secret_rotations_under_load_fail_no_request_and_each_is_used_at_once() {
    let edge = Arc::new(Edge::start().await);
    let stop = Arc::new(AtomicBool::new(false));
    let (tasks, calls) = load(&edge, &stop).await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    for round in 0..ROUNDS {
        let key = format!("sk-rotated-{round:04}-0123456789abcdef");
        edge.write_secrets(&key);
        edge.running().app.reloader.reload().await;
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        let path = format!("/read/probe-{round}");
        assert_eq!(edge.get(&path, &mandate).send().await.unwrap().status(), 200);
        let seen = edge.upstream.seen();
        let probe = seen.iter().rev().find(|seen| seen.line().contains(&path)).unwrap();
        assert_eq!(probe.header("x-api-key"), [key], "the next request uses the new state");
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    assert!(calls.load(Ordering::Relaxed) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_bundle_reloads_under_load_fail_no_request_and_each_bites_at_once() {
    let edge = Arc::new(Edge::start().await);
    let stop = Arc::new(AtomicBool::new(false));
    let (tasks, calls) = load(&edge, &stop).await;
    let agent = Agent::provision(&edge, &["echo:read", "echo:write"]).await;
    let plain = edge.bundle_text();
    let wider = plain.replace(r#"["echo:read"]"#, r#"["echo:read", "echo:write"]"#);
    for round in 0..ROUNDS {
        let (text, expected) = if round % 2 == 0 { (&wider, 200) } else { (&plain, 403) };
        std::fs::write(edge.bundle(), text).unwrap();
        edge.running().app.reloader.reload().await;
        assert_eq!(agent.try_mint(&edge, &["echo:write"], &[]).await.0, expected, "round {round}");
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    assert!(calls.load(Ordering::Relaxed) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_is_picked_up_without_being_told() {
    let mut edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read", "echo:write"]).await;
    assert_eq!(agent.try_mint(&edge, &["echo:write"], &[]).await.0, 403);
    edge.plan.granted = vec!["echo:read", "echo:write"];
    std::fs::write(edge.bundle(), edge.bundle_text()).unwrap();
    eventually("the new grant is in force", async || {
        agent.try_mint(&edge, &["echo:write"], &[]).await.0 == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_cannot_be_used_leave_the_last_good_state_running_and_readiness_says_so() {
    let edge = Edge::start().await;
    let ready =
        async || edge.http.get(format!("{}/ready", edge.ops())).send().await.unwrap().status().as_u16();
    assert_eq!(ready().await, 200);
    std::fs::write(edge.bundle(), "schema = 1\n[zone").unwrap();
    edge.running().app.reloader.reload().await;
    let mandate = edge.mandate().await;
    assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200);
    let metrics =
        edge.http.get(format!("{}/metrics", edge.ops())).send().await.unwrap().text().await.unwrap();
    assert!(
        metrics.contains(r#"caracal_reloads_total{result="rejected",what="bundle",zone="z1"} 1"#),
        "{metrics}"
    );
    std::fs::write(edge.bundle(), edge.bundle_text()).unwrap();
    edge.running().app.reloader.reload().await;
    edge.write_secrets_mode("sk-world-readable-secret", 0o644);
    edge.running().app.reloader.reload().await;
    let mandate = edge.mandate().await;
    assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200);
    assert_eq!(edge.upstream.last().header("x-api-key"), [crate::edge::CANARY]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_with_a_bad_bundle_runs_on_the_last_activated_one_and_is_not_ready() {
    let mut edge = Edge::start().await;
    edge.stop().await;
    std::fs::write(edge.bundle(), "schema = 1\n").unwrap();
    edge.boot(Default::default()).await.unwrap();
    let ready = edge.http.get(format!("{}/ready", edge.ops())).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains("bundle_rejected"));
    let mandate = edge.mandate().await;
    assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200);
    edge.stop().await;
    std::fs::remove_dir_all(edge.path("state/activated")).unwrap();
    let refused = edge.boot(Default::default()).await.unwrap_err();
    assert_eq!(refused.exit_code(), 64, "{refused}");
}
