use super::*;

const KEEP: i64 = START + 60 * MINUTE;

#[tokio::test]
async fn a_clean_stop_keeps_marks_passing_records_and_the_epoch() {
    let bench = Bench::new().await;
    let epoch = bench.state.epoch().to_owned();
    bench.state.use_once(ZONE, "jti", "app", KEEP).unwrap();
    bench.state.remember_record(record("passing", "app", RecordKind::Application, bench.now()));
    let bench = bench.restart().await;
    assert_ne!(bench.state.epoch(), epoch, "every start has an epoch of its own");
    assert!(bench.state.accepts_epoch(&epoch) && bench.state.accepts_epoch(bench.state.epoch()));
    assert!(!bench.state.accepts_epoch("another"));
    assert_eq!(bench.state.use_once(ZONE, "jti", "app", KEEP), Err(MarkError::Replayed));
    bench.state.use_once(ZONE, "unused", "app", KEEP).unwrap();
    assert!(bench.state.live_record(ZONE, "rec-passing", bench.now()).is_some());
    let bench = bench.restart().await;
    assert!(bench.state.accepts_epoch(&epoch), "handed on as long as a mandate of it may live");
    bench.pass(61 * MINUTE);
    assert!(!bench.state.accepts_epoch(&epoch));
}

#[tokio::test]
async fn after_a_crash_the_old_epoch_is_refused_and_every_acknowledged_row_is_there() {
    let bench = Bench::new().await;
    let epoch = bench.state.epoch().to_owned();
    bench.state.use_once(ZONE, "jti", "app", KEEP).unwrap();
    bench.state.remember_record(record("passing", "app", RecordKind::Application, bench.now()));
    let root = bench.session("app").await;
    let service = bench.service("other").await;
    let edge = bench.delegate(delegate(&root, &service)).await;
    let gone = bench.session("app").await;
    bench.state.end_session(ZONE, &gone.id, &caller("app"), None, "done").await.unwrap();
    bench.state.suspend_session(ZONE, &root.id, &caller("app")).await.unwrap();
    let before = [&root, &service, &gone].map(|row| bench.state.session(ZONE, &row.id).unwrap());
    let bench = bench.crash().await;
    assert!(!bench.state.accepts_epoch(&epoch));
    assert!(bench.state.record(ZONE, "rec-passing").is_none(), "unknown, and so denied");
    for row in before {
        assert_eq!(*bench.state.session(ZONE, &row.id).unwrap(), *row);
    }
    assert_eq!(*bench.state.delegation(ZONE, &edge.id).unwrap(), *edge);
    bench.state.resume_session(ZONE, &root.id, &caller("app")).await.unwrap();
    assert!(bench.state.lineage(ZONE, &edge.id, bench.now()).is_some());
    assert_eq!(bench.state.use_once(ZONE, "jti", "app", KEEP), Ok(()), "the epoch refuses it, not the mark");
}

#[tokio::test]
async fn a_crash_after_a_restart_forgets_what_the_clean_stop_had_saved() {
    let bench = Bench::new().await;
    let epoch = bench.state.epoch().to_owned();
    let bench = bench.restart().await;
    assert!(!bench.folder().join("clean-stop.json").exists(), "used up before anything is accepted");
    let bench = bench.crash().await;
    assert!(!bench.state.accepts_epoch(&epoch));
}

#[tokio::test]
async fn a_clean_stop_file_brought_back_is_worth_nothing() {
    let bench = Bench::new().await;
    let epoch = bench.state.epoch().to_owned();
    bench.state.close().await.unwrap();
    let Bench { dir, clock, shared, .. } = bench;
    let file = dir.path().join("state/clean-stop.json");
    let saved = std::fs::read(&file).unwrap();
    let bench = Bench::open_again(dir, clock, shared).await;
    assert!(bench.state.accepts_epoch(&epoch));
    std::fs::write(&file, saved).unwrap();
    let bench = bench.crash().await;
    assert!(!bench.state.accepts_epoch(&epoch));
    assert!(!file.exists());
}

