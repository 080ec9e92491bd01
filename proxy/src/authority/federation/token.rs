//! An identity token (OpenID Connect Core section 2): read without belief, then verified and checked.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use caracal_mandates::json_object;
use serde_json::{Map, Value};

use super::key::{Algorithm, Key};
use super::subject;
use super::{LEEWAY_S, Rejected};

/// Bytes of a token; those with many groups in them have a few thousand.
const MAX_TOKEN: usize = 16 * 1024;

/// A token that could be read. Nothing in it is believed before [`IdToken::verify`].
pub(super) struct IdToken<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    algorithm: Algorithm,
    kid: String,
    claims: Map<String, Value>,
}

impl<'a> IdToken<'a> {
    /// Reads a compact JWS (RFC 7515 section 7.1).
    pub(super) fn read(token: &'a str) -> Result<Self, Rejected> {
        if token.len() > MAX_TOKEN {
            return Err(Rejected::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Rejected::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Rejected::Malformed)?;
        let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).ok().ok_or(Rejected::Malformed);
        let object = |part: &str| json_object(&bytes(part)?).ok_or(Rejected::Malformed);
        let (header, claims) = (object(header)?, object(payload)?);
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::from_word);
        let algorithm = algorithm.ok_or(Rejected::Header)?;
        let is_jwt = |word: &Value| {
            word.as_str().is_some_and(|word| {
                word.eq_ignore_ascii_case("JWT") || word.eq_ignore_ascii_case("application/jwt")
            })
        };
        // `at+jwt` is an access token (RFC 9068), meant for somebody else.
        if header.contains_key("crit") || !header.get("typ").is_none_or(is_jwt) {
            return Err(Rejected::Header);
        }
        let kid = header.get("kid").and_then(Value::as_str).filter(|kid| !kid.is_empty());
        let kid = kid.ok_or(Rejected::NoKid)?.to_owned();
        Ok(Self { signed, signature: bytes(signature)?, algorithm, kid, claims })
    }

    /// Header and payload as they were signed.
    pub(super) const fn signed(&self) -> &str {
        self.signed
    }

    /// `iss`, for looking up whom to ask for keys.
    pub(super) fn issuer(&self) -> Result<&str, Rejected> {
        self.text("iss")
    }

    /// Whether the token is to be verified with this key.
    pub(super) fn wants(&self, key: &Key) -> bool {
        key.is_for(&self.kid, self.algorithm)
    }

    /// Verifies the signature; one of the keys it names must have made it.
    pub(super) fn verify(&self, keys: &[Key]) -> Result<(), Rejected> {
        let mut named = keys.iter().filter(|key| self.wants(key));
        if named.any(|key| key.verifies(self.algorithm, self.signed.as_bytes(), &self.signature)) {
            return Ok(());
        }
        Err(Rejected::Signature)
    }

    /// Checks the claims at `now`, unix seconds; gives the subject. The issuer has been looked up by its exact name.
    pub(super) fn check(&self, audience: &str, now: i64) -> Result<&str, Rejected> {
        if !self.claims.get("aud").is_some_and(|aud| names(aud, audience)) {
            return Err(Rejected::Audience);
        }
        let (issued_at, expires_at) = self.times()?;
        if now >= expires_at.saturating_add(LEEWAY_S) {
            return Err(Rejected::Expired);
        }
        let not_before = match self.claims.get("nbf") {
            Some(_) => self.seconds("nbf")?,
            None => issued_at,
        };
        if issued_at.max(not_before) > now.saturating_add(LEEWAY_S) {
            return Err(Rejected::NotYet);
        }
        let subject = self.text("sub")?;
        if subject::is_usable(subject) { Ok(subject) } else { Err(Rejected::Subject) }
    }

    /// `iat` and `exp`.
    pub(super) fn times(&self) -> Result<(i64, i64), Rejected> {
        Ok((self.seconds("iat")?, self.seconds("exp")?))
    }

    fn text(&self, name: &str) -> Result<&str, Rejected> {
        self.claims.get(name).and_then(Value::as_str).ok_or(Rejected::Claims)
    }

    /// A whole number of seconds. RFC 7519 allows fractions; no issuer is known to write them.
    fn seconds(&self, name: &str) -> Result<i64, Rejected> {
        self.claims.get(name).and_then(Value::as_i64).ok_or(Rejected::Claims)
    }
}

fn names(audience: &Value, wanted: &str) -> bool {
    let is_it = |name: &Value| name.as_str() == Some(wanted);
    is_it(audience) || audience.as_array().is_some_and(|list| list.iter().any(is_it))
}

impl std::fmt::Debug for IdToken<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdToken").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}
