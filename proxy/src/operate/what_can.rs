//! What a session or an application may do at this moment: the answers of the very decisions that a mint would get.

use std::collections::BTreeMap;
use std::sync::Arc;

use caracal_policies::{EdgeFacts, Enforcement, Guard, Operation, Resource, Zone};
use serde_json::{Value, json};

use super::{Operate, sessions};
use crate::authority::exchange::{LIFECYCLE, Mint, Unminted, carries, reaches};
use crate::control::Failure;
use crate::snapshot::LiveZone;
use crate::state::{Delegation, Session, SessionStatus, State, Surveyed};

/// A session by its id, else an application by its.
pub(super) fn what_can(operate: &Operate, zone: Option<&str>, id: &str) -> Result<Value, Failure> {
    let zones = operate.looked_at(zone)?;
    let session =
        zones.iter().find_map(|live| Some((live, operate.app.state.survey_one(live.zone.id(), id)?)));
    if let Some((live, surveyed)) = session {
        return Ok(of_session(operate, live, &surveyed));
    }
    let having: Vec<_> = zones.iter().filter(|live| live.zone.application(id).is_some()).collect();
    match having.as_slice() {
        [only] => Ok(of_application(operate, &only.zone, id)),
        [] => Err(Failure::new("unknown_id", format!("there is no session and no application `{id}`"))),
        _ => Err(Failure::new("zone_needed", format!("`{id}` is in several zones; name one with --zone"))),
    }
}

fn of_session(operate: &Operate, live: &LiveZone, surveyed: &Surveyed) -> Value {
    let (state, now) = (&operate.app.state, operate.app.clock.now());
    let session = &surveyed.session;
    let standing = standing(state, &live.zone, session, now);
    let edges = surveyed.inbound.iter().map(|edge| of_edge(state, &live.zone, session, edge, standing, now));
    json!({
        "session": sessions::row(state, surveyed, now),
        "refused": standing,
        "delegations": edges.collect::<Vec<_>>(),
        // Without a delegation a session manages sessions and hands on what its application is granted.
        "session_mandates": lifecycle(&live.zone, &session.application, &session.labels, standing),
    })
}

/// Why nothing at all is minted for the session.
fn standing(state: &State, zone: &Zone, session: &Session, now: i64) -> Option<&'static str> {
    if let Some(reason) = application_standing(state, zone, &session.application) {
        return Some(reason);
    }
    if state.live_session(zone.id(), &session.id, now).is_some() {
        return None;
    }
    let cut = state.application_cut(zone.id(), &session.application);
    Some(match session.status {
        SessionStatus::Suspended => "session_suspended",
        SessionStatus::Terminated | SessionStatus::Expired => "session_ended",
        SessionStatus::Active if cut.is_some_and(|cut| session.started_at <= cut) => "application_revoked",
        SessionStatus::Active if !session.in_time(now) => "session_out_of_time",
        SessionStatus::Active => "subject_authority_inactive",
    })
}

pub(super) fn application_standing(state: &State, zone: &Zone, application: &str) -> Option<&'static str> {
    if state.frozen(zone.id()) {
        return Some("restriction_active");
    }
    if zone.application(application).is_none() {
        return Some("application_not_found");
    }
    state.application_blocked(zone.id(), application).then_some("application_revoked")
}

fn of_edge(
    state: &State,
    zone: &Zone,
    session: &Session,
    edge: &Delegation,
    standing: Option<&'static str>,
    now: i64,
) -> Value {
    let lineage = state.lineage(zone.id(), &edge.id, now);
    let refused = standing.or_else(|| lineage.is_none().then(|| broken(state, edge, now)));
    let mut about = sessions::delegation(state, edge, now);
    let resources: Vec<Value> = match (&lineage, refused) {
        (Some(lineage), None) => {
            let question = Mint {
                zone,
                application: &session.application,
                labels: &session.labels,
                session: Some(&session.id),
                edge: Some(EdgeFacts { id: &edge.id, scopes: &edge.scopes }),
                lineage,
                requested: &[],
            };
            let considered = zone.resources().filter(|resource| {
                reaches(lineage, resource)
                    || zone.granted_somewhere(&session.application, &resource.identifier)
            });
            considered.map(|resource| on_resource(&question, resource)).collect()
        }
        (Some(_), Some(_)) | (None, _) => Vec::new(),
    };
    if let Value::Object(members) = &mut about {
        members.insert("refused".into(), json!(refused));
        members.insert("authority".into(), json!(resources));
        members
            .insert("longest_mandate_seconds".into(), json!(lineage.map(|lineage| longest(&lineage, now))));
    }
    about
}

/// Why nothing is minted through a delegation that is live itself.
fn broken(state: &State, edge: &Delegation, now: i64) -> &'static str {
    let live = |id: &Arc<str>| state.live_session(&edge.zone, id, now).is_some();
    if !live(&edge.source_session) || !live(&edge.target_session) {
        return "delegation_inactive";
    }
    if edge.constraints.hops() == 0 { "delegation_hops_exceeded" } else { "delegation_lineage_broken" }
}

