//! What lives and ends: sessions, delegations, revocations and the streams they cut, against a release build of the
//! edge. `caracal-lives [ROUNDS]`; method and figures are in docs/performance.md.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use caracal_benches::edge::{Agent, Folder, call, stream_call};
use caracal_benches::http1::{Connection, Stream};
use caracal_benches::load::{Taken, Work, drive};
use caracal_benches::machine::{Cores, describe, median, number, pin, resident_mib};
use caracal_benches::run::Process;
use caracal_benches::upstream;
use serde_json::json;

/// Connections to the coordinator.
const BUSY: usize = 16;
/// Streams that one revocation cuts.
const STREAMS: usize = 500;
/// Live sessions at once.
const MANY: usize = 100_000;
/// Revocations whose way to the next request is timed, in a round.
const REVOCATIONS: usize = 50;

#[expect(clippy::print_stderr, reason = "progress and complaints of a command")]
fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok().context("TLS provider")?;
    let rounds = match arguments.as_slice() {
        [] => 3,
        [rounds] => rounds.parse().context("usage: caracal-lives [ROUNDS]")?,
        _ => bail!("usage: caracal-lives [ROUNDS]"),
    };
    let cores = Cores::choose()?;
    pin(cores.load)?;
    let upstream = upstream::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut measured = Measured::default();
    for round in 1..=rounds {
        eprintln!("caracal-lives: round {round} of {rounds}");
        let folder = Folder::write(1, upstream)?;
        let edge = Process::edge(cores, &folder.config())?;
        runtime.block_on(round_on(&folder, &edge, &mut measured))?;
    }
    eprintln!("caracal-lives: {MANY} live sessions");
    let many = many(&runtime, cores, upstream)?;
    report(cores, &measured, &many)
}

/// What the rounds gave.
#[derive(Default)]
struct Measured {
    sessions: Vec<Taken>,
    delegations: Vec<Taken>,
    handed_on: Vec<Taken>,
    /// From the request that revokes to the first refusal, or to the end of the call under way, in milliseconds.
    refused: Vec<f64>,
    /// From the request that revokes to its acknowledgement, in milliseconds.
    acknowledged: Vec<f64>,
    /// Calls that began after an acknowledgement and passed all the same.
    late: usize,
    /// From the request that revokes to the end of each stream, in milliseconds.
    cut: Vec<f64>,
    /// The last stream's end after the acknowledgement in each round, in milliseconds; below zero when all had
    /// ended before it.
    last_cut: Vec<f64>,
}

async fn round_on(folder: &Folder, edge: &Process, measured: &mut Measured) -> anyhow::Result<()> {
    let agent = Agent::provision(folder.ports).await?;
    let coordinator = folder.ports.coordinator;
    let session = Work::Session { bearer: agent.bearer.clone() };
    drive(coordinator, &session, BUSY, 200, None).await?;
    measured
        .sessions
        .push(drive(coordinator, &session, BUSY, 2_000, Some(edge.id())).await.context("sessions")?);
    let delegate = Work::Delegate(agent.clone());
    measured
        .delegations
        .push(drive(coordinator, &delegate, BUSY, 2_000, Some(edge.id())).await.context("delegations")?);
    let hand_on = Work::HandOn(agent.clone());
    measured
        .handed_on
        .push(drive(coordinator, &hand_on, BUSY, 1_000, Some(edge.id())).await.context("handing on")?);
    for _ in 0..REVOCATIONS {
        revoke_under_use(folder, measured).await.context("revoking under use")?;
    }
    cut_streams(folder, measured).await.context("cutting streams")
}

/// A caller that calls without pause while the session behind its mandate is ended.
async fn revoke_under_use(folder: &Folder, measured: &mut Measured) -> anyhow::Result<()> {
    let agent = Agent::provision(folder.ports).await?;
    let mandate = agent.mint(&mut Connection::open(folder.ports.authority).await?, true).await?;
    let call = call(&mandate);
    let mut gateway = Connection::open(folder.ports.gateway).await?;
    ensure!(gateway.send(&call).await?.status == 200, "the mandate works");
    let once_more = call.clone();
    let acknowledged = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&acknowledged);
    let caller = tokio::spawn(async move {
        let mut late = 0_usize;
        for _ in 0..20_000 {
            let after = told.load(Ordering::Acquire);
            match gateway.send(&call).await.map(|reply| reply.status) {
                Ok(200) => late = late.saturating_add(usize::from(after)),
                // A call that is under way is cut: its connection ends without an answer.
                Ok(401) | Err(_) => return Ok((Instant::now(), late)),
                Ok(status) => bail!("status {status}"),
            }
        }
        bail!("still not refused")
    });
    let mut coordinator = Connection::open(folder.ports.coordinator).await?;
    let asked = Instant::now();
    let reply = coordinator.send(&agent.end_request()).await?;
    let answered = asked.elapsed();
    acknowledged.store(true, Ordering::Release);
    ensure!(reply.status == 204, "status {}", reply.status);
    let (refused, late) = caller.await??;
    let again = Connection::open(folder.ports.gateway).await?.send(&once_more).await?;
    ensure!(again.status == 401, "the mandate is refused for good: status {}", again.status);
    measured.refused.push(millis(refused.saturating_duration_since(asked)));
    measured.acknowledged.push(millis(answered));
    measured.late = measured.late.saturating_add(late);
    Ok(())
}

