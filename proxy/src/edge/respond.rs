//! How a refusal is written, whatever the protocol and however much body the caller still wants to send.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::context::{Ctx, Settled};
use super::mcp::Told;
use super::{exact, grpc};
use crate::gate::refusal::Refusal;
use crate::refusal::Particulars;

/// How long and how much of an unread body is taken in after the answer went out, so that clients which push
/// the whole body before they read still get to see the answer.
const DRAIN_TIME: Duration = Duration::from_secs(1);
const DRAIN_BYTES: usize = 8 * 1024 * 1024;

/// Carries the code of a refusal.
const ERROR: &str = "X-Caracal-Error";

/// Writes the refusal and settles the connection. Errors are the caller's connection going away: ignored.
pub(super) async fn refuse(session: &mut Session, refusal: &Refusal, particulars: &Particulars, told: &Told) {
    let challenge = told.challenge(refusal, particulars);
    let marked = |header| mark(header, refusal, particulars, challenge);
    let written = if grpc::is_call(session.req_header()) {
        let Ok(header) = grpc::head(refusal, particulars).and_then(marked) else { return };
        grpc::write(session, header)
    } else {
        let body = Bytes::from(told.body(refusal, particulars));
        let Ok(header) = head(refusal, body.len()).and_then(marked) else { return };
        write(session, header, body).await
    };
    if written.is_ok() {
        settle(session).await;
    }
}

/// Answers what is asked without a mandate: a probe, or a document.
pub(super) async fn plain(session: &mut Session, status: u16, body: impl Into<Bytes>) {
    let body = body.into();
    let build = || -> pingora::Result<ResponseHeader> {
        let mut header = ResponseHeader::build(status, Some(2))?;
        header.insert_header(CONTENT_TYPE, "application/json")?;
        header.insert_header(CONTENT_LENGTH, body.len().to_string())?;
        Ok(header)
    };
    let Ok(header) = build() else { return };
    // A caller that went away needs no answer.
    drop(write(session, header, body).await);
}

/// Writes what came of the same request a moment ago.
pub(super) async fn repeat(session: &mut Session, settled: &Settled, ctx: &Ctx) {
    let method = session.req_header().method.clone();
    let Ok((header, body)) = exact::repeated(settled, &method, ctx) else { return };
    ctx.slot.count_sent(body.len());
    // A caller that went away may ask once more.
    drop(write(session, header, body).await);
}

/// Writes a whole answer; to HEAD the head alone, which HTTP/2 leaves to us.
async fn write(session: &mut Session, header: ResponseHeader, body: Bytes) -> pingora::Result<()> {
    let head_only = session.req_header().method == Method::HEAD;
    session.write_response_header(Box::new(header), head_only).await?;
    if head_only { Ok(()) } else { session.write_response_body(Some(body), true).await }
}

/// Whether a response head is a refusal of ours. Upstreams cannot say so: the field is taken out of their answers.
pub(super) fn is_refusal(header: &ResponseHeader) -> bool {
    header.headers.contains_key(ERROR)
}

fn head(refusal: &Refusal, length: usize) -> pingora::Result<ResponseHeader> {
    let mut header = ResponseHeader::build(refusal.answer().status, Some(8))?;
    header.insert_header(CONTENT_TYPE, "application/json")?;
    header.insert_header(CONTENT_LENGTH, length.to_string())?;
    Ok(header)
}

/// What every refusal says, whatever its form.
fn mark(
    mut header: ResponseHeader,
    refusal: &Refusal,
    particulars: &Particulars,
    challenge: Option<String>,
) -> pingora::Result<ResponseHeader> {
    let answer = refusal.answer();
    header.insert_header(CACHE_CONTROL, "no-store")?;
    header.insert_header("X-Request-Id", particulars.request_id.as_str())?;
    // Tells our own refusal from an upstream's with the same status.
    header.insert_header(ERROR, answer.code)?;
    if let Some(challenge) = challenge {
        header.insert_header(WWW_AUTHENTICATE, challenge)?;
    }
    if let Some(limits) = &particulars.limits {
        header.insert_header("RateLimit-Policy", limits.policy.as_str())?;
        header.insert_header("RateLimit", limits.limit.as_str())?;
    }
    // Also where the form of the refusal has no place for it, as that of gRPC.
    if let Some(id) = particulars.members.get("approval_id").and_then(serde_json::Value::as_str) {
        header.insert_header("X-Caracal-Approval", id)?;
    }
    if let Some(seconds) = answer.wait(particulars) {
        header.insert_header(RETRY_AFTER, seconds.to_string())?;
    }
    if answer.status == 405 {
        header.insert_header(ALLOW, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")?;
    }
    Ok(header)
}

/// With an unread body: half-close on HTTP/1.1, then take in a bounded rest. HTTP/2 streams are not reset,
/// because a reset can overtake the answer.
async fn settle(session: &mut Session) {
    if session.is_body_done() {
        return;
    }
    if session.as_http1().is_some() {
        session.downstream_session.shutdown().await;
    }
    let drain = async {
        let mut taken = 0_usize;
        while let Ok(Some(chunk)) = session.read_request_body().await {
            taken = taken.saturating_add(chunk.len());
            if taken > DRAIN_BYTES {
                break;
            }
        }
    };
    // Running out of time is a fine way for this to end.
    drop(tokio::time::timeout(DRAIN_TIME, drain).await);
}
