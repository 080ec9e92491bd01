mod attacks;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::{
    ISSUER, NOW, ZONE, bare_claims, expect, full_claims, good_header, payload_with, signed, signing_key,
    zone_keys,
};
use crate::{ChainHop, SubjectType, ZoneKeys, digest, peek};

const ALL: [Use; 3] = [Use::Session, Use::Gateway, Use::Resource];

#[test]
fn a_class_passes_only_where_it_is_listed() {
    let keys = zone_keys();
    let lists: [&[Use]; 7] = [
        &[],
        &[Use::Session],
        &[Use::Gateway],
        &[Use::Resource],
        &[Use::Session, Use::Gateway],
        &[Use::Gateway, Use::Resource],
        &ALL,
    ];
    for class in ALL {
        let token = keys.mint(bare_claims(class)).unwrap().token;
        for list in lists {
            let outcome = verify(keys.public(), &token, &expect(list)).map(|mandate| mandate.claims().use_);
            let wanted = if list.contains(&class) { Ok(class) } else { Err(Invalid::Class) };
            assert_eq!(outcome, wanted, "{class} at {list:?}");
        }
    }
}

#[test]
fn zone_issuer_and_audience_are_compared_byte_for_byte() {
    let keys = zone_keys();
    let token = keys.mint(full_claims()).unwrap().token;
    let good = expect(&ALL);
    let outcome = |expect: &Expect<'_>| verify(keys.public(), &token, expect).map(|_| ()).unwrap_err();
    for zone in ["", "Quickstart", "quickstart ", "quickstar", "other"] {
        assert_eq!(outcome(&Expect { zone, ..good }), Invalid::Zone, "{zone}");
    }
    for issuer in ["", "http://127.0.0.1:8080/", "HTTP://127.0.0.1:8080", "http://127.0.0.1:80800"] {
        assert_eq!(outcome(&Expect { issuer, ..good }), Invalid::Issuer, "{issuer}");
    }
    for audience in ["", "http://127.0.0.1:8080/", "http://127.0.0.1:808", "resource://echo"] {
        assert_eq!(outcome(&Expect { audience, ..good }), Invalid::Audience, "{audience}");
    }
    assert_eq!(outcome(&Expect { zone: "x", ..good }).code(), "zone_invalid");
    assert_eq!(outcome(&Expect { issuer: "x", ..good }).code(), "invalid_token");
}

#[test]
fn any_of_several_audiences_is_enough() {
    let keys = zone_keys();
    let aud = vec!["resource://a".into(), "resource://b".into()];
    let token = keys.mint(Claims { aud, ..bare_claims(Use::Resource) }).unwrap().token;
    for (audience, passes) in [("resource://a", true), ("resource://b", true), ("resource://c", false)] {
        let expect = Expect { audience, ..expect(&ALL) };
        assert_eq!(verify(keys.public(), &token, &expect).is_ok(), passes, "{audience}");
    }
}

#[test]
fn a_mandate_lives_from_five_seconds_before_its_mint_to_its_last_second() {
    let keys = zone_keys();
    let token = keys.mint(full_claims()).unwrap().token;
    let at = |now: i64, leeway: i64| {
        verify(keys.public(), &token, &Expect { now, leeway, ..expect(&ALL) }).map(|_| ())
    };
    assert_eq!(at(NOW - 6, 0), Err(Invalid::IssuedInFuture));
    assert_eq!(at(NOW - 6, 600), Err(Invalid::IssuedInFuture), "leeway is for the end of its life only");
    assert_eq!(at(NOW - 5, 0), Ok(()));
    assert_eq!(at(NOW + 899, 0), Ok(()));
    assert_eq!(at(NOW + 900, 0), Err(Invalid::Expired));
    assert_eq!(at(NOW + 900, 60), Ok(()));
    assert_eq!(at(NOW + 959, 60), Ok(()));
    assert_eq!(at(NOW + 960, 60), Err(Invalid::Expired));
    assert_eq!(at(i64::MAX, i64::MAX), Err(Invalid::Expired));
}

#[test]
fn the_key_is_the_zones_own_or_none() {
    let (ours, theirs) = (zone_keys(), zone_keys());
    let token = theirs.mint(full_claims()).unwrap().token;
    assert_eq!(verify(ours.public(), &token, &expect(&ALL)).unwrap_err(), Invalid::Signature);
    assert_eq!(verify(&KeySet::default(), &token, &expect(&ALL)).unwrap_err(), Invalid::UnknownKey);
}

