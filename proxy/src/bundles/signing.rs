//! The key that signs bundles: Ed25519, one PKCS#8 file in PEM, kept where the edge is not.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use caracal_policies::BundleSource;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::signature::{SignatureFile, documents, statement};
use crate::ledger::PublicKey;

/// A key file has about 120 bytes; anything far longer is something else.
const MAX_KEY_FILE: u64 = 4_096;

/// A key that signs bundles.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

/// Why there is no signing key.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// The file cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Others may read it.
    #[error("others may read it (mode {0:04o}); it must be 0600")]
    Open(u32),
    /// It holds something else.
    #[error("it holds no Ed25519 key in PKCS#8 PEM, as `caracal bundle keygen` makes one")]
    NoKey,
    /// The system gave no random numbers.
    #[error("no random numbers to be had")]
    Random,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.public)
    }
}

impl SigningKey {
    /// Makes a key and writes it into a new file, mode 0600.
    ///
    /// # Errors
    /// The file is there already or cannot be written.
    pub fn create(path: &Path) -> Result<Self, SigningKeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_unspecified| SigningKeyError::Random)?;
        let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_unspecified| SigningKeyError::NoKey)?;
        let body = Zeroizing::new(STANDARD.encode(der.as_ref()));
        let text = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", body.as_str());
        let text = Zeroizing::new(text);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Self::of(pair)
    }

    /// Reads a key file that only its owner may read.
    ///
    /// # Errors
    /// See [`SigningKeyError`].
    pub fn read(path: &Path) -> Result<Self, SigningKeyError> {
        let file = File::open(path)?;
        let mode = file.metadata()?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SigningKeyError::Open(mode));
        }
        let mut text = Zeroizing::new(Vec::new());
        file.take(MAX_KEY_FILE).read_to_end(&mut text)?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|_pem| SigningKeyError::NoKey)?;
        let der = Zeroizing::new(der.secret_pkcs8_der().to_vec());
        Self::of(Ed25519KeyPair::from_pkcs8(&der).map_err(|_rejected| SigningKeyError::NoKey)?)
    }

    fn of(pair: Ed25519KeyPair) -> Result<Self, SigningKeyError> {
        let public = pair.public_key().as_ref().try_into().map_err(|_length| SigningKeyError::NoKey)?;
        Ok(Self { public: PublicKey::from_bytes(public), pair })
    }

    /// What `caracal.toml` trusts.
    #[must_use]
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// The text of the signature file for a bundle.
    #[must_use]
    pub fn sign(&self, source: &BundleSource, zone: &str, revision: u64) -> String {
        let signature = self.pair.sign(&statement(zone, revision, &documents(source)));
        SignatureFile::new(zone, revision, &self.public, signature.as_ref()).to_string()
    }
}
