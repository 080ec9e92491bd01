use axum::body::Body;
use axum::extract::ConnectInfo;
use http::Request;
use std::net::SocketAddr;

use crate::authority::testkit::{Kit, OTHER_SECRET, Reply, SECRET, SLOW_SECRET, form};
use crate::ledger::{LedgerOptions, SYSTEM};
use crate::state::TombstoneKind;

const LIFECYCLE: [(&str, &str); 2] = [("resource", "resource://billing"), ("scope", "agent:lifecycle")];

async fn with(kit: &Kit, fields: &[(&str, &str)]) -> Reply {
    kit.mint(&[&LIFECYCLE[..], fields].concat()).await
}

#[tokio::test]
async fn every_bad_client_gets_the_same_answer() {
    let kit = Kit::new().await;
    let cases: [&[(&str, &str)]; 9] = [
        &[("client_secret", "wrong")],
        &[("client_secret", "")],
        &[("client_secret", OTHER_SECRET)],
        &[("application_id", "nobody")],
        &[("application_id", "")],
        &[("application_id", "../x")],
        &[("zone_id", "nowhere"), ("client_secret", "wrong")],
        &[("zone_id", "")],
        &[("application_id", "slow-agent"), ("client_secret", "wrong")],
    ];
    let first = with(&kit, cases[0]).await;
    assert_eq!(first.told(), (401, "access_denied"));
    assert_eq!(first.text("error_description"), "invalid client credentials");
    assert_eq!(first.headers["www-authenticate"], "Bearer error=\"access_denied\"");
    for fields in cases {
        assert_eq!(with(&kit, fields).await.json, first.json, "{fields:?}");
    }
}

#[tokio::test]
async fn a_right_secret_in_the_wrong_zone_is_told_so() {
    let kit = Kit::new().await;
    let moved = with(&kit, &[("zone_id", "z2")]).await;
    assert_eq!(moved.told(), (403, "zone_invalid"));
    let nowhere = with(&kit, &[("zone_id", "z9")]).await;
    assert_eq!(nowhere.told(), (403, "zone_invalid"));
    let guessed = with(&kit, &[("zone_id", "z2"), ("client_secret", "wrong")]).await;
    assert_eq!(guessed.told(), (401, "access_denied"));
}

#[tokio::test]
async fn a_slow_hash_verifies_and_is_remembered() {
    let kit = Kit::new().await;
    let fields = [("application_id", "slow-agent"), ("client_secret", SLOW_SECRET)];
    for _ in 0..2 {
        // Proven, and then refused for a resource it has no grant on.
        assert_eq!(with(&kit, &fields).await.told(), (403, "access_denied"));
    }
}

#[tokio::test]
async fn a_retired_secret_never_verifies_again() {
    let kit = Kit::new().await;
    assert_eq!(with(&kit, &[]).await.status, 200);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, SECRET.as_bytes());
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, digest);
    let hash = caracal_policies::SecretHash::parse(&format!("sha256${encoded}")).unwrap();
    let name = crate::retired::name(&hash);
    assert!(!name.contains(&encoded), "nobody can ask with what is remembered");
    kit.app.state.bury(TombstoneKind::SecretHash, "z1", &name).await.unwrap();
    assert_eq!(with(&kit, &[]).await.told(), (401, "access_denied"));
}

#[tokio::test]
async fn failures_are_throttled_and_a_right_secret_is_not() {
    let kit = Kit::new().await;
    for attempt in 0..60 {
        let reply = with(&kit, &[("client_secret", "wrong")]).await;
        assert_eq!(reply.status, 401, "attempt {attempt}");
    }
    let throttled = with(&kit, &[("client_secret", "wrong")]).await;
    assert_eq!(throttled.told(), (429, "provider_rate_limited"));
    assert_eq!(throttled.headers["retry-after"], "60");
    assert_eq!(with(&kit, &[]).await.status, 200);
    let slow = [("application_id", "slow-agent"), ("client_secret", SLOW_SECRET)];
    assert_eq!(with(&kit, &slow).await.told(), (403, "access_denied"));
    kit.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(with(&kit, &[("client_secret", "wrong")]).await.status, 401);
}

#[tokio::test]
async fn an_application_is_throttled_across_addresses() {
    let kit = Kit::new().await;
    let base = [("zone_id", "z1"), ("application_id", "billing-agent"), ("client_secret", "wrong")];
    let mut last = 0;
    for host in 0..61_u8 {
        let mut request = Request::post("/oauth/2/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(form(&base, &LIFECYCLE)))
            .unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, host], 1_000))));
        last = Kit::send(&kit.authority, request).await.status;
    }
    assert_eq!(last, 429);
}

#[tokio::test]
async fn refusals_before_an_identity_go_to_the_second_lane() {
    let kit = Kit::with_options(LedgerOptions::default()).await;
    with(&kit, &[("client_secret", "wrong")]).await;
    let early = kit.app.ledger.status().early_refusals;
    assert_eq!(early, 1);
    let lines = kit.ledger(SYSTEM).await;
    assert!(!format!("{lines:?}").contains("billing-agent"));
}
