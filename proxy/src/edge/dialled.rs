//! Upstream connections of our own making, where reading from them is not simply reading.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use pingora::OrErr as _;
use pingora::prelude::{Error, ErrorType, Result};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What is asked before a connection is read from.
pub(super) trait Reading: Send + Sync + Unpin + 'static {
    /// An answer to the reader instead of what the connection has; none to read on.
    fn instead(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Result<()>>>;

    /// Something was written.
    fn wrote(&mut self) {}
}

/// Connects, without delaying small writes. `reading` is asked for once the connection stands.
pub(super) async fn dial<R: Reading>(address: &SocketAddr, reading: impl FnOnce() -> R) -> Result<Stream> {
    let SocketAddr::Inet(address) = address else {
        return Error::e_explain(ErrorType::ConnectError, "not an internet address");
    };
    let tcp = TcpStream::connect(address).await.or_err(ErrorType::ConnectError, "dialling the upstream")?;
    tcp.set_nodelay(true).or_err(ErrorType::ConnectError, "dialling the upstream")?;
    Ok(VirtualSocketStream::new(Box::new(Dialled { tcp, reading: reading() })).into())
}

struct Dialled<R> {
    tcp: TcpStream,
    reading: R,
}

impl<R: Reading> AsyncRead for Dialled<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.reading.instead(cx) {
            Some(answer) => answer,
            None => Pin::new(&mut self.tcp).poll_read(cx, buf),
        }
    }
}

impl<R: Reading> AsyncWrite for Dialled<R> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.reading.wrote();
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl<R: Reading> VirtualSocket for Dialled<R> {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.tcp.set_nodelay(true),
            // Keepalive probes and whatever comes later are tuning; these connections have their idle timeout.
            VirtualSockOpt::KeepAlive(_) | _ => Ok(()),
        }
    }
}

impl<R> std::fmt::Debug for Dialled<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialled").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}
