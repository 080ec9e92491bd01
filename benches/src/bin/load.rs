//! The load scenarios: direct, bare pass-through and us, side by side. `docs/performance.md` has the method.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use caracal::clock::Clock;
use caracal::keyring::Keyring;
use caracal::sealing::{Readers, SealingKey, SealingSources};
use caracal_benches::edge::{Agent, Folder, ZONE, call};
use caracal_benches::http1::Connection;
use caracal_benches::load::{Taken, Work, drive};
use caracal_benches::machine::{Cores, describe, median, pin, resident_mib, thread_time};
use caracal_benches::run::Process;
use caracal_benches::{pass_through, upstream};
use caracal_mandates::{Expect, Use, new_jti, verify};
use serde_json::{Value, json};

/// Connections that keep the proxy's core busy.
const BUSY: usize = 64;

/// One row of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Column {
    Direct,
    PassThrough,
    Reusable,
    Fresh,
    Unseen,
    MintAndCall,
}

const COLUMNS: [Column; 6] = [
    Column::Direct,
    Column::PassThrough,
    Column::Reusable,
    Column::Fresh,
    Column::Unseen,
    Column::MintAndCall,
];

impl Column {
    const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct to the upstream",
            Self::PassThrough => "bare Pingora pass-through",
            Self::Reusable => "governed, reusable mandate (cached)",
            Self::Fresh => "governed, fresh single-use mandate",
            Self::Unseen => "governed, signature verified",
            Self::MintAndCall => "mint + governed call",
        }
    }

    /// Units of work in a round that takes about a second.
    const fn busy_count(self) -> usize {
        match self {
            Self::Direct => 40_000,
            Self::PassThrough | Self::Reusable => 16_000,
            Self::Fresh => 12_000,
            Self::Unseen | Self::MintAndCall => 6_000,
        }
    }
}

/// Units of work in a round with a single connection.
const ALONE_COUNT: usize = 1_500;

#[expect(clippy::print_stderr, reason = "progress and complaints of a command")]
fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok().context("TLS provider")?;
    match arguments.as_slice() {
        ["pass-through", listen, upstream] => pass_through::run(listen, upstream.parse()?),
        [] => scenarios(5),
        [rounds] if rounds.parse::<usize>().is_ok() => scenarios(rounds.parse()?),
        _ => {
            eprintln!("usage: caracal-load [ROUNDS]");
            bail!("unknown arguments");
        }
    }
}

fn scenarios(rounds: usize) -> anyhow::Result<()> {
    let cores = Cores::choose()?;
    pin(cores.load)?;
    let upstream = upstream::start()?;
    let folder = Folder::write(1, upstream)?;
    let edge = Process::edge(cores, &folder.config())?;
    let idle_mib = resident_mib(edge.id())?;
    let spare = Folder::write(1, upstream)?;
    let bare = Process::pass_through(cores, spare.ports.ops, upstream)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bench = Bench { folder, edge, bare, bare_at: spare.ports.ops, upstream, cores };
    let measured = runtime.block_on(bench.measure(rounds))?;
    let starts = median(starts(cores, upstream)?);
    report(&bench, &measured, &Idle { idle_mib, start_ms: starts })
}

