//! The gate: the stages a request passes before anything is sent upstream, on our own types.
//!
//! ```text
//! head ─▶ Matched ─▶ VerifiedMandate ─▶ CurrentMandate ─▶ Permit ─▶ Credential ─▶ upstream head
//! ```
//!
//! Each stage takes the proof of the one before and returns its own. Nothing in here knows the proxy library;
//! all of it is tested without a server. What happens before an identity is proven is [`enter`]; its refusals
//! go to the ledger's second lane, because an unproven claim must not be able to delay or fill anything.

pub mod authenticate;
pub mod authorize;
pub mod budgets;
pub mod concurrency;
pub mod credential;
pub mod exact;
pub mod failures;
pub mod forward;
pub mod guards;
pub mod head;
pub mod links;
pub mod mcp;
pub mod refusal;
pub mod response;
pub mod route;
pub mod slots;
pub mod standing;

use std::borrow::Cow;
use std::sync::Arc;

use caracal_mandates::VerifiedMandate;
use caracal_policies::{ErrorFormat, Path, PathProblem};

use self::authenticate::{Shown, Source};
use self::head::{Head, HeadLimits, Host};
use self::refusal::Refusal;
use self::route::Matched;
use crate::app::App;
use crate::snapshot::Snapshot;

/// A request whose identity is proven. Nothing about it has been burnt or decided yet.
#[derive(Debug)]
pub struct Entered<'a> {
    /// What it addresses.
    pub matched: Matched<'a>,
    /// Who presents what.
    pub mandate: VerifiedMandate,
    /// The path that is decided on and forwarded.
    pub path: Path<'a>,
    /// The token as presented, to keep it from the upstream.
    pub shown: Shown<'a>,
    /// Whether the token also stands where it would be forwarded; then nothing else may see the request.
    pub misplaced: bool,
    /// Whether the signature had to be verified.
    pub source: Source,
}

/// Takes a request from its head to a proven identity, in the check order of the contract.
///
/// # Errors
/// The first check that fails; the mandate is not burnt.
pub fn enter<'a>(app: &App, snapshot: &Snapshot, head: &Head<'a>) -> Result<Entered<'a>, Refusal> {
    let limits = &app.config.limits;
    let host = head.frame(HeadLimits { bytes: limits.max_header_bytes, lines: limits.max_header_count })?;
    let now_s = app.clock.now_s();
    let (matched, shown) = match route::resource_header(head) {
        Ok(None) => by_address(app, snapshot, host, head, now_s)?,
        named => by_header(app, snapshot, host, head, named, now_s)?,
    };
    let path = Path::parse(matched.path(head)).map_err(path_refusal)?;
    let zone = matched.zone().zone.id();
    let (mandate, source) = authenticate::gateway_mandate(app, zone, &shown, head.peer, now_s)?;
    let misplaced = slots::misplaced(head, matched.resource().map(Arc::as_ref), shown.token());
    Ok(Entered { matched, mandate, path, shown, misplaced, source })
}

/// How a caller is told no whose identity is not proven: as the resource wants it that its host or path leads to. What
/// only a header names may not be there, which nobody is told without a mandate.
#[must_use]
pub fn error_format(snapshot: &Snapshot, head: &Head<'_>) -> ErrorFormat {
    let host = match route::resource_header(head) {
        Ok(None) => head.host().ok(),
        _ => None,
    };
    let matched = host.and_then(|host| route::by_address(snapshot, host, head).ok());
    matched.and_then(|matched| Some(matched.resource()?.error_format)).unwrap_or_default()
}

fn by_header<'a>(
    app: &App,
    snapshot: &Snapshot,
    host: Host,
    head: &Head<'a>,
    named: Result<Option<&'a str>, Refusal>,
    now_s: i64,
) -> Result<(Matched<'a>, Shown<'a>), Refusal> {
    let shown = Shown::new(app, Cow::Borrowed(slots::bearer(head)?));
    let claimed = claimed_ids(&shown, head, now_s, named)?;
    let matched = route::by_header(snapshot, host, claimed.named, &claimed.zone)?;
    Ok((matched, shown))
}

fn by_address<'a>(
    app: &App,
    snapshot: &Snapshot,
    host: Host,
    head: &Head<'a>,
    now_s: i64,
) -> Result<(Matched<'a>, Shown<'a>), Refusal> {
    let matched = match route::by_address(snapshot, host, head) {
        Ok(matched) => matched,
        // A client that brings a mandate but no resource is told what its own contract says is missing.
        Err(Refusal::Misdirected) if head.headers.contains_key(http::header::AUTHORIZATION) => {
            let shown = Shown::new(app, Cow::Borrowed(slots::bearer(head)?));
            claimed_ids(&shown, head, now_s, Err(Refusal::ResourceMissing))?;
            return Err(Refusal::ResourceMissing);
        }
        Err(other) => return Err(other),
    };
    let shown = Shown::new(app, slots::extract(head, &matched)?);
    claimed_ids(&shown, head, now_s, Ok(Some("")))?;
    Ok((matched, shown))
}

/// What an unverified token and its head claim, after every check that needs no key.
struct Claimed<'s, 'a> {
    zone: Cow<'s, str>,
    named: &'a str,
}

fn claimed_ids<'s, 'a>(
    shown: &'s Shown<'_>,
    head: &Head<'_>,
    now_s: i64,
    named: Result<Option<&'a str>, Refusal>,
) -> Result<Claimed<'s, 'a>, Refusal> {
    let claimed = authenticate::preview(shown, now_s)?;
    if head.headers.get("x-caracal-client-id").is_some_and(|value| !value.is_empty()) {
        return Err(Refusal::ClientHeader);
    }
    let named = named?.unwrap_or_default();
    let zone = claimed.zone_id.filter(|zone| well_formed_id(zone)).ok_or(Refusal::TokenInvalid)?;
    claimed.client_id.filter(|client| well_formed_id(client)).ok_or(Refusal::TokenInvalid)?;
    Ok(Claimed { zone, named })
}

fn path_refusal(problem: PathProblem) -> Refusal {
    if matches!(problem, PathProblem::DotSegment | PathProblem::Backslash) {
        Refusal::PathTraversal
    } else {
        Refusal::PathMalformed
    }
}

/// Whether an id may stand in a path: 1 to 128 characters of `A-Z a-z 0-9 . _ : -`.
#[must_use]
pub fn well_formed_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-'))
}
