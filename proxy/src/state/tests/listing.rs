use super::*;

fn page(limit: usize, cursor: Option<&str>) -> PageRequest {
    PageRequest { limit, cursor: cursor.map(str::to_owned) }
}

fn all() -> PageRequest {
    page(500, None)
}

#[tokio::test]
async fn lists_run_newest_first_in_pages_and_show_an_application_only_its_own() {
    let bench = Bench::new().await;
    let mut own = Vec::new();
    for _ in 0..3 {
        own.push(bench.session("app").await.id.clone());
        bench.session("other").await;
        bench.pass(1);
    }
    let list = |who: &Caller, page: &PageRequest| {
        bench.state.list_sessions(ZONE, who, &SessionFilter::default(), page)
    };
    assert_eq!(list(&Caller::Operator, &all()).unwrap().items.len(), 6);
    let first = list(&caller("app"), &page(2, None)).unwrap();
    let ids: Vec<_> = first.items.iter().map(|row| row.id.clone()).collect();
    assert_eq!(ids, [own[2].clone(), own[1].clone()]);
    assert_eq!(first.next_cursor.as_ref(), Some(&own[1]));
    let rest = list(&caller("app"), &page(2, Some(&own[1]))).unwrap();
    assert_eq!((rest.items.len(), rest.next_cursor), (1, None));
    for cursor in ["nobody", &own[0]] {
        let refused = list(&caller("other"), &page(2, Some(cursor))).unwrap_err();
        assert_eq!(code(&refused), (400, "invalid_cursor"), "a stranger's row is no cursor");
    }
    let elsewhere =
        bench.state.list_sessions("nowhere", &Caller::Operator, &SessionFilter::default(), &all());
    assert!(elsewhere.unwrap().items.is_empty());
}

#[tokio::test]
async fn filters_narrow_a_list() {
    let bench = Bench::new().await;
    let blue = bench.start(StartSession { labels: scopes(&["blue"]), ..start("app") }).await.session;
    let service = bench.service("other").await;
    let gone = bench.session("app").await;
    bench.state.end_session(ZONE, &gone.id, &caller("app"), None, "done").await.unwrap();
    let find = |filter: SessionFilter| {
        let found = bench.state.list_sessions(ZONE, &Caller::Operator, &filter, &all()).unwrap();
        found.items.into_iter().map(|row| row.id.clone()).collect::<Vec<_>>()
    };
    let none = SessionFilter::default;
    assert_eq!(find(SessionFilter { label: Some("blue".into()), ..none() }), std::slice::from_ref(&blue.id));
    assert_eq!(
        find(SessionFilter { lifecycle: Some(Lifecycle::Service), ..none() }),
        std::slice::from_ref(&service.id)
    );
    assert_eq!(
        find(SessionFilter { status: Some(SessionStatus::Terminated), ..none() }),
        std::slice::from_ref(&gone.id)
    );
    assert_eq!(
        find(SessionFilter { application: Some("other".into()), ..none() }),
        std::slice::from_ref(&service.id)
    );
}

#[tokio::test]
async fn single_reads_and_children_hide_what_belongs_to_others() {
    let bench = Bench::new().await;
    let parent = bench.session("app").await;
    let child = bench.child(&parent).await.session;
    let guest = StartSession {
        caller: caller_with("other", &["coordinator.spawn_under:app"]),
        parent: Some(Arc::clone(&parent.id)),
        ..start("other")
    };
    bench.start(guest).await;
    let refused = bench.state.read_session(ZONE, &parent.id, &caller("other")).unwrap_err();
    assert_eq!(code(&refused), (404, "session_not_found"));
    assert_eq!(bench.state.read_session(ZONE, &parent.id, &caller("app")).unwrap().id, parent.id);
    let own = bench.state.list_children(ZONE, &parent.id, &caller("app"), &all()).unwrap();
    assert_eq!(own.items.iter().map(|row| &row.id).collect::<Vec<_>>(), [&child.id]);
    assert!(own.items[0].to_child_json().get("terminated_at").is_none());
    let every = bench.state.list_children(ZONE, &parent.id, &Caller::Operator, &all()).unwrap();
    assert_eq!(every.items.len(), 2);
    let refused = bench.state.list_children(ZONE, "nobody", &Caller::Operator, &all()).unwrap_err();
    assert_eq!(code(&refused), (404, "session_not_found"));
}

