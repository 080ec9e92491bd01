//! The writer thread: takes what came in, chains it, writes it, and has it synced.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock, statvfs};
use serde_json::json;

use super::chain::Chain;
use super::draft::Ended;
use super::record::OPENED;
use super::recovery::Found;
use super::segment::{self, failed};
use super::shared::{Inbox, Item, Order, Reply, Shared};
use super::syncer::{self, SyncJob};
use super::{Durability, LedgerError, LedgerKey, LedgerOptions, SYSTEM};

/// Pause between two attempts to write after a failure.
const RETRY_EVERY: Duration = Duration::from_millis(250);

/// How often counted early refusals become records.
const COUNTS_EVERY: Duration = Duration::from_secs(1);

/// Everything the writer thread owns.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    dir: PathBuf,
    options: LedgerOptions,
    key: Arc<LedgerKey>,
    lanes: BTreeMap<String, Lane>,
    syncer: mpsc::Sender<SyncJob>,
    /// Strict decisions that are written and wait for the fsync.
    waiters: Vec<Reply>,
    counts_due: Option<Instant>,
    _lock: File,
}

/// One zone's records: those that wait, and the chain they go to. The chain is opened with its first record.
#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Item>,
    chain: Option<Chain>,
    /// When the chain needs its next checkpoint and fsync.
    due: Option<Instant>,
    /// A background fsync is under way.
    is_syncing: bool,
}

impl Lane {
    /// While an fsync is under way the next checkpoint waits for its end: a slow disk would otherwise get one a round.
    fn wants_checkpoint(&self) -> bool {
        is_due(self.due) && !self.is_syncing
    }
}

impl Writer {
    /// Locks the folder, opens every chain in it and chains what has to be said about the previous run.
    pub(super) fn open(
        dir: &Path,
        options: LedgerOptions,
        key: LedgerKey,
        shared: Arc<Shared>,
    ) -> Result<Self, LedgerError> {
        segment::make_folder(dir).map_err(|source| failed("create the ledger folder", dir, source))?;
        let lock = lock(dir)?;
        let key = Arc::new(key);
        let mut chains = Vec::new();
        for zone in segment::zones(dir)? {
            chains.push(Chain::open(dir, &zone, &options, Arc::clone(&key))?);
        }
        if !chains.iter().any(|(chain, _)| &*chain.zone == SYSTEM) {
            chains.push(Chain::open(dir, SYSTEM, &options, Arc::clone(&key))?);
        }
        let syncer = syncer::start(Arc::clone(&shared))?;
        let mut writer = Self {
            shared,
            dir: dir.to_owned(),
            options,
            key,
            lanes: BTreeMap::new(),
            syncer,
            waiters: Vec::new(),
            counts_due: None,
            _lock: lock,
        };
        writer.resume(chains)?;
        Ok(writer)
    }

    /// Works until the ledger is closed or dropped; answers whom to tell that it is closed.
    pub(super) fn run(mut self) -> Option<Reply> {
        loop {
            let gather = if self.shared.healthy() { self.options.write_every } else { RETRY_EVERY };
            let inbox = self.shared.take(self.is_idle(), gather);
            let orders = self.accept(inbox);
            let result = self.round(!orders.is_empty());
            self.conclude(&result);
            for order in orders {
                match order {
                    Order::Flush(reply) => {
                        reply.send(self.answer(&result)).ok();
                    }
                    Order::Close(reply) => match self.close() {
                        Ok(()) => return Some(reply),
                        Err(_) => {
                            reply.send(Err(self.shared.failure())).ok();
                        }
                    },
                    Order::Abandon => {
                        self.shared.shut();
                        return None;
                    }
                }
            }
        }
    }

    fn resume(&mut self, chains: Vec<(Chain, Found)>) -> Result<(), LedgerError> {
        let now = self.shared.clock.now();
        // The system chain has a record of every start, so it tells how the previous process ended even where a
        // zone had nothing written.
        let crashed =
            chains.iter().any(|(chain, found)| &*chain.zone == SYSTEM && found.ended == Ended::Open);
        for (mut chain, found) in chains {
            chain.resume(&found, crashed || found.ended == Ended::Open, now)?;
            if &*chain.zone == SYSTEM {
                let durability = match self.options.durability {
                    Durability::Buffered => "buffered",
                    Durability::Strict => "strict",
                };
                chain.note(OPENED, json!({ "durability": durability, "pid": std::process::id() }), now)?;
            }
            let zone = chain.zone.to_string();
            self.shared.set_head(&zone, chain.head().clone());
            let due = (!chain.is_synced()).then(|| later(self.options.checkpoint_after));
            self.lanes.insert(zone, Lane { chain: Some(chain), due, ..Lane::default() });
        }
        self.sync_all()
    }

