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
use pingora::OrErr as _;
use pingora::connectors::L4Connect;
use pingora::prelude::{Error, ErrorType, Result};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::proxy::Session;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

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
        let SocketAddr::Inet(address) = address else {
            return Error::e_explain(ErrorType::ConnectError, "not an internet address");
        };
        let tcp =
            TcpStream::connect(address).await.or_err(ErrorType::ConnectError, "dialling the upstream")?;
        tcp.set_nodelay(true).or_err(ErrorType::ConnectError, "dialling the upstream")?;
        let slot = Arc::clone(&self.0);
        slot.expect_last_word();
        let cut = Box::pin(async move { slot.last_word_due().await });
        Ok(VirtualSocketStream::new(Box::new(Cuttable { tcp, cut: Some(cut) })).into())
    }
}

struct Cuttable {
    tcp: TcpStream,
    /// Resolves when the request is cut; none once it has.
    cut: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl AsyncRead for Cuttable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let over = self.cut.as_mut().is_none_or(|cut| cut.as_mut().poll(cx).is_ready());
        if over {
            self.cut = None;
            return Poll::Ready(Err(io::Error::other("the request was cut")));
        }
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl VirtualSocket for Cuttable {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.tcp.set_nodelay(true),
            // Keepalive probes and whatever comes later are tuning; an event stream has its idle timeout.
            VirtualSockOpt::KeepAlive(_) | _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for Cuttable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cuttable").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}
