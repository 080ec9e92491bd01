//! The compact form, and everything about a token that is refused before any curve arithmetic.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::claims::Claims;
use crate::strict_json;

/// The longest token that is looked at, in bytes. Source: the clients' contract, section 2.
pub const MAX_TOKEN_BYTES: usize = 4096;

/// What an unverified token says about itself. Good for choosing keys and for refusing early, never for trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peek {
    /// The key it names; well formed, not necessarily known.
    pub kid: String,
    /// The zone it names.
    pub zone_id: Option<String>,
    /// The application it names.
    pub client_id: Option<String>,
    /// When it says it dies, unix seconds.
    pub exp: Option<i64>,
    /// The class it names, not necessarily one that exists.
    pub use_: Option<String>,
}

/// Why a token is refused by its form alone. Every one of them is `invalid_token` to a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Longer than [`MAX_TOKEN_BYTES`].
    #[error("token longer than 4096 bytes")]
    TooLong,
    /// Not exactly three parts, or an empty one.
    #[error("token is not three parts")]
    Parts,
    /// A part is not canonical base64url: padding, other characters, line breaks or stray bits.
    #[error("part is not canonical base64url")]
    Base64,
    /// Header or payload is not one JSON object, or repeats a name.
    #[error("part is not one JSON object with distinct names")]
    Json,
    /// `alg` is not exactly `ES256`.
    #[error("algorithm is not ES256")]
    Algorithm,
    /// The header carries `crit`; no extension is understood (RFC 7515 section 4.1.11).
    #[error("critical header extension")]
    Critical,
    /// `typ` is there and is not `JWT`: some other kind of token.
    #[error("token type is not JWT")]
    Type,
    /// `kid` is missing, not a string, or no name one of our key files could have.
    #[error("key id is missing or not well formed")]
    Kid,
    /// The signature is not 64 bytes, so not an ES256 signature (RFC 7518 section 3.4).
    #[error("signature is not 64 bytes")]
    SignatureLength,
    /// The claim named here has a type it must not have.
    #[error("claim of a wrong type: {0}")]
    Claim(&'static str),
}

/// Reads what a token says about itself, after every check that costs no signature verification.
///
/// Cost: two base64 decodings and two JSON parses of at most [`MAX_TOKEN_BYTES`]. `jku`, `x5u`, `jwk` and `x5c`
/// in the header are ignored: a key comes from the zone's own set or not at all.
///
/// # Errors
/// [`Malformed`], the first check that failed, in the order of its variants.
pub fn peek(token: &str) -> Result<Peek, Malformed> {
    let compact = Compact::parse(token)?;
    let text = |name| compact.body.get(name).and_then(Value::as_str).map(str::to_owned);
    Ok(Peek {
        zone_id: text("zone_id"),
        client_id: text("client_id"),
        exp: compact.body.get("exp").and_then(Value::as_i64),
        use_: text("use"),
        kid: compact.kid,
    })
}

/// A token taken apart, nothing of it trusted.
pub(crate) struct Compact<'a> {
    pub(crate) kid: String,
    pub(crate) body: Map<String, Value>,
    /// Header and payload as signed.
    pub(crate) message: &'a str,
    /// The third part, still base64url; 64 bytes when decoded.
    pub(crate) signature: &'a str,
}

impl<'a> Compact<'a> {
    pub(crate) fn parse(token: &'a str) -> Result<Self, Malformed> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Malformed::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(Malformed::Parts)?;
        let (header, payload) = message.split_once('.').ok_or(Malformed::Parts)?;
        if payload.contains('.') || header.is_empty() || payload.is_empty() || signature.is_empty() {
            return Err(Malformed::Parts);
        }
        let (header, payload, signed) = (decode(header)?, decode(payload)?, decode(signature)?);
        let header = strict_json::object(&header).ok_or(Malformed::Json)?;
        let body = strict_json::object(&payload).ok_or(Malformed::Json)?;
        let kid = check_header(&header)?;
        if signed.len() != 64 {
            return Err(Malformed::SignatureLength);
        }
        check_body(&body)?;
        Ok(Self { kid, body, message, signature })
    }

    /// The claims with their exact types; `None` when one has another type or a content no mandate may have.
    pub(crate) fn claims(&self) -> Option<Claims> {
        let claims: Claims = serde_json::from_value(Value::Object(self.body.clone())).ok()?;
        claims.problem().is_none().then_some(claims)
    }
}

/// Whether a key id is one to look up: 1 to 128 of `A-Z a-z 0-9 . _ -`, the first a letter or digit.
pub(crate) fn is_sane_kid(kid: &str) -> bool {
    kid.len() <= 128
        && kid.starts_with(|first: char| first.is_ascii_alphanumeric())
        && kid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn check_header(header: &Map<String, Value>) -> Result<String, Malformed> {
    if header.get("alg").and_then(Value::as_str) != Some("ES256") {
        return Err(Malformed::Algorithm);
    }
    if header.contains_key("crit") {
        return Err(Malformed::Critical);
    }
    let is_jwt = |typ: &Value| typ.as_str().is_some_and(|typ| typ.eq_ignore_ascii_case("JWT"));
    if !header.get("typ").is_none_or(is_jwt) {
        return Err(Malformed::Type);
    }
    let kid = header.get("kid").and_then(Value::as_str).filter(|kid| is_sane_kid(kid));
    kid.map(str::to_owned).ok_or(Malformed::Kid)
}

fn check_body(body: &Map<String, Value>) -> Result<(), Malformed> {
    for name in ["exp", "iat"] {
        let is_time = |value: &Value| value.as_i64().is_some_and(|seconds| seconds >= 0);
        if !body.get(name).is_none_or(is_time) {
            return Err(Malformed::Claim(name));
        }
    }
    for name in ["zone_id", "client_id", "use"] {
        if !body.get(name).is_none_or(Value::is_string) {
            return Err(Malformed::Claim(name));
        }
    }
    Ok(())
}

/// The engine refuses padding and non-zero trailing bits, so every byte string has one spelling.
fn decode(part: &str) -> Result<Vec<u8>, Malformed> {
    URL_SAFE_NO_PAD.decode(part).ok().ok_or(Malformed::Base64)
}
