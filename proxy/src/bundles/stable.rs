//! One read of a bundle that is only handed on if nothing changed meanwhile.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use caracal_policies::{Problem, Report, SourceFile};
use rustix::fs::{Mode, OFlags};

use super::{problem, signature};

/// Bytes of one file: ten thousand resources with a hundred thousand grants take about half of it.
const MAX_FILE_BYTES: u64 = 16 * 1_048_576;
/// Bytes of one bundle.
const MAX_BUNDLE_BYTES: u64 = 64 * 1_048_576;
/// Files of one bundle.
const MAX_FILES: usize = 1_024;
/// How deep folders may nest; also ends a cycle of links.
const MAX_DEPTH: u32 = 8;

/// Whether a bundle is a folder or one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `zone.toml` and what it lists.
    Folder,
    /// Everything in one file.
    File,
}

/// A file of the bundle and what tells one version of it from another.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// Relative to the bundle root, with `/`.
    name: String,
    /// Where it really lies.
    real: PathBuf,
    stamp: (u64, u64, u64, (i64, i64), (i64, i64)),
}

/// Lists, reads and lists again. `None` when the two lists differ.
pub(super) fn read(
    bundles_dir: &Path,
    path: &Path,
    shown: &str,
    shape: Shape,
) -> Result<Option<Vec<SourceFile>>, Report> {
    let before = list(bundles_dir, path, shown, shape)?;
    let read = contents(&before, shown, shape);
    // A file that vanished under us is a change, not a fault: look at the list first.
    if list(bundles_dir, path, shown, shape)? != before {
        return Ok(None);
    }
    read.map(Some)
}

fn list(bundles_dir: &Path, path: &Path, shown: &str, shape: Shape) -> Result<Vec<Found>, Report> {
    let mut walk = Walk { shown, shape, root: PathBuf::new(), found: Vec::new(), problems: Vec::new() };
    let inside = std::fs::canonicalize(bundles_dir).and_then(|all| Ok((all, std::fs::canonicalize(path)?)));
    match inside {
        Err(error) => walk.unreadable("", &error),
        Ok((all, real)) if !real.starts_with(&all) => walk.outside(""),
        Ok((all, real)) => match shape {
            Shape::File => {
                walk.root = all;
                let name =
                    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                walk.entry(path, &name, 0);
                let signature = path.with_extension(signature::EXTENSION);
                if signature.symlink_metadata().is_ok() {
                    walk.entry(&signature, signature::FILE, 0);
                }
            }
            Shape::Folder => {
                walk.root.clone_from(&real);
                walk.folder(&real, "", 0);
            }
        },
    }
    if !walk.problems.is_empty() {
        return Err(Report { problems: walk.problems });
    }
    walk.found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(walk.found)
}

struct Walk<'a> {
    shown: &'a str,
    shape: Shape,
    root: PathBuf,
    found: Vec<Found>,
    problems: Vec<Problem>,
}

