//! Which folders must be watched so that no change of a path goes unseen.
//!
//! A watch is on a file, not on a name: when a name leads somewhere else, the watch stays behind. So it is the
//! folder that holds the name which is watched, for the file itself and for every link on the way to it.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::Targets;

/// Links followed on the way to one path; the kernel stops at 40 as well (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// How deep folders are watched; bundles nest no deeper.
const MAX_DEPTH: u32 = 9;

/// Folders watched at most; the kernel's default allowance is 8192 for all processes of a user (inotify(7)).
const MAX_FOLDERS: usize = 4_096;

/// The folders to watch, each without what is beneath it.
pub(super) fn folders(targets: &Targets) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for file in &targets.files {
        follow(file, &mut found);
    }
    for folder in &targets.folders {
        let real = follow(folder, &mut found);
        beneath(&real, &real, 0, &mut found);
    }
    found
}

/// Walks `path` from the root, adding the folder of every link and of the last part that exists. Returns where
/// the path leads.
fn follow(path: &Path, found: &mut BTreeSet<PathBuf>) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut rest: VecDeque<OsString> = parts(&absolute);
    let mut at = PathBuf::from("/");
    let mut links = 0_u32;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        let target = std::fs::read_link(&next).ok();
        // The last part, a link, and the last folder that is there: what the name stands for can change here.
        if target.is_some() || rest.is_empty() || next.symlink_metadata().is_err() {
            found.insert(at.clone());
        }
        let Some(target) = target else {
            if next.symlink_metadata().is_err() {
                return next;
            }
            at = next;
            continue;
        };
        links = links.saturating_add(1);
        if links > MAX_LINKS {
            return next;
        }
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        for part in parts(&target).into_iter().rev() {
            rest.push_front(part);
        }
    }
    at
}

/// The names in a path; the root and `.` are none.
fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_os_string()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// Adds a folder and the folders in it. A link is followed while it stays below `root`: what lies outside is no
/// part of a bundle, and a link to `/` must not make us watch the machine.
fn beneath(folder: &Path, root: &Path, depth: u32, found: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    found.insert(folder.to_path_buf());
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        let real = if kind.is_symlink() { follow(&path, found) } else { path };
        if depth < MAX_DEPTH
            && found.len() < MAX_FOLDERS
            && real.starts_with(root)
            && !found.contains(&real)
            && real.is_dir()
        {
            beneath(&real, root, depth.saturating_add(1), found);
        }
    }
}
