//! What happens when the store does not commit, and in which order things become visible.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use super::beside::Beside;
use super::*;

async fn break_sessions(bench: &Bench) -> Beside {
    let mut store = Beside::connect(bench).await;
    store.run("ALTER TABLE sessions RENAME TO sessions_away").await;
    store
}

async fn mend_sessions(store: &mut Beside) {
    store.run("ALTER TABLE sessions_away RENAME TO sessions").await;
}

#[tokio::test]
async fn what_widens_and_is_not_committed_never_shows_and_takes_no_room() {
    let limits = StateLimits { sessions_per_zone: 1, ..StateLimits::default() };
    let bench = Bench::with(limits).await;
    let mut store = break_sessions(&bench).await;
    let request = StartSession { idempotency: key("k", 1, KeyKind::Chosen), ..start("app") };
    for _ in 0..2 {
        let refused = bench.refused(request.clone()).await;
        assert_eq!(code(&refused), (503, "state_unavailable"));
        assert!(std::error::Error::source(&refused).is_some());
    }
    let seen = bench.state.list_sessions(
        ZONE,
        &Caller::Operator,
        &SessionFilter::default(),
        &PageRequest { limit: 10, cursor: None },
    );
    assert!(seen.unwrap().items.is_empty());
    mend_sessions(&mut store).await;
    assert!(!bench.start(request).await.replayed, "neither the place nor the key was lost");
}

#[tokio::test]
async fn what_narrows_stays_in_force_when_the_commit_fails_and_is_committed_later() {
    let bench = Bench::new().await;
    let session = bench.session("app").await;
    let mut store = break_sessions(&bench).await;
    let refused = bench.state.end_session(ZONE, &session.id, &caller("app"), None, "done").await.unwrap_err();
    assert_eq!(code(&refused), (503, "state_unavailable"));
    assert_eq!(bench.status(&session), SessionStatus::Terminated);
    mend_sessions(&mut store).await;
    bench.state.sweep(bench.now()).await.unwrap();
    let bench = bench.crash().await;
    assert_eq!(bench.status(&session), SessionStatus::Terminated, "the next commit carried it");
}

#[tokio::test]
async fn one_failing_change_does_not_take_others_in_its_group_along() {
    let bench = Bench::new().await;
    let _store = break_sessions(&bench).await;
    let (started, frozen, recorded) = tokio::join!(
        bench.state.start_session(start("app")),
        bench.state.freeze("elsewhere"),
        bench.state.insert_record(record("late", "app", RecordKind::Application, START))
    );
    assert_eq!(code(&started.unwrap_err()), (503, "state_unavailable"));
    frozen.unwrap();
    recorded.unwrap();
}

#[tokio::test]
async fn a_resume_that_is_not_committed_leaves_the_session_suspended() {
    let bench = Bench::new().await;
    let session = bench.session("app").await;
    bench.state.suspend_session(ZONE, &session.id, &caller("app")).await.unwrap();
    let mut store = break_sessions(&bench).await;
    bench.state.resume_session(ZONE, &session.id, &caller("app")).await.unwrap_err();
    assert_eq!(bench.status(&session), SessionStatus::Suspended);
    mend_sessions(&mut store).await;
    bench.state.resume_session(ZONE, &session.id, &caller("app")).await.unwrap();
    assert_eq!(bench.status(&session), SessionStatus::Active);
}

#[tokio::test]
async fn hooks_hear_of_an_end_before_it_is_committed_and_after_it_is_in_force() {
    let bench = Bench::new().await;
    let session = bench.session("app").await;
    let _store = break_sessions(&bench).await;
    let in_force = Arc::new(AtomicBool::new(false));
    let (seen, state, id) = (Arc::clone(&in_force), Arc::downgrade(&bench.state), Arc::clone(&session.id));
    bench.state.on_narrow(Arc::new(move |narrowed: &Narrowed| {
        assert!(narrowed.anchors.contains(&Anchor::Session(Arc::clone(&id))));
        let gone = state.upgrade().is_some_and(|state| state.live_session(ZONE, &id, START).is_none());
        seen.store(gone, Ordering::SeqCst);
    }));
    bench.state.end_session(ZONE, &session.id, &caller("app"), None, "done").await.unwrap_err();
    assert!(in_force.load(Ordering::SeqCst), "told although nothing could be committed");
}

