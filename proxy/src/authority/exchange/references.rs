//! The authority record, session and delegation a request names: there, live, and the caller's.

use std::sync::Arc;

use super::super::form::UseCount;
use super::super::refused::{Reference, Refused};
use super::{Asked, DEFAULT_TTL_S, carries};
use crate::state::{Delegation, RecordKind, Session};

/// Most edges a lineage may have.
const MAX_HOPS: usize = 10;

/// What the caller holds of what it named.
#[derive(Debug, Default)]
pub(in super::super) struct Held {
    pub(in super::super) session: Option<Arc<Session>>,
    pub(in super::super) delegation: Option<HeldDelegation>,
}

/// A live delegation with every edge it was cut from.
#[derive(Debug)]
pub(in super::super) struct HeldDelegation {
    edge: Arc<Delegation>,
    /// Root first, the held edge last.
    lineage: Vec<Arc<Delegation>>,
    /// The zone's graph epoch, read before the lineage was walked.
    pub(in super::super) graph_epoch: u64,
}

impl HeldDelegation {
    pub(in super::super) fn edge(&self) -> &Delegation {
        &self.edge
    }

    /// Root first.
    pub(in super::super) fn lineage(&self) -> &[Arc<Delegation>] {
        &self.lineage
    }
}

/// Checks everything the form names. What was found live is in `found` also when the rest refuses, for the record.
///
/// # Errors
/// [`Refused::Reference`].
pub(super) fn check(asked: &Asked<'_>, found: &mut Held) -> Result<(), Refused> {
    let Asked { app, zone, application, form, now } = *asked;
    let zone = zone.zone.id();
    if let Some(id) = &form.session_id {
        let record = app.state.live_record(zone, id, now);
        let own = |record: &crate::state::AuthorityRecord| {
            record.kind == RecordKind::Application && record.subject == application.id
        };
        if !record.is_some_and(|record| own(&record)) {
            return Err(Refused::Reference(Reference::Record));
        }
    }
    let session = form.agent_session_id.as_deref().map(|id| {
        let session = app.state.live_session(zone, id, now);
        session
            .filter(|session| session.application == application.id)
            .ok_or(Refused::Reference(Reference::Session))
    });
    found.session = session.transpose()?;
    let Some(edge) = &form.delegation_edge_id else { return Ok(()) };
    let session = found.session.as_ref().ok_or(Refused::Reference(Reference::DelegationWithoutSession))?;
    let delegation = found.delegation.insert(held(asked, edge, session)?);
    if form.scopes.iter().all(|scope| carries(&delegation.lineage, scope)) {
        return Ok(());
    }
    Err(Refused::Reference(Reference::Scopes))
}

fn held(asked: &Asked<'_>, edge: &str, target: &Session) -> Result<HeldDelegation, Refused> {
    let Asked { app, zone, now, .. } = *asked;
    let zone = zone.zone.id();
    let graph_epoch = app.state.graph_epoch(zone);
    let refused = |reference| Err(Refused::Reference(reference));
    let Some(edge) = app.state.live_delegation(zone, edge, now) else {
        return refused(Reference::Delegation);
    };
    let Some(source) = app.state.live_session(zone, &edge.source_session, now) else {
        return refused(Reference::Delegation);
    };
    let fits = edge.target_session == target.id
        && edge.receiver_application == target.application
        && edge.issuer_application == source.application;
    if !fits {
        return refused(Reference::Delegation);
    }
    let lineage = app.state.lineage(zone, &edge.id, now).filter(|lineage| continuous(lineage, &edge));
    let Some(lineage) = lineage else {
        return refused(Reference::Lineage);
    };
    if !hops_allowed(&lineage) {
        return refused(Reference::Hops);
    }
    Ok(HeldDelegation { edge, lineage, graph_epoch })
}

/// Each edge starts where the one before it ended, and the last one is the edge held.
fn continuous(lineage: &[Arc<Delegation>], held: &Delegation) -> bool {
    let joined = lineage.windows(2).all(|pair| match pair {
        [above, below] => {
            above.receiver_application == below.issuer_application
                && above.target_session == below.source_session
        }
        _ => false,
    });
    joined && lineage.last().is_some_and(|last| last.id == held.id)
}

/// Every edge allows as many edges as there are from itself to the one held, itself included.
fn hops_allowed(lineage: &[Arc<Delegation>]) -> bool {
    lineage.len() <= MAX_HOPS
        && lineage.iter().rev().zip(1_u32..).all(|(edge, distance)| {
            let hops = edge.constraints.hops();
            distance <= hops && usize::try_from(hops).is_ok_and(|hops| hops <= MAX_HOPS)
        })
}

/// The mandate's lifetime in seconds: what was asked for, cut to what every edge of the lineage has left.
///
/// # Errors
/// [`Refused::Reference`] when more was asked for than a delegation allows, or none of its time is left.
pub(super) fn lifetime(asked: &Asked<'_>, delegation: Option<&HeldDelegation>) -> Result<i64, Refused> {
    let wanted = asked.form.ttl;
    let mut ttl = wanted.unwrap_or(DEFAULT_TTL_S);
    if asked.form.use_count == UseCount::Reusable {
        ttl = ttl.min(super::MAX_REUSABLE_TTL_S);
    }
    // Counted from the whole second the mandate is issued in, so that it never outlives the delegation.
    let issued_at = asked.now.div_euclid(1_000);
    for edge in delegation.map_or(&[][..], HeldDelegation::lineage) {
        if let Some(limit) = edge.constraints.ttl_seconds.map(i64::from) {
            if wanted.is_some_and(|wanted| wanted > limit) {
                return Err(Refused::Reference(Reference::Ttl));
            }
            ttl = ttl.min(limit);
        }
        let ends_at = edge.constraints.expires_at.map_or(edge.expires_at, |at| at.min(edge.expires_at));
        ttl = ttl.min(ends_at.div_euclid(1_000).saturating_sub(issued_at));
    }
    if ttl <= 0 { Err(Refused::Reference(Reference::Expiry)) } else { Ok(ttl) }
}