/// Idle event streams under one session, all cut when it ends.
async fn cut_streams(folder: &Folder, measured: &mut Measured) -> anyhow::Result<()> {
    let agent = Agent::provision(folder.ports).await?;
    let mandate = agent.mint(&mut Connection::open(folder.ports.authority).await?, true).await?;
    let mut ends = Vec::with_capacity(STREAMS);
    for _ in 0..STREAMS {
        let stream = Stream::open(folder.ports.gateway, &stream_call(&mandate)).await?;
        ends.push(tokio::spawn(async move {
            stream.ended().await?;
            anyhow::Ok(Instant::now())
        }));
    }
    let mut coordinator = Connection::open(folder.ports.coordinator).await?;
    let asked = Instant::now();
    let reply = coordinator.send(&agent.end_request()).await?;
    let answered = Instant::now();
    ensure!(reply.status == 204, "status {}", reply.status);
    let mut last = asked;
    for end in ends {
        let at =
            tokio::time::timeout(Duration::from_secs(10), end).await.context("a stream goes on")???;
        measured.cut.push(millis(at.saturating_duration_since(asked)));
        last = last.max(at);
    }
    let after = millis(last.saturating_duration_since(answered));
    let before = millis(answered.saturating_duration_since(last));
    measured.last_cut.push(after - before);
    Ok(())
}

/// What an edge with very many live sessions needs.
struct Many {
    empty_mib: f64,
    live_mib: f64,
    restarted_mib: f64,
    /// From the start after a kill to ready, in milliseconds.
    restart_ms: f64,
}

fn many(runtime: &tokio::runtime::Runtime, cores: Cores, upstream: SocketAddr) -> anyhow::Result<Many> {
    let folder = Folder::write(1, upstream)?;
    folder.configure(&format!(
        "[limits]\nsessions_per_zone = {limit}\nsessions_per_application = {limit}\n",
        limit = MANY.saturating_add(1_000)
    ))?;
    let edge = Process::edge(cores, &folder.config())?;
    let empty_mib = resident_mib(edge.id())?;
    let start = Work::Start(runtime.block_on(Agent::provision(folder.ports))?);
    runtime.block_on(drive(folder.ports.coordinator, &start, 64, MANY, None))?;
    let live_mib = resident_mib(edge.id())?;
    // Killed, not stopped: everything is read back from the store.
    drop(edge);
    let edge = Process::edge(cores, &folder.config())?;
    runtime.block_on(still_there(&folder))?;
    Ok(Many {
        empty_mib,
        live_mib,
        restarted_mib: resident_mib(edge.id())?,
        restart_ms: millis(edge.ready_after),
    })
}

async fn still_there(folder: &Folder) -> anyhow::Result<()> {
    let agent = Agent::provision(folder.ports).await?;
    let reply = Connection::open(folder.ports.coordinator).await?.send(&agent.list_request()).await?;
    let body: serde_json::Value = serde_json::from_slice(&reply.body)?;
    let listed = body.get("items").and_then(serde_json::Value::as_array).map_or(0, Vec::len);
    ensure!(reply.status == 200 && listed == 500, "status {}, {listed} listed", reply.status);
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The value below which this many of a thousand stayed.
fn per_mille(values: &[f64], share: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = sorted.len().saturating_mul(share) / 1_000;
    sorted.get(at).or_else(|| sorted.last()).copied().unwrap_or_default()
}

#[expect(clippy::print_stdout, reason = "the report of a command")]
fn report(cores: Cores, measured: &Measured, many: &Many) -> anyhow::Result<()> {
    println!("\n{}\nedge on core {}, load and upstream on core {}\n", describe(), cores.proxy, cores.load);
    let mut rates = Vec::new();
    for (name, rounds) in [
        ("session started and ended", &measured.sessions),
        ("delegation made", &measured.delegations),
        ("session, delegation, revoked", &measured.handed_on),
    ] {
        let per_second = median(rounds.iter().map(|taken| taken.per_second));
        let cpu_us = median(rounds.iter().map(|taken| taken.cpu_us));
        println!("{name:<34}{per_second:>9.0} a second, {cpu_us:.0} us cpu");
        rates.push(json!({ "what": name, "per_second": per_second, "cpu_us": cpu_us }));
    }
    let mut spreads = Vec::new();
    for (name, values) in [
        ("revoked to first refusal", &measured.refused),
        ("revoked to acknowledged", &measured.acknowledged),
        ("revoked to end of stream", &measured.cut),
        ("acknowledged to last stream's end", &measured.last_cut),
    ] {
        let [p50, p99, most] = [500, 990, 1_000].map(|share| per_mille(values, share));
        println!("{name:<34}{p50:>9.2} ms p50 {p99:>8.2} p99 {most:>8.2} most");
        spreads.push(json!({ "what": name, "p50_ms": p50, "p99_ms": p99, "most_ms": most }));
    }
    println!("calls that passed after it        {:>9} of {}", measured.late, measured.refused.len());
    let each = (many.live_mib - many.empty_mib) * 1_048_576.0 / number(MANY);
    println!(
        "{MANY} live sessions              {:>9.1} MiB, {each:.0} bytes each; restarted {:.1} MiB, ready after {:.0} ms",
        many.live_mib, many.restarted_mib, many.restart_ms
    );
    let all = json!({
        "machine": describe(), "rates": rates, "spreads": spreads, "late": measured.late, "live_sessions": MANY,
        "empty_mib": many.empty_mib, "live_mib": many.live_mib, "restarted_mib": many.restarted_mib,
        "restart_ms": many.restart_ms,
    });
    std::fs::create_dir_all("bench-results")?;
    let path = format!("bench-results/lives-{}.json", caracal::clock::Clock::system().now());
    std::fs::write(&path, serde_json::to_string_pretty(&all)?)?;
    println!("\nwritten to {path}");
    Ok(())
}
