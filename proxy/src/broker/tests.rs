//! Assertions, against the keys that verify them. The rest is tested over real sockets in `tests/it/providers.rs`.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::assertion::{Signer, check_key};

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn verify(
    algorithm: &'static dyn VerificationAlgorithm,
    public: &[u8],
    pem: &str,
    name: &str,
) -> (Map<String, Value>, Map<String, Value>) {
    let signer = Signer::new(pem, None, Some("k1")).unwrap();
    let claims = json!({ "iss": "c", "sub": "c" });
    let jwt = signer.sign(claims.as_object().unwrap()).unwrap();
    let (signed, signature) = jwt.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    UnparsedPublicKey::new(algorithm, public).verify(signed.as_bytes(), &signature).unwrap();
    let part = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let (header, claims): (Map<String, Value>, Map<String, Value>) = (part(header), part(claims));
    assert_eq!(header, *json!({ "alg": name, "typ": "JWT", "kid": "k1" }).as_object().unwrap());
    (header, claims)
}

#[test]
fn every_kind_of_key_signs_what_its_public_key_verifies() {
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&rsa).unwrap();
    verify(
        &RSA_PKCS1_2048_8192_SHA256,
        rsa.public_key().as_ref(),
        &pem("PRIVATE KEY", der.as_ref()),
        "RS256",
    );
    for (signing, verifying, name) in [
        (&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P256_SHA256_FIXED, "ES256"),
        (&ECDSA_P384_SHA384_FIXED_SIGNING, &ECDSA_P384_SHA384_FIXED, "ES384"),
        (&ECDSA_P521_SHA512_FIXED_SIGNING, &ECDSA_P521_SHA512_FIXED, "ES512"),
    ] {
        let key = EcdsaKeyPair::generate(signing).unwrap();
        let public = key.public_key().as_ref();
        let pkcs8 = key.to_pkcs8v1().unwrap();
        verify(verifying, public, &pem("PRIVATE KEY", pkcs8.as_ref()), name);
        let sec1 = key.private_key().as_der().unwrap();
        verify(verifying, public, &pem("EC PRIVATE KEY", sec1.as_ref()), name);
    }
}

#[test]
fn a_certificate_is_the_keys_own_and_its_thumbprints_are_signed() {
    let certified = || rcgen::generate_simple_self_signed(vec!["client".to_owned()]).unwrap();
    let (own, other) = (certified(), certified());
    let key = own.signing_key.serialize_pem();
    let signer = Signer::new(&key, Some(&own.cert.pem()), None).unwrap();
    let jwt = signer.sign(&Map::new()).unwrap();
    let header: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').next().unwrap()).unwrap()).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, own.cert.der());
    assert_eq!(header["x5t#S256"], URL_SAFE_NO_PAD.encode(digest));
    assert_eq!(header["x5t"].as_str().unwrap().len(), 27);
    for (pem, certificate) in [
        (key.as_str(), Some(other.cert.pem())),
        (key.as_str(), Some("no certificate".to_owned())),
        ("cs-canary", None),
        (&pem("PRIVATE KEY", b"cs-canary"), None),
    ] {
        let problem = check_key(pem, certificate.as_deref()).unwrap_err();
        assert!(!problem.contains("canary"), "{problem}");
    }
}
