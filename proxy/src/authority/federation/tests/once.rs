use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::issuer::{Issuer, Key};
use super::{claims, federate, kit, kit_with, recorded};

#[tokio::test]
async fn a_token_may_be_exchanged_again_unless_its_issuer_says_once() {
    let (issuer, key) = (Issuer::start().await, Key::new("k1", "ES256"));
    issuer.publish(&[&key]);
    let usual = kit(&issuer).await;
    let token = key.token(&claims(&issuer, &usual));
    for _ in 0..3 {
        assert_eq!(federate(&usual, &token).await.status, 200);
    }
    let once = kit_with(&issuer, "single_use = true").await;
    once.clock.advance(Duration::from_secs(6));
    let token = key.token(&claims(&issuer, &once));
    let replies = join_all((0..10).map(|_| federate(&once, &token))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1);
    assert_eq!(federate(&once, &token).await.told(), (401, "invalid_token"));
    assert_eq!(recorded(&once).await["diagnostics_json"][0]["reason"], "used_before");
    let mut other = claims(&issuer, &once);
    other["jti"] = json!("another");
    assert_eq!(federate(&once, &key.token(&other)).await.status, 200);
}

#[tokio::test]
async fn a_single_use_token_signed_again_is_the_same_token() {
    let (issuer, key) = (Issuer::start().await, Key::new("k1", "ES256"));
    issuer.publish(&[&key]);
    let kit = kit_with(&issuer, "single_use = true").await;
    kit.clock.advance(Duration::from_secs(6));
    let claims = claims(&issuer, &kit);
    let (first, second) = (key.token(&claims), key.token(&claims));
    assert_ne!(first, second, "ECDSA signatures differ each time");
    assert_eq!(federate(&kit, &first).await.status, 200);
    assert_eq!(federate(&kit, &second).await.told(), (401, "invalid_token"));
}

#[tokio::test]
async fn a_single_use_token_from_before_this_start_is_refused() {
    let (issuer, key) = (Issuer::start().await, Key::new("k1", "ES256"));
    issuer.publish(&[&key]);
    let kit = kit_with(&issuer, "single_use = true").await;
    let early = key.token(&claims(&issuer, &kit));
    kit.clock.advance(Duration::from_secs(6));
    assert_eq!(federate(&kit, &early).await.told(), (401, "invalid_token"));
    assert_eq!(recorded(&kit).await["diagnostics_json"][0]["reason"], "issued_before_start");
    let mut ahead = claims(&issuer, &kit);
    ahead["iat"] = json!(kit.clock.now_s() + 6);
    assert_eq!(federate(&kit, &key.token(&ahead)).await.told(), (401, "invalid_token"));
    assert_eq!(federate(&kit, &key.token(&claims(&issuer, &kit))).await.status, 200);
}
