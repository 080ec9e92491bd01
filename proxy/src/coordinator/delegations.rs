//! The delegation routes.

use axum::response::Response;
use serde_json::{Value, json};

use super::body::Body;
use super::call::{About, Call, Reply};
use super::catalog::Catalog;
use super::idempotency;
use super::query::Query;
use super::refused::Refused;
use super::sessions::envelope;
use crate::state::{Constraints, CoordinatorError, CreateDelegation, Delegation, Page, PageRequest, State};

/// Most scopes of a delegation.
const MAX_SCOPES: usize = 128;
/// Longest scope, in characters.
const MAX_SCOPE: usize = 256;
/// Longest lifetime, in seconds.
const MAX_TTL_S: u64 = 86_400;

/// `POST /delegations`.
pub(super) async fn create(call: Call) -> Response {
    call.change("delegation_create", created).await
}

async fn created(call: &Call, about: &mut About) -> Result<Reply, Refused> {
    let request = create_request(call, Body::required(&call.headers, &call.body)?)?;
    about.insert("issuer_application_id".into(), json!(request.issuer_application));
    about.insert("receiver_application_id".into(), json!(request.receiver_application));
    about.insert("source_session_id".into(), json!(request.source_session));
    about.insert("target_session_id".into(), json!(request.target_session));
    about.insert("parent_edge_id".into(), json!(request.parent));
    about.insert("resource".into(), json!(request.resource));
    about.insert("resources".into(), json!(request.constraints.resources));
    about.insert("scopes".into(), json!(request.scopes));
    let catalog = Catalog::of(call);
    let made = call.app().state.create_delegation(request, &catalog).await?;
    about.insert("delegation_edge_id".into(), json!(made.delegation.id));
    Ok(Reply::created(made.response, made.replayed))
}

fn create_request(call: &Call, mut body: Body) -> Result<CreateDelegation, Refused> {
    let source = body.string("source_session_id");
    let target = body.string("target_session_id");
    let issuer = body.string("issuer_application_id");
    let receiver = body.string("receiver_application_id");
    let parent = body.optional_string("parent_edge_id");
    let resource = body.optional_string("resource_id");
    let scopes = body.strings(
        "scopes",
        MAX_SCOPES,
        |scope| (1..=MAX_SCOPE).contains(&scope.chars().count()) && !scope.contains(char::is_whitespace),
        "must be at most 128 strings of 1 to 256 characters without spaces",
    );
    let expires_at = body.time("expires_at");
    let ttl = body.integer("ttl_seconds", 1, MAX_TTL_S, "must be a whole number from 1 to 86400");
    let (constraints, constraints_json) = (body.take("constraints"), body.take("constraints_json"));
    body.finish()?;
    let constraints = Constraints::parse(constraints.as_ref(), constraints_json.as_ref())?;
    let request = json!({
        "source_session_id": source,
        "target_session_id": target,
        "issuer_application_id": issuer,
        "receiver_application_id": receiver,
        "parent_edge_id": parent,
        "resource_id": resource,
        "scopes": scopes,
        "expires_at": expires_at,
        "ttl_seconds": ttl,
        "constraints": constraints.to_json(),
    });
    Ok(CreateDelegation {
        zone: call.zone.as_str().into(),
        caller: call.caller.clone(),
        source_session: source.into(),
        target_session: target.into(),
        issuer_application: issuer.into(),
        receiver_application: receiver.into(),
        parent: parent.map(Into::into),
        resource,
        scopes: scopes.into_iter().map(Into::into).collect(),
        constraints,
        expires_at,
        ttl_seconds: ttl.and_then(|ttl| u32::try_from(ttl).ok()),
        idempotency: idempotency::key(&call.headers, &call.caller, &request)?,
    })
}

/// `GET /delegations/active`.
pub(super) async fn active(call: Call) -> Response {
    let list =
        |state: &State, page: &PageRequest| state.list_active_delegations(&call.zone, &call.caller, page);
    let outcome = page(&call, list, Delegation::to_active_json);
    call.read(outcome)
}

/// `GET /delegations/inbound/{session}`.
pub(super) async fn inbound(call: Call) -> Response {
    let (zone, session, caller) = (&call.zone, call.param("session"), &call.caller);
    let outcome =
        page(&call, |state, page| state.list_inbound(zone, session, caller, page), Delegation::to_json);
    call.read(outcome)
}

/// `GET /delegations/outbound/{session}`.
pub(super) async fn outbound(call: Call) -> Response {
    let (zone, session, caller) = (&call.zone, call.param("session"), &call.caller);
    let outcome =
        page(&call, |state, page| state.list_outbound(zone, session, caller, page), Delegation::to_json);
    call.read(outcome)
}

fn page(
    call: &Call,
    list: impl FnOnce(&State, &PageRequest) -> Result<Page<Delegation>, CoordinatorError>,
    row: impl Fn(&Delegation) -> Value,
) -> Result<Reply, Refused> {
    let page = Query::parse(&call.query)?.page()?;
    let found = list(&call.app().state, &page)?;
    Ok(envelope(&found, row))
}

/// `GET /delegations/inbound/{session}/{id}`: does the session hold it now?
pub(super) async fn held(call: Call) -> Response {
    let found =
        call.app().state.read_inbound(&call.zone, call.param("session"), call.param("id"), &call.caller);
    let outcome = found.map(|edge| Reply::ok(json!({ "id": edge.id, "status": edge.status.as_str() })));
    call.read(outcome.map_err(Refused::from))
}

/// `GET /delegations/{id}/traverse`.
pub(super) async fn traverse(call: Call) -> Response {
    let found = call.app().state.traverse_delegation(&call.zone, call.param("id"), &call.caller);
    let outcome = found.map(|reached| Reply::ok(reached.iter().map(crate::state::Reach::to_json).collect()));
    call.read(outcome.map_err(Refused::from))
}

/// `GET /delegations/{id}/impact`.
pub(super) async fn impact(call: Call) -> Response {
    let found = call.app().state.delegation_impact(&call.zone, call.param("id"), &call.caller);
    let outcome = found.map(|impact| Reply::ok(impact.to_json()));
    call.read(outcome.map_err(Refused::from))
}

/// `PATCH /delegations/{id}/revoke`.
pub(super) async fn revoke(call: Call) -> Response {
    call.change("delegation_revoke", revoked).await
}

async fn revoked(call: &Call, about: &mut About) -> Result<Reply, Refused> {
    let done = call.app().state.revoke_delegation(&call.zone, call.param("id"), &call.caller).await?;
    about.insert("delegations".into(), done.delegations.iter().map(|edge| json!(edge.id)).collect());
    about.insert("sessions".into(), done.sessions.iter().map(|session| json!(session.id)).collect());
    Ok(Reply::ok(done.to_json()))
}
