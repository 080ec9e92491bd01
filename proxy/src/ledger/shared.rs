//! What requests and the writer share: the slots, the inbox, the early lane, the durable heads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{oneshot, watch};

use super::early::{EarlyLane, EarlyRefusal};
use super::syncer::SyncDone;
use super::{Durability, Event, LedgerError, LedgerFull, LedgerOptions, LedgerStatus};
use crate::clock::Clock;

/// The answer to an order or to a strict decision.
pub(super) type Reply = oneshot::Sender<Result<(), LedgerError>>;

/// Shared by the ledger, its admissions and its threads.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) durability: Durability,
    capacity: usize,
    reserved: AtomicUsize,
    closed: AtomicBool,
    inbox: Mutex<Inbox>,
    wake: Condvar,
    early: Mutex<EarlyLane>,
    early_seen: AtomicU64,
    heads: Mutex<BTreeMap<String, Head>>,
    checkpoints: watch::Sender<u64>,
    failed: AtomicBool,
    trouble: Mutex<Option<String>>,
    written: AtomicU64,
}

/// A record of a chain: its place and its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) seq: u64,
    pub(super) hash: String,
}

/// A record on its way to the disk.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) event: Event,
    /// Told when the record is durable; strict decisions only.
    pub(super) waiter: Option<Reply>,
    /// Whether it gives a slot back once written. The ledger's own records hold none.
    pub(super) holds_slot: bool,
}

/// What somebody asks of the writer.
#[derive(Debug)]
pub(super) enum Order {
    Flush(Reply),
    Close(Reply),
    /// The ledger was dropped.
    Abandon,
}

/// Everything that has come in since the writer looked last.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) items: Vec<Item>,
    pub(super) orders: Vec<Order>,
    pub(super) synced: Vec<SyncDone>,
    /// Something came in, or the early lane has something.
    stirred: bool,
    /// Somebody waits: do not gather any longer.
    urgent: bool,
    /// The writer waits without a time limit and must be woken.
    asleep: bool,
}

impl Shared {
    pub(super) fn new(options: &LedgerOptions, clock: Clock) -> Self {
        Self {
            clock,
            durability: options.durability,
            capacity: options.queue,
            reserved: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            inbox: Mutex::default(),
            wake: Condvar::new(),
            early: Mutex::new(EarlyLane::new(options.early_per_second)),
            early_seen: AtomicU64::new(0),
            heads: Mutex::default(),
            checkpoints: watch::channel(0).0,
            failed: AtomicBool::new(false),
            trouble: Mutex::new(None),
            written: AtomicU64::new(0),
        }
    }

