//! The sealing key: what the private keys in the state folder are sealed with.
//!
//! It comes from outside the state folder, so that a copy of that folder alone opens nothing: from the file the
//! operator configured, else from a systemd credential, else from a file made beside the state folder, which is
//! the weakest of the three and comes with a warning to log.

pub(crate) mod file;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use caracal_mandates::css1;
use zeroize::Zeroizing;

pub(crate) use file::{FileProblem, open_private};

/// Name of the credential, as in systemd's `LoadCredential=caracal-sealing-key:...`.
pub const CREDENTIAL_NAME: &str = "caracal-sealing-key";

/// A 32-byte sealing key; wiped when dropped, never shown.
#[derive(Clone)]
pub struct SealingKey(Zeroizing<[u8; 32]>);

/// Where a sealing key may come from, in the order they are asked.
#[derive(Clone, Debug)]
pub struct SealingSources {
    /// The file named in the configuration. When there is one, nothing else is tried.
    pub configured: Option<PathBuf>,
    /// Who may read the configured file.
    pub readers: Readers,
    /// systemd's `$CREDENTIALS_DIRECTORY`.
    pub credentials_dir: Option<PathBuf>,
    /// The state folder; it need not exist yet.
    pub state_dir: PathBuf,
}

impl SealingSources {
    /// Sources for a process, the credentials folder taken from its environment.
    #[must_use]
    pub fn from_environment(configured: Option<PathBuf>, readers: Readers, state_dir: PathBuf) -> Self {
        let credentials_dir = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Self { configured, readers, credentials_dir, state_dir }
    }
}

/// Who may be able to read a private file besides its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Readers {
    /// Nobody.
    #[default]
    OwnerOnly,
    /// Our own groups: how Kubernetes mounts a secret for a pod that is not root.
    OwnGroups,
    /// Whom an access list of root's names: how systemd hands out a credential. The group bits of such a file
    /// are the list's mask, not a group's right.
    AccessList,
}

/// Where the sealing key was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealingOrigin {
    /// In the configured file.
    Configured(PathBuf),
    /// In a systemd credential.
    Credential(PathBuf),
    /// In the file beside the state folder.
    AutoMade {
        /// The file.
        path: PathBuf,
        /// Whether it was made just now.
        made_now: bool,
    },
}

impl SealingOrigin {
    /// What an operator should be told; `None` when there is nothing to better.
    #[must_use]
    pub const fn warning(&self) -> Option<&'static str> {
        match self {
            Self::Configured(_) | Self::Credential(_) => None,
            Self::AutoMade { .. } => Some(
                "the sealing key lies on the same disk as the state it protects; \
                 set `sealing_key` or use a systemd credential, and keep a copy apart from backups",
            ),
        }
    }
}

/// A sealing key and where it came from.
#[derive(Clone, Debug)]
pub struct LoadedSealingKey {
    /// The key.
    pub key: SealingKey,
    /// Its place.
    pub origin: SealingOrigin,
}

impl SealingKey {
    /// Finds the sealing key, or makes one beside the state folder when no other source has it.
    ///
    /// A file holds 64 hex characters or 32 raw bytes. Blocks on the disk.
    ///
    /// # Errors
    /// [`SealingError`]; a source that is there and not usable is an error, never a reason to try the next.
    pub fn load_or_create(sources: &SealingSources) -> Result<LoadedSealingKey, SealingError> {
        if let Some(path) = &sources.configured {
            refuse_inside(path, &sources.state_dir)?;
            let key = Self::load(path, sources.readers)?;
            return Ok(LoadedSealingKey { key, origin: SealingOrigin::Configured(path.clone()) });
        }
        if let Some(path) = sources.credentials_dir.as_ref().map(|dir| dir.join(CREDENTIAL_NAME))
            && path.exists()
        {
            let key = Self::load(&path, Readers::AccessList)?;
            return Ok(LoadedSealingKey { key, origin: SealingOrigin::Credential(path) });
        }
        let path = beside(&sources.state_dir)?;
        let made_now = if path.exists() { false } else { create(&path)? };
        let key = Self::load(&path, Readers::OwnerOnly)?;
        Ok(LoadedSealingKey { key, origin: SealingOrigin::AutoMade { path, made_now } })
    }

