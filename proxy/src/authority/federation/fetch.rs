//! Fetching a key set: where it is allowed to be, and no more than a key set is.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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

use crate::config::FederationConfig;
use crate::edge::dial;
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
    #[error("the name cannot be resolved: {0}")]
    Name(#[source] io::Error),
    #[error("{0} is not a public address; list the host in [federation] private_hosts if it is meant")]
    Private(IpAddr),
    #[error("{0} is never dialled")]
    Unsafe(IpAddr),
    #[error("{0} is not on this host, and the URL is plain http")]
    NotLoopback(IpAddr),
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
    config: FederationConfig,
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
    pub(super) const fn new(config: FederationConfig) -> Self {
        Self { config, tls: Mutex::new(None) }
    }

    /// Fetches the document.
    ///
    /// # Errors
    /// [`FetchProblem`].
    pub(super) async fn fetch(&self, url: &EndpointUrl) -> Result<Vec<u8>, FetchProblem> {
        tokio::time::timeout(TIMEOUT, self.get(url)).await.unwrap_or(Err(FetchProblem::Late))
    }

    async fn get(&self, url: &EndpointUrl) -> Result<Vec<u8>, FetchProblem> {
        let address = self.address(url).await?;
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

    /// The address that is dialled. Every address of the name must be allowed, so that an answer which changes
    /// between two look-ups gains nothing.
    async fn address(&self, url: &EndpointUrl) -> Result<SocketAddr, FetchProblem> {
        let resolved: Vec<SocketAddr> = match url.host().parse::<IpAddr>() {
            Ok(literal) => vec![SocketAddr::new(literal, url.port())],
            Err(_name) => {
                let found = tokio::net::lookup_host((&**url.host(), url.port())).await;
                found.map_err(FetchProblem::Name)?.collect()
            }
        };
        let listed = self.config.private_hosts.iter().any(|host| **host == **url.host());
        for address in &resolved {
            let ip = address.ip().to_canonical();
            if !dial::safe(ip) {
                return Err(FetchProblem::Unsafe(ip));
            }
            if !listed && !is_public(ip) {
                return Err(FetchProblem::Private(ip));
            }
            if url.scheme() == Scheme::Http && !ip.is_loopback() {
                return Err(FetchProblem::NotLoopback(ip));
            }
        }
        let first = resolved.iter().find(|address| address.is_ipv4()).or_else(|| resolved.first());
        first.copied().ok_or_else(|| FetchProblem::Name(io::ErrorKind::NotFound.into()))
    }

    async fn connector(&self) -> Result<Tls, FetchProblem> {
        if let Some(known) = self.tls.lock().clone() {
            return Ok(known);
        }
        let file = self.config.ca_file.clone();
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

/// Whether an address can be an issuer's that anybody may reach: none of the ranges for use inside a network.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

/// Sources: RFC 6890, RFC 6598 (100.64/10), RFC 2544 (198.18/15), RFC 5737 (documentation).
fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, ..] = v4.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let benchmark = a == 198 && (b == 18 || b == 19);
    let protocol = v4.octets().starts_with(&[192, 0, 0]);
    !(v4.is_private()
        || v4.is_loopback()
        || v4.is_documentation()
        || shared
        || benchmark
        || protocol
        || a == 0
        || a >= 224
        || !dial::safe(v4.into()))
}

/// Global unicast only (2000::/3), and none of the forms in which an IPv4 address hides: `64:ff9b::/96` is allowed by
/// what it holds, 6to4 and Teredo are not.
fn is_public_v6(v6: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, high, low] = v6.segments();
    if [a, b, c, d, e, f] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    }
    let global = a & 0xe000 == 0x2000;
    let tunnel = a == 0x2002 || (a == 0x2001 && b == 0);
    let documentation = a == 0x2001 && b == 0x0db8;
    global && !tunnel && !documentation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_outside_private_networks_are_public() {
        for (address, public) in [
            ("93.184.216.34", true),
            ("8.8.8.8", true),
            ("2606:2800:220:1::1", true),
            ("64:ff9b::5db8:d822", true),
            ("127.0.0.1", false),
            ("10.0.0.1", false),
            ("172.16.0.1", false),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("192.0.0.8", false),
            ("192.0.2.1", false),
            ("198.18.0.1", false),
            ("0.1.2.3", false),
            ("224.0.0.1", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("::ffff:10.0.0.1", false),
            ("::ffff:8.8.8.8", true),
            ("64:ff9b::a00:1", false),
            ("fc00::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("2002:a00:1::", false),
            ("2001::1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }
}
