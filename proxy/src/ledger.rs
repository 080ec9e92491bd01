//! The ledger: what was decided and what came of it, in append-only files that anybody can verify offline.
//!
//! Records are canonical JSON lines (RFC 8785), chained by SHA-256 per zone, in `<dir>/<zone>/000001.jsonl` and
//! on; the chain [`SYSTEM`] holds what belongs to no zone. Checkpoints signed with Ed25519 pin each chain. One
//! thread writes; a request only moves its record into a bounded queue.
//!
//! Two lanes. A request reserves the slots of both its records before anything else ([`Ledger::admit`]), so a
//! full queue refuses new requests and never loses a record of one that was let in. What is refused before an
//! identity is proven ([`Ledger::refuse_early`]) is counted in a lane of its own that can neither fill nor
//! delay the first.

mod admission;
mod canonical;
mod chain;
mod draft;
mod early;
mod key;
pub mod read;
mod record;
mod recovery;
mod render;
pub(crate) mod scan;
mod segment;
mod shared;
mod syncer;
pub mod uses;
pub mod verify;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value};
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use crate::clock::Clock;
use shared::{Order, Shared};
use writer::Writer;

pub use admission::{Admission, LedgerFull};
pub use early::EarlyRefusal;
pub use key::{Fingerprint, LedgerKey, PublicKey, Trust};
pub use record::Record;
pub use render::render;

/// The chain of everything that belongs to no zone: early refusals, process events.
pub const SYSTEM: &str = "_system";

/// One record before it is chained.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// UUIDv7; for a decision this is the decision id.
    pub id: String,
    /// The chain it goes to; empty means the zone its request was admitted for.
    pub zone_id: String,
    /// `token_exchange`, `gateway_resource_request`, ...
    pub event_type: &'static str,
    /// The same in both records of a request.
    pub request_id: String,
    /// `allow`, `deny`, `pending`, `approved`, `rejected`, `consumed`; empty for a record of the process itself.
    pub decision: &'static str,
    /// `complete`, or why not.
    pub evaluation_status: String,
    /// The rules that decided.
    pub determining_policies: Vec<String>,
    /// An array on disk: null becomes `[]`, any other single value becomes its one element.
    pub diagnostics: Value,
    /// Everything else; never a credential. A number that is no safe integer is kept as text.
    pub metadata: Map<String, Value>,
    /// Unix milliseconds.
    pub occurred_at: i64,
}

/// When a decision counts as recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// Queued. In the kernel's hands within 50 ms, on disk within a second.
    #[default]
    Buffered,
    /// On disk: `decide` returns after the fsync that covers it.
    Strict,
}

/// How a ledger is kept.
#[derive(Clone, Debug)]
pub struct LedgerOptions {
    /// When a decision counts as recorded.
    pub durability: Durability,
    /// Records that may be reserved or queued at once; two per running request.
    pub queue: usize,
    /// Size at which a segment is followed by the next, in bytes.
    pub segment_bytes: u64,
    /// Records between two checkpoints of a chain.
    pub checkpoint_every: u32,
    /// Longest time a record stays without a checkpoint and an fsync.
    pub checkpoint_after: Duration,
    /// Longest time a buffered record waits for company before it is written.
    pub write_every: Duration,
    /// Early refusals a second, per code and listener, that get a record of their own.
    pub early_per_second: u32,
    /// Free bytes below which early refusals are only counted in memory, so that they cannot fill the disk.
    pub disk_reserve: u64,
}

impl Default for LedgerOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Buffered,
            queue: 16_384,
            segment_bytes: 64 << 20,
            checkpoint_every: 1_024,
            checkpoint_after: Duration::from_secs(1),
            // Far below the promised 50 ms: what waits here is memory that the request path has to do without, and
            // records that wait longer have left the caches before they are written.
            write_every: Duration::from_millis(2),
            early_per_second: 50,
            disk_reserve: 256 << 20,
        }
    }
}

