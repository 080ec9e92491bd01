//! What a resource server does with the mandate the gateway sent it: the checks of a protected application, as a
//! library without I/O.
//!
//! The caller fetches the key set from [`Verifier::jwks_url`], keeps it for about five minutes, and feeds a
//! [`Revocations`] store; everything else is here. Codes and their order are those of the official verifiers.
//!
//! ```
//! use std::sync::Arc;
//! use caracal_mandates::KeySet;
//! use caracal_mandates::resource_server::{MemoryRevocations, Settings, Verifier, bearer};
//!
//! let settings = Settings::new("https://authority.example", "resource://billing", "prod");
//! let verifier = Verifier::new(settings, Arc::new(MemoryRevocations::default()));
//! let keys = KeySet::default(); // KeySet::from_jwks(&document)?
//! let outcome = bearer(Some("Bearer not-a-mandate"))
//!     .and_then(|token| verifier.verify(&keys, token, 1_790_000_000));
//! assert_eq!(outcome.unwrap_err().code(), "invalid_token");
//! ```

mod feed;
mod issuer;
mod refused;
mod revocations;

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::claims::{Claims, SubjectType, Use, scopes};
use crate::compact::Compact;
use crate::keys::KeySet;
use crate::mandate::VerifiedMandate;
use crate::verify::{is_ahead, is_expired};

pub use feed::{EPOCH_PREFIX, Heard, REVOKED_PREFIX, RevocationFeed, STREAMS, SUSPENDED_PREFIX};
pub use refused::Refused;
pub use revocations::{
    MAX_REVOCATIONS, MemoryRevocations, REVOCATION_LIFE_MS, Revocations, StoreFailed, StoreFull,
};

/// Seconds `exp` and `iat` may be off. Source: the official verifiers.
pub const LEEWAY_S: i64 = 60;

/// The longest delegation accepted unless [`Settings::max_hop_count`] says otherwise.
pub const DEFAULT_MAX_HOPS: u32 = 10;

/// Whether something must be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Need {
    /// Fine without.
    #[default]
    Optional,
    /// Refused without.
    Required,
}

/// Where the key set may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// https, or http on a loopback host.
    #[default]
    SecureOrLoopback,
    /// Any http; whoever sits between may then choose the keys.
    AnyHttp,
}

/// What a resource asks of a mandate.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The authority, exactly as in `iss`.
    pub issuer: String,
    /// This resource's identifier, one of `aud`.
    pub audience: String,
    /// The zone, exactly as in `zone_id`.
    pub zone: String,
    /// Scopes that must all be granted.
    pub required_scopes: Vec<String>,
    /// Resource identifiers that must all be in `target`.
    pub required_targets: Vec<String>,
    /// The class asked for; `None` takes session and resource mandates. A gateway mandate is never taken.
    pub required_use: Option<Use>,
    /// Whether a session must be named.
    pub session: Need,
    /// Whether a delegation must be named.
    pub delegation: Need,
    /// Applications that must all be in the delegation chain.
    pub required_chain: Vec<String>,
    /// The longest delegation; 0 means [`DEFAULT_MAX_HOPS`].
    pub max_hop_count: u32,
    /// How the key set may be fetched.
    pub transport: Transport,
}

impl Settings {
    /// Settings that ask for a resource mandate and nothing more.
    #[must_use]
    pub fn new(issuer: &str, audience: &str, zone: &str) -> Self {
        Self {
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            zone: zone.to_owned(),
            required_scopes: Vec::new(),
            required_targets: Vec::new(),
            required_use: Some(Use::Resource),
            session: Need::Optional,
            delegation: Need::Optional,
            required_chain: Vec::new(),
            max_hop_count: DEFAULT_MAX_HOPS,
            transport: Transport::SecureOrLoopback,
        }
    }
}

/// Verifies mandates for one resource.
#[derive(Debug)]
pub struct Verifier {
    settings: Settings,
    revocations: Arc<dyn Revocations>,
}

