use super::*;

#[tokio::test]
async fn ending_takes_the_subtree_and_every_delegation_that_touches_it() {
    let bench = Bench::new().await;
    let root = bench.session("app").await;
    let child = bench.child(&root).await.session;
    let leaf = bench.child(&child).await.session;
    let outside = bench.session("other").await;
    let edge = bench.delegate(delegate(&leaf, &outside)).await;
    let epoch = bench.state.graph_epoch(ZONE);
    let ended = bench.state.end_session(ZONE, &root.id, &caller("app"), None, "done").await.unwrap();
    assert_eq!((ended.sessions.len(), ended.delegations.len()), (3, 1));
    let gone = bench.state.session(ZONE, &root.id).unwrap();
    assert_eq!((gone.status, gone.termination_reason.as_deref()), (SessionStatus::Terminated, Some("done")));
    let gone = bench.state.session(ZONE, &leaf.id).unwrap();
    assert_eq!(gone.termination_reason.as_deref(), Some("parent_terminated"));
    assert_eq!(bench.status(&outside), SessionStatus::Active, "a receiver outlives its giver");
    let closed = bench.state.delegation(ZONE, &edge.id).unwrap();
    assert_eq!((closed.status, closed.version), (DelegationStatus::Revoked, 2));
    assert_eq!(bench.state.graph_epoch(ZONE), epoch + 1);
    let told = bench.last_told();
    for id in [&root.id, &child.id, &leaf.id] {
        assert!(told.anchors.contains(&Anchor::Session(Arc::clone(id))));
    }
    assert!(told.anchors.contains(&Anchor::Delegation(Arc::clone(&edge.id))));
}

#[tokio::test]
async fn ending_asks_for_ownership_and_for_a_services_generation() {
    let bench = Bench::new().await;
    let end = |id: Arc<str>, caller: Caller, generation: Option<u64>| {
        let state = Arc::clone(&bench.state);
        async move { state.end_session(ZONE, &id, &caller, generation, "requested").await.map(|_| ()) }
    };
    let service = bench.service("app").await;
    let id = || Arc::clone(&service.id);
    let refused = end("nobody".into(), caller("app"), None).await.unwrap_err();
    assert_eq!(code(&refused), (404, "session_not_found"));
    let refused = end(id(), caller("other"), None).await.unwrap_err();
    assert_eq!(code(&refused), (403, "application_ownership_required"));
    let refused = end(id(), caller("app"), None).await.unwrap_err();
    assert_eq!(code(&refused), (400, "lease_generation_required"));
    let refused = end(id(), caller("app"), Some(2)).await.unwrap_err();
    assert_eq!(code(&refused), (409, "session_lease_fenced"));
    end(id(), caller("app"), Some(1)).await.unwrap();
    let refused = end(id(), caller("app"), Some(1)).await.unwrap_err();
    assert_eq!(code(&refused), (404, "session_not_found"), "already ended");
    let another = bench.service("app").await;
    end(Arc::clone(&another.id), Caller::Operator, None).await.unwrap();
}

#[tokio::test]
async fn suspending_and_resuming_cascade() {
    let bench = Bench::new().await;
    let root = bench.service("app").await;
    let child = bench.child(&root).await.session;
    let suspended = bench.state.suspend_session(ZONE, &child.id, &Caller::Operator).await.unwrap();
    assert_eq!(suspended.len(), 1);
    let suspended = bench.state.suspend_session(ZONE, &root.id, &caller("app")).await.unwrap();
    assert_eq!(suspended.len(), 1, "only what was active");
    assert!(bench.state.live_session(ZONE, &root.id, bench.now()).is_none());
    assert!(bench.last_told().anchors.contains(&Anchor::Session(Arc::clone(&root.id))));
    let refused = bench.state.suspend_session(ZONE, &root.id, &caller("app")).await.unwrap_err();
    assert_eq!(code(&refused), (409, "session_not_found_or_not_active"));
    let refused = bench.state.resume_session(ZONE, &root.id, &caller("other")).await.unwrap_err();
    assert_eq!(code(&refused), (403, "application_ownership_required"));
    bench.pass(10 * MINUTE);
    let resumed = bench.state.resume_session(ZONE, &root.id, &Caller::Operator).await.unwrap();
    assert_eq!(resumed.len(), 2, "the whole run of suspended sessions");
    assert_eq!(resumed[0].heartbeat_deadline_at, Some(bench.now() + 120_000), "a service starts afresh");
    assert!(bench.state.live_session(ZONE, &child.id, bench.now()).is_some());
    let refused = bench.state.resume_session(ZONE, &root.id, &caller("app")).await.unwrap_err();
    assert_eq!(code(&refused), (409, "session_not_found_or_not_suspended"));
    for unknown in ["nobody", ""] {
        let refused = bench.state.suspend_session(ZONE, unknown, &Caller::Operator).await.unwrap_err();
        assert_eq!(code(&refused), (404, "session_not_found"));
        let refused = bench.state.resume_session(ZONE, unknown, &Caller::Operator).await.unwrap_err();
        assert_eq!(code(&refused), (404, "session_not_found"));
    }
}