    /// A key from its bytes.
    ///
    /// # Errors
    /// [`WeakKey`] for a pattern no random source gives.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, WeakKey> {
        let key = Self(Zeroizing::new(bytes));
        if is_pattern(&key.0) { Err(WeakKey) } else { Ok(key) }
    }

    /// Seals a value for a location.
    ///
    /// # Errors
    /// [`css1::SealError`] when the library fails.
    pub fn seal(&self, location: &str, plain: &[u8]) -> Result<Vec<u8>, css1::SealError> {
        css1::seal(&self.0, location, plain)
    }

    /// Opens an envelope sealed for a location.
    ///
    /// # Errors
    /// [`css1::OpenError`], which tells another key from damage.
    pub fn open(&self, location: &str, envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, css1::OpenError> {
        css1::open(&self.0, location, envelope)
    }

    fn load(path: &Path, readers: Readers) -> Result<Self, SealingError> {
        let content = file::read_private(path, readers, MAX_FILE_BYTES)
            .map_err(|problem| SealingError::File { path: path.to_owned(), problem })?;
        let bytes = parse(&content).ok_or_else(|| SealingError::Format { path: path.to_owned() })?;
        Self::from_bytes(*bytes).map_err(|WeakKey| SealingError::Weak { path: path.to_owned() })
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey([redacted])")
    }
}

/// The bytes are a pattern: all equal, counting up or down, or two bytes in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sealing key is a pattern, not random")]
pub struct WeakKey;

/// Why there is no sealing key. No message holds any of the file's content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealingError {
    /// The file cannot be read, or others could read it too.
    #[error("sealing key `{path}` cannot be used")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        problem: FileProblem,
    },
    /// Neither 64 hex characters nor 32 raw bytes.
    #[error("sealing key `{path}` is neither 64 hex characters nor 32 bytes")]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// A pattern; see [`WeakKey`].
    #[error("sealing key `{path}` is a pattern, not random: make one with `openssl rand -hex 32`")]
    Weak {
        /// The file.
        path: PathBuf,
    },
    /// Whoever copies the state folder would have the key with it.
    #[error("sealing key `{path}` is inside the state folder")]
    InsideState {
        /// The file.
        path: PathBuf,
    },
    /// The state folder is named so that nothing can lie beside it.
    #[error("no place for a sealing key beside the state folder `{state_dir}`")]
    NoPlace {
        /// The folder.
        state_dir: PathBuf,
    },
    /// The file could not be made.
    #[error("cannot make the sealing key `{path}`")]
    Create {
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        source: io::Error,
    },
}

const MAX_FILE_BYTES: u64 = 128;

fn parse(content: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    if let Ok(raw) = <&[u8; 32]>::try_from(content) {
        // 32 hex characters are half a key in the wrong form, not 32 random bytes.
        if raw.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        key.copy_from_slice(raw);
        return Some(key);
    }
    hex::decode_to_slice(content.trim_ascii_end(), &mut key[..]).ok()?;
    Some(key)
}

fn is_pattern(key: &[u8; 32]) -> bool {
    let steps =
        |step: u8| key.iter().zip(key.iter().skip(1)).all(|(one, next)| one.wrapping_add(step) == *next);
    let alternates = key.iter().zip(key.iter().skip(2)).all(|(one, next)| one == next);
    // A single repeated byte, zero among them, alternates with itself.
    alternates || steps(1) || steps(255)
}

fn refuse_inside(path: &Path, state_dir: &Path) -> Result<(), SealingError> {
    let (Ok(file), Ok(folder)) = (path.canonicalize(), state_dir.canonicalize()) else { return Ok(()) };
    if file.starts_with(folder) {
        return Err(SealingError::InsideState { path: path.to_owned() });
    }
    Ok(())
}

/// `<parent of the state folder>/.<its name>.sealing-key`
fn beside(state_dir: &Path) -> Result<PathBuf, SealingError> {
    let no_place = || SealingError::NoPlace { state_dir: state_dir.to_owned() };
    let absolute = state_dir.canonicalize().or_else(|_missing| std::path::absolute(state_dir));
    let absolute = absolute.ok().ok_or_else(no_place)?;
    let name = absolute.file_name().ok_or_else(no_place)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".sealing-key");
    Ok(absolute.with_file_name(hidden))
}

/// Makes a new key file; false when another process was faster, whose key then counts.
fn create(path: &Path) -> Result<bool, SealingError> {
    let failed = |source| SealingError::Create { path: path.to_owned(), source };
    let mut key = Zeroizing::new([0; 32]);
    rand::fill(&mut key[..]).map_err(|_unspecified| failed(io::Error::other("no randomness")))?;
    let text = Zeroizing::new(format!("{}\n", hex::encode(&key[..])));
    match file::create_private(path, text.as_bytes()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests;
