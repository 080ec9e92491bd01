//! The one task that writes the store. Whatever waits is committed together; acknowledged means committed.

use std::sync::Arc;

use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{mpsc, oneshot};

use super::error::StateError;
use super::folder::{CleanStop, Folder};
use super::store::{self, ReceiptId, Write};

/// Jobs in one transaction: enough to share an fsync widely, few enough that a failed group is cheap to redo.
const GROUP: usize = 512;

/// Which way a job moves authority; decides what happens to it when a commit fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// Gives; forgotten when it cannot be committed.
    Widen,
    /// Takes; already in force, so it is committed with the next group instead.
    Narrow,
}

/// Runs on the writer task after the commit, or with the reason there was none.
pub(super) type Done = Box<dyn FnOnce(Result<(), StateError>) + Send>;

struct Job {
    writes: Vec<Write>,
    intent: Intent,
    done: Done,
}

enum Message {
    Commit(Job),
    Response(ReceiptId, oneshot::Sender<Result<Option<String>, StateError>>),
    Payload { zone: Arc<str>, id: Arc<str>, tell: oneshot::Sender<Result<Option<Payload>, StateError>> },
    Close(Box<CleanStop>, oneshot::Sender<Result<(), StateError>>),
}

/// What was sent along with an invocation, and what came of it; JSON.
pub(super) type Payload = (String, Option<String>);

/// The way to the writer. Order of sending is order of committing.
#[derive(Debug)]
pub(super) struct Queue(mpsc::UnboundedSender<Message>);

impl Queue {
    /// Sends one job. Never waits: the callers' own number bounds the queue, each waits for its answer. On a
    /// closed store `done` is dropped unrun, so it is safe to send under a lock that `done` takes.
    pub(super) fn send(&self, writes: Vec<Write>, intent: Intent, done: Done) {
        drop(self.0.send(Message::Commit(Job { writes, intent, done })));
    }

    /// Sends one job of which only the outcome matters.
    pub(super) fn commit(&self, writes: Vec<Write>, intent: Intent) -> Commit {
        let (tell, told) = oneshot::channel();
        self.send(writes, intent, Box::new(move |outcome| drop(tell.send(outcome))));
        Commit(told)
    }

    pub(super) async fn response(&self, id: ReceiptId) -> Result<Option<String>, StateError> {
        let (tell, told) = oneshot::channel();
        if self.0.send(Message::Response(id, tell)).is_err() {
            return Err(StateError::Closed);
        }
        told.await.unwrap_or(Err(StateError::Closed))
    }

    pub(super) async fn payload(&self, zone: Arc<str>, id: Arc<str>) -> Result<Option<Payload>, StateError> {
        let (tell, told) = oneshot::channel();
        if self.0.send(Message::Payload { zone, id, tell }).is_err() {
            return Err(StateError::Closed);
        }
        told.await.unwrap_or(Err(StateError::Closed))
    }

    /// Commits what waits, saves the clean stop, and lets go of store and folder.
    pub(super) async fn close(&self, saved: CleanStop) -> Result<(), StateError> {
        let (tell, told) = oneshot::channel();
        if self.0.send(Message::Close(Box::new(saved), tell)).is_err() {
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

/// Starts the writer. It ends, and lets go of the folder, when it is closed or the last [`Queue`] is gone.
pub(super) fn start(connection: SqliteConnection, folder: Arc<Folder>) -> Queue {
    let (queue, messages) = mpsc::unbounded_channel();
    let writer = Writer { connection, folder, owed: Vec::new() };
    tokio::spawn(writer.run(messages));
    Queue(queue)
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
                let outcome = self.close(&saved).await;
                drop(tell.send(outcome));
            }
            None => drop(self.connection.close().await),
        }
    }

    /// The file comes first and its nonce second: without the nonce the file is worth nothing.
    async fn close(mut self, saved: &CleanStop) -> Result<(), StateError> {
        self.folder.save_clean_stop(saved)?;
        self.commit(&[&Write::Meta(store::CLEAN_STOP, saved.nonce.clone())]).await?;
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
            write.run(&mut transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        self.owed.clear();
        Ok(())
    }
}
