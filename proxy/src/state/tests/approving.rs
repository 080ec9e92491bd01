//! Holds: one for the same request, answered once, used once, through crashes and on a store that fails.

use caracal_policies::{Approver, Privacy, SelfApproval};

use super::beside::Beside;
use super::*;

const QUARTER: i64 = 15 * MINUTE;

fn asked(binding: &str, now: i64) -> Hold {
    Hold {
        id: uuid::Uuid::new_v4().to_string().into(),
        zone: ZONE.into(),
        application: "app".into(),
        record: Some("rec-app".into()),
        session: None,
        delegation: None,
        labels: Vec::new(),
        resources: vec!["resource://a".into()],
        scopes: vec!["a:write".into()],
        tier: "high".into(),
        approver: Approver::Operator,
        privacy: Privacy::Identified,
        self_approval: SelfApproval::Allowed,
        subject: None,
        binding: binding.into(),
        created_at: now,
        expires_at: now.saturating_add(QUARTER),
        decision: None,
        used: None,
        lapsed: None,
        exact: None,
    }
}

fn answer(approved: bool) -> HoldDecision {
    HoldDecision { approved, at: START, by: "operator:0".into(), reason: Some("because".into()) }
}

async fn held(bench: &Bench, binding: &str) -> Arc<Hold> {
    bench.state.hold(asked(binding, bench.now())).await.unwrap().0
}

async fn decided(bench: &Bench, id: &str, approved: bool) -> Result<Arc<Hold>, CoordinatorError> {
    bench.state.decide_hold(ZONE, id, &answer(approved)).await
}

fn minted(bench: &Bench, name: &str) -> AuthorityRecord {
    AuthorityRecord { approved: true, ..record(name, "app", RecordKind::Application, bench.now()) }
}

#[tokio::test]
async fn the_same_request_meets_the_same_hold_until_it_is_used_or_over() {
    let bench = Bench::new().await;
    let (first, new) = bench.state.hold(asked("b", bench.now())).await.unwrap();
    assert!(new);
    let (again, new) = bench.state.hold(asked("b", bench.now())).await.unwrap();
    assert_eq!((&again.id, new), (&first.id, false));
    let (one, two) = tokio::join!(bench.state.hold(asked("c", START)), bench.state.hold(asked("c", START)));
    assert_eq!(one.unwrap().0.id, two.unwrap().0.id, "at the same time too");
    assert_ne!(held(&bench, "another").await.id, first.id);
    decided(&bench, &first.id, false).await.unwrap();
    let (again, _) = bench.state.hold(asked("b", bench.now())).await.unwrap();
    assert_eq!((&again.id, again.state(bench.now())), (&first.id, HoldState::Rejected), "a no holds");
    bench.pass(QUARTER);
    assert_eq!(bench.state.find_hold(&first.id).unwrap().state(bench.now()), HoldState::Rejected);
    let (fresh, new) = bench.state.hold(asked("b", bench.now())).await.unwrap();
    assert!(new && fresh.id != first.id);
}

#[tokio::test]
async fn a_hold_is_answered_once_and_a_yes_is_used_once() {
    let bench = Bench::new().await;
    let hold = held(&bench, "b").await;
    let early = bench.state.use_hold(ZONE, &hold.id, minted(&bench, "early")).await.unwrap_err();
    assert_eq!(code(&early), (409, "approval_consumed"), "nobody has said yes");
    let (one, two) = tokio::join!(decided(&bench, &hold.id, true), decided(&bench, &hold.id, false));
    assert!(one.is_ok() ^ two.is_ok());
    let refused = one.err().or_else(|| two.err()).unwrap();
    assert_eq!(code(&refused), (409, "approval_not_decidable"));
    let hold = held(&bench, "used").await;
    decided(&bench, &hold.id, true).await.unwrap();
    let (one, two) = tokio::join!(
        bench.state.use_hold(ZONE, &hold.id, minted(&bench, "one")),
        bench.state.use_hold(ZONE, &hold.id, minted(&bench, "two"))
    );
    assert!(one.is_ok() ^ two.is_ok());
    let records = ["rec-one", "rec-two"].map(|id| bench.state.live_record(ZONE, id, bench.now()));
    assert_eq!(records.iter().flatten().count(), 1, "one record, and it says that it was approved");
    assert!(records.iter().flatten().all(|record| record.approved));
    let unknown = bench.state.decide_hold(ZONE, "nothing", &answer(true)).await.unwrap_err();
    assert_eq!(code(&unknown), (404, "approval_not_found"));
}

#[tokio::test]
async fn every_step_survives_a_crash() {
    let bench = Bench::new().await;
    let (waits, yes, no, used) =
        (held(&bench, "w").await, held(&bench, "y").await, held(&bench, "n").await, held(&bench, "u").await);
    decided(&bench, &yes.id, true).await.unwrap();
    decided(&bench, &no.id, false).await.unwrap();
    decided(&bench, &used.id, true).await.unwrap();
    bench.state.use_hold(ZONE, &used.id, minted(&bench, "used")).await.unwrap();
    let bench = bench.crash().await;
    let state = |hold: &Hold| bench.state.find_hold(&hold.id).unwrap().state(bench.now());
    assert_eq!(
        [state(&waits), state(&yes), state(&no), state(&used)],
        [HoldState::Pending, HoldState::Approved, HoldState::Rejected, HoldState::Consumed]
    );
    let row = bench.state.find_hold(&used.id).unwrap();
    assert_eq!(row.decision, Some(answer(true)));
    assert_eq!(row.used.as_ref().map(|used| &*used.record), Some("rec-used"));
    assert!(bench.state.live_record(ZONE, "rec-used", bench.now()).is_some_and(|record| record.approved));
    let (again, new) = bench.state.hold(asked("y", bench.now())).await.unwrap();
    assert_eq!((&again.id, new), (&yes.id, false));
}

