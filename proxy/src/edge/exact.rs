//! Requests that a person has to approve: finding the yes, using it up, and keeping what came of it.
//!
//! A yes is used up by one commit, after everything else allows the request and before anything is sent. What is used up
//! stays so: a request that failed then, or whose answer was lost, is not sent a second time on it.

use std::sync::Arc;

use bytes::Bytes;
use caracal_policies::{McpCall, Privacy, TierDeclaration};
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, StatusCode};
use pingora::http::ResponseHeader;
use serde_json::{Value, json};
use uuid::Uuid;

use super::context::{Ctx, Forward, Pace, Settled};
use super::posted::{self, Body};
use super::record::Held;
use crate::app::App;
use crate::authority::approvals::{approver, lapse_one, patience, person, tiers, write_down};
use crate::gate::exact::kept::{Found, KEPT_MS, Keeping, Kept};
use crate::gate::exact::{APPROVAL, Asking, ExactRefusal};
use crate::gate::mcp::{self, McpRefusal};
use crate::gate::refusal::Refusal;
use crate::gate::standing::CurrentMandate;
use crate::state::{ExactRequest, Hold, HoldState};

/// What lets a request pass that the guards hold.
pub(super) enum Way {
    /// A yes, which it uses up.
    Approved(Arc<Hold>),
    /// The same request used the yes a moment ago, and this came of it.
    Settled(Arc<Hold>, Arc<Kept>),
}

impl Way {
    pub(super) fn recorded(&self) -> Held {
        match self {
            Self::Approved(hold) => Held { hold: Arc::clone(hold), again: false },
            Self::Settled(hold, _) => Held { hold: Arc::clone(hold), again: true },
        }
    }
}

/// Why there is none, and the hold that this is about.
pub(super) type Unapproved = (Refusal, Option<Arc<Hold>>);

/// Finds what lets a held request pass.
pub(super) async fn settle(
    app: &App,
    asking: &Asking<'_>,
    current: &CurrentMandate,
    sent: &HeaderMap,
    (ctx, decision): (&Ctx, &str),
) -> Result<Way, Unapproved> {
    if sent.contains_key(UPGRADE) {
        return Err((Refusal::UpgradeRefused, None));
    }
    // Nobody has read it, so nobody could say what the yes is for.
    if ctx.posted.is_none() && mcp::brings_body(sent) {
        let unread =
            if asking.resource.mcp.is_some() { McpRefusal::Malformed.into() } else { Refusal::Internal };
        return Err((unread, None));
    }
    let request = asking.shown(posted::value(ctx), decision);
    let fresh = hold(app, asking, current, request).map_err(|refusal| (refusal, None))?;
    if app.state.in_fleet() {
        // The answer may have come in elsewhere.
        app.state.catch_up().await;
    }
    if let Some(named) = named(sent) {
        let same = |hold: &Arc<Hold>| {
            hold.exact.is_some()
                && hold.zone == fresh.zone
                && hold.application == fresh.application
                && hold.binding == fresh.binding
        };
        let hold = named.and_then(|id| app.state.find_hold(id)).filter(same);
        let hold = hold.ok_or_else(|| (ExactRefusal::Mismatch.into(), None))?;
        return match hold.state(app.clock.now()) {
            HoldState::Expired => {
                lapse_one(app, &hold).await;
                Err((ExactRefusal::Mismatch.into(), Some(hold)))
            }
            HoldState::Consumed => again(app, hold),
            HoldState::Approved | HoldState::Pending | HoldState::Rejected => standing(app, hold),
        };
    }
    if let Some(latest) = app.state.latest_hold(&fresh) {
        match latest.state(app.clock.now()) {
            HoldState::Expired => lapse_one(app, &latest).await,
            HoldState::Consumed if is_recent(app, &latest) => return again(app, latest),
            HoldState::Consumed => {}
            // This one, and no look for another: of two at once, the second would find it used and ask anew.
            HoldState::Approved | HoldState::Pending | HoldState::Rejected => return standing(app, latest),
        }
    }
    let (hold, new) = app.state.hold(fresh).await.map_err(|error| match error.code {
        "approval_limit_exceeded" => (ExactRefusal::TooMany.into(), None),
        _ => (Refusal::from(ExactRefusal::Unavailable), None),
    })?;
    if new {
        write_down(app, &hold, "step_up_issued", "pending", json!({}));
    }
    standing(app, hold)
}

