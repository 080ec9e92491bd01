use aws_lc_rs::hmac;
use serde_json::{Value, json};

use super::issuer::{Issuer, Key, encoded};
use super::{AUDIENCE, ID_TOKEN, claims, federate, federate_with, kit, recorded};
use crate::authority::testkit::{self, ISSUER, Kit, NOW};
use crate::state::{Extent, RecordKind, Target};

#[tokio::test]
async fn a_good_token_becomes_the_session_mandate_of_its_subject() {
    let (issuer, key) = (Issuer::start().await, Key::new("k1", "RS256"));
    issuer.publish(&[&key]);
    let kit = kit(&issuer).await;
    let reply = federate(&kit, &key.token(&claims(&issuer, &kit))).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let members: Vec<&String> = reply.json.as_object().unwrap().keys().collect();
    assert_eq!(members, ["access_token", "expires_in", "issued_token_type", "token_type"]);
    assert_eq!((&reply.json["expires_in"], &reply.json["token_type"]), (&json!(900), &json!("Bearer")));
    let mandate = testkit::claims(&reply.text("access_token"));
    for absent in ["scope", "target", "agent_session_id", "delegation_edge_id", "caracal_epoch"] {
        assert!(mandate.get(absent).is_none(), "{absent}");
    }
    assert_eq!((&mandate["use"], &mandate["sub_type"]), (&json!("session"), &json!("user")));
    assert_eq!((&mandate["sub"], &mandate["client_id"]), (&json!("alice"), &json!("billing-agent")));
    assert_eq!((&mandate["aud"], &mandate["iss"]), (&json!([ISSUER]), &json!(ISSUER)));
    assert_eq!(mandate["sid"], mandate["root_sid"]);

    let sid = mandate["sid"].as_str().unwrap();
    let record = kit.app.state.live_record("z1", sid, NOW).unwrap();
    assert_eq!((record.kind, &*record.subject), (RecordKind::User, "alice"));
    let event = recorded(&kit).await;
    let metadata = &event["metadata_json"];
    assert_eq!((&event["decision"], &event["evaluation_status"]), (&json!("allow"), &json!("complete")));
    assert!(event["determining_policies_json"].to_string().contains("caracal-subject-federation"), "{event}");
    assert_eq!(metadata["federated_user_issuer"], issuer.name());
    assert_eq!((&metadata["subject_kind"], &metadata["federated_user"]), (&json!("user"), &json!("alice")));
    assert_eq!(metadata["session_id"], sid);
}

#[tokio::test]
async fn every_accepted_algorithm_verifies_and_only_with_its_own_key() {
    let issuer = Issuer::start().await;
    let algorithms = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"];
    let keys: Vec<Key> = algorithms.iter().map(|name| Key::new(name, name)).collect();
    issuer.publish(&keys.iter().collect::<Vec<_>>());
    let kit = kit(&issuer).await;
    let good = claims(&issuer, &kit);
    for key in &keys {
        assert_eq!(federate(&kit, &key.token(&good)).await.status, 200, "{}", key.algorithm);
        let header = json!({ "alg": key.algorithm, "kid": key.kid });
        assert_eq!(federate(&kit, &key.token_with(&header, &good)).await.status, 200, "without a type");
        // The same name, another key.
        let forged = Key::new(&key.kid, key.algorithm).token(&good);
        assert_eq!(federate(&kit, &forged).await.told(), (401, "invalid_token"), "{}", key.algorithm);
    }
    for (kid, algorithm) in [("RS256", "ES256"), ("ES256", "RS256"), ("ES256", "ES384"), ("ES512", "ES256")] {
        let key = keys.iter().find(|key| key.kid == kid).unwrap();
        let token = key.token_with(&json!({ "alg": algorithm, "kid": kid }), &good);
        assert_eq!(federate(&kit, &token).await.told(), (401, "invalid_token"), "{kid} as {algorithm}");
    }
}

