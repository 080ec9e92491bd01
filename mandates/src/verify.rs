//! Token in, [`VerifiedMandate`] out.

use crate::claims::{Claims, Use};
use crate::compact::{Compact, Malformed};
use crate::keys::KeySet;
use crate::mandate::VerifiedMandate;

/// How far ahead of us a mandate may have been minted, in seconds: what two hosts' clocks may differ by.
pub const MAX_ISSUED_AHEAD_S: i64 = 5;

/// What the place a mandate is presented at asks for.
#[derive(Clone, Copy, Debug)]
pub struct Expect<'a> {
    /// `iss`, compared byte for byte.
    pub issuer: &'a str,
    /// One of `aud`.
    pub audience: &'a str,
    /// `zone_id`; the zone whose keys are passed in.
    pub zone: &'a str,
    /// Classes accepted here.
    pub uses: &'a [Use],
    /// Unix seconds.
    pub now: i64,
    /// Seconds a mandate is still accepted after its `exp`; 0 at our own listeners.
    pub leeway: i64,
}

/// Why a mandate is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// By its form alone.
    #[error("malformed mandate")]
    Malformed(#[from] Malformed),
    /// It names no published key of the zone: never one, retired, or revoked.
    #[error("unknown key")]
    UnknownKey,
    /// A claim is missing, empty, or of a wrong type.
    #[error("claims are not those of a mandate")]
    Claims,
    /// Another zone's.
    #[error("mandate of another zone")]
    Zone,
    /// A class that has no business here.
    #[error("mandate of a class not accepted here")]
    Class,
    /// Past its `exp`.
    #[error("expired mandate")]
    Expired,
    /// Minted more than [`MAX_ISSUED_AHEAD_S`] in the future.
    #[error("mandate issued in the future")]
    IssuedInFuture,
    /// Another authority's.
    #[error("mandate of another issuer")]
    Issuer,
    /// For someone else.
    #[error("mandate for another audience")]
    Audience,
    /// The signature does not verify; the only refusal that costs curve arithmetic.
    #[error("signature does not verify")]
    Signature,
}

impl Invalid {
    /// The code a caller is told.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Zone => "zone_invalid",
            Self::Malformed(_)
            | Self::UnknownKey
            | Self::Claims
            | Self::Class
            | Self::Expired
            | Self::IssuedInFuture
            | Self::Issuer
            | Self::Audience
            | Self::Signature => "invalid_token",
        }
    }

    /// The exact reason, for the ledger and metrics; not for the caller.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::Claims => "claims_invalid",
            Self::Zone => "wrong_zone",
            Self::Class => "wrong_class",
            Self::Expired => "expired",
            Self::IssuedInFuture => "issued_in_future",
            Self::Issuer => "wrong_issuer",
            Self::Audience => "wrong_audience",
            Self::Signature => "signature_invalid",
        }
    }
}

/// Verifies a token against a zone's published keys.
///
/// Cheap checks come first, in the order of [`Invalid`]'s variants; the signature is last, so a caller can count
/// [`Invalid::Signature`] as what it is: paid work. Cost: about 70 us for a good token (one P-256 verification).
///
/// # Errors
/// [`Invalid`], the first check that failed.
pub fn verify(keys: &KeySet, token: &str, expect: &Expect<'_>) -> Result<VerifiedMandate, Invalid> {
    let compact = Compact::parse(token)?;
    let key = keys.get(&compact.kid).ok_or(Invalid::UnknownKey)?;
    let claims = compact.claims().ok_or(Invalid::Claims)?;
    check(&claims, expect)?;
    if !key.verifies(compact.message, compact.signature) {
        return Err(Invalid::Signature);
    }
    Ok(VerifiedMandate::new(claims, token, key.kid().clone()))
}

fn check(claims: &Claims, expect: &Expect<'_>) -> Result<(), Invalid> {
    if claims.zone_id != expect.zone {
        return Err(Invalid::Zone);
    }
    if !expect.uses.contains(&claims.use_) {
        return Err(Invalid::Class);
    }
    if is_expired(claims.exp, expect.now, expect.leeway) {
        return Err(Invalid::Expired);
    }
    if is_ahead(claims.iat, expect.now, MAX_ISSUED_AHEAD_S) {
        return Err(Invalid::IssuedInFuture);
    }
    if claims.iss != expect.issuer {
        return Err(Invalid::Issuer);
    }
    if !claims.aud.iter().any(|audience| audience == expect.audience) {
        return Err(Invalid::Audience);
    }
    Ok(())
}

/// Dead in the second `exp` itself (RFC 7519 section 4.1.4: "on or after").
pub(crate) const fn is_expired(exp: i64, now: i64, leeway: i64) -> bool {
    now >= exp.saturating_add(leeway)
}

pub(crate) const fn is_ahead(iat: i64, now: i64, allowed: i64) -> bool {
    iat > now.saturating_add(allowed)
}

#[cfg(test)]
mod tests;