impl Walk<'_> {
    fn folder(&mut self, path: &Path, name: &str, depth: u32) {
        if depth > MAX_DEPTH {
            self.add("bundle_depth", name, "folders nest too deep", String::new(), "at most 8 levels", "");
            return;
        }
        let entries = match std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(entries) => entries,
            Err(error) => return self.unreadable(name, &error),
        };
        for entry in entries {
            let file_name = entry.file_name();
            let Some(own) = file_name.to_str() else {
                let found = file_name.to_string_lossy().into_owned();
                self.add(
                    "bundle_name",
                    name,
                    "a file name is not UTF-8",
                    found,
                    "UTF-8 names",
                    "rename the file",
                );
                continue;
            };
            if own.starts_with('.') {
                continue;
            }
            let inner = if name.is_empty() { own.to_owned() } else { format!("{name}/{own}") };
            self.entry(&entry.path(), &inner, depth);
        }
    }

    fn entry(&mut self, path: &Path, name: &str, depth: u32) {
        let document = has_document_name(name);
        let (real, metadata) = match std::fs::canonicalize(path).and_then(|real| {
            let metadata = std::fs::metadata(&real)?;
            Ok((real, metadata))
        }) {
            Ok(found) => found,
            Err(_) if !document => return,
            Err(error) => return self.unreadable(name, &error),
        };
        if !document && !metadata.is_dir() {
            return;
        }
        if !real.starts_with(&self.root) {
            return self.outside(name);
        }
        if metadata.is_dir() && self.shape == Shape::Folder {
            return self.folder(&real, name, depth.saturating_add(1));
        }
        if !metadata.is_file() {
            let found = format!("{:?}", metadata.file_type());
            self.add("bundle_kind", name, "this is no regular file", found, "a regular file", "");
            return;
        }
        if self.found.len() >= MAX_FILES {
            if self.problems.is_empty() {
                self.add(
                    "bundle_files",
                    "",
                    "the bundle has too many files",
                    String::new(),
                    "at most 1024",
                    "",
                );
            }
            return;
        }
        self.found.push(Found { name: name.to_owned(), real, stamp: stamp(&metadata) });
    }

    fn unreadable(&mut self, name: &str, error: &std::io::Error) {
        let hint = "check the path and that this user may read it";
        let found = error.to_string();
        self.add(
            "bundle_unreadable",
            name,
            "part of the bundle cannot be read",
            found,
            "readable files",
            hint,
        );
    }

    fn outside(&mut self, name: &str) {
        self.add(
            "bundle_link_outside",
            name,
            "a link leads out of the bundle",
            String::new(),
            "links that stay inside the bundle",
            "copy the file into the bundle; what lies outside changes without it",
        );
    }

    fn add(
        &mut self,
        code: &'static str,
        name: &str,
        message: &str,
        found: String,
        expected: &str,
        hint: &str,
    ) {
        let file = shown_as(self.shown, name, self.shape);
        self.problems.push(problem(code, &file, message, found, expected, hint));
    }
}

fn contents(list: &[Found], shown: &str, shape: Shape) -> Result<Vec<SourceFile>, Report> {
    let mut files = Vec::with_capacity(list.len());
    let mut problems = Vec::new();
    let mut room = MAX_BUNDLE_BYTES;
    for found in list {
        let name = shown_as(shown, &found.name, shape);
        match text(&found.real, MAX_FILE_BYTES.min(room)) {
            Ok(text) => {
                room = room.saturating_sub(u64::try_from(text.len()).unwrap_or(u64::MAX));
                files.push(SourceFile { path: found.name.clone(), text });
            }
            Err(TextFault::TooLarge) => {
                let expected = "at most 16 MiB a file and 64 MiB a bundle";
                problems.push(problem(
                    "bundle_size",
                    &name,
                    "there is too much text",
                    String::new(),
                    expected,
                    "",
                ));
            }
            Err(TextFault::Encoding) => {
                let message = "the file is not UTF-8";
                problems.push(problem("bundle_encoding", &name, message, String::new(), "UTF-8 text", ""));
            }
            Err(TextFault::Io(error)) => {
                let message = "the file cannot be read";
                let found = error.to_string();
                problems.push(problem("bundle_unreadable", &name, message, found, "a readable file", ""));
            }
        }
    }
    if problems.is_empty() { Ok(files) } else { Err(Report { problems }) }
}

enum TextFault {
    TooLarge,
    Encoding,
    Io(std::io::Error),
}

fn text(real: &Path, room: u64) -> Result<String, TextFault> {
    // The path was resolved before: a link put in its place meanwhile is not followed.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = rustix::fs::open(real, flags, Mode::empty()).map_err(|error| TextFault::Io(error.into()))?;
    let mut bytes = Vec::new();
    File::from(opened).take(room.saturating_add(1)).read_to_end(&mut bytes).map_err(TextFault::Io)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > room {
        return Err(TextFault::TooLarge);
    }
    String::from_utf8(bytes).map_err(|_bad| TextFault::Encoding)
}

fn stamp(metadata: &Metadata) -> (u64, u64, u64, (i64, i64), (i64, i64)) {
    (
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        (metadata.mtime(), metadata.mtime_nsec()),
        (metadata.ctime(), metadata.ctime_nsec()),
    )
}

fn has_document_name(name: &str) -> bool {
    let extension = Path::new(name).extension();
    name == signature::FILE || extension.is_some_and(|extension| extension == "toml" || extension == "rego")
}

fn shown_as(root: &str, name: &str, shape: Shape) -> String {
    if name == signature::FILE {
        signature::place(root)
    } else if name.is_empty() || shape == Shape::File {
        root.to_owned()
    } else {
        format!("{root}/{name}")
    }
}
