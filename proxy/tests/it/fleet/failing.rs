//! A fleet under load while a part of it fails.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use super::*;

/// Presents every mandate to both nodes at once, twice; gives how often each passed.
async fn spend(nodes: [Arc<Edge>; 2], mandates: Vec<String>, done: Arc<AtomicUsize>) -> Vec<usize> {
    let mut passed = Vec::new();
    for mandate in &mandates {
        let mut count = 0;
        for _ in 0..2 {
            let (a, b) = tokio::join!(answer(&nodes[0], mandate), answer(&nodes[1], mandate));
            count += [a, b].into_iter().filter(|code| *code == Some(200)).count();
        }
        passed.push(count);
        done.fetch_add(1, Ordering::AcqRel);
    }
    passed
}

/// The status, if anybody answered.
async fn answer(edge: &Edge, mandate: &str) -> Option<u16> {
    Some(edge.get("/read/a", mandate).send().await.ok()?.status().as_u16())
}

/// Runs [`spend`] over all mandates, four at a time, and `meanwhile` once a part of them is spent.
async fn under_load(
    nodes: [Arc<Edge>; 2],
    mandates: &[String],
    mut meanwhile: impl AsyncFnMut(usize),
    at: &[usize],
) -> Vec<usize> {
    let done = Arc::new(AtomicUsize::new(0));
    let parts = mandates.chunks(mandates.len().div_ceil(4));
    let load: Vec<_> =
        parts.map(|part| tokio::spawn(spend(nodes.clone(), part.to_vec(), Arc::clone(&done)))).collect();
    for (turn, at) in at.iter().enumerate() {
        eventually("the load goes on", async || done.load(Ordering::Acquire) >= *at).await;
        meanwhile(turn).await;
    }
    let mut passed = Vec::new();
    for part in load {
        passed.extend(part.await.unwrap());
    }
    passed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_redis_is_restarted_under_load_no_mandate_passes_twice_and_both_nodes_recover() {
    let mut redis = Redis::start().await;
    let (first, second, stock) = pair(&redis, 120).await;
    let nodes = [Arc::new(first), Arc::new(second)];
    let restart = async |_| {
        redis.kill();
        redis.run().await;
    };
    let passed = under_load(nodes.clone(), &stock.mandates, restart, &[40]).await;
    assert!(passed.iter().all(|count| *count <= 1), "{passed:?}");
    assert!(passed.contains(&1), "{passed:?}");
    for node in &nodes {
        eventually("ready", async || ready(node).await.0 == 200).await;
        let upstream = node.upstream.count();
        for mandate in &stock.mandates {
            assert_eq!(status(node, mandate).await, 401, "its epoch went with Redis");
        }
        assert_eq!(node.upstream.count(), upstream);
        break_even(node, &stock.agent).await;
    }
}

/// A process that does not outlive its test.
struct Process(Child);

impl Process {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A node as a process of its own, so that it can be killed.
fn process(edge: &mut Edge) -> Process {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap();
    let held = [free(), free(), free(), free()];
    let ports = held.each_ref().map(|socket| socket.local_addr().unwrap().to_string());
    for (name, address) in ["gateway", "authority", "coordinator", "ops"].into_iter().zip(&ports) {
        writeln!(edge.plan.config, "[listeners.{name}]\naddress = \"{address}\"").unwrap();
    }
    drop(held);
    let issuer = std::fs::read_to_string(edge.path("issuer")).unwrap();
    std::fs::write(edge.path("caracal.toml"), edge.config_text(&issuer)).unwrap();
    edge.remote = Some(ports);
    spawn(edge)
}

fn spawn(edge: &Edge) -> Process {
    let child = Command::new(env!("CARGO_BIN_EXE_caracal"))
        .args(["serve", "--config"])
        .arg(edge.path("caracal.toml"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Process(child.unwrap())
}

async fn serves(edge: &Edge) {
    let url = format!("{}/ready", edge.ops());
    let ok = async || edge.http.get(&url).send().await.is_ok_and(|answer| answer.status() == 200);
    eventually("the process is ready", ok).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_node_is_killed_the_other_goes_on_and_nothing_it_accepted_passes_again() {
    let redis = Redis::start().await;
    let (first, mut second, stock) = pair(&redis, 160).await;
    second.stop().await;
    let mut killed = process(&mut second);
    serves(&second).await;
    let (spent, kept) = stock.mandates.split_at(120);
    let nodes = [Arc::new(first), Arc::new(second)];
    let kill = async |_| killed.kill();
    let passed = under_load(nodes.clone(), spent, kill, &[40]).await;
    assert!(passed.iter().all(|count| *count <= 1), "{passed:?}");
    // One in flight on the killed node may have been used up there without an answer.
    let lost = passed.iter().filter(|count| **count == 0).count();
    assert!(lost <= 8, "{lost} lost: {passed:?}");
    let [first, second] = &nodes;
    assert_eq!(ready(first).await.0, 200, "the other is not even less ready");
    break_even(first, &stock.agent).await;
    // The killed one comes back. What it accepted stays used, and what it does not know any more it refuses.
    let _again = spawn(second);
    serves(second).await;
    for mandate in spent {
        assert_eq!(answer(second, mandate).await, Some(401));
    }
    let (shown_there, used_here) = kept.split_at(20);
    for mandate in shown_there {
        assert_eq!((answer(second, mandate).await, answer(first, mandate).await), (Some(403), Some(401)));
    }
    for mandate in used_here {
        assert_eq!((answer(first, mandate).await, answer(second, mandate).await), (Some(200), Some(401)));
    }
    assert_eq!(answer(second, &stock.reusable).await, Some(200), "the epoch is the fleet's and goes on");
}