#[test]
fn a_missing_or_mistyped_claim_is_refused_though_signed() {
    let key = signing_key();
    let keys = ZoneKeys::new(std::sync::Arc::clone(&key), []).unwrap();
    let outcome = |name: &str, value| {
        let token = signed(&key, &good_header(), &payload_with(name, value));
        verify(keys.public(), &token, &expect(&ALL)).map(|_| ())
    };
    let required = [
        "iss",
        "sub",
        "aud",
        "exp",
        "iat",
        "jti",
        "zone_id",
        "client_id",
        "sid",
        "root_sid",
        "use",
        "sub_type",
    ];
    for name in required {
        assert_eq!(outcome(name, None), Err(Invalid::Claims), "{name}");
        for value in [json!(null), json!({}), json!([]), json!(true), json!(-1), json!("")] {
            let refused = outcome(name, Some(value.clone()));
            assert!(refused.is_err(), "{name}: {value}");
        }
    }
    let optional = [
        "scope",
        "target",
        "agent_session_id",
        "delegation_edge_id",
        "source_session_id",
        "target_session_id",
        "delegation_path",
        "delegation_chain",
        "hop_count",
        "delegation_graph_epoch",
        "caracal_epoch",
        "caracal_reusable",
    ];
    for name in optional {
        assert_eq!(outcome(name, None), Ok(()), "{name}");
        assert_eq!(outcome(name, Some(json!(null))), Ok(()), "{name}");
        for value in [json!({}), json!(""), json!(1.5), json!([""]), json!([{"application_id": ""}])] {
            assert_eq!(outcome(name, Some(value.clone())), Err(Invalid::Claims), "{name}: {value}");
        }
    }
    assert_eq!(outcome("a_claim_of_tomorrow", Some(json!({"x": 1}))), Ok(()));
    assert_eq!(outcome("aud", Some(json!(ISSUER))), Ok(()), "one audience may be a string");
}

#[test]
fn a_peek_says_what_the_token_says() {
    let token = zone_keys().mint(full_claims()).unwrap().token;
    let peek = peek(&token).unwrap();
    assert_eq!(peek.zone_id.as_deref(), Some(ZONE));
    assert_eq!(peek.client_id.as_deref(), Some("demo-agent"));
    assert_eq!((peek.exp, peek.use_.as_deref()), (Some(NOW + 900), Some("gateway")));
}

#[test]
fn every_flipped_bit_is_refused() {
    let keys = zone_keys();
    let token = keys.mint(full_claims()).unwrap().token;
    verify(keys.public(), &token, &expect(&ALL)).unwrap();
    for at in 0..token.len() {
        for bit in 0..8 {
            let mut bytes = token.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            // Bytes that are no text cannot be a token either.
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(verify(keys.public(), &changed, &expect(&ALL)).is_err(), "byte {at}, bit {bit}");
                assert_ne!(digest(&changed), digest(&token));
            }
        }
    }
}

fn text() -> impl Strategy<Value = String> {
    "[ -~éß\u{1f600}\"\\\\\n]{1,20}"
}

prop_compose! {
    fn lineage()(
        agent_session_id in proptest::option::of(text()),
        delegation_edge_id in proptest::option::of(text()),
        delegation_path in proptest::collection::vec(text(), 0..3),
        hops in proptest::collection::vec((text(), proptest::option::of(text())), 0..3),
        hop_count in any::<u32>(),
        delegation_graph_epoch in any::<u64>(),
    ) -> Claims {
        let delegation_chain = hops
            .into_iter()
            .map(|(application_id, agent_session_id)| ChainHop {
                application_id, agent_session_id, delegation_edge_id: None,
            })
            .collect();
        Claims {
            agent_session_id, delegation_edge_id, delegation_path, delegation_chain, hop_count,
            delegation_graph_epoch, ..Claims::empty(Use::Gateway, SubjectType::User)
        }
    }
}

prop_compose! {
    fn any_claims()(
        lineage in lineage(),
        sub in text(),
        scope in proptest::option::of(text()),
        target in proptest::collection::vec(text(), 0..3),
        epoch in proptest::option::of(text()),
        reusable in any::<bool>(),
        life in 11_i64..4_000,
    ) -> Claims {
        let bare = bare_claims(Use::Gateway);
        Claims {
            iss: bare.iss, sub, aud: bare.aud, exp: NOW.saturating_add(life), iat: NOW, jti: bare.jti, zone_id: bare.zone_id,
            client_id: bare.client_id, scope, sid: bare.sid, root_sid: bare.root_sid, target, epoch, reusable,
            ..lineage
        }
    }
}

proptest! {

    #[test]
    fn any_claims_survive_the_round_trip(claims in any_claims()) {
        let keys = zone_keys();
        let minted = keys.mint(claims.clone()).unwrap();
        let verified = verify(keys.public(), &minted.token, &expect(&ALL)).unwrap();
        prop_assert_eq!(&**verified.claims(), &claims);
    }

    #[test]
    fn any_text_is_refused_without_a_panic(text in "[A-Za-z0-9_.=-]{0,200}|.{0,200}") {
        prop_assert!(peek(&text).is_err());
        prop_assert!(verify(zone_keys().public(), &text, &expect(&ALL)).is_err());
    }

    #[test]
    fn any_signed_bytes_are_refused_without_a_panic(
        header in any::<Vec<u8>>(), payload in any::<Vec<u8>>(), cut in 0_usize..700
    ) {
        use crate::testing::{encoded, signed_parts};
        let key = signing_key();
        let keys = ZoneKeys::new(std::sync::Arc::clone(&key), []).unwrap();
        let token = signed_parts(&key, &encoded(header), &encoded(&payload));
        prop_assert!(verify(keys.public(), &token, &expect(&ALL)).is_err());
        let token = signed_parts(&key, &encoded(good_header()), &encoded(&payload));
        prop_assert!(verify(keys.public(), &token, &expect(&ALL)).is_err());
        let good = keys.mint(full_claims()).unwrap().token;
        let cut: String = good.chars().take(cut).collect();
        prop_assert!(verify(keys.public(), &cut, &expect(&ALL)).is_err() || cut == good);
    }
}
