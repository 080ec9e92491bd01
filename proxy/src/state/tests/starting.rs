use super::*;

#[tokio::test]
async fn a_task_and_a_service_answer_with_the_contracts_members() {
    let bench = Bench::new().await;
    let task = bench.start(StartSession { labels: scopes(&["blue"]), ..start("app") }).await;
    assert_eq!(
        task.response,
        json!({
            "agent_session_id": task.session.id, "zone_id": "z", "application_id": "app", "parent_id": null,
            "subject_authority_record_id": "rec-app", "lifecycle": "task", "labels": ["blue"],
            "status": "active", "depth": 0, "ttl_seconds": 3600, "started_at": "2026-09-21T14:13:20.000Z",
            "last_heartbeat_at": null, "heartbeat_deadline_at": null, "lease_generation": 0,
            "delegation_edge_id": null,
        })
    );
    let service = bench.service("app").await;
    assert_eq!((service.ttl_seconds, service.lease_generation), (None, 1));
    assert_eq!(service.heartbeat_deadline_at, Some(START + 120_000));
    let row = service.to_json();
    assert!(row["lease_generation"].is_number() && row["terminated_at"].is_null());
    assert!(row.get("delegation_edge_id").is_none());
    assert!(bench.state.live_session(ZONE, &task.session.id, bench.now()).is_some());
    assert!(bench.state.live_session(ZONE, &task.session.id, START + 3_600_000).is_none(), "out of time");
    assert!(bench.state.live_session("elsewhere", &task.session.id, bench.now()).is_none());
}

#[tokio::test]
async fn who_may_start_for_whom() {
    let bench = Bench::new().await;
    let nameless = Caller::Application(ApplicationCaller {
        id: "app".into(),
        subject: "app".into(),
        record: None,
        scopes: Vec::new(),
    });
    let refused = bench.refused(StartSession { caller: nameless, ..start("other") }).await;
    assert_eq!(code(&refused), (400, "subject_session_id_required"), "asked before ownership");
    let refused = bench.refused(StartSession { caller: caller("app"), ..start("other") }).await;
    assert_eq!(code(&refused), (403, "application_ownership_required"));
    let operator =
        StartSession { caller: Caller::Operator, subject_record: Some("rec-app".into()), ..start("app") };
    assert_eq!(code(&bench.refused(operator).await), (403, "application_ownership_required"));
    let helper = caller_with("app", &["coordinator.spawn_for:other"]);
    assert_eq!(
        &*bench.start(StartSession { caller: helper, ..start("other") }).await.session.application,
        "other"
    );
}

#[tokio::test]
async fn the_application_and_the_record_must_stand_and_be_the_callers() {
    let bench = Bench::new().await;
    let refused = bench.refused(StartSession { application_known: false, ..start("app") }).await;
    assert_eq!(code(&refused), (404, "application_not_found"));
    for record in ["rec-unknown", "rec-other"] {
        let request = StartSession { subject_record: Some(record.into()), ..start("app") };
        let refused = bench.refused(request).await;
        assert_eq!(code(&refused), (404, "session_not_found"), "{record}");
        assert!(refused.detail.is_some());
    }
    bench.pass(24 * 60 * MINUTE);
    assert_eq!(code(&bench.refused(start("app")).await), (404, "session_not_found"), "expired");
}

#[tokio::test]
async fn every_limit_has_its_code_and_time_makes_room() {
    let limits = StateLimits {
        sessions_per_zone: 4,
        sessions_per_application: 3,
        children_per_session: 2,
        depth: 1,
        ..StateLimits::default()
    };
    let bench = Bench::with(limits).await;
    let root = bench.session("app").await;
    let child = bench.child(&root).await.session;
    assert_eq!(code(&bench.refused(under(&child)).await), (429, "session_depth_limit_exceeded"));
    bench.child(&root).await;
    assert_eq!(code(&bench.refused(start("app")).await), (429, "session_limit_exceeded"));
    bench.start(StartSession { ttl_seconds: Some(60), ..start("other") }).await;
    assert_eq!(code(&bench.refused(start("other")).await), (429, "session_zone_limit_exceeded"));
    bench.pass(MINUTE);
    let third = bench.session("other").await;
    assert_eq!(third.started_at, START + MINUTE, "a task out of time takes no place");
    bench.state.end_session(ZONE, &child.id, &caller("app"), None, "requested").await.unwrap();
    bench.state.end_session(ZONE, &third.id, &caller("other"), None, "requested").await.unwrap();
    bench.child(&root).await;
    bench.state.end_session(ZONE, &child.id, &caller("app"), None, "requested").await.unwrap_err();
    let free = Bench::with(StateLimits { children_per_session: 1, ..StateLimits::default() }).await;
    let root = free.session("app").await;
    free.child(&root).await;
    assert_eq!(code(&free.refused(under(&root)).await), (429, "session_children_limit_exceeded"));
}