/// Starts to ready of further edges on folders of their own, in milliseconds; the keys are made on the way.
fn starts(cores: Cores, upstream: SocketAddr) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..5 {
        let folder = Folder::write(1, upstream)?;
        let edge = Process::edge(cores, &folder.config())?;
        times.push(edge.ready_after.as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// What is told of a process beside its load.
struct Idle {
    idle_mib: f64,
    start_ms: f64,
}

struct Bench {
    folder: Folder,
    edge: Process,
    bare: Process,
    bare_at: SocketAddr,
    upstream: SocketAddr,
    cores: Cores,
}

/// Everything that was measured, by round.
#[derive(Default)]
struct Measured {
    busy: BTreeMap<Column, Vec<Taken>>,
    alone: BTreeMap<Column, Vec<Taken>>,
    es256_us: Vec<f64>,
    sessions: Vec<Taken>,
}

impl Bench {
    async fn measure(&self, rounds: usize) -> anyhow::Result<Measured> {
        let agent = Agent::provision(self.folder.ports).await?;
        let mut measured = Measured::default();
        // Code, caches and connections are warm before anything counts.
        for column in COLUMNS {
            self.run(&agent, column, BUSY, 2_000).await?;
        }
        let mut columns = COLUMNS;
        for _ in 0..rounds {
            columns.rotate_left(1);
            for column in columns {
                let taken = self.run(&agent, column, BUSY, column.busy_count()).await?;
                measured.busy.entry(column).or_default().push(taken);
                let taken = self.run(&agent, column, 1, ALONE_COUNT).await?;
                measured.alone.entry(column).or_default().push(taken);
            }
            measured.es256_us.push(self.es256(&agent).await?);
            let coordinator = self.folder.ports.coordinator;
            let work = Work::Session { bearer: agent.bearer.clone() };
            measured.sessions.push(drive(coordinator, &work, 16, 1_000, Some(self.edge.id())).await?);
        }
        Ok(measured)
    }

    async fn run(
        &self,
        agent: &Agent,
        column: Column,
        connections: usize,
        count: usize,
    ) -> anyhow::Result<Taken> {
        let edge = self.folder.ports.gateway;
        let authority = self.folder.ports.authority;
        let reusable = async || {
            let mut connection = Connection::open(authority).await?;
            anyhow::Ok(call(&agent.mint(&mut connection, true).await?))
        };
        let (target, work, measured) = match column {
            Column::Direct => (self.upstream, Work::Same(reusable().await?), None),
            Column::PassThrough => (self.bare_at, Work::Same(reusable().await?), Some(self.bare.id())),
            Column::Reusable => (edge, Work::Same(reusable().await?), Some(self.edge.id())),
            Column::Fresh => (edge, Work::Each(fresh(agent, authority, count).await?), Some(self.edge.id())),
            Column::Unseen => {
                let calls = self.unseen(agent, count).await?;
                (
                    edge,
                    Work::Each(Arc::new(calls.iter().map(|token| call(token)).collect())),
                    Some(self.edge.id()),
                )
            }
            Column::MintAndCall => {
                let mint = agent.mint_request(false);
                (edge, Work::MintAndCall { authority, mint }, Some(self.edge.id()))
            }
        };
        drive(target, &work, connections, count, measured).await.with_context(|| column.name())
    }

    /// Single-use mandates the edge has never seen, so that it has to verify each.
    ///
    /// They are copies of one it minted, under a new id each, signed here with the zone's own key, which the
    /// bench takes from the edge's state folder. Record, session and delegation behind them are the edge's.
    async fn unseen(&self, agent: &Agent, count: usize) -> anyhow::Result<Vec<String>> {
        let mut authority = Connection::open(self.folder.ports.authority).await?;
        let minted = agent.mint(&mut authority, false).await?;
        let clock = Clock::system();
        let keys = self.keyring(&clock)?;
        let keys = keys.zone(ZONE).context("the bench zone has no keys")?;
        let issuer = format!("http://{}", self.folder.ports.authority);
        let expect = Expect {
            issuer: &issuer,
            audience: &issuer,
            zone: ZONE,
            uses: &[Use::Gateway],
            now: clock.now_s(),
            leeway: 0,
        };
        let claims = verify(keys.keys.public(), &minted, &expect)?.claims().as_ref().clone();
        let mut tokens = Vec::with_capacity(count);
        for _ in 0..count {
            let mut claims = claims.clone();
            claims.jti = new_jti(clock.now());
            tokens.push(keys.keys.mint(claims)?.token);
        }
        Ok(tokens)
    }

    fn keyring(&self, clock: &Clock) -> anyhow::Result<Keyring> {
        let state = self.folder.path().join("state");
        let sources = SealingSources::from_environment(None, Readers::OwnerOnly, state.clone());
        let sealing = SealingKey::load_or_create(&sources)?;
        Ok(Keyring::open(&state.join("keys/zones"), &sealing.key, &[ZONE.to_owned()], clock.now())?)
    }

    /// One bare ES256 verification of such a mandate on the proxy's core, in microseconds.
    async fn es256(&self, agent: &Agent) -> anyhow::Result<f64> {
        let tokens = self.unseen(agent, 200).await?;
        let keyring = self.keyring(&Clock::system())?;
        let keys = keyring.zone(ZONE).context("the bench zone has no keys")?;
        let (x, y) = keys.keys.public().iter().next().context("no key")?.coordinates();
        let key = [&[4][..], x, y].concat();
        let key =
            aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED, key);
        pin(self.cores.proxy)?;
        let mut times = Vec::new();
        for token in &tokens {
            let (message, signature) = token.rsplit_once('.').context("not a token")?;
            let signature =
                base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, signature)?;
            let before = thread_time();
            let verified = key.verify(message.as_bytes(), &signature);
            times.push(thread_time().saturating_sub(before).as_secs_f64() * 1e6);
            verified.ok().context("the signature does not verify")?;
        }
        pin(self.cores.load)?;
        Ok(median(times))
    }
}

/// Calls with mandates that the edge minted a moment ago.
async fn fresh(agent: &Agent, authority: SocketAddr, count: usize) -> anyhow::Result<Arc<Vec<Vec<u8>>>> {
    let mut tasks = Vec::new();
    for part in 0..16_usize {
        let agent = agent.clone();
        let share = count.saturating_add(15).saturating_sub(part) / 16;
        tasks.push(tokio::spawn(async move {
            let mut connection = Connection::open(authority).await?;
            let mut calls = Vec::with_capacity(share);
            for _ in 0..share {
                calls.push(call(&agent.mint(&mut connection, false).await?));
            }
            anyhow::Ok(calls)
        }));
    }
    let mut calls = Vec::with_capacity(count);
    for task in tasks {
        calls.extend(task.await??);
    }
    Ok(Arc::new(calls))
}

