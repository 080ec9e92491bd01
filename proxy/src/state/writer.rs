//! The one task that writes the store. Whatever waits is committed together; acknowledged means committed.
//!
//! In a fleet there are two of them: this one for what the node keeps for itself, and [`shared`] for the rest.

pub(super) mod shared;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{mpsc, oneshot};

use super::error::StateError;
use super::folder::{CleanStop, Folder};
use super::store::{self, ReceiptId, Write};

/// Jobs in one transaction: enough to share an fsync widely, few enough that a failed group is cheap to redo.
const GROUP: usize = 512;

/// How long a request waits to learn what other nodes wrote.
const CATCH_UP: Duration = Duration::from_secs(1);

/// Which way a job moves authority; decides what happens to it when a commit fails, and when another node of the
/// fleet was faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// Gives, and was judged by what this node knew; forgotten when it cannot be committed. When another node
    /// wrote meanwhile it is not committed but fails with [`StateError::Behind`], to be judged again.
    Widen,
    /// Holds whatever other nodes wrote; forgotten when it cannot be committed.
    Note,
    /// Takes; already in force, so it is committed with the next group instead.
    Narrow,
}

/// Runs on the writer task after the commit, or with the reason there was none.
pub(super) type Done = Box<dyn FnOnce(Result<(), StateError>) + Send>;

struct Job {
    writes: Vec<Write>,
    intent: Intent,
    /// What this node knew of the others when the job was judged.
    known: u64,
    done: Done,
}

enum Message {
    Commit(Job),
    /// Learn what other nodes have written by now; the sender is dropped when that is done.
    CatchUp(oneshot::Sender<()>),
    Response(ReceiptId, oneshot::Sender<Result<Option<String>, StateError>>),
    Payload {
        zone: Arc<str>,
        id: Arc<str>,
        tell: oneshot::Sender<Result<Option<Payload>, StateError>>,
    },
    /// With what a clean stop saves in the folder, where the writer has one.
    Close(Option<Box<CleanStop>>, oneshot::Sender<Result<(), StateError>>),
}

/// What was sent along with an invocation, and what came of it; JSON.
pub(super) type Payload = (String, Option<String>);

/// The way to the writer. Order of sending is order of committing.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    messages: mpsc::UnboundedSender<Message>,
    tally: Arc<Tally>,
}

/// What senders and writer have to know of each other.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Rises with everything learned from other nodes. Of a job that was judged before, it is told by the number
    /// it carries.
    known: AtomicU64,
    /// Jobs that take authority and are not committed yet. While there are any, nothing that other nodes gave
    /// back is believed: it may be older than what was taken here.
    narrowing: AtomicUsize,
    /// Whether the shared store cannot be reached.
    away: AtomicBool,
}

impl Tally {
    pub(super) fn narrowing(&self) -> bool {
        self.narrowing.load(Ordering::Acquire) > 0
    }
}

impl Queue {
    /// Sends one job. Never waits: the callers' own number bounds the queue, each waits for its answer. On a
    /// closed store `done` is dropped unrun, so it is safe to send under a lock that `done` takes.
    ///
    /// Call it under the lock the job was judged under: what is learned later must find it here.
    pub(super) fn send(&self, writes: Vec<Write>, intent: Intent, done: Done) {
        if intent == Intent::Narrow {
            self.tally.narrowing.fetch_add(1, Ordering::AcqRel);
        }
        let known = self.tally.known.load(Ordering::Acquire);
        drop(self.messages.send(Message::Commit(Job { writes, intent, known, done })));
    }

    /// Returns when this node knows what other nodes had committed before the call, or cannot find it out.
    pub(super) async fn catch_up(&self) {
        let (tell, told) = oneshot::channel();
        if !self.away() && self.messages.send(Message::CatchUp(tell)).is_ok() {
            // The sender is dropped when it is done. A server that says nothing must not hold up what can be
            // answered from here.
            drop(tokio::time::timeout(CATCH_UP, told).await);
        }
    }

    /// Whether the store this node shares with others cannot be reached.
    pub(super) fn away(&self) -> bool {
        self.tally.away.load(Ordering::Acquire)
    }

    /// Sends one job of which only the outcome matters.
    pub(super) fn commit(&self, writes: Vec<Write>, intent: Intent) -> Commit {
        let (tell, told) = oneshot::channel();
        self.send(writes, intent, Box::new(move |outcome| drop(tell.send(outcome))));
        Commit(told)
    }

    pub(super) async fn response(&self, id: ReceiptId) -> Result<Option<String>, StateError> {
        let (tell, told) = oneshot::channel();
        if self.messages.send(Message::Response(id, tell)).is_err() {
            return Err(StateError::Closed);
        }
        told.await.unwrap_or(Err(StateError::Closed))
    }

