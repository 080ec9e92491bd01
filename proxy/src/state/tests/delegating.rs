use super::*;

#[tokio::test]
async fn a_delegation_answers_with_the_contracts_members_and_leaves_the_epoch() {
    let bench = Bench::new().await;
    let (giver, taker) = (bench.session("app").await, bench.session("other").await);
    let request = CreateDelegation { resource: Some("row-a".into()), ..delegate(&giver, &taker) };
    let made = bench.state.create_delegation(request, &Catalog).await.unwrap();
    let edge = &made.delegation;
    assert_eq!(
        made.response,
        json!({
            "delegation_edge_id": edge.id, "zone_id": "z", "source_session_id": giver.id,
            "target_session_id": taker.id, "issuer_application_id": "app", "receiver_application_id": "other",
            "parent_edge_id": null, "resource_id": "row-a", "scopes": ["a:read"],
            "constraints_json": {"max_hops": 3, "ttl_seconds": 600}, "status": "active",
            "expires_at": "2026-09-21T14:23:20.000Z", "edge_version": 1, "revoked_at": null,
            "created_at": "2026-09-21T14:13:20.000Z", "warnings": [],
            "allow_reason": ["same_zone_endpoints_active", "resource_scope_checked", "source_authority_root",
                "typed_constraints_validated"],
            "effective_authority": {
                "source_session_id": giver.id, "target_session_id": taker.id, "parent_edge_id": null,
                "resource_id": "row-a", "resources": ["resource://a"], "scopes": ["a:read"],
                "expires_at": "2026-09-21T14:23:20.000Z", "max_hops": 3, "ttl_seconds": 600, "broad": false,
                "parent_edges_considered": [],
            },
        })
    );
    assert_eq!(bench.state.graph_epoch(ZONE), 0);
    assert_eq!(bench.state.lineage(ZONE, &edge.id, bench.now()).unwrap().len(), 1);
}

#[tokio::test]
async fn the_checks_before_the_zone_is_looked_at() {
    let bench = Bench::new().await;
    let (giver, taker) = (bench.session("app").await, bench.session("app").await);
    let base = || delegate(&giver, &taker);
    let refused = bench.not_delegated(CreateDelegation { ttl_seconds: None, ..base() }).await;
    assert_eq!(code(&refused), (400, "delegation_expiry_required"));
    let refused = bench.not_delegated(CreateDelegation { caller: caller("other"), ..base() }).await;
    assert_eq!(code(&refused), (403, "issuer_ownership_required"));
    let refused = bench.not_delegated(delegate(&giver, &giver)).await;
    assert_eq!(code(&refused), (400, "self_delegation_denied"));
    let broad = CreateDelegation { resource: None, ..base() };
    let refused = bench.not_delegated(broad.clone()).await;
    assert_eq!(code(&refused), (403, "broad_delegation_permission_required"));
    let allowed = CreateDelegation {
        caller: caller_with("app", &["coordinator.delegate_broad:app"]),
        scopes: scopes(&["anything"]),
        ..broad
    };
    let made = bench.state.create_delegation(allowed, &Catalog).await.unwrap();
    assert_eq!(made.response["warnings"], json!(["resource_null_delegation_broadens_resource_matching"]));
    assert_eq!(made.response["allow_reason"][1], "broad_delegation_elevated");
    assert_eq!(made.delegation.constraints.broad_reason.as_deref(), Some("resource_null_delegation"));
    assert_eq!(made.delegation.constraints.policy_approved, Some(true));
}