    fn is_idle(&self) -> bool {
        self.shared.healthy()
            && self.counts_due.is_none()
            && self.lanes.values().all(|lane| lane.waiting.is_empty() && lane.due.is_none())
    }

    /// Sorts what came in by zone and takes note of finished fsyncs.
    fn accept(&mut self, inbox: Inbox) -> Vec<Order> {
        for done in inbox.synced {
            self.settle(&done.job, done.result);
        }
        let healthy = self.shared.healthy();
        for mut item in inbox.items {
            if !healthy && let Some(waiter) = item.waiter.take() {
                waiter.send(Err(self.shared.failure())).ok();
            }
            self.enqueue(item);
        }
        inbox.orders
    }

    fn enqueue(&mut self, item: Item) {
        let zone = if item.event.zone_id.is_empty() { SYSTEM } else { &item.event.zone_id };
        if let Some(lane) = self.lanes.get_mut(zone) {
            lane.waiting.push_back(item);
        } else {
            let zone = zone.to_owned();
            self.lanes.entry(zone).or_default().waiting.push_back(item);
        }
    }

    /// Writes everything that waits; syncs it here if somebody waits for that, else in the background when due.
    fn round(&mut self, somebody_waits: bool) -> Result<(), LedgerError> {
        self.collect_early(somebody_waits);
        self.write_all()?;
        self.checkpoint_due()?;
        if somebody_waits || !self.waiters.is_empty() {
            self.sync_all()?;
        }
        Ok(())
    }

    fn conclude(&mut self, result: &Result<(), LedgerError>) {
        match result {
            Ok(()) if self.shared.healthy() => {}
            Ok(()) => {
                self.shared.recover();
                tracing::warn!("the ledger writes again");
            }
            Err(error) => self.fail(error),
        }
    }

    fn fail(&mut self, error: &LedgerError) {
        let cause = match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        if self.shared.fail(cause.clone()) {
            tracing::error!(cause, "the ledger cannot write; requests are refused until it can");
        }
        let waiting =
            self.lanes.values_mut().flat_map(|lane| &mut lane.waiting).filter_map(|item| item.waiter.take());
        let waiters: Vec<Reply> = waiting.chain(self.waiters.drain(..)).collect();
        for waiter in waiters {
            waiter.send(Err(LedgerError::Failed(cause.clone()))).ok();
        }
    }

    fn answer(&self, result: &Result<(), LedgerError>) -> Result<(), LedgerError> {
        if result.is_ok() { Ok(()) } else { Err(self.shared.failure()) }
    }

    /// Moves the early lane's records to the system chain. While the disk fails or is nearly full they stay in
    /// memory, where they are bounded.
    fn collect_early(&mut self, all: bool) {
        if !self.shared.healthy() {
            return;
        }
        if self.shared.early(|lane| lane.is_empty()) {
            return;
        }
        let has_room = self.has_room();
        let counts_due = all || is_due(self.counts_due);
        let (events, is_empty) = self.shared.early(|lane| {
            let mut events = if has_room { lane.take_singles() } else { Vec::new() };
            if has_room && counts_due {
                events.extend(lane.take_counts());
            }
            (events, lane.is_empty())
        });
        if is_empty {
            self.counts_due = None;
        } else if counts_due || self.counts_due.is_none() {
            self.counts_due = Some(later(COUNTS_EVERY));
        }
        for event in events {
            self.enqueue(Item { event, waiter: None, holds_slot: false });
        }
    }

