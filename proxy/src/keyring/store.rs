//! The folder of key files: private, each file replaced as a whole.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::KeyringError;
use super::record::{Record, Unreadable};
use super::ring::Ring;
use crate::sealing::{FileProblem, Readers, SealingKey, open_private};

#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    sealing: SealingKey,
}

/// A file holds a few keys of a few hundred bytes each.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

impl Folder {
    /// Makes the folder, mode 0700, when it is missing.
    pub(super) fn open(dir: &Path, sealing: SealingKey) -> Result<Self, KeyringError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| failed("make the folder", dir, source))?;
        let found = std::fs::metadata(dir).map_err(|source| failed("read the folder", dir, source))?;
        if found.mode() & 0o022 != 0 {
            let problem = "can be changed by other users: set mode 0700";
            return Err(KeyringError::Exposed { path: dir.to_owned(), problem });
        }
        Ok(Self { dir: dir.to_owned(), sealing })
    }

    /// Where a zone's file is. The zone comes from the configuration; a name that leaves the folder is refused
    /// all the same.
    pub(super) fn path(&self, zone: &str) -> Result<PathBuf, KeyringError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let starts = zone.starts_with(|first: char| first.is_ascii_alphanumeric());
        if !starts || zone.len() > 128 || !zone.bytes().all(allowed) {
            return Err(KeyringError::ZoneName);
        }
        Ok(self.dir.join(format!("{zone}.json")))
    }

    /// The keys in a file; `None` when there is no file.
    pub(super) fn load(&self, path: &Path, zone: &str) -> Result<Option<Ring>, KeyringError> {
        let file = match open_private(path, Readers::OwnerOnly) {
            Ok(file) => file,
            Err(FileProblem::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(FileProblem::Io(error)) => return Err(failed("read", path, error)),
            Err(FileProblem::Exposed(problem)) => {
                return Err(KeyringError::Exposed { path: path.to_owned(), problem });
            }
            Err(FileProblem::TooLong) => return Err(damaged(path, "it is too long")),
        };
        let mut text = String::new();
        let read = file.take(MAX_FILE_BYTES).read_to_string(&mut text);
        read.map_err(|source| failed("read", path, source))?;
        let record: Record =
            serde_json::from_str(&text).ok().ok_or_else(|| damaged(path, "it is not a key file"))?;
        let ring = record.ring(zone, &self.sealing).map_err(|unreadable| match unreadable {
            Unreadable::OtherSealingKey => KeyringError::OtherSealingKey { path: path.to_owned() },
            Unreadable::Damaged(problem) => damaged(path, problem),
        })?;
        Ok(Some(ring))
    }

    /// Replaces a zone's file; durable when it returns.
    pub(super) fn save(&self, path: &Path, zone: &str, ring: &Ring) -> Result<(), KeyringError> {
        let record = Record::of(ring, zone, &self.sealing).ok_or(KeyringError::Seal)?;
        let text = serde_json::to_string_pretty(&record).ok().ok_or(KeyringError::Seal)?;
        let draft = self.dir.join(format!(".{zone}.json.draft"));
        self.replace(path, &draft, text.as_bytes()).map_err(|source| failed("write", path, source))
    }

    fn replace(&self, path: &Path, draft: &Path, content: &[u8]) -> io::Result<()> {
        // A draft of a crashed process; the folder is locked by ours.
        match std::fs::remove_file(draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(draft, path)?;
        File::open(&self.dir)?.sync_all()
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> KeyringError {
    KeyringError::Io { action, path: path.to_owned(), source }
}

fn damaged(path: &Path, problem: &'static str) -> KeyringError {
    KeyringError::Damaged { path: path.to_owned(), problem }
}
