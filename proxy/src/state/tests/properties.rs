//! No sequence of operations yields more authority than a root handed out.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::authority::testkit::cases;

#[derive(Clone, Debug)]
enum Step {
    Start { parent: usize },
    Delegate { source: usize, target: usize, scopes: u8, hops: u32, ttl: u32 },
    Revoke { edge: usize },
    Suspend { session: usize },
    Resume { session: usize },
    End { session: usize },
    Pass { seconds: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let any = 0..8_usize;
    prop_oneof![
        3 => any.clone().prop_map(|parent| Step::Start { parent }),
        6 => (any.clone(), any.clone(), 0..8_u8, 1..5_u32, 1..400_u32).prop_map(
            |(source, target, scopes, hops, ttl)| Step::Delegate { source, target, scopes, hops, ttl }
        ),
        1 => any.clone().prop_map(|edge| Step::Revoke { edge }),
        1 => any.clone().prop_map(|session| Step::Suspend { session }),
        1 => any.clone().prop_map(|session| Step::Resume { session }),
        1 => any.prop_map(|session| Step::End { session }),
        1 => (1..60_u8).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

fn chosen(mask: u8) -> Vec<Arc<str>> {
    let all = ["a:read", "a:write", "shared"];
    let picked = all.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0);
    picked.map(|(_, scope)| Arc::from(*scope)).collect()
}

fn pick<T>(rows: &[Arc<T>], place: usize) -> &T {
    let place = place.checked_rem(rows.len()).unwrap_or_default();
    &rows[place]
}

async fn run(steps: Vec<Step>) {
    let bench = Bench::new().await;
    let (mut sessions, mut edges) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        sessions.push(bench.session("app").await);
    }
    for step in steps {
        let state = &bench.state;
        match step {
            Step::Start { parent } => {
                let request = under(pick(&sessions, parent));
                if let Ok(started) = state.start_session(request).await {
                    sessions.push(started.session);
                    edges.extend(started.delegation);
                }
            }
            Step::Delegate { source, target, scopes, hops: most, ttl } => {
                let (source, target) = (pick(&sessions, source), pick(&sessions, target));
                let request = CreateDelegation {
                    scopes: chosen(scopes),
                    ..seconds(hops(delegate(source, target), most), ttl)
                };
                edges.extend(state.create_delegation(request, &Catalog).await.map(|made| made.delegation));
            }
            Step::Revoke { edge } if !edges.is_empty() => {
                let id = &pick(&edges, edge).id;
                drop(state.revoke_delegation(ZONE, id, &Caller::Operator).await);
            }
            Step::Revoke { .. } => {}
            Step::Suspend { session } => {
                let id = &pick(&sessions, session).id;
                drop(state.suspend_session(ZONE, id, &Caller::Operator).await);
            }
            Step::Resume { session } => {
                let id = &pick(&sessions, session).id;
                drop(state.resume_session(ZONE, id, &Caller::Operator).await);
            }
            Step::End { session } => {
                let id = &pick(&sessions, session).id;
                drop(state.end_session(ZONE, id, &Caller::Operator, None, "done").await);
            }
            Step::Pass { seconds } => bench.pass(i64::from(seconds).saturating_mul(1_000)),
        }
        for edge in &edges {
            stays_inside_its_root(&bench, edge);
        }
    }
}

fn stays_inside_its_root(bench: &Bench, edge: &Delegation) {
    let now = bench.now();
    let Some(chain) = bench.state.lineage(ZONE, &edge.id, now) else { return };
    assert!(chain.len() <= 10);
    let root = &chain[0];
    assert!(root.parent.is_none());
    let set = |edge: &Delegation| edge.scopes.iter().cloned().collect::<BTreeSet<_>>();
    for pair in chain.windows(2) {
        let [above, below] = pair else { continue };
        assert!(set(below).is_subset(&set(above)));
        assert!(below.expires_at <= above.expires_at);
        assert!(below.constraints.hops() < above.constraints.hops());
        assert_eq!(below.resource_id, above.resource_id);
    }
    assert!(chain.len() <= usize::try_from(root.constraints.hops()).unwrap());
    for edge in &chain {
        assert!(edge.live(now));
        for session in [&edge.source_session, &edge.target_session] {
            assert!(bench.state.live_session(ZONE, session, now).is_some());
        }
    }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn no_sequence_of_operations_exceeds_its_root(steps in proptest::collection::vec(step(), 1..40)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}
