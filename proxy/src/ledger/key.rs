//! The ledger's signing keys: Ed25519, one PKCS#8 file each, kept away from the ledger.
//!
//! Files are `ledger-1.key`, `ledger-2.key`, ...; the highest number signs. Earlier ones are needed once more:
//! a chain they signed introduces the new key with their signature.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde_json::{Map, Value};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{LedgerError, canonical};

/// A PKCS#8 Ed25519 key is 83 to 85 bytes; anything far longer is something else.
const MAX_KEY_FILE: u64 = 1_024;

/// The keys this process signs its ledger with.
pub struct LedgerKey {
    current: Signer,
    earlier: Vec<Signer>,
}

struct Signer {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

/// An Ed25519 public key. Displays as `ed25519:<hex>`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

/// SHA-256 of a public key's 32 bytes. Displays as `sha256:<hex>`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// What a verifier was told, by somebody other than the ledger folder, about who signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The key itself.
    Key(PublicKey),
    /// Its fingerprint; the key is then read from the chain that introduces it.
    Fingerprint(Fingerprint),
}

/// The text is neither `ed25519:` nor `sha256:` with 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected `ed25519:` or `sha256:` and 64 hex digits")]
pub struct NotAKey;

impl LedgerKey {
    /// Reads the keys in `folder`; creates folder and first key when there is none.
    ///
    /// # Errors
    /// The folder cannot be used, or a key file is no Ed25519 key, is not ours, or may be read by others.
    pub fn open(folder: &Path) -> Result<Self, LedgerError> {
        let mut files = key_files(folder)?;
        if files.is_empty() {
            files.push((1, create(folder, 1)?));
        }
        Self::load(folder, files)
    }

    /// Adds a new key to `folder` and makes it the signing one, from the next [`super::Ledger::open`] on.
    ///
    /// # Errors
    /// As [`LedgerKey::open`].
    pub fn succeed(folder: &Path) -> Result<Self, LedgerError> {
        let mut files = key_files(folder)?;
        let next = files.last().map_or(1, |(number, _)| number.saturating_add(1));
        files.push((next, create(folder, next)?));
        Self::load(folder, files)
    }

    /// The key that signs now.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.current.public
    }

    /// Its fingerprint, for publishing and for `audit verify`.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.current.public.fingerprint()
    }

    /// Adds `signature` to a statement, made with the current key.
    pub(super) fn sign(&self, kind: &str, statement: &mut Map<String, Value>) {
        self.current.sign(kind, statement);
    }

    /// Adds `signature` to a statement, made with whichever of our keys has this fingerprint. False if none has.
    pub(super) fn sign_as(&self, signer: &str, kind: &str, statement: &mut Map<String, Value>) -> bool {
        let found = self.earlier.iter().find(|earlier| earlier.public.fingerprint().to_string() == signer);
        if let Some(earlier) = found {
            earlier.sign(kind, statement);
        }
        found.is_some()
    }

    fn load(folder: &Path, files: Vec<(u32, PathBuf)>) -> Result<Self, LedgerError> {
        let mut earlier = files.into_iter().map(|(_, path)| read(&path)).collect::<Result<Vec<_>, _>>()?;
        match earlier.pop() {
            Some(current) => Ok(Self { current, earlier }),
            None => Err(LedgerError::Key { path: folder.to_owned(), reason: "the folder holds no key" }),
        }
    }
}

impl Signer {
    fn sign(&self, kind: &str, statement: &mut Map<String, Value>) {
        let signature = self.pair.sign(&signed_bytes(kind, statement));
        statement.insert("signature".into(), hex::encode(signature.as_ref()).into());
    }
}

impl PublicKey {
    /// The key's fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, &self.0).as_ref());
        Fingerprint(bytes)
    }

    pub(crate) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Whether `signature` is this key's over `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }

    /// Whether `signature` in the statement is this key's over everything else in it.
    pub(super) fn signed(&self, kind: &str, statement: &Map<String, Value>) -> bool {
        let mut unsigned = statement.clone();
        let Some(Value::String(signature)) = unsigned.remove("signature") else { return false };
        let Ok(signature) = hex::decode(signature) else { return false };
        self.verifies(&signed_bytes(kind, &unsigned), &signature)
    }
}

impl Trust {
    /// Whether this is the key that is trusted.
    #[must_use]
    pub fn names(&self, key: &PublicKey) -> bool {
        match self {
            Self::Key(trusted) => trusted == key,
            Self::Fingerprint(trusted) => *trusted == key.fingerprint(),
        }
    }
}

impl FromStr for PublicKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        from_hex(text, "ed25519:").map(Self)
    }
}

impl FromStr for Fingerprint {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        from_hex(text, "sha256:").map(Self)
    }
}