/// The middle of a figure over the rounds.
fn middle(rounds: &[Taken], figure: impl Fn(&Taken) -> f64) -> f64 {
    median(rounds.iter().map(figure))
}

/// The middle of a ratio taken within each round: both sides had the same neighbours.
fn paired(rounds: &[Taken], base: &[Taken], ratio: impl Fn(&Taken, &Taken) -> f64) -> f64 {
    median(rounds.iter().zip(base).map(|(own, base)| ratio(own, base)))
}

#[expect(clippy::print_stdout, reason = "the report of a command")]
fn report(bench: &Bench, measured: &Measured, process: &Idle) -> anyhow::Result<()> {
    println!(
        "\n{}\nproxy on core {}, load and upstream on core {}",
        describe(),
        bench.cores.proxy,
        bench.cores.load
    );
    let empty = Vec::new();
    let bare = measured.busy.get(&Column::PassThrough).unwrap_or(&empty);
    let mut rows = Vec::new();
    println!(
        "\n{BUSY} connections\n{:<38}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "", "req/s", "p50 us", "p99 us", "cpu us", "req/s x", "cpu x"
    );
    for (column, rounds) in &measured.busy {
        let row = row(*column, rounds, bare);
        print_row(&row);
        rows.push(row);
    }
    println!("\n1 connection");
    let bare_alone = measured.alone.get(&Column::PassThrough).unwrap_or(&empty);
    let mut alone = Vec::new();
    for (column, rounds) in &measured.alone {
        let row = row(*column, rounds, bare_alone);
        print_row(&row);
        alone.push(row);
    }
    let es256 = median(measured.es256_us.iter().copied());
    let unseen = measured.busy.get(&Column::Unseen).unwrap_or(&empty);
    let added = paired(unseen, bare, |own, base| own.cpu_us - base.cpu_us);
    let sessions = middle(&measured.sessions, |taken| taken.per_second);
    let sessions_cpu = middle(&measured.sessions, |taken| taken.cpu_us);
    let loaded_mib = resident_mib(bench.edge.id())?;
    println!("\none ES256 verification            {es256:>9.1} us");
    println!("added by a mandate to be verified {added:>9.1} us cpu = {:.2} verifications", added / es256);
    println!("session started and ended         {sessions:>9.0} a second, {sessions_cpu:.0} us cpu");
    println!("start to ready                    {:>9.1} ms", process.start_ms);
    println!("memory idle / after the load      {:>9.1} / {loaded_mib:.1} MiB", process.idle_mib);
    let now = Clock::system().now();
    let all = json!({
        "machine": describe(), "at": now, "rounds": measured.es256_us.len(), "busy": rows, "alone": alone,
        "es256_us": es256, "unseen_added_cpu_us": added, "sessions_per_second": sessions,
        "start_ms": process.start_ms, "idle_mib": process.idle_mib, "loaded_mib": loaded_mib,
    });
    std::fs::create_dir_all("bench-results")?;
    let path = format!("bench-results/load-{now}.json");
    std::fs::write(&path, serde_json::to_string_pretty(&all)?)?;
    println!("\nwritten to {path}");
    Ok(())
}

fn row(column: Column, rounds: &[Taken], bare: &[Taken]) -> Value {
    json!({
        "column": column.name(),
        "per_second": middle(rounds, |taken| taken.per_second),
        "p50_us": middle(rounds, |taken| taken.per_mille(500)),
        "p99_us": middle(rounds, |taken| taken.per_mille(990)),
        "cpu_us": middle(rounds, |taken| taken.cpu_us),
        "rate_to_bare": paired(rounds, bare, |own, base| own.per_second / base.per_second),
        "cpu_to_bare": paired(rounds, bare, |own, base| base.cpu_us / own.cpu_us.max(f64::MIN_POSITIVE)),
    })
}

#[expect(clippy::print_stdout, reason = "the report of a command")]
fn print_row(row: &Value) {
    let figure = |name: &str| row.get(name).and_then(Value::as_f64).unwrap_or_default();
    let name = row.get("column").and_then(Value::as_str).unwrap_or_default();
    let cpu = figure("cpu_us");
    let (cpu_us, cpu_x) = if cpu > 0.0 {
        (format!("{cpu:.1}"), format!("{:.2}", figure("cpu_to_bare")))
    } else {
        ("-".into(), "-".into())
    };
    println!(
        "{name:<38}{:>9.0}{:>9.0}{:>9.0}{cpu_us:>9}{:>9.2}{cpu_x:>9}",
        figure("per_second"),
        figure("p50_us"),
        figure("p99_us"),
        figure("rate_to_bare"),
    );
}
