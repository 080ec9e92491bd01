//! Who calls the coordinator: the operator's token, or a session-class mandate of the zone in the path.

use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use caracal_mandates::{Claims, Expect, Use, peek, verify};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustix::fs::{FileType, Mode, OFlags};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::refused::Refused;
use crate::app::App;
use crate::authority::exchange::LIFECYCLE;
use crate::authority::is_id;
use crate::state::{ApplicationCaller, Caller};

/// Longest bearer, in bytes.
const MAX_BEARER: usize = 4_096;
/// Bytes read of the operator token's file: a bearer and a line end.
const MAX_BEARER_FILE: u64 = 4_098;
/// Shortest operator token; generated ones have at least 43 characters.
const MIN_OPERATOR_TOKEN: usize = 32;

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Applications only.
    Applications,
    /// Applications and the operator.
    OperatorToo,
}

/// The operator's token, kept as its digest.
#[derive(Clone)]
pub(super) struct OperatorToken([u8; 32]);

impl OperatorToken {
    /// Reads the token from a file that only its owner can read.
    ///
    /// # Errors
    /// [`TokenFileProblem`].
    pub(super) fn read(path: &Path) -> Result<Self, TokenFileProblem> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = rustix::fs::open(path, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&opened)?;
        let ours = stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw();
        let private = stat.st_mode & 0o037 == 0;
        if !ours || !private || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(TokenFileProblem::Open);
        }
        let mut text = Zeroizing::new(String::new());
        File::from(opened).take(MAX_BEARER_FILE).read_to_string(&mut text)?;
        let token = text.trim();
        if !(MIN_OPERATOR_TOKEN..=MAX_BEARER).contains(&token.len()) {
            return Err(TokenFileProblem::Length);
        }
        Ok(Self(caracal_mandates::digest(token)))
    }

    fn is(&self, token: &str) -> bool {
        bool::from(self.0.ct_eq(&caracal_mandates::digest(token)))
    }
}

impl std::fmt::Debug for OperatorToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OperatorToken")
    }
}

/// Why the operator's token cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenFileProblem {
    /// The file could not be read.
    #[error("the file cannot be read")]
    Unreadable(#[from] std::io::Error),
    /// Others could read or replace it.
    #[error("the file must be a regular one with mode 0600 or 0640, owned by root or this user")]
    Open,
    /// Too short to be a secret, or longer than a bearer may be.
    #[error("the token must have 32 to 4096 bytes")]
    Length,
}

impl From<rustix::io::Errno> for TokenFileProblem {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Unreadable(error.into())
    }
}

/// Proves the caller.
///
/// # Errors
/// 401 `missing_token`, `invalid_token`, `identity_revoked`; 403 `missing_scope`, `zone_mismatch`; 429
/// `rate_limited` for an address with too many failed verifications.
pub(super) fn authenticate(
    app: &App,
    operator: Option<&OperatorToken>,
    door: Door,
    zone: &str,
    headers: &HeaderMap,
    address: IpAddr,
) -> Result<Caller, Refused> {
    let token = bearer(headers).ok_or(Refused::new(401, "missing_token"))?;
    if door == Door::OperatorToo && operator.is_some_and(|operator| operator.is(token)) {
        return Ok(Caller::Operator);
    }
    let claims = proven(app, token, address)?;
    if !claims.scopes().any(|scope| scope == LIFECYCLE) {
        return Err(Refused::new(403, "missing_scope"));
    }
    if claims.zone_id != zone {
        return Err(Refused::new(403, "zone_mismatch"));
    }
    if !in_force(app, &claims) {
        return Err(Refused::new(401, "identity_revoked"));
    }
    Ok(Caller::Application(ApplicationCaller {
        id: claims.client_id.as_str().into(),
        subject: claims.sub.as_str().into(),
        record: Some(claims.sid.as_str().into()),
        scopes: claims.scopes().map(Into::into).collect(),
    }))
}

/// The one bearer token of the request.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut sent = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (sent.next(), sent.next()) else { return None };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && (1..=MAX_BEARER).contains(&token.len())).then_some(token)
}

/// A session-class mandate whose signature, issuer, audience and time are good, in the zone it names itself.
fn proven(app: &App, token: &str, address: IpAddr) -> Result<Arc<Claims>, Refused> {
    let now = app.clock.now();
    let invalid = || Refused::new(401, "invalid_token");
    let peeked = peek(token).map_err(|_malformed| invalid())?;
    let zone = peeked.zone_id.filter(|zone| is_id(zone)).ok_or_else(invalid)?;
    let keys = app.keyring.zone(&zone).ok_or_else(invalid)?;
    if !app.failures.allows(address, now) {
        return Err(Refused::new(429, "rate_limited").after(60));
    }
    let issuer = &app.config.issuer;
    let now_s = now.div_euclid(1_000);
    let expect =
        Expect { issuer, audience: issuer, zone: &zone, uses: &[Use::Session], now: now_s, leeway: 0 };
    match verify(keys.keys.public(), token, &expect) {
        Ok(mandate) => Ok(Arc::clone(mandate.claims())),
        Err(_) => {
            app.failures.count(address, now);
            Err(invalid())
        }
    }
}

/// Whether the application is still there and what it was issued still counts.
fn in_force(app: &App, claims: &Claims) -> bool {
    let snapshot = app.snapshot.load();
    let known = snapshot
        .zones
        .get(claims.zone_id.as_str())
        .is_some_and(|live| live.zone.application(&claims.client_id).is_some());
    known
        && !app.state.application_blocked(&claims.zone_id, &claims.client_id)
        && app.state.live_record(&claims.zone_id, &claims.sid, app.clock.now()).is_some()
}