impl FromStr for Trust {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        PublicKey::from_str(text).map(Self::Key).or_else(|_| text.parse().map(Self::Fingerprint))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{}", hex::encode(self.0))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for LedgerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LedgerKey({})", self.fingerprint())
    }
}

/// A signature says what kind of statement it is, so that one can never stand for another.
fn signed_bytes(kind: &str, statement: &Map<String, Value>) -> Vec<u8> {
    let mut bytes = format!("caracal-ledger:{kind}\n").into_bytes();
    // INVARIANT: statements hold strings, booleans and small integers, which always have a canonical form. Were one
    // read from a file that has not, the bytes differ from what was signed and the signature does not verify.
    canonical::write_map(&mut bytes, statement).ok();
    bytes
}

fn from_hex(text: &str, prefix: &str) -> Result<[u8; 32], NotAKey> {
    let mut bytes = [0; 32];
    let digits = text.strip_prefix(prefix).ok_or(NotAKey)?;
    if hex::decode_to_slice(digits, &mut bytes).is_err() {
        return Err(NotAKey);
    }
    Ok(bytes)
}

/// The key files of a folder by number; an absent folder has none.
fn key_files(folder: &Path) -> Result<Vec<(u32, PathBuf)>, LedgerError> {
    let failed = |source| LedgerError::Io { action: "read the keys folder", path: folder.to_owned(), source };
    if !folder.try_exists().map_err(failed)? {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix("ledger-")?.strip_suffix(".key")?.parse().ok());
        if let Some(number) = number {
            files.push((number, path));
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn create(folder: &Path, number: u32) -> Result<PathBuf, LedgerError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let path = folder.join(format!("ledger-{number}.key"));
    let failed = |source| LedgerError::Io { action: "create the ledger key", path: path.clone(), source };
    let Ok(document) = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()) else {
        return Err(LedgerError::Key { path, reason: "no random numbers to be had" });
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    file.write_all(document.as_ref()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(path)
}

fn read(path: &Path) -> Result<Signer, LedgerError> {
    let failed = |source| LedgerError::Io { action: "read the ledger key", path: path.to_owned(), source };
    let unusable = |reason| LedgerError::Key { path: path.to_owned(), reason };
    let file = fs::File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() || about.len() > MAX_KEY_FILE {
        return Err(unusable("it is not a key file"));
    }
    if about.uid() != 0 && about.uid() != rustix::process::geteuid().as_raw() {
        return Err(unusable("it belongs to another user"));
    }
    if about.mode() & 0o077 != 0 {
        return Err(unusable("others may read it; it must have mode 0600"));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(MAX_KEY_FILE).unwrap_or(0)));
    file.take(MAX_KEY_FILE).read_to_end(&mut bytes).map_err(failed)?;
    let Ok(pair) = Ed25519KeyPair::from_pkcs8(&bytes) else {
        return Err(unusable("it is not an Ed25519 key in PKCS#8 form"));
    };
    let Ok(public) = <[u8; 32]>::try_from(pair.public_key().as_ref()) else {
        return Err(unusable("its public half is not 32 bytes"));
    };
    Ok(Signer { pair, public: PublicKey(public) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_is_made_once_owner_only_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("keys");
        let first = LedgerKey::open(&folder).unwrap();
        let again = LedgerKey::open(&folder).unwrap();
        assert_eq!(first.public(), again.public());
        let mode = fs::metadata(folder.join("ledger-1.key")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(format!("{first:?}"), format!("LedgerKey({})", first.fingerprint()));
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        LedgerKey::open(dir.path()).unwrap();
        let path = dir.path().join("ledger-1.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(LedgerKey::open(dir.path()).unwrap_err().to_string().contains("others may read it"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, b"junk").unwrap();
        assert!(LedgerKey::open(dir.path()).unwrap_err().to_string().contains("not an Ed25519 key"));
    }

    #[test]
    fn a_statement_verifies_only_as_its_kind_and_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let key = LedgerKey::open(dir.path()).unwrap();
        let mut statement = json!({ "seq": 1, "head": "aa" }).as_object().unwrap().clone();
        key.sign("checkpoint", &mut statement);
        assert!(key.public().signed("checkpoint", &statement));
        assert!(!key.public().signed("ledger_key", &statement));
        statement.insert("seq".into(), json!(2));
        assert!(!key.public().signed("checkpoint", &statement));
    }

    #[test]
    fn trust_is_read_from_both_forms() {
        let dir = tempfile::tempdir().unwrap();
        let public = LedgerKey::open(dir.path()).unwrap().public();
        let by_key: Trust = public.to_string().parse().unwrap();
        let by_print: Trust = public.fingerprint().to_string().parse().unwrap();
        assert!(by_key.names(&public) && by_print.names(&public));
        assert_eq!("sha256:12".parse::<Trust>(), Err(NotAKey));
    }
}
