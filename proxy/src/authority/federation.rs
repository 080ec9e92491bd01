//! Federated subjects: an identity token of a registered issuer becomes a person's session mandate.
//!
//! The token is read (`token`), its issuer looked up in the zone's bundle, its key in the issuer's published set
//! (`keys`, fetched by `fetch`), its signature and claims checked (`key`, `token`), and its subject (`subject`).
//! What comes out carries no scope and no target: it proves who a session acts for, and nothing else.

mod fetch;
mod key;
mod keys;
mod subject;
mod token;

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use caracal_policies::SubjectIssuer;

use self::fetch::Fetcher;
use self::keys::{KeySets, NoKey};
use self::token::IdToken;
use super::exchange::{self, Asked, Issued, Trail};
use super::refused::Refused;
use crate::config::FederationConfig;
use crate::egress::Egress;
use crate::state::MarkError;

/// The policy a federation is allowed by, in records.
pub(super) const POLICY: &str = "caracal-subject-federation";

/// Seconds `exp` and `iat` may be off.
const LEEWAY_S: i64 = 60;
/// Seconds `iat` may be ahead where each token is good once; see [`Federation::use_up`].
const SINGLE_USE_LEEWAY_S: i64 = 5;

/// Why an identity token is not accepted. All but [`Rejected::KeysUnavailable`] and [`Rejected::Capacity`] are the
/// caller's to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    /// Not a compact JWS of three parts with JSON objects, or too long.
    Malformed,
    /// An algorithm we do not take, an extension we do not know, or another type of token.
    Header,
    /// It names no key.
    NoKid,
    /// Its issuer is none of the zone's.
    Issuer,
    /// Its issuer publishes no such key for this algorithm.
    UnknownKey,
    Signature,
    Audience,
    Expired,
    /// Issued in the future, or not valid yet.
    NotYet,
    /// A claim is missing or of a wrong type.
    Claims,
    /// Its subject cannot be told apart from something else.
    Subject,
    /// It was exchanged before, and its issuer's tokens are good once.
    Used,
    /// It may have been exchanged before this process began, and its issuer's tokens are good once.
    BeforeStart,
    /// The issuer's keys cannot be had now.
    KeysUnavailable,
    /// There is no room to remember that it was used.
    Capacity,
}

impl Rejected {
    /// What the caller is told.
    pub(super) const fn description(self) -> &'static str {
        match self {
            Self::Malformed => "the identity token is not a signed JSON web token",
            Self::Header => "the identity token has an algorithm, extension or type that is not accepted",
            Self::NoKid => "the identity token names no key",
            Self::Issuer => "the issuer of the identity token is not registered for this zone",
            Self::UnknownKey => "the key of the identity token is not published by its issuer",
            Self::Signature => "the signature of the identity token does not verify",
            Self::Audience => "the identity token is for another audience",
            Self::Expired => "the identity token has expired",
            Self::NotYet => "the identity token is not valid yet",
            Self::Claims => "the identity token lacks a claim or has one of a wrong type",
            Self::Subject => "the subject of the identity token cannot be used",
            Self::Used => "the identity token was used before",
            Self::BeforeStart => "the identity token was issued before this authority started",
            Self::KeysUnavailable => "the keys of the identity token's issuer cannot be fetched now",
            Self::Capacity => "no more identity tokens can be remembered now",
        }
    }

    /// The word in the ledger.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Header => "header_not_accepted",
            Self::NoKid => "key_not_named",
            Self::Issuer => "issuer_not_registered",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature_invalid",
            Self::Audience => "wrong_audience",
            Self::Expired => "expired",
            Self::NotYet => "not_yet_valid",
            Self::Claims => "claims_invalid",
            Self::Subject => "subject_not_usable",
            Self::Used => "used_before",
            Self::BeforeStart => "issued_before_start",
            Self::KeysUnavailable => "keys_unavailable",
            Self::Capacity => "capacity",
        }
    }

    /// Whether the same token may well be accepted later.
    pub(super) const fn passes(self) -> bool {
        matches!(self, Self::KeysUnavailable | Self::Capacity)
    }
}

