//! Whatever two nodes do at the same time, they agree on it, and so does one that reads all of it anew.

use std::cell::Cell;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::task::JoinSet;

use super::*;

/// One step of a run on two nodes. Numbers choose among what exists.
#[derive(Clone, Debug)]
enum Step {
    Start,
    Child(usize),
    Suspend(usize),
    Resume(usize),
    End(usize),
    Delegate(usize, usize),
    TakeBack(usize),
    Freeze,
    Unfreeze,
    Block,
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Start),
        3 => any::<usize>().prop_map(Step::Child),
        2 => any::<usize>().prop_map(Step::Suspend),
        2 => any::<usize>().prop_map(Step::Resume),
        1 => any::<usize>().prop_map(Step::End),
        3 => (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Step::Delegate(a, b)),
        1 => any::<usize>().prop_map(Step::TakeBack),
        1 => Just(Step::Freeze),
        2 => Just(Step::Unfreeze),
        1 => Just(Step::Block),
        2 => Just(Step::Restore),
    ]
}

async fn take(node: &State, step: Step, sessions: &Mutex<Vec<Arc<Session>>>, edges: &Mutex<Vec<Arc<str>>>) {
    let nth = |n: usize| {
        let sessions = sessions.lock();
        (!sessions.is_empty()).then(|| Arc::clone(&sessions[n % sessions.len()]))
    };
    // What is refused is refused: only where the two end up matters.
    match step {
        Step::Start => {
            let application = if sessions.lock().len().is_multiple_of(2) { "app" } else { "other" };
            let started = node.start_session(start(application)).await;
            sessions.lock().extend(started.map(|started| started.session));
        }
        Step::Child(n) => {
            let Some(parent) = nth(n) else { return };
            let started = node.start_session(under(&parent)).await;
            sessions.lock().extend(started.map(|started| started.session));
        }
        Step::Suspend(n) => {
            let Some(session) = nth(n) else { return };
            drop(node.suspend_session(ZONE, &session.id, &Caller::Operator).await);
        }
        Step::Resume(n) => {
            let Some(session) = nth(n) else { return };
            drop(node.resume_session(ZONE, &session.id, &Caller::Operator).await);
        }
        Step::End(n) => {
            let Some(session) = nth(n) else { return };
            drop(end(node, &session).await);
        }
        Step::Delegate(one, two) => {
            let (Some(one), Some(two)) = (nth(one), nth(two)) else { return };
            let made = node.create_delegation(delegate(&one, &two), &Catalog).await;
            edges.lock().extend(made.map(|made| Arc::clone(&made.delegation.id)));
        }
        Step::TakeBack(n) => {
            let edge = {
                let edges = edges.lock();
                (!edges.is_empty()).then(|| Arc::clone(&edges[n % edges.len()]))
            };
            let Some(edge) = edge else { return };
            drop(node.revoke_delegation(ZONE, &edge, &Caller::Operator).await);
        }
        Step::Freeze => node.freeze(ZONE).await.unwrap(),
        Step::Unfreeze => node.unfreeze(ZONE).await.unwrap(),
        Step::Block => {
            let target = Target::Application { id: "other".into(), extent: Extent::Block };
            drop(node.revoke(ZONE, &target, "leaked").await);
        }
        Step::Restore => node.restore_application(ZONE, "other").await.unwrap(),
    }
}

#[test]
fn whatever_two_nodes_do_at_the_same_time_they_agree_on_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let pair = runtime.block_on(Pair::new());
    let runs = Cell::new(0);
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 12, max_shrink_iters: 0, ..ProptestConfig::default() });
    let steps = prop::collection::vec((any::<bool>(), step()), 40..120);
    let outcome = runner.run(&steps, |steps| {
        runs.set(runs.get() + 1);
        let name = format!("fresh-{}", runs.get());
        runtime.block_on(async {
            let (sessions, edges) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
            let mut tasks = JoinSet::new();
            for chunk in steps.chunks(steps.len().div_ceil(6)) {
                let (chunk, nodes) = (chunk.to_vec(), pair.nodes.clone());
                let (sessions, edges) = (Arc::clone(&sessions), Arc::clone(&edges));
                tasks.spawn(async move {
                    for (first, step) in chunk {
                        take(&nodes[usize::from(first)], step, &sessions, &edges).await;
                    }
                });
            }
            tasks.join_all().await;
            pair.clock.advance(Duration::from_millis(1));
            // Once to learn, once for what followed from it, once for what was given back and not believed yet.
            for _ in 0..3 {
                pair.both().await;
            }
            let (a, b) = (seen(&pair.nodes[0]), seen(&pair.nodes[1]));
            let fresh = pair.fresh(&name).await;
            let c = seen(&fresh);
            fresh.close().await.unwrap();
            prop_assert_eq!(&a, &b);
            prop_assert_eq!(&a, &c);
            Ok(())
        })
    });
    outcome.unwrap();
}
