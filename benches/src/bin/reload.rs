//! Load while one document of a large bundle changes every second, and while nothing does, in turns.
//! `caracal-reload [SECONDS]`; method and figures are in docs/performance.md.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use caracal_benches::edge::{Agent, Folder, call};
use caracal_benches::http1::{Connection, get};
use caracal_benches::machine::{Cores, describe, median, number, pin};
use caracal_benches::run::Process;
use caracal_benches::upstream;

const RESOURCES: usize = 10_000;
const DOCUMENTS: usize = 100;
const CONNECTIONS: u32 = 16;
/// Between two requests of one connection: 16 of them make 2,000 a second.
const APART: Duration = Duration::from_millis(8);
/// Between two changes of the bundle.
const CHANGED: Duration = Duration::from_secs(1);
/// Turns of quiet and change.
const TURNS: usize = 3;

/// What came of the requests of one kind of turn.
#[derive(Default)]
struct Taken {
    latencies: Vec<Duration>,
    failed: usize,
}

impl Taken {
    fn add(&mut self, more: Self) {
        self.latencies.extend(more.latencies);
        self.failed = self.failed.saturating_add(more.failed);
    }

    /// The latency below which this many of a thousand requests stayed, in microseconds.
    fn per_mille(&mut self, share: usize) -> f64 {
        self.latencies.sort_unstable();
        let at = self.latencies.len().saturating_mul(share) / 1_000;
        self.latencies
            .get(at)
            .or_else(|| self.latencies.last())
            .map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
    }
}

fn main() -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok().context("TLS provider")?;
    let seconds = match std::env::args().nth(1) {
        Some(seconds) => seconds.parse().context("usage: caracal-reload [SECONDS]")?,
        None => 10,
    };
    let turn = Duration::from_secs(seconds);
    let cores = Cores::choose()?;
    pin(cores.load)?;
    let folder = Folder::write(1, upstream::start()?)?;
    folder.spread(RESOURCES, DOCUMENTS)?;
    let _edge = Process::edge(cores, &folder.config())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let agent = Agent::provision(folder.ports).await?;
        let mut authority = Connection::open(folder.ports.authority).await?;
        let request = call(&agent.mint(&mut authority, true).await?);
        // Code, caches and connections are warm before anything counts.
        load(&folder, &request, Duration::from_secs(2)).await?;
        let (mut quiet, mut changing, mut reloads) = (Taken::default(), Taken::default(), Vec::new());
        for at in 0..TURNS {
            quiet.add(load(&folder, &request, turn).await?);
            let (taken, took) = tokio::try_join!(load(&folder, &request, turn), change(&folder, turn, at))?;
            changing.add(taken);
            reloads.extend(took);
        }
        report(cores, quiet, changing, &reloads)
    })
}

/// The same request at a fixed rate.
async fn load(folder: &Folder, request: &[u8], turn: Duration) -> anyhow::Result<Taken> {
    let began = Instant::now();
    let mut tasks = Vec::new();
    for connection in 0..CONNECTIONS {
        let first = APART.saturating_mul(connection).checked_div(CONNECTIONS).unwrap_or_default();
        let (target, request) = (folder.ports.gateway, request.to_vec());
        tasks.push(tokio::spawn(async move {
            let mut taken = Taken::default();
            let mut connection = Connection::open(target).await?;
            let mut after = first;
            while after < turn {
                // A request that had to wait for the one before it began when it was due. How late the timer is, is ours.
                let early = after.checked_sub(began.elapsed());
                if let Some(early) = early {
                    tokio::time::sleep(early).await;
                }
                let sent = if early.is_some() { began.elapsed() } else { after };
                match connection.send(&request).await {
                    Ok(reply) if reply.status == 200 => {}
                    Ok(_) => taken.failed = taken.failed.saturating_add(1),
                    Err(_) => {
                        taken.failed = taken.failed.saturating_add(1);
                        connection = Connection::open(target).await?;
                    }
                }
                taken.latencies.push(began.elapsed().saturating_sub(sent));
                after = after.saturating_add(APART);
            }
            anyhow::Ok(taken)
        }));
    }
    let mut all = Taken::default();
    for task in tasks {
        all.add(task.await??);
    }
    Ok(all)
}

/// Changes one document every second; how long each reload took, in milliseconds, until it was in force and until it
/// was over.
async fn change(folder: &Folder, turn: Duration, at: usize) -> anyhow::Result<Vec<[f64; 2]>> {
    let began = Instant::now();
    let mut ops = Connection::open(folder.ports.ops).await?;
    let files = folder.documents(RESOURCES, DOCUMENTS, 0);
    let (name, text) = files.get(1).context("a document")?;
    let mut took = Vec::new();
    let mut before = counted(&mut ops).await?;
    for round in 0_usize.. {
        let edited = at.saturating_mul(1_000).saturating_add(round).saturating_add(1);
        folder.replace(name, &text.replacen("# edit 0", &format!("# edit {edited}"), 1))?;
        tokio::time::sleep(CHANGED).await;
        let now = counted(&mut ops).await?;
        // One reload and no more, or the sums are not those of one.
        if (now.0 - before.0 - 1.0).abs() < 0.5 {
            took.push([(now.1 - before.1) * 1e3, (now.2 - before.2) * 1e3]);
        }
        before = now;
        if began.elapsed() >= turn {
            break;
        }
    }
    Ok(took)
}

/// The reloads so far, and the seconds they took to be in force and to be over.
async fn counted(ops: &mut Connection) -> anyhow::Result<(f64, f64, f64)> {
    let reply = ops.send(&get("edge.bench", "/metrics", &[])).await?;
    let text = String::from_utf8(reply.body)?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().parse::<f64>().ok()).unwrap_or_default()
    };
    Ok((
        value("caracal_reload_duration_seconds_count{until=\"over\"}"),
        value("caracal_reload_duration_seconds_sum{until=\"in_force\"}"),
        value("caracal_reload_duration_seconds_sum{until=\"over\"}"),
    ))
}

#[expect(clippy::print_stdout, reason = "the report of a command")]
fn report(cores: Cores, mut quiet: Taken, mut changing: Taken, reloads: &[[f64; 2]]) -> anyhow::Result<()> {
    println!("\n{}\nproxy on core {}, load and upstream on core {}", describe(), cores.proxy, cores.load);
    println!("\n{:<24}{:>10}{:>10}{:>10}{:>10}", "", "requests", "failed", "p50 us", "p99 us");
    for (name, taken) in [("quiet", &mut quiet), ("one document a second", &mut changing)] {
        let (p50, p99) = (taken.per_mille(500), taken.per_mille(990));
        println!("{name:<24}{:>10}{:>10}{p50:>10.0}{p99:>10.0}", taken.latencies.len(), taken.failed);
    }
    let ratio = changing.per_mille(990) / quiet.per_mille(990).max(f64::MIN_POSITIVE);
    println!("\np99 under reload: {ratio:.2} x of quiet");
    let of = |until: usize| reloads.iter().filter_map(move |took| took.get(until).copied());
    for (what, until) in [("in force", 0), ("over", 1)] {
        let most = of(until).fold(0.0, f64::max);
        println!(
            "{what} after {:.0} ms, most {most:.0} ({:.0} reloads)",
            median(of(until)),
            number(reloads.len())
        );
    }
    ensure!(quiet.failed == 0 && changing.failed == 0, "requests failed");
    ensure!(!reloads.is_empty(), "nothing was reloaded");
    Ok(())
}