#[tokio::test]
async fn what_a_parent_must_be() {
    let bench = Bench::new().await;
    let unknown = StartSession { parent: Some("nobody".into()), ..start("app") };
    assert_eq!(code(&bench.refused(unknown).await), (404, "parent_not_found"));
    let task = bench.session("app").await;
    let service = StartSession { lifecycle: Lifecycle::Service, ..under(&task) };
    assert_eq!(code(&bench.refused(service).await), (409, "task_session_cannot_start_service"));
    let foreign = StartSession { parent: Some(Arc::clone(&task.id)), ..start("other") };
    assert_eq!(code(&bench.refused(foreign.clone()).await), (403, "parent_ownership_required"));
    let guest = caller_with("other", &["coordinator.spawn_under:app"]);
    assert_eq!(bench.start(StartSession { caller: guest, ..foreign }).await.session.depth, 1);
    bench.state.suspend_session(ZONE, &task.id, &caller("app")).await.unwrap();
    assert_eq!(code(&bench.refused(under(&task)).await), (404, "parent_not_found"), "suspended");
}

#[tokio::test]
async fn a_child_inherits_one_hop_less() {
    let bench = Bench::new().await;
    let (giver, parent) = (bench.session("app").await, bench.session("app").await);
    assert!(bench.child(&parent).await.delegation.is_none(), "nothing held, nothing inherited");
    let held = bench.delegate(hops(delegate(&giver, &parent), 2)).await;
    let child = bench.child(&parent).await;
    let copy = child.delegation.unwrap();
    assert_eq!(child.response["delegation_edge_id"], *copy.id);
    assert_eq!(copy.parent.as_ref(), Some(&held.id));
    assert_eq!((copy.expires_at, &copy.scopes), (held.expires_at, &held.scopes));
    assert_eq!(copy.constraints.max_hops, Some(1));
    assert_eq!(bench.state.lineage(ZONE, &copy.id, bench.now()).unwrap().len(), 2, "one hop left: mints");
    let grandchild = bench.child(&child.session).await.delegation.unwrap();
    assert_eq!(grandchild.constraints.max_hops, Some(0));
    assert!(bench.state.lineage(ZONE, &grandchild.id, bench.now()).is_none(), "held, but mints nothing");
    assert_eq!(
        bench
            .child(&bench.state.session(ZONE, &grandchild.target_session).unwrap())
            .await
            .delegation
            .unwrap()
            .constraints
            .max_hops,
        Some(0)
    );
    let alone = StartSession { parent_authority: ParentAuthority::None, ..under(&parent) };
    assert!(bench.start(alone).await.delegation.is_none());
}

#[tokio::test]
async fn inheriting_needs_exactly_one_live_delegation() {
    let bench = Bench::new().await;
    let (giver, parent) = (bench.session("app").await, bench.session("app").await);
    let first = bench.delegate(seconds(delegate(&giver, &parent), 60)).await;
    let second = bench.delegate(delegate(&giver, &parent)).await;
    assert_eq!(code(&bench.refused(under(&parent)).await), (409, "inherit_parent_edge_ambiguous"));
    let named = StartSession { inherit_edge: Some(Arc::clone(&first.id)), ..under(&parent) };
    assert_eq!(bench.start(named.clone()).await.delegation.unwrap().parent, Some(first.id.clone()));
    bench.pass(MINUTE);
    assert_eq!(bench.child(&parent).await.delegation.unwrap().parent, Some(second.id.clone()), "one is left");
    assert_eq!(code(&bench.refused(named).await), (409, "inherit_parent_edge_not_active"));
    bench.pass(10 * MINUTE);
    assert_eq!(code(&bench.refused(under(&parent)).await), (409, "inherit_parent_edge_not_active"));
}
