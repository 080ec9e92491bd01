//! Reading a zone's bundle from disk: a folder or one file to [`BundleSource`].
//!
//! Shape: the bundle of zone `z` is the folder `z/` or the file `z.toml`, never both. Only `*.toml` and `*.rego`
//! count; names that begin with a dot do not, so editors' temporary files and the `..data` links of a Kubernetes
//! mount are passed over. No link may lead out of the bundle. What is handed on was read in one piece: when the
//! folder changes meanwhile, it is read again. A signature is read along, as the file `bundle.sig`.

pub mod signature;
pub mod signing;
mod stable;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use caracal_policies::{BundleSource, Place, Problem, Report, SourceFile};

use stable::Shape;

/// How often a folder that keeps changing is read before it is given up until the next change is reported.
const ATTEMPTS: u32 = 3;

/// What follows the zone's id in the name of a candidate; no zone may be called so.
pub const CANDIDATE: &str = ".next";

/// Reads the bundle of `zone`. Reports name files as they lie under `base`, the folder of `caracal.toml`.
///
/// # Errors
/// Every problem with the files themselves; what is in them is the compiler's business. A bundle that is not
/// there is a problem: a zone never ends by a folder going away.
pub fn read(bundles_dir: &Path, base: &Path, zone: &str) -> Result<BundleSource, Report> {
    let shown = bundles_dir.strip_prefix(base).unwrap_or(bundles_dir);
    let (path, root, shape) = locate(bundles_dir, shown, zone)?;
    let mut last = Report { problems: Vec::new() };
    for _ in 0..ATTEMPTS {
        // Any fault may come from a change in the middle of it, so faults are looked at again as well.
        last = match stable::read(bundles_dir, &path, &root, shape) {
            Ok(Some(files)) => return Ok(BundleSource { root, files }),
            Ok(None) => one(
                "bundle_changing",
                &root,
                "the bundle changed each time it was read",
                "a bundle that holds still",
                "write it beside, then rename it into place",
            ),
            Err(report) => report,
        };
    }
    Err(last)
}

/// What the candidate of a zone is called, beside its bundle.
#[must_use]
pub fn candidate_of(zone: &str) -> String {
    format!("{zone}{CANDIDATE}")
}

/// Whether there is a bundle of this name, in either shape.
#[must_use]
pub fn is_there(bundles_dir: &Path, name: &str) -> bool {
    let places = [bundles_dir.join(name), bundles_dir.join(format!("{name}.toml"))];
    places.iter().any(|place| place.symlink_metadata().is_ok())
}

/// A digest over the list and the contents of the files, independent of where they lie.
#[must_use]
pub fn digest(source: &BundleSource) -> [u8; 32] {
    // A candidate of one file is named after its place, and is the same bundle in the other.
    let lies_as = source
        .files
        .iter()
        .find(|file| file.path.ends_with(&format!("{CANDIDATE}.toml")) && source.root.ends_with(&file.path));
    let Some(zone) = lies_as.and_then(|file| file.path.strip_suffix(&format!("{CANDIDATE}.toml"))) else {
        return digest_of(source.files.iter());
    };
    let named = source.files.iter().map(|file| {
        let own = lies_as.is_some_and(|lies| lies.path == file.path);
        let path = if own { format!("{zone}.toml") } else { file.path.clone() };
        SourceFile { path, text: file.text.clone() }
    });
    digest_of(named.collect::<Vec<_>>().iter())
}

fn digest_of<'a>(files: impl Iterator<Item = &'a SourceFile>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    let mut files: Vec<_> = files.collect();
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    for file in files {
        for part in [&file.path, &file.text] {
            // The length first, so that moving a byte from one part to the next gives another digest.
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part.as_bytes());
        }
    }
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    out
}

/// Where the bundle lies, its name in reports, and whether it is a folder or one file.
fn locate(bundles_dir: &Path, shown: &Path, zone: &str) -> Result<(PathBuf, String, Shape), Report> {
    let file_name = format!("{zone}.toml");
    let (folder, file) = (bundles_dir.join(zone), bundles_dir.join(&file_name));
    let folder_shown = shown.join(zone).display().to_string();
    let file_shown = shown.join(&file_name).display().to_string();
    match (folder.symlink_metadata().is_ok(), file.symlink_metadata().is_ok()) {
        (true, false) => Ok((folder, folder_shown, Shape::Folder)),
        (false, true) => Ok((file, file_shown, Shape::File)),
        (true, true) => Err(one(
            "bundle_ambiguous",
            &file_shown,
            "the zone has a folder and a file",
            "one of the two",
            "remove the one that is not meant",
        )),
        (false, false) => Err(one(
            "bundle_missing",
            &folder_shown,
            "the bundle of a configured zone is not there",
            "a folder, or a file of the same name with `.toml`",
            "to end a zone remove its table from caracal.toml; a missing bundle never counts as an empty one",
        )),
    }
}

fn one(code: &'static str, file: &str, message: &str, expected: &str, hint: &str) -> Report {
    Report { problems: vec![problem(code, file, message, String::new(), expected, hint)] }
}

fn problem(
    code: &'static str,
    file: &str,
    message: &str,
    found: String,
    expected: &str,
    hint: &str,
) -> Problem {
    Problem {
        code,
        place: Place { file: file.into(), line: 1, column: 1 },
        message: message.to_owned(),
        found,
        expected: expected.to_owned(),
        hint: hint.to_owned(),
    }
}
