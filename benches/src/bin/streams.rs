//! Large bodies and event streams: direct, bare pass-through and us, side by side. `caracal-streams [ROUNDS]`; method
//! and figures are in docs/performance.md.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use caracal_benches::bulk::{self, DOWNLOAD, LARGE, STREAM, UPLOAD, delays, download, upload};
use caracal_benches::edge::{Agent, Folder, access_token, governed};
use caracal_benches::http1::{Connection, get, post_head};
use caracal_benches::machine::{Cores, describe, median, number, pin, process_time};
use caracal_benches::run::Process;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// Connections that carry large bodies.
const BUSY: usize = 8;
/// Large bodies on each of them, in a round.
const BODIES: usize = 8;
/// Event streams at once.
const STREAMS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Column {
    Direct,
    PassThrough,
    Governed,
}

impl Column {
    const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct to the upstream",
            Self::PassThrough => "bare Pingora pass-through",
            Self::Governed => "governed",
        }
    }
}

/// One column in one round.
struct Taken {
    down: Moved,
    up: Moved,
    /// Of events, sorted, in microseconds.
    alone_us: Vec<f64>,
    crowd_us: Vec<f64>,
}

/// What moving large bodies in one direction took.
#[derive(Clone, Copy)]
struct Moved {
    mib_per_second: f64,
    /// Of the proxy, for one body.
    cpu_ms: f64,
}

#[expect(clippy::print_stderr, reason = "progress and complaints of a command")]
fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok().context("TLS provider")?;
    let rounds = match arguments.as_slice() {
        ["pass-through", listen, upstream] => {
            return caracal_benches::pass_through::run(listen, upstream.parse()?);
        }
        [] => 5,
        [rounds] => rounds.parse().context("usage: caracal-streams [ROUNDS]")?,
        _ => bail!("usage: caracal-streams [ROUNDS]"),
    };
    let cores = Cores::choose()?;
    pin(cores.load)?;
    let upstream = bulk::start()?;
    let folder = Folder::write(1, upstream)?;
    let edge = Process::edge(cores, &folder.config())?;
    let spare = Folder::write(1, upstream)?;
    let bare = Process::pass_through(cores, spare.ports.ops, upstream)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut columns = [
        (Column::Direct, upstream, None),
        (Column::PassThrough, spare.ports.ops, Some(bare.id())),
        (Column::Governed, folder.ports.gateway, Some(edge.id())),
    ];
    let mut measured: BTreeMap<Column, Vec<Taken>> = BTreeMap::new();
    runtime.block_on(async {
        let mandate = mandate(&folder).await?;
        for (_, target, process) in columns {
            // Code, caches and connections are warm before anything counts.
            round(target, process, &mandate).await?;
        }
        for at in 1..=rounds {
            eprintln!("caracal-streams: round {at} of {rounds}");
            columns.rotate_left(1);
            for (column, target, process) in columns {
                let taken = round(target, process, &mandate).await.context(column.name())?;
                measured.entry(column).or_default().push(taken);
            }
        }
        anyhow::Ok(())
    })?;
    report(cores, &measured)
}

/// A mandate for both directions, good for all rounds.
async fn mandate(folder: &Folder) -> anyhow::Result<String> {
    let agent = Agent::provision(folder.ports).await?;
    let mut authority = Connection::open(folder.ports.authority).await?;
    access_token(&authority.send(&agent.mint_request_for("s0 s2", true)).await?)
}

async fn round(target: SocketAddr, process: Option<u32>, mandate: &str) -> anyhow::Result<Taken> {
    let fields = governed(mandate);
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let up = post_head("edge.bench", UPLOAD, LARGE, &fields);
    let down = get("edge.bench", DOWNLOAD, &fields);
    let events = get("edge.bench", STREAM, &fields);
    Ok(Taken {
        down: moved(target, process, &down, false).await.context("downloads")?,
        up: moved(target, process, &up, true).await.context("uploads")?,
        alone_us: heard(target, &events, 1).await.context("one stream")?,
        crowd_us: heard(target, &events, STREAMS).await.context("many streams")?,
    })
}

