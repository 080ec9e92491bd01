use super::*;

/// Ids of everything a revocation found, for comparing.
fn ids(doomed: &Doomed) -> [Vec<Arc<str>>; 3] {
    let sessions = doomed.sessions.iter().map(|session| Arc::clone(&session.id)).collect();
    let delegations = doomed.delegations.iter().map(|edge| Arc::clone(&edge.id)).collect();
    [doomed.records.clone(), sessions, delegations]
}

/// The plan, after checking that it changed nothing, and the act, after checking that it did what was planned.
async fn planned_and_done(bench: &Bench, target: Target) -> Doomed {
    let told = bench.told.lock().len();
    let epoch = bench.state.graph_epoch(ZONE);
    let plan = bench.state.plan_revocation(ZONE, &target).unwrap();
    assert_eq!(
        (bench.told.lock().len(), bench.state.graph_epoch(ZONE)),
        (told, epoch),
        "a plan does nothing"
    );
    assert!(plan.sessions.iter().all(|session| !bench.status(session).ended()));
    let done = bench.revoke(target).await;
    assert_eq!(ids(&plan), ids(&done));
    for session in &done.sessions {
        assert_eq!(bench.status(session), SessionStatus::Terminated);
    }
    for edge in &done.delegations {
        let now = bench.state.delegation(ZONE, &edge.id).unwrap();
        assert_eq!((now.status, now.version), (DelegationStatus::Revoked, edge.version.saturating_add(1)));
    }
    let anchors = bench.last_told().anchors;
    for anchor in done.anchors() {
        let by_application = matches!(anchor, Anchor::Record(_)) && done.application.is_some();
        assert!(by_application || anchors.contains(&anchor), "{anchor:?} was not told");
    }
    done
}

#[tokio::test]
async fn a_session_is_planned_and_ended_with_its_subtree_and_delegations() {
    let bench = Bench::new().await;
    let root = bench.session("app").await;
    let child = bench.child(&root).await.session;
    let taker = bench.session("other").await;
    let edge = bench.delegate(delegate(&child, &taker)).await;
    let done = planned_and_done(&bench, Target::Session(Arc::clone(&root.id))).await;
    assert_eq!(ids(&done), [vec![], vec![root.id.clone(), child.id.clone()], vec![edge.id.clone()]]);
    let ended = bench.state.session(ZONE, &root.id).unwrap();
    assert_eq!(ended.termination_reason.as_deref(), Some("session_revoked"));
    assert_eq!(bench.status(&taker), SessionStatus::Active);
    let again = bench.state.plan_revocation(ZONE, &Target::Session(Arc::clone(&root.id))).unwrap_err();
    assert_eq!(code(&again), (404, "session_not_found"));
}

#[tokio::test]
async fn a_delegation_takes_what_was_handed_on_and_who_held_it() {
    let bench = Bench::new().await;
    let (a, b, c) = (bench.session("app").await, bench.session("other").await, bench.session("app").await);
    let first = bench.delegate(delegate(&a, &b)).await;
    let second = bench.delegate(hops(delegate(&b, &c), 2)).await;
    let done = planned_and_done(&bench, Target::Delegation(Arc::clone(&first.id))).await;
    assert_eq!((done.sessions.len(), done.delegations.len()), (2, 2));
    assert!(done.delegations.iter().any(|edge| edge.id == second.id));
    assert_eq!(bench.status(&a), SessionStatus::Active, "the giver goes on");
}

#[tokio::test]
async fn a_record_takes_everything_minted_from_it_however_deep() {
    let bench = Bench::new().await;
    for (name, root, parent) in
        [("one", "rec-app", "rec-app"), ("two", "rec-app", "rec-one"), ("loose", "rec-loose", "rec-two")]
    {
        let minted = AuthorityRecord {
            root: root.into(),
            parent: Some(parent.into()),
            ..record(name, "app", RecordKind::Application, bench.now())
        };
        bench.state.remember_record(minted);
    }
    let session = bench.session("app").await;
    let done = planned_and_done(&bench, Target::Record("rec-app".into())).await;
    assert_eq!(done.records, scopes(&["rec-app", "rec-loose", "rec-one", "rec-two"]));
    assert_eq!(done.sessions[0].id, session.id);
    for id in &done.records {
        assert!(bench.state.live_record(ZONE, id, bench.now()).is_none());
    }
}

