//! The session routes (path segment `agents`).

use std::sync::Arc;

use axum::response::Response;
use caracal_mandates::{Expect, Use, verify};
use serde_json::{Value, json};

use super::body::Body;
use super::call::{About, Call, Reply};
use super::catalog::Catalog;
use super::idempotency;
use super::query::Query;
use super::refused::Refused;
use crate::authority::is_id;
use crate::state::{
    Ended, Lifecycle, Page, ParentAuthority, RecordKind, ServiceHealth, Session, StartSession,
};

/// Most labels of a session.
const MAX_LABELS: usize = 32;
/// Longest label, in characters.
const MAX_LABEL: usize = 64;
/// Longest lifetime of a task, in seconds.
const MAX_TTL_S: u64 = 86_400;
/// Highest lease generation a client can have seen: the largest integer JSON readers agree on.
const MAX_GENERATION: u64 = 9_007_199_254_740_991;

/// `POST /agents`: starts a session.
pub(super) async fn start(call: Call) -> Response {
    call.change("session_start", started).await
}

async fn started(call: &Call, about: &mut About) -> Result<Reply, Refused> {
    let mut body = Body::required(&call.headers, &call.body)?;
    let proof = body.optional_string("subject_token");
    let request = start_request(call, body)?;
    about.insert("application_id".into(), json!(request.application));
    about.insert("parent_id".into(), json!(request.parent));
    about.insert("agent_lifecycle".into(), json!(request.lifecycle.as_str()));
    about.insert("agent_labels".into(), json!(request.labels));
    may_act_for(call, request.subject_record.as_deref(), proof.as_deref())?;
    let started = call.app().state.start_session(request).await?;
    about.insert("agent_session_id".into(), json!(started.session.id));
    about.insert("subject_authority_record_id".into(), json!(started.session.subject_record));
    about.insert("delegation_edge_id".into(), json!(started.delegation.as_ref().map(|edge| &edge.id)));
    Ok(Reply::created(started.response, started.replayed))
}

fn start_request(call: &Call, mut body: Body) -> Result<StartSession, Refused> {
    let application = body.string("application_id");
    let lifecycles = [("task", Lifecycle::Task), ("service", Lifecycle::Service)];
    let lifecycle = body.word("lifecycle", &lifecycles, "must be task or service").unwrap_or(Lifecycle::Task);
    if lifecycle == Lifecycle::Service && body.has("ttl_seconds") {
        body.issue("ttl_seconds", "a service has a lease instead");
    }
    let ttl = body.integer("ttl_seconds", 1, MAX_TTL_S, "must be a whole number from 1 to 86400");
    let labels = body.strings(
        "labels",
        MAX_LABELS,
        |label| (1..=MAX_LABEL).contains(&label.chars().count()),
        "must be at most 32 strings of 1 to 64 characters",
    );
    let authorities = [("inherit", ParentAuthority::Inherit), ("none", ParentAuthority::None)];
    let parent_authority = body.word("parent_authority", &authorities, "must be inherit or none");
    let subject = body.optional_string("subject_session_id");
    let parent = body.optional_string("parent_id");
    let inherit_edge = body.optional_string("inherit_parent_edge_id");
    let metadata = body.object("metadata").unwrap_or_default();
    body.finish()?;
    let parent_authority = parent_authority.unwrap_or_default();
    let request = json!({
        "application_id": application,
        "lifecycle": lifecycle.as_str(),
        "ttl_seconds": ttl,
        "labels": labels,
        "parent_authority": parent_authority == ParentAuthority::Inherit,
        "subject_session_id": subject,
        "parent_id": parent,
        "inherit_parent_edge_id": inherit_edge,
        "metadata": metadata,
    });
    Ok(StartSession {
        zone: call.zone.as_str().into(),
        caller: call.caller.clone(),
        application_known: call.application_known(&application),
        application: application.into(),
        subject_record: subject.map(Into::into),
        parent: parent.map(Into::into),
        lifecycle,
        labels: labels.into_iter().map(Into::into).collect(),
        ttl_seconds: ttl.and_then(|ttl| u32::try_from(ttl).ok()),
        parent_authority,
        inherit_edge: inherit_edge.map(Into::into),
        metadata: Value::Object(metadata),
        idempotency: idempotency::key(&call.headers, &call.caller, &request)?,
    })
}

