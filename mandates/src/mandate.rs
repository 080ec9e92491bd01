//! The proof that a token was verified.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest as hash};

use crate::claims::Claims;

/// A mandate whose signature, class, zone, issuer, audience and life were checked, or that was minted here.
///
/// Only this crate makes one, so a function that takes it cannot be reached with an unchecked token:
///
/// ```compile_fail,E0451
/// use std::sync::Arc;
/// use caracal_mandates::{Claims, VerifiedMandate};
/// fn forge(claims: Arc<Claims>) -> VerifiedMandate {
///     VerifiedMandate { claims, digest: [0; 32], kid: "k".into() }
/// }
/// ```
///
/// while reading one needs nothing:
///
/// ```
/// use std::sync::Arc;
/// use caracal_mandates::{Claims, VerifiedMandate};
/// fn read(mandate: VerifiedMandate) -> (Arc<Claims>, [u8; 32], Arc<str>) {
///     (mandate.claims().clone(), *mandate.digest(), mandate.kid().clone())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct VerifiedMandate {
    claims: Arc<Claims>,
    digest: [u8; 32],
    kid: Arc<str>,
}

impl VerifiedMandate {
    pub(crate) fn new(claims: Claims, token: &str, kid: Arc<str>) -> Self {
        Self { claims: Arc::new(claims), digest: digest(token), kid }
    }

    /// What it says.
    #[must_use]
    pub const fn claims(&self) -> &Arc<Claims> {
        &self.claims
    }

    /// SHA-256 of the whole compact token.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The key that signed it.
    #[must_use]
    pub const fn kid(&self) -> &Arc<str> {
        &self.kid
    }
}

/// A new token and its proof.
#[derive(Clone)]
pub struct Minted {
    /// The compact token: a credential, so it has no place in a log.
    pub token: String,
    /// What a verifier of the token would get.
    pub mandate: VerifiedMandate,
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minted").field("token", &"[redacted]").field("mandate", &self.mandate).finish()
    }
}

/// SHA-256 of a compact token: the key of caches and marks, so that they hold no credential.
#[must_use]
pub fn digest(token: &str) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(hash(&SHA256, token.as_bytes()).as_ref()) {
        *to = *from;
    }
    out
}
