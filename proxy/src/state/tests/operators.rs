use super::*;

#[tokio::test]
async fn a_freeze_stops_the_zone_at_once_and_lasts_until_unfrozen() {
    let bench = Bench::new().await;
    let session = bench.session("app").await;
    bench.state.freeze(ZONE).await.unwrap();
    assert!(bench.state.frozen(ZONE) && !bench.state.frozen("elsewhere"));
    assert_eq!(bench.last_told().anchors, [Anchor::Zone]);
    assert_eq!(code(&bench.refused(start("app")).await), (403, "zone_frozen"));
    let refused = bench.not_delegated(delegate(&session, &session)).await;
    assert_eq!(code(&refused).0, 400, "shape first");
    let bench = bench.crash().await;
    assert!(bench.state.frozen(ZONE));
    assert_eq!(bench.state.frozen_zones(), [Arc::from(ZONE)]);
    bench.state.unfreeze(ZONE).await.unwrap();
    assert!(!bench.state.frozen(ZONE));
    bench.session("app").await;
    let bench = bench.restart().await;
    assert!(!bench.state.frozen(ZONE));
}

#[tokio::test]
async fn revoking_an_application_kills_what_is_issued_ties_included_and_blocks_more() {
    let bench = Bench::new().await;
    let session = bench.session("app").await;
    let other = bench.session("other").await;
    assert!(bench.state.live_record(ZONE, "rec-app", bench.now()).is_some());
    let ended = bench.revoke(application("app", Extent::Block)).await;
    assert_eq!(ended.sessions.len(), 1);
    assert_eq!(bench.status(&session), SessionStatus::Terminated);
    assert_eq!(bench.status(&other), SessionStatus::Active);
    assert!(bench.last_told().anchors.contains(&Anchor::Application("app".into())));
    assert_eq!(bench.state.application_cut(ZONE, "app"), Some(START));
    assert!(
        bench.state.live_record(ZONE, "rec-app", bench.now()).is_none(),
        "issued in the same millisecond"
    );
    assert!(bench.state.application_blocked(ZONE, "app"));
    assert_eq!(code(&bench.refused(start("app")).await), (404, "application_not_found"));
    let bench = bench.crash().await;
    assert!(bench.state.application_blocked(ZONE, "app"));
    assert_eq!(bench.state.application_cut(ZONE, "app"), Some(START));
    bench.state.restore_application(ZONE, "app").await.unwrap();
    assert!(!bench.state.application_blocked(ZONE, "app"));
    assert_eq!(
        code(&bench.refused(start("app")).await),
        (404, "session_not_found"),
        "the old record stays dead"
    );
    bench.pass(1);
    bench.record("fresh", "app", RecordKind::Application).await;
    let request = StartSession { subject_record: Some("rec-fresh".into()), ..start("app") };
    bench.start(request).await;
    bench.state.restore_application(ZONE, "never-revoked").await.unwrap();
    let bench = bench.restart().await;
    assert!(!bench.state.application_blocked(ZONE, "app"));
}

#[tokio::test]
async fn cutting_ends_what_exists_and_nothing_else() {
    let bench = Bench::new().await;
    let session = bench.session("app").await;
    bench.revoke(application("app", Extent::Cut)).await;
    assert_eq!(bench.status(&session), SessionStatus::Terminated);
    assert!(!bench.state.application_blocked(ZONE, "app"));
    bench.pass(1);
    bench.record("app", "app", RecordKind::Application).await;
    bench.session("app").await;
}

#[tokio::test]
async fn revoking_a_root_reaches_everything_minted_under_it() {
    let bench = Bench::new().await;
    let mut minted = record("minted", "app", RecordKind::Application, bench.now());
    minted.root = "rec-app".into();
    minted.parent = Some("rec-app".into());
    bench.state.remember_record(minted.clone());
    assert!(bench.state.live_record(ZONE, "rec-minted", bench.now()).is_some());
    let session = bench.session("app").await;
    let ended = bench.revoke(Target::Root("rec-app".into())).await;
    assert_eq!((ended.records.len(), ended.sessions.len()), (2, 1));
    assert_eq!(bench.status(&session), SessionStatus::Terminated);
    let told = bench.last_told();
    for id in ["rec-app", "rec-minted"] {
        assert!(told.anchors.contains(&Anchor::Record(id.into())));
        assert!(bench.state.record(ZONE, id).unwrap().revoked);
    }
    bench.state.remember_record(minted);
    assert!(bench.state.record(ZONE, "rec-minted").unwrap().revoked, "revoked stays revoked");
    let bench = bench.crash().await;
    assert!(bench.state.record(ZONE, "rec-app").unwrap().revoked);
}

#[tokio::test]
async fn a_record_dies_with_its_root() {
    let bench = Bench::new().await;
    let mut minted = record("minted", "app", RecordKind::Application, bench.now());
    minted.root = "rec-app".into();
    bench.state.remember_record(minted);
    bench.revoke(Target::Record("rec-app".into())).await;
    assert!(bench.state.live_record(ZONE, "rec-minted", bench.now()).is_none());
    let mut orphan = record("orphan", "app", RecordKind::Application, bench.now());
    orphan.root = "rec-lost".into();
    bench.state.remember_record(orphan);
    assert!(
        bench.state.live_record(ZONE, "rec-orphan", bench.now()).is_none(),
        "an unknown root is a dead one"
    );
}

#[tokio::test]
async fn what_is_buried_stays_buried_until_readmitted() {
    let bench = Bench::new().await;
    let buried = |bench: &Bench| bench.state.buried(TombstoneKind::SecretHash, ZONE, "sha256$x");
    bench.state.bury(TombstoneKind::SecretHash, ZONE, "sha256$x").await.unwrap();
    bench.state.bury(TombstoneKind::RevokedId, ZONE, "id").await.unwrap();
    assert!(buried(&bench));
    assert!(!bench.state.buried(TombstoneKind::RevokedId, ZONE, "sha256$x"));
    let bench = bench.crash().await;
    assert!(buried(&bench) && bench.state.buried(TombstoneKind::RevokedId, ZONE, "id"));
    bench.state.readmit(TombstoneKind::SecretHash, ZONE, "sha256$x").await.unwrap();
    assert!(!buried(&bench));
    let bench = bench.restart().await;
    assert!(!buried(&bench));
}

#[tokio::test]
async fn ending_everything_leaves_nothing_alive() {
    let bench = Bench::new().await;
    let (giver, taker) = (bench.session("app").await, bench.session("other").await);
    let edge = bench.delegate(delegate(&giver, &taker)).await;
    let ended = bench.state.end_everything("store_restored").await.unwrap();
    assert_eq!((ended.sessions.len(), ended.delegations.len(), ended.records.len()), (2, 1, 2));
    assert!(bench.state.live_delegation(ZONE, &edge.id, bench.now()).is_none());
    let bench = bench.crash().await;
    assert!(bench.state.live_session(ZONE, &giver.id, bench.now()).is_none());
    assert!(bench.state.live_record(ZONE, "rec-app", bench.now()).is_none());
}
