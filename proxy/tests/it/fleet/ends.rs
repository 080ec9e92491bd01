//! What is revoked on one node, by every kind of revocation, ends on the other at once.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

/// The most a revocation may take to the other node, as the median of all kinds: one of them may meet a machine
/// that is busy with something else.
const BITES_WITHIN: Duration = Duration::from_millis(50);

fn claim(token: &str, name: &str) -> Arc<str> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    claims[name].as_str().unwrap().into()
}

async fn act(node: &Edge, kind: &str, agent: &Agent, mandate: &str) {
    let state = &node.running().app.state;
    let target = match kind {
        "zone" => return state.freeze(ZONE).await.unwrap(),
        "record" => Target::Record(claim(mandate, "sid")),
        "root" => Target::Root(claim(mandate, "root_sid")),
        "session" => Target::Session(agent.source.as_str().into()),
        "delegation" => Target::Delegation(agent.edge_id.as_str().into()),
        _ => Target::Application { id: APP.into(), extent: Extent::Block },
    };
    state.revoke(ZONE, &target, "test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_revocation_bites_on_the_other_node_within_50_ms_and_cuts_an_idle_stream_there() {
    let kinds = ["record", "root", "session", "delegation", "zone", "application"];
    let redis = Redis::start().await;
    let mut first = node(Upstream::start().await, &redis);
    first.boot(ServeOptions::default()).await.unwrap();
    let mut stocks = Vec::new();
    for _ in kinds {
        let stock = stock(&first, 0).await;
        let unused = reusable(&first, &stock.agent).await;
        stocks.push((stock, unused));
    }
    let (first, second) = copied(first, &redis).await;
    let mut took = Vec::new();
    for (kind, (stock, unused)) in kinds.into_iter().zip(&stocks) {
        assert_eq!(status(&second, unused).await, 200, "{kind}");
        let mut stream = second.get("/read/sse", &stock.reusable).send().await.unwrap();
        assert_eq!(stream.chunk().await.unwrap().unwrap(), "data: one\n\n", "{kind}");
        act(&first, kind, &stock.agent, &stock.reusable).await;
        let acknowledged = Instant::now();
        let end = tokio::time::timeout(Duration::from_secs(5), stream.chunk()).await;
        took.push(acknowledged.elapsed());
        assert!(end.expect("the stream ends").is_err(), "{kind}: a cut stream does not look complete");
        assert!([401, 403].contains(&status(&second, &stock.reusable).await), "{kind}");
        // A record is one mandate's; the others end all that the agent holds.
        let others = if ["record", "root"].contains(&kind) { 200 } else { 401 };
        let others = if kind == "zone" { 403 } else { others };
        assert_eq!(status(&second, unused).await, others, "{kind}");
        if kind == "zone" {
            for node in [&first, &second] {
                node.running().app.state.unfreeze(ZONE).await.unwrap();
            }
        }
    }
    println!("cut on the other node after {:?}", kinds.into_iter().zip(&took).collect::<Vec<_>>());
    took.sort();
    assert!(took[took.len() / 2] < BITES_WITHIN, "{took:?}");
    // An end that came from elsewhere is not said again: nothing goes back and forth.
    let mut connection = redis.connect().await;
    let said: redis::streams::StreamRangeReply =
        cmd("XRANGE").arg(SESSIONS).arg("-").arg("+").query_async(&mut connection).await.unwrap();
    let nodes: std::collections::BTreeSet<String> =
        said.ids.iter().map(|message| message.get("node").unwrap()).collect();
    assert_eq!(nodes.len(), 1, "only the node that was told to end something says so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_of_an_application_reaches_what_a_node_minted_whose_clock_is_ahead() {
    let redis = Redis::start().await;
    let (first, second, stock) = pair_minted(&redis, 0, Duration::from_secs(4)).await;
    assert_eq!(status(&first, &stock.reusable).await, 200, "four seconds ahead are nothing");
    let target = Target::Application { id: APP.into(), extent: Extent::Cut };
    first.running().app.state.revoke(ZONE, &target, "test").await.unwrap();
    assert_eq!(status(&first, &stock.reusable).await, 401);
    eventually("refused on the other node", async || status(&second, &stock.reusable).await == 401).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mandate_of_a_node_whose_clock_is_far_ahead_is_refused() {
    let redis = Redis::start().await;
    let (first, _second, stock) = pair_minted(&redis, 1, Duration::from_secs(10)).await;
    let (code, body) = call(&first, &stock.mandates[0]).await;
    assert_eq!((code, body["error"].as_str()), (401, Some("invalid_token")));
    assert_eq!(status(&first, &stock.reusable).await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_just_before_a_stop_is_still_told() {
    let redis = Redis::start().await;
    let (mut first, second, stock) = pair(&redis, 0).await;
    end_session(&first, &stock.agent).await;
    first.stop().await;
    assert!(redis.has(&format!("caracal:revoked:sessions:{}", stock.agent.target)).await);
    eventually("refused on the other node", async || status(&second, &stock.reusable).await == 401).await;
}
