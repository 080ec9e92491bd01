//! The text of the secrets file, which may be sealed at rest.
//!
//! What opens it is in a file beside it, or in a systemd credential; the text itself is only ever in memory. A sealed
//! file that has not changed is not opened again: a passphrase costs a second and 256 MiB, and files are compared often.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caracal_policies::{Place, Problem};
use zeroize::Zeroizing;

use super::envelope::{Key, Unopened, is_sealed};
use super::{FingerprintKey, open};
use crate::config::{SecretsConfig, SecretsKey};
use crate::sealing::Readers;
use crate::sealing::file::read_private;

/// Names of the systemd credentials that are looked for when the configuration names no key.
const IDENTITY_CREDENTIAL: &str = "caracal-secrets-identity";
const PASSPHRASE_CREDENTIAL: &str = "caracal-secrets-passphrase";

/// Bytes of a key file: many identities with remarks.
const MOST_KEY_BYTES: u64 = 16_384;

/// The most work a passphrase may cost, in words.
const WORK_WORDS: &str = "at most 2^18, as `age -p` makes it: 256 MiB of memory for about a second";

/// What was in a sealed file. The table made from it holds every value of it anyway.
#[derive(Clone)]
pub(super) struct Opened {
    text: Arc<Zeroizing<String>>,
    /// Of the sealed bytes and the key they were opened with.
    digest: [u8; 32],
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opened")
    }
}

impl Opened {
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// The text of the secrets file.
pub(super) enum Text {
    Plain(Zeroizing<String>),
    Sealed(Opened),
}

/// The secrets file as it lies there.
pub(super) struct Found {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) text: Zeroizing<String>,
    /// What it was opened with, if it is sealed.
    pub(super) key: Option<Key>,
}

/// Reads the secrets file and opens it if it is sealed. `before` is what an earlier version was opened to,
/// `credentials` systemd's folder.
pub(super) fn read(
    config: &SecretsConfig,
    credentials: Option<&Path>,
    print: &FingerprintKey,
    before: Option<&Opened>,
) -> Result<Text, Box<Problem>> {
    let path = &config.file;
    let bytes = open::read_bytes(&open::TABLE, path, path, config.mounted)?;
    let Some((place, readers)) = opened_by(config, credentials, &bytes)? else {
        return open::text(&open::TABLE, path, &bytes).map(Text::Plain);
    };
    let key = key_bytes(&place, readers)?;
    let digest = digest(print, &bytes, &key);
    if let Some(before) = before.filter(|before| before.digest == digest) {
        return Ok(Text::Sealed(before.clone()));
    }
    let plain = parse(&place, &key)?.open(&bytes).map_err(|why| unopened(path, &place, why))?;
    let text = Arc::new(open::text(&open::TABLE, path, &plain)?);
    Ok(Text::Sealed(Opened { text, digest }))
}

/// As [`read`], for somebody who will write it again.
pub(super) fn find(config: &SecretsConfig, credentials: Option<&Path>) -> Result<Found, Box<Problem>> {
    let path = &config.file;
    let bytes = open::read_bytes(&open::TABLE, path, path, config.mounted)?;
    let Some((place, readers)) = opened_by(config, credentials, &bytes)? else {
        let text = open::text(&open::TABLE, path, &bytes)?;
        return Ok(Found { bytes, text, key: None });
    };
    let key = key(&place, readers)?;
    let plain = key.open(&bytes).map_err(|why| unopened(path, &place, why))?;
    let text = open::text(&open::TABLE, path, &plain)?;
    Ok(Found { bytes, text, key: Some(key) })
}

/// Where the key is that opens these bytes; none when they are not sealed, and need not be.
fn opened_by(
    config: &SecretsConfig,
    credentials: Option<&Path>,
    bytes: &[u8],
) -> Result<Option<(SecretsKey, Readers)>, Box<Problem>> {
    let path = &config.file;
    match (&config.key, is_sealed(bytes)) {
        (None, false) => Ok(None),
        (Some(key), false) => Err(problem(
            "secrets_not_sealed",
            path,
            "the secrets file is not sealed, and the configuration names a key to open it with",
            format!("no age file, and `{}`", key.path().display()),
            "a file sealed in the age format",
            "seal it with `caracal secrets seal`, or take the key out of [secrets] to read it as it is",
        )),
        (Some(key), true) => {
            let readers = if config.mounted { Readers::OwnGroups } else { Readers::OwnerOnly };
            Ok(Some((key.clone(), readers)))
        }
        (None, true) => {
            let place = credential(credentials).ok_or_else(|| no_key(path))?;
            Ok(Some((place, Readers::AccessList)))
        }
    }
}

/// The key in a file.
pub(crate) fn key(place: &SecretsKey, readers: Readers) -> Result<Key, Box<Problem>> {
    parse(place, &key_bytes(place, readers)?)
}

