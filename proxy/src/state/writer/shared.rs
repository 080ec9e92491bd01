//! The task that writes the store a fleet shares, and learns what other nodes wrote there.
//!
//! Commits are numbered, one at a time for the whole fleet. Before its own, a node learns every earlier one; a
//! change that gives authority and was judged without knowing them is sent back, to be judged again. The turn is
//! kept meanwhile, so that a busy node cannot starve another. What takes authority is committed as it is: it holds
//! whatever else happened, and the statements let an end stand against anything that was on its way.

use std::sync::{Arc, Weak};
use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};

use super::{GROUP, Intent, Job, Message, Ordering, Queue, Tally};
use crate::state::error::StateError;
use crate::state::store::postgres::{self, SharedStore};
use crate::state::store::{self, Loaded, Write};
use crate::state::zones::Zones;

/// How often a node looks for what others wrote. Revocations travel faster, through Redis.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long a turn is kept for changes that are judged again; microseconds, unless this machine is very busy.
const AGAIN: Duration = Duration::from_millis(20);
/// How long one turn may take altogether: a server that says nothing must not hold callers for ever.
const TURN: Duration = Duration::from_secs(10);
/// The first and the longest pause between attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// The way to a writer that does not run yet: the state is built around it first.
pub(in crate::state) struct Waiting {
    messages: mpsc::UnboundedReceiver<Message>,
    tally: Arc<Tally>,
}

/// Makes the way to the writer.
pub(in crate::state) fn prepare() -> (Queue, Waiting) {
    let (queue, messages) = super::channel();
    let tally = Arc::clone(&queue.tally);
    (queue, Waiting { messages, tally })
}

impl Waiting {
    /// Starts the task on a connection that knows every commit up to `seen`. It ends when it is closed or the last
    /// [`Queue`] is gone.
    pub(in crate::state) fn start(
        self,
        server: SharedStore,
        connection: PgConnection,
        seen: i64,
        zones: Weak<Zones>,
    ) {
        let writer = Writer {
            server,
            connection: Some(connection),
            retry: None,
            seen,
            settled: seen,
            zones,
            messages: self.messages,
            tally: self.tally,
            inbox: Inbox::default(),
            owed: Vec::new(),
            owed_jobs: 0,
        };
        tokio::spawn(writer.run());
    }
}

struct Writer {
    server: SharedStore,
    connection: Option<PgConnection>,
    /// While the server is away: when it was tried last, and how long to leave it alone then.
    retry: Option<(Instant, Duration)>,
    /// Every commit up to this one is known here.
    seen: i64,
    /// Every commit up to this one is in force here; a later one gave something back that is not believed yet.
    settled: i64,
    zones: Weak<Zones>,
    messages: mpsc::UnboundedReceiver<Message>,
    tally: Arc<Tally>,
    inbox: Inbox,
    /// Narrowing writes whose commit failed, and of how many jobs. They stand before everything newer.
    owed: Vec<Write>,
    owed_jobs: usize,
}

/// What arrived, sorted.
#[derive(Default)]
struct Inbox {
    jobs: Vec<Job>,
    reads: Vec<Message>,
    catching_up: Vec<oneshot::Sender<()>>,
    closing: Option<oneshot::Sender<Result<(), StateError>>>,
}

impl Inbox {
    fn sort(&mut self, arrived: Vec<Message>) {
        for message in arrived {
            match message {
                Message::Commit(job) => self.jobs.push(job),
                Message::CatchUp(tell) => self.catching_up.push(tell),
                Message::Close(_, tell) => self.closing = Some(tell),
                read @ (Message::Response(..) | Message::Payload { .. }) => self.reads.push(read),
            }
        }
    }
}

impl Writer {
    async fn run(mut self) {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.take_in(&mut look).await {
            // What arrives while the turn is kept is left for the next round, but for the jobs.
            let catching_up = std::mem::take(&mut self.inbox.catching_up);
            let reads = std::mem::take(&mut self.inbox.reads);
            match std::mem::take(&mut self.inbox.jobs) {
                none if none.is_empty() => self.look().await,
                jobs => self.turn(jobs).await,
            }
            for tell in catching_up {
                drop(tell);
            }
            for read in reads {
                self.read(read).await;
            }
            if let Some(tell) = self.inbox.closing.take() {
                drop(tell.send(self.close().await));
                return;
            }
        }
        drop(self.close().await);
    }

