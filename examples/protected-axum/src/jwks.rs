//! Fetching a key set: one GET, no redirects, five seconds, 256 KiB.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use caracal_mandates::MAX_JWKS_BYTES;
use caracal_mandates::tower::{FetchFailed, Fetching, JwksSource};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Fetches over https with the system's roots, or over http; the verifier gives it loopback http only.
#[derive(Clone)]
pub struct HttpJwks(TlsConnector);

impl HttpJwks {
    /// A source with the system's roots.
    ///
    /// # Errors
    /// When the system's roots cannot be read.
    pub fn new() -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        let certificates = rustls_native_certs::load_native_certs().context("the system's roots")?;
        roots.add_parsable_certificates(certificates);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }
}

impl JwksSource for HttpJwks {
    fn fetch(&self, url: &str) -> Fetching {
        let (tls, url) = (self.0.clone(), url.to_owned());
        Box::pin(async move {
            let outcome = tokio::time::timeout(TIMEOUT, get(&tls, &url)).await;
            let outcome = outcome.unwrap_or_else(|_late| Err(anyhow::anyhow!("no answer within 5 s")));
            outcome.map_err(|error| {
                tracing::warn!(%url, error = format!("{error:#}"), "the key set could not be fetched");
                FetchFailed::new(format!("{error:#}"))
            })
        })
    }
}

async fn get(tls: &TlsConnector, url: &str) -> anyhow::Result<Vec<u8>> {
    let uri: Uri = url.parse().context("the URL")?;
    let host = uri.host().context("the URL has no host")?.trim_matches(['[', ']']).to_owned();
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port)).await.context("connecting")?;
    if secure {
        let name = ServerName::try_from(host).context("the host's name")?;
        exchange(tls.connect(name, stream).await.context("TLS")?, &uri).await
    } else {
        exchange(stream, &uri).await
    }
}

async fn exchange<T>(stream: T, uri: &Uri) -> anyhow::Result<Vec<u8>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let host = uri.authority().context("the URL has no host")?.as_str();
    let request = Request::get(target).header(HOST, host).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    ensure!(response.status() == StatusCode::OK, "answered {}", response.status());
    let body = Limited::new(response.into_body(), MAX_JWKS_BYTES).collect().await;
    driver.abort();
    match body {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(error) => bail!("reading the document: {error}"),
    }
}

impl std::fmt::Debug for HttpJwks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HttpJwks")
    }
}
