//! Token to [`VerifiedMandate`]: what a signature proves, and nothing about whether it still stands.
//!
//! A verified mandate is cached under the digest of the whole token together with the key generation of its
//! zone. A mandate minted by this process enters at mint, so that mint-then-call pays one signature and no
//! verification.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use caracal_mandates::{Expect, Invalid, Use, VerifiedMandate, digest, peek, verify};
use moka::sync::Cache;

use super::refusal::Refusal;
use crate::app::App;
use crate::keyring::Keyring;

/// A mandate with less life than this is refused, in seconds: the call it pays for might outlive it.
pub const MIN_REMAINING_S: i64 = 35;

/// Clock leeway for expiry and issue time, in seconds.
pub const LEEWAY_S: i64 = 60;

/// Verified mandates by token digest.
#[derive(Debug)]
pub struct ClaimsCache(Cache<[u8; 32], (u64, VerifiedMandate)>);

impl ClaimsCache {
    /// A cache for at most `entries` mandates.
    #[must_use]
    pub fn new(entries: u64) -> Self {
        let longest_life = std::time::Duration::from_secs(3_700);
        Self(Cache::builder().max_capacity(entries).time_to_live(longest_life).build())
    }

    /// Keeps a mandate that was verified, or just minted, under this key generation.
    pub fn prime(&self, generation: u64, mandate: &VerifiedMandate) {
        self.0.insert(*mandate.digest(), (generation, mandate.clone()));
    }

    /// The mandate of this digest, if the keys of its own zone are still those it was verified under.
    fn find(&self, digest: &[u8; 32], keyring: &Keyring) -> Option<VerifiedMandate> {
        let (made, mandate) = self.0.get(digest)?;
        let keys = keyring.zone(&mandate.claims().zone_id)?;
        (keys.generation == made).then_some(mandate)
    }

    /// Forgets a single-use mandate that has been used; nothing will ask for it again.
    pub fn forget(&self, mandate: &VerifiedMandate) {
        self.0.invalidate(mandate.digest());
    }
}

/// Where a verification came from; a label for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The claims cache.
    Hit,
    /// A signature was verified.
    Miss,
}

/// A token as presented, and what this process has proven of it before.
pub struct Shown<'a> {
    token: Cow<'a, str>,
    known: Option<VerifiedMandate>,
}

impl<'a> Shown<'a> {
    /// Looks the token up among the verified ones. Cost: one SHA-256 and one lookup.
    #[must_use]
    pub fn new(app: &App, token: Cow<'a, str>) -> Self {
        let known = app.claims.find(&digest(&token), &app.keyring);
        Self { token, known }
    }

    /// The token, as presented.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }
}

/// Without the token.
impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").field("known", &self.known).finish_non_exhaustive()
    }
}

/// The ids a token claims. Those of an unknown one are good for choosing keys and for nothing else.
#[derive(Debug)]
pub struct Claimed<'s> {
    /// Its zone.
    pub zone_id: Option<Cow<'s, str>>,
    /// Its application.
    pub client_id: Option<Cow<'s, str>>,
}

/// Reads what can be read before a key is chosen, in the order the contract fixes. A token that was verified
/// before has passed these checks, all but that of the time it has left, and is not taken apart again.
///
/// # Errors
/// [`Refusal::TokenMalformed`], [`Refusal::TokenExpiring`].
pub fn preview<'s>(shown: &'s Shown<'_>, now_s: i64) -> Result<Claimed<'s>, Refusal> {
    let (exp, claimed) = if let Some(claims) = shown.known.as_ref().map(VerifiedMandate::claims) {
        let own = |id: &'s str| Some(Cow::Borrowed(id));
        (Some(claims.exp), Claimed { zone_id: own(&claims.zone_id), client_id: own(&claims.client_id) })
    } else {
        let peeked = peek(&shown.token).map_err(|_malformed| Refusal::TokenMalformed)?;
        let zone_id = peeked.zone_id.map(Cow::Owned);
        (peeked.exp, Claimed { zone_id, client_id: peeked.client_id.map(Cow::Owned) })
    };
    let exp = exp.filter(|exp| *exp != 0).ok_or(Refusal::TokenMalformed)?;
    if exp.saturating_sub(now_s) < MIN_REMAINING_S {
        return Err(Refusal::TokenExpiring);
    }
    Ok(claimed)
}

/// Proves a gateway mandate of `zone`.
///
/// # Errors
/// [`Refusal::TokenInvalid`] for everything a signature, issuer, audience, zone or class can get wrong;
/// [`Refusal::TooManyFailures`] once an address has spent its allowance, never for a mandate in the cache.
pub fn gateway_mandate(
    app: &App,
    zone: &str,
    shown: &Shown<'_>,
    peer: IpAddr,
    now_s: i64,
) -> Result<(VerifiedMandate, Source), Refusal> {
    if let Some(mandate) = &shown.known {
        let claims = mandate.claims();
        // The zone a token was verified in is not always the one it is presented in.
        return if claims.zone_id == zone && claims.use_ == Use::Gateway && claims.exp > now_s {
            Ok((mandate.clone(), Source::Hit))
        } else {
            Err(Refusal::TokenInvalid)
        };
    }
    let keys = app.keyring.zone(zone).ok_or(Refusal::TokenInvalid)?;
    if !app.failures.allows(peer, app.clock.now()) {
        return Err(Refusal::TooManyFailures);
    }
    let issuer = app.config.issuer.as_str();
    let expect =
        Expect { issuer, audience: issuer, zone, uses: &[Use::Gateway], now: now_s, leeway: LEEWAY_S };
    let mandate = verify(keys.keys.public(), &shown.token, &expect).map_err(|invalid| {
        // Only a wrong signature cost us curve arithmetic.
        if invalid == Invalid::Signature {
            app.failures.count(peer, app.clock.now());
        }
        Refusal::TokenInvalid
    })?;
    app.claims.prime(keys.generation, &mandate);
    Ok((mandate, Source::Miss))
}
