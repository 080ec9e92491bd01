//! One zone's chain: its head, its open segment, and how both move together or not at all.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::draft::{Draft, Ended};
use super::key::LedgerKey;
use super::record::{GAP, RECOVERED};
use super::recovery::{self, Found};
use super::segment::{self, failed};
use super::shared::{Head, Item};
use super::syncer::SyncJob;
use super::{LedgerError, LedgerOptions};

/// Bytes handed to the kernel at a time: large enough to be few calls, small enough to keep in cache.
const CHUNK: usize = 256 * 1024;

/// What a machine crash may take in buffered mode beyond the process crash's share: everything since the last fsync.
const MACHINE_CRASH_MS: u64 = 1_000;
const PROCESS_CRASH_MS: u64 = 50;

/// The writing end of one chain.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) zone: Arc<str>,
    folder: PathBuf,
    key: Arc<LedgerKey>,
    segment_bytes: u64,
    checkpoint_every: u32,
    number: u32,
    file: Arc<File>,
    /// Bytes of the open segment that hold whole, counted records. What may lie behind is a failed write's rest.
    len: u64,
    /// Full segments whose fsync is still to come.
    retired: Vec<Arc<File>>,
    head: Head,
    since_checkpoint: u32,
    ended: Ended,
    /// The last record known to be on disk.
    synced: u64,
    /// A write failed part way: its rest must be cut off before the next.
    has_rest: bool,
    /// An fsync failed: the kernel may have dropped what it could not write, and a later success does not tell.
    is_doubtful: bool,
}

impl Chain {
    /// Opens a zone's chain, or prepares one that starts with its first record. Moves a torn last line aside.
    pub(super) fn open(
        dir: &Path,
        zone: &str,
        options: &LedgerOptions,
        key: Arc<LedgerKey>,
    ) -> Result<(Self, Found), LedgerError> {
        let folder = segment::folder(dir, zone);
        let created = !folder.exists();
        segment::make_folder(&folder)
            .map_err(|source| failed("create the chain's folder", &folder, source))?;
        if created {
            segment::sync_folder(dir)?;
        }
        let segments = segment::list(&folder)?;
        let number = segments.last().map_or(1, |last| last.number);
        let found = recovery::inspect(&segments)?;
        let file = segment::open(&folder, number)?;
        let len = file.metadata().map_err(|source| failed("read", &folder, source))?.len();
        let chain = Self {
            zone: zone.into(),
            folder,
            key,
            segment_bytes: options.segment_bytes,
            checkpoint_every: options.checkpoint_every.max(1),
            number,
            file: Arc::new(file),
            len,
            retired: Vec::new(),
            synced: found.head.seq,
            head: found.head.clone(),
            since_checkpoint: u32::from(found.ended == Ended::Open),
            ended: found.ended,
            has_rest: false,
            is_doubtful: false,
        };
        Ok((chain, found))
    }

    /// Chains what has to be said about the previous run: a torn line, a new key, records that may be missing.
    pub(super) fn resume(&mut self, found: &Found, unclean: bool, now: i64) -> Result<(), LedgerError> {
        let mut draft = if found.torn.is_some() { self.draft_with_key(now) } else { self.draft() };
        if let Some(torn) = &found.torn {
            let about = json!({ "segment": torn.segment, "moved_to": torn.aside, "bytes": torn.bytes });
            draft.note(RECOVERED, about, now);
        }
        let current = self.key.fingerprint().to_string();
        if let Some(signer) = found.signer.as_deref().filter(|signer| *signer != current)
            && !draft.introduce(signer, now)
        {
            return Err(LedgerError::UnknownKey {
                zone: self.zone.to_string(),
                fingerprint: signer.to_owned(),
            });
        }
        if unclean && found.ended != Ended::Empty {
            let about = json!({
                "reason": "unclean_stop",
                "after_seq": self.head.seq,
                "process_crash_up_to_ms": PROCESS_CRASH_MS,
                "machine_crash_up_to_ms": MACHINE_CRASH_MS,
                "strict_decisions": "complete"
            });
            draft.note(GAP, about, now);
        }
        self.commit(draft)
    }

    /// Writes one record of the ledger itself.
    pub(super) fn note(
        &mut self,
        event_type: &'static str,
        about: Value,
        now: i64,
    ) -> Result<(), LedgerError> {
        let mut draft = self.draft_with_key(now);
        draft.note(event_type, about, now);
        self.commit(draft)
    }

    /// Writes what waits, in order; what was written moves to `written` even if a later write fails.
    pub(super) fn write(
        &mut self,
        waiting: &mut VecDeque<Item>,
        written: &mut Vec<Item>,
        now: i64,
    ) -> Result<(), LedgerError> {
        self.mend(now)?;
        while !waiting.is_empty() {
            let mut draft = self.draft_with_key(now);
            let mut count = 0_usize;
            for item in &*waiting {
                if draft.bytes.len() >= CHUNK || (count > 0 && self.is_full(draft.bytes.len())) {
                    break;
                }
                draft.put(&item.event);
                count = count.saturating_add(1);
                if draft.since_checkpoint >= self.checkpoint_every {
                    draft.checkpoint(false, 0, now);
                }
            }
            self.commit(draft)?;
            written.extend(waiting.drain(..count));
        }
        Ok(())
    }

