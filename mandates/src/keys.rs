//! A zone's keys: one that signs, and every one that is published.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, ParsedPublicKey,
    UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use serde_json::json;

use crate::claims::Claims;
use crate::compact::{MAX_TOKEN_BYTES, is_sane_kid};
use crate::jwks;
use crate::mandate::{Minted, VerifiedMandate};

/// One zone's keys at one moment; a change makes a new value.
///
/// Shape: the signing key, and the published set that has it and those before and after it: a key that will sign
/// soon, so that verifiers with a cached set know it in time, and those whose mandates are still alive. A revoked
/// key is simply not in the set.
#[derive(Debug)]
pub struct ZoneKeys {
    signing: Arc<SigningKey>,
    public: KeySet,
    jwks: String,
}

impl ZoneKeys {
    /// Keys that sign with `signing` and publish it together with `others`.
    ///
    /// # Errors
    /// [`KeyError::DuplicateKid`] when two keys have one name.
    pub fn new(
        signing: Arc<SigningKey>,
        others: impl IntoIterator<Item = PublicKey>,
    ) -> Result<Self, KeyError> {
        let mut keys = vec![signing.public().clone()];
        keys.extend(others);
        let public = KeySet::new(keys)?;
        let jwks = jwks::document(&public);
        Ok(Self { signing, public, jwks })
    }

    /// Signs claims. Empty optional claims are left out of the token.
    ///
    /// # Errors
    /// [`SignError::Claims`] for claims no verifier would accept, [`SignError::TooLong`] for a token over
    /// [`MAX_TOKEN_BYTES`], [`SignError::Signature`] when the library fails.
    pub fn mint(&self, claims: Claims) -> Result<Minted, SignError> {
        let claims = claims.without_blanks();
        if let Some(name) = claims.problem() {
            return Err(SignError::Claims(name));
        }
        let payload = serde_json::to_vec(&claims).ok().ok_or(SignError::Signature)?;
        let token = self.signing.sign(&payload)?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(SignError::TooLong);
        }
        let mandate = VerifiedMandate::new(claims, &token, self.signing.public().kid().clone());
        Ok(Minted { token, mandate })
    }

    /// The JWK set (RFC 7517 section 5) as JSON text, ready to serve.
    #[must_use]
    pub fn jwks(&self) -> &str {
        &self.jwks
    }

    /// Every key mandates of this zone may be signed with.
    #[must_use]
    pub const fn public(&self) -> &KeySet {
        &self.public
    }

    /// Name of the key that signs.
    #[must_use]
    pub fn kid(&self) -> &str {
        self.signing.public().kid()
    }
}

/// Public keys by name, in the order of publication.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<PublicKey>);

impl KeySet {
    /// A set of keys.
    ///
    /// # Errors
    /// [`KeyError::DuplicateKid`] when two keys have one name.
    pub fn new(keys: Vec<PublicKey>) -> Result<Self, KeyError> {
        let mut names: Vec<&str> = keys.iter().map(|key| &**key.kid()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(KeyError::DuplicateKid);
        }
        Ok(Self(keys))
    }

    /// The key of this name. Cost: a scan; a zone publishes two or three.
    #[must_use]
    pub fn get(&self, kid: &str) -> Option<&PublicKey> {
        self.0.iter().find(|key| &*key.kid == kid)
    }

    /// The keys, in the order of publication.
    pub fn iter(&self) -> impl Iterator<Item = &PublicKey> {
        self.0.iter()
    }

    /// Whether no token can verify against it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A P-256 public key with its name; on the curve by construction.
#[derive(Clone)]
pub struct PublicKey {
    kid: Arc<str>,
    x: [u8; 32],
    y: [u8; 32],
    /// Parsed and checked once, not for every token.
    parsed: ParsedPublicKey,
}

impl PublicKey {
    /// A key from its affine coordinates, big endian.
    ///
    /// # Errors
    /// [`KeyError::Kid`] for a name with other characters than letters, digits, `.`, `_` and `-`;
    /// [`KeyError::Point`] for a point that is not on the curve.
    pub fn from_coordinates(kid: &str, x: [u8; 32], y: [u8; 32]) -> Result<Self, KeyError> {
        if !is_sane_kid(kid) {
            return Err(KeyError::Kid);
        }
        let point = [&[4][..], &x, &y].concat();
        let parsed = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).parse();
        Ok(Self { kid: kid.into(), x, y, parsed: parsed.ok().ok_or(KeyError::Point)? })
    }

