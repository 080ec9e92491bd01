//! A TLS certificate that can be replaced while the listener runs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// The certificate and key of one listener, read from two PEM files and swapped as one.
///
/// [`ReloadingTls::reload`] keeps the last good pair when the files cannot be used. It is a
/// [`ResolvesServerCert`], so the gateway's TLS stack can take it too.
pub struct ReloadingTls {
    certificate: String,
    key: String,
    current: ArcSwap<CertifiedKey>,
}

impl ReloadingTls {
    /// Reads both files (PEM; the chain leaf first).
    ///
    /// # Errors
    /// [`TlsProblem`] when a file cannot be read or parsed, or the key does not belong to the certificate.
    pub fn open(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsProblem> {
        let text = |path: &Path| {
            let text = path.to_str().map(str::to_owned);
            text.ok_or_else(|| TlsProblem::Path(path.to_owned()))
        };
        let (certificate, key) = (text(certificate)?, text(key)?);
        let pair = load(Path::new(&certificate), Path::new(&key))?;
        Ok(Arc::new(Self { certificate, key, current: ArcSwap::from_pointee(pair) }))
    }

    /// Reads the files again; new handshakes use the new pair. Tells whether the certificate is another one.
    ///
    /// # Errors
    /// [`TlsProblem`] as for [`ReloadingTls::open`]; the pair in use stays.
    pub fn reload(&self) -> Result<bool, TlsProblem> {
        let pair = load(Path::new(&self.certificate), Path::new(&self.key))?;
        let is_another = self.current.load().cert != pair.cert;
        self.current.store(Arc::new(pair));
        Ok(is_another)
    }

    /// The certificate's file.
    #[must_use]
    pub fn cert_path(&self) -> &str {
        &self.certificate
    }

    /// The key's file.
    #[must_use]
    pub fn key_path(&self) -> &str {
        &self.key
    }

    /// This pair, for a TLS stack that asks for the certificate at each handshake.
    #[must_use]
    pub fn resolver(self: &Arc<Self>) -> Arc<dyn ResolvesServerCert> {
        let this: Arc<Self> = Arc::clone(self);
        this
    }

    /// A rustls server configuration (TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN) that follows reloads.
    ///
    /// # Errors
    /// [`TlsProblem::Provider`] when the crypto provider lacks the protocol versions.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, TlsProblem> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsProblem::Provider)?
            .with_no_client_auth()
            .with_cert_resolver(self.resolver());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    pub(super) fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, TlsProblem> {
        Ok(TlsAcceptor::from(self.server_config()?))
    }
}

impl ResolvesServerCert for ReloadingTls {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl fmt::Debug for ReloadingTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReloadingTls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Why a certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsProblem {
    /// A PEM file cannot be read or does not hold what it should.
    #[error("the TLS file `{}` cannot be read as PEM", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// What the PEM reader said.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// A path is not UTF-8.
    #[error("the TLS path `{}` is not UTF-8", .0.display())]
    Path(PathBuf),
    /// The certificate file has no certificate.
    #[error("the TLS file `{}` holds no certificate", .0.display())]
    NoCertificate(PathBuf),
    /// The key is of an unknown kind or does not belong to the certificate.
    #[error("the key does not fit the certificate `{}`", certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// What rustls said.
        #[source]
        source: rustls::Error,
    },
    /// The crypto provider refused the protocol versions.
    #[error("the TLS provider cannot be used")]
    Provider(#[source] rustls::Error),
}

fn load(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsProblem> {
    let pem = |file: &Path| {
        let file = file.to_owned();
        move |source| TlsProblem::Pem { file, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(pem(certificate))?;
    if chain.is_empty() {
        return Err(TlsProblem::NoCertificate(certificate.to_owned()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(pem(key))?;
    CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider())
        .map_err(|source| TlsProblem::Mismatch { certificate: certificate.to_owned(), source })
}
