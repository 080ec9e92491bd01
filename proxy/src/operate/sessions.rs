//! Sessions as an operator looks at them.

use serde_json::{Value, json};

use super::Operate;
use crate::control::{Failure, Which};
use crate::state::{Caller, Delegation, Lifecycle, PageRequest, RecordKind, Session, State, Surveyed, iso};

/// Most rows of one answer.
pub(super) const MOST: usize = 10_000;
/// Most closed and live delegations of each direction in `show`.
const EDGES: usize = 500;

/// Sessions of one zone or of all, newest first in each.
pub(super) fn list(
    operate: &Operate,
    zone: Option<&str>,
    which: Which,
    limit: usize,
) -> Result<Value, Failure> {
    let app = &operate.app;
    let now = app.clock.now();
    let wanted = |session: &Session| match which {
        Which::Standing => !session.status.ended(),
        Which::All => true,
        Which::Only(status) => session.status == status,
    };
    let (mut rows, mut more) = (Vec::new(), false);
    for live in operate.looked_at(zone)? {
        let room = limit.min(MOST).saturating_sub(rows.len());
        let (found, rest) = app.state.survey(live.zone.id(), wanted, room);
        rows.extend(found.iter().map(|surveyed| row(&app.state, surveyed, now)));
        more |= rest;
    }
    Ok(json!({ "sessions": rows, "more": more }))
}

/// One session with its delegations, closed ones included.
pub(super) fn show(operate: &Operate, zone: Option<&str>, id: &str) -> Result<Value, Failure> {
    let app = &operate.app;
    let now = app.clock.now();
    let surveyed = find(operate, zone, id)?;
    let session = &surveyed.session;
    let page = PageRequest { limit: EDGES, cursor: None };
    let edges = |found: Result<crate::state::Page<Delegation>, crate::state::CoordinatorError>| {
        let items = found.map(|page| page.items).unwrap_or_default();
        items.iter().map(|edge| delegation(&app.state, edge, now)).collect::<Vec<_>>()
    };
    let (zone, operator) = (&session.zone, Caller::Operator);
    let mut shown = row(&app.state, &surveyed, now);
    if let Value::Object(members) = &mut shown {
        members.insert("started_at".into(), json!(iso(session.started_at)));
        members.insert("ended_at".into(), json!(session.terminated_at.map(iso)));
        members.insert("end_reason".into(), json!(session.termination_reason));
        members.insert("acts_for".into(), subject(&app.state, session, now));
        members.insert("lease_generation".into(), json!(session.lease_generation));
        members.insert("metadata".into(), session.metadata.clone());
        let received = edges(app.state.list_inbound(zone, id, &operator, &page));
        let given = edges(app.state.list_outbound(zone, id, &operator, &page));
        members.insert("received".into(), json!(received));
        members.insert("given".into(), json!(given));
    }
    Ok(shown)
}

/// The session, in whichever zone has it.
pub(super) fn find(operate: &Operate, zone: Option<&str>, id: &str) -> Result<Surveyed, Failure> {
    let zones = operate.looked_at(zone)?;
    let found = zones.iter().find_map(|live| operate.app.state.survey_one(live.zone.id(), id));
    found.ok_or_else(|| {
        Failure::new("session_not_found", format!("there is no session `{id}`, or it is long forgotten"))
    })
}

/// One session in a line's worth of members.
pub(super) fn row(state: &State, surveyed: &Surveyed, now: i64) -> Value {
    let session = &surveyed.session;
    let until = session.terminated_at.unwrap_or(now);
    let hops = surveyed.inbound.iter().map(|edge| hops_left(edge)).max();
    json!({
        "id": session.id, "zone": session.zone, "application": session.application, "parent": session.parent,
        "lifecycle": session.lifecycle.as_str(), "labels": session.labels, "depth": session.depth,
        "status": session.status.as_str(),
        "live": state.live_session(&session.zone, &session.id, now).is_some(),
        "age_seconds": seconds(until.saturating_sub(session.started_at)),
        "left_seconds": left(session, now),
        "hops_left": hops, "received_live": surveyed.inbound.len(), "given_live": surveyed.outbound.len(),
    })
}

/// One delegation, with what is left of it.
pub(super) fn delegation(state: &State, edge: &Delegation, now: i64) -> Value {
    let usable = state.lineage(&edge.zone, &edge.id, now).is_some();
    json!({
        "id": edge.id, "status": edge.status.as_str(), "usable": usable,
        "from_session": edge.source_session, "from_application": edge.issuer_application,
        "to_session": edge.target_session, "to_application": edge.receiver_application,
        "parent": edge.parent, "scopes": edge.scopes, "resource_id": edge.resource_id,
        "resources": edge.constraints.resources, "hops_left": hops_left(edge),
        "left_seconds": edge.live(now).then(|| seconds(edge.expires_at.saturating_sub(now))),
    })
}

/// How often what was received may still be handed on.
pub(super) fn hops_left(edge: &Delegation) -> u32 {
    edge.constraints.hops().saturating_sub(1)
}

/// Whole seconds of a duration in milliseconds.
pub(super) fn seconds(ms: i64) -> i64 {
    ms.max(0).div_euclid(1_000)
}

/// Seconds until a task is over or a service must be heard of; none for what has ended.
fn left(session: &Session, now: i64) -> Option<i64> {
    (!session.status.ended()).then(|| seconds(session.deadline().saturating_sub(now)))
}

/// Who the session acts for, as far as that is still known.
fn subject(state: &State, session: &Session, now: i64) -> Value {
    let record = state.record(&session.zone, &session.subject_record);
    let kind = match session.subject_kind {
        RecordKind::Application => "application",
        RecordKind::User => "user",
    };
    let needed = session.subject_kind == RecordKind::User;
    json!({
        "record": session.subject_record, "kind": kind,
        "subject": record.as_ref().map(|record| &record.subject),
        "record_left_seconds": record.as_ref().map(|record| seconds(record.expires_at.saturating_sub(now))),
        "session_ends_with_record": needed,
        "renewed_by_lease": session.lifecycle == Lifecycle::Service,
    })
}