#[tokio::test]
async fn a_record_that_is_long_over_still_reaches_the_sessions_that_act_for_it() {
    let bench = Bench::new().await;
    let session = bench.start(StartSession { ttl_seconds: Some(86_400), ..start("app") }).await.session;
    bench.pass(DAY - MINUTE);
    let service = StartSession { ttl_seconds: Some(86_400), ..start("app") };
    let late = bench.start(service).await.session;
    bench.pass(3 * MINUTE);
    bench.state.sweep(bench.now()).await.unwrap();
    assert!(bench.state.record(ZONE, "rec-app").is_none());
    assert_eq!(bench.status(&session), SessionStatus::Expired);
    let by_subject = bench.state.plan_revocation(ZONE, &Target::Subject("app".into())).unwrap();
    assert_eq!(by_subject.sessions.len(), 1);
    let done = planned_and_done(&bench, Target::Record("rec-app".into())).await;
    assert_eq!(done.sessions[0].id, late.id);
}

#[tokio::test]
async fn a_subject_loses_records_sessions_and_delegations_and_nobody_else_does() {
    let bench = Bench::new().await;
    for name in ["alice", "bob"] {
        bench.record(name, "app", RecordKind::User).await;
    }
    let of = |name: &str| StartSession { subject_record: Some(format!("rec-{name}").into()), ..start("app") };
    let (alice, bob) = (bench.start(of("alice")).await.session, bench.start(of("bob")).await.session);
    let edge = bench.delegate(delegate(&alice, &bob)).await;
    let done = planned_and_done(&bench, Target::Subject("alice".into())).await;
    assert_eq!(ids(&done), [scopes(&["rec-alice"]), vec![alice.id.clone()], vec![edge.id.clone()]]);
    assert_eq!(bench.status(&bob), SessionStatus::Active);
    assert!(bench.state.live_record(ZONE, "rec-bob", bench.now()).is_some());
    let bench = bench.crash().await;
    assert!(bench.state.live_record(ZONE, "rec-alice", bench.now()).is_none(), "in the store too");
}

#[tokio::test]
async fn an_application_is_planned_without_being_stopped() {
    let bench = Bench::new().await;
    let session = bench.session("app").await;
    bench.session("other").await;
    let plan = bench.state.plan_revocation(ZONE, &application("app", Extent::Block)).unwrap();
    assert_eq!(ids(&plan), [scopes(&["rec-app"]), vec![session.id.clone()], vec![]]);
    assert!(!bench.state.application_blocked(ZONE, "app"));
    assert!(bench.state.live_record(ZONE, "rec-app", bench.now()).is_some());
    planned_and_done(&bench, application("app", Extent::Block)).await;
    assert!(bench.state.application_blocked(ZONE, "app"));
}

#[tokio::test]
async fn what_is_not_there_is_said_not_to_be_there() {
    let bench = Bench::new().await;
    let nobody = || Arc::<str>::from("nobody");
    for (target, told) in [
        (Target::Record(nobody()), "authority_record_not_found"),
        (Target::Root(nobody()), "authority_record_not_found"),
        (Target::Session(nobody()), "session_not_found"),
        (Target::Delegation(nobody()), "delegation_not_found"),
        (Target::Subject(nobody()), "subject_not_found"),
    ] {
        assert_eq!(code(&bench.state.plan_revocation(ZONE, &target).unwrap_err()), (404, told));
        assert_eq!(code(&bench.state.revoke(ZONE, &target, "x").await.unwrap_err()), (404, told));
    }
}
