//! The sealed envelope for secrets at rest: a random data key seals the value, the sealing key seals the data
//! key.
//!
//! Layout, in bytes: `CSS1` (4) | id of the sealing key (8) | nonce (12) | data key and tag (48) | nonce (12) |
//! value and tag (n + 16). Both layers are ChaCha20-Poly1305 (RFC 8439). The value is bound to its *location*, a
//! string that says what it is, so that one sealed value cannot be put in the place of another.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

/// The location of a zone's private signing key.
pub const ZONE_SIGNING_KEY: &str = "caracal/secrets/zoneSigningKey";

/// Seals a value for a location.
///
/// # Errors
/// [`SealError`] when the random source or the cipher fails.
pub fn seal(kek: &[u8; 32], location: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut fresh = Fresh { data_key: Zeroizing::new([0; 32]), key_nonce: [0; 12], value_nonce: [0; 12] };
    for buffer in [&mut fresh.data_key[..], &mut fresh.key_nonce, &mut fresh.value_nonce] {
        rand::fill(buffer).ok().ok_or(SealError)?;
    }
    seal_with(kek, location, plain, &fresh)
}

/// Opens an envelope that was sealed for this location.
///
/// # Errors
/// [`OpenError::NotAnEnvelope`] for other bytes, [`OpenError::OtherKey`] when another key sealed it,
/// [`OpenError::Damaged`] when it was changed or belongs to another location.
pub fn open(kek: &[u8; 32], location: &str, envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let parts = Parts::split(envelope).ok_or(OpenError::NotAnEnvelope)?;
    if *parts.key_id != key_id(kek) {
        return Err(OpenError::OtherKey);
    }
    let data_key = unseal(kek, parts.key_nonce, DATA_KEY_AAD, parts.data_key).ok_or(OpenError::Damaged)?;
    let data_key = Zeroizing::new(<[u8; 32]>::try_from(data_key.as_slice()).ok().ok_or(OpenError::Damaged)?);
    unseal(&data_key, parts.value_nonce, location, parts.value).ok_or(OpenError::Damaged)
}

/// The name of a sealing key inside its envelopes: the first 8 bytes of its SHA-256.
#[must_use]
pub fn key_id(kek: &[u8; 32]) -> [u8; 8] {
    let mut id = [0; 8];
    for (to, from) in id.iter_mut().zip(digest(&SHA256, kek).as_ref()) {
        *to = *from;
    }
    id
}

/// Sealing failed: no randomness, or the cipher refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot seal")]
pub struct SealError;

/// Why an envelope does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No `CSS1` at its beginning, or too short.
    #[error("not a sealed envelope")]
    NotAnEnvelope,
    /// Sealed with another sealing key.
    #[error("sealed with another key")]
    OtherKey,
    /// Changed since, or sealed for another location.
    #[error("sealed envelope is damaged or from another place")]
    Damaged,
}

const MAGIC: &[u8] = b"CSS1";
const DATA_KEY_AAD: &str = "caracal.css1.dek";

/// What must be new for each envelope: a nonce used twice under one key would give the value away.
struct Fresh {
    data_key: Zeroizing<[u8; 32]>,
    key_nonce: [u8; 12],
    value_nonce: [u8; 12],
}

struct Parts<'a> {
    key_id: &'a [u8; 8],
    key_nonce: &'a [u8; 12],
    data_key: &'a [u8; 48],
    value_nonce: &'a [u8; 12],
    value: &'a [u8],
}

impl<'a> Parts<'a> {
    fn split(envelope: &'a [u8]) -> Option<Self> {
        let rest = envelope.strip_prefix(MAGIC)?;
        let (key_id, rest) = rest.split_first_chunk()?;
        let (key_nonce, rest) = rest.split_first_chunk()?;
        let (data_key, rest) = rest.split_first_chunk()?;
        let (value_nonce, value) = rest.split_first_chunk()?;
        Some(Self { key_id, key_nonce, data_key, value_nonce, value })
    }
}

fn seal_with(kek: &[u8; 32], location: &str, plain: &[u8], fresh: &Fresh) -> Result<Vec<u8>, SealError> {
    let data_key = seal_one(kek, &fresh.key_nonce, DATA_KEY_AAD, &fresh.data_key[..])?;
    let value = seal_one(&fresh.data_key, &fresh.value_nonce, location, plain)?;
    Ok([MAGIC, &key_id(kek), &fresh.key_nonce, &data_key, &fresh.value_nonce, &value].concat())
}

fn seal_one(key: &[u8; 32], nonce: &[u8; 12], aad: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
    // Room for the tag, so that the plain bytes are not left behind by a reallocation.
    let mut buffer = Vec::with_capacity(plain.len().saturating_add(CHACHA20_POLY1305.tag_len()));
    buffer.extend_from_slice(plain);
    let nonce = Nonce::assume_unique_for_key(*nonce);
    cipher(key)
        .and_then(|cipher| {
            cipher.seal_in_place_append_tag(nonce, Aad::from(aad.as_bytes()), &mut buffer).ok()
        })
        .ok_or(SealError)?;
    Ok(buffer)
}

fn unseal(key: &[u8; 32], nonce: &[u8; 12], aad: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut buffer = Zeroizing::new(sealed.to_vec());
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let plain = cipher(key)?.open_in_place(nonce, Aad::from(aad.as_bytes()), &mut buffer).ok()?.len();
    buffer.truncate(plain);
    Some(buffer)
}

fn cipher(key: &[u8; 32]) -> Option<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, key).ok().map(LessSafeKey::new)
}

#[cfg(test)]
mod tests;
