//! Bodies that are read before anything is decided, because the decision depends on them: messages to MCP servers, JSON
//! that a guard looks at, and whatever a person has to approve. They are sent on byte for byte as they were read.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use caracal_policies::{McpCall, Resource};
use http::HeaderValue;
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE};
use pingora::proxy::Session;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::context::{Ctx, Governed, Refused};
use super::govern;
use crate::app::App;
use crate::gate::Entered;
use crate::gate::authorize::Seen;
use crate::gate::forward::UpstreamHead;
use crate::gate::guards::{self, GuardRefusal};
use crate::gate::head::Head;
use crate::gate::mcp::{self, MAX_MESSAGE, MAX_UNDECLARED, McpRefusal, Message};
use crate::gate::refusal::Refusal;

/// What the proxy library keeps of a body to send it once more.
const KEPT: usize = 64 * 1024;

/// How long a body may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Room for the bodies that are held at one time, in bytes.
static ROOM: Semaphore = Semaphore::const_new(64 * MAX_MESSAGE);

/// What a body is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A message to an MCP server; without two readings of its arguments where a guard looks at them.
    Message { guarded: bool },
    /// One JSON value, or nothing.
    Json,
    /// Whatever it is.
    Raw,
}

/// What a body says.
pub(super) enum Body {
    Message(Message),
    Json(Option<Value>),
    Raw,
}

/// A body that was read, or why nothing can be decided on it.
pub(super) struct Posted {
    pub body: Bytes,
    pub form: Form,
    pub read: Result<Body, Refusal>,
    /// Given back when the request is over.
    _room: Option<SemaphorePermit<'static>>,
}

/// [`govern::govern`], which asks for the body of a request first where it needs to know it.
pub(super) async fn govern(
    app: &App,
    session: &mut Session,
    peer: IpAddr,
    tls: bool,
    ctx: &mut Ctx,
) -> Result<Governed, Refused> {
    let form = match govern::govern(app, session.req_header(), peer, tls, ctx).await? {
        ControlFlow::Continue(governed) => return Ok(governed),
        ControlFlow::Break(form) => form,
    };
    ctx.posted = Some(take_in(session, form).await);
    match govern::govern(app, session.req_header(), peer, tls, ctx).await? {
        ControlFlow::Continue(governed) => Ok(governed),
        ControlFlow::Break(_) => Err(Refusal::Internal.into()),
    }
}

/// What the body of a request has to be read as before it is decided, if it has to and was not yet.
pub(super) fn unread(entered: &Entered<'_>, head: &Head<'_>, ctx: &Ctx) -> Option<Form> {
    let resource = entered.matched.resource().filter(|_| ctx.posted.is_none())?;
    let guards = resource.guards.as_deref();
    if resource.mcp.is_some() {
        let guarded = guards.is_some_and(|guards| guards.reads().body || guards.asks());
        return (head.method == "POST").then_some(Form::Message { guarded });
    }
    let guards = guards.filter(|guards| guards.reads().body || guards.asks())?;
    let operation = resource.operations.find(head.method, &entered.path);
    if guards.reads_body_of(operation) {
        return Some(Form::Json);
    }
    // What comes on a connection that may change its protocol need not be a body. It is refused if a guard asks.
    (guards.asks_of(operation) && !head.headers.contains_key(UPGRADE)).then_some(Form::Raw)
}

/// What a decision sees of the body, if it was read.
pub(super) fn seen(ctx: &Ctx, now_s: i64) -> Result<Seen<'_>, Refusal> {
    let nothing = Seen { call: None, arguments: None, body: None, now_s, answered: false };
    match ctx.posted.as_ref().map(|posted| &posted.read) {
        None | Some(Ok(Body::Raw)) => Ok(nothing),
        Some(Ok(Body::Message(message))) => {
            Ok(Seen { call: Some(&message.call), arguments: message.arguments.as_ref(), ..nothing })
        }
        Some(Ok(Body::Json(body))) => Ok(Seen { body: body.as_ref(), ..nothing }),
        Some(Err(refusal)) => Err(*refusal),
    }
}

/// The JSON that a guard shows some of: the body, or the arguments of a tool.
pub(super) fn value(ctx: &Ctx) -> Option<&Value> {
    match ctx.posted.as_ref().map(|posted| &posted.read) {
        Some(Ok(Body::Message(message))) => message.arguments.as_ref(),
        Some(Ok(Body::Json(body))) => body.as_ref(),
        Some(Ok(Body::Raw) | Err(_)) | None => None,
    }
}