    /// Waits for messages, or for the next look; false when nobody is left to send any.
    async fn take_in(&mut self, look: &mut Interval) -> bool {
        let mut arrived = Vec::new();
        let count = tokio::select! {
            biased;
            count = self.messages.recv_many(&mut arrived, GROUP) => Some(count),
            _ = look.tick() => None,
        };
        self.inbox.sort(arrived);
        count != Some(0)
    }

    async fn close(&mut self) -> Result<(), StateError> {
        self.messages.close();
        if !self.owed.is_empty() {
            self.attempt(&mut Vec::new()).await?;
        }
        let Some(connection) = self.connection.take() else { return Ok(()) };
        connection.close().await.map_err(|source| StateError::store("close the shared store", source))
    }

    /// Answers from the store; what was committed by another node a moment ago may be asked for.
    async fn read(&mut self, asked: Message) {
        let connection = self.connected().await;
        match asked {
            Message::Response(id, tell) => {
                let found = match connection {
                    Ok(connection) => store::response(connection, &id).await,
                    Err(error) => Err(error),
                };
                drop(tell.send(found));
            }
            Message::Payload { zone, id, tell } => {
                let found = match connection {
                    Ok(connection) => store::payload(connection, &zone, &id).await,
                    Err(error) => Err(error),
                };
                drop(tell.send(found));
            }
            Message::Commit(_) | Message::CatchUp(_) | Message::Close(..) => {}
        }
    }

    /// Learns what others wrote. A failure shows in the log; what is known stays in force.
    async fn look(&mut self) {
        let since = self.settled;
        let Ok(connection) = self.connected().await else { return };
        let found = match timeout(TURN, postgres::changes(connection, since)).await {
            Ok(found) => found,
            Err(_elapsed) => Err(timed_out()),
        };
        match found {
            Ok(Some((seq, loaded))) => self.learn(seq, loaded),
            Ok(None) => {}
            Err(error) => self.failed(&error),
        }
    }

    fn learn(&mut self, seq: i64, loaded: Loaded) {
        // Nobody is left to know it while the state is being dropped.
        let Some(zones) = self.zones.upgrade() else { return };
        let all = zones.learn(loaded, &self.tally);
        if seq != self.seen || all {
            self.tally.known.fetch_add(1, Ordering::AcqRel);
        }
        self.seen = seq;
        if all {
            self.settled = seq;
        }
    }

    /// Commits together; when that fails, one by one, so that no job suffers for another that gives authority.
    async fn turn(&mut self, mut jobs: Vec<Job>) {
        let Err(error) = self.attempt(&mut jobs).await else { return };
        if self.connection.is_none() || jobs.len() == 1 {
            for job in jobs {
                self.finish(job, Err(error.clone()));
            }
            return;
        }
        for job in jobs {
            let mut alone = vec![job];
            let outcome = self.attempt(&mut alone).await;
            if let (Err(error), Some(job)) = (outcome, alone.pop()) {
                self.finish(job, Err(error));
            }
        }
    }

    /// Tries to commit; the jobs that are left when it fails are not committed.
    async fn attempt(&mut self, jobs: &mut Vec<Job>) -> Result<(), StateError> {
        self.connected().await?;
        let mut connection = self.connection.take().ok_or_else(away)?;
        let outcome = match timeout(TURN, self.transact(&mut connection, jobs)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(timed_out()),
        };
        self.connection = Some(connection);
        match &outcome {
            Ok(changed) => {
                self.committed(*changed);
                for job in std::mem::take(jobs) {
                    self.finish(job, Ok(()));
                }
            }
            Err(error) => self.failed(error),
        }
        outcome.map(drop)
    }