fn standing(app: &App, hold: Arc<Hold>) -> Result<Way, Unapproved> {
    match hold.state(app.clock.now()) {
        HoldState::Approved => Ok(Way::Approved(hold)),
        HoldState::Pending => Err((ExactRefusal::Pending.into(), Some(hold))),
        HoldState::Rejected => Err((ExactRefusal::Rejected.into(), Some(hold))),
        HoldState::Consumed => Err((ExactRefusal::Consumed.into(), Some(hold))),
        // Between the look at the hold and this one; the next request gets a new one.
        HoldState::Expired => Err((ExactRefusal::Mismatch.into(), Some(hold))),
    }
}

fn again(app: &App, hold: Arc<Hold>) -> Result<Way, Unapproved> {
    match app.outcomes.find(&hold.id) {
        Found::Settled(kept) => Ok(Way::Settled(hold, kept)),
        Found::Lost | Found::Nothing => Err((ExactRefusal::Consumed.into(), Some(hold))),
    }
}

/// Whether the request that used it is under way, or was over a moment ago.
fn is_recent(app: &App, hold: &Hold) -> bool {
    let used = hold.used.as_ref().map_or(0, |used| used.at);
    app.clock.now().saturating_sub(used) <= KEPT_MS || !matches!(app.outcomes.find(&hold.id), Found::Nothing)
}

/// The approval that a request says it is made on; the inner option is none where that is no id.
#[expect(clippy::option_option, reason = "a name that is none is refused, no name is not")]
fn named(sent: &HeaderMap) -> Option<Option<&str>> {
    let mut all = sent.get_all(APPROVAL).iter();
    let first = all.next()?;
    let id = first.to_str().ok().filter(|id| Uuid::parse_str(id).is_ok());
    Some(id.filter(|_| all.next().is_none()))
}

/// Whether a request says that it is made on an approval.
pub(super) fn names_approval(sent: &HeaderMap) -> bool {
    sent.contains_key(APPROVAL)
}

/// The question, as it is asked if it was not before.
fn hold(
    app: &App,
    asking: &Asking<'_>,
    current: &CurrentMandate,
    request: ExactRequest,
) -> Result<Hold, Refusal> {
    let gate = asking.gate();
    let approver = approver(&gate).ok_or(ExactRefusal::Conflict)?;
    let now = app.clock.now();
    let session = current.session();
    Ok(Hold {
        id: Uuid::new_v4().to_string().into(),
        zone: Arc::clone(asking.zone),
        application: asking.application.into(),
        // Who asks, for whoever answers; another mandate of the session asks the same.
        record: session.map(|session| Arc::clone(&session.subject_record)),
        session: session.map(|session| Arc::clone(&session.id)),
        delegation: current.delegation().map(|edge| Arc::clone(&edge.id)),
        labels: session.map(|session| session.labels.clone()).unwrap_or_default(),
        resources: vec![Arc::clone(&asking.resource.identifier)],
        scopes: Vec::new(),
        tier: tiers(&gate),
        approver,
        privacy: gate.iter().map(TierDeclaration::privacy).max().unwrap_or(Privacy::Identified),
        self_approval: gate.iter().map(TierDeclaration::self_approval).max().unwrap_or_default(),
        subject: session.and_then(|session| person(app, session)),
        binding: asking.binding()?.into(),
        exact: Some(Box::new(request)),
        created_at: now,
        expires_at: now.saturating_add(patience(&gate, approver)),
        decision: None,
        used: None,
        lapsed: None,
    })
}

