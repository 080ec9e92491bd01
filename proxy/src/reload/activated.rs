//! The version of each zone that was activated last, kept in the state folder.
//!
//! Shape: `activated/<zone>/<digest>/` holds the files as they were read, `activated/<zone>/current` names the
//! digest. A version is written beside and renamed into place, then the pointer is: whatever moment the machine
//! stops at, the pointer names a whole version. What is read back must have the digest it is named after.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use caracal_policies::{BundleSource, SourceFile};

use super::candidate::{self, Read};
use super::make_folder;

const FOLDER: &str = "activated";
const POINTER: &str = "current";
/// Name of a version's file that holds the bundle's name in reports; no document may be called so.
const ROOT: &str = ".root";

/// Keeps `read` as the version of its zone that was activated last. Older versions but the one before are removed.
pub(super) fn keep(state_dir: &Path, read: &Read) -> std::io::Result<()> {
    let zone = state_dir.join(FOLDER).join(&read.zone);
    make_folder(&zone)?;
    let name = hex::encode(read.digest);
    let before = std::fs::read_to_string(zone.join(POINTER)).unwrap_or_default();
    if !zone.join(&name).is_dir() {
        let fresh = zone.join(".fresh");
        if fresh.exists() {
            std::fs::remove_dir_all(&fresh)?;
        }
        make_folder(&fresh)?;
        write(&fresh.join(ROOT), &read.source.root)?;
        for file in &read.source.files {
            let path = inside(&fresh, &file.path)?;
            if let Some(folder) = path.parent() {
                make_folder(folder)?;
            }
            write(&path, &file.text)?;
        }
        std::fs::rename(&fresh, zone.join(&name))?;
    }
    let pointer = zone.join(".current");
    if pointer.exists() {
        std::fs::remove_file(&pointer)?;
    }
    write(&pointer, &name)?;
    std::fs::rename(&pointer, zone.join(POINTER))?;
    std::fs::File::open(&zone)?.sync_all()?;
    prune(&zone, &[name.as_str(), before.as_str()])
}

/// The version of `zone` that was activated last, if there is one and it is whole.
pub(super) fn last(state_dir: &Path, zone: &str) -> Option<Read> {
    let folder = state_dir.join(FOLDER).join(zone);
    let name = std::fs::read_to_string(folder.join(POINTER)).ok()?;
    if name.len() != 64 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let version = folder.join(&name);
    let root = std::fs::read_to_string(version.join(ROOT)).ok()?;
    let mut files = Vec::new();
    collect(&version, &version, &mut files)?;
    let read = candidate::of(zone, BundleSource { root, files });
    (hex::encode(read.digest) == name).then_some(read)
}

fn collect(version: &Path, folder: &Path, files: &mut Vec<SourceFile>) -> Option<()> {
    for entry in std::fs::read_dir(folder).ok()? {
        let entry = entry.ok()?;
        let path = entry.path();
        if entry.file_type().ok()?.is_dir() {
            collect(version, &path, files)?;
        } else if entry.file_name() != ROOT {
            let name = path.strip_prefix(version).ok()?.to_str()?.to_owned();
            files.push(SourceFile { path: name, text: std::fs::read_to_string(&path).ok()? });
        }
    }
    Some(())
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// `name` below `folder`. The reader makes only names that stay below; this keeps it so.
fn inside(folder: &Path, name: &str) -> std::io::Result<PathBuf> {
    let name = Path::new(name);
    if name.components().all(|part| matches!(part, Component::Normal(_))) {
        Ok(folder.join(name))
    } else {
        Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "a document lies outside its bundle"))
    }
}

fn prune(zone: &Path, kept: &[&str]) -> std::io::Result<()> {
    for entry in std::fs::read_dir(zone)? {
        let entry = entry?;
        if !kept.iter().any(|name| entry.file_name() == *name) && entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
