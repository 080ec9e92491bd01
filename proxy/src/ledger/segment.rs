//! Segments as files: their names, their order, and reading their lines from either end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::LedgerError;
use super::canonical::write_display;
use super::record::MAX_RECORD;

/// Longest line a reader accepts: what a writer writes at most, with room for a long request id.
const MAX_LINE: u64 = 4 << 20;

/// First step of reading backwards; one step finds the end of any ordinary chain.
const STEP: u64 = 64 * 1024;

const _: () = assert!(MAX_RECORD < 4 << 20, "a reader must accept what the writer writes");

/// One file of a chain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    /// From 1, without a hole.
    pub(super) number: u32,
    pub(super) path: PathBuf,
}

/// The folder of a zone's chain. Anything that is not plainly a name is percent-encoded, and so is a leading
/// `_` or `.`, which leaves [`super::SYSTEM`] to the process.
pub(super) fn folder(dir: &Path, zone: &str) -> PathBuf {
    if zone == super::SYSTEM {
        return dir.join(zone);
    }
    let mut name = Vec::with_capacity(zone.len());
    for (position, byte) in zone.bytes().enumerate() {
        let inner = position > 0 && matches!(byte, b'_' | b'.');
        if byte.is_ascii_alphanumeric() || byte == b'-' || inner {
            name.push(byte);
        } else {
            write_display(&mut name, format_args!("%{byte:02X}"));
        }
    }
    dir.join(String::from_utf8_lossy(&name).as_ref())
}

/// Every zone that has a folder, sorted.
pub(super) fn zones(dir: &Path) -> Result<Vec<String>, LedgerError> {
    let mut zones = Vec::new();
    for entry in fs::read_dir(dir).map_err(|source| failed("read the ledger folder", dir, source))? {
        let path = entry.map_err(|source| failed("read the ledger folder", dir, source))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let zone = percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned();
        // Other folders, such as `lost+found`, do not have a name that we would give.
        if path.is_dir() && folder(dir, &zone) == path {
            zones.push(zone);
        }
    }
    zones.sort_unstable();
    Ok(zones)
}

/// The segments of a folder by number; an absent folder has none.
pub(super) fn list(folder: &Path) -> Result<Vec<Segment>, LedgerError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed("read the chain's folder", folder, source)),
    };
    let mut segments = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| failed("read the chain's folder", folder, source))?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jsonl")?.parse().ok());
        if let Some(number) = number {
            segments.push(Segment { number, path });
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

pub(super) fn path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:06}.jsonl"))
}

pub(super) fn failed(action: &'static str, path: &Path, source: io::Error) -> LedgerError {
    LedgerError::Io { action, path: path.to_owned(), source }
}

/// Makes a folder of the ledger, owner-only, unless it is there.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Opens a segment for appending, owner-only; a new one is durable as a name before anything is in it.
pub(super) fn open(folder: &Path, number: u32) -> Result<File, LedgerError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = path(folder, number);
    let created = !path.exists();
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let file = file.map_err(|source| failed("open", &path, source))?;
    if created {
        sync_folder(folder)?;
    }
    Ok(file)
}

pub(super) fn sync_folder(folder: &Path) -> Result<(), LedgerError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| failed("sync the folder", folder, source))
}

/// A line as read from the start of a segment.
#[derive(Debug)]
pub(super) enum Line {
    /// Without its newline.
    Whole(Vec<u8>),
    /// The bytes after the last newline, or a line too long to be a record.
    Torn,
}

/// The lines of a segment, first to last, and how many bytes each took.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    file: BufReader<File>,
}

impl Lines {
    /// Starts at byte `from`.
    pub(super) fn open(path: &Path, from: u64) -> Result<Self, LedgerError> {
        let mut file = File::open(path).map_err(|source| failed("read", path, source))?;
        file.seek(SeekFrom::Start(from)).map_err(|source| failed("read", path, source))?;
        Ok(Self { path: path.to_owned(), file: BufReader::with_capacity(256 * 1024, file) })
    }

    pub(super) fn next(&mut self) -> Result<Option<Line>, LedgerError> {
        let mut line = Vec::new();
        let read = self.file.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        match read.map_err(|source| failed("read", &self.path, source))? {
            0 => Ok(None),
            _ if line.last() == Some(&b'\n') => {
                line.pop();
                Ok(Some(Line::Whole(line)))
            }
            _ => Ok(Some(Line::Torn)),
        }
    }
}

/// The lines of a segment, last to first. The first item is what follows the last newline, usually nothing.
#[derive(Debug)]
pub(super) struct Backward {
    path: PathBuf,
    file: File,
    /// Where in the file `held` starts.
    start: u64,
    held: Vec<u8>,
    step: u64,
    done: bool,
}

impl Backward {
    pub(super) fn open(path: &Path) -> Result<Self, LedgerError> {
        let file = File::open(path).map_err(|source| failed("read", path, source))?;
        let start = file.metadata().map_err(|source| failed("read", path, source))?.len();
        Ok(Self { path: path.to_owned(), file, start, held: Vec::new(), step: STEP, done: false })
    }

    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, LedgerError> {
        loop {
            if self.done {
                return Ok(None);
            }
            if let Some(newline) = self.held.iter().rposition(|byte| *byte == b'\n') {
                let line = self.held.split_off(newline.saturating_add(1));
                self.held.pop();
                return Ok(Some(line));
            }
            if self.start == 0 {
                self.done = true;
                return Ok(Some(std::mem::take(&mut self.held)));
            }
            self.read_more().map_err(|source| failed("read", &self.path, source))?;
        }
    }

    fn read_more(&mut self) -> io::Result<()> {
        let size = self.step.min(self.start);
        self.start = self.start.saturating_sub(size);
        // Doubling keeps a segment without a single newline from costing quadratic time.
        self.step = self.step.saturating_mul(2);
        let mut more = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        self.file.seek(SeekFrom::Start(self.start))?;
        self.file.read_exact(&mut more)?;
        more.append(&mut self.held);
        self.held = more;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backward(bytes: &[u8]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        fs::write(&path, bytes).unwrap();
        let mut lines = Backward::open(&path).unwrap();
        let mut out = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            out.push(String::from_utf8(line).unwrap());
        }
        out
    }

    #[test]
    fn lines_come_back_last_first_with_the_remainder_in_front() {
        assert_eq!(backward(b"a\nbb\nccc\n"), ["", "ccc", "bb", "a"]);
        assert_eq!(backward(b"a\ntorn"), ["torn", "a"]);
        assert_eq!(backward(b""), [""]);
        let long = format!("{}\n{}\n", "x".repeat(100_000), "y".repeat(70_000));
        assert_eq!(
            backward(long.as_bytes()).iter().map(String::len).collect::<Vec<_>>(),
            [0, 70_000, 100_000]
        );
    }

    #[test]
    fn zone_names_make_safe_folders_and_come_back() {
        let dir = tempfile::tempdir().unwrap();
        for zone in ["quickstart", "../up", "_system", "%5Fsystem", ".", "a.b_c", "z\u{e9}/x"] {
            let folder = folder(dir.path(), zone);
            assert_eq!(folder.parent(), Some(dir.path()), "{zone}");
            fs::create_dir(&folder).unwrap();
        }
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        assert_eq!(
            zones(dir.path()).unwrap(),
            ["%5Fsystem", ".", "../up", "_system", "a.b_c", "quickstart", "z\u{e9}/x"]
        );
    }
}