#[tokio::test]
async fn resuming_stops_at_a_session_that_is_not_suspended() {
    let bench = Bench::new().await;
    let root = bench.session("app").await;
    let middle = bench.child(&root).await.session;
    let leaf = bench.child(&middle).await.session;
    bench.state.suspend_session(ZONE, &root.id, &Caller::Operator).await.unwrap();
    bench.state.resume_session(ZONE, &middle.id, &Caller::Operator).await.unwrap();
    bench.state.suspend_session(ZONE, &leaf.id, &Caller::Operator).await.unwrap();
    let resumed = bench.state.resume_session(ZONE, &root.id, &Caller::Operator).await.unwrap();
    assert_eq!(resumed.len(), 1);
    assert_eq!(bench.status(&leaf), SessionStatus::Suspended);
}

#[tokio::test]
async fn time_ends_tasks_suspends_services_and_expires_delegations_without_being_asked() {
    let bench = Bench::new().await;
    let task = bench.start(StartSession { ttl_seconds: Some(60), ..start("app") }).await.session;
    let child = bench.child(&task).await.session;
    let service = bench.service("app").await;
    let (giver, taker) = (bench.session("app").await, bench.session("app").await);
    let edge = bench.delegate(seconds(delegate(&giver, &taker), 90)).await;
    bench.pass(2 * MINUTE);
    assert!(bench.state.live_delegation(ZONE, &edge.id, bench.now()).is_none(), "before any sweep");
    let epoch = bench.state.graph_epoch(ZONE);
    bench.state.sweep(bench.now()).await.unwrap();
    assert_eq!(bench.status(&task), SessionStatus::Expired);
    assert_eq!(bench.status(&child), SessionStatus::Terminated);
    assert_eq!(bench.status(&service), SessionStatus::Suspended);
    assert_eq!(bench.state.delegation(ZONE, &edge.id).unwrap().status, DelegationStatus::Expired);
    assert_eq!(bench.state.graph_epoch(ZONE), epoch, "expiry is no revocation");
    let reasons: Vec<_> = bench.told.lock().iter().map(|narrowed| narrowed.reason.to_string()).collect();
    for reason in ["ttl_expired", "service_heartbeat_lost", "expired"] {
        assert!(reasons.contains(&reason.to_owned()), "{reason}");
    }
}

#[tokio::test]
async fn ended_rows_are_forgotten_after_their_time() {
    let limits = StateLimits { keep_ended: 2, keep_ended_ms: 10 * MINUTE, ..StateLimits::default() };
    let bench = Bench::with(limits).await;
    let mut ended = Vec::new();
    for _ in 0..4 {
        let session = bench.session("app").await;
        bench.state.end_session(ZONE, &session.id, &caller("app"), None, "done").await.unwrap();
        ended.push(session);
    }
    bench.state.sweep(bench.now()).await.unwrap();
    let kept = ended.iter().filter(|session| bench.state.session(ZONE, &session.id).is_some()).count();
    assert_eq!(kept, 2, "too many");
    bench.pass(10 * MINUTE);
    bench.state.sweep(bench.now()).await.unwrap();
    assert!(ended.iter().all(|session| bench.state.session(ZONE, &session.id).is_none()), "too old");
    let bench = bench.restart().await;
    assert!(ended.iter().all(|session| bench.state.session(ZONE, &session.id).is_none()), "in the store too");
}
