//! One value of the secrets file changed on the disk: whole or not at all, and only to what would load.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use age::x25519::Recipient;
use caracal_policies::{Problem, Report, Zone};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::envelope::{self, Key, MOST_BYTES};
use super::{FingerprintKey, SecretsTable, check_bundle, edit, files, open, sealed};
use crate::config::SecretsConfig;

/// A value, and where it goes.
pub(crate) struct Setting<'s> {
    /// Name of the entry.
    pub(crate) name: &'s str,
    /// The key in it.
    pub(crate) key: &'s str,
    /// What it shall be.
    pub(crate) value: &'s str,
    /// For whom a new entry is.
    pub(crate) zones: &'s [String],
    /// Where a new entry may go.
    pub(crate) hosts: &'s [String],
    /// For whom the file is sealed besides who opened it.
    pub(crate) recipients: &'s [Recipient],
    /// The folder of values in files of their own.
    pub(crate) folder: Option<&'s Path>,
}

/// What was done.
pub(crate) struct Set {
    /// Whether the value was not there before.
    pub(crate) added: bool,
    /// How the file is sealed; none when it is plain.
    pub(crate) sealed: Option<Sealing>,
    /// Fingerprint of the value before, and of the one now.
    pub(crate) fingerprints: (Option<String>, String),
}

/// For whom a file is sealed.
pub(crate) enum Sealing {
    /// These.
    Recipients(Vec<String>),
    /// Who knows the passphrase.
    Passphrase,
}

/// Why nothing was changed.
#[derive(Debug)]
pub(crate) enum NotSet {
    /// A file is wrong, or would be.
    Report(Report),
    /// What was asked for does not fit what is there.
    Input(String),
    /// The disk, or somebody else at the same file.
    Failed(String),
}

impl From<Box<Problem>> for NotSet {
    fn from(problem: Box<Problem>) -> Self {
        Self::Report(Report { problems: vec![*problem] })
    }
}

/// Sets one value in the secrets file. `zones` are the bundles that must be served as well as before.
pub(crate) fn set(
    config: &SecretsConfig,
    setting: &Setting<'_>,
    print: &FingerprintKey,
    zones: &[Zone],
) -> Result<Set, NotSet> {
    let path =
        std::fs::canonicalize(&config.file).map_err(|error| open::TABLE.unopened(&config.file, &error))?;
    let _alone = alone_in(folder_of(&path))?;
    let found = sealed::find(config, sealed::credentials_dir().as_deref())?;
    let shown = config.file.display().to_string();
    let edit::Edited { text, added } = edit::edited(&shown, &found.text, setting)?;

    let files = files::Files { folder: config.files_dir.as_deref(), mounted: config.mounted };
    let table = SecretsTable::of(&shown, &text, print, files).map_err(NotSet::Report)?;
    let fingerprint = print.fingerprint(setting.value);
    if table.fingerprint(setting.name, setting.key) != Some(&*fingerprint) {
        let Setting { name, key, .. } = setting;
        return Err(NotSet::Input(format!("`{name}` is laid out so that only a hand can put `{key}` there")));
    }
    // A file that does not load has nothing to compare with.
    let before = SecretsTable::of(&shown, &found.text, print, files).ok();
    let unserved = unserved(zones, before.as_ref(), &table);
    if !unserved.is_empty() {
        return Err(NotSet::Report(Report { problems: unserved }));
    }

    let (bytes, sealed) = sealed_again(&found, &text, setting.recipients)?;
    if u64::try_from(bytes.len()).map_or(true, |length| length > MOST_BYTES) {
        return Err(NotSet::Input(format!("`{shown}` would be larger than 1 MiB: split it")));
    }
    replace(&path, config.mounted, &found.bytes, &bytes)?;
    let earlier = before.and_then(|table| Some(table.fingerprint(setting.name, setting.key)?.to_owned()));
    Ok(Set { added, sealed, fingerprints: (earlier, fingerprint.into()) })
}

/// What the bundles need and the new table has not, as far as the old one had it.
fn unserved(zones: &[Zone], before: Option<&SecretsTable>, now: &SecretsTable) -> Vec<Problem> {
    let mut problems = Vec::new();
    for zone in zones {
        let known = before.map(|table| check_bundle(zone, table)).unwrap_or_default();
        problems.extend(check_bundle(zone, now).into_iter().filter(|problem| !known.contains(problem)));
    }
    problems
}