/// Uses the yes up for a planned request; whoever comes second gets nothing.
pub(super) async fn consume(app: &App, hold: &Hold, decision: &str) -> Result<Keeping, Refusal> {
    let used = app.state.use_hold_for_request(&hold.zone, &hold.id, decision).await;
    let used = used.map_err(|error| match error.source {
        Some(source) => {
            tracing::error!(approval = %hold.id, error = %source, "the use of an approval could not be stored");
            ExactRefusal::Unavailable
        }
        None => ExactRefusal::Consumed,
    })?;
    let keeping = app.outcomes.begin(&used.id);
    write_down(app, &used, "step_up_consumed", "consumed", json!({ "request_decision_id": decision }));
    Ok(keeping)
}

/// Takes the head of an answer as it goes to the caller, if it is one that can be repeated.
pub(super) fn head(forward: &mut Forward, head: &ResponseHeader) {
    if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let Some(keeping) = &mut forward.keeping else { return };
    let kind = head.headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
    let stream = kind.to_ascii_lowercase().starts_with(b"text/event-stream");
    let switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
    if stream || switched || forward.pace == Pace::Grpc || head.headers.contains_key(TRAILER) {
        keeping.lose();
        return;
    }
    let mut headers = head.headers.clone();
    for name in [CONNECTION, TRANSFER_ENCODING, OWN_REQUEST_ID, OWN_EXPIRES_IN] {
        headers.remove(name);
    }
    keeping.head(head.status.as_u16(), &headers);
}

/// Takes a piece of the body as it goes to the caller.
pub(super) fn piece(forward: &mut Forward, piece: Option<&Bytes>, end: bool) {
    if let Some(keeping) = &mut forward.keeping {
        keeping.piece(piece.map(|piece| &**piece).unwrap_or_default(), end);
    }
}

/// The request is over; `whole` if its caller got all of the answer.
pub(super) fn over(ctx: &mut Ctx, whole: bool) {
    let Some(mut keeping) = ctx.forward.as_mut().and_then(|forward| forward.keeping.take()) else { return };
    if whole {
        // An answer without a body has no last piece.
        keeping.complete();
    }
}

/// The kept answer for this caller: its head, and its body.
pub(super) fn repeated(
    settled: &Settled,
    method: &Method,
    ctx: &Ctx,
) -> pingora::Result<(ResponseHeader, Bytes)> {
    let kept = &settled.kept;
    let body = addressed(ctx, &kept.body);
    let mut header = ResponseHeader::build(kept.status, Some(kept.headers.len().saturating_add(4)))?;
    for (name, value) in &kept.headers {
        header.append_header(name.clone(), value.clone())?;
    }
    let bodiless = matches!(header.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if method != Method::HEAD && !bodiless {
        header.insert_header(CONTENT_LENGTH, body.len().to_string())?;
    }
    header.insert_header("X-Caracal-Replayed", &*settled.hold.id)?;
    header.insert_header(OWN_REQUEST_ID, ctx.request_id.as_str())?;
    header.insert_header(OWN_EXPIRES_IN, settled.expires_in.to_string())?;
    Ok((header, body))
}

/// The answer of an MCP server carries the id of the message, which is another one now.
fn addressed(ctx: &Ctx, body: &Bytes) -> Bytes {
    let message = ctx.posted.as_ref().and_then(|posted| posted.read.as_ref().ok());
    let Some(Body::Message(message)) = message else { return body.clone() };
    let Ok(Value::Object(mut members)) = serde_json::from_slice(body) else { return body.clone() };
    if matches!(message.call, McpCall::Response) || !members.contains_key("id") {
        return body.clone();
    }
    members.insert("id".to_owned(), message.id.clone());
    Bytes::from(Value::Object(members).to_string())
}

const OWN_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const OWN_EXPIRES_IN: HeaderName = HeaderName::from_static("x-caracal-token-expires-in");
