//! The routes of invocations.

use axum::response::Response;
use serde_json::{Value, json};

use super::body::Body;
use super::call::{About, Call, Reply};
use super::idempotency;
use super::query::Query;
use super::refused::Refused;
use super::sessions::envelope;
use crate::state::{Completion, CreateInvocation, Invocation, KeyKind};

/// Longest method, in characters.
const MAX_METHOD: usize = 256;
/// Longest reason, in characters.
const MAX_REASON: usize = 256;

/// `POST /invocations`.
pub(super) async fn create(call: Call) -> Response {
    call.change("invocation_create", created).await
}

async fn created(call: &Call, about: &mut About) -> Result<Reply, Refused> {
    let request = request(call, Body::required(&call.headers, &call.body)?)?;
    about.insert("service_id".into(), json!(request.service));
    about.insert("source_session_id".into(), json!(request.source_session));
    about.insert("target_session_id".into(), json!(request.target_session));
    about.insert("method".into(), json!(request.method));
    let made = call.app().state.create_invocation(request).await?;
    about.insert("invocation_id".into(), made.response.get("id").cloned().unwrap_or_default());
    Ok(Reply::created(made.response, made.replayed))
}

fn request(call: &Call, mut body: Body) -> Result<CreateInvocation, Refused> {
    let service = body.string("service_id");
    let source = body.optional_string("source_session_id");
    let target = body.optional_string("target_session_id");
    let key = body.string("idempotency_key");
    let method = body.string("method");
    if method.chars().count() > MAX_METHOD {
        body.issue("method", "must have at most 256 characters");
    }
    let params = body.take("params").unwrap_or_else(|| json!({}));
    let metadata = Value::Object(body.object("metadata").unwrap_or_default());
    let timeout = body.integer("timeout_ms", 1, 900_000, "must be a whole number from 1 to 900000");
    let (attempts, backoff) = retries(&mut body);
    body.finish()?;
    let (timeout, attempts, backoff) =
        (timeout.unwrap_or(30_000), attempts.unwrap_or(3), backoff.unwrap_or(1_000));
    let request = json!({
        "service_id": service,
        "source_session_id": source,
        "target_session_id": target,
        "method": method,
        "params": params,
        "metadata": metadata,
        "timeout_ms": timeout,
        "max_attempts": attempts,
        "backoff_ms": backoff,
    });
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(CreateInvocation {
        zone: call.zone.as_str().into(),
        caller: call.caller.clone(),
        service: service.into(),
        source_session: source.map(Into::into),
        target_session: target.map(Into::into),
        method,
        params,
        metadata,
        timeout_ms: i64::try_from(timeout).unwrap_or(i64::MAX),
        max_attempts: small(attempts),
        backoff_ms: small(backoff),
        idempotency: idempotency::named(&key, KeyKind::Chosen, &call.caller, &request)?,
    })
}

/// `retry_policy`: attempts and the pause between them.
fn retries(body: &mut Body) -> (Option<u64>, Option<u64>) {
    let Some(policy) = body.object("retry_policy") else { return (None, None) };
    let mut number = |name: &str, least: u64, most: u64| {
        let value = policy.get(name).filter(|value| !value.is_null())?;
        let number = super::body::whole(value).filter(|number| (least..=most).contains(number));
        if number.is_none() {
            body.issue("retry_policy", "has max_attempts from 1 to 10 and backoff_ms from 0 to 300000");
        }
        number
    };
    (number("max_attempts", 1, 10), number("backoff_ms", 0, 300_000))
}

/// `GET /invocations`.
pub(super) async fn list(call: Call) -> Response {
    let outcome = Query::parse(&call.query).and_then(|query| {
        let (filter, page) = (query.invocations()?, query.page()?);
        let found = call.app().state.list_invocations(&call.zone, &call.caller, &filter, &page)?;
        Ok(envelope(&found, Invocation::to_json))
    });
    call.read(outcome)
}

/// `GET /invocations/{id}`.
pub(super) async fn one(call: Call) -> Response {
    let found = call.app().state.invocation_detail(&call.zone, call.param("id"), &call.caller).await;
    call.read(found.map(Reply::ok).map_err(Refused::from))
}

/// `PATCH /invocations/{id}/start`.
pub(super) async fn start(call: Call) -> Response {
    call.change("invocation_start", started).await
}

async fn started(call: &Call, about: &mut About) -> Result<Reply, Refused> {
    let row = call.app().state.start_invocation(&call.zone, call.param("id"), &call.caller).await?;
    Ok(step(&row, about))
}

/// `PATCH /invocations/{id}/cancel`.
pub(super) async fn cancel(call: Call) -> Response {
    call.change("invocation_cancel", canceled).await
}

async fn canceled(call: &Call, about: &mut About) -> Result<Reply, Refused> {
    let mut body = Body::optional(&call.headers, &call.body)?;
    let reason = body.optional_string("reason");
    if reason.as_ref().is_some_and(|reason| reason.chars().count() > MAX_REASON) {
        body.issue("reason", "must have at most 256 characters");
    }
    body.finish()?;
    about.insert("reason".into(), json!(reason));
    let (id, reason) = (call.param("id"), reason.as_deref());
    let row = call.app().state.cancel_invocation(&call.zone, id, &call.caller, reason).await?;
    Ok(step(&row, about))
}

/// `PATCH /invocations/{id}/complete`.
pub(super) async fn complete(call: Call) -> Response {
    call.change("invocation_complete", completed).await
}

async fn completed(call: &Call, about: &mut About) -> Result<Reply, Refused> {
    let mut body = Body::required(&call.headers, &call.body)?;
    if !body.has("status") {
        body.issue("status", "is required");
    }
    let words = [("succeeded", Completion::Succeeded), ("failed", Completion::Failed)];
    let how = body.word("status", &words, "must be succeeded or failed");
    let error = body.take("error");
    let metadata = body.object("metadata");
    body.finish()?;
    let outcome = json!({ "error": error, "metadata": metadata });
    let how = how.unwrap_or(Completion::Failed);
    let id = call.param("id");
    let row = call.app().state.complete_invocation(&call.zone, id, &call.caller, how, &outcome).await?;
    Ok(step(&row, about))
}

fn step(row: &Invocation, about: &mut About) -> Reply {
    about.insert("service_id".into(), json!(row.service));
    about.insert("status".into(), json!(row.status.as_str()));
    about.insert("attempts".into(), json!(row.attempts));
    Reply::ok(row.to_json())
}