#[tokio::test]
async fn endpoints_resources_and_scopes_are_checked_in_order() {
    let bench = Bench::new().await;
    let (giver, taker) = (bench.session("app").await, bench.session("other").await);
    let base = || delegate(&giver, &taker);
    let refused = bench.not_delegated(CreateDelegation { target_session: "nobody".into(), ..base() }).await;
    assert_eq!(code(&refused), (404, "delegation_endpoint_not_found"));
    let wrong = CreateDelegation { receiver_application: "app".into(), ..base() };
    assert_eq!(code(&bench.not_delegated(wrong).await), (409, "delegation_application_mismatch"));
    let refused = bench.not_delegated(CreateDelegation { resource: Some("nothing".into()), ..base() }).await;
    assert_eq!(code(&refused), (404, "resource_not_found"));
    let only = |names: &[&str]| Constraints { resources: scopes(names), ..Constraints::default() };
    let refused = bench.not_delegated(CreateDelegation { constraints: only(&["nothing"]), ..base() }).await;
    assert_eq!(code(&refused), (404, "resource_not_found"));
    let refused = bench.not_delegated(CreateDelegation { constraints: only(&["row-b"]), ..base() }).await;
    assert_eq!(code(&refused), (400, "delegation_resource_scope_mismatch"));
    let both = only(&["resource://a", "resource://b"]);
    let lent = CreateDelegation { constraints: both, scopes: scopes(&["b:read"]), ..base() };
    assert_eq!(code(&bench.not_delegated(lent.clone()).await), (403, "delegation_scopes_exceed_resource"));
    bench.delegate(CreateDelegation { resource: None, ..lent }).await;
    let refused = bench.not_delegated(CreateDelegation { scopes: scopes(&["b:read"]), ..base() }).await;
    assert_eq!(code(&refused), (403, "delegation_scopes_exceed_resource"));
    let past = CreateDelegation { expires_at: Some(bench.now()), ..base() };
    assert_eq!(code(&bench.not_delegated(past).await), (400, "delegation_expired"));
}

#[tokio::test]
async fn a_parent_must_be_live_and_unambiguous() {
    let bench = Bench::new().await;
    let (top, middle, leaf) =
        (bench.session("app").await, bench.session("app").await, bench.session("app").await);
    let nothing = CreateDelegation { parent: Some("nobody".into()), ..delegate(&middle, &leaf) };
    assert_eq!(code(&bench.not_delegated(nothing.clone()).await), (403, "parent_delegation_not_active"));
    let first = bench.delegate(delegate(&top, &middle)).await;
    assert_eq!(code(&bench.not_delegated(nothing).await), (403, "parent_delegation_not_active"));
    bench.delegate(delegate(&top, &middle)).await;
    let next = || seconds(hops(delegate(&middle, &leaf), 2), 60);
    assert_eq!(code(&bench.not_delegated(next()).await), (409, "parent_delegation_ambiguous"));
    let named = CreateDelegation { parent: Some(Arc::clone(&first.id)), ..next() };
    let made = bench.state.create_delegation(named, &Catalog).await.unwrap();
    assert_eq!(made.response["allow_reason"][2], "parent_authority_narrowed");
    assert_eq!(made.response["effective_authority"]["parent_edges_considered"].as_array().unwrap().len(), 2);
    let chain = bench.state.lineage(ZONE, &made.delegation.id, bench.now()).unwrap();
    assert_eq!(chain.iter().map(|edge| &edge.id).collect::<Vec<_>>(), [&first.id, &made.delegation.id]);
}

#[tokio::test]
async fn a_child_must_be_narrower_in_every_respect() {
    let bench = Bench::new().await;
    let (top, middle, leaf) =
        (bench.session("app").await, bench.session("app").await, bench.session("app").await);
    let parent = CreateDelegation {
        scopes: scopes(&["a:read", "shared"]),
        constraints: Constraints { max_hops: Some(3), budget: Some(1), ..Constraints::default() },
        ..delegate(&top, &middle)
    };
    let parent = bench.delegate(parent).await;
    let child = || seconds(hops(delegate(&middle, &leaf), 2), 60);
    let with = |constraints: Constraints| CreateDelegation { constraints, ..child() };
    let hopped = || child().constraints;
    let wider = [
        ("scope", CreateDelegation { scopes: scopes(&["a:write"]), ..child() }),
        ("expiry", CreateDelegation { expires_at: Some(parent.expires_at + 1), ..child() }),
        (
            "resource",
            CreateDelegation {
                resource: Some("resource://b".into()),
                scopes: scopes(&["shared"]),
                ..child()
            },
        ),
        ("hops", hops(child(), 3)),
        ("ttl", seconds(child(), 601)),
        ("no ttl", CreateDelegation { ttl_seconds: None, expires_at: Some(bench.now() + 1), ..child() }),
        ("scopes over budget", CreateDelegation { scopes: scopes(&["a:read", "shared"]), ..child() }),
        ("budget", with(Constraints { budget: Some(2), ..hopped() })),
    ];
    for (respect, request) in wider {
        let refused = bench.not_delegated(request).await;
        assert_eq!(code(&refused), (403, "delegation_exceeds_parent_authority"), "{respect}");
    }
    bench.pass(1);
    let late = bench.not_delegated(seconds(child(), 600)).await;
    assert_eq!(code(&late), (403, "delegation_exceeds_parent_authority"), "as long, but begun later");
    let only = CreateDelegation {
        resource: None,
        constraints: Constraints { resources: scopes(&["row-a"]), ..hopped() },
        ..child()
    };
    bench.delegate(only).await;
}

