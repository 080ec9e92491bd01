//! Puts load on a server and says what it took.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::edge::{Agent, ZONE, access_token, call, member, session_request};
use crate::http1::{Connection, Reply, with_bearer};
use crate::machine::{number, process_time};

/// What one unit of work is.
#[derive(Clone, Debug)]
pub enum Work {
    /// The same request every time.
    Same(Vec<u8>),
    /// A request of its own every time: as many as will be asked for.
    Each(Arc<Vec<Vec<u8>>>),
    /// A mint at this authority, and the call it pays for.
    MintAndCall {
        /// The token endpoint.
        authority: SocketAddr,
        /// The prepared mint.
        mint: Vec<u8>,
    },
    /// A session, started and ended. The target is the coordinator.
    Session {
        /// The application's session mandate.
        bearer: String,
    },
    /// A session that is started and goes on. The target is the coordinator.
    Start(Agent),
    /// A delegation that is made and stays. The target is the coordinator.
    Delegate(Agent),
    /// A session started, delegated to, and ended by taking the delegation back. The target is the coordinator.
    HandOn(Agent),
}

/// What a run took.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Units of work a second.
    pub per_second: f64,
    /// Time of the measured process for one unit, in microseconds.
    pub cpu_us: f64,
    /// Sorted.
    latencies: Vec<Duration>,
}

impl Taken {
    /// The latency below which this many of a thousand units stayed, in microseconds.
    #[must_use]
    pub fn per_mille(&self, share: usize) -> f64 {
        let at = self.latencies.len().saturating_mul(share) / 1_000;
        self.latencies.get(at).copied().unwrap_or_default().as_secs_f64() * 1e6
    }
}

/// Does `count` units of work over `connections` connections to `target`, as fast as answers come.
///
/// `measured` is the process whose time is taken.
///
/// # Errors
/// Anything but success, even once.
pub async fn drive(
    target: SocketAddr,
    work: &Work,
    connections: usize,
    count: usize,
    measured: Option<u32>,
) -> anyhow::Result<Taken> {
    let mut workers = Vec::new();
    for _ in 0..connections {
        workers.push(Worker::open(target, work.clone()).await?);
    }
    let next = Arc::new(AtomicUsize::new(0));
    let cpu_before = measured.map(process_time).transpose()?;
    let started = Instant::now();
    let tasks: Vec<_> =
        workers.into_iter().map(|worker| tokio::spawn(worker.run(Arc::clone(&next), count))).collect();
    let mut latencies = Vec::with_capacity(count);
    for task in tasks {
        latencies.extend(task.await??);
    }
    let elapsed = started.elapsed();
    let cpu_after = measured.map(process_time).transpose()?;
    ensure!(latencies.len() == count, "only {} of {count} were done", latencies.len());
    latencies.sort_unstable();
    let cpu =
        cpu_after.zip(cpu_before).map_or(Duration::ZERO, |(after, before)| after.saturating_sub(before));
    Ok(Taken {
        per_second: number(count) / elapsed.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / number(count),
        latencies,
    })
}

struct Worker {
    target: SocketAddr,
    connection: Connection,
    authority: Option<Connection>,
    work: Work,
}

impl Worker {
    async fn open(target: SocketAddr, work: Work) -> anyhow::Result<Self> {
        let authority = match &work {
            Work::MintAndCall { authority, .. } => Some(Connection::open(*authority).await?),
            Work::Same(_)
            | Work::Each(_)
            | Work::Session { .. }
            | Work::Start(_)
            | Work::Delegate(_)
            | Work::HandOn(_) => None,
        };
        Ok(Self { target, connection: Connection::open(target).await?, authority, work })
    }

    async fn run(mut self, next: Arc<AtomicUsize>, count: usize) -> anyhow::Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(latencies);
            }
            let started = Instant::now();
            self.once(number).await?;
            latencies.push(started.elapsed());
        }
    }

    async fn once(&mut self, number: usize) -> anyhow::Result<()> {
        let reply = match (&self.work, &mut self.authority) {
            (Work::Same(request), _) => self.connection.send(request).await?,
            (Work::Each(requests), _) => {
                let request = requests.get(number).map(Vec::as_slice).unwrap_or_default();
                self.connection.send(request).await?
            }
            (Work::MintAndCall { mint, .. }, Some(authority)) => {
                let mandate = access_token(&authority.send(mint).await?)?;
                self.connection.send(&call(&mandate)).await?
            }
            (Work::MintAndCall { .. }, None) => anyhow::bail!("no connection to the token endpoint"),
            (Work::Session { bearer }, _) => {
                let started = self.connection.send(&session_request(self.target, bearer)).await?;
                let id = member(&started, 201, "agent_session_id")?;
                self.connection
                    .send(&with_bearer("DELETE", self.target, &format!("/zones/{ZONE}/agents/{id}"), bearer))
                    .await?
            }
            (Work::Start(agent), _) => self.connection.send(&agent.start_request()).await?,
            (Work::Delegate(agent), _) => self.connection.send(&agent.delegate_request(None)).await?,
            (Work::HandOn(agent), _) => hand_on(&mut self.connection, agent).await?,
        };
        let good = (200..300).contains(&reply.status);
        ensure!(good, "status {}: {}", reply.status, String::from_utf8_lossy(&reply.body));
        Ok(())
    }
}

async fn hand_on(coordinator: &mut Connection, agent: &Agent) -> anyhow::Result<Reply> {
    let session = member(&coordinator.send(&agent.start_request()).await?, 201, "agent_session_id")?;
    let made = coordinator.send(&agent.delegate_request(Some(&session))).await?;
    let delegation = member(&made, 201, "delegation_edge_id")?;
    coordinator.send(&agent.revoke_request(&delegation)).await
}