impl Verifier {
    /// A verifier; there is none without a revocation store.
    #[must_use]
    pub fn new(settings: Settings, revocations: Arc<dyn Revocations>) -> Self {
        Self { settings, revocations }
    }

    /// Where the zone's key set is.
    ///
    /// # Errors
    /// [`Refused::ZoneInvalid`] without a zone, [`Refused::InvalidToken`] when the issuer's URL would let someone
    /// between us choose the keys.
    pub fn jwks_url(&self) -> Result<String, Refused> {
        if self.settings.zone.is_empty() {
            return Err(Refused::ZoneInvalid);
        }
        issuer::jwks_url(&self.settings.issuer, &self.settings.zone, self.settings.transport)
            .ok_or(Refused::InvalidToken("issuer URL"))
    }

    /// Verifies a token at `now` (unix seconds) against the zone's key set.
    ///
    /// # Errors
    /// [`Refused`], the first check that failed, in the order of the official verifiers: configuration, key,
    /// signature and standard claims, zone, required claims, class, subject, scopes, targets, optional claims,
    /// session, delegation, hops, chain, revocation.
    pub fn verify(&self, keys: &KeySet, token: &str, now: i64) -> Result<VerifiedMandate, Refused> {
        self.jwks_url()?;
        let compact = Compact::parse(token).ok().ok_or(Refused::InvalidToken("form"))?;
        let key = keys.get(&compact.kid).ok_or(Refused::InvalidToken("kid"))?;
        if !key.verifies(compact.message, compact.signature) {
            return Err(Refused::InvalidToken("signature"));
        }
        self.check_standard(&compact.body, now)?;
        self.check_granted(&compact.body)?;
        let claims = compact.claims().ok_or(Refused::InvalidToken("claims"))?;
        self.check_lineage(&claims)?;
        self.check_standing(&claims, now)?;
        Ok(VerifiedMandate::new(claims, token, key.kid().clone()))
    }

    /// Checks a mandate again during long work: still alive, not revoked, not stale.
    ///
    /// # Errors
    /// [`Refused::InvalidToken`] once past `exp`, otherwise as the last check of [`Verifier::verify`].
    pub fn recheck(&self, mandate: &VerifiedMandate, now: i64) -> Result<(), Refused> {
        if is_expired(mandate.claims().exp, now, 0) {
            return Err(Refused::InvalidToken("exp"));
        }
        self.check_standing(mandate.claims(), now)
    }

    /// Steps 4 to 6: the registered claims of RFC 7519, the zone, and what every mandate has.
    fn check_standard(&self, body: &Map<String, Value>, now: i64) -> Result<(), Refused> {
        if text(body, "iss") != Some(&self.settings.issuer) {
            return Err(Refused::InvalidToken("iss"));
        }
        let audience = body.get("aud").is_some_and(|aud| names(aud, &self.settings.audience));
        if !audience {
            return Err(Refused::InvalidToken("aud"));
        }
        let seconds = |name| body.get(name).and_then(Value::as_i64);
        if seconds("exp").is_none_or(|exp| is_expired(exp, now, LEEWAY_S)) {
            return Err(Refused::InvalidToken("exp"));
        }
        if seconds("iat").is_none_or(|iat| is_ahead(iat, now, LEEWAY_S)) {
            return Err(Refused::InvalidToken("iat"));
        }
        if text(body, "zone_id") != Some(&self.settings.zone) {
            return Err(Refused::ZoneInvalid);
        }
        let missing = |name: &&str| text(body, name).is_none_or(str::is_empty);
        match ["jti", "sub", "sid", "root_sid", "client_id"].into_iter().find(missing) {
            Some(name) => Err(Refused::InvalidToken(name)),
            None => Ok(()),
        }
    }