#[tokio::test]
async fn a_parent_with_a_list_of_resources_keeps_children_inside_it() {
    let bench = Bench::new().await;
    let (top, middle, leaf) =
        (bench.session("app").await, bench.session("app").await, bench.session("app").await);
    let listed =
        Constraints { resources: scopes(&["resource://a"]), max_hops: Some(3), ..Default::default() };
    let parent = CreateDelegation {
        resource: None,
        constraints: listed,
        scopes: scopes(&["shared"]),
        ..delegate(&top, &middle)
    };
    bench.delegate(parent).await;
    let child =
        || CreateDelegation { scopes: scopes(&["shared"]), ..seconds(hops(delegate(&middle, &leaf), 2), 60) };
    let other = CreateDelegation { resource: Some("row-b".into()), ..child() };
    let refused = bench.not_delegated(other).await;
    assert_eq!(code(&refused), (403, "delegation_exceeds_parent_authority"));
    let broad =
        CreateDelegation { resource: None, caller: caller_with("app", &["coordinator.admin"]), ..child() };
    let refused = bench.not_delegated(broad).await;
    assert_eq!(code(&refused), (403, "delegation_exceeds_parent_authority"), "naming none names all");
    bench.delegate(child()).await;
}

#[tokio::test]
async fn hops_count_edges_from_the_top_and_both_readings_of_the_recipe_mint() {
    let bench = Bench::new().await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(bench.session("app").await);
    }
    let root = bench.delegate(hops(delegate(&sessions[0], &sessions[1]), 3)).await;
    let next = bench.delegate(seconds(hops(delegate(&sessions[1], &sessions[2]), 2), 500)).await;
    let chain = bench.state.lineage(ZONE, &next.id, bench.now()).unwrap();
    assert_eq!(chain.len(), 2, "root 3, next 2: allowed whether the root's or the leaf's hops are counted");
    assert_eq!(chain[0].id, root.id);
    let last = bench.delegate(seconds(hops(delegate(&sessions[2], &sessions[3]), 1), 400)).await;
    assert_eq!(bench.state.lineage(ZONE, &last.id, bench.now()).unwrap().len(), 3);
    let further = bench.session("app").await;
    let refused = bench.not_delegated(seconds(hops(delegate(&sessions[3], &further), 1), 300)).await;
    assert_eq!(code(&refused), (403, "delegation_exceeds_parent_authority"), "no hop left");
    let unsaid = CreateDelegation { constraints: Constraints::default(), ..delegate(&further, &sessions[0]) };
    let single = bench.delegate(unsaid).await;
    assert_eq!(bench.state.lineage(ZONE, &single.id, bench.now()).unwrap().len(), 1, "one hop when unsaid");
}

#[tokio::test]
async fn rings_are_refused_even_when_both_halves_are_on_their_way() {
    let bench = Bench::new().await;
    let mut ring = Vec::new();
    for _ in 0..3 {
        ring.push(bench.session("app").await);
    }
    bench.delegate(hops(delegate(&ring[0], &ring[1]), 10)).await;
    bench.delegate(seconds(hops(delegate(&ring[1], &ring[2]), 9), 500)).await;
    let closing = seconds(hops(delegate(&ring[2], &ring[0]), 8), 400);
    assert_eq!(code(&bench.not_delegated(closing).await), (409, "delegation_cycle_denied"));
    let (left, right) = (bench.session("app").await, bench.session("app").await);
    let (one, two) = tokio::join!(
        bench.state.create_delegation(delegate(&left, &right), &Catalog),
        bench.state.create_delegation(delegate(&right, &left), &Catalog)
    );
    assert!(one.is_ok() != two.is_ok());
}

