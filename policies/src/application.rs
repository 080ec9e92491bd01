//! Applications: who may present a mandate, and how each proves who it is.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// A program the zone knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// The id its mandates carry as `client_id`.
    pub id: Arc<str>,
    /// For people. The id when the bundle gives none.
    pub name: String,
    /// Hashes of the secrets it may prove itself with; at most eight. None: it cannot ask for mandates.
    pub secrets: Vec<SecretHash>,
    /// Marks such as `control:invoke`.
    pub traits: Vec<String>,
    /// Requests it may have in flight at once.
    pub max_concurrent: u32,
}

/// The stored form of an application's secret.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretHash {
    /// SHA-256 of a generated secret of at least 256 bits. `sha256$<base64url, no padding>`.
    Sha256([u8; 32]),
    /// Argon2id, t=3, m=65536 KiB, p=2. `argon2id$<salt>$<hash>`, both standard base64 without padding.
    Argon2id {
        /// 16 bytes.
        salt: Vec<u8>,
        /// 32 bytes.
        hash: Vec<u8>,
    },
}

impl SecretHash {
    /// Reads the stored form, told apart by its prefix; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('$');
        let hash = match (parts.next()?, parts.next()?, parts.next()) {
            ("sha256", digest, None) => {
                Self::Sha256(<[u8; 32]>::try_from(URL_SAFE_NO_PAD.decode(digest).ok()?).ok()?)
            }
            ("argon2id", salt, Some(hash)) => {
                let salt = STANDARD_NO_PAD.decode(salt).ok()?;
                let hash = STANDARD_NO_PAD.decode(hash).ok()?;
                if salt.len() != 16 || hash.len() != 32 {
                    return None;
                }
                Self::Argon2id { salt, hash }
            }
            _ => return None,
        };
        parts.next().is_none().then_some(hash)
    }
}

/// Only the kind: a hash in a log is one more place to guess secrets from.
impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256(_) => "Sha256(..)",
            Self::Argon2id { .. } => "Argon2id(..)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_stored_forms_are_read_and_nothing_else() {
        let digest = URL_SAFE_NO_PAD.encode([7; 32]);
        assert_eq!(SecretHash::parse(&format!("sha256${digest}")), Some(SecretHash::Sha256([7; 32])));
        let salt = STANDARD_NO_PAD.encode([1; 16]);
        let hash = STANDARD_NO_PAD.encode([2; 32]);
        assert_eq!(
            SecretHash::parse(&format!("argon2id${salt}${hash}")),
            Some(SecretHash::Argon2id { salt: vec![1; 16], hash: vec![2; 32] })
        );
        for wrong in [
            String::new(),
            "cs_plain".to_owned(),
            "sha256$".to_owned(),
            format!("sha256${digest}="),
            format!("sha256${digest}$"),
            format!("SHA256${digest}"),
            format!("argon2id${salt}"),
            format!("argon2id${salt}${hash}$"),
            format!("argon2id${hash}${salt}"),
        ] {
            assert_eq!(SecretHash::parse(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn debug_shows_only_the_kind() {
        assert_eq!(format!("{:?}", SecretHash::Sha256([7; 32])), "Sha256(..)");
    }
}
