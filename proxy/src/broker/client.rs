//! Asking a token endpoint: where it may be, over connections that are kept, and no more than an answer is.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::USER_AGENT;
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Trouble, Unavailable};
use crate::edge::dial;
use crate::trust;

/// One question, from the name to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer.
const MAX_ANSWER: usize = 64 * 1024;
/// How long an idle connection is kept.
const KEPT: Duration = Duration::from_secs(30);
/// Idle connections kept for one endpoint; a provider needs one at a time.
const KEPT_PER_HOST: usize = 4;

/// The body of a question.
pub(super) type Body = Full<Bytes>;

/// Asks, over connections that are kept. Redirects are answers like any other.
#[derive(Debug)]
pub(super) struct Http(Client<Dialer, Body>);

impl Default for Http {
    fn default() -> Self {
        Self::over(Dialer::default())
    }
}

impl Http {
    fn over(dialer: Dialer) -> Self {
        Self(
            Client::builder(TokioExecutor::new())
                .pool_idle_timeout(KEPT)
                .pool_timer(TokioTimer::new())
                .pool_max_idle_per_host(KEPT_PER_HOST)
                .build(dialer),
        )
    }

    /// The status and the body, whatever they are.
    pub(super) async fn ask(&self, mut request: Request<Body>) -> Result<(StatusCode, Bytes), Trouble> {
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("caracal"));
        let late = |_late| Trouble::new(Unavailable::Unreachable, "no answer within 5 seconds");
        tokio::time::timeout(TIMEOUT, self.exchange(request)).await.map_err(late)?
    }

    async fn exchange(&self, request: Request<Body>) -> Result<(StatusCode, Bytes), Trouble> {
        let response = self.0.request(request).await.map_err(|error| {
            let problem = std::error::Error::source(&error).and_then(|source| source.downcast_ref());
            match problem {
                Some(problem @ (DialProblem::Unsafe(_) | DialProblem::NotLoopback(_))) => {
                    Trouble::new(Unavailable::NotAddressable, problem.to_string())
                }
                Some(problem) => again(problem.to_string()),
                None => again("the connection broke off".to_owned()),
            }
        })?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                Trouble::new(Unavailable::Malformed, "the answer is longer than 64 KiB")
            } else {
                again("the answer broke off".to_owned())
            }
        })?;
        Ok((status, body.to_bytes()))
    }
}

fn again(detail: String) -> Trouble {
    Trouble { again: true, ..Trouble::new(Unavailable::Unreachable, detail) }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum DialProblem {
    #[error("the name cannot be resolved")]
    Name,
    #[error("{0} is never dialled")]
    Unsafe(IpAddr),
    #[error("{0} is not on this host, and the URL is plain http")]
    NotLoopback(IpAddr),
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("no TLS connection: {0}")]
    Tls(#[source] io::Error),
    #[error("the certificate authorities cannot be read: {0}")]
    Roots(String),
}

/// Dials endpoints. The authorities are read when they are first needed: most edges have no such provider.
#[derive(Clone, Default)]
struct Dialer(Arc<Mutex<Option<TlsConnector>>>);

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialer")
    }
}

impl Dialer {
    async fn dial(self, uri: Uri) -> Result<TokioIo<Stream>, DialProblem> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let address = address(host, port, tls).await?;
        let stream = TcpStream::connect(address).await.map_err(DialProblem::Connect)?;
        // A request is written at once.
        stream.set_nodelay(true).map_err(DialProblem::Connect)?;
        if !tls {
            return Ok(TokioIo::new(Stream(Box::new(stream))));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_name| DialProblem::Name)?;
        let connector = self.connector().await?;
        let stream = connector.connect(name, stream).await.map_err(DialProblem::Tls)?;
        Ok(TokioIo::new(Stream(Box::new(stream))))
    }

    async fn connector(&self) -> Result<TlsConnector, DialProblem> {
        if let Some(known) = self.0.lock().clone() {
            return Ok(known);
        }
        let made = tokio::task::spawn_blocking(|| trust::connector(None)).await;
        let made = made.map_err(|error| DialProblem::Roots(error.to_string()))?;
        let made = made.map_err(DialProblem::Roots)?;
        *self.0.lock() = Some(made.clone());
        Ok(made)
    }
}

/// The address that is dialled. Every address of the name must be allowed, so that an answer which changes between
/// two look-ups gains nothing.
async fn address(host: &str, port: u16, tls: bool) -> Result<SocketAddr, DialProblem> {
    let resolved: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(literal) => vec![SocketAddr::new(literal, port)],
        Err(_name) => {
            tokio::net::lookup_host((host, port)).await.map_err(|_error| DialProblem::Name)?.collect()
        }
    };
    for address in &resolved {
        let ip = address.ip().to_canonical();
        if !dial::safe(ip) {
            return Err(DialProblem::Unsafe(ip));
        }
        if !tls && !ip.is_loopback() {
            return Err(DialProblem::NotLoopback(ip));
        }
    }
    let first = resolved.iter().find(|address| address.is_ipv4()).or_else(|| resolved.first());
    first.copied().ok_or(DialProblem::Name)
}

impl tower::Service<Uri> for Dialer {
    type Response = TokioIo<Stream>;
    type Error = DialProblem;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().dial(uri))
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection, with or without TLS.
struct Stream(Box<dyn Io>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_addresses_that_may_be_a_token_endpoint_are_dialled() {
        for (host, tls, expected) in [
            ("127.0.0.1", false, "ok"),
            ("::1", false, "ok"),
            ("10.0.0.1", true, "ok"),
            ("10.0.0.1", false, "10.0.0.1 is not on this host, and the URL is plain http"),
            ("169.254.169.254", true, "169.254.169.254 is never dialled"),
            ("::ffff:169.254.169.254", true, "169.254.169.254 is never dialled"),
            ("fe80::1", true, "fe80::1 is never dialled"),
            ("0.0.0.0", true, "0.0.0.0 is never dialled"),
        ] {
            let found = address(host, 443, tls).await;
            let found = found.map_or_else(|problem| problem.to_string(), |_address| "ok".to_owned());
            assert_eq!(found, expected, "{host}");
        }
    }
}