/// The text as it goes to the disk, and for whom it is sealed.
fn sealed_again(
    found: &sealed::Found,
    text: &Zeroizing<String>,
    more: &[Recipient],
) -> Result<(Zeroizing<Vec<u8>>, Option<Sealing>), NotSet> {
    let failed = |error: envelope::SealError| NotSet::Failed(format!("it could not be sealed: {error}"));
    let nobody = |why: &str| NotSet::Input(format!("{why}: leave out --recipient"));
    match &found.key {
        None if more.is_empty() => Ok((Zeroizing::new(text.as_bytes().to_vec()), None)),
        None => Err(nobody("the secrets file is not sealed")),
        Some(Key::Passphrase(passphrase)) if more.is_empty() => {
            let bytes = envelope::seal_with(text.as_bytes(), passphrase, envelope::WORK_FACTOR);
            Ok((Zeroizing::new(bytes.map_err(failed)?), Some(Sealing::Passphrase)))
        }
        Some(Key::Passphrase(_)) => Err(nobody("the secrets file is sealed with a passphrase")),
        Some(Key::Identities(identities)) => {
            let mut recipients: Vec<Recipient> = Vec::new();
            for one in identities.iter().map(age::x25519::Identity::to_public).chain(more.iter().cloned()) {
                if !recipients.contains(&one) {
                    recipients.push(one);
                }
            }
            // The file says how many can open it and not who they are.
            let can_open = envelope::recipients(&found.bytes);
            if can_open > recipients.len() {
                return Err(NotSet::Input(format!(
                    "the secrets file is sealed for {can_open}, and the identity file stands for {}: name the \
                     others with --recipient, or they could not open it any more",
                    recipients.len()
                )));
            }
            let bytes = envelope::seal_for(text.as_bytes(), &recipients).map_err(failed)?;
            let names = recipients.iter().map(ToString::to_string).collect();
            Ok((Zeroizing::new(bytes), Some(Sealing::Recipients(names))))
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new("/"))
}

/// Keeps other commands of this kind from the folder for as long as the file is open.
fn alone_in(folder: &Path) -> Result<File, NotSet> {
    let failed = |error: io::Error| NotSet::Failed(format!("`{}`: {error}", folder.display()));
    let open = File::open(folder).map_err(failed)?;
    match flock(&open, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(open),
        Err(Errno::WOULDBLOCK) => {
            Err(NotSet::Failed("another `caracal secrets set` is at work here; try again".to_owned()))
        }
        Err(other) => Err(failed(other.into())),
    }
}

/// Puts `bytes` in the place of `before`. Until the very last step the file is what it was.
fn replace(path: &Path, mounted: bool, before: &[u8], bytes: &[u8]) -> Result<(), NotSet> {
    let folder = folder_of(path);
    let draft = folder.join(format!(".{}.draft", Uuid::new_v4()));
    let failed = |error: io::Error| NotSet::Failed(format!("`{}` stays as it was: {error}", path.display()));
    let written = written(&draft, path, bytes).map_err(failed).and_then(|()| {
        let now = open::read_bytes(&open::TABLE, path, path, mounted)?;
        if *now != *before {
            let shown = path.display();
            return Err(NotSet::Failed(format!(
                "`{shown}` was changed in between and stays as it is; try again"
            )));
        }
        std::fs::rename(&draft, path).map_err(failed)
    });
    if written.is_err() {
        drop(std::fs::remove_file(&draft));
    }
    written?;
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| NotSet::Failed(format!("it is written, but may not survive a power cut: {error}")))
}

/// A file of the same owner, group and mode as `path`, durable when it returns.
fn written(draft: &PathBuf, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let like = std::fs::metadata(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    let made = file.metadata()?;
    if (made.uid(), made.gid()) != (like.uid(), like.gid()) {
        fchown(&file, Some(like.uid()), Some(like.gid()))?;
    }
    file.set_permissions(Permissions::from_mode(like.mode() & 0o640))?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