#[tokio::test]
async fn a_broken_clean_stop_file_only_means_that_less_is_accepted() {
    let bench = Bench::new().await;
    let epoch = bench.state.epoch().to_owned();
    bench.state.close().await.unwrap();
    let Bench { dir, clock, shared, .. } = bench;
    std::fs::write(dir.path().join("state/clean-stop.json"), "{\"schema\":1").unwrap();
    let bench = Bench::open_again(dir, clock, shared).await;
    assert!(!bench.state.accepts_epoch(&epoch));
}

#[tokio::test]
async fn a_closed_state_takes_nothing_any_more() {
    let bench = Bench::new().await;
    bench.state.close().await.unwrap();
    assert_eq!(bench.state.use_once(ZONE, "jti", "app", KEEP), Err(MarkError::Stopping));
    assert_eq!(code(&bench.refused(start("app")).await), (503, "state_unavailable"));
    assert!(matches!(bench.state.close().await, Err(StateError::Closed)));
    assert!(matches!(bench.state.freeze(ZONE).await, Err(StateError::Closed)));
    assert!(bench.state.frozen(ZONE), "in force all the same");
}

#[tokio::test]
async fn a_second_process_is_refused_while_the_first_has_the_folder() {
    let bench = Bench::new().await;
    let second = State::open(&bench.folder(), bench.clock.clone(), StateLimits::default()).await;
    assert!(matches!(second, Err(StateError::Locked(_))));
    bench.restart().await;
}

#[tokio::test]
async fn a_folder_others_may_enter_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let open = || State::open(dir.path(), Clock::manual(START), StateLimits::default());
    for mode in [0o750, 0o701, 0o777] {
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let refused = open().await.unwrap_err();
        assert!(matches!(&refused, StateError::Folder { .. }), "{mode:o}");
        assert!(refused.to_string().contains(&format!("{mode:04o}")));
    }
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    open().await.unwrap();
    for file in ["state.db", "state.lock"] {
        let mode = std::fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn heads_of_the_ledger_are_read_back() {
    let bench = Bench::new().await;
    assert!(bench.state.stored_heads().is_empty());
    let heads = [("b".to_owned(), 3, "bb".to_owned()), ("a".to_owned(), 1, "aa".to_owned())];
    bench.state.store_heads(&heads).await.unwrap();
    bench.state.store_heads(&[("b".to_owned(), 4, "cc".to_owned())]).await.unwrap();
    let bench = bench.crash().await;
    let expected = [("a".to_owned(), 1, "aa".to_owned()), ("b".to_owned(), 4, "cc".to_owned())];
    assert_eq!(bench.state.stored_heads(), expected);
}

#[tokio::test]
async fn how_far_sinks_have_come_is_read_back_once_and_forgotten_with_them() {
    let bench = Bench::new().await;
    let row = |sink: &str, body: &str| ("z".to_owned(), sink.to_owned(), body.to_owned());
    assert!(bench.state.take_stored_cursors().is_empty());
    bench.state.store_cursors(vec![row("a", "1"), row("b", "1")], Vec::new()).await.unwrap();
    bench.state.store_cursors(vec![row("b", "2")], vec![("z".to_owned(), "a".to_owned())]).await.unwrap();
    let bench = bench.crash().await;
    assert_eq!(bench.state.take_stored_cursors(), [row("b", "2")]);
    assert!(bench.state.take_stored_cursors().is_empty());
}

#[tokio::test]
async fn who_could_ask_is_read_back_once() {
    let bench = Bench::new().await;
    let one = |application: &str, secret: &str| Identity {
        zone: "z".into(),
        application: application.into(),
        secret: secret.into(),
    };
    assert!(bench.state.take_stored_identities().is_empty());
    bench.state.store_identities(vec![one("a", ""), one("a", "s"), one("b", "")], Vec::new()).await.unwrap();
    bench.state.store_identities(vec![one("b", "")], vec![one("a", "s")]).await.unwrap();
    let bench = bench.crash().await;
    assert_eq!(bench.state.take_stored_identities(), [one("a", ""), one("b", "")]);
    assert!(bench.state.take_stored_identities().is_empty());
}
