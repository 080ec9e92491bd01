use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::issuer::{Answer, Issuer, Key};
use super::{claims, federate, kit, table};
use crate::authority::testkit::Kit;
use crate::listen::ReloadingTls;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_key_set_is_fetched_once_in_ten_minutes() {
    let (issuer, key) = (Issuer::start().await, Key::new("k1", "ES256"));
    issuer.publish(&[&key]);
    let kit = kit(&issuer).await;
    for (wait, fetches) in [(0, 1), (9, 1), (1, 2), (9, 2)] {
        kit.clock.advance(MINUTE * wait);
        assert_eq!(federate(&kit, &key.token(&claims(&issuer, &kit))).await.status, 200);
        assert_eq!(issuer.fetches(), fetches);
    }
}

#[tokio::test]
async fn many_first_tokens_share_one_fetch() {
    let (issuer, key) = (Issuer::start().await, Key::new("k1", "ES256"));
    issuer.publish(&[&key]);
    let kit = kit(&issuer).await;
    let token = key.token(&claims(&issuer, &kit));
    let replies = join_all((0..50).map(|_| federate(&kit, &token))).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn a_fetch_goes_on_when_the_caller_that_began_it_goes_away() {
    let (issuer, key) = (Issuer::start().await, Key::new("k1", "ES256"));
    issuer.publish(&[&key]);
    let kit = Arc::new(kit(&issuer).await);
    let token = key.token(&claims(&issuer, &kit));
    let hold = issuer.hold().await;
    let first = tokio::spawn({
        let (kit, token) = (Arc::clone(&kit), token.clone());
        async move { federate(&kit, &token).await }
    });
    while issuer.fetches() == 0 {
        tokio::task::yield_now().await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    drop(hold);
    assert_eq!(federate(&kit, &token).await.status, 200);
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn a_new_key_is_found_and_a_withdrawn_one_is_forgotten() {
    let (issuer, old, new) = (Issuer::start().await, Key::new("k1", "RS256"), Key::new("k2", "ES256"));
    issuer.publish(&[&old]);
    let kit = kit(&issuer).await;
    let (of_old, of_new) = (old.token(&claims(&issuer, &kit)), new.token(&claims(&issuer, &kit)));
    assert_eq!(federate(&kit, &of_old).await.status, 200);
    issuer.publish(&[&old, &new]);
    kit.clock.advance(Duration::from_secs(10));
    assert_eq!(federate(&kit, &of_new).await.status, 200, "an unknown key is looked for");
    assert_eq!(federate(&kit, &of_old).await.status, 200);
    assert_eq!(issuer.fetches(), 2);
    issuer.publish(&[&new]);
    kit.clock.advance(MINUTE * 10);
    let of_old = old.token(&claims(&issuer, &kit));
    assert_eq!(federate(&kit, &of_old).await.told(), (401, "invalid_token"));
}

#[tokio::test]
async fn a_storm_of_unknown_keys_fetches_no_more_than_the_cooldown_allows() {
    let (issuer, key, stranger) = (Issuer::start().await, Key::new("k1", "ES256"), Key::new("k9", "ES256"));
    issuer.publish(&[&key]);
    let kit = kit(&issuer).await;
    let good = key.token(&claims(&issuer, &kit));
    assert_eq!(federate(&kit, &good).await.status, 200);
    for round in 1..=3 {
        let storm = stranger.token(&claims(&issuer, &kit));
        let replies = join_all((0..100).map(|_| federate(&kit, &storm))).await;
        assert!(replies.iter().all(|reply| reply.told() == (401, "invalid_token")));
        assert_eq!(federate(&kit, &good).await.status, 200, "others are not disturbed");
        assert_eq!(issuer.fetches(), round);
        kit.clock.advance(Duration::from_secs(10));
    }
}

#[tokio::test]
async fn an_issuer_that_fails_is_said_to_be_away_and_comes_back() {
    let (issuer, key) = (Issuer::start().await, Key::new("k1", "ES256"));
    let kit = kit(&issuer).await;
    let big = format!("{{\"keys\":[],\"padding\":\"{}\"}}", "x".repeat(256 * 1_024));
    let mut fetches = 0;
    for answer in [
        Answer::Status(500),
        Answer::Status(404),
        Answer::Status(204),
        Answer::Redirect(issuer.jwks_url()),
        Answer::Document(big),
        Answer::Document("<html>".into()),
        Answer::Document("[]".into()),
        Answer::Document(r#"{"keys":[]}"#.into()),
        Answer::Document(r#"{"keys":[{"kty":"oct","kid":"k1","k":"eA"}]}"#.into()),
    ] {
        issuer.answer(answer);
        let token = key.token(&claims(&issuer, &kit));
        for _ in 0..3 {
            let away = federate(&kit, &token).await;
            assert_eq!(away.told(), (503, "sts_unavailable"));
            assert_eq!(away.headers["retry-after"], "10");
        }
        fetches += 1;
        assert_eq!(issuer.fetches(), fetches, "asked once, not with every token");
        kit.clock.advance(Duration::from_secs(10));
    }
    issuer.publish(&[&key]);
    assert_eq!(federate(&kit, &key.token(&claims(&issuer, &kit))).await.status, 200);
    issuer.answer(Answer::Status(500));
    kit.clock.advance(MINUTE * 10);
    let late = federate(&kit, &key.token(&claims(&issuer, &kit))).await;
    assert_eq!(late.told(), (503, "sts_unavailable"), "an old set is not used");
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_is_given_up_after_five_seconds() {
    let (issuer, key) = (Issuer::start().await, Key::new("k1", "ES256"));
    issuer.answer(Answer::Nothing);
    let kit = kit(&issuer).await;
    let token = key.token(&claims(&issuer, &kit));
    let began = tokio::time::Instant::now();
    let replies = join_all((0..10).map(|_| federate(&kit, &token))).await;
    assert!(replies.iter().all(|reply| reply.told() == (503, "sts_unavailable")));
    assert!((4..10).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn a_private_host_is_dialled_only_when_the_operator_names_it() {
    let (issuer, key) = (Issuer::start().await, Key::new("k1", "ES256"));
    issuer.publish(&[&key]);
    for (config, status) in [
        ("", 503),
        ("[federation]\nprivate_hosts = [\"localhost\", \"127.0.0.2\"]\n", 503),
        ("[federation]\nprivate_hosts = [\"127.0.0.1\"]\n", 200),
    ] {
        let kit = Kit::with_more(config, &table(&issuer, "")).await;
        let reply = federate(&kit, &key.token(&claims(&issuer, &kit))).await;
        assert_eq!(reply.status, status, "{config} {reply:?}");
        assert_eq!(issuer.fetches(), usize::from(status == 200), "not even a connection");
    }
}

#[tokio::test]
async fn a_key_set_over_https_is_believed_by_its_certificate() {
    let folder = tempfile::TempDir::new().unwrap();
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (cert, private) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, certified.cert.pem()).unwrap();
    std::fs::write(&private, certified.signing_key.serialize_pem()).unwrap();
    let tls = ReloadingTls::open(&cert, &private).unwrap();
    let (issuer, key) = (Issuer::serve(Some(tls)).await, Key::new("k1", "ES256"));
    issuer.publish(&[&key]);
    for (more, status) in [
        (format!("ca_file = \"{}\"\n", cert.display()), 200),
        (String::new(), 503),
        (format!("ca_file = \"{}\"\n", private.display()), 503),
        ("ca_file = \"nothing.pem\"\n".to_owned(), 503),
    ] {
        let config = format!("[federation]\nprivate_hosts = [\"127.0.0.1\"]\n{more}");
        let kit = Kit::with_more(&config, &table(&issuer, "")).await;
        let reply = federate(&kit, &key.token(&claims(&issuer, &kit))).await;
        assert_eq!(reply.status, status, "{config} {reply:?}");
    }
}
