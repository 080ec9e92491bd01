//! Signed assertions (RFC 7523): the key from its PEM, the certificate's thumbprints, the JWT.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

const NO_KEY: &str =
    "the private key is no RSA key of 2048 bits or more and no EC key on P-256, P-384 or P-521, in PEM";
const NO_CERTIFICATE: &str = "the certificate is not in PEM, or not the private key's";

/// Signs assertions.
pub(super) struct Signer {
    key: Key,
    header: Map<String, Value>,
}

enum Key {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>),
}

/// Whether a private key, and the certificate if there is one, can be used.
///
/// # Errors
/// What is wrong, without a word of either.
pub(crate) fn check_key(pem: &str, certificate: Option<&str>) -> Result<(), &'static str> {
    Signer::new(pem, certificate, None).map(|_signer| ())
}

impl Signer {
    pub(super) fn new(
        pem: &str,
        certificate: Option<&str>,
        key_id: Option<&str>,
    ) -> Result<Self, &'static str> {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_pem| NO_KEY)?;
        let (algorithm, key) = read(der.secret_der()).ok_or(NO_KEY)?;
        let mut header = Map::new();
        header.insert("alg".into(), json!(algorithm));
        header.insert("typ".into(), json!("JWT"));
        if let Some(key_id) = key_id {
            header.insert("kid".into(), json!(key_id));
        }
        if let Some(certificate) = certificate {
            let certificate =
                CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_pem| NO_CERTIFICATE)?;
            let thumbprint = |algorithm| URL_SAFE_NO_PAD.encode(digest(algorithm, &certificate));
            header.insert("x5t".into(), json!(thumbprint(&SHA1_FOR_LEGACY_USE_ONLY)));
            header.insert("x5t#S256".into(), json!(thumbprint(&SHA256)));
            CertifiedKey::from_der(vec![certificate.into_owned()], der, &default_provider())
                .map_err(|_mismatch| NO_CERTIFICATE)?;
        }
        Ok(Self { key, header })
    }

    /// A JWT; `None` when the library fails, which it does not for a key it has read.
    pub(super) fn sign(&self, claims: &Map<String, Value>) -> Option<Zeroizing<String>> {
        let part = |part: &Map<String, Value>| {
            serde_json::to_vec(part).ok().map(|bytes| URL_SAFE_NO_PAD.encode(bytes))
        };
        let mut jwt = Zeroizing::new(format!("{}.{}", part(&self.header)?, part(claims)?));
        let random = SystemRandom::new();
        let signature = match &self.key {
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, jwt.as_bytes(), &mut signature).ok()?;
                signature
            }
            Key::Ec(key) => key.sign(&random, jwt.as_bytes()).ok()?.as_ref().to_vec(),
        };
        jwt.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut jwt);
        Some(jwt)
    }
}

fn read(der: &[u8]) -> Option<(&'static str, Key)> {
    if let Ok(key) = RsaKeyPair::from_pkcs8(der).or_else(|_other| RsaKeyPair::from_der(der)) {
        return Some(("RS256", Key::Rsa(Box::new(key))));
    }
    let curves = [
        ("ES256", &ECDSA_P256_SHA256_FIXED_SIGNING),
        ("ES384", &ECDSA_P384_SHA384_FIXED_SIGNING),
        ("ES512", &ECDSA_P521_SHA512_FIXED_SIGNING),
    ];
    curves.into_iter().find_map(|(name, curve)| {
        let key = EcdsaKeyPair::from_private_key_der(curve, der).ok()?;
        Some((name, Key::Ec(Box::new(key))))
    })
}
