//! [`VerifiedMandate`] to [`CurrentMandate`]: whether what was signed still stands.
//!
//! Nothing here is ever cached. Every request looks up the record, its root, the session, the whole lineage of
//! the delegation, the application and the zone in the projection. Revocation only ever adds, so a fresher
//! read is always the safer one.

use std::sync::Arc;

use caracal_mandates::{Claims, VerifiedMandate, jti_millis};

use super::refusal::Refusal;
use crate::state::{Anchor, Delegation, Session, SessionStatus, State};

/// A mandate whose authority is live. Made only by [`check`].
#[derive(Clone, Debug)]
pub struct CurrentMandate {
    mandate: VerifiedMandate,
    session: Option<Arc<Session>>,
    lineage: Vec<Arc<Delegation>>,
    approved: bool,
}

impl CurrentMandate {
    /// The signed claims.
    #[must_use]
    pub fn claims(&self) -> &Arc<Claims> {
        self.mandate.claims()
    }

    /// The session the mandate was minted for.
    #[must_use]
    pub fn session(&self) -> Option<&Arc<Session>> {
        self.session.as_ref()
    }

    /// The delegation the mandate was minted through.
    #[must_use]
    pub fn delegation(&self) -> Option<&Arc<Delegation>> {
        self.lineage.last()
    }

    /// Every delegation above the mandate and its own, from the root down.
    #[must_use]
    pub fn lineage(&self) -> &[Arc<Delegation>] {
        &self.lineage
    }

    /// Whether an approval is recorded in the mandate's authority record.
    #[must_use]
    pub fn approved(&self) -> bool {
        self.approved
    }

    /// When the authority behind the mandate ends by itself, in unix milliseconds.
    #[must_use]
    pub fn ends_at(&self) -> Option<i64> {
        let session = self.session.as_deref().and_then(session_end);
        self.lineage.iter().map(|edge| edge.expires_at).chain(session).min()
    }
}

/// When a task's time is over. A service lives as long as it renews its lease.
pub(super) fn session_end(session: &Session) -> Option<i64> {
    let life = i64::from(session.ttl_seconds?).saturating_mul(1_000);
    Some(session.started_at.saturating_add(life))
}

/// Every id whose revocation ends a request made with these claims.
#[must_use]
pub fn anchors(claims: &Claims) -> Vec<Anchor> {
    let mut anchors = vec![
        Anchor::Zone,
        Anchor::Application(claims.client_id.as_str().into()),
        Anchor::Record(claims.sid.as_str().into()),
    ];
    if claims.root_sid != claims.sid {
        anchors.push(Anchor::Record(claims.root_sid.as_str().into()));
    }
    let sessions = [&claims.agent_session_id, &claims.source_session_id];
    anchors.extend(sessions.into_iter().flatten().map(|id| Anchor::Session(id.as_str().into())));
    anchors.extend(claims.delegation_path.iter().map(|id| Anchor::Delegation(id.as_str().into())));
    anchors
}

/// Checks that the authority behind a verified mandate is live now.
///
/// Cost: a handful of lookups in memory.
///
/// # Errors
/// [`Refusal::Frozen`], [`Refusal::Revoked`] when something was revoked, [`Refusal::NotStanding`] when it
/// ended by itself, is suspended, or is not known here.
pub fn check(state: &State, mandate: VerifiedMandate, now: i64) -> Result<CurrentMandate, Refusal> {
    let claims = Arc::clone(mandate.claims());
    let zone = claims.zone_id.as_str();
    if state.frozen(zone) {
        return Err(Refusal::Frozen);
    }
    if state.application_blocked(zone, &claims.client_id) || cut(state, &claims) {
        return Err(Refusal::Revoked);
    }
    let record = state.record(zone, &claims.sid).ok_or(Refusal::NotStanding)?;
    let root = state.record(zone, &claims.root_sid).ok_or(Refusal::NotStanding)?;
    if record.revoked || root.revoked {
        return Err(Refusal::Revoked);
    }
    let consistent = *record.subject == *claims.sub && *record.application == *claims.client_id;
    if !consistent || record.expires_at <= now || root.expires_at <= now {
        return Err(Refusal::NotStanding);
    }
    let session = claims.agent_session_id.as_deref().map(|id| session(state, zone, id, now)).transpose()?;
    let edge = claims.delegation_edge_id.as_deref();
    let lineage = edge.map(|id| lineage(state, zone, id, now)).transpose()?.unwrap_or_default();
    Ok(CurrentMandate { approved: record.approved, mandate, session, lineage })
}

/// Issue times that tie with a cut count as revoked; the jti is finer than `iat`.
fn cut(state: &State, claims: &Claims) -> bool {
    state
        .application_cut(&claims.zone_id, &claims.client_id)
        .is_some_and(|cut| jti_millis(&claims.jti).is_none_or(|issued| issued <= cut))
}

fn session(state: &State, zone: &str, id: &str, now: i64) -> Result<Arc<Session>, Refusal> {
    let session = state.session(zone, id).ok_or(Refusal::NotStanding)?;
    if session.status == SessionStatus::Terminated {
        return Err(Refusal::Revoked);
    }
    state.live_session(zone, id, now).ok_or(Refusal::NotStanding)
}

fn lineage(state: &State, zone: &str, id: &str, now: i64) -> Result<Vec<Arc<Delegation>>, Refusal> {
    let edge = state.delegation(zone, id).ok_or(Refusal::NotStanding)?;
    if edge.revoked_at.is_some() {
        return Err(Refusal::Revoked);
    }
    state.lineage(zone, id, now).ok_or(Refusal::NotStanding)
}
