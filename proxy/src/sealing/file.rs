//! Private files: read only when nobody else can read or change them, written so that they are whole or absent.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{getegid, geteuid, getgroups};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::Readers;

/// Why a private file is not read.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// It cannot be opened or read.
    #[error("cannot be read")]
    Io(#[from] io::Error),
    /// Its mode or owner lets others at it, or it is no file.
    #[error("{0}")]
    Exposed(&'static str),
    /// Longer than such a file can be.
    #[error("is too long")]
    TooLong,
}

/// Opens a file and checks, on the opened file, that it is regular, ours or root's, and closed to others.
pub(crate) fn open_private(path: &Path, readers: Readers) -> Result<File, FileProblem> {
    // Without NONBLOCK, opening a pipe would wait for its writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)?);
    check(&file.metadata()?, readers)?;
    Ok(file)
}

/// The whole content of a private file of at most `max` bytes.
pub(crate) fn read_private(
    path: &Path,
    readers: Readers,
    max: u64,
) -> Result<Zeroizing<Vec<u8>>, FileProblem> {
    let file = open_private(path, readers)?;
    // Room for everything at once: a buffer that grows leaves copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(max).unwrap_or(0).saturating_add(2)));
    file.take(max.saturating_add(1)).read_to_end(&mut content)?;
    if u64::try_from(content.len()).is_ok_and(|length| length > max) {
        return Err(FileProblem::TooLong);
    }
    Ok(content)
}

/// Makes a new 0600 file with this content, durable when it returns; `AlreadyExists` when there is one.
pub(super) fn create_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    // Written under another name and linked when whole, so a crash leaves no half key under the real one.
    let draft = directory.join(format!(".{}.draft", Uuid::new_v4()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let linked = file
        .write_all(content)
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::hard_link(&draft, path));
    let removed = std::fs::remove_file(&draft);
    linked?;
    removed?;
    File::open(directory)?.sync_all()
}

fn check(file: &Metadata, readers: Readers) -> Result<(), FileProblem> {
    if !file.is_file() {
        return Err(FileProblem::Exposed("is not a regular file"));
    }
    if file.uid() != 0 && file.uid() != geteuid().as_raw() {
        return Err(FileProblem::Exposed("belongs to another user"));
    }
    if file.mode() & 0o007 != 0 {
        return Err(FileProblem::Exposed("is open to everybody: set mode 0600"));
    }
    if file.mode() & 0o030 != 0 {
        return Err(FileProblem::Exposed("can be changed by its group: set mode 0600"));
    }
    let by_group = file.mode() & 0o040 != 0;
    match readers {
        Readers::OwnerOnly if by_group => {
            Err(FileProblem::Exposed("can be read by its group: set mode 0600"))
        }
        Readers::OwnGroups if by_group && !is_own_group(file.gid()) => {
            Err(FileProblem::Exposed("can be read by a group that is not ours"))
        }
        Readers::AccessList if by_group && file.uid() != 0 => {
            Err(FileProblem::Exposed("can be read by its group: set mode 0600"))
        }
        Readers::OwnerOnly | Readers::OwnGroups | Readers::AccessList => Ok(()),
    }
}

fn is_own_group(gid: u32) -> bool {
    let listed = || getgroups().is_ok_and(|groups| groups.iter().any(|group| group.as_raw() == gid));
    getegid().as_raw() == gid || listed()
}