/// A session that acts for a person needs that person's session mandate as proof.
fn may_act_for(call: &Call, record: Option<&str>, proof: Option<&str>) -> Result<(), Refused> {
    let app = call.app();
    let Some(record) = record.and_then(|id| app.state.record(&call.zone, id)) else { return Ok(()) };
    let own = call.caller.record().is_some_and(|own| *own == record.id);
    if own || record.kind == RecordKind::Application {
        return Ok(());
    }
    let refused = Refused::new(403, "subject_proof_required")
        .with_message("subject_token must be the session mandate of subject_session_id");
    let (Some(proof), Some(keys)) = (proof, app.keyring.zone(&call.zone)) else { return Err(refused) };
    let issuer = &app.config.issuer;
    let now = app.clock.now_s();
    let expect = Expect { issuer, audience: issuer, zone: &call.zone, uses: &[Use::Session], now, leeway: 0 };
    let proven = verify(keys.keys.public(), proof, &expect);
    if proven.is_ok_and(|mandate| mandate.claims().sid == *record.id) { Ok(()) } else { Err(refused) }
}

/// `GET /agents`.
pub(super) async fn list(call: Call) -> Response {
    let outcome = Query::parse(&call.query).and_then(|query| {
        let (filter, page) = (query.sessions()?, query.page()?);
        let found = call.app().state.list_sessions(&call.zone, &call.caller, &filter, &page)?;
        Ok(envelope(&found, Session::to_json))
    });
    call.read(outcome)
}

/// `GET /agents/{id}`.
pub(super) async fn one(call: Call) -> Response {
    let found = call.app().state.read_session(&call.zone, call.param("id"), &call.caller);
    let outcome = found.map(|session| Reply::ok(session.to_json())).map_err(Refused::from);
    call.read(outcome)
}

/// `GET /agents/{id}/children`.
pub(super) async fn children(call: Call) -> Response {
    let outcome = Query::parse(&call.query).and_then(|query| {
        let page = query.page()?;
        let found = call.app().state.list_children(&call.zone, call.param("id"), &call.caller, &page)?;
        Ok(envelope(&found, Session::to_child_json))
    });
    call.read(outcome)
}

/// `GET /agents/{id}/effective-authority`.
pub(super) async fn effective_authority(call: Call) -> Response {
    let catalog = Catalog::of(&call);
    let found = call.app().state.effective_authority(&call.zone, call.param("id"), &call.caller, &catalog);
    let outcome = found.map(Reply::ok).map_err(Refused::from);
    call.read(outcome)
}

/// `PATCH /agents/{id}/suspend`.
pub(super) async fn suspend(call: Call) -> Response {
    call.change("session_suspend", suspended).await
}

async fn suspended(call: &Call, about: &mut About) -> Result<Reply, Refused> {
    let rows = call.app().state.suspend_session(&call.zone, call.param("id"), &call.caller).await?;
    about.insert("sessions".into(), ids(&rows));
    Ok(Reply::ok(json!({ "suspended": rows.len() })))
}

/// `PATCH /agents/{id}/resume`.
pub(super) async fn resume(call: Call) -> Response {
    call.change("session_resume", resumed).await
}

async fn resumed(call: &Call, about: &mut About) -> Result<Reply, Refused> {
    let rows = call.app().state.resume_session(&call.zone, call.param("id"), &call.caller).await?;
    if let Some(fleet) = &call.app().fleet {
        fleet.resumed(&rows);
    }
    about.insert("sessions".into(), ids(&rows));
    Ok(Reply::ok(json!({ "resumed": rows.len() })))
}

