use super::*;

fn keyed(text: &str, request: u8) -> StartSession {
    StartSession { idempotency: key(text, request, KeyKind::Chosen), ..start("app") }
}

#[tokio::test]
async fn the_same_key_and_request_get_the_same_answer_even_after_a_restart() {
    let bench = Bench::new().await;
    let first = bench.start(keyed("k", 1)).await;
    let again = bench.start(keyed("k", 1)).await;
    assert!(again.replayed && !first.replayed);
    assert_eq!(again.response, first.response);
    let bench = bench.restart().await;
    let again = bench.start(keyed("k", 1)).await;
    assert!(again.replayed);
    assert_eq!(again.response, first.response);
    assert_eq!(again.session.id, first.session.id);
}

#[tokio::test]
async fn another_request_under_the_key_conflicts_and_other_scopes_do_not() {
    let bench = Bench::new().await;
    bench.start(keyed("k", 1)).await;
    let refused = bench.refused(keyed("k", 2)).await;
    assert_eq!(code(&refused), (409, "idempotency_key_conflict"));
    assert!(refused.message.is_some());
    let other = StartSession { idempotency: key("k", 2, KeyKind::Chosen), ..start("other") };
    assert!(!bench.start(other).await.replayed, "keys belong to an application");
    let (source, target) = (bench.session("app").await, bench.session("app").await);
    let request =
        CreateDelegation { idempotency: key("k", 9, KeyKind::Chosen), ..delegate(&source, &target) };
    let made = bench.state.create_delegation(request.clone(), &Catalog).await.unwrap();
    let again = bench.state.create_delegation(request.clone(), &Catalog).await.unwrap();
    assert!(again.replayed && !made.replayed);
    assert_eq!(again.response, made.response);
    bench.state.revoke_delegation(ZONE, &made.delegation.id, &caller("app")).await.unwrap();
    let refused = bench.not_delegated(request).await;
    assert_eq!(code(&refused), (409, "idempotency_result_inactive"));
}

#[tokio::test]
async fn an_answer_whose_session_is_over_is_not_given_again() {
    let bench = Bench::new().await;
    let first = bench.start(keyed("k", 1)).await.session;
    bench.state.suspend_session(ZONE, &first.id, &caller("app")).await.unwrap();
    assert!(bench.start(keyed("k", 1)).await.replayed, "suspended still counts");
    bench.state.end_session(ZONE, &first.id, &caller("app"), None, "done").await.unwrap();
    assert_eq!(code(&bench.refused(keyed("k", 1)).await), (409, "idempotency_result_inactive"));
    bench.start(keyed("k2", 1)).await;
    bench.pass(60 * MINUTE);
    assert_eq!(code(&bench.refused(keyed("k2", 1)).await), (409, "idempotency_result_inactive"));
}

#[tokio::test]
async fn simultaneous_requests_under_one_key_start_one_session() {
    let bench = Bench::new().await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let state = Arc::clone(&bench.state);
        calls.spawn(async move { state.start_session(keyed("k", 1)).await.unwrap() });
    }
    let answers = calls.join_all().await;
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    assert!(answers.iter().all(|answer| answer.response == answers[0].response));
}

#[tokio::test]
async fn a_refused_request_leaves_its_key_free() {
    let bench = Bench::new().await;
    let refused = StartSession { application_known: false, ..keyed("k", 1) };
    bench.refused(refused).await;
    assert!(!bench.start(keyed("k", 2)).await.replayed);
}

#[tokio::test]
async fn keys_expire_after_a_week_or_a_day() {
    let bench = Bench::new().await;
    let generated =
        |request| StartSession { idempotency: key("g", request, KeyKind::Generated), ..start("app") };
    bench.start(keyed("k", 1)).await;
    bench.start(generated(1)).await;
    bench.pass(DAY);
    bench.record("app", "app", RecordKind::Application).await;
    assert_eq!(code(&bench.refused(keyed("k", 2)).await), (409, "idempotency_key_conflict"));
    assert!(!bench.start(generated(2)).await.replayed, "a day is enough for retries");
    bench.pass(6 * DAY);
    bench.record("app", "app", RecordKind::Application).await;
    bench.state.sweep(bench.now()).await.unwrap();
    assert!(!bench.start(keyed("k", 2)).await.replayed);
}

#[tokio::test]
async fn the_limit_counts_chosen_keys_and_generated_ones_make_room_once_spent() {
    let bench = Bench::with(StateLimits { receipts_per_scope: 2, ..StateLimits::default() }).await;
    let generated =
        |text: &str| StartSession { idempotency: key(text, 1, KeyKind::Generated), ..start("app") };
    bench.start(keyed("k", 1)).await;
    let second = bench.start(generated("g")).await.session;
    assert_eq!(code(&bench.refused(keyed("k2", 1)).await), (429, "idempotency_receipt_limit_exceeded"));
    bench.state.end_session(ZONE, &second.id, &caller("app"), None, "done").await.unwrap();
    assert_eq!(code(&bench.refused(generated("g2")).await).0, 429, "a retry may still come");
    bench.pass(MINUTE);
    bench.start(generated("g2")).await;
    assert_eq!(code(&bench.refused(keyed("k2", 1)).await).0, 429);
}
