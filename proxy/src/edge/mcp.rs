//! Resources with MCP rules at the listener: the message is read before anything is decided, and sent on as it was
//! read; lists of tools are cut down on their way back; clients learn where to get a token.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caracal_policies::{McpCall, Resource};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pingora::http::ResponseHeader;
use pingora::prelude::{Error, ErrorType, Result};
use pingora::proxy::Session;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::finish;
use super::govern::{self, Ctx, Forward, Refused};
use super::target::with_head;
use crate::app::App;
use crate::gate::Entered;
use crate::gate::forward::UpstreamHead;
use crate::gate::head::{Head, HeadLimits};
use crate::gate::mcp::answers::{Answers, Form};
use crate::gate::mcp::discovery::{self, Endpoint};
use crate::gate::mcp::{self, MAX_MESSAGE, MAX_UNDECLARED, McpRefusal, Message};
use crate::gate::refusal::Refusal;
use crate::gate::response;
use crate::refusal::Particulars;

/// What the proxy library keeps of a body to send it once more.
const KEPT: usize = 64 * 1024;

/// How long a message may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Room for the messages that are held at one time, in bytes.
static ROOM: Semaphore = Semaphore::const_new(64 * MAX_MESSAGE);

/// Where an event stream that broke off is taken up again.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The message that a request posted to an MCP server, or why it cannot be decided on.
pub(super) struct Posted {
    body: Bytes,
    message: std::result::Result<Message, Refusal>,
    /// Given back when the request is over.
    _room: Option<SemaphorePermit<'static>>,
}

/// The answer to a request, while it is read.
pub(super) struct Watched {
    answers: Answers,
    /// Id of the message that is answered; none for the server's own stream.
    id: Option<Value>,
    failed: bool,
}

/// What an MCP client is told beside what everybody is.
#[derive(Default)]
pub(super) struct Told {
    /// Id of the message that is refused, once it was read.
    id: Option<Value>,
    /// Where to find out who gives out tokens.
    metadata: Option<String>,
}

/// [`govern::govern`], which asks for the message of a request first where it needs to know it.
pub(super) async fn govern(
    app: &App,
    session: &mut Session,
    peer: IpAddr,
    tls: bool,
    ctx: &mut Ctx,
) -> std::result::Result<Forward, Refused> {
    if let Some(forward) = govern::govern(app, session.req_header(), peer, tls, ctx).await? {
        return Ok(forward);
    }
    ctx.posted = Some(take_in(session).await);
    let again = govern::govern(app, session.req_header(), peer, tls, ctx).await?;
    again.ok_or_else(|| Refusal::Internal.into())
}

/// Whether a request is a message to an MCP server that was not read yet.
pub(super) fn is_unread(entered: &Entered<'_>, head: &Head<'_>, ctx: &Ctx) -> bool {
    let guarded = entered.matched.resource().is_some_and(|resource| resource.mcp.is_some());
    guarded && head.method == "POST" && ctx.posted.is_none()
}

/// What the message does, if there is one.
pub(super) fn call(ctx: &Ctx) -> std::result::Result<Option<&McpCall>, Refusal> {
    match ctx.posted.as_ref().map(|posted| &posted.message) {
        None => Ok(None),
        Some(Ok(message)) => Ok(Some(&message.call)),
        Some(Err(refusal)) => Err(*refusal),
    }
}

async fn take_in(session: &mut Session) -> Posted {
    let refused = |refusal| Posted { body: Bytes::new(), message: Err(refusal), _room: None };
    let declared = match mcp::declared_length(&session.req_header().headers, MAX_MESSAGE) {
        Ok(declared) => declared,
        Err(refusal) => return refused(refusal.into()),
    };
    let size = declared.unwrap_or(MAX_UNDECLARED);
    let Ok(room) = ROOM.try_acquire_many(u32::try_from(size).unwrap_or(u32::MAX)) else {
        return refused(McpRefusal::Busy.into());
    };
    let body = match tokio::time::timeout(PATIENCE, body(session, declared)).await {
        Ok(Ok(body)) => Bytes::from(body),
        Ok(Err(refusal)) => return refused(refusal),
        Err(_late) => return refused(McpRefusal::Late.into()),
    };
    let message = mcp::read(&body, &session.req_header().headers).map_err(Refusal::from);
    Posted { body, message, _room: Some(room) }
}

