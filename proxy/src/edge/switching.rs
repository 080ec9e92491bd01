//! Connections for requests that ask to switch protocols.
//!
//! The proxy hands the request over to the upstream in two pieces, the head and the end of a body that has none, and
//! takes the upstream's answer beside them. When the 101 overtakes the second piece, the proxy takes that end for the
//! end of the upgraded connection and closes it (Pingora 0.9.1, `proxy_h1.rs`). An upstream on the same machine is
//! fast enough for this. So nothing is read at the first asking after something was written: what lies ready is
//! handed over first.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::OrErr as _;
use pingora::connectors::L4Connect;
use pingora::prelude::{Error, ErrorType, Result};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Connects a request that asks for an upgrade to its upstream.
#[derive(Debug)]
pub(super) struct UpgradeDial;

#[async_trait]
impl L4Connect for UpgradeDial {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let SocketAddr::Inet(address) = address else {
            return Error::e_explain(ErrorType::ConnectError, "not an internet address");
        };
        let tcp =
            TcpStream::connect(address).await.or_err(ErrorType::ConnectError, "dialling the upstream")?;
        tcp.set_nodelay(true).or_err(ErrorType::ConnectError, "dialling the upstream")?;
        Ok(VirtualSocketStream::new(Box::new(Polite { tcp, wrote: false })).into())
    }
}

#[derive(Debug)]
struct Polite {
    tcp: TcpStream,
    /// Something was written, and nobody has asked to read since.
    wrote: bool,
}

impl AsyncRead for Polite {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.wrote) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Polite {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.wrote = true;
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl VirtualSocket for Polite {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.tcp.set_nodelay(true),
            // Keepalive probes and whatever comes later are tuning; the connection has its idle timeout.
            VirtualSockOpt::KeepAlive(_) | _ => Ok(()),
        }
    }
}