/// What the ledger is doing right now.
#[derive(Clone, Debug)]
pub struct LedgerStatus {
    /// False while records cannot be written; no request is admitted meanwhile.
    pub healthy: bool,
    /// Slots reserved or waiting to be written.
    pub reserved: usize,
    /// Slots there are.
    pub capacity: usize,
    /// Records written since the start.
    pub written: u64,
    /// Early refusals seen since the start, with or without a record of their own.
    pub early_refusals: u64,
    /// Why it is not healthy.
    pub trouble: Option<String>,
}

/// Why the ledger cannot do what it was asked.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// A file or folder could not be used.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has this folder.
    #[error("the ledger folder `{}` is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The end of a chain is neither whole nor merely torn; only a person can say what happened.
    #[error("the end of `{}` is damaged: {reason}", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// What is wrong with its last record.
        reason: &'static str,
    },
    /// A chain was signed with a key that is not in the keys folder.
    #[error("the chain of zone `{zone}` is signed with key {fingerprint}, which is not in the keys folder")]
    UnknownKey {
        /// The chain.
        zone: String,
        /// The key it was last signed with.
        fingerprint: String,
    },
    /// The key file is not one, or may be read by others.
    #[error("the ledger key `{}` cannot be used: {reason}", path.display())]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Records cannot be written now; they are kept and tried again.
    #[error("the ledger cannot write: {0}")]
    Failed(String),
    /// A further decision of a request found no slot.
    #[error(transparent)]
    Full(#[from] LedgerFull),
    /// The ledger was closed.
    #[error("the ledger is closed")]
    Closed,
}