fn ids(rows: &[Arc<Session>]) -> Value {
    rows.iter().map(|row| json!(row.id)).collect()
}

/// `DELETE /agents/{id}`.
pub(super) async fn end(call: Call) -> Response {
    call.change("session_terminate", ended).await
}

async fn ended(call: &Call, about: &mut About) -> Result<Reply, Refused> {
    let query = Query::parse(&call.query)?;
    let reason = query.reason()?;
    let mut body = Body::optional(&call.headers, &call.body)?;
    let generation = body.integer("lease_generation", 0, MAX_GENERATION, "must be a whole number");
    body.finish()?;
    let id = call.param("id");
    let ended = call.app().state.end_session(&call.zone, id, &call.caller, generation, reason).await?;
    about.insert("reason".into(), json!(reason));
    note(about, &ended);
    Ok(Reply::empty())
}

/// What an act ended, for its record.
pub(super) fn note(about: &mut About, ended: &Ended) {
    about.insert("sessions".into(), ids(&ended.sessions));
    let edges: Value = ended.delegations.iter().map(|edge| json!(edge.id)).collect();
    about.insert("delegations".into(), edges);
}

/// `POST /agents/{id}/lease`.
pub(super) async fn lease(call: Call) -> Response {
    call.change("session_lease", leased).await
}

async fn leased(call: &Call, about: &mut About) -> Result<Reply, Refused> {
    let session = call.app().state.lease_session(&call.zone, call.param("id"), &call.caller).await?;
    about.insert("lease_generation".into(), json!(session.lease_generation));
    Ok(Reply::ok(session.to_lease_json()))
}

/// `POST /agents/{id}/heartbeat`.
pub(super) async fn heartbeat(call: Call) -> Response {
    call.change("session_heartbeat", renewed).await
}

async fn renewed(call: &Call, about: &mut About) -> Result<Reply, Refused> {
    let mut body = Body::required(&call.headers, &call.body)?;
    if !body.has("lease_generation") {
        body.issue("lease_generation", "is required");
    }
    let generation =
        body.integer("lease_generation", 1, MAX_GENERATION, "must be a whole number of at least 1");
    let health =
        body.word("status", &ServiceHealth::WORDS, "must be starting, healthy, degraded or unhealthy");
    let service = body.optional_string("service_id");
    let active = body.integer("active_invocations", 0, u64::from(u32::MAX), "must be a whole number");
    if body.has("metadata") {
        body.object("metadata");
    }
    body.finish()?;
    let generation = generation.unwrap_or_default();
    about.insert("lease_generation".into(), json!(generation));
    let health = health.unwrap_or(ServiceHealth::Healthy);
    about.insert("health".into(), json!(health.as_str()));
    let id = call.param("id");
    let state = &call.app().state;
    if let Some(service) = &service {
        // Who may not see the session learns nothing; who may is told before the lease is renewed.
        let session = state.read_session(&call.zone, id, &call.caller)?;
        about.insert("service_id".into(), json!(is_id(service).then_some(service)));
        let own = state.service(&call.zone, service).filter(|own| own.application == session.application);
        own.ok_or(Refused::new(404, "agent_service_not_found"))?;
    }
    let session = state.heartbeat_session(&call.zone, id, &call.caller, generation).await?;
    let active = active.and_then(|active| u32::try_from(active).ok()).unwrap_or(0);
    let mut heard = session.to_heartbeat_json(active);
    if let (Some(service), Value::Object(members)) = (&service, &mut heard) {
        let service = state.service_heard(&call.zone, service, &session.application, health).await?;
        members.insert("service".into(), service.to_json());
    }
    Ok(Reply::ok(heard))
}

/// A page of a list.
pub(super) fn envelope<T>(page: &Page<T>, row: impl Fn(&T) -> Value) -> Reply {
    let items: Vec<Value> = page.items.iter().map(|item| row(item)).collect();
    Reply::ok(json!({ "items": items, "next_cursor": page.next_cursor }))
}