#[tokio::test]
async fn revoking_walks_downstream_and_ends_who_received() {
    let bench = Bench::new().await;
    let (top, middle, leaf) =
        (bench.session("app").await, bench.session("other").await, bench.session("app").await);
    let first = bench.delegate(delegate(&top, &middle)).await;
    let second = bench.delegate(seconds(hops(delegate(&middle, &leaf), 2), 60)).await;
    let below = bench.child(&leaf).await;
    let copy = below.delegation.unwrap();
    let refused = bench.state.revoke_delegation(ZONE, &first.id, &caller("other")).await.unwrap_err();
    assert_eq!(code(&refused), (403, "issuer_ownership_required"));
    let refused = bench.state.traverse_delegation(ZONE, &first.id, &caller("app")).unwrap_err();
    assert_eq!(code(&refused), (403, "coordinator_admin_required"));
    let walk = bench.state.traverse_delegation(ZONE, &first.id, &Caller::Operator).unwrap();
    let depths: Vec<_> = walk.iter().map(|reach| (reach.delegation.id.clone(), reach.depth)).collect();
    assert_eq!(depths, [(first.id.clone(), 0), (second.id.clone(), 1), (copy.id.clone(), 2)]);
    assert_eq!(walk[1].to_json()["source_session_id"], *middle.id);
    let refused = bench.state.delegation_impact(ZONE, &first.id, &caller("app")).unwrap_err();
    assert_eq!(code(&refused), (403, "coordinator_admin_required"));
    let impact = bench.state.delegation_impact(ZONE, &first.id, &Caller::Operator).unwrap().to_json();
    assert_eq!(impact["affected_sessions"], json!([middle.id, leaf.id, below.session.id]));
    assert_eq!(impact["affected_authority_records"], json!(["rec-app", "rec-other"]));
    let revoked = bench.state.revoke_delegation(ZONE, &first.id, &caller("app")).await.unwrap();
    assert_eq!(
        revoked.to_json(),
        json!({"revoked_edges": 3, "affected_sessions": 3, "terminated_sessions": 3})
    );
    assert_eq!(bench.status(&top), SessionStatus::Active);
    assert_eq!(
        bench.state.session(ZONE, &leaf.id).unwrap().termination_reason.as_deref(),
        Some("delegation_revoked")
    );
    assert_eq!(bench.state.graph_epoch(ZONE), 1, "once for the whole of it");
    assert!(bench.state.lineage(ZONE, &copy.id, bench.now()).is_none());
    assert!(!bench.last_told().anchors.iter().any(|anchor| matches!(anchor, Anchor::Record(_))));
    for caller in [caller("app"), Caller::Operator] {
        let refused = bench.state.revoke_delegation(ZONE, &first.id, &caller).await.unwrap_err();
        assert_eq!(code(&refused), (404, "delegation_not_found"));
    }
    let refused = bench.state.traverse_delegation(ZONE, &first.id, &Caller::Operator).unwrap_err();
    assert_eq!(code(&refused), (404, "delegation_not_found"));
}

#[tokio::test]
async fn a_lineage_stands_only_while_all_of_it_does() {
    let bench = Bench::new().await;
    let (top, middle, leaf) =
        (bench.session("app").await, bench.session("other").await, bench.session("app").await);
    bench.delegate(delegate(&top, &middle)).await;
    let last = bench.delegate(seconds(hops(delegate(&middle, &leaf), 2), 60)).await;
    let stands = || bench.state.lineage(ZONE, &last.id, bench.now()).is_some();
    assert!(stands());
    bench.state.suspend_session(ZONE, &top.id, &Caller::Operator).await.unwrap();
    assert!(!stands(), "the giver at the top is suspended");
    bench.state.resume_session(ZONE, &top.id, &Caller::Operator).await.unwrap();
    assert!(stands());
    assert!(bench.state.lineage(ZONE, &last.id, bench.now() + MINUTE).is_none(), "expired");
    assert!(bench.state.lineage(ZONE, "nobody", bench.now()).is_none());
    bench.revoke(application("other", Extent::Cut)).await;
    assert!(!stands(), "the application in the middle was cut off");
}