    /// Steps 7 to 10: class, subject, scopes and targets.
    fn check_granted(&self, body: &Map<String, Value>) -> Result<(), Refused> {
        let class: Option<Use> = word(body, "use");
        let class = class.filter(|class| *class != Use::Gateway).ok_or(Refused::InvalidToken("use"))?;
        if self.settings.required_use.is_some_and(|required| required != class) {
            return Err(Refused::InvalidToken("use"));
        }
        let subject: Option<SubjectType> = word(body, "sub_type");
        subject.ok_or(Refused::InvalidToken("sub_type"))?;
        let scope = text(body, "scope");
        let granted = |required: &String| scopes(scope).any(|word| word == required);
        if !self.settings.required_scopes.iter().all(granted) {
            return Err(Refused::ScopeInsufficient);
        }
        let targeted =
            |required: &String| body.get("target").is_some_and(|list| names_in_list(list, required));
        if !self.settings.required_targets.iter().all(targeted) {
            return Err(Refused::InvalidToken("target"));
        }
        Ok(())
    }

    /// Steps 12 to 15: session, delegation, hops and chain.
    fn check_lineage(&self, claims: &Claims) -> Result<(), Refused> {
        if self.settings.session == Need::Required && claims.agent_session_id.is_none() {
            return Err(Refused::SessionRequired);
        }
        if self.settings.delegation == Need::Required && claims.delegation_edge_id.is_none() {
            return Err(Refused::DelegationRequired);
        }
        let max = match self.settings.max_hop_count {
            0 => DEFAULT_MAX_HOPS,
            max => max,
        };
        if claims.hop_count > max {
            return Err(Refused::HopCountExceeded);
        }
        let in_chain =
            |required: &String| claims.delegation_chain.iter().any(|hop| hop.application_id == *required);
        if !self.settings.required_chain.iter().all(in_chain) {
            return Err(Refused::ChainMismatch);
        }
        Ok(())
    }

    /// Step 16: none of its anchors is revoked, its delegation epoch is current. A store that fails says revoked.
    fn check_standing(&self, claims: &Claims, now: i64) -> Result<(), Refused> {
        let now_ms = now.saturating_mul(1_000);
        let anchors = [
            Some(claims.sid.as_str()),
            Some(claims.root_sid.as_str()),
            claims.agent_session_id.as_deref(),
            claims.delegation_edge_id.as_deref(),
        ];
        for anchor in anchors.into_iter().flatten() {
            if self.revocations.is_revoked(anchor, now_ms).unwrap_or(true) {
                return Err(Refused::SessionRevoked);
            }
        }
        if claims.delegation_graph_epoch > 0 {
            let known = self.revocations.delegation_epoch(&claims.zone_id);
            let current = known.ok().ok_or(Refused::DelegationStale)?;
            if current.is_some_and(|current| current > claims.delegation_graph_epoch) {
                return Err(Refused::DelegationStale);
            }
        }
        Ok(())
    }
}

/// Takes the token out of an `Authorization` value: `Bearer`, in any case, one or more spaces, the token.
///
/// # Errors
/// [`Refused::MissingToken`] for no value, another scheme, or nothing after it.
pub fn bearer(authorization: Option<&str>) -> Result<&str, Refused> {
    let (scheme, rest) =
        authorization.and_then(|value| value.split_once(' ')).ok_or(Refused::MissingToken)?;
    let token = rest.trim_matches(' ');
    if !scheme.eq_ignore_ascii_case("Bearer") || token.is_empty() {
        return Err(Refused::MissingToken);
    }
    Ok(token)
}

fn text<'a>(body: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    body.get(name).and_then(Value::as_str)
}

/// One of a closed set of words; `None` for any other.
fn word<T: DeserializeOwned>(body: &Map<String, Value>, name: &str) -> Option<T> {
    serde_json::from_value(body.get(name)?.clone()).ok()
}

fn names(audience: &Value, wanted: &str) -> bool {
    audience.as_str() == Some(wanted) || names_in_list(audience, wanted)
}

fn names_in_list(list: &Value, wanted: &str) -> bool {
    list.as_array().is_some_and(|list| list.iter().any(|name| name.as_str() == Some(wanted)))
}

#[cfg(test)]
mod tests;
