//! The key under which secrets get their fingerprints.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// Bytes of the key: the output size of SHA-256.
const KEY_BYTES: usize = 32;

/// A random key of one state folder. Fingerprints made under two keys cannot be compared, so a list of
/// fingerprints cannot be searched with guesses from outside.
#[derive(Clone)]
pub struct FingerprintKey(hmac::Key);

/// Why there is no fingerprint key.
#[derive(Debug, thiserror::Error)]
pub enum FingerprintKeyError {
    /// The file could not be read or made.
    #[error("the fingerprint key file cannot be used")]
    Io(#[from] std::io::Error),
    /// The file is not 32 bytes long.
    #[error("the fingerprint key file does not hold 32 bytes")]
    Length,
    /// The system gave no randomness.
    #[error("no randomness")]
    Random,
}

impl FingerprintKey {
    /// Reads the key file, or makes one with mode 0600, whole or not at all.
    ///
    /// # Errors
    /// When the file can be neither read nor made, or has another length.
    pub fn load_or_create(path: &Path) -> Result<Self, FingerprintKeyError> {
        match Self::load(path)? {
            Some(key) => Ok(key),
            None => Self::create(path),
        }
    }

    /// Reads the key file, if there is one.
    ///
    /// # Errors
    /// When the file cannot be read, or has another length.
    pub fn load(path: &Path) -> Result<Option<Self>, FingerprintKeyError> {
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_BYTES.saturating_add(1)));
        file.take(33).read_to_end(&mut bytes)?;
        let bytes: &[u8; KEY_BYTES] =
            bytes.as_slice().try_into().map_err(|_length| FingerprintKeyError::Length)?;
        Ok(Some(Self::from_bytes(bytes)))
    }

    /// A fixed key for checks that keep and show no fingerprint.
    #[must_use]
    pub fn unkept() -> Self {
        Self::from_bytes(&[0; KEY_BYTES])
    }

    fn create(path: &Path) -> Result<Self, FingerprintKeyError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        SystemRandom::new().fill(bytes.as_mut_slice()).map_err(|_unspecified| FingerprintKeyError::Random)?;
        let fresh = path.with_extension("fresh");
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes.as_slice())?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        Ok(Self::from_bytes(&bytes))
    }

    fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The fingerprint of a value: the first 8 bytes of its HMAC, as 16 hex characters.
    pub(super) fn fingerprint(&self, value: &str) -> Box<str> {
        let tag = self.digest(value.as_bytes());
        hex::encode(tag.get(..8).unwrap_or(&tag)).into()
    }

    /// The whole HMAC of a text, to tell two versions of the file apart.
    pub(super) fn digest(&self, bytes: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        let tag = hmac::sign(&self.0, bytes);
        for (to, from) in out.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        out
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey")
    }
}
