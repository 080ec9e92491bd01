use super::*;

async fn beat(
    bench: &Bench,
    id: &str,
    caller: &Caller,
    generation: u64,
) -> Result<Arc<Session>, CoordinatorError> {
    bench.state.heartbeat_session(ZONE, id, caller, generation).await
}

#[tokio::test]
async fn a_heartbeat_renews_and_a_take_over_fences() {
    let bench = Bench::new().await;
    let service = bench.service("app").await;
    bench.pass(MINUTE);
    let heard = beat(&bench, &service.id, &caller("app"), 1).await.unwrap();
    assert_eq!(heard.heartbeat_deadline_at, Some(bench.now() + 120_000));
    let answer = heard.to_heartbeat_json(3);
    assert_eq!(answer["agent"]["status"], "active");
    assert_eq!(answer["agent"]["lease_generation"], 1);
    assert_eq!(answer["agent"]["heartbeat_deadline_at"], "2026-09-21T14:16:20.000Z");
    assert_eq!(answer["active_invocations"], 3);
    let taken = bench.state.lease_session(ZONE, &service.id, &caller("app")).await.unwrap();
    assert_eq!(taken.to_lease_json()["lease_generation"], 2);
    let fenced = beat(&bench, &service.id, &caller("app"), 1).await.unwrap_err();
    assert_eq!(code(&fenced), (409, "session_lease_fenced"));
    beat(&bench, &service.id, &caller("app"), 2).await.unwrap();
    let bench = bench.crash().await;
    beat(&bench, &service.id, &caller("app"), 2).await.unwrap();
}

#[tokio::test]
async fn simultaneous_take_overs_get_generations_of_their_own() {
    let bench = Bench::new().await;
    let service = bench.service("app").await;
    let who = caller("app");
    let (first, second) = tokio::join!(
        bench.state.lease_session(ZONE, &service.id, &who),
        bench.state.lease_session(ZONE, &service.id, &who)
    );
    let mut generations = [first.unwrap().lease_generation, second.unwrap().lease_generation];
    generations.sort_unstable();
    assert_eq!(generations, [2, 3]);
    assert_eq!(bench.state.session(ZONE, &service.id).unwrap().lease_generation, 3);
}

#[tokio::test]
async fn every_refusal_of_a_lease_in_order() {
    let bench = Bench::new().await;
    let lease = |id: Arc<str>, caller: Caller| {
        let state = Arc::clone(&bench.state);
        async move { code(&state.lease_session(ZONE, &id, &caller).await.unwrap_err()) }
    };
    let (service, task) = (bench.service("app").await, bench.session("app").await);
    let id = || Arc::clone(&service.id);
    assert_eq!(lease("nobody".into(), caller("app")).await, (404, "session_not_found"));
    assert_eq!(lease(id(), caller("other")).await, (403, "application_ownership_required"));
    assert_eq!(lease(Arc::clone(&task.id), caller("app")).await, (409, "session_not_service"));
    assert_eq!(lease(id(), Caller::Operator).await, (401, "authority_record_required"));
    let helper = caller_with("other", &["coordinator.spawn_for:app"]);
    assert_eq!(lease(id(), helper).await, (401, "identity_revoked"), "not a record of the owner");
    bench.state.suspend_session(ZONE, &service.id, &Caller::Operator).await.unwrap();
    assert_eq!(lease(id(), caller("app")).await, (409, "session_suspended"));
    assert!(beat(&bench, &service.id, &caller("app"), 1).await.unwrap().status == SessionStatus::Suspended);
    bench.state.resume_session(ZONE, &service.id, &Caller::Operator).await.unwrap();
    bench.pass(2 * MINUTE);
    assert_eq!(lease(id(), caller("app")).await, (409, "session_lease_expired"));
    assert_eq!(bench.status(&service), SessionStatus::Suspended, "and it is suspended");
    bench.state.end_session(ZONE, &service.id, &Caller::Operator, None, "done").await.unwrap();
    assert_eq!(lease(id(), caller("app")).await, (409, "session_not_live"));
}

#[tokio::test]
async fn every_refusal_of_a_heartbeat_in_order() {
    let bench = Bench::new().await;
    let (service, task) = (bench.service("app").await, bench.session("app").await);
    let refused = |id: Arc<str>, who: Caller, generation| {
        let bench = &bench;
        async move { code(&beat(bench, &id, &who, generation).await.unwrap_err()) }
    };
    let id = || Arc::clone(&service.id);
    assert_eq!(refused("nobody".into(), caller("app"), 1).await, (404, "session_not_found"));
    assert_eq!(refused(id(), caller("other"), 1).await, (403, "application_ownership_required"));
    assert_eq!(refused(Arc::clone(&task.id), caller("app"), 1).await, (409, "session_not_service"));
    assert_eq!(refused(id(), Caller::Operator, 9).await, (409, "session_lease_fenced"));
    assert_eq!(refused(id(), Caller::Operator, 1).await, (401, "authority_record_required"));
    bench.revoke(Target::Record("rec-other".into())).await;
    let helper = caller_with("other", &["coordinator.spawn_for:app"]);
    assert_eq!(refused(id(), helper, 1).await, (401, "identity_revoked"));
    bench.pass(2 * MINUTE);
    assert_eq!(refused(id(), caller("app"), 1).await, (409, "session_lease_expired"));
    let own = Arc::clone(&task.id);
    bench.state.end_session(ZONE, &own, &caller("app"), None, "done").await.unwrap();
    assert_eq!(refused(own, caller("app"), 1).await, (409, "session_not_live"));
}

#[tokio::test]
async fn a_session_of_a_person_ends_with_the_persons_record() {
    let bench = Bench::new().await;
    let mut person = record("alice", "app", RecordKind::User, bench.now());
    person.expires_at = bench.now() + MINUTE;
    bench.state.insert_record(person).await.unwrap();
    let request = StartSession {
        subject_record: Some("rec-alice".into()),
        lifecycle: Lifecycle::Service,
        ..start("app")
    };
    let service = bench.start(request.clone()).await.session;
    bench.pass(MINUTE);
    assert!(bench.state.live_session(ZONE, &service.id, bench.now()).is_none());
    let refused = beat(&bench, &service.id, &caller("app"), 1).await.unwrap_err();
    assert_eq!(code(&refused), (409, "session_subject_inactive"));
    let gone = bench.state.session(ZONE, &service.id).unwrap();
    assert_eq!(gone.termination_reason.as_deref(), Some("subject_authority_inactive"));

    bench.record("bob", "app", RecordKind::User).await;
    let request = StartSession { subject_record: Some("rec-bob".into()), ..request };
    let service = bench.start(request).await.session;
    let ended = bench.revoke(Target::Record("rec-bob".into())).await;
    assert_eq!(ended.sessions.len(), 1);
    assert_eq!(bench.status(&service), SessionStatus::Terminated);
}
