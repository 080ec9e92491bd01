//! Opening an owner-only file: what is read is what was checked.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use caracal_policies::{Place, Problem};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use zeroize::Zeroizing;

/// Bytes a secrets file may have; a thousand entries take about a tenth of it.
const MAX_SECRETS_BYTES: u64 = 1_048_576;

/// Opens `path`, checks the opened file, and reads it into a buffer that is wiped.
///
/// Shape: regular, owned by root or by us, no bit for others, not group-writable; group-readable only when
/// `mounted`, and then only for one of our groups. Kubernetes shows mode 0400 as 0440 under an `fsGroup`.
pub(super) fn read(path: &Path, mounted: bool) -> Result<Zeroizing<String>, Box<Problem>> {
    let refuse = |code, message: &str, found: String, expected: &str, hint: &str| {
        Box::new(Problem {
            code,
            place: Place { file: path.display().to_string().into(), line: 1, column: 1 },
            message: message.to_owned(),
            found,
            expected: expected.to_owned(),
            hint: hint.to_owned(),
        })
    };
    let unreadable = |found: String| {
        let hint = "check the path and that this user may read it";
        refuse("secrets_unreadable", "the secrets file cannot be read", found, "a readable file", hint)
    };
    let folder_open = |folder: &Path| {
        let message = "everybody may replace files in the folder of the secrets file";
        let expected = "a folder that only its owner may write to";
        let hint = "chmod o-w the folder";
        refuse("secrets_folder_open", message, folder.display().to_string(), expected, hint)
    };
    // Without O_NONBLOCK a named pipe in place of the file would hold up the reload for ever.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| {
        if error == Errno::NOENT {
            let message = "there is no secrets file";
            let hint = "create it with mode 0600; `schema = 1` alone is a complete file";
            return refuse("secrets_missing", message, path.display().to_string(), "a file", hint);
        }
        unreadable(error.to_string())
    })?;
    let stat = rustix::fs::fstat(&opened).map_err(|error| unreadable(error.to_string()))?;
    if let Some((code, message, found, expected, hint)) = wrong(&stat, mounted) {
        return Err(refuse(code, message, found, expected, hint));
    }
    if let Some(folder) = open_folder(path) {
        return Err(folder_open(&folder));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if size > MAX_SECRETS_BYTES {
        let message = "the secrets file is too large";
        return Err(refuse(
            "secrets_too_large",
            message,
            format!("{size} bytes"),
            "at most 1 MiB",
            "split it",
        ));
    }
    let bytes = read_all(File::from(opened), size).map_err(|error| unreadable(error.to_string()))?;
    if bytes.is_empty() {
        let message = "the secrets file is empty";
        let hint = "a file without secrets still says `schema = 1`; an empty one is a write that failed";
        return Err(refuse("secrets_empty", message, "0 bytes".to_owned(), "`schema = 1` and entries", hint));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_bad| {
        let message = "the secrets file is not UTF-8";
        refuse("secrets_encoding", message, String::new(), "UTF-8 text", "save it as UTF-8")
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
        return Some(("secrets_kind", "this is no regular file", format!("{kind:?}"), expected, hint));
    }
    let us = rustix::process::geteuid();
    if stat.st_uid != 0 && stat.st_uid != us.as_raw() {
        let found = format!("owned by uid {}", stat.st_uid);
        let expected = "a file owned by root or by the user this process runs as";
        return Some((
            "secrets_owner",
            "the secrets file belongs to somebody else",
            found,
            expected,
            "chown it",
        ));
    }
    let mode = stat.st_mode & 0o7777;
    let found = format!("mode {mode:04o}");
    if mode & 0o007 != 0 {
        let message = "everybody on this host may use the secrets file";
        return Some(("secrets_mode", message, found, "mode 0600", "chmod 600"));
    }
    if mode & 0o030 != 0 {
        let message = "a group may write the secrets file";
        return Some(("secrets_mode", message, found, "mode 0600", "chmod 600"));
    }
    if mode & 0o040 != 0 {
        if !mounted {
            let expected = "mode 0600, or `mounted = true` for a file an orchestrator mounts";
            return Some(("secrets_mode", "a group may read the secrets file", found, expected, "chmod 600"));
        }
        if !in_group(stat.st_gid) {
            let found = format!("{found}, group {}", stat.st_gid);
            let expected = "one of the groups this process is in";
            let message = "a foreign group may read the secrets file";
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
