//! A small HTTP client: one connection, one request, one bounded answer.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// What came back.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// From the first byte of the connection to the last of the body.
    pub(super) took: Duration,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("`{0}` is not an http or https URL")]
    Url(String),
    #[error("`{0}` cannot be reached")]
    Connect(String, #[source] std::io::Error),
    #[error("`{0}` did not answer within {limit} s", limit = .1.as_secs())]
    TimedOut(String, Duration),
    #[error("`{0}` is no name a certificate can have")]
    Name(String, #[source] InvalidDnsNameError),
    #[error("no certificate authorities were found; name a PEM file with --ca")]
    NoRoots,
    #[error("the certificate authorities in `{0}` cannot be read")]
    Roots(String, #[source] rustls_pki_types::pem::Error),
    #[error("the exchange broke off")]
    Broken(#[source] hyper::Error),
    #[error("the answer has more than {MAX_BODY_BYTES} bytes, or broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sends requests; knows whom to trust over TLS once it has to.
#[derive(Debug)]
pub(super) struct Client {
    roots: Option<String>,
}

impl Client {
    /// A client that trusts the authorities in the PEM file `ca`, or the machine's own.
    pub(super) fn new(ca: Option<&Path>) -> Self {
        Self { roots: ca.map(|path| path.display().to_string()) }
    }

    /// Sends one request and reads the whole answer. Redirects are answers like any other.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, HttpError> {
        let started = Instant::now();
        let target = Target::of(request.uri())?;
        let shown = target.authority();
        match timeout(ANSWER_LIMIT, self.exchange(request, &target)).await {
            Ok(answer) => answer.map(|answer| Answer { took: started.elapsed(), ..answer }),
            Err(_elapsed) => Err(HttpError::TimedOut(shown, ANSWER_LIMIT)),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>, target: &Target) -> Result<Answer, HttpError> {
        let shown = target.authority();
        let connect = TcpStream::connect((target.host.as_str(), target.port));
        let stream = match timeout(CONNECT_LIMIT, connect).await {
            Ok(connected) => connected.map_err(|error| HttpError::Connect(shown.clone(), error))?,
            Err(_elapsed) => return Err(HttpError::TimedOut(shown, CONNECT_LIMIT)),
        };
        if !target.tls {
            return converse(stream, request, target).await;
        }
        let name = ServerName::try_from(target.host.clone())
            .map_err(|error| HttpError::Name(target.host.clone(), error))?;
        let connector = TlsConnector::from(Arc::new(self.tls()?));
        let stream =
            connector.connect(name, stream).await.map_err(|error| HttpError::Connect(shown, error))?;
        converse(stream, request, target).await
    }

    fn tls(&self) -> Result<ClientConfig, HttpError> {
        let path = match &self.roots {
            Some(path) => path.as_str(),
            None => *SYSTEM_ROOTS.iter().find(|path| Path::new(path).exists()).ok_or(HttpError::NoRoots)?,
        };
        let unreadable = |error| HttpError::Roots(path.to_owned(), error);
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
            .map_err(unreadable)?
            .collect::<Result<_, _>>()
            .map_err(unreadable)?;
        let mut roots = RootCertStore::empty();
        let (usable, _odd) = roots.add_parsable_certificates(certificates);
        if usable == 0 {
            return Err(HttpError::NoRoots);
        }
        Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    mut request: Request<Full<Bytes>>,
    target: &Target,
) -> Result<Answer, HttpError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(HttpError::Broken)?;
    // Ends with the sender; what goes wrong in it, the sender's own future reports.
    tokio::spawn(connection);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let uri = path.parse().map_err(|_odd| HttpError::Url(path.to_owned()))?;
    *request.uri_mut() = uri;
    let host = target.authority().parse().map_err(|_odd| HttpError::Url(target.authority()))?;
    request.headers_mut().insert(header::HOST, host);

    let response = sender.send_request(request).await.map_err(HttpError::Broken)?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(HttpError::Body)?.to_bytes();
    Ok(Answer { status: head.status, headers: head.headers, body, took: Duration::ZERO })
}

/// Whom a request goes to.
#[derive(Debug)]
struct Target {
    /// Without brackets.
    host: String,
    port: u16,
    tls: bool,
}

impl Target {
    fn of(uri: &Uri) -> Result<Self, HttpError> {
        let odd =
            || HttpError::Url(format!("{}://{}", uri.scheme_str().unwrap_or("?"), uri.host().unwrap_or("?")));
        let (tls, own_port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(odd()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(odd)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(own_port), tls })
    }

    /// Host and port as in the `Host` header.
    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.tls, self.port) {
            (false, 80) | (true, 443) => host,
            _ => format!("{host}:{}", self.port),
        }
    }
}

/// Where Linux distributions and macOS keep the authorities a machine trusts, the most common first.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// As the official clients allow for a token exchange, and longer than the gateway waits for upstream headers.
const ANSWER_LIMIT: Duration = Duration::from_secs(45);

const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Enough to show; nobody reads more in a terminal.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests;