    fn has_room(&self) -> bool {
        statvfs(&self.dir)
            .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= self.options.disk_reserve)
    }

    /// Every chain is tried even if one fails; the first failure is the answer.
    fn write_all(&mut self) -> Result<(), LedgerError> {
        let now = self.shared.clock.now();
        let due = later(self.options.checkpoint_after);
        let mut first_error = Ok(());
        let mut written = Vec::new();
        for (zone, lane) in &mut self.lanes {
            let chain = match &mut lane.chain {
                Some(chain) => Ok(chain),
                None => Chain::open(&self.dir, zone, &self.options, Arc::clone(&self.key))
                    .map(|(chain, _)| lane.chain.insert(chain)),
            };
            let result = chain.and_then(|chain| {
                let was_synced = chain.is_synced();
                chain.write(&mut lane.waiting, &mut written, now)?;
                // After a failed fsync the chain syncs itself before it goes on.
                if !was_synced && chain.is_synced() {
                    self.shared.set_head(zone, chain.head().clone());
                }
                Ok(())
            });
            if result.is_err() && first_error.is_ok() {
                first_error = result;
            }
            if lane.due.is_none() && lane.chain.as_ref().is_some_and(|chain| !chain.is_synced()) {
                lane.due = Some(due);
            }
        }
        self.shared.release(written.iter().filter(|item| item.holds_slot).count());
        self.shared.count_written(written.len());
        self.waiters.extend(written.into_iter().filter_map(|item| item.waiter));
        first_error
    }

    fn checkpoint_due(&mut self) -> Result<(), LedgerError> {
        let now = self.shared.clock.now();
        for lane in self.lanes.values_mut().filter(|lane| lane.wants_checkpoint()) {
            let Some(chain) = &mut lane.chain else { continue };
            chain.checkpoint(now)?;
            if !chain.is_synced() {
                if self.syncer.send(chain.sync_job()).is_err() {
                    return Err(LedgerError::Failed("the sync thread is gone".into()));
                }
                lane.is_syncing = true;
            }
            lane.due = None;
        }
        Ok(())
    }

    /// Syncs every chain here and now, then answers the strict decisions.
    fn sync_all(&mut self) -> Result<(), LedgerError> {
        let mut first_error = Ok(());
        for lane in self.lanes.values_mut() {
            let Some(chain) = lane.chain.as_mut().filter(|chain| !chain.is_synced()) else { continue };
            let job = chain.sync_job();
            let result = job.run();
            if chain.synced(&job, &result) {
                self.shared.set_head(&job.zone, job.head);
            }
            if let Err(source) = result
                && first_error.is_ok()
            {
                first_error = Err(failed("sync", &chain.segment_path(), source));
            }
        }
        first_error?;
        for waiter in self.waiters.drain(..) {
            waiter.send(Ok(())).ok();
        }
        Ok(())
    }

    /// Takes note of a background fsync.
    fn settle(&mut self, job: &SyncJob, result: std::io::Result<()>) {
        let Some(lane) = self.lanes.get_mut(&*job.zone) else { return };
        lane.is_syncing = false;
        let Some(chain) = &mut lane.chain else { return };
        if chain.synced(job, &result) {
            self.shared.set_head(&job.zone, job.head.clone());
        }
        match result {
            Ok(()) => self.shared.announce_checkpoint(),
            Err(source) => {
                let error = failed("sync", &chain.segment_path(), source);
                self.fail(&error);
            }
        }
    }

    /// The clean stop. On failure the ledger goes on.
    fn close(&mut self) -> Result<(), LedgerError> {
        let rest = self.shared.shut();
        let orders = self.accept(rest);
        let closed = self.round(true).and_then(|()| self.close_chains());
        self.conclude(&closed);
        if closed.is_err() {
            self.shared.reopen();
        }
        for order in orders {
            match order {
                Order::Flush(reply) | Order::Close(reply) => {
                    reply.send(self.answer(&closed)).ok();
                }
                Order::Abandon => {}
            }
        }
        closed
    }

    fn close_chains(&mut self) -> Result<(), LedgerError> {
        let now = self.shared.clock.now();
        let outstanding = self.shared.outstanding();
        for chain in self.lanes.values_mut().filter_map(|lane| lane.chain.as_mut()) {
            chain.close(outstanding, now)?;
        }
        self.sync_all()?;
        self.shared.announce_checkpoint();
        Ok(())
    }
}

fn lock(dir: &Path) -> Result<File, LedgerError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = dir.join("ledger.lock");
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let file = file.map_err(|source| failed("open the lock", &path, source))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(LedgerError::InUse(dir.to_owned())),
        Err(errno) => Err(failed("lock", &path, errno.into())),
    }
}

fn later(by: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(by).unwrap_or(now)
}

fn is_due(at: Option<Instant>) -> bool {
    at.is_some_and(|at| Instant::now() >= at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_checkpoint_is_signed_while_an_fsync_is_under_way() {
        let now = Instant::now();
        let lane = |due, is_syncing| Lane { due, is_syncing, ..Lane::default() };
        assert!(lane(Some(now), false).wants_checkpoint());
        assert!(!lane(Some(now), true).wants_checkpoint());
        assert!(!lane(Some(later(Duration::from_secs(3_600))), false).wants_checkpoint());
        assert!(!lane(None, false).wants_checkpoint());
    }
}