/// Seconds the longest-lived mandate through the delegation would have.
fn longest(lineage: &[Arc<Delegation>], now: i64) -> i64 {
    let limits = lineage.iter().flat_map(|edge| {
        let until = sessions::seconds(edge.expires_at.saturating_sub(now));
        edge.constraints.ttl_seconds.map(i64::from).into_iter().chain([until])
    });
    limits.min().unwrap_or(0).min(LONGEST_MANDATE_S)
}

/// Longest lifetime of a mandate, in seconds.
const LONGEST_MANDATE_S: i64 = 3_600;

/// Each scope the resource declares on its own, then the allowed ones together: one mint asks for several.
fn on_resource(question: &Mint<'_>, resource: &Resource) -> Value {
    let mut granted: Vec<&str> = Vec::new();
    let mut refused: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut rule = None;
    for scope in &resource.scopes {
        match ask(question, resource, &[scope]) {
            Ok(allowed) => {
                granted.push(scope);
                rule = Some(allowed);
            }
            Err(code) => refused.entry(code).or_default().push(scope),
        }
    }
    let budgets = question.zone.budgets().unwrap_or_default().iter();
    let limits = budgets.filter(|budget| budget.covers(question.application, &resource.identifier));
    json!({
        "resource": resource.identifier,
        "limits": limits.map(|budget| format!("{}: {budget}", budget.name)).collect::<Vec<_>>(),
        "guards": guards(resource, &granted),
        "granted": granted,
        "granted_together": !granted.is_empty() && ask(question, resource, &granted).is_ok(),
        "rule": rule,
        "refused": refused.iter().map(|(code, scopes)| json!({ "code": code, "scopes": scopes })).collect::<Vec<_>>(),
    })
}

/// The guards that refuse some requests that these scopes open, as the bundle lists them.
fn guards(resource: &Resource, granted: &[&str]) -> Vec<Value> {
    let Some(all) = resource.guards.as_ref().filter(|_| !granted.is_empty()) else { return Vec::new() };
    let opened =
        resource.operations.iter().filter(|operation| granted.contains(&&*operation.scope)).map(Some);
    // Where every scope opens everything, a request may be one of an operation or of none.
    let uniform = resource.enforcement == Enforcement::TransportUniform;
    let any = resource.operations.iter().map(Some).chain([None]).filter(|_| uniform);
    let operations: Vec<Option<&Operation>> = opened.chain(any).collect();
    let concerned: Vec<&Arc<Guard>> =
        operations.into_iter().flat_map(|operation| all.enforced_on(operation)).collect();
    let listed = all.iter().filter(|guard| concerned.iter().any(|other| Arc::ptr_eq(guard, other)));
    listed.map(|guard| json!({ "name": guard.name, "place": guard.place.to_string() })).collect()
}

/// The rule that would allow it, or the code of the refusal.
fn ask(question: &Mint<'_>, resource: &Resource, requested: &[&str]) -> Result<String, &'static str> {
    if !requested.iter().all(|scope| carries(question.lineage, scope)) {
        return Err("delegation_scope_exceeded");
    }
    match (Mint { requested, ..*question }).decide(&resource.identifier) {
        Ok((_, allowed)) if !allowed.gate.is_empty() => Err("approval_required"),
        Ok((_, allowed)) => Ok(allowed.rule.to_string()),
        Err(Unminted::Denied(reason)) => Err(reason),
        Err(Unminted::Failed) => Err("policy_eval_failed"),
    }
}

/// The resources for which a mandate that only manages sessions is minted.
fn lifecycle(
    zone: &Zone,
    application: &str,
    labels: &[Arc<str>],
    standing: Option<&'static str>,
) -> Vec<Arc<str>> {
    if standing.is_some() {
        return Vec::new();
    }
    let question =
        Mint { zone, application, labels, session: None, edge: None, lineage: &[], requested: &[LIFECYCLE] };
    let resources = zone.resources().filter(|resource| question.decide(&resource.identifier).is_ok());
    resources.map(|resource| Arc::clone(&resource.identifier)).collect()
}

/// What a session with each role's label could mint through a delegation that carries everything.
fn of_application(operate: &Operate, zone: &Zone, application: &str) -> Value {
    let standing = application_standing(&operate.app.state, zone, application);
    let mut roles: BTreeMap<&Arc<str>, Vec<Value>> = BTreeMap::new();
    if standing.is_none() {
        for (resource, label, _) in zone.roles(application) {
            let Some(resource) = zone.resource(resource) else { continue };
            let question = Mint {
                zone,
                application,
                labels: std::slice::from_ref(label),
                session: Some("session"),
                edge: Some(EdgeFacts { id: "delegation", scopes: &resource.scopes }),
                lineage: &[],
                requested: &[],
            };
            roles.entry(label).or_default().push(on_resource(&question, resource));
        }
    }
    let roles = roles.iter().map(|(label, authority)| json!({ "label": label, "authority": authority }));
    json!({
        "zone": zone.id(), "application": application,
        "refused": standing,
        "roles": roles.collect::<Vec<_>>(),
        "session_mandates": lifecycle(zone, application, &[], standing),
    })
}
