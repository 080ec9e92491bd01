//! From an authenticated request for a mandate to the mandate.
//!
//! The order is: shape of the request, standing of the zone and the application, the session and delegation
//! named, one decision for each resource (all must be allowed), lifetime, record, signature. Nothing is
//! recorded as allowed that is refused afterwards.

mod deciding;
mod issue;
mod references;
mod resource;

use std::sync::Arc;

use caracal_mandates::{Expect, Use, verify};
use caracal_policies::{Allowed, Application, EdgeFacts, Resource};
use serde_json::json;

use super::approvals::{self, Grounds};
use super::form::{Subject, TokenForm, UseCount};
use super::refused::Refused;
use crate::app::App;
use crate::snapshot::LiveZone;
use crate::state::Hold;

pub(crate) use deciding::{Mint, Unminted, carries, reaches};
pub(super) use issue::{Issued, chain, issue_to_user};
pub(super) use references::{Held, HeldDelegation};
pub use resource::{MintFault, mint_resource};

/// The scope of a session-class mandate; every resource has it without declaring it.
pub(crate) const LIFECYCLE: &str = "agent:lifecycle";
/// Lifetime in seconds when none is asked for.
pub(super) const DEFAULT_TTL_S: i64 = 900;
/// Longest lifetime of a session or gateway mandate, in seconds.
pub(super) const MAX_TTL_S: i64 = 3_600;
/// Longest lifetime of a reusable mandate, in seconds.
const MAX_REUSABLE_TTL_S: i64 = 900;

/// One authenticated request.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) app: &'a App,
    pub(super) zone: &'a LiveZone,
    pub(super) application: &'a Arc<Application>,
    pub(super) form: &'a TokenForm,
    /// Unix milliseconds.
    pub(super) now: i64,
}

/// What an exchange found out, for its ledger event; filled as far as it got.
#[derive(Debug, Default)]
pub(super) struct Trail {
    /// The resource a refusal is about.
    pub(super) resource: Option<String>,
    pub(super) held: Held,
    pub(super) allowed: Vec<Allowed>,
    /// The approval that the mandate stands on.
    pub(super) approval: Option<Arc<Hold>>,
    /// What the policy answered, once it was asked.
    pub(super) answer: Option<&'static str>,
    /// The subject issuer of an identity token, once it is known to be one of the zone's.
    pub(super) issuer: Option<Arc<str>>,
}

/// Runs the exchange.
///
/// # Errors
/// Why no mandate was issued.
pub(super) async fn run(asked: Asked<'_>, trail: &mut Trail) -> Result<Issued, Refused> {
    shape(asked.form)?;
    standing(&asked)?;
    references::check(&asked, &mut trail.held)?;
    let (resources, use_count) = by_policy(&asked, trail)?;
    let ttl = references::lifetime(&asked, trail.held.delegation.as_ref())?;
    let gate = trail.allowed.iter().flat_map(|allowed| allowed.gate.iter().cloned()).collect();
    let grounds = approvals::settle(&asked, &trail.held, &resources, gate).await?;
    let issued = issue::issue(&asked, &trail.held, &resources, use_count, ttl, &grounds).await?;
    let sid = &issued.mandate.claims().sid;
    let (hold, about) = match grounds {
        Grounds::Policy => return Ok(issued),
        Grounds::Approved(hold) => (hold, json!({ "minted_sid": sid })),
        Grounds::Again(hold, _) => (hold, json!({ "minted_sid": sid, "reissued": true })),
    };
    approvals::write_down(asked.app, &hold, "step_up_consumed", "consumed", about);
    trail.approval = Some(hold);
    Ok(issued)
}

/// What can be refused by looking at the form alone.
fn shape(form: &TokenForm) -> Result<(), Refused> {
    if form.resources.is_empty() {
        return Err(Refused::NoResources);
    }
    if form.ttl.is_some_and(|ttl| ttl > MAX_TTL_S) {
        return Err(Refused::TtlOverCap);
    }
    let delegated = form.delegation_edge_id.is_some();
    let reusable_shape =
        delegated && form.resources.len() == 1 && form.ttl.is_none_or(|ttl| ttl <= MAX_REUSABLE_TTL_S);
    if form.use_count == UseCount::Reusable && !reusable_shape {
        return Err(Refused::ReusableShape);
    }
    Ok(())
}

