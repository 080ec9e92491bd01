//! Asking somebody over HTTP for ourselves: where that may be, over connections that are kept, and no more than an
//! answer is. Redirects are answers like any other.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use caracal_policies::Scheme;
use http::header::USER_AGENT;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::egress::{Egress, Reach, Refused};
use crate::trust;

/// Bytes of an answer.
const MAX_ANSWER: usize = 64 * 1024;
/// How long an idle connection is kept.
const KEPT: Duration = Duration::from_secs(30);
/// Idle connections kept for one endpoint; one is needed at a time.
const KEPT_PER_HOST: usize = 4;

/// The body of a request.
pub(crate) type Body = Full<Bytes>;

/// Asks, over connections that are kept.
#[derive(Debug)]
pub(crate) struct Http {
    client: Client<Dialer, Body>,
    /// One question, from the name to the last byte that is read.
    timeout: Duration,
}

/// Why there is no answer. Nothing the other side wrote is in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// The time was over.
    #[error("no answer within {} seconds", .0.as_secs())]
    Late(Duration),
    /// It may not be dialled, or is not known.
    #[error(transparent)]
    Refused(Refused),
    /// There was no connection.
    #[error("{0}")]
    Unreachable(String),
    /// The connection or the answer broke off.
    #[error("{0}")]
    Broken(&'static str),
    /// The answer is longer than one is.
    #[error("the answer is longer than 64 KiB")]
    TooLong,
}

impl Http {
    /// `reach` says what may be dialled for whoever asks.
    pub(crate) fn new(egress: Arc<Egress>, reach: fn(Scheme) -> Reach, timeout: Duration) -> Self {
        let dialer = Dialer { egress, reach, tls: Arc::default() };
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(KEPT)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(KEPT_PER_HOST)
            .build(dialer);
        Self { client, timeout }
    }

    /// The status and the body, whatever they are.
    pub(crate) async fn ask(&self, request: Request<Body>) -> Result<(StatusCode, Bytes), Unanswered> {
        let exchange = async {
            let response = self.send(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() {
                    Unanswered::TooLong
                } else {
                    Unanswered::Broken("the answer broke off")
                }
            })?;
            Ok((status, body.to_bytes()))
        };
        tokio::time::timeout(self.timeout, exchange).await.map_err(|_late| Unanswered::Late(self.timeout))?
    }

    /// The status alone, whatever follows it.
    pub(crate) async fn status(&self, request: Request<Body>) -> Result<StatusCode, Unanswered> {
        let answered = tokio::time::timeout(self.timeout, self.send(request)).await;
        Ok(answered.map_err(|_late| Unanswered::Late(self.timeout))??.status())
    }

    async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Unanswered> {
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("caracal"));
        self.client.request(request).await.map_err(|error| {
            let problem = std::error::Error::source(&error).and_then(|source| source.downcast_ref());
            match problem {
                Some(DialProblem::Refused(problem)) => Unanswered::Refused(problem.clone()),
                Some(problem) => Unanswered::Unreachable(problem.to_string()),
                None => Unanswered::Broken("the connection broke off"),
            }
        })
    }
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

/// Dials. The authorities are read when they are first needed: most edges have no such endpoint.
#[derive(Clone)]
struct Dialer {
    egress: Arc<Egress>,
    reach: fn(Scheme) -> Reach,
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
        let address = self.egress.address(host, port, (self.reach)(scheme)).await?;
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::egress::SystemResolver;

    async fn asked(answer: Option<&'static str>) -> Result<StatusCode, Unanswered> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4_096]).await.unwrap() > 0);
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                None => std::future::pending().await,
            }
            stream
        });
        let config = crate::config::parse("c", "schema = 1\n[zones.z]\n", Path::new(".")).unwrap();
        let egress = Arc::new(Egress::new(&config, Arc::new(SystemResolver)).unwrap());
        let http = Http::new(egress, Reach::Sink, Duration::from_millis(300));
        let status = http.status(Request::post(url).body(Body::default()).unwrap()).await;
        server.abort();
        status
    }

    #[tokio::test]
    async fn an_answer_is_its_status_and_comes_in_time_or_not_at_all() {
        let redirect = "HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(asked(Some(redirect)).await.unwrap(), 307, "a redirect is not followed");
        let endless = "HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\nx";
        assert_eq!(asked(Some(endless)).await.unwrap(), 200, "the body is not waited for");
        assert!(matches!(asked(None).await, Err(Unanswered::Late(_))));
        assert!(matches!(asked(Some("SSH-2.0-x\r\n")).await, Err(Unanswered::Broken(_))));
    }
}
