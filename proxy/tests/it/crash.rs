//! The real binary, killed at random points under load.

use std::collections::HashSet;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use caracal::ledger::LedgerKey;
use parking_lot::Mutex;
use serde_json::Value;

use crate::edge::{Agent, Edge, Plan, client, eventually, install_crypto};
use crate::upstream::Upstream;

const KILLS: u64 = 50;

/// What was acknowledged before a kill, and what must therefore hold after it.
#[derive(Default)]
struct Acknowledged {
    sessions: Vec<String>,
    ended: Vec<String>,
    used: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_at_random_points_loses_nothing_acknowledged_and_accepts_nothing_twice() {
    let edge = Arc::new(outside().await);
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    for kill in 0..KILLS {
        let mut process = spawn(&edge.path("caracal.toml"));
        ready(&edge).await;
        check(&edge, &acknowledged).await;
        let work = tokio::spawn(work(Arc::clone(&edge), Arc::clone(&acknowledged)));
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(kill + 1);
        tokio::time::sleep(Duration::from_millis(20 + (random >> 33) % 180)).await;
        process.kill().unwrap();
        process.wait().unwrap();
        work.abort();
    }
    let mut process = spawn(&edge.path("caracal.toml"));
    ready(&edge).await;
    check(&edge, &acknowledged).await;
    process.kill().unwrap();
    process.wait().unwrap();
    let seen: Vec<String> = edge.upstream.seen().iter().map(|seen| seen.line().to_owned()).collect();
    let distinct: HashSet<&String> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len(), "every call names its mandate; none came twice");
    assert!(!acknowledged.lock().used.is_empty());
    let verified = Command::new(env!("CARGO_BIN_EXE_caracal"))
        .args(["audit", "verify", "--ledger"])
        .arg(edge.path("state/ledger"))
        .arg("--fingerprint")
        .arg(LedgerKey::open(&edge.path("state/keys/ledger")).unwrap().fingerprint().to_string())
        .output()
        .unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

/// An edge that runs as a process of its own, once it is spawned.
pub async fn outside() -> Edge {
    install_crypto();
    let ports: Vec<u16> = (0..4).map(|_| free_port()).collect();
    let plan = Plan {
        config: format!(
            "[listeners.gateway]\naddress = \"127.0.0.1:{}\"\n[listeners.authority]\naddress = \"127.0.0.1:{}\"\n\
             [listeners.coordinator]\naddress = \"127.0.0.1:{}\"\n[listeners.ops]\naddress = \"127.0.0.1:{}\"\n",
            ports[0], ports[1], ports[2], ports[3]
        ),
        ..Plan::default()
    };
    let edge = Edge {
        dir: tempfile::TempDir::new().unwrap(),
        upstream: Upstream::start().await,
        running: None,
        runtime: None,
        plan,
        http: client(),
        remote: Some([0, 1, 2, 3].map(|at| format!("127.0.0.1:{}", ports[at]))),
    };
    edge.write_files();
    std::fs::write(edge.path("caracal.toml"), edge.config_text(&edge.authority())).unwrap();
    edge
}

/// Starts sessions, ends some, calls with mandates, and notes only what was answered.
async fn work(edge: Arc<Edge>, acknowledged: Arc<Mutex<Acknowledged>>) {
    while let Some(agent) = Agent::try_provision(&edge, &["echo:read"]).await {
        acknowledged.lock().sessions.push(agent.source.clone());
        for _ in 0..3 {
            let Some((200, body)) = agent.ask(&edge, &["echo:read"], &[]).await else { return };
            let mandate = body["access_token"].as_str().unwrap().to_owned();
            let path = format!("/read/{}", mandate.get(mandate.len() - 40..).unwrap());
            if edge.get(&path, &mandate).send().await.is_ok_and(|answer| answer.status() == 200) {
                acknowledged.lock().used.push(mandate);
            }
        }
        let url = format!("{}/zones/z1/agents/{}", edge.coordinator(), agent.target);
        let ended = edge.http.delete(url).bearer_auth(&agent.bearer).send().await;
        if ended.is_ok_and(|answer| answer.status() == 204) {
            acknowledged.lock().ended.push(agent.target);
        }
    }
}

async fn check(edge: &Edge, acknowledged: &Mutex<Acknowledged>) {
    let bearer = crate::edge::bootstrap(edge).await;
    let (sessions, ended, used) = {
        let known = acknowledged.lock();
        let tail = |ids: &[String]| ids[ids.len().saturating_sub(20)..].to_vec();
        (tail(&known.sessions), tail(&known.ended), tail(&known.used))
    };
    for (ids, status) in [(sessions, "active"), (ended, "terminated")] {
        for id in ids {
            let url = format!("{}/zones/z1/agents/{id}", edge.coordinator());
            let answer = edge.http.get(url).bearer_auth(&bearer).send().await.unwrap();
            assert_eq!(answer.status(), 200, "session {id} is lost");
            assert_eq!(answer.json::<Value>().await.unwrap()["status"], status, "session {id}");
        }
    }
    for mandate in used {
        let again = edge.get("/read/again", &mandate).send().await.unwrap();
        assert_eq!(again.status(), 401, "a used mandate was accepted again");
    }
}

pub async fn ready(edge: &Edge) {
    let url = format!("{}/ready", edge.ops());
    eventually("the process is ready", async || {
        edge.http.get(&url).send().await.is_ok_and(|r| r.status() == 200)
    })
    .await;
}

pub fn spawn(config: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_caracal"))
        .arg("serve")
        .arg("--config")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
