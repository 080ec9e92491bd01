//! The state folder: closed to others, held by one process, and the file a clean stop leaves behind.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{BufReader, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::error::StateError;
use super::marks::SavedMarks;
use super::model::AuthorityRecord;

const SCHEMA: u32 = 1;

/// The folder, locked for as long as this value lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

/// What a clean stop saves. Good only together with the nonce it committed to the store, and only once.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CleanStop {
    schema: u32,
    pub(super) nonce: String,
    pub(super) epochs: Vec<SavedEpoch>,
    pub(super) marks: Vec<SavedMarks>,
    pub(super) records: Vec<Arc<AuthorityRecord>>,
}

/// An epoch whose marks the file holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedEpoch {
    pub(super) epoch: String,
    /// Unix milliseconds from which no mandate of the epoch is left.
    pub(super) until: i64,
}

impl CleanStop {
    pub(super) fn new(
        nonce: String,
        epochs: Vec<SavedEpoch>,
        marks: Vec<SavedMarks>,
        records: Vec<Arc<AuthorityRecord>>,
    ) -> Self {
        Self { schema: SCHEMA, nonce, epochs, marks, records }
    }
}

impl Folder {
    /// Creates the folder if it is missing, refuses one that lets others in, and takes the lock.
    pub(super) fn open(path: &Path) -> Result<Self, StateError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|source| StateError::io("create the state folder", path, source))?;
        owner_only(path)?;
        let lock_path = path.join("state.lock");
        let lock = private().read(true).write(true).create(true).truncate(false).open(&lock_path);
        let lock = lock.map_err(|source| StateError::io("open the lock", &lock_path, source))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(Errno::WOULDBLOCK) => Err(StateError::Locked(path.to_owned())),
            Err(other) => Err(StateError::io("lock", lock_path, other.into())),
        }
    }

    /// The store's file, made before SQLite would make it with wider rights.
    pub(super) fn store(&self) -> Result<PathBuf, StateError> {
        let path = self.path.join("state.db");
        private()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|source| StateError::io("create the store", &path, source))?;
        Ok(path)
    }

    /// What the last clean stop left; none when there is nothing or it cannot be read, which means less is
    /// accepted, never more.
    pub(super) fn clean_stop(&self) -> Option<CleanStop> {
        let file = File::open(self.clean_stop_path()).ok()?;
        let saved: Result<CleanStop, _> = serde_json::from_reader(BufReader::new(file));
        let saved = saved.ok().filter(|saved| saved.schema == SCHEMA);
        if saved.is_none() {
            tracing::warn!("the clean-stop file cannot be read: single-use mandates from before are refused");
        }
        saved
    }

    /// Writes the file whole or not at all.
    pub(super) fn save_clean_stop(&self, saved: &CleanStop) -> Result<(), StateError> {
        let path = self.clean_stop_path();
        let draft = self.path.join("clean-stop.json.new");
        let write = || -> std::io::Result<()> {
            let file = private().write(true).create(true).truncate(true).open(&draft)?;
            let mut out = BufWriter::new(file);
            serde_json::to_writer(&mut out, saved)?;
            out.flush()?;
            out.get_ref().sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|source| StateError::io("write the clean-stop file", &path, source))
    }

    /// Removes the file durably; fine when there is none.
    pub(super) fn forget_clean_stop(&self) -> Result<(), StateError> {
        let path = self.clean_stop_path();
        let remove = || match fs::remove_file(&path) {
            Ok(()) => File::open(&self.path)?.sync_all(),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        remove().map_err(|source| StateError::io("remove the clean-stop file", &path, source))
    }

    fn clean_stop_path(&self) -> PathBuf {
        self.path.join("clean-stop.json")
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn owner_only(path: &Path) -> Result<(), StateError> {
    let found = fs::metadata(path).map_err(|source| StateError::io("look at", path, source))?;
    let ours = found.uid() == rustix::process::geteuid().as_raw();
    if found.is_dir() && ours && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    let found = format!("uid {} mode {:04o}", found.uid(), found.mode() & 0o7777);
    Err(StateError::Folder { path: path.to_owned(), found })
}
