//! The fsync thread: a slow disk delays durability, never the hand-over of records to the kernel.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, mpsc};
use std::thread;

use super::LedgerError;
use super::shared::{Head, Shared};

/// One fsync of one chain.
#[derive(Debug)]
pub(super) struct SyncJob {
    pub(super) zone: Arc<str>,
    /// Oldest first; the last one is the open segment.
    pub(super) files: Vec<Arc<File>>,
    /// The chain's head that is durable once this is done.
    pub(super) head: Head,
}

/// How it went.
#[derive(Debug)]
pub(super) struct SyncDone {
    pub(super) job: SyncJob,
    pub(super) result: io::Result<()>,
}

impl SyncJob {
    /// Syncs the files here and now.
    pub(super) fn run(&self) -> io::Result<()> {
        for file in &self.files {
            file.sync_data()?;
            // Writing to a file that somebody removed succeeds for ever and keeps nothing.
            if file.metadata()?.nlink() == 0 {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the segment was removed"));
            }
        }
        Ok(())
    }
}

/// Starts the thread; it ends with the sender.
pub(super) fn start(shared: Arc<Shared>) -> Result<mpsc::Sender<SyncJob>, LedgerError> {
    let (sender, jobs) = mpsc::channel::<SyncJob>();
    let work = move || {
        for job in jobs {
            let result = job.run();
            shared.finish(SyncDone { job, result });
        }
    };
    thread::Builder::new().name("ledger-sync".into()).spawn(work).map_err(|source| LedgerError::Io {
        action: "start the sync thread of",
        path: "ledger".into(),
        source,
    })?;
    Ok(sender)
}