/// Exchanges identity tokens; holds the issuers' keys.
#[derive(Debug)]
pub(super) struct Federation {
    sets: KeySets,
    /// Unix seconds.
    started_at: i64,
}

impl Federation {
    /// `now` is unix seconds.
    pub(super) fn new(config: &FederationConfig, egress: Arc<Egress>, now: i64) -> Self {
        let fetcher = Fetcher::new(config.ca_file.clone(), egress);
        Self { sets: KeySets::new(Arc::new(fetcher)), started_at: now }
    }

    /// Exchanges an identity token for the session mandate of its subject.
    ///
    /// # Errors
    /// Why no mandate was issued.
    pub(super) async fn exchange(
        &self,
        asked: &Asked<'_>,
        token: &str,
        trail: &mut Trail,
    ) -> Result<Issued, Refused> {
        let Asked { app, zone, form, .. } = *asked;
        if form.asks_for_authority() {
            return Err(Refused::FederationFields);
        }
        if form.ttl.is_some_and(|ttl| ttl > exchange::MAX_TTL_S) {
            return Err(Refused::TtlOverCap);
        }
        exchange::standing(asked)?;
        if zone.zone.subject_issuers().next().is_none() {
            return Err(Refused::NoSubjectIssuer);
        }
        let token = IdToken::read(token)?;
        let issuer = zone.zone.subject_issuer(token.issuer()?).ok_or(Rejected::Issuer)?;
        trail.issuer = Some(Arc::clone(&issuer.issuer));
        let keys = self.sets.keys(zone.zone.id(), issuer, &token, &app.clock).await?;
        token.verify(&keys)?;
        // Fetching may have taken a while.
        let asked = Asked { now: app.clock.now(), ..*asked };
        let subject = token.check(&issuer.audience, asked.now.div_euclid(1_000))?;
        exchange::standing(&asked)?;
        if issuer.single_use {
            self.use_up(&asked, issuer, &token)?;
        }
        exchange::issue_to_user(&asked, subject, form.ttl.unwrap_or(exchange::DEFAULT_TTL_S)).await
    }

    /// Marks a token used until it has expired.
    ///
    /// Marks may be lost in a crash, so a token from before this start is refused; that `iat` is the issuer's clock
    /// is what the short leeway is for, here and against tokens from the future.
    fn use_up(&self, asked: &Asked<'_>, issuer: &SubjectIssuer, token: &IdToken<'_>) -> Result<(), Refused> {
        let (issued_at, expires_at) = token.times()?;
        let now = asked.now.div_euclid(1_000);
        if issued_at > now.saturating_add(SINGLE_USE_LEEWAY_S) {
            return Err(Rejected::NotYet.into());
        }
        if issued_at <= self.started_at.saturating_add(SINGLE_USE_LEEWAY_S) {
            return Err(Rejected::BeforeStart.into());
        }
        // Over what is signed: an ECDSA signature has a twin that verifies too (RFC 7515 does not forbid it).
        let signed = hex::encode(digest(&SHA256, token.signed().as_bytes()));
        let mark = format!("id_token {} {signed}", issuer.issuer);
        let keep_until = expires_at.saturating_add(LEEWAY_S).saturating_mul(1_000);
        let used = asked.app.state.use_once(asked.zone.zone.id(), &mark, &asked.application.id, keep_until);
        used.map_err(|error| {
            Refused::from(match error {
                MarkError::Replayed => Rejected::Used,
                MarkError::Capacity | MarkError::Stopping => Rejected::Capacity,
            })
        })
    }
}

impl From<Rejected> for Refused {
    fn from(rejected: Rejected) -> Self {
        Self::Federation(rejected)
    }
}

impl From<NoKey> for Refused {
    fn from(no: NoKey) -> Self {
        Self::Federation(match no {
            NoKey::Unknown => Rejected::UnknownKey,
            NoKey::Unavailable => Rejected::KeysUnavailable,
        })
    }
}

#[cfg(test)]
mod tests;
