//! Looking for the injected secret in what the upstream answers: always in heads, in bodies where the resource asks.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use caracal_plugins::{ChainStop, Scrubber};
use http::{HeaderMap, Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::prelude::Result;
use zeroize::Zeroizing;

use super::context::Forward;
use crate::gate::response;
use crate::secrets;

/// Looks for what was injected into this request alone.
pub(super) fn scrubber(searched: &[Zeroizing<String>]) -> Option<Arc<Scrubber>> {
    secrets::scrubber(searched.iter().map(|secret| secret.as_str()))
}

/// Overwrites the secret in a head, then runs the response plugins. The inner result is their verdict, or in how many
/// places it was found.
pub(super) fn head(
    forward: &Forward,
    head: &mut ResponseHeader,
) -> Result<std::result::Result<u64, ChainStop>> {
    // A phrase of the upstream's own may say anything, and no client needs one.
    head.set_reason_phrase(None)?;
    let scrubber = forward.scrubber.as_deref();
    let echoed = scrubber.is_some_and(|scrubber| scrubber.finds_in(&head.headers));
    if !echoed && forward.chain.is_none() {
        return Ok(Ok(0));
    }
    let mut headers = head.headers.clone();
    let found = scrubber.filter(|_| echoed).map_or(0, |scrubber| scrubber.scrub_headers(&mut headers));
    if let Some(chain) = &forward.chain
        && let Err(stop) = chain.on_response(head.status.as_u16(), &mut headers, scrubber)
    {
        return Ok(Err(stop));
    }
    replace(head, &headers)?;
    Ok(Ok(u64::try_from(found).unwrap_or(u64::MAX)))
}

/// Makes the fields of a head those of `headers`, touching only what differs.
fn replace(head: &mut ResponseHeader, headers: &HeaderMap) -> Result<()> {
    let gone: Vec<_> = head.headers.keys().filter(|name| !headers.contains_key(*name)).cloned().collect();
    for name in &gone {
        head.remove_header(name);
    }
    let changed: Vec<_> = headers
        .keys()
        .filter(|name| !head.headers.get_all(*name).iter().eq(headers.get_all(*name).iter()))
        .cloned()
        .collect();
    for name in changed {
        head.remove_header(&name);
        for value in headers.get_all(&name) {
            head.append_header(name.clone(), value.clone())?;
        }
    }
    Ok(())
}

/// Whether the resource's bodies are to be searched and the one under this head cannot be.
pub(super) fn is_impossible(forward: &Forward, head: &ResponseHeader) -> bool {
    if forward.searching.is_none() || forward.scrubber.is_none() {
        return false;
    }
    let bodiless = forward.head.method == Method::HEAD.as_str()
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    head.status == StatusCode::SWITCHING_PROTOCOLS || (!bodiless && response::encoded(&head.headers))
}

/// Overwrites the secret in a piece of a body, and holds back what may be the beginning of it. Gives in how many
/// places it was found.
pub(super) fn body(forward: &mut Forward, piece: &mut Option<Bytes>, end: bool) -> u64 {
    let (Some(stream), Some(scrubber)) = (&mut forward.searching, &forward.scrubber) else { return 0 };
    let came = piece.take().unwrap_or_default();
    let (ready, found) = stream.push(scrubber, &came, end);
    let ready = match ready {
        Cow::Borrowed(unchanged) => came.slice(..unchanged.len()),
        Cow::Owned(changed) => Bytes::from(changed),
    };
    // An empty piece is none: in a chunked body it would be the last.
    *piece = (!ready.is_empty()).then_some(ready);
    u64::try_from(found).unwrap_or(u64::MAX)
}
