//! Every version of a zone's bundle that was in force, kept in the state folder.
//!
//! Shape: `activated/<zone>/<version>/` holds the files as they were read, and is never changed; a version is named
//! after the digest of its files. `activated/<zone>/journal.json` says which were in force, since when and by whom.
//! A version is written beside and renamed into place, then the journal is: whatever moment the machine stops at,
//! the journal names whole versions. What is read back must have the digest it is named after.

mod journal;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use caracal_policies::{BundleSource, SourceFile};

use super::candidate::{self, Read};
use super::make_folder;
use crate::bundles::signature::Signed;

pub use journal::Unfound;
pub(crate) use journal::{Activation, By, Journal};

const FOLDER: &str = "activated";
const JOURNAL: &str = "journal.json";
/// Name of a version's file that holds the bundle's name in reports; no document may be called so.
const ROOT: &str = ".root";

/// The kept versions of one zone.
#[derive(Debug)]
pub(crate) struct Versions {
    folder: PathBuf,
    zone: String,
}

/// How files name the version they are: 64 hexadecimal digits.
pub(crate) fn name_of(files: &[u8; 32]) -> String {
    hex::encode(files)
}

impl Versions {
    /// The versions of `zone`, of which there may be none.
    pub(crate) fn of(state_dir: &Path, zone: &str) -> Self {
        Self { folder: state_dir.join(FOLDER).join(zone), zone: zone.to_owned() }
    }

    /// Which versions were in force; empty before the first was.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(crate) fn journal(&self) -> io::Result<Journal> {
        match fs::read(self.folder.join(JOURNAL)) {
            Ok(bytes) => Journal::parse(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Journal::default()),
            Err(error) => Err(error),
        }
    }

    /// A kept version; nothing unless it is whole and says what it said when it was kept.
    pub(crate) fn load(&self, version: &str) -> Option<Read> {
        if version.len() != 64 || !version.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let folder = self.folder.join(version);
        let root = fs::read_to_string(folder.join(ROOT)).ok()?;
        let mut files = Vec::new();
        collect(&folder, &folder, &mut files)?;
        let read = candidate::of(&self.zone, BundleSource { root, files });
        (name_of(&read.digest) == version).then_some(read)
    }

    /// Writes down that `read` is in force, and keeps it with the `most` versions that were in force last.
    pub(super) fn activate(&self, read: &Read, entry: Entry<'_>, most: usize) -> io::Result<()> {
        let version = name_of(&read.digest);
        let mut journal = self.journal().unwrap_or_else(|error| {
            tracing::error!(zone = self.zone, %error, "the journal of versions cannot be read and begins anew");
            Journal::default()
        });
        let whole = self.load(&version).is_some();
        if whole && journal.is_in_force(&version, &entry) {
            return Ok(());
        }
        make_folder(&self.folder)?;
        if !whole {
            self.store(&version, read)?;
        }
        journal.add(version, &entry);
        let kept = journal.keep(most);
        self.write_journal(&journal)?;
        self.prune(&kept)
    }

    fn store(&self, version: &str, read: &Read) -> io::Result<()> {
        let fresh = self.folder.join(".fresh");
        let place = self.folder.join(version);
        // What is there under this name did not have its digest.
        for gone in [&fresh, &place] {
            if gone.exists() {
                fs::remove_dir_all(gone)?;
            }
        }
        make_folder(&fresh)?;
        write(&fresh.join(ROOT), read.source.root.as_bytes())?;
        let mut folders = BTreeSet::from([fresh.clone()]);
        for file in &read.source.files {
            let path = inside(&fresh, &file.path)?;
            let above = path.ancestors().skip(1).take_while(|above| above.starts_with(&fresh));
            folders.extend(above.map(Path::to_path_buf));
            if let Some(folder) = path.parent() {
                make_folder(folder)?;
            }
            write(&path, file.text.as_bytes())?;
        }
        folders.iter().try_for_each(|folder| File::open(folder)?.sync_all())?;
        fs::rename(&fresh, &place)?;
        File::open(&self.folder)?.sync_all()
    }

    fn write_journal(&self, journal: &Journal) -> io::Result<()> {
        let draft = self.folder.join(".journal");
        if draft.exists() {
            fs::remove_file(&draft)?;
        }
        write(&draft, &journal.to_bytes()?)?;
        fs::rename(&draft, self.folder.join(JOURNAL))?;
        File::open(&self.folder)?.sync_all()
    }

    fn prune(&self, kept: &BTreeSet<String>) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let named = entry.file_name().to_str().is_some_and(|name| kept.contains(name));
            if !named && entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

/// What the journal says of an activation beside the version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    /// Digest of the zone that came into force.
    pub(super) digest: &'a caracal_policies::Digest,
    /// When, in Unix milliseconds.
    pub(super) at: i64,
    /// Who had it come into force.
    pub(super) by: By,
    /// What its signature proves, where one was checked.
    pub(super) signed: Option<&'a Signed>,
}

fn collect(version: &Path, folder: &Path, files: &mut Vec<SourceFile>) -> Option<()> {
    for entry in fs::read_dir(folder).ok()? {
        let entry = entry.ok()?;
        let path = entry.path();
        if entry.file_type().ok()?.is_dir() {
            collect(version, &path, files)?;
        } else if entry.file_name() != ROOT {
            let name = path.strip_prefix(version).ok()?.to_str()?.to_owned();
            files.push(SourceFile { path: name, text: fs::read_to_string(&path).ok()? });
        }
    }
    Some(())
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// `name` below `folder`. The reader makes only names that stay below; this keeps it so.
fn inside(folder: &Path, name: &str) -> io::Result<PathBuf> {
    let name = Path::new(name);
    if name.components().all(|part| matches!(part, Component::Normal(_))) {
        Ok(folder.join(name))
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "a document lies outside its bundle"))
    }
}
