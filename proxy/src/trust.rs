//! Whom the edge itself believes when it asks somebody over TLS: an authority file, or the system's own.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsConnector;

/// Reads the certificate authorities; blocks.
///
/// # Errors
/// Why they cannot be read, in words.
pub(crate) fn connector(file: Option<&Path>) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) => {
            for certificate in authorities(file)? {
                roots.add(certificate).map_err(|error| error.to_string())?;
            }
        }
        None => {
            let certificates = rustls_native_certs::load_native_certs().map_err(|error| error.to_string())?;
            roots.add_parsable_certificates(certificates);
        }
    }
    if roots.is_empty() {
        return Err("there are none".to_owned());
    }
    trusting(roots)
}

/// Reads certificate authorities from a PEM file; blocks.
///
/// # Errors
/// Why they cannot be used, in words.
pub(crate) fn authorities(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unusable = |error: String| format!("`{}`: {error}", file.display());
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|error| unusable(error.to_string()))?;
    }
    if certificates.is_empty() {
        return Err(unusable("there is no certificate in it".to_owned()));
    }
    Ok(certificates)
}

/// What the edge proves itself with to an upstream.
pub(crate) struct ClientPair {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// Reads a certificate chain and its key, both in PEM.
///
/// # Errors
/// What is wrong, without a word of either.
pub(crate) fn client_pair(chain: &str, key: &str) -> Result<ClientPair, &'static str> {
    const CHAIN: &str = "the client certificate is no chain of certificates in PEM";
    const KEY: &str = "the key is no private key in PEM";
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().map_err(|_pem| CHAIN)?;
    let mut readable = RootCertStore::empty();
    let (good, bad) = readable.add_parsable_certificates(chain.iter().cloned());
    if good == 0 || bad > 0 {
        return Err(CHAIN);
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_pem| KEY)?;
    let signing = aws_lc_rs::default_provider().key_provider.load_private_key(key.clone_key());
    let pair = CertifiedKey::new(chain.clone(), signing.map_err(|_kind| KEY)?);
    pair.keys_match().map_err(|_other| "the client certificate is another key's")?;
    Ok(ClientPair { chain, key })
}

/// A connector that believes these authorities.
pub(crate) fn trusting(roots: RootCertStore) -> Result<TlsConnector, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