#[tokio::test]
async fn delegations_are_listed_by_side_and_read_while_they_live() {
    let bench = Bench::new().await;
    let (giver, taker) = (bench.session("app").await, bench.session("other").await);
    let edge = bench.delegate(delegate(&giver, &taker)).await;
    let state = &bench.state;
    let inbound = state.list_inbound(ZONE, &taker.id, &caller("other"), &all()).unwrap();
    assert_eq!(inbound.items[0].to_json()["id"], *edge.id);
    let outbound = state.list_outbound(ZONE, &giver.id, &caller("app"), &all()).unwrap();
    assert_eq!(outbound.items[0].to_json()["status"], "active");
    let refused = state.list_inbound(ZONE, &taker.id, &caller("app"), &all()).unwrap_err();
    assert_eq!(code(&refused), (404, "session_not_found"), "not the caller's session");
    let active = state.list_active_delegations(ZONE, &caller("other"), &all()).unwrap();
    assert!(active.items[0].to_active_json()["broad_reason"].is_null());
    assert_eq!(state.read_inbound(ZONE, &taker.id, &edge.id, &caller("other")).unwrap().id, edge.id);
    for (session, who) in [(&giver.id, "other"), (&taker.id, "app")] {
        let refused = state.read_inbound(ZONE, session, &edge.id, &caller(who)).unwrap_err();
        assert_eq!(code(&refused), (404, "delegation_not_found"));
    }
    bench.pass(10 * MINUTE);
    let refused = state.read_inbound(ZONE, &taker.id, &edge.id, &caller("other")).unwrap_err();
    assert_eq!(code(&refused), (404, "delegation_not_found"), "expired");
    assert!(state.list_active_delegations(ZONE, &Caller::Operator, &all()).unwrap().items.is_empty());
    let kept = state.list_inbound(ZONE, &taker.id, &Caller::Operator, &all()).unwrap();
    assert_eq!(kept.items[0].status, DelegationStatus::Expired, "closed ones stay listed");
}

#[tokio::test]
async fn effective_authority_is_what_all_inbound_delegations_share() {
    let bench = Bench::new().await;
    let (giver, taker) = (bench.session("app").await, bench.session("app").await);
    let read = || bench.state.effective_authority(ZONE, &taker.id, &caller("app"), &Catalog).unwrap();
    let bare = read();
    assert_eq!(bare["effective_max_hops"], 0);
    assert!(bare.get("effective_resource_ids").is_none() && bare["earliest_expires_at"].is_null());
    let wide = CreateDelegation { scopes: scopes(&["shared", "a:read"]), ..delegate(&giver, &taker) };
    let wide = bench.delegate(wide).await;
    let both = Constraints {
        resources: scopes(&["resource://b", "row-a"]),
        max_hops: Some(2),
        ..Constraints::default()
    };
    let narrow = CreateDelegation {
        resource: None,
        constraints: both,
        scopes: scopes(&["shared", "b:read"]),
        ttl_seconds: Some(60),
        ..delegate(&giver, &taker)
    };
    let narrow = bench.delegate(narrow).await;
    let effective = read();
    let mut edges = vec![wide.id.to_string(), narrow.id.to_string()];
    edges.sort();
    assert_eq!(effective["inbound_edges"], json!(edges));
    assert_eq!(effective["effective_scopes"], json!(["shared"]));
    assert_eq!(effective["effective_resource_ids"], json!(["row-a"]));
    assert_eq!(effective["effective_resources"], json!(["resource://a"]));
    assert_eq!(effective["effective_resource_constrained"], true);
    assert_eq!(effective["effective_max_hops"], 2);
    assert_eq!(effective["effective_ttl_seconds"], 60);
    assert_eq!(effective["earliest_expires_at"], iso(narrow.expires_at));
    let refused = bench.state.effective_authority(ZONE, &taker.id, &caller("other"), &Catalog).unwrap_err();
    assert_eq!(code(&refused), (404, "session_not_found"));
}