async fn moved(
    target: SocketAddr,
    process: Option<u32>,
    request: &[u8],
    upwards: bool,
) -> anyhow::Result<Moved> {
    let mut streams = Vec::new();
    for _ in 0..BUSY {
        streams.push(TcpStream::connect(target).await?);
    }
    let before = process.map(process_time).transpose()?;
    let started = Instant::now();
    let tasks = streams.into_iter().map(|mut stream| {
        let request = request.to_vec();
        tokio::spawn(async move {
            for _ in 0..BODIES {
                if upwards {
                    upload(&mut stream, &request).await?;
                } else {
                    download(&mut stream, &request).await?;
                }
            }
            anyhow::Ok(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    let elapsed = started.elapsed();
    let after = process.map(process_time).transpose()?;
    let cpu = after.zip(before).map_or(Duration::ZERO, |(after, before)| after.saturating_sub(before));
    let bodies = number(BUSY.saturating_mul(BODIES));
    Ok(Moved {
        mib_per_second: bodies * number(LARGE) / 1_048_576.0 / elapsed.as_secs_f64(),
        cpu_ms: cpu.as_secs_f64() * 1e3 / bodies,
    })
}

/// How long after they were written events were here, with this many streams at once.
async fn heard(target: SocketAddr, request: &[u8], streams: usize) -> anyhow::Result<Vec<f64>> {
    let mut tasks = Vec::new();
    for _ in 0..streams {
        let mut stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        let request = request.to_vec();
        tasks.push(tokio::spawn(async move { delays(&mut stream, &request).await }));
    }
    let mut heard = Vec::new();
    for task in tasks {
        heard.extend(task.await??.iter().map(|delay| delay.as_secs_f64() * 1e6));
    }
    ensure!(!heard.is_empty(), "no events");
    heard.sort_by(f64::total_cmp);
    Ok(heard)
}

/// The delay below which this many of a thousand events stayed.
fn per_mille(sorted: &[f64], share: usize) -> f64 {
    let at = sorted.len().saturating_mul(share) / 1_000;
    sorted.get(at).or_else(|| sorted.last()).copied().unwrap_or_default()
}

#[expect(clippy::print_stdout, reason = "the report of a command")]
fn report(cores: Cores, measured: &BTreeMap<Column, Vec<Taken>>) -> anyhow::Result<()> {
    println!("\n{}\nproxy on core {}, load and upstream on core {}", describe(), cores.proxy, cores.load);
    let empty = Vec::new();
    let bare = measured.get(&Column::PassThrough).unwrap_or(&empty);
    let mut rows = Vec::new();
    println!(
        "\n10 MiB bodies, {BUSY} connections\n{:<30}{:>10}{:>10}{:>10}{:>12}{:>10}{:>10}",
        "", "down MiB/s", "cpu ms", "cpu x", "up MiB/s", "cpu ms", "cpu x"
    );
    for (column, rounds) in measured {
        let row = row(*column, rounds, bare);
        let figure = |name: &str| row.get(name).and_then(Value::as_f64).unwrap_or_default();
        // Nothing stands between the two of the direct column.
        let cpu = |name: &str| match column {
            Column::Direct => "-".to_owned(),
            Column::PassThrough | Column::Governed => format!("{:.2}", figure(name)),
        };
        println!(
            "{:<30}{:>10.0}{:>10}{:>10}{:>12.0}{:>10}{:>10}",
            column.name(),
            figure("down_mib_per_second"),
            cpu("down_cpu_ms"),
            cpu("down_cpu_to_bare"),
            figure("up_mib_per_second"),
            cpu("up_cpu_ms"),
            cpu("up_cpu_to_bare"),
        );
        rows.push(row);
    }
    println!(
        "\nevents, from written to read, us\n{:<30}{:>10}{:>10}{:>10}{:>12}{:>10}{:>10}",
        "", "1: p50", "p99", "most", "64: p50", "p99", "most"
    );
    for (row, column) in rows.iter().zip(measured.keys()) {
        let figure = |name: &str| row.get(name).and_then(Value::as_f64).unwrap_or_default();
        println!(
            "{:<30}{:>10.0}{:>10.0}{:>10.0}{:>12.0}{:>10.0}{:>10.0}",
            column.name(),
            figure("alone_p50_us"),
            figure("alone_p99_us"),
            figure("alone_most_us"),
            figure("crowd_p50_us"),
            figure("crowd_p99_us"),
            figure("crowd_most_us"),
        );
    }
    let now = caracal::clock::Clock::system().now();
    let all = json!({ "machine": describe(), "at": now, "rounds": bare.len(), "streams": rows });
    std::fs::create_dir_all("bench-results")?;
    let path = format!("bench-results/streams-{now}.json");
    std::fs::write(&path, serde_json::to_string_pretty(&all)?)?;
    println!("\nwritten to {path}");
    Ok(())
}

/// The middle of each figure over the rounds; ratios are taken within a round.
fn row(column: Column, rounds: &[Taken], bare: &[Taken]) -> Value {
    let middle = |figure: &dyn Fn(&Taken) -> f64| median(rounds.iter().map(figure));
    let most = |figure: &dyn Fn(&Taken) -> f64| rounds.iter().map(figure).fold(0.0, f64::max);
    let paired = |figure: &dyn Fn(&Taken) -> f64| {
        median(rounds.iter().zip(bare).map(|(own, bare)| figure(bare) / figure(own).max(f64::MIN_POSITIVE)))
    };
    json!({
        "column": column.name(),
        "down_mib_per_second": middle(&|taken| taken.down.mib_per_second),
        "down_cpu_ms": middle(&|taken| taken.down.cpu_ms),
        "down_cpu_to_bare": if column == Column::Direct { 0.0 } else { paired(&|taken| taken.down.cpu_ms) },
        "up_mib_per_second": middle(&|taken| taken.up.mib_per_second),
        "up_cpu_ms": middle(&|taken| taken.up.cpu_ms),
        "up_cpu_to_bare": if column == Column::Direct { 0.0 } else { paired(&|taken| taken.up.cpu_ms) },
        "alone_p50_us": middle(&|taken| per_mille(&taken.alone_us, 500)),
        "alone_p99_us": middle(&|taken| per_mille(&taken.alone_us, 990)),
        "alone_most_us": most(&|taken| per_mille(&taken.alone_us, 1_000)),
        "crowd_p50_us": middle(&|taken| per_mille(&taken.crowd_us, 500)),
        "crowd_p99_us": middle(&|taken| per_mille(&taken.crowd_us, 990)),
        "crowd_most_us": most(&|taken| per_mille(&taken.crowd_us, 1_000)),
    })
}