/// The refusal and the word in the ledger.
async fn refused(kit: &Kit, token: &str) -> (u16, String, String) {
    let reply = federate(kit, token).await;
    assert!(reply.json.get("access_token").is_none());
    let event = recorded(kit).await;
    assert_eq!(
        (&event["decision"], &event["evaluation_status"]),
        (&json!("deny"), &json!("subject_federation_rejected"))
    );
    let word = event["diagnostics_json"][0]["reason"].as_str().unwrap().to_owned();
    (reply.status, reply.text("error"), word)
}

#[tokio::test]
async fn a_token_with_a_wrong_header_is_refused() {
    let (issuer, key) = (Issuer::start().await, Key::new("k1", "ES256"));
    issuer.publish(&[&key]);
    let kit = kit(&issuer).await;
    let good = claims(&issuer, &kit);
    let header = |change: Value| {
        let mut header = json!({ "alg": "ES256", "typ": "JWT", "kid": "k1" });
        for (name, value) in change.as_object().unwrap() {
            header[name] = value.clone();
        }
        key.token_with(&header, &good)
    };
    let unsigned = format!("{}.{}.", encoded(r#"{"alg":"none","kid":"k1"}"#), encoded(good.to_string()));
    let public = issuer_document(&key);
    let signed = format!("{}.{}", encoded(r#"{"alg":"HS256","kid":"k1"}"#), encoded(good.to_string()));
    let secret = hmac::Key::new(hmac::HMAC_SHA256, public.as_bytes());
    let symmetric = format!("{signed}.{}", encoded(hmac::sign(&secret, signed.as_bytes())));
    let twice = key.token_of(r#"{"alg":"ES256","alg":"ES256","kid":"k1"}"#, &good.to_string());
    for (token, word) in [
        (unsigned.clone(), "header_not_accepted"),
        (symmetric, "header_not_accepted"),
        (header(json!({ "alg": "PS256" })), "header_not_accepted"),
        (header(json!({ "alg": "es256" })), "header_not_accepted"),
        (header(json!({ "alg": null })), "header_not_accepted"),
        (header(json!({ "typ": "at+jwt" })), "header_not_accepted"),
        (header(json!({ "crit": ["x"] })), "header_not_accepted"),
        (header(json!({ "kid": "" })), "key_not_named"),
        (header(json!({ "kid": 1 })), "key_not_named"),
        (header(json!({ "kid": "k2" })), "unknown_key"),
        (twice, "malformed"),
        ("x".to_owned(), "malformed"),
        ("a.b.c".to_owned(), "malformed"),
        (format!("{}.x.y", key.token(&good)), "malformed"),
        (format!("{}=", key.token(&good)), "malformed"),
        ("a".repeat(20_000), "malformed"),
    ] {
        let expected = (401, "invalid_token".to_owned(), word.to_owned());
        assert_eq!(refused(&kit, &token).await, expected, "{}", token.get(..token.len().min(90)).unwrap());
    }
}

fn issuer_document(key: &Key) -> String {
    json!({ "keys": [key.public()] }).to_string()
}

#[tokio::test]
async fn a_token_with_wrong_claims_is_refused() {
    let (issuer, key) = (Issuer::start().await, Key::new("k1", "ES256"));
    issuer.publish(&[&key]);
    let kit = kit(&issuer).await;
    let now = kit.clock.now_s();
    for (name, value, word) in [
        ("iss", json!("https://id.example"), "issuer_not_registered"),
        ("iss", json!(format!("{}/", issuer.name())), "issuer_not_registered"),
        ("iss", Value::Null, "claims_invalid"),
        ("iss", json!([issuer.name()]), "claims_invalid"),
        ("aud", json!("other"), "wrong_audience"),
        ("aud", json!(["other", "caracal"]), "wrong_audience"),
        ("aud", json!([]), "wrong_audience"),
        ("aud", json!({ AUDIENCE: true }), "wrong_audience"),
        ("aud", Value::Null, "wrong_audience"),
        ("exp", json!(now - 60), "expired"),
        ("exp", json!(i64::MIN), "expired"),
        ("exp", json!("never"), "claims_invalid"),
        ("exp", json!(1.5e9), "claims_invalid"),
        ("exp", Value::Null, "claims_invalid"),
        ("iat", json!(now + 61), "not_yet_valid"),
        ("iat", json!(i64::MAX), "not_yet_valid"),
        ("iat", Value::Null, "claims_invalid"),
        ("nbf", json!(now + 61), "not_yet_valid"),
        ("nbf", json!("now"), "claims_invalid"),
        ("sub", json!(""), "subject_not_usable"),
        ("sub", json!("caracal:shared"), "subject_not_usable"),
        ("sub", json!(" alice"), "subject_not_usable"),
        ("sub", json!("al\u{202e}ice"), "subject_not_usable"),
        ("sub", json!(7), "claims_invalid"),
        ("sub", Value::Null, "claims_invalid"),
    ] {
        let mut changed = claims(&issuer, &kit);
        if value.is_null() {
            changed.as_object_mut().unwrap().remove(name);
        } else {
            changed[name] = value;
        }
        let expected = (401, "invalid_token".to_owned(), word.to_owned());
        assert_eq!(refused(&kit, &key.token(&changed)).await, expected, "{changed}");
    }
    for (name, value) in [
        ("aud", json!([AUDIENCE, "other"])),
        ("exp", json!(now - 59)),
        ("iat", json!(now + 60)),
        ("nbf", json!(now + 60)),
        ("sub", json!("Zoë")),
        ("nonce", json!("n")),
        ("azp", json!("other")),
    ] {
        let mut changed = claims(&issuer, &kit);
        changed[name] = value;
        assert_eq!(federate(&kit, &key.token(&changed)).await.status, 200, "{changed}");
    }
    let lone = claims(&issuer, &kit).to_string().replace("alice", "\\ud800");
    let lone = key.token_of(&json!({ "alg": "ES256", "kid": "k1" }).to_string(), &lone);
    assert_eq!(refused(&kit, &lone).await.2, "malformed");
}

#[tokio::test]
async fn an_identity_token_is_exchanged_alone() {
    let (issuer, key) = (Issuer::start().await, Key::new("k1", "ES256"));
    issuer.publish(&[&key]);
    let kit = kit(&issuer).await;
    let token = key.token(&claims(&issuer, &kit));
    for field in [
        ("resource", "resource://billing"),
        ("scope", "agent:lifecycle"),
        ("session_id", "x"),
        ("agent_session_id", "x"),
        ("delegation_edge_id", "x"),
        ("approval_id", "x"),
        ("reusable", "true"),
    ] {
        let reply = federate_with(&kit, &token, &[field]).await;
        assert_eq!(reply.told(), (400, "invalid_token"), "{field:?}");
        assert_eq!(recorded(&kit).await["evaluation_status"], "subject_federation_invalid");
    }
    let long = federate_with(&kit, &token, &[("ttl_seconds", "3601")]).await;
    assert_eq!(long.told(), (400, "invalid_token"));
    let hour = federate_with(&kit, &token, &[("ttl_seconds", "3600")]).await;
    assert_eq!((hour.status, &hour.json["expires_in"]), (200, &json!(3_600)));
    let elsewhere = kit.mint(&[("zone_id", "z2"), ("subject_token", &token), ID_TOKEN]).await;
    assert_eq!(elsewhere.told(), (403, "zone_invalid"));
}

#[tokio::test]
async fn a_frozen_zone_and_a_revoked_application_get_no_mandate() {
    let (issuer, key) = (Issuer::start().await, Key::new("k1", "ES256"));
    issuer.publish(&[&key]);
    let kit = kit(&issuer).await;
    let token = key.token(&claims(&issuer, &kit));
    kit.app.state.freeze("z1").await.unwrap();
    assert_eq!(federate(&kit, &token).await.told(), (403, "access_denied"));
    kit.app.state.unfreeze("z1").await.unwrap();
    assert_eq!(federate(&kit, &token).await.status, 200);
    let target = Target::Application { id: "billing-agent".into(), extent: Extent::Block };
    kit.app.state.revoke("z1", &target, "test").await.unwrap();
    assert_eq!(federate(&kit, &token).await.told(), (403, "access_denied"));
}