/// What the message does, if one was read.
pub(super) fn call(ctx: &Ctx) -> Option<&McpCall> {
    let posted = ctx.posted.as_ref()?;
    if let Ok(Body::Message(message)) = &posted.read { Some(&message.call) } else { None }
}

async fn take_in(session: &mut Session, form: Form) -> Posted {
    let refused = |refusal| Posted { body: Bytes::new(), form, read: Err(refusal), _room: None };
    let headers = &session.req_header().headers;
    let declared = match form {
        Form::Message { .. } => mcp::declared_length(headers, MAX_MESSAGE).map_err(Refusal::from),
        Form::Json => guards::unencoded(headers)
            .and_then(|()| guards::declared_length(headers, MAX_MESSAGE))
            .map_err(Refusal::from),
        Form::Raw => guards::declared_length(headers, MAX_MESSAGE).map_err(Refusal::from),
    };
    let declared = match declared {
        Ok(declared) => declared,
        Err(refusal) => return refused(refusal),
    };
    let size = declared.unwrap_or(MAX_UNDECLARED);
    let Ok(room) = ROOM.try_acquire_many(u32::try_from(size).unwrap_or(u32::MAX)) else {
        return refused(form.refusal(McpRefusal::Busy, GuardRefusal::Busy));
    };
    let body = match tokio::time::timeout(PATIENCE, body(session, declared, form)).await {
        Ok(Ok(body)) => Bytes::from(body),
        Ok(Err(refusal)) => return refused(refusal),
        Err(_late) => return refused(form.refusal(McpRefusal::Late, GuardRefusal::Late)),
    };
    let read = match form {
        Form::Message { guarded } => message(&body, session, guarded),
        Form::Json => guards::read(&body).map(Body::Json).map_err(Refusal::from),
        Form::Raw => Ok(Body::Raw),
    };
    Posted { body, form, read, _room: Some(room) }
}

fn message(body: &Bytes, session: &Session, guarded: bool) -> Result<Body, Refusal> {
    let message = mcp::read(body, &session.req_header().headers)?;
    // Numbers of the whole message, names of the arguments: the rest of it was checked name by name.
    let plain = message.arguments.as_ref().is_none_or(|arguments| guards::is_plain(arguments, body));
    if guarded && !plain { Err(McpRefusal::Malformed.into()) } else { Ok(Body::Message(message)) }
}

/// Reads the body to its end. The proxy library sends on what it kept of it, which is replaced by the whole on the way:
/// see [`replay`]. It must have kept something, and nothing that it could not keep whole.
async fn body(session: &mut Session, declared: Option<usize>, form: Form) -> Result<Vec<u8>, Refusal> {
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
            return Err(form.refusal(McpRefusal::LengthRequired, GuardRefusal::LengthRequired));
        }
    }
}

impl Form {
    fn refusal(self, mcp: McpRefusal, guard: GuardRefusal) -> Refusal {
        match self {
            Self::Message { .. } => mcp.into(),
            Self::Json | Self::Raw => guard.into(),
        }
    }
}

/// What differs in a planned request whose body was read.
pub(super) fn plan(resource: &Resource, ctx: &Ctx, planned: &mut UpstreamHead) -> Result<(), Refusal> {
    let Some(posted) = &ctx.posted else { return Ok(()) };
    let most = usize::try_from(resource.limits.max_request_bytes).unwrap_or(usize::MAX);
    if posted.body.len() > most {
        return Err(Refusal::BodyTooLarge);
    }
    // A request that brought no body is sent on as it came.
    if !posted.body.is_empty() {
        planned.remove.extend([TRANSFER_ENCODING, EXPECT]);
        planned.set.push((CONTENT_LENGTH, HeaderValue::from(posted.body.len())));
    }
    Ok(())
}

/// Puts the body in place of what is sent on, so that the upstream gets exactly what was decided on.
pub(super) fn replay(ctx: &Ctx, body: &mut Option<Bytes>, end: bool) {
    if let Some(posted) = ctx.posted.as_ref().filter(|posted| !posted.body.is_empty()) {
        *body = end.then(|| posted.body.clone());
    }
}
