//! One slot per request: the flag that ends it from outside, and the record that is written exactly once.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::record::Open;
use crate::gate::authorize::Decided;
use crate::state::{Anchor, Connection};

tokio::task_local! {
    /// The slot of the request this task is serving.
    pub(super) static SLOT: Arc<Slot>;
}

/// Why a request was ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Something it stands on was revoked, suspended or frozen.
    Revoked,
    /// It outlived its session, its delegation or the resource's longest stream.
    Deadline,
    /// Policy changed and now denies it.
    Policy,
    /// The process is stopping and the deadline has passed.
    Stopping,
}

impl Cut {
    /// The word for ledger and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Deadline => "deadline",
            Self::Policy => "policy",
            Self::Stopping => "stopping",
        }
    }
}

/// What a request stands on.
#[derive(Debug)]
pub struct Bound {
    /// Its zone.
    pub zone: Arc<str>,
    /// Every id whose revocation ends it.
    pub anchors: Vec<Anchor>,
    /// When it was bound, in unix milliseconds.
    pub since: i64,
}

/// The state of one request that outlives its handler.
#[derive(Debug, Default)]
pub struct Slot {
    cut: AtomicU8,
    wake: Notify,
    last_word: Notify,
    has_last_word: AtomicBool,
    received: AtomicU64,
    sent: AtomicU64,
    bound: OnceLock<Bound>,
    ends_at: OnceLock<i64>,
    decided: OnceLock<Decided>,
    /// The connection whose token went upstream.
    connection: OnceLock<Arc<Connection>>,
    /// Generation of the snapshot under which the request was last found permitted.
    permitted_under: AtomicU64,
    open: Mutex<Option<Open>>,
}

impl Slot {
    /// Names what the request stands on; the first call counts.
    pub fn bind(&self, bound: Bound) {
        self.bound.get_or_init(|| bound);
    }

    /// What it stands on, once its identity is proven.
    #[must_use]
    pub fn bound(&self) -> Option<&Bound> {
        self.bound.get()
    }

    /// Sets the time after which the request may not go on, in unix milliseconds.
    pub fn end_at(&self, at: i64) {
        self.ends_at.get_or_init(|| at);
    }

    /// That time.
    #[must_use]
    pub fn ends_at(&self) -> Option<i64> {
        self.ends_at.get().copied()
    }

    /// Keeps what was permitted, and under which generation of the snapshot.
    pub(super) fn permit(&self, decided: Decided, generation: u64) {
        self.permitted_under.store(generation, Ordering::Release);
        self.decided.get_or_init(|| decided);
    }

    /// What was permitted, if that was under another generation than this one.
    pub(super) fn outdated(&self, generation: u64) -> Option<&Decided> {
        self.decided.get().filter(|_| self.permitted_under.load(Ordering::Acquire) != generation)
    }

    /// Notes that the request is permitted under this generation too.
    pub(super) fn confirm(&self, generation: u64) {
        self.permitted_under.store(generation, Ordering::Release);
    }

    /// Keeps the connection that the request acts with; the first call counts.
    pub(super) fn act_with(&self, connection: &Arc<Connection>) {
        self.connection.get_or_init(|| Arc::clone(connection));
    }

    /// That connection.
    pub(super) fn connection(&self) -> Option<&Connection> {
        self.connection.get().map(|connection| &**connection)
    }

    /// Ends the request; the first reason counts.
    pub fn cut(&self, why: Cut) {
        let code = match why {
            Cut::Revoked => 1,
            Cut::Deadline => 2,
            Cut::Policy => 3,
            Cut::Stopping => 4,
        };
        if self.cut.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.wake.notify_one();
            self.last_word.notify_one();
        }
    }

    /// Why it was ended, if it was.
    #[must_use]
    pub fn why(&self) -> Option<Cut> {
        match self.cut.load(Ordering::Acquire) {
            1 => Some(Cut::Revoked),
            2 => Some(Cut::Deadline),
            3 => Some(Cut::Policy),
            4 => Some(Cut::Stopping),
            _ => None,
        }
    }

    /// Resolves once the request has been ended from outside.
    pub async fn ended(&self) {
        while self.why().is_none() {
            self.wake.notified().await;
        }
    }

    /// The request's handler will notice a cut by itself and may say something before it ends.
    pub(super) fn expect_last_word(&self) {
        self.has_last_word.store(true, Ordering::Release);
    }

    /// Whether it will.
    pub(super) fn has_last_word(&self) -> bool {
        self.has_last_word.load(Ordering::Acquire)
    }

    /// As [`Slot::ended`], for the one who says the last word.
    pub(super) async fn last_word_due(&self) {
        while self.why().is_none() {
            self.last_word.notified().await;
        }
    }

    /// Counts body bytes that came from the caller; gives their sum.
    pub(super) fn count_received(&self, bytes: usize) -> u64 {
        count(&self.received, bytes)
    }

    /// The body that came so far is counted once more, because it is sent once more.
    pub(super) fn receive_again(&self) {
        self.received.store(0, Ordering::Relaxed);
    }

    /// Counts body bytes on their way to the caller.
    pub(super) fn count_sent(&self, bytes: usize) {
        count(&self.sent, bytes);
    }

    /// Body bytes that came from the caller so far.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Body bytes that went on their way to the caller so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Puts the open record into the slot, where it survives the handler.
    pub(super) fn open(&self, open: Open) {
        *self.open.lock() = Some(open);
    }

    /// Changes the open record, if there is one.
    pub(super) fn note(&self, change: impl FnOnce(&mut Open)) {
        if let Some(open) = self.open.lock().as_mut() {
            change(open);
        }
    }

    /// The id of the recorded decision, while its record is open.
    pub(super) fn decision_id(&self) -> Option<String> {
        self.open.lock().as_ref().map(|open| open.identity.decision_id.clone())
    }

    /// Takes the open record; whoever gets it writes it.
    pub(super) fn close(&self) -> Option<Open> {
        self.open.lock().take()
    }
}

fn count(counter: &AtomicU64, bytes: usize) -> u64 {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    counter.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes)
}