    /// Signs the chain as it is, if it has grown since the last time.
    pub(super) fn checkpoint(&mut self, now: i64) -> Result<(), LedgerError> {
        if self.since_checkpoint == 0 {
            return Ok(());
        }
        let mut draft = self.draft();
        draft.checkpoint(false, 0, now);
        self.commit(draft)
    }

    /// Signs the chain as finished. `outstanding` records were reserved and never came.
    pub(super) fn close(&mut self, outstanding: usize, now: i64) -> Result<(), LedgerError> {
        if self.ended != Ended::Open {
            return Ok(());
        }
        let mut draft = self.draft();
        draft.checkpoint(true, outstanding, now);
        self.commit(draft)
    }

    /// What an fsync of everything written so far has to do.
    pub(super) fn sync_job(&mut self) -> SyncJob {
        let mut files = std::mem::take(&mut self.retired);
        files.push(Arc::clone(&self.file));
        SyncJob { zone: Arc::clone(&self.zone), files, head: self.head.clone() }
    }

    /// Takes note of an fsync's end; answers whether the durable head moved.
    pub(super) fn synced(&mut self, job: &SyncJob, result: &io::Result<()>) -> bool {
        if result.is_err() {
            self.is_doubtful = true;
            let old = job.files.iter().filter(|file| !Arc::ptr_eq(file, &self.file)).cloned();
            self.retired.extend(old);
            return false;
        }
        let moved = job.head.seq > self.synced;
        self.synced = self.synced.max(job.head.seq);
        moved
    }

    pub(super) const fn is_synced(&self) -> bool {
        self.synced >= self.head.seq
    }

    pub(super) const fn head(&self) -> &Head {
        &self.head
    }

    pub(super) fn segment_path(&self) -> PathBuf {
        segment::path(&self.folder, self.number)
    }

    /// Makes a chain writable again after a failure.
    fn mend(&mut self, now: i64) -> Result<(), LedgerError> {
        if self.has_rest || self.is_doubtful {
            self.reopen()?;
        }
        if self.is_doubtful {
            let (from, to) = (self.synced.saturating_add(1), self.head.seq);
            let about = json!({ "reason": "sync_failed", "from_seq": from, "to_seq": to });
            let mut draft = self.draft();
            draft.note(GAP, about, now);
            self.commit(draft)?;
            let job = self.sync_job();
            let result = job.run();
            self.synced(&job, &result);
            result.map_err(|source| failed("sync", &self.segment_path(), source))?;
            self.is_doubtful = false;
        }
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), LedgerError> {
        let path = self.segment_path();
        let file = segment::open(&self.folder, self.number)?;
        let len = file.metadata().map_err(|source| failed("read", &path, source))?.len();
        if len < self.len {
            return Err(LedgerError::Damaged { path, reason: "it is shorter than what was written to it" });
        }
        file.set_len(self.len).map_err(|source| failed("cut a failed write off", &path, source))?;
        self.file = Arc::new(file);
        self.has_rest = false;
        Ok(())
    }

    fn is_full(&self, more: usize) -> bool {
        self.len.saturating_add(u64::try_from(more).unwrap_or(u64::MAX)) >= self.segment_bytes
    }

    fn draft(&self) -> Draft {
        Draft {
            zone: Arc::clone(&self.zone),
            key: Arc::clone(&self.key),
            bytes: Vec::new(),
            head: self.head.clone(),
            since_checkpoint: self.since_checkpoint,
            ended: self.ended,
        }
    }

    /// A chain's first record names the key that signs it.
    fn draft_with_key(&self, now: i64) -> Draft {
        let mut draft = self.draft();
        if self.ended == Ended::Empty {
            draft.begin(now);
        }
        draft
    }

    fn commit(&mut self, draft: Draft) -> Result<(), LedgerError> {
        if draft.bytes.is_empty() {
            return Ok(());
        }
        if self.is_full(0) && self.len > 0 {
            self.rotate()?;
        }
        if let Err(source) = (&*self.file).write_all(&draft.bytes) {
            self.has_rest = true;
            return Err(failed("write", &self.segment_path(), source));
        }
        self.len = self.len.saturating_add(u64::try_from(draft.bytes.len()).unwrap_or(u64::MAX));
        self.head = draft.head;
        self.since_checkpoint = draft.since_checkpoint;
        self.ended = draft.ended;
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), LedgerError> {
        let next = self.number.saturating_add(1);
        let file = Arc::new(segment::open(&self.folder, next)?);
        self.retired.push(std::mem::replace(&mut self.file, file));
        self.number = next;
        self.len = 0;
        Ok(())
    }
}