/// Reads the body to its end. The proxy library sends on what it kept of it, which is replaced by the whole on the way:
/// see [`replay`]. It must have kept something, and nothing that it could not keep whole.
async fn body(session: &mut Session, declared: Option<usize>) -> std::result::Result<Vec<u8>, Refusal> {
    if session.req_header().headers.contains_key(EXPECT) {
        session.write_continue_response().await.map_err(|_gone| Refusal::ClientGone)?;
    }
    let mut body = Vec::new();
    let mut keeps = false;
    loop {
        let left = declared.map(|declared| declared.saturating_sub(body.len()));
        if !keeps && left.is_none_or(|left| left <= KEPT) {
            session.enable_retry_buffering();
            keeps = true;
        }
        let Some(piece) = session.read_request_body().await.map_err(|_gone| Refusal::ClientGone)? else {
            return Ok(body);
        };
        body.extend_from_slice(&piece);
        if declared.is_none() && body.len() > MAX_UNDECLARED {
            return Err(McpRefusal::LengthRequired.into());
        }
    }
}

/// Puts the message in place of what is sent on, so that the server gets exactly what was decided on.
pub(super) fn replay(ctx: &Ctx, body: &mut Option<Bytes>, end: bool) {
    if let Some(posted) = &ctx.posted {
        *body = end.then(|| posted.body.clone());
    }
}

/// What differs for an MCP server in a planned request, and the watch over its answer where that may list tools.
///
/// The server's own stream repeats earlier answers to whoever names their events, so it is watched too.
pub(super) fn plan(
    resource: &Arc<Resource>,
    headers: &HeaderMap,
    scopes: &str,
    ctx: &Ctx,
    planned: &mut UpstreamHead,
) -> std::result::Result<Option<Watched>, Refusal> {
    if resource.mcp.is_none() {
        return Ok(None);
    }
    if headers.contains_key(UPGRADE) {
        return Err(Refusal::UpgradeRefused);
    }
    let Some(posted) = &ctx.posted else {
        if mcp::brings_body(headers) {
            return Err(McpRefusal::Malformed.into());
        }
        let watched = Watched { answers: Answers::new(resource.clone(), scopes), id: None, failed: false };
        planned.ask_plainly();
        return Ok((planned.method == "GET").then_some(watched));
    };
    let most = usize::try_from(resource.limits.max_request_bytes).unwrap_or(usize::MAX);
    if posted.body.len() > most {
        return Err(Refusal::BodyTooLarge);
    }
    planned.remove.extend([TRANSFER_ENCODING, EXPECT, LAST_EVENT_ID]);
    planned.set.retain(|(name, _)| *name != LAST_EVENT_ID);
    planned.set.push((CONTENT_LENGTH, HeaderValue::from(posted.body.len())));
    let Ok(message) = &posted.message else { return Err(Refusal::Internal) };
    if message.call.method() != Some("tools/list") {
        return Ok(None);
    }
    planned.ask_plainly();
    let answers = Answers::new(resource.clone(), scopes);
    Ok(Some(Watched { answers, id: Some(message.id.clone()), failed: false }))
}

/// Looks at the head of an answer: what is watched must come in a form that can be read.
pub(super) fn head(
    watched: &mut Option<Watched>,
    head: &mut ResponseHeader,
) -> std::result::Result<(), Refusal> {
    let Some(watch) = watched else { return Ok(()) };
    if head.status.is_informational() {
        return Ok(());
    }
    let bodiless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT)
        || head.headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0");
    if !head.status.is_success() || bodiless {
        // An answer that reports a failure lists nothing.
        *watched = None;
        return Ok(());
    }
    if response::encoded(&head.headers) {
        return Err(Refusal::ResponseEncoded);
    }
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    watch.answers.come_as(match kind.as_str() {
        "application/json" => Form::Json,
        "text/event-stream" => Form::Events,
        _ => return Err(McpRefusal::AnswerInvalid.into()),
    });
    // What passes may be shorter than what came.
    head.remove_header(&CONTENT_LENGTH);
    head.insert_header(TRANSFER_ENCODING, "chunked").map_err(|_never| Refusal::Internal)
}