    /// Its name.
    #[must_use]
    pub const fn kid(&self) -> &Arc<str> {
        &self.kid
    }

    /// The affine coordinates, big endian.
    #[must_use]
    pub const fn coordinates(&self) -> (&[u8; 32], &[u8; 32]) {
        (&self.x, &self.y)
    }

    /// Whether `signature` (base64url of `r || s`, RFC 7518 section 3.4) is this key's over `message`.
    pub(crate) fn verifies(&self, message: &str, signature: &str) -> bool {
        es256(&self.parsed, message.as_bytes(), signature)
    }
}

/// The one verification primitive; the Wycheproof vectors run against it.
fn es256(key: &ParsedPublicKey, message: &[u8], signature: &str) -> bool {
    URL_SAFE_NO_PAD.decode(signature).is_ok_and(|signature| key.verify_sig(message, &signature).is_ok())
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// A P-256 private key; wiped when dropped.
pub struct SigningKey {
    public: PublicKey,
    /// Parsed and checked once, not for every token.
    pair: EcdsaKeyPair,
    encoding: EncodingKey,
    /// The JOSE header of everything it signs, base64url.
    header: String,
}

impl SigningKey {
    /// A new random key of this name.
    ///
    /// # Errors
    /// [`KeyError::Kid`] for an unusable name, [`KeyError::Private`] when the library fails.
    pub fn generate(kid: &str) -> Result<Self, KeyError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .ok()
            .ok_or(KeyError::Private)?;
        Self::from_pkcs8(kid, document.as_ref())
    }

    /// A key from its PKCS#8 encoding (RFC 5208).
    ///
    /// # Errors
    /// [`KeyError::Kid`] for an unusable name, [`KeyError::Private`] when it is not a P-256 private key.
    pub fn from_pkcs8(kid: &str, pkcs8: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)
            .ok()
            .ok_or(KeyError::Private)?;
        let (x, y) = coordinates(pair.public_key().as_ref()).ok_or(KeyError::Private)?;
        let public = PublicKey::from_coordinates(kid, x, y)?;
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": kid}).to_string();
        let encoding = EncodingKey::from_ec_der(pkcs8);
        Ok(Self { public, pair, encoding, header: URL_SAFE_NO_PAD.encode(header) })
    }

    /// The private key as PKCS#8, for sealing. Whoever copies it wipes the copy.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        self.encoding.as_bytes()
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The compact token over a payload.
    pub(crate) fn sign(&self, payload: &[u8]) -> Result<String, SignError> {
        let mut token = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(payload));
        let signature = self.pair.sign(&SystemRandom::new(), token.as_bytes());
        let signature = signature.ok().ok_or(SignError::Signature)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.public.kid).finish_non_exhaustive()
    }
}

/// Why a key or a set of keys cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// An empty name, or one with unusual characters.
    #[error("key id is not well formed")]
    Kid,
    /// Not a point of P-256.
    #[error("public key is not a point of P-256")]
    Point,
    /// Not a P-256 private key in PKCS#8, or none could be made.
    #[error("private key cannot be used")]
    Private,
    /// Two keys of one name.
    #[error("two keys have the same id")]
    DuplicateKid,
}

/// Why a mandate cannot be minted. All of them are faults of ours, not of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The claim named here is missing or empty.
    #[error("claim no mandate may have: {0}")]
    Claims(&'static str),
    /// The token would be longer than any listener accepts.
    #[error("mandate longer than 4096 bytes")]
    TooLong,
    /// The signature library failed.
    #[error("signature failed")]
    Signature,
}

/// Splits an uncompressed point (SEC 1 section 2.3.3): 0x04, x, y.
fn coordinates(point: &[u8]) -> Option<([u8; 32], [u8; 32])> {
    let (tag, rest) = point.split_first()?;
    let (x, y) = rest.split_first_chunk::<32>()?;
    (*tag == 4).then_some((*x, y.try_into().ok()?))
}

#[cfg(test)]
mod tests;