    /// Takes slots, all or none.
    pub(super) fn reserve(&self, slots: usize) -> Result<(), LedgerFull> {
        if self.is_closed() {
            return Err(LedgerFull::Closed);
        }
        if !self.healthy() {
            return Err(LedgerFull::Failed);
        }
        let more = |used: usize| used.checked_add(slots).filter(|used| *used <= self.capacity);
        match self.reserved.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(()),
            Err(_) => Err(LedgerFull::NoSlots),
        }
    }

    /// Gives slots back.
    pub(super) fn release(&self, slots: usize) {
        self.reserved.fetch_sub(slots, Ordering::AcqRel);
    }

    pub(super) fn outstanding(&self) -> usize {
        self.reserved.load(Ordering::Acquire)
    }

    /// Queues a record for which a slot is held. False when the ledger is closed; the slot is then free again.
    pub(super) fn push(&self, event: Event, waiter: Option<Reply>) -> bool {
        let mut inbox = self.inbox.lock();
        if self.is_closed() {
            drop(inbox);
            self.release(1);
            return false;
        }
        let urgent = waiter.is_some();
        inbox.items.push(Item { event, waiter, holds_slot: true });
        // The writer gathers for a moment; a burst that would fill the queue meanwhile ends the gathering.
        let urgent = urgent || inbox.items.len() == self.capacity.div_ceil(4);
        self.stir(&mut inbox, urgent);
        true
    }

    /// Queues an order. False when the ledger is closed.
    pub(super) fn order(&self, order: Order) -> bool {
        let mut inbox = self.inbox.lock();
        if self.is_closed() {
            return false;
        }
        inbox.orders.push(order);
        self.stir(&mut inbox, true);
        true
    }

    /// Hands the end of an fsync back to the writer.
    pub(super) fn finish(&self, done: SyncDone) {
        let mut inbox = self.inbox.lock();
        inbox.synced.push(done);
        self.stir(&mut inbox, false);
    }

    pub(super) fn refuse_early(&self, early: EarlyRefusal) {
        self.early_seen.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now();
        let first = self.early.lock().note(early, now);
        // Only the first of a batch touches the inbox, so a flood costs admitted requests nothing.
        if first {
            self.stir(&mut self.inbox.lock(), false);
        }
    }

    /// Waits for work and takes all of it. With nothing pending elsewhere it waits for as long as it takes;
    /// otherwise, and once something came in, it gathers for `gather` unless somebody waits.
    pub(super) fn take(&self, idle: bool, gather: Duration) -> Inbox {
        let mut inbox = self.inbox.lock();
        while idle && !inbox.stirred {
            inbox.asleep = true;
            self.wake.wait(&mut inbox);
        }
        inbox.asleep = false;
        if !inbox.urgent {
            self.wake.wait_for(&mut inbox, gather);
        }
        self.empty(&mut inbox)
    }

    /// Lets nothing more in and takes what is left.
    pub(super) fn shut(&self) -> Inbox {
        let mut inbox = self.inbox.lock();
        self.closed.store(true, Ordering::Release);
        self.empty(&mut inbox)
    }

    /// Undoes [`Shared::shut`] after a close that could not be completed.
    pub(super) fn reopen(&self) {
        self.closed.store(false, Ordering::Release);
    }

    /// Works on the early lane under its lock.
    pub(super) fn early<T>(&self, work: impl FnOnce(&mut EarlyLane) -> T) -> T {
        work(&mut self.early.lock())
    }

    pub(super) fn heads(&self) -> BTreeMap<String, Head> {
        self.heads.lock().clone()
    }

    pub(super) fn set_head(&self, zone: &str, head: Head) {
        self.heads.lock().insert(zone.to_owned(), head);
    }

    pub(super) fn checkpoints(&self) -> watch::Receiver<u64> {
        self.checkpoints.subscribe()
    }

    pub(super) fn announce_checkpoint(&self) {
        self.checkpoints.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn count_written(&self, records: usize) {
        self.written.fetch_add(u64::try_from(records).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn healthy(&self) -> bool {
        !self.failed.load(Ordering::Acquire)
    }

    /// Turns the ledger away from new requests; answers whether that is new.
    pub(super) fn fail(&self, cause: String) -> bool {
        *self.trouble.lock() = Some(cause);
        !self.failed.swap(true, Ordering::AcqRel)
    }

    /// Undoes [`Shared::fail`]; answers whether there was something to undo.
    pub(super) fn recover(&self) -> bool {
        let recovered = self.failed.swap(false, Ordering::AcqRel);
        if recovered {
            *self.trouble.lock() = None;
        }
        recovered
    }

    pub(super) fn failure(&self) -> LedgerError {
        LedgerError::Failed(self.trouble.lock().clone().unwrap_or_else(|| "it recovers".into()))
    }

    pub(super) fn status(&self) -> LedgerStatus {
        LedgerStatus {
            healthy: self.healthy(),
            reserved: self.outstanding(),
            capacity: self.capacity,
            written: self.written.load(Ordering::Relaxed),
            early_refusals: self.early_seen.load(Ordering::Relaxed),
            trouble: self.trouble.lock().clone(),
        }
    }

    /// Under the inbox's lock this is exact: nothing can be queued behind the last look.
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn stir(&self, inbox: &mut Inbox, urgent: bool) {
        inbox.stirred = true;
        inbox.urgent |= urgent;
        // A gathering writer is left alone unless somebody waits: one wake-up a batch, not one a record.
        if inbox.asleep || urgent {
            inbox.asleep = false;
            self.wake.notify_one();
        }
    }

    fn empty(&self, inbox: &mut Inbox) -> Inbox {
        let capacity = inbox.items.len().min(self.capacity);
        let fresh = Inbox { items: Vec::with_capacity(capacity), ..Inbox::default() };
        std::mem::replace(inbox, fresh)
    }
}