/// Takes in a piece of a watched answer and leaves what may pass of it. When it cannot be read the client is told so in
/// its place, and nothing follows.
pub(super) fn body_piece(ctx: &mut Ctx, piece: &mut Option<Bytes>, end: bool) -> Result<()> {
    let Some(watched) = ctx.forward.as_mut().and_then(|forward| forward.watched.as_mut()) else {
        return Ok(());
    };
    let came = piece.take().unwrap_or_default();
    if watched.failed {
        return Ok(());
    }
    if let Ok(passed) = watched.answers.push(&came, end) {
        // An empty piece is none: in a chunked body it would be the last.
        *piece = (!passed.is_empty()).then(|| Bytes::from(passed));
        return Ok(());
    }
    watched.failed = true;
    let refusal = Refusal::from(McpRefusal::AnswerInvalid);
    let particulars = Particulars {
        request_id: ctx.request_id.clone(),
        decision_id: ctx.slot.decision_id(),
        ..Particulars::default()
    };
    let error = watched.id.as_ref().map(|id| mcp::error(id, &refusal.answer(), &particulars).to_string());
    let events = watched.answers.form() == Form::Events;
    ctx.refused = Some(refusal);
    finish::failed(&ctx.slot, &refusal);
    match error {
        Some(error) if events => *piece = Some(Bytes::from(format!("\n\nevent: message\ndata: {error}\n\n"))),
        Some(error) => *piece = Some(Bytes::from(error)),
        None => return Error::e_explain(ErrorType::InternalError, "the server's stream cannot be read"),
    }
    Ok(())
}

/// What the client of a refused request is told as an MCP client.
pub(super) fn told(app: &App, session: &Session, ctx: &Ctx, refusal: &Refusal) -> Told {
    let id = ctx.posted.as_ref().map(|posted| match &posted.message {
        Ok(message) => message.id.clone(),
        Err(_) => Value::Null,
    });
    let discovers = matches!(refusal.answer().status, 401 | 403);
    let metadata = discovers.then(|| endpoint(app, session)).flatten().map(|found| found.metadata_url());
    Told { id, metadata }
}

impl Told {
    /// The body of the refusal.
    pub(super) fn body(&self, refusal: &Refusal, particulars: &Particulars) -> Vec<u8> {
        let answer = refusal.answer();
        match &self.id {
            Some(id) => mcp::error(id, &answer, particulars).to_string().into_bytes(),
            None => answer.body(particulars),
        }
    }

    /// Its `WWW-Authenticate`, where it has one.
    pub(super) fn challenge(&self, refusal: &Refusal, particulars: &Particulars) -> Option<String> {
        let answer = refusal.answer();
        let discovered = self.metadata.as_ref().and_then(|url| mcp::challenge(&answer, particulars, url));
        discovered.or_else(|| answer.challenge())
    }
}

/// The document about an MCP endpoint, where the request asks for one.
pub(super) fn document(app: &App, session: &Session) -> Option<Value> {
    if !session.req_header().uri.path().starts_with(discovery::WELL_KNOWN) {
        return None;
    }
    with_head(app, session, |head, scheme| {
        let limits = &app.config.limits;
        let limits = HeadLimits { bytes: limits.max_header_bytes, lines: limits.max_header_count };
        let host = head.frame(limits).ok()?;
        discovery::document(&app.snapshot.load(), head, &host, scheme, &app.config.issuer)
    })
}

fn endpoint(app: &App, session: &Session) -> Option<Endpoint> {
    with_head(app, session, |head, scheme| {
        if discovery::names_resource(head.headers) {
            return None;
        }
        let limits = &app.config.limits;
        let limits = HeadLimits { bytes: limits.max_header_bytes, lines: limits.max_header_count };
        let host = head.frame(limits).ok()?;
        Endpoint::find(&app.snapshot.load(), &host, scheme, head.path())
    })
}