/// The one writer of a ledger folder.
#[derive(Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
    dir: PathBuf,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Ledger {
    /// Opens a ledger folder, or starts one: repairs a torn last line, chains a `gap` record where the previous
    /// run ended uncleanly, introduces a new key.
    ///
    /// Cost: reads the end of each chain, writes and syncs one record; blocking.
    ///
    /// # Errors
    /// The folder cannot be used, another process has it, a chain's end is damaged, or its key is gone.
    pub fn open(
        dir: &Path,
        options: LedgerOptions,
        key: LedgerKey,
        clock: Clock,
    ) -> Result<Self, LedgerError> {
        let shared = Arc::new(Shared::new(&options, clock));
        let writer = Writer::open(dir, options, key, Arc::clone(&shared))?;
        let guarded = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || {
                // Should the writer panic, nobody may go on believing in a ledger.
                let _shut = ShutOnDrop(guarded);
                // The folder's lock goes with the writer, before anybody is told that the ledger is closed.
                if let Some(reply) = writer.run() {
                    reply.send(Ok(())).ok();
                }
            })
            .map_err(|source| LedgerError::Io {
                action: "start the writer of",
                path: dir.to_owned(),
                source,
            })?;
        Ok(Self { shared, dir: dir.to_owned(), thread: Mutex::new(Some(thread)) })
    }

    /// Reserves the slots of both records of one request.
    ///
    /// `zone` is where the request was routed; an event that names no zone of its own goes there.
    /// Cost: two atomic operations and one short string.
    ///
    /// # Errors
    /// No slots are left, the ledger cannot write, or it is closed. The request must be refused.
    pub fn admit(&self, zone: &str) -> Result<Admission, LedgerFull> {
        self.shared.reserve(2)?;
        Ok(Admission::new(Arc::clone(&self.shared), zone))
    }

    /// Counts a request that was refused before its caller was known.
    ///
    /// Cost: one short lock that no admitted request ever takes. Never blocks on the writer, never fails.
    pub fn refuse_early(&self, early: EarlyRefusal) {
        self.shared.refuse_early(early);
    }

    /// Queues one record that belongs to no admitted request: a state change, an operator's act, a decision of
    /// the token endpoint. [`Ledger::flush`] makes it durable.
    ///
    /// # Errors
    /// As [`Ledger::admit`]; the act must be refused.
    pub fn event(&self, event: Event) -> Result<(), LedgerFull> {
        self.shared.reserve(1)?;
        if self.shared.push(event, None) { Ok(()) } else { Err(LedgerFull::Closed) }
    }

    /// The last durable record of every chain: zone, sequence number, hash.
    #[must_use]
    pub fn heads(&self) -> Vec<(String, u64, String)> {
        self.shared.heads().into_iter().map(|(zone, head)| (zone, head.seq, head.hash)).collect()
    }

    /// The last durable record of one chain: sequence number and hash.
    #[must_use]
    pub fn head(&self, zone: &str) -> Option<(u64, String)> {
        self.shared.heads().remove(zone).map(|head| (head.seq, head.hash))
    }

    /// Whether the chain of `zone` holds exactly this record: how a remembered head is compared after a start.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn contains(&self, zone: &str, seq: u64, hash: &str) -> Result<bool, LedgerError> {
        Ok(read::record_at(&self.dir, zone, seq)?.is_some_and(|record| record.hash == hash))
    }

    /// Where, behind number `seq` of the system chain, an earlier process began that came to sign a checkpoint.
    ///
    /// A process stores its heads elsewhere before it serves, so a store that is current knows of each such run. One
    /// that died before it signed anything may not have come so far.
    ///
    /// # Errors
    /// A segment cannot be read or holds a line that is no record.
    pub fn earlier_run_after(&self, seq: u64) -> Result<Option<u64>, LedgerError> {
        let mut began = None;
        for record in read::records(&self.dir, SYSTEM)? {
            let record = record?;
            if record.seq <= seq {
                continue;
            }
            match record.event_type.as_str() {
                record::OPENED => began = Some(record.seq),
                record::CHECKPOINT if began.is_some() => return Ok(began),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Changes each time a checkpoint has become durable, so that [`Ledger::heads`] can be stored elsewhere.
    #[must_use]
    pub fn checkpoints(&self) -> watch::Receiver<u64> {
        self.shared.checkpoints()
    }

    /// False while records cannot be written.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.shared.healthy()
    }

    /// Everything a metric or a status page needs.
    #[must_use]
    pub fn status(&self) -> LedgerStatus {
        self.shared.status()
    }

    /// Where it is kept, for [`read`] and [`verify`].
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes and syncs everything queued so far, counted refusals included.
    ///
    /// # Errors
    /// It could not be written (and is kept), or the ledger is closed.
    pub async fn flush(&self) -> Result<(), LedgerError> {
        self.order(Order::Flush).await
    }

    /// Writes everything, signs a closing checkpoint on each chain, syncs and stops.
    ///
    /// Call it after the last request has ended: a record that comes later is lost, and the closing checkpoint
    /// of the system chain says how many were still outstanding.
    ///
    /// # Errors
    /// Something could not be written; the ledger stays open and may be closed again.
    pub async fn close(&self) -> Result<(), LedgerError> {
        self.order(Order::Close).await
    }

    async fn order(
        &self,
        order: fn(oneshot::Sender<Result<(), LedgerError>>) -> Order,
    ) -> Result<(), LedgerError> {
        let (reply, answer) = oneshot::channel();
        if !self.shared.order(order(reply)) {
            return Err(LedgerError::Closed);
        }
        answer.await.unwrap_or(Err(LedgerError::Closed))
    }
}

impl Drop for Ledger {
    /// Without [`Ledger::close`] this is an unclean stop: what is queued is written, no checkpoint is made.
    fn drop(&mut self) {
        self.shared.order(Order::Abandon);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the ledger's writer panicked");
        }
    }
}

#[derive(Debug)]
struct ShutOnDrop(Arc<Shared>);

impl Drop for ShutOnDrop {
    fn drop(&mut self) {
        self.0.shut();
    }
}

#[cfg(test)]
mod tests;