    /// One transaction: learn, send back, write. Whether it changed anything.
    async fn transact(
        &mut self,
        connection: &mut PgConnection,
        jobs: &mut Vec<Job>,
    ) -> Result<bool, StateError> {
        let failed = |source| StateError::store("commit to the shared store", source);
        let mut transaction = connection.begin().await.map_err(failed)?;
        let seq = postgres::latest(&mut transaction, true).await.map_err(failed)?;
        if seq != self.seen {
            let loaded = store::load_since(&mut *transaction, self.settled).await?;
            self.learn(seq, loaded);
        }
        let sent_back = self.send_back(jobs);
        if sent_back > 0 {
            // With what has come when the time is up.
            drop(timeout(AGAIN, self.await_again(sent_back, jobs)).await);
            self.send_back(jobs);
        }
        let mut changed = 0_u64;
        let writes: Vec<&Write> = self.owed.iter().chain(jobs.iter().flat_map(|job| &job.writes)).collect();
        for write in writes {
            changed = changed.saturating_add(write.run(&mut *transaction).await.map_err(failed)?);
        }
        if changed > 0 {
            postgres::number(&mut transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(changed > 0)
    }

    /// Sends back what was judged without knowing what is known now; how many.
    fn send_back(&self, jobs: &mut Vec<Job>) -> usize {
        let known = self.tally.known.load(Ordering::Acquire);
        let back = jobs.extract_if(.., |job| job.intent == Intent::Widen && job.known != known);
        back.map(|job| (job.done)(Err(StateError::Behind))).count()
    }

    /// Takes in what is judged again, which nobody can overtake now.
    async fn await_again(&mut self, expected: usize, jobs: &mut Vec<Job>) {
        let mut missing = expected;
        while missing > 0 {
            let mut arrived = Vec::new();
            if self.messages.recv_many(&mut arrived, GROUP).await == 0 {
                return;
            }
            self.inbox.sort(arrived);
            missing = missing.saturating_sub(self.inbox.jobs.len());
            jobs.append(&mut self.inbox.jobs);
        }
    }

    /// After a commit: what it wrote is known here, and nothing is owed.
    fn committed(&mut self, changed: bool) {
        if changed {
            let settled = self.settled == self.seen;
            self.seen = self.seen.saturating_add(1);
            if settled {
                self.settled = self.seen;
            }
        }
        self.owed.clear();
        self.tally.narrowing.fetch_sub(std::mem::take(&mut self.owed_jobs), Ordering::AcqRel);
    }

    fn finish(&mut self, job: Job, outcome: Result<(), StateError>) {
        match (&outcome, job.intent) {
            (Ok(()), Intent::Narrow) => drop(self.tally.narrowing.fetch_sub(1, Ordering::AcqRel)),
            (Ok(()), Intent::Widen | Intent::Note) => {}
            (Err(error), intent) => {
                tracing::error!(%error, cause = ?std::error::Error::source(error), "a change could not be committed");
                if intent == Intent::Narrow {
                    self.owed.extend(job.writes);
                    self.owed_jobs = self.owed_jobs.saturating_add(1);
                }
            }
        }
        (job.done)(outcome);
    }

    /// The connection, made again if it was lost and its pause is over.
    async fn connected(&mut self) -> Result<&mut PgConnection, StateError> {
        if self.connection.is_none() {
            let pause = match self.retry {
                Some((last, pause)) if last.elapsed() < pause => return Err(away()),
                Some((_, pause)) => pause.saturating_mul(2).min(PAUSES.1),
                None => PAUSES.0,
            };
            match self.server.connect().await {
                Ok(connection) => {
                    tracing::info!("the shared store is back");
                    self.connection = Some(connection);
                    self.retry = None;
                    self.tally.away.store(false, Ordering::Release);
                }
                Err(error) => {
                    self.retry = Some((Instant::now(), pause));
                    return Err(error);
                }
            }
        }
        self.connection.as_mut().ok_or_else(away)
    }

    /// Drops a connection that is of no more use.
    fn failed(&mut self, error: &StateError) {
        if self.connection.is_some() && !error.server_goes_on() {
            tracing::error!(%error, cause = ?std::error::Error::source(error), "the shared store is away");
            self.connection = None;
            self.tally.away.store(true, Ordering::Release);
        }
    }
}

fn away() -> StateError {
    StateError::store("reach the shared store", sqlx::Error::Io(std::io::ErrorKind::NotConnected.into()))
}

fn timed_out() -> StateError {
    StateError::store("wait for the shared store", sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))
}