#[tokio::test]
async fn a_request_that_was_approved_is_let_through_once_and_is_known_after_a_crash() {
    let bench = Bench::new().await;
    let exact = ExactRequest {
        decision: "d-1".into(),
        guards: vec!["large".into()],
        method: "POST".into(),
        path: "/pay".into(),
        content_type: None,
        tool: None,
        body_bytes: 3,
        body_sha256: "ab".into(),
        shown: vec![("/amount".into(), Some("5000".into())), ("/to".into(), None)],
    };
    let hold = Hold { exact: Some(Box::new(exact.clone())), ..asked("b", bench.now()) };
    let hold = bench.state.hold(hold).await.unwrap().0;
    let early = bench.state.use_hold_for_request(ZONE, &hold.id, "d-2").await.unwrap_err();
    assert_eq!(code(&early), (409, "approval_consumed"), "nobody has said yes");
    decided(&bench, &hold.id, true).await.unwrap();
    let used = {
        let pass = |decision| bench.state.use_hold_for_request(ZONE, &hold.id, decision);
        let (one, two) = tokio::join!(pass("d-2"), pass("d-3"));
        assert!(one.is_ok() ^ two.is_ok());
        one.or(two).unwrap().used.clone().unwrap()
    };
    let bench = bench.crash().await;
    let row = bench.state.latest_hold(&asked("b", START)).unwrap();
    assert_eq!((row.exact.as_deref(), row.used.as_ref()), (Some(&exact), Some(&used)));
    let again = bench.state.use_hold_for_request(ZONE, &hold.id, "d-4").await.unwrap_err();
    assert_eq!(code(&again), (409, "approval_consumed"));
}

#[tokio::test]
async fn that_nobody_answered_is_noted_once_also_through_a_crash() {
    let bench = Bench::new().await;
    let (waits, answered) = (held(&bench, "w").await, held(&bench, "a").await);
    decided(&bench, &answered.id, true).await.unwrap();
    assert!(bench.state.lapsed_holds().is_empty());
    let early = bench.state.lapse_hold(ZONE, &waits.id).await.unwrap_err();
    assert_eq!(code(&early), (409, "approval_not_decidable"));
    bench.pass(QUARTER);
    let lapsed: Vec<_> = bench.state.lapsed_holds().iter().map(|hold| Arc::clone(&hold.id)).collect();
    assert_eq!(lapsed, [Arc::clone(&waits.id)], "a yes that nobody used has an answer");
    let (one, two) =
        tokio::join!(bench.state.lapse_hold(ZONE, &waits.id), bench.state.lapse_hold(ZONE, &waits.id));
    assert!(one.is_ok() ^ two.is_ok());
    let bench = bench.crash().await;
    assert!(bench.state.lapsed_holds().is_empty());
    let row = bench.state.find_hold(&waits.id).unwrap();
    assert_eq!((row.state(bench.now()), row.decision.is_none()), (HoldState::Expired, true));
    assert_eq!(code(&decided(&bench, &waits.id, true).await.unwrap_err()), (409, "approval_not_decidable"));
}

#[tokio::test]
async fn what_is_not_committed_has_not_happened() {
    let bench = Bench::new().await;
    let hold = held(&bench, "b").await;
    let mut store = Beside::connect(&bench).await;
    store.run("ALTER TABLE approvals RENAME TO approvals_away").await;
    assert_eq!(code(&decided(&bench, &hold.id, true).await.unwrap_err()), (503, "state_unavailable"));
    assert_eq!(bench.state.find_hold(&hold.id).unwrap().state(bench.now()), HoldState::Pending);
    assert_eq!(code(&bench.state.hold(asked("new", START)).await.unwrap_err()), (503, "state_unavailable"));
    assert_eq!(bench.state.list_holds(ZONE).len(), 1);
    store.run("ALTER TABLE approvals_away RENAME TO approvals").await;
    decided(&bench, &hold.id, true).await.unwrap();
    store.run("ALTER TABLE records RENAME TO records_away").await;
    let refused = bench.state.use_hold(ZONE, &hold.id, minted(&bench, "lost")).await.unwrap_err();
    assert_eq!(code(&refused), (503, "state_unavailable"));
    assert!(bench.state.record(ZONE, "rec-lost").is_none());
    store.run("ALTER TABLE records_away RENAME TO records").await;
    bench.state.use_hold(ZONE, &hold.id, minted(&bench, "made")).await.unwrap();
}

#[tokio::test]
async fn an_application_can_let_only_so_many_wait_and_what_is_over_is_forgotten() {
    let bench = Bench::new().await;
    for number in 0..1_000 {
        held(&bench, &number.to_string()).await;
    }
    let refused = bench.state.hold(asked("one more", START)).await.unwrap_err();
    assert_eq!(code(&refused), (429, "approval_limit_exceeded"));
    bench.pass(QUARTER);
    held(&bench, "one more").await;
    bench.pass(DAY);
    bench.state.sweep(bench.now()).await.unwrap();
    assert_eq!(bench.state.list_holds(ZONE).len(), 1);
    let bench = bench.crash().await;
    assert_eq!(bench.state.list_holds(ZONE).len(), 1, "and in the store");
}
