//! Asking a token endpoint: where it may be, over connections that are kept, and no more than an answer is.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use caracal_policies::Scheme;
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
use crate::egress::{Egress, Reach, Refused};
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

impl Http {
    pub(super) fn new(egress: Arc<Egress>) -> Self {
        let dialer = Dialer { egress, tls: Arc::default() };
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
                Some(DialProblem::Refused(problem)) if !matches!(problem, Refused::Unresolved(_)) => {
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
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the host is none that a certificate can name")]
    Name,
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("no TLS connection: {0}")]
    Tls(#[source] io::Error),
    #[error("the certificate authorities cannot be read: {0}")]
    Roots(String),
}

/// Dials endpoints. The authorities are read when they are first needed: most edges have no such provider.
#[derive(Clone)]
struct Dialer {
    egress: Arc<Egress>,
    tls: Arc<Mutex<Option<TlsConnector>>>,
}

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
        let scheme = if tls { Scheme::Https } else { Scheme::Http };
        let address = self.egress.address(host, port, Reach::TokenEndpoint(scheme)).await?;
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
        if let Some(known) = self.tls.lock().clone() {
            return Ok(known);
        }
        let made = tokio::task::spawn_blocking(|| trust::connector(None)).await;
        let made = made.map_err(|error| DialProblem::Roots(error.to_string()))?;
        let made = made.map_err(DialProblem::Roots)?;
        *self.tls.lock() = Some(made.clone());
        Ok(made)
    }
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
