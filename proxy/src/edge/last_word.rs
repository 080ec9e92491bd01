//! The last word of a stream that is cut: an event, or on HTTP/2 the trailer `X-Caracal-Revoked`.
//!
//! The proxy reads from the upstream and from nobody else while a stream is idle, so the upstream connection of an
//! event stream is one of its own that fails when the slot is cut; `fail_to_proxy` then gets to say something. Every
//! other request is dropped where it stands. Whatever says nothing within [`PATIENCE`] is dropped too.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use pingora::connectors::L4Connect;
use pingora::prelude::Result;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::proxy::Session;

use super::dialled::{self, Reading};
use super::slot::{Cut, Slot};

/// How long a cut stream may take to say its last word.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);

const TRAILER: HeaderName = HeaderName::from_static("x-caracal-revoked");

/// Blank lines first: the stream may have been cut in the middle of an event, which then is none.
const EVENT: &[u8] =
    b"\n\nevent: caracal-revoked\ndata: {\"error\":\"invalid_token\",\"reason\":\"revoked\"}\n\n";

/// Says why a stream ends, where its protocol has a place for it.
///
/// On HTTP/1.1 the body is left without its end, so that nobody takes it for complete.
pub(super) async fn say(session: &mut Session, why: Cut) {
    let revoked = match why {
        Cut::Revoked | Cut::Policy => true,
        Cut::Deadline | Cut::Stopping => false,
    };
    let Some(head) = session.response_written() else { return };
    if !revoked || head.headers.contains_key(CONTENT_LENGTH) {
        return;
    }
    let events =
        head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    // The stream is over in any case: a client that is gone hears nothing.
    if events {
        session.write_response_body(Some(Bytes::from_static(EVENT)), false).await.ok();
    }
    if session.is_http2() {
        let trailers = HeaderMap::from_iter([(TRAILER, HeaderValue::from_static("true"))]);
        session.downstream_session.write_response_trailers(trailers).await.ok();
    }
}

/// Connects an event stream's request to its upstream, on a connection that fails when the request is cut.
#[derive(Debug)]
pub(super) struct CuttableDial(pub(super) Arc<Slot>);

#[async_trait]
impl L4Connect for CuttableDial {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let slot = Arc::clone(&self.0);
        let cuttable = || {
            slot.expect_last_word();
            Cuttable(Some(Box::pin(async move { slot.last_word_due().await })))
        };
        dialled::dial(address, cuttable).await
    }
}

/// Resolves when the request is cut; none once it has.
struct Cuttable(Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>);

impl Reading for Cuttable {
    fn instead(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Result<()>>> {
        let over = self.0.as_mut().is_none_or(|cut| cut.as_mut().poll(cx).is_ready());
        over.then(|| {
            self.0 = None;
            Poll::Ready(Err(io::Error::other("the request was cut")))
        })
    }
}
