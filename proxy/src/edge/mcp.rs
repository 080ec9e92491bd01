//! Resources with MCP rules at the listener: the message is read before anything is decided (see [`super::posted`]);
//! lists of tools are cut down on their way back; clients learn where to get a token.

use std::sync::Arc;

use bytes::Bytes;
use caracal_policies::Resource;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, StatusCode};
use pingora::http::ResponseHeader;
use pingora::prelude::{Error, ErrorType, Result};
use pingora::proxy::Session;
use serde_json::Value;

use super::context::Ctx;
use super::finish;
use super::posted::{Body, Form};
use super::target::with_head;
use crate::app::App;
use crate::gate::forward::UpstreamHead;
use crate::gate::head::HeadLimits;
use crate::gate::mcp::answers::{self, Answers};
use crate::gate::mcp::discovery::{self, Endpoint};
use crate::gate::mcp::{self, McpRefusal};
use crate::gate::refusal::Refusal;
use crate::gate::response;
use crate::refusal::Particulars;

/// Where an event stream that broke off is taken up again.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

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
    planned.remove.push(LAST_EVENT_ID);
    planned.set.retain(|(name, _)| *name != LAST_EVENT_ID);
    let Ok(Body::Message(message)) = &posted.read else { return Err(Refusal::Internal) };
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
        "application/json" => answers::Form::Json,
        "text/event-stream" => answers::Form::Events,
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
    let events = watched.answers.form() == answers::Form::Events;
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
    let id = ctx.posted.as_ref().and_then(|posted| match (&posted.read, posted.form) {
        (Ok(Body::Message(message)), _) => Some(message.id.clone()),
        (Err(_), Form::Message { .. }) => Some(Value::Null),
        (_, Form::Json | Form::Raw) | (Ok(Body::Json(_) | Body::Raw), _) => None,
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