fn credential(folder: Option<&Path>) -> Option<SecretsKey> {
    let folder = folder?;
    let there = |name: &str| Some(folder.join(name)).filter(|path| path.exists());
    let identity = there(IDENTITY_CREDENTIAL).map(SecretsKey::Identity);
    identity.or_else(|| there(PASSPHRASE_CREDENTIAL).map(SecretsKey::Passphrase))
}

/// systemd's folder of credentials for this process.
pub(super) fn credentials_dir() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

fn digest(print: &FingerprintKey, sealed: &[u8], key: &[u8]) -> [u8; 32] {
    let both = [print.digest(sealed), print.digest(key)];
    print.digest(both.as_flattened())
}

fn key_bytes(place: &SecretsKey, readers: Readers) -> Result<Zeroizing<Vec<u8>>, Box<Problem>> {
    read_private(place.path(), readers, MOST_KEY_BYTES).map_err(|error| {
        let found = match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        problem(
            "secrets_key_file",
            place.path(),
            &format!("the {} that opens the secrets file cannot be used", place.noun()),
            found,
            "a file of root or of the edge's user, mode 0600 or 0400, at most 16 KiB",
            "check the path, `chown` and `chmod 600` it; `mounted = true` allows one of the edge's groups to read it",
        )
    })
}

fn parse(place: &SecretsKey, bytes: &[u8]) -> Result<Key, Box<Problem>> {
    let (key, expected, hint) = match place {
        SecretsKey::Identity(_) => (
            Key::identities(bytes),
            "lines that begin with `AGE-SECRET-KEY-1`, and remarks that begin with `#`",
            "make one with `caracal secrets keygen` or `age-keygen`; plugins and SSH keys are not read",
        ),
        SecretsKey::Passphrase(_) => (
            Key::passphrase(bytes),
            "one line of text, at most 1024 bytes",
            "write the passphrase alone into the file",
        ),
    };
    let message = format!("this is no {} to open the secrets file with", place.noun());
    key.ok_or_else(|| problem("secrets_key", place.path(), &message, String::new(), expected, hint))
}

fn no_key(path: &Path) -> Box<Problem> {
    problem(
        "secrets_sealed",
        path,
        "the secrets file is sealed, and there is nothing to open it with",
        "an age file, and neither `identity_file` nor `passphrase_file`".to_owned(),
        "a key beside the sealed file",
        "add `[secrets] identity_file = \"...\"` or `passphrase_file = \"...\"`, or hand in the systemd credential \
         `caracal-secrets-identity` or `caracal-secrets-passphrase`",
    )
}

fn unopened(path: &Path, key: &SecretsKey, why: Unopened) -> Box<Problem> {
    let with = format!("the {} in `{}`", key.noun(), key.path().display());
    let (code, message, found, expected, hint) = match why {
        Unopened::WrongKey => (
            "secrets_key_wrong",
            "the secrets file does not open with this key",
            with,
            "the key it was sealed for",
            "point to the right key, or seal the file again for this one",
        ),
        Unopened::WantsPassphrase => (
            "secrets_key_wrong",
            "the secrets file is sealed with a passphrase",
            with,
            "`[secrets] passphrase_file`",
            "name the file with the passphrase, or seal the file again with `--recipient`",
        ),
        Unopened::WantsIdentity => (
            "secrets_key_wrong",
            "the secrets file is sealed for an identity",
            with,
            "`[secrets] identity_file`",
            "name the file with the identity, or seal the file again with `--passphrase-file`",
        ),
        Unopened::Work(work) => (
            "secrets_work_factor",
            "the passphrase of the secrets file costs too much work to try",
            format!("2^{work}"),
            WORK_WORDS,
            "seal it again with `caracal secrets seal --passphrase-file`",
        ),
        Unopened::Broken => (
            "secrets_broken",
            "the sealed secrets file is cut short or was changed",
            String::new(),
            "the whole file, as it was sealed",
            "copy it again, or seal it again; a file edited by hand does not open",
        ),
        Unopened::TooLarge => (
            "secrets_too_large",
            "there is too much in the sealed secrets file",
            String::new(),
            open::TABLE.most_words(),
            "split it",
        ),
    };
    problem(code, path, message, found, expected, hint)
}

fn problem(
    code: &'static str,
    path: &Path,
    message: &str,
    found: String,
    expected: &str,
    hint: &str,
) -> Box<Problem> {
    Box::new(Problem {
        code,
        place: Place { file: path.display().to_string().into(), line: 1, column: 1 },
        message: message.to_owned(),
        found,
        expected: expected.to_owned(),
        hint: hint.to_owned(),
    })
}

#[cfg(test)]
mod tests;
