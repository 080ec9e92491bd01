//! Opening an owner-only file: what is read is what was checked.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use caracal_policies::{Place, Problem};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use zeroize::Zeroizing;

use super::envelope::MOST_BYTES;

/// What is read, for limits and for the words of a report.
pub(super) struct What {
    /// How a report calls it.
    name: &'static str,
    /// Bytes it may have.
    most: u64,
    /// The same in words.
    most_words: &'static str,
    missing: &'static str,
    empty: &'static str,
    follow: OFlags,
}

/// The secrets file; a thousand entries take about a tenth of its limit.
pub(super) const TABLE: What = What {
    name: "the secrets file",
    most: MOST_BYTES,
    most_words: "at most 1 MiB",
    missing: "create it with mode 0600; `schema = 1` alone is a complete file",
    empty: "a file without secrets still says `schema = 1`; an empty one is a write that failed",
    follow: OFlags::empty(),
};

/// A file with one value, whose links have been followed already; a chain of certificates and its key fit in well.
pub(super) const VALUE: What = What {
    name: "the file of a secret",
    most: 65_536,
    most_words: "at most 64 KiB",
    missing: "the secrets file names it; mount it, or take the entry out",
    empty: "an empty one is most often a write that failed",
    follow: OFlags::NOFOLLOW,
};

impl What {
    fn refuse(
        &self,
        shown: &Path,
        code: &'static str,
        message: &str,
        found: String,
        expected: &str,
    ) -> Problem {
        Problem {
            code,
            place: Place { file: shown.display().to_string().into(), line: 1, column: 1 },
            message: format!("{} {message}", self.name),
            found,
            expected: expected.to_owned(),
            hint: String::new(),
        }
    }

    /// The limit, in words.
    pub(super) const fn most_words(&self) -> &'static str {
        self.most_words
    }

    /// It could not be opened.
    pub(super) fn unopened(&self, shown: &Path, error: &std::io::Error) -> Box<Problem> {
        let (code, message, expected, hint) = if error.kind() == ErrorKind::NotFound {
            ("secrets_missing", "is not there", "a file", self.missing)
        } else {
            let hint = "check the path and that this user may read it";
            ("secrets_unreadable", "cannot be read", "a readable file", hint)
        };
        Box::new(hinted(self.refuse(shown, code, message, error.to_string(), expected), hint))
    }
}

fn hinted(problem: Problem, hint: &str) -> Problem {
    Problem { hint: hint.to_owned(), ..problem }
}

/// Opens `path`, checks the opened file, and reads it into a buffer that is wiped; reports call it `shown`.
///
/// Shape: regular, owned by root or by us, no bit for others, not group-writable; group-readable only when
/// `mounted`, and then only for one of our groups. Kubernetes shows mode 0400 as 0440 under an `fsGroup`.
pub(super) fn read_bytes(
    what: &What,
    path: &Path,
    shown: &Path,
    mounted: bool,
) -> Result<Zeroizing<Vec<u8>>, Box<Problem>> {
    let refuse = |code, message: &str, found: String, expected: &str, hint: &str| {
        Box::new(hinted(what.refuse(shown, code, message, found, expected), hint))
    };
    // Without O_NONBLOCK a named pipe in place of the file would hold up the reload for ever.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | what.follow;
    let unopened = |error: rustix::io::Errno| what.unopened(shown, &error.into());
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(unopened)?;
    let stat = rustix::fs::fstat(&opened).map_err(unopened)?;
    if let Some((code, message, found, expected, hint)) = wrong(&stat, mounted) {
        return Err(refuse(code, message, found, expected, hint));
    }
    if let Some(folder) = open_folder(shown) {
        let message = "is in a folder in which everybody may replace files";
        let expected = "a folder that only its owner may write to";
        let found = folder.display().to_string();
        return Err(refuse("secrets_folder_open", message, found, expected, "chmod o-w the folder"));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if size > what.most {
        let found = format!("{size} bytes");
        return Err(refuse("secrets_too_large", "is too large", found, what.most_words, "split it"));
    }
    let bytes = read_all(File::from(opened), size).map_err(|error| what.unopened(shown, &error))?;
    if bytes.is_empty() {
        return Err(refuse("secrets_empty", "is empty", "0 bytes".to_owned(), "content", what.empty));
    }
    Ok(bytes)
}

/// What was read, as text; reports call its file `shown`.
pub(super) fn text(
    what: &What,
    shown: &Path,
    bytes: &Zeroizing<Vec<u8>>,
) -> Result<Zeroizing<String>, Box<Problem>> {
    let text = std::str::from_utf8(bytes).map_err(|_bad| {
        let problem = what.refuse(shown, "secrets_encoding", "is not UTF-8", String::new(), "UTF-8 text");
        Box::new(hinted(problem, "save it as UTF-8"))
    })?;
    Ok(Zeroizing::new(text.to_owned()))
}

type Wrong = (&'static str, &'static str, String, &'static str, &'static str);

/// What is wrong with the kind, owner or mode of the opened file.
fn wrong(stat: &Stat, mounted: bool) -> Option<Wrong> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::RegularFile {
        let expected = "a regular file";
        let hint = "name the file itself, not its folder";
        return Some(("secrets_kind", "is no regular file", format!("{kind:?}"), expected, hint));
    }
    let us = rustix::process::geteuid();
    if stat.st_uid != 0 && stat.st_uid != us.as_raw() {
        let found = format!("owned by uid {}", stat.st_uid);
        let expected = "a file owned by root or by the user this process runs as";
        return Some(("secrets_owner", "belongs to somebody else", found, expected, "chown it"));
    }
    let mode = stat.st_mode & 0o7777;
    let found = format!("mode {mode:04o}");
    if mode & 0o007 != 0 {
        let message = "may be used by everybody on this host";
        return Some(("secrets_mode", message, found, "mode 0600", "chmod 600"));
    }
    if mode & 0o030 != 0 {
        return Some(("secrets_mode", "may be written by a group", found, "mode 0600", "chmod 600"));
    }
    if mode & 0o040 != 0 {
        if !mounted {
            let expected = "mode 0600, or `mounted = true` for files an orchestrator mounts";
            return Some(("secrets_mode", "may be read by a group", found, expected, "chmod 600"));
        }
        if !in_group(stat.st_gid) {
            let found = format!("{found}, group {}", stat.st_gid);
            let expected = "one of the groups this process is in";
            let message = "may be read by a foreign group";
            return Some(("secrets_group", message, found, expected, "set `fsGroup` to a group of the pod"));
        }
    }
    None
}

fn in_group(gid: u32) -> bool {
    rustix::process::getegid().as_raw() == gid
        || rustix::process::getgroups().is_ok_and(|groups| groups.iter().any(|group| group.as_raw() == gid))
}

/// The folder of the path, or of the file it leads to, when everybody may replace files in it. A sticky folder
/// is fine: that is how Kubernetes mounts secrets, and there only owners replace files.
fn open_folder(path: &Path) -> Option<PathBuf> {
    let real = std::fs::canonicalize(path).ok();
    [Some(path), real.as_deref()].into_iter().flatten().filter_map(Path::parent).find_map(|folder| {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let stat = rustix::fs::stat(folder).ok()?;
        (stat.st_mode & 0o1002 == 0o0002).then(|| folder.to_path_buf())
    })
}

/// Reads at most one byte more than the cap into a buffer that never moves, so that no copy is left behind.
fn read_all(file: impl Read + AsFd, size: u64) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let room = usize::try_from(size.saturating_add(1)).unwrap_or(0);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(size).read_to_end(&mut bytes)?;
    Ok(bytes)
}
