//! The published form of a zone's keys (RFC 7517), written and read.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::keys::{KeyError, KeySet, PublicKey};
use crate::strict_json;

/// The longest document that is read, in bytes. Source: the clients' contract, "JWKS".
pub const MAX_JWKS_BYTES: usize = 256 * 1024;

/// The document for a set: one object per key with `kty crv use kid alg x y`, in the order of the set.
pub(crate) fn document(keys: &KeySet) -> String {
    let keys: Vec<Value> = keys.iter().map(entry).collect();
    json!({ "keys": keys }).to_string()
}

fn entry(key: &PublicKey) -> Value {
    let (x, y) = key.coordinates();
    json!({
        "kty": "EC",
        "crv": "P-256",
        "use": "sig",
        "kid": &**key.kid(),
        "alg": "ES256",
        "x": URL_SAFE_NO_PAD.encode(x),
        "y": URL_SAFE_NO_PAD.encode(y),
    })
}

/// Why a document gives no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwksError {
    /// Longer than [`MAX_JWKS_BYTES`].
    #[error("key set longer than 256 KiB")]
    TooLong,
    /// Not one JSON object with distinct names and a list `keys`.
    #[error("key set is not a JSON object with a list `keys`")]
    Json,
    /// No key in it can verify a mandate.
    #[error("key set has no usable key")]
    Empty,
    /// Two usable keys of one name.
    #[error("key set names two keys alike")]
    DuplicateKid,
}

impl KeySet {
    /// Reads another authority's document. A key is taken when it is `kty` EC, `crv` P-256, `alg` ES256, named,
    /// for signatures (`use` absent or `sig`, `key_ops` absent or with `verify`), and a point of the curve with
    /// coordinates of exactly 32 bytes; all others are passed over.
    ///
    /// # Errors
    /// [`JwksError`]; a document without a usable key is an error, never an empty set.
    pub fn from_jwks(document: &[u8]) -> Result<Self, JwksError> {
        if document.len() > MAX_JWKS_BYTES {
            return Err(JwksError::TooLong);
        }
        let object = strict_json::object(document).ok_or(JwksError::Json)?;
        let listed = object.get("keys").and_then(Value::as_array).ok_or(JwksError::Json)?;
        let usable: Vec<PublicKey> = listed.iter().filter_map(usable).collect();
        if usable.is_empty() {
            return Err(JwksError::Empty);
        }
        Self::new(usable).map_err(|error| match error {
            KeyError::DuplicateKid => JwksError::DuplicateKid,
            KeyError::Kid | KeyError::Point | KeyError::Private => JwksError::Empty,
        })
    }
}

fn usable(entry: &Value) -> Option<PublicKey> {
    let text = |name| entry.get(name).and_then(Value::as_str);
    let fits = text("kty") == Some("EC") && text("crv") == Some("P-256") && text("alg") == Some("ES256");
    let for_signatures = entry.get("use").is_none_or(|word| word.as_str() == Some("sig"));
    let verifies = |list: &Value| {
        list.as_array().is_some_and(|list| list.iter().any(|word| word.as_str() == Some("verify")))
    };
    if !fits || !for_signatures || !entry.get("key_ops").is_none_or(verifies) {
        return None;
    }
    let coordinate = |name| <[u8; 32]>::try_from(URL_SAFE_NO_PAD.decode(text(name)?).ok()?).ok();
    PublicKey::from_coordinates(text("kid")?, coordinate("x")?, coordinate("y")?).ok()
}

#[cfg(test)]
mod tests;
