use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::keys::{SigningKey, ZoneKeys};
use crate::testing::{KID, bare_claims, expect};
use crate::verify::verify;
use crate::{Invalid, Use};

fn good() -> Value {
    let key = SigningKey::generate(KID).unwrap();
    entry(key.public())
}

fn read(entries: &[Value]) -> Result<KeySet, JwksError> {
    KeySet::from_jwks(json!({ "keys": entries }).to_string().as_bytes())
}

#[test]
fn the_document_has_exactly_the_members_verifiers_read() {
    let signing = Arc::new(SigningKey::generate("new").unwrap());
    let old = SigningKey::generate("old").unwrap();
    let keys = ZoneKeys::new(Arc::clone(&signing), [old.public().clone()]).unwrap();
    let document: Value = serde_json::from_str(keys.jwks()).unwrap();
    assert_eq!(document.as_object().unwrap().len(), 1);
    let listed = document["keys"].as_array().unwrap();
    assert_eq!(listed.iter().map(|key| key["kid"].as_str().unwrap()).collect::<Vec<_>>(), ["new", "old"]);
    for key in listed {
        let names: Vec<&str> = key.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
        assert_eq!(
            [&key["kty"], &key["crv"], &key["use"], &key["alg"]],
            [&json!("EC"), &json!("P-256"), &json!("sig"), &json!("ES256")]
        );
        for coordinate in [&key["x"], &key["y"]] {
            let text = coordinate.as_str().unwrap();
            assert_eq!((text.len(), URL_SAFE_NO_PAD.decode(text).unwrap().len()), (43, 32));
        }
    }
}

#[test]
fn coordinates_keep_their_leading_zeros() {
    // One key in 256 has a coordinate that begins with a zero byte.
    let key = (0..20_000)
        .map(|_| SigningKey::generate(KID).unwrap())
        .find(|key| key.public().coordinates().0[0] == 0);
    let entry = entry(key.unwrap().public());
    assert_eq!(entry["x"].as_str().unwrap().len(), 43);
    assert!(read(&[entry]).is_ok_and(|keys| !keys.is_empty()));
}

#[test]
fn a_published_set_verifies_what_its_zone_mints() {
    let keys = ZoneKeys::new(Arc::new(SigningKey::generate(KID).unwrap()), []).unwrap();
    let token = keys.mint(bare_claims(Use::Gateway)).unwrap().token;
    let foreign = KeySet::from_jwks(keys.jwks().as_bytes()).unwrap();
    verify(&foreign, &token, &expect(&[Use::Gateway])).unwrap();
    let other = ZoneKeys::new(Arc::new(SigningKey::generate(KID).unwrap()), []).unwrap();
    let other = KeySet::from_jwks(other.jwks().as_bytes()).unwrap();
    assert_eq!(verify(&other, &token, &expect(&[Use::Gateway])).unwrap_err(), Invalid::Signature);
}

#[test]
fn only_keys_that_can_verify_a_mandate_are_taken() {
    let change = |name: &str, value: Value| {
        let mut key = good();
        key[name] = value;
        key
    };
    let without = |name: &str| {
        let mut key = good();
        key.as_object_mut().unwrap().remove(name);
        key
    };
    let taken = [
        good(),
        without("use"),
        change("key_ops", json!(["verify"])),
        change("key_ops", json!(["sign", "verify"])),
        change("unknown", json!(1)),
        change("x5u", json!("https://evil.example")),
    ];
    for key in taken {
        assert!(read(std::slice::from_ref(&key)).is_ok(), "{key}");
    }
    let x = good()["x"].as_str().unwrap().to_owned();
    let refused = [
        without("kty"),
        without("crv"),
        without("alg"),
        without("kid"),
        without("x"),
        without("y"),
        change("kty", json!("RSA")),
        change("kty", json!("oct")),
        change("crv", json!("P-384")),
        change("alg", json!("ES384")),
        change("alg", json!("none")),
        change("use", json!("enc")),
        change("use", json!(null)),
        change("key_ops", json!([])),
        change("key_ops", json!("verify")),
        change("key_ops", json!(["sign"])),
        change("kid", json!("")),
        change("kid", json!("../x")),
        change("kid", json!(7)),
        change("x", json!(format!("{x}="))),
        change("x", json!(format!("{x}AA"))),
        change("x", json!("AA")),
        change("x", json!(URL_SAFE_NO_PAD.encode([1; 31]))),
        change("x", json!(URL_SAFE_NO_PAD.encode([0; 32]))),
        change("y", json!(URL_SAFE_NO_PAD.encode([255; 32]))),
        json!("key"),
        json!(null),
    ];
    for key in refused {
        assert_eq!(read(std::slice::from_ref(&key)).unwrap_err(), JwksError::Empty, "{key}");
        let beside_a_good_one = read(&[key.clone(), change("kid", json!("good"))]).unwrap();
        assert_eq!(beside_a_good_one.iter().count(), 1, "{key}");
    }
}

#[test]
fn a_document_that_gives_no_keys_is_an_error() {
    let long = format!("{{\"keys\":[],\"x\":\"{}\"}}", "a".repeat(MAX_JWKS_BYTES));
    for (document, error) in [
        ("", JwksError::Json),
        ("[]", JwksError::Json),
        ("{}", JwksError::Json),
        (r#"{"keys":{}}"#, JwksError::Json),
        (r#"{"keys":[],"keys":[]}"#, JwksError::Json),
        (r#"{"keys":[]}"#, JwksError::Empty),
        (&long, JwksError::TooLong),
    ] {
        assert_eq!(KeySet::from_jwks(document.as_bytes()).unwrap_err(), error);
    }
    assert_eq!(read(&[good(), good()]).unwrap_err(), JwksError::DuplicateKid);
}
