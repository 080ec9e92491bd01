//! Budgets of a fleet: one sum over all nodes, and none without Redis.

use caracal::serve::ServeOptions;

use super::{copied, node, reusable};
use crate::edge::{Agent, Edge};
use crate::redis::Redis;
use crate::upstream::Upstream;

const BUDGETS: &str = "
[[budgets]]
name = \"shared\"
per = \"application\"
calls = 40
window_seconds = 31622400

[[budgets]]
name = \"life\"
per = \"session\"
bytes = 1000000
max_per_call = 1000
";

async fn status(edge: &Edge, mandate: &str) -> u16 {
    edge.get("/read/a", mandate).send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_together_let_exactly_as_many_calls_through_as_there_are() {
    let mut redis = Redis::start().await;
    let mut first = node(Upstream::start().await, &redis);
    first.plan.zone = BUDGETS.into();
    first.write_files();
    first.boot(ServeOptions::default()).await.unwrap();
    let agent = Agent::provision(&first, &["echo:read"]).await;
    let mandate = reusable(&first, &agent).await;
    // The copy of the folder has the bundle with the budgets, the session and the mandate's record.
    let (first, second) = copied(first, &redis).await;
    let calls = (0..60).map(|at| status(if at % 2 == 0 { &first } else { &second }, &mandate));
    let answers = futures_util::future::join_all(calls).await;
    let count = |wanted: u16| answers.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(200), count(429)), (40, 20), "{answers:?}");
    redis.kill();
    let without = first.get("/read/a", &mandate).send().await.unwrap();
    assert_eq!(without.status(), 503);
    assert_eq!(without.headers()["retry-after"], "1");
    assert_eq!(without.headers()["x-caracal-error"], "budgets_unavailable");
}