#[tokio::test]
async fn a_start_that_was_overtaken_by_its_parents_end_is_refused_and_leaves_nothing_alive() {
    let bench = Bench::new().await;
    let parent = bench.session("app").await;
    let who = caller("app");
    let (child, ended) = tokio::join!(
        bench.state.start_session(under(&parent)),
        bench.state.end_session(ZONE, &parent.id, &who, None, "done")
    );
    ended.unwrap();
    assert_eq!(code(&child.unwrap_err()), (404, "parent_not_found"));
    let rows = bench.state.list_sessions(
        ZONE,
        &Caller::Operator,
        &SessionFilter { status: Some(SessionStatus::Active), ..SessionFilter::default() },
        &PageRequest { limit: 10, cursor: None },
    );
    assert!(rows.unwrap().items.is_empty());
    bench.state.sweep(bench.now()).await.unwrap();
    let bench = bench.crash().await;
    let mut store = Beside::connect(&bench).await;
    let alive = store.number("SELECT count(*) AS n FROM sessions WHERE status = 'active'").await;
    assert_eq!(alive, 0);
}

#[tokio::test]
async fn whatever_is_revoked_while_a_commit_is_under_way_reaches_its_result() {
    let bench = Bench::new().await;
    let (giver, taker) = (bench.session("app").await, bench.session("other").await);
    let who = caller("other");
    let (made, ended) = tokio::join!(
        bench.state.create_delegation(delegate(&giver, &taker), &Catalog),
        bench.state.end_session(ZONE, &taker.id, &who, None, "done")
    );
    ended.unwrap();
    assert_eq!(code(&made.unwrap_err()), (404, "delegation_endpoint_not_found"));
    let page = PageRequest { limit: 10, cursor: None };
    let active = bench.state.list_active_delegations(ZONE, &Caller::Operator, &page).unwrap();
    assert!(active.items.is_empty());

    let (started, _) =
        tokio::join!(bench.state.start_session(start("app")), bench.revoke(Target::Record("rec-app".into())));
    assert_eq!(code(&started.unwrap_err()), (404, "session_not_found"));

    let (left, right) = (bench.session("other").await, bench.session("other").await);
    let parent = bench.delegate(delegate(&left, &right)).await;
    let (child, revoked) = tokio::join!(
        bench.state.start_session(under(&right)),
        bench.state.revoke_delegation(ZONE, &parent.id, &Caller::Operator)
    );
    revoked.unwrap();
    assert_eq!(code(&child.unwrap_err()).0, 404);
    let alive = SessionFilter { status: Some(SessionStatus::Active), ..SessionFilter::default() };
    let alive = bench.state.list_sessions(ZONE, &Caller::Operator, &alive, &page).unwrap();
    assert_eq!(alive.items.iter().map(|row| &row.id).collect::<Vec<_>>(), [&left.id]);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_memory_and_store_agreeing() {
    let bench = Bench::new().await;
    let mut call = Box::pin(bench.state.start_session(start("app")));
    let waits = std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await;
    drop(call);
    bench.state.sweep(bench.now()).await.unwrap();
    let mut store = Beside::connect(&bench).await;
    let rows = store.number("SELECT count(*) AS n FROM sessions").await;
    let page = PageRequest { limit: 10, cursor: None };
    let seen = bench.state.list_sessions(ZONE, &Caller::Operator, &SessionFilter::default(), &page).unwrap();
    assert!(waits && rows == 1 && seen.items.len() == 1);
}

#[tokio::test]
async fn a_store_of_a_later_version_is_refused_untouched() {
    let bench = Bench::new().await;
    let mut store = Beside::connect(&bench).await;
    store
        .run(match &bench.shared {
            None => "PRAGMA user_version = 99",
            Some(_) => {
                "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (99, 'later', TRUE, '', 0)"
            }
        })
        .await;
    drop(store);
    bench.state.close().await.unwrap();
    let shared = bench.shared.clone();
    let refused =
        State::open_with(&bench.folder(), shared, bench.clock.clone(), StateLimits::default()).await;
    assert!(matches!(refused, Err(StateError::NewerStore { found: 99, .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_commits() {
    let bench = Bench::new().await;
    let cycles = Arc::new(AtomicUsize::new(0));
    let begun = std::time::Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (state, cycles) = (Arc::clone(&bench.state), Arc::clone(&cycles));
        callers.spawn(async move {
            for _ in 0..32 {
                let session = state.start_session(start("app")).await.unwrap().session;
                state.end_session(ZONE, &session.id, &caller("app"), None, "done").await.unwrap();
                cycles.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    callers.join_all().await;
    let per_second = 2_048.0 / begun.elapsed().as_secs_f64();
    assert_eq!(cycles.load(Ordering::Relaxed), 2_048);
    // Far below what a quiet machine does; without shared commits it would be tens.
    assert!(per_second > 200.0, "{per_second} start and end cycles a second");
}
