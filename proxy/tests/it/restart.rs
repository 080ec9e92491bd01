//! What a stop, a crash and a restored backup leave behind.

use crate::edge::{Agent, Edge};
use caracal::serve::{ServeError, ServeOptions};

async fn status(edge: &Edge, mandate: &str) -> u16 {
    edge.get("/read/a", mandate).send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_clean_stop_unused_mandates_pass_once_and_used_ones_stay_used() {
    let mut edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let (used, unused) = (agent.mint(&edge, &["echo:read"]).await, agent.mint(&edge, &["echo:read"]).await);
    assert_eq!(status(&edge, &used).await, 200);
    edge.stop().await;
    edge.boot(ServeOptions::default()).await.unwrap();
    assert_eq!(status(&edge, &used).await, 401);
    assert_eq!(status(&edge, &unused).await, 200);
    assert_eq!(status(&edge, &unused).await, 401);
    let fresh = agent.mint(&edge, &["echo:read"]).await;
    assert_eq!(status(&edge, &fresh).await, 200, "sessions and delegations are still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_crash_no_earlier_mandate_passes_and_nothing_acknowledged_is_lost() {
    let mut edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let ended = Agent::provision(&edge, &["echo:read"]).await;
    let url = format!("{}/zones/z1/agents/{}", edge.coordinator(), ended.target);
    assert_eq!(edge.http.delete(url).bearer_auth(&ended.bearer).send().await.unwrap().status(), 204);
    let (used, unused) = (agent.mint(&edge, &["echo:read"]).await, agent.mint(&edge, &["echo:read"]).await);
    assert_eq!(status(&edge, &used).await, 200);
    edge.crash().await;
    edge.boot(ServeOptions::default()).await.unwrap();
    assert_eq!(status(&edge, &used).await, 401);
    assert_eq!(status(&edge, &unused).await, 401);
    let fresh = agent.mint(&edge, &["echo:read"]).await;
    assert_eq!(status(&edge, &fresh).await, 200);
    assert_eq!(ended.try_mint(&edge, &["echo:read"], &[]).await.0, 403, "what was ended stays ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_same_folder_does_not_start() {
    let edge = Edge::start().await;
    let mut second = Edge {
        dir: tempfile::TempDir::new().unwrap(),
        upstream: edge.upstream.clone(),
        running: None,
        runtime: None,
        plan: edge.plan.clone(),
        http: edge.http.clone(),
        remote: None,
    };
    second.plan.config.clear();
    second.write_files();
    std::fs::remove_dir_all(second.path("state")).ok();
    std::os::unix::fs::symlink(edge.path("state"), second.path("state")).unwrap();
    let refused = second.boot(ServeOptions::default()).await.unwrap_err();
    assert!(matches!(refused, ServeError::Locked), "{refused}");
    assert_eq!(refused.exit_code(), 66);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_brought_back_from_a_backup_is_noticed() {
    let mut edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    edge.stop().await;
    let backup = edge.path("backup");
    copy(&edge.path("state/ledger"), &backup);
    edge.boot(ServeOptions::default()).await.unwrap();
    for _ in 0..3 {
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        assert_eq!(status(&edge, &mandate).await, 200);
    }
    edge.stop().await;
    std::fs::remove_dir_all(edge.path("state/ledger")).unwrap();
    copy(&backup, &edge.path("state/ledger"));
    let refused = edge.boot(ServeOptions::default()).await.unwrap_err();
    assert_eq!(refused.exit_code(), 65, "{refused}");
    edge.boot(ServeOptions { accept_restored: true }).await.unwrap();
    assert_eq!(agent.try_mint(&edge, &["echo:read"], &[]).await.0, 403, "every session has ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_behind_its_ledger_is_noticed() {
    let mut edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    edge.stop().await;
    let backup = edge.path("backup.db");
    copy(&edge.path("state/state.db"), &backup);
    edge.boot(ServeOptions::default()).await.unwrap();
    assert_eq!(status(&edge, &agent.mint(&edge, &["echo:read"]).await).await, 200);
    edge.stop().await;
    std::fs::remove_file(edge.path("state/state.db")).unwrap();
    copy(&backup, &edge.path("state/state.db"));
    let refused = edge.boot(ServeOptions::default()).await.unwrap_err();
    assert_eq!(refused.exit_code(), 65, "{refused}");
    edge.boot(ServeOptions { accept_restored: true }).await.unwrap();
    assert_eq!(agent.try_mint(&edge, &["echo:read"], &[]).await.0, 403, "every session has ended");
    edge.stop().await;
    edge.boot(ServeOptions::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_backup_is_ended_although_nothing_can_be_noticed() {
    let mut edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let unused = agent.mint(&edge, &["echo:read"]).await;
    edge.stop().await;
    edge.boot(ServeOptions { accept_restored: true }).await.unwrap();
    assert_eq!(agent.try_mint(&edge, &["echo:read"], &[]).await.0, 403, "every session has ended");
    assert_eq!(status(&edge, &unused).await, 401, "its key is no longer good");
    edge.stop().await;
    let told = std::fs::read_to_string(edge.path("state/ledger/_system/000001.jsonl")).unwrap();
    assert!(told.contains("restore_accepted"), "the act is in the ledger");
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}
