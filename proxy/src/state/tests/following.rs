//! What another node said.

use super::*;

#[tokio::test]
async fn what_others_say_is_told_as_theirs_and_never_raises_the_epoch_again() {
    let bench = Bench::new().await;
    bench.state.follow(ZONE, &Heard::GraphEpoch(7));
    bench.state.follow(ZONE, &Heard::GraphEpoch(3));
    assert_eq!(bench.state.graph_epoch(ZONE), 7, "an epoch never falls");
    for anchor in [Anchor::Session("s".into()), Anchor::Delegation("d".into()), Anchor::Record("r".into())] {
        bench.state.follow(ZONE, &Heard::Ended(anchor.clone()));
        let told = bench.last_told();
        assert_eq!((told.anchors, told.origin), (vec![anchor], Origin::Elsewhere));
    }
    assert_eq!(bench.state.graph_epoch(ZONE), 7);
}

#[tokio::test]
async fn a_stop_is_followed_once_and_a_cut_never_moves_back() {
    let bench = Bench::new().await;
    bench.state.follow(ZONE, &Heard::Frozen);
    assert!(bench.state.frozen(ZONE));
    let told = bench.told.lock().len();
    bench.state.follow(ZONE, &Heard::Frozen);
    assert_eq!(bench.told.lock().len(), told, "it is stopped already");
    let stopped = |cut_at, blocked| Heard::Application { application: "app".into(), cut_at, blocked };
    bench.state.follow(ZONE, &stopped(20, true));
    bench.state.follow(ZONE, &stopped(10, false));
    assert_eq!(bench.state.application_cut(ZONE, "app"), Some(20));
    assert!(bench.state.application_blocked(ZONE, "app"));
}