    pub(super) async fn payload(&self, zone: Arc<str>, id: Arc<str>) -> Result<Option<Payload>, StateError> {
        let (tell, told) = oneshot::channel();
        if self.messages.send(Message::Payload { zone, id, tell }).is_err() {
            return Err(StateError::Closed);
        }
        told.await.unwrap_or(Err(StateError::Closed))
    }

    /// Commits what waits, saves the clean stop where the store is this node's own, and lets go of store and
    /// folder.
    pub(super) async fn close(&self, saved: Option<CleanStop>) -> Result<(), StateError> {
        let (tell, told) = oneshot::channel();
        if self.messages.send(Message::Close(saved.map(Box::new), tell)).is_err() {
            return Err(StateError::Closed);
        }
        told.await.unwrap_or(Err(StateError::Closed))
    }
}

/// A commit on its way.
#[derive(Debug)]
#[must_use = "an operation is acknowledged only when this says so"]
pub(super) struct Commit(oneshot::Receiver<Result<(), StateError>>);

impl Commit {
    pub(super) async fn done(self) -> Result<(), StateError> {
        self.0.await.unwrap_or(Err(StateError::Closed))
    }
}

fn channel() -> (Queue, mpsc::UnboundedReceiver<Message>) {
    let (queue, messages) = mpsc::unbounded_channel();
    (Queue { messages: queue, tally: Arc::default() }, messages)
}

/// Starts the writer of a node's own store. It ends, and lets go of the folder, when it is closed or the last
/// [`Queue`] is gone.
pub(super) fn start(connection: SqliteConnection, folder: Arc<Folder>) -> Queue {
    let (queue, messages) = channel();
    let writer = Writer { connection, folder, owed: Vec::new() };
    tokio::spawn(writer.run(messages));
    queue
}

struct Writer {
    connection: SqliteConnection,
    folder: Arc<Folder>,
    /// Narrowing writes whose commit failed. They stand before everything newer.
    owed: Vec<Write>,
}

impl Writer {
    async fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        let mut waiting = Vec::with_capacity(GROUP);
        let mut closing = None;
        while closing.is_none() && messages.recv_many(&mut waiting, GROUP).await > 0 {
            let mut jobs = Vec::with_capacity(waiting.len());
            for message in waiting.drain(..) {
                match message {
                    Message::Commit(job) => jobs.push(job),
                    // Nobody else writes this store.
                    Message::CatchUp(tell) => drop(tell),
                    Message::Response(id, tell) => {
                        drop(tell.send(store::response(&mut self.connection, &id).await));
                    }
                    Message::Payload { zone, id, tell } => {
                        drop(tell.send(store::payload(&mut self.connection, &zone, &id).await));
                    }
                    Message::Close(saved, tell) => closing = Some((saved, tell)),
                }
            }
            self.commit_group(jobs).await;
        }
        messages.close();
        match closing {
            Some((saved, tell)) => {
                let outcome = self.close(saved.as_deref()).await;
                drop(tell.send(outcome));
            }
            None => drop(self.connection.close().await),
        }
    }

    /// The file comes first and its nonce second: without the nonce the file is worth nothing.
    async fn close(mut self, saved: Option<&CleanStop>) -> Result<(), StateError> {
        if let Some(saved) = saved {
            self.folder.save_clean_stop(saved)?;
            self.commit(&[&Write::Meta(store::CLEAN_STOP, saved.nonce.clone())]).await?;
        }
        self.connection.close().await.map_err(|source| StateError::store("close the store", source))
    }

    /// One transaction for all; when it fails, one for each, so that no job suffers for another that gives
    /// authority. One that takes it is owed, and holds up everything newer until it is committed: better
    /// unavailable than acknowledging past a revocation that is not on disk.
    async fn commit_group(&mut self, jobs: Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        let all: Vec<&Write> = jobs.iter().flat_map(|job| &job.writes).collect();
        if self.commit(&all).await.is_ok() {
            for job in jobs {
                (job.done)(Ok(()));
            }
            return;
        }
        for job in jobs {
            let outcome = self.commit(&job.writes.iter().collect::<Vec<_>>()).await;
            if let Err(error) = &outcome {
                tracing::error!(%error, cause = ?std::error::Error::source(error), "a change could not be committed");
                if job.intent == Intent::Narrow {
                    self.owed.extend(job.writes);
                }
            }
            (job.done)(outcome);
        }
    }

    async fn commit(&mut self, writes: &[&Write]) -> Result<(), StateError> {
        let failed = |source| StateError::store("commit to the store", source);
        let mut transaction = self.connection.begin().await.map_err(failed)?;
        for write in self.owed.iter().chain(writes.iter().copied()) {
            write.run(&mut *transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        self.owed.clear();
        Ok(())
    }
}
