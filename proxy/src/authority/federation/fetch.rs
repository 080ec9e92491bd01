//! Fetching a key set: where it is allowed to be, and no more than a key set is.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caracal_policies::{EndpointUrl, Scheme};
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::egress::{Egress, Reach, Refused};
use crate::trust;

/// The whole fetch, from the name to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a document.
const MAX_DOCUMENT: usize = 256 * 1024;

/// Why a key set could not be fetched; for the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchProblem {
    #[error("no answer within 5 seconds")]
    Late,
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("the certificate authorities cannot be read: {0}")]
    Roots(String),
    #[error("no TLS connection: {0}")]
    Tls(#[source] io::Error),
    #[error("no HTTP answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer is {0}, and only 200 is one (redirects are not followed)")]
    Status(StatusCode),
    #[error("the document is longer than 256 KiB or ended early")]
    Body,
    #[error("the URL cannot be asked for")]
    Url,
}

/// Fetches key sets.
#[derive(Debug)]
pub(super) struct Fetcher {
    ca_file: Option<PathBuf>,
    egress: Arc<Egress>,
    /// Made when it is first needed: most edges have no subject issuer.
    tls: Mutex<Option<Tls>>,
}

#[derive(Clone)]
struct Tls(TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Fetcher {
    pub(super) const fn new(ca_file: Option<PathBuf>, egress: Arc<Egress>) -> Self {
        Self { ca_file, egress, tls: Mutex::new(None) }
    }

    /// Fetches the document.
    ///
    /// # Errors
    /// [`FetchProblem`].
    pub(super) async fn fetch(&self, url: &EndpointUrl) -> Result<Vec<u8>, FetchProblem> {
        tokio::time::timeout(TIMEOUT, self.get(url)).await.unwrap_or(Err(FetchProblem::Late))
    }

    async fn get(&self, url: &EndpointUrl) -> Result<Vec<u8>, FetchProblem> {
        let reach = Reach::KeySet(url.scheme());
        let address = self.egress.address(url.host(), url.port(), reach).await?;
        let stream = TcpStream::connect(address).await.map_err(FetchProblem::Connect)?;
        match url.scheme() {
            Scheme::Http => ask(stream, url).await,
            Scheme::Https => {
                let name = ServerName::try_from(url.host().to_string()).ok().ok_or(FetchProblem::Url)?;
                let Tls(connector) = self.connector().await?;
                ask(connector.connect(name, stream).await.map_err(FetchProblem::Tls)?, url).await
            }
        }
    }

    async fn connector(&self) -> Result<Tls, FetchProblem> {
        if let Some(known) = self.tls.lock().clone() {
            return Ok(known);
        }
        let file = self.ca_file.clone();
        let made = tokio::task::spawn_blocking(move || trust::connector(file.as_deref())).await;
        let made = made.map_err(|error| FetchProblem::Roots(error.to_string()))?;
        let made = Tls(made.map_err(FetchProblem::Roots)?);
        *self.tls.lock() = Some(made.clone());
        Ok(made)
    }
}

async fn ask<T>(stream: T, url: &EndpointUrl) -> Result<Vec<u8>, FetchProblem>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = AbortOnDrop(tokio::spawn(connection));
    let host = if url.host().contains(':') { format!("[{}]", url.host()) } else { url.host().to_string() };
    let request = Request::get(url.target())
        .header(HOST, format!("{host}:{}", url.port()))
        .header(ACCEPT, "application/json, application/jwk-set+json")
        .header(USER_AGENT, "caracal")
        .body(Empty::<Bytes>::new())
        .ok()
        .ok_or(FetchProblem::Url)?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Err(FetchProblem::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), MAX_DOCUMENT).collect().await;
    drop(connection);
    Ok(body.ok().ok_or(FetchProblem::Body)?.to_bytes().to_vec())
}

/// A connection does not outlive the fetch, however that ends.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