/// Whether this zone and this application may be issued anything at all now.
pub(super) fn standing(asked: &Asked<'_>) -> Result<(), Refused> {
    let Asked { app, zone, application, form, now } = *asked;
    let id = zone.zone.id();
    if !app.clock.healthy() {
        return Err(Refused::Clock);
    }
    if let Some(Subject::Mandate(token)) = &form.subject {
        return Err(presented(app, id, token, now));
    }
    if app.state.frozen(id) {
        return Err(Refused::Denied("restriction_active"));
    }
    if app.state.application_blocked(id, &application.id) {
        return Err(Refused::ApplicationRevoked);
    }
    Ok(())
}

/// A presented mandate never buys another one here; an invalid one is told apart from a valid one.
fn presented(app: &App, zone: &str, token: &str, now: i64) -> Refused {
    let Some(keys) = app.keyring.zone(zone) else { return Refused::SubjectToken };
    let expect = Expect {
        issuer: &app.config.issuer,
        audience: &app.config.issuer,
        zone,
        uses: &[Use::Session],
        now: now.div_euclid(1_000),
        leeway: 0,
    };
    match verify(keys.keys.public(), token, &expect) {
        Ok(mandate) if app.state.live_record(zone, &mandate.claims().sid, now).is_some() => {
            Refused::DirectExchange
        }
        Ok(_) => Refused::Reference(super::refused::Reference::Record),
        Err(_) => Refused::SubjectToken,
    }
}

/// What the policy says to all of it.
fn by_policy(asked: &Asked<'_>, trail: &mut Trail) -> Result<(Vec<Arc<Resource>>, UseCount), Refused> {
    let decided = decide_all(asked, trail).and_then(|resources| {
        let use_count = reusable(asked, trail, &resources)?;
        Ok((resources, use_count))
    });
    trail.answer = Some(match &decided {
        Err(refused) => refused.detail(),
        Ok(_) if trail.allowed.iter().any(|allowed| !allowed.gate.is_empty()) => "approval",
        Ok(_) => "allow",
    });
    decided
}

/// One decision for every resource; the first refusal refuses them all.
fn decide_all(asked: &Asked<'_>, trail: &mut Trail) -> Result<Vec<Arc<Resource>>, Refused> {
    let requested: Vec<&str> = asked.form.scopes.iter().map(String::as_str).collect();
    let mut resources: Vec<Arc<Resource>> = Vec::new();
    for name in &asked.form.resources {
        trail.resource = Some(name.clone());
        let (resource, allowed) = decide(asked, &trail.held, name, &requested)?;
        trail.allowed.push(allowed);
        if !resources.iter().any(|known| known.identifier == resource.identifier) {
            resources.push(resource);
        }
    }
    trail.resource = None;
    resources.sort_by(|a, b| a.identifier.cmp(&b.identifier));
    Ok(resources)
}

fn decide(
    asked: &Asked<'_>,
    held: &Held,
    name: &str,
    requested: &[&str],
) -> Result<(Arc<Resource>, Allowed), Refused> {
    let delegation = held.delegation.as_ref();
    let session = held.session.as_ref();
    let mint = Mint {
        zone: &asked.zone.zone,
        application: &asked.application.id,
        labels: session.map_or(&[], |session| &session.labels),
        session: session.map(|session| &*session.id),
        edge: delegation
            .map(|delegation| EdgeFacts { id: &delegation.edge().id, scopes: &delegation.edge().scopes }),
        lineage: delegation.map_or(&[], HeldDelegation::lineage),
        requested,
    };
    mint.decide(name).map_err(|unminted| match unminted {
        Unminted::Denied(reason) => Refused::Denied(reason),
        Unminted::Failed => Refused::PolicyFailed,
    })
}

/// A reusable mandate needs three yeses: the request, the resource, and a short life (checked with the form).
fn reusable(asked: &Asked<'_>, trail: &mut Trail, resources: &[Arc<Resource>]) -> Result<UseCount, Refused> {
    if asked.form.use_count == UseCount::Reusable
        && !resources.iter().all(|resource| resource.reusable_mandates)
    {
        trail.resource = asked.form.resources.first().cloned();
        return Err(Refused::Denied("reusable_mandate_not_allowed"));
    }
    Ok(asked.form.use_count)
}
