//! Two nodes on one Redis: what one uses up or ends is used up or ended on the other.

mod budgets;
mod ends;
mod failing;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use caracal::clock::Clock;
use caracal::serve::{Embedding, ServeError, ServeOptions};
use caracal::state::{Extent, Target};
use redis::cmd;
use serde_json::Value;

use crate::edge::{APP, Agent, Edge, Plan, ZONE, client, eventually, install_crypto, write_private};
use crate::redis::Redis;
use crate::upstream::Upstream;

const STREAM_KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const SESSIONS: &str = "caracal.sessions.revoke";

/// A node with an agent, its single-use mandates, and one that may be used again.
struct Stock {
    agent: Agent,
    mandates: Vec<String>,
    reusable: String,
}

fn node(upstream: Upstream, redis: &Redis) -> Edge {
    install_crypto();
    let plan =
        Plan { config: redis.config(), resource: "reusable_mandates = true".into(), ..Plan::default() };
    let dir = tempfile::TempDir::new().unwrap();
    let edge = Edge { dir, upstream, running: None, runtime: None, plan, http: client(), remote: None };
    edge.write_files();
    write_private(&edge.path("stream.key"), STREAM_KEY);
    edge
}

async fn stock(edge: &Edge, mandates: usize) -> Stock {
    let agent = Agent::provision(edge, &["echo:read"]).await;
    let mut minted = Vec::new();
    for _ in 0..mandates {
        minted.push(agent.mint(edge, &["echo:read"]).await);
    }
    let reusable = reusable(edge, &agent).await;
    Stock { agent, mandates: minted, reusable }
}

async fn reusable(edge: &Edge, agent: &Agent) -> String {
    let (status, body) = agent.try_mint(edge, &["echo:read"], &[("reusable", "true")]).await;
    assert_eq!(status, 200, "{body}");
    body["access_token"].as_str().unwrap().to_owned()
}

/// Two nodes as a fleet is provisioned: one is set up and stopped, the other gets a copy of its folder, and so
/// the same zone keys and the same sessions.
async fn pair(redis: &Redis, mandates: usize) -> (Edge, Edge, Stock) {
    pair_minted(redis, mandates, Duration::ZERO).await
}

/// As [`pair`], with everything minted by a node whose clock is `ahead`.
async fn pair_minted(redis: &Redis, mandates: usize, ahead: Duration) -> (Edge, Edge, Stock) {
    let mut first = node(Upstream::start().await, redis);
    if !ahead.is_zero() {
        let clock = Clock::manual(Clock::system().now());
        clock.advance(ahead);
        first.plan.embedding = Embedding { clock, ..Embedding::default() };
    }
    first.boot(ServeOptions::default()).await.unwrap();
    let stock = stock(&first, mandates).await;
    let (first, second) = copied(first, redis).await;
    (first, second, stock)
}

/// Stops a node and starts it again, with a second one on a copy of its folder.
async fn copied(mut first: Edge, redis: &Redis) -> (Edge, Edge) {
    first.stop().await;
    first.plan.embedding = Embedding::default();
    let mut second = node(first.upstream.clone(), redis);
    second.dir = tempfile::TempDir::new().unwrap();
    let from = format!("{}/.", first.dir.path().display());
    let copied =
        std::process::Command::new("cp").args(["-a", &from]).arg(second.dir.path()).status().unwrap();
    assert!(copied.success());
    for edge in [&mut first, &mut second] {
        edge.boot(ServeOptions::default()).await.unwrap();
    }
    (first, second)
}

async fn call(edge: &Edge, mandate: &str) -> (u16, Value) {
    // A call that is under way when its authority ends is cut: no answer, told here as 0.
    let Ok(response) = edge.get("/read/a", mandate).send().await else { return (0, Value::Null) };
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or_default())
}

async fn status(edge: &Edge, mandate: &str) -> u16 {
    call(edge, mandate).await.0
}

async fn end_session(edge: &Edge, agent: &Agent) {
    let url = format!("{}/zones/{ZONE}/agents/{}", edge.coordinator(), agent.target);
    let ended = edge.http.delete(url).bearer_auth(&agent.bearer).send().await.unwrap();
    assert_eq!(ended.status(), 204);
}

async fn ready(edge: &Edge) -> (u16, Value) {
    let response = edge.http.get(format!("{}/ready", edge.ops())).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// A session's end in the words of another producer, signed with `key`.
fn foreign(key: &str, session: &str) -> BTreeMap<&'static str, String> {
    let mut fields: BTreeMap<&'static str, String> = [
        ("zone_id", ZONE),
        ("agent_session_id", session),
        ("session_id", "a-record-of-another-producer"),
        ("reason", "requested"),
        ("outbox_id", "7"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into();
    let lines: String = fields.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &hex::decode(key).unwrap());
    let signature = hmac::sign(&key, format!("{SESSIONS}\n{lines}").as_bytes());
    fields.insert("_sig", hex::encode(signature));
    fields
}

fn xadd(fields: &BTreeMap<&'static str, String>) -> redis::Cmd {
    let mut add = cmd("XADD");
    add.arg(SESSIONS).arg("*");
    for (name, value) in fields {
        add.arg(*name).arg(value);
    }
    add
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mandate_is_used_once_in_the_whole_fleet() {
    let redis = Redis::start().await;
    let (first, second, stock) = pair(&redis, 30).await;
    let [one, two, rest @ ..] = stock.mandates.as_slice() else { panic!("there are thirty") };
    assert_eq!(status(&first, one).await, 200);
    let (code, body) = call(&second, one).await;
    assert_eq!((code, body["error_description"].as_str()), (401, Some("token replay detected")));
    assert_eq!(status(&second, two).await, 200);
    assert_eq!(status(&first, two).await, 401);
    for mandate in rest {
        let (a, b) = tokio::join!(status(&first, mandate), status(&second, mandate));
        assert_eq!([a.min(b), a.max(b)], [200, 401], "exactly one of two simultaneous uses");
    }
    for node in [&first, &second] {
        assert_eq!(status(node, &stock.reusable).await, 200);
    }
    let mut connection = redis.connect().await;
    let marks: Vec<String> =
        cmd("KEYS").arg("caracal:edge:mark:*").query_async(&mut connection).await.unwrap();
    assert_eq!(marks.len(), 30);
    let left: i64 = cmd("PTTL").arg(&marks[0]).query_async(&mut connection).await.unwrap();
    // 900 s of life, 60 s of leeway, and 60 s for a node whose clock is behind.
    assert!((1_000_000..=1_020_000).contains(&left), "{left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_on_one_node_is_refused_and_cut_on_the_other() {
    let redis = Redis::start().await;
    let (first, second, stock) = pair(&redis, 0).await;
    assert_eq!(status(&second, &stock.reusable).await, 200);
    let mut stream = second.get("/read/sse", &stock.reusable).send().await.unwrap();
    assert_eq!(stream.chunk().await.unwrap().unwrap(), "data: one\n\n");
    let begun = Instant::now();
    end_session(&first, &stock.agent).await;
    eventually("refused on the other node", async || status(&second, &stock.reusable).await == 401).await;
    println!(
        "ended on one node, refused on the other after {:?} (the commit and the polling included)",
        begun.elapsed()
    );
    let end = tokio::time::timeout(Duration::from_secs(5), stream.chunk()).await.expect("the stream ends");
    assert!(end.is_err(), "a cut stream does not look complete");
    assert!(redis.has(&format!("caracal:revoked:sessions:{}", stock.agent.target)).await);
    assert!(redis.has(&format!("caracal:revoked:sessions:{}", stock.agent.edge_id)).await);
    let epoch: u64 = cmd("GET")
        .arg(format!("caracal:revoked:sessions:delegation-epoch:{ZONE}"))
        .query_async(&mut redis.connect().await)
        .await
        .unwrap();
    let state = &second.running().app.state;
    assert_eq!(epoch, first.running().app.state.graph_epoch(ZONE));
    eventually("the epoch is known everywhere", async || state.graph_epoch(ZONE) == epoch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_and_a_revoked_application_reach_the_other_node_and_one_that_starts_later() {
    let redis = Redis::start().await;
    let (first, mut second, stock) = pair(&redis, 0).await;
    first.running().app.state.freeze(ZONE).await.unwrap();
    eventually("frozen on the other node", async || status(&second, &stock.reusable).await == 403).await;
    // What widens is each node's own: nobody's word thaws a zone.
    first.running().app.state.unfreeze(ZONE).await.unwrap();
    assert_eq!(status(&second, &stock.reusable).await, 403);
    second.running().app.state.unfreeze(ZONE).await.unwrap();
    assert_eq!(status(&second, &stock.reusable).await, 200);
    second.stop().await;
    let application = Target::Application { id: APP.into(), extent: Extent::Block };
    first.running().app.state.revoke(ZONE, &application, "test").await.unwrap();
    let told = async || {
        let field = format!("application:{ZONE}:{APP}");
        let mut connection = redis.connect().await;
        cmd("HEXISTS").arg("caracal:edge:standing").arg(field).query_async(&mut connection).await.unwrap()
    };
    eventually("the revocation is told", told).await;
    second.boot(ServeOptions::default()).await.unwrap();
    assert!(second.running().app.state.application_blocked(ZONE, APP));
    assert_eq!(status(&second, &stock.reusable).await / 100, 4, "refused from the first request on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspension_reaches_the_other_node_and_its_end_there_is_that_nodes_own() {
    let redis = Redis::start().await;
    let (first, second, stock) = pair(&redis, 0).await;
    let act = async |edge: &Edge, act: &str| {
        let url = format!("{}/zones/{ZONE}/agents/{}/{act}", edge.coordinator(), stock.agent.target);
        edge.http.patch(url).bearer_auth(&stock.agent.bearer).send().await.unwrap().status().as_u16()
    };
    assert_eq!(act(&first, "suspend").await, 200);
    eventually("suspended on the other node", async || status(&second, &stock.reusable).await == 403).await;
    assert_eq!(act(&first, "resume").await, 200);
    assert_eq!(status(&first, &stock.reusable).await, 200);
    let key = format!("caracal:revoked:sessions:{}", stock.agent.target);
    eventually("resource servers are told", async || !redis.has(&key).await).await;
    assert_eq!(status(&second, &stock.reusable).await, 403);
    assert_eq!(act(&second, "resume").await, 200);
    assert_eq!(status(&second, &stock.reusable).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_knows_what_ended_before_it_serves() {
    let redis = Redis::start().await;
    let (first, mut second, stock) = pair(&redis, 0).await;
    second.stop().await;
    end_session(&first, &stock.agent).await;
    let key = format!("caracal:revoked:sessions:{}", stock.agent.target);
    eventually("it is told", async || redis.has(&key).await).await;
    second.boot(ServeOptions::default()).await.unwrap();
    assert_eq!(status(&second, &stock.reusable).await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_place_in_the_streams_was_trimmed_away_takes_the_whole_list() {
    let redis = Redis::start().await;
    let (_first, second, stock) = pair(&redis, 0).await;
    assert_eq!(status(&second, &stock.reusable).await, 200);
    let mut connection = redis.connect().await;
    let mut together = redis::pipe();
    together.atomic();
    // In one transaction, so that no node sees the message before it is gone.
    together.add_command(xadd(&foreign(STREAM_KEY, &stock.agent.target)));
    together.cmd("SET").arg(format!("caracal:revoked:sessions:{}", stock.agent.target)).arg("1");
    together.cmd("XTRIM").arg(SESSIONS).arg("MAXLEN").arg(0);
    let _: redis::Value = together.query_async(&mut connection).await.unwrap();
    assert_eq!(status(&second, &stock.reusable).await, 200, "nothing told it so far");
    let _: i64 =
        cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").query_async(&mut connection).await.unwrap();
    eventually("refused", async || status(&second, &stock.reusable).await == 401).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_others_count_only_with_a_good_signature() {
    let redis = Redis::start().await;
    let mut edge = node(Upstream::start().await, &redis);
    edge.boot(ServeOptions::default()).await.unwrap();
    let stock = stock(&edge, 0).await;
    let mut connection = redis.connect().await;
    let mut changed = foreign(STREAM_KEY, "another-session");
    changed.insert("agent_session_id", stock.agent.target.clone());
    let mut unsigned = foreign(STREAM_KEY, &stock.agent.target);
    unsigned.remove("_sig");
    for bad in [foreign(&"ab".repeat(32), &stock.agent.target), changed, unsigned] {
        let _: String = xadd(&bad).query_async(&mut connection).await.unwrap();
    }
    let metrics =
        async || edge.http.get(format!("{}/metrics", edge.ops())).send().await.unwrap().text().await.unwrap();
    let counted = format!("caracal_stream_bad_signatures_total{{stream=\"{SESSIONS}\"}} 3");
    eventually("bad signatures are counted", async || metrics().await.contains(&counted)).await;
    assert!(metrics().await.contains("caracal_redis_up 1"));
    assert_eq!(status(&edge, &stock.reusable).await, 200);
    let good = foreign(STREAM_KEY, &stock.agent.target);
    let _: String = xadd(&good).query_async(&mut connection).await.unwrap();
    eventually("a good one is obeyed", async || status(&edge, &stock.reusable).await == 401).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_redis_loses_its_data_no_earlier_mandate_passes_and_ends_are_told_again() {
    let mut redis = Redis::start().await;
    let (first, second, mut stock) = pair(&redis, 2).await;
    let ended = Agent::provision(&first, &["echo:read"]).await;
    end_session(&first, &ended).await;
    let key = format!("caracal:revoked:sessions:{}", ended.target);
    eventually("the end is told", async || redis.has(&key).await).await;
    for restart in [false, true] {
        let used = stock.agent.mint(&first, &["echo:read"]).await;
        let unused = stock.agent.mint(&first, &["echo:read"]).await;
        let again = reusable(&first, &stock.agent).await;
        assert_eq!(status(&first, &used).await, 200);
        assert_eq!(status(&first, &again).await, 200);
        if restart {
            redis.kill();
            redis.run().await;
            eventually("both are back", async || {
                ready(&first).await.0 == 200 && ready(&second).await.0 == 200
            })
            .await;
        } else {
            redis.flush().await;
        }
        for node in [&first, &second] {
            for mandate in [&used, &unused] {
                assert_eq!(status(node, mandate).await, 401, "restart: {restart}");
            }
            for mandate in &stock.mandates {
                assert_eq!(status(node, mandate).await, 401);
            }
        }
        eventually("a reusable one neither", async || status(&first, &again).await == 401).await;
        eventually("what ended is told again", async || redis.has(&key).await).await;
        let fresh = stock.agent.mint(&first, &["echo:read"]).await;
        assert_eq!(status(&first, &fresh).await, 200);
        assert_eq!(status(&first, &fresh).await, 401);
        stock.mandates.push(fresh);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_only_what_needs_it_is_refused_and_it_recovers_by_itself() {
    let mut redis = Redis::start().await;
    let mut edge = node(Upstream::start().await, &redis);
    edge.boot(ServeOptions::default()).await.unwrap();
    let stock = stock(&edge, 0).await;
    let edge = Arc::new(edge);
    let stop = Arc::new(AtomicBool::new(false));
    let agent = Arc::new(stock.agent);
    let load: Vec<_> = (0..4)
        .map(|_| tokio::spawn(load(Arc::clone(&edge), Arc::clone(&agent), Arc::clone(&stop))))
        .collect();
    for _ in 0..2 {
        let reusable = reusable(&edge, &agent).await;
        assert_eq!(status(&edge, &reusable).await, 200);
        redis.kill();
        eventually("not ready", async || ready(&edge).await == (503, refused("redis_unavailable"))).await;
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        let response = edge.get("/read/a", &mandate).send().await.unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(response.json::<Value>().await.unwrap()["error"], "marks_unavailable");
        assert_eq!(status(&edge, &reusable).await, 200, "what needs no mark goes on");
        let url = format!("{}/zones/{ZONE}/agents/{}", edge.coordinator(), agent.target);
        assert_eq!(edge.http.get(url).bearer_auth(&agent.bearer).send().await.unwrap().status(), 200);
        assert_eq!(edge.http.get(format!("{}/health", edge.ops())).send().await.unwrap().status(), 200);
        redis.run().await;
        let begun = Instant::now();
        eventually("ready", async || ready(&edge).await.0 == 200).await;
        println!("ready {:?} after Redis was back", begun.elapsed());
        // Its epoch went with Redis.
        assert_eq!(status(&edge, &mandate).await, 401);
        let fresh = agent.mint(&edge, &["echo:read"]).await;
        assert_eq!(status(&edge, &fresh).await, 200);
        assert_eq!(status(&edge, &reusable).await, 401);
        break_even(&edge, &agent).await;
    }
    stop.store(true, Ordering::Release);
    let mut seen: BTreeMap<u16, usize> = BTreeMap::new();
    for worker in load {
        for code in worker.await.unwrap() {
            *seen.entry(code).or_default() += 1;
        }
    }
    println!("under load: {seen:?}");
    assert!(seen.keys().all(|code| [200, 401, 503].contains(code)), "{seen:?}");
    assert!(seen.contains_key(&200) && seen.contains_key(&503), "{seen:?}");
}

fn refused(reason: &str) -> Value {
    serde_json::json!({ "ok": false, "ready": false, "reason": reason })
}

async fn break_even(edge: &Edge, agent: &Agent) {
    let used = agent.mint(edge, &["echo:read"]).await;
    assert_eq!(status(edge, &used).await, 200);
    assert_eq!(status(edge, &used).await, 401);
}

/// Mints and uses, each mandate twice: never may both uses pass.
async fn load(edge: Arc<Edge>, agent: Arc<Agent>, stop: Arc<AtomicBool>) -> Vec<u16> {
    let mut codes = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        let uses = [status(&edge, &mandate).await, status(&edge, &mandate).await];
        assert_ne!(uses, [200, 200], "used twice");
        codes.extend(uses);
    }
    codes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_while_redis_is_away_is_told_when_it_is_back() {
    let mut redis = Redis::start().await;
    let (first, second, stock) = pair(&redis, 0).await;
    redis.kill();
    end_session(&first, &stock.agent).await;
    assert_eq!(status(&second, &stock.reusable).await, 200, "nobody could tell it");
    redis.run().await;
    eventually("refused on the other node", async || {
        second.running().app.state.session(ZONE, &stock.agent.target).unwrap().status.ended()
    })
    .await;
    // Until the marks can be asked again it is a 503; it never passes.
    eventually("and told why", async || match status(&second, &stock.reusable).await {
        401 => true,
        503 => false,
        other => panic!("status {other}"),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_would_forget_marks_ends_the_start_with_64() {
    let redis = Redis::with_policy("allkeys-lru").await;
    let mut edge = node(Upstream::start().await, &redis);
    let refused = edge.boot(ServeOptions::default()).await.unwrap_err();
    assert!(matches!(refused, ServeError::Configuration(_)), "{refused}");
    assert_eq!(refused.exit_code(), 64);
    assert!(
        refused.to_string().contains("`allkeys-lru`") && refused.to_string().contains("noeviction"),
        "{refused}"
    );
    let mut connection = redis.connect().await;
    let set = async |policy: &str, connection: &mut redis::aio::MultiplexedConnection| {
        let mut set = cmd("CONFIG");
        set.arg("SET").arg("maxmemory-policy").arg(policy);
        let () = set.query_async(connection).await.unwrap();
    };
    set("noeviction", &mut connection).await;
    edge.boot(ServeOptions::default()).await.unwrap();
    set("allkeys-lru", &mut connection).await;
    eventually("noticed while it runs", async || ready(&edge).await.0 == 503).await;
    set("noeviction", &mut connection).await;
    eventually("and when it is right again", async || ready(&edge).await.0 == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_no_place_for_marks() {
    let primary = Redis::start().await;
    let mut edge = node(Upstream::start().await, &primary);
    edge.boot(ServeOptions::default()).await.unwrap();
    let other = Redis::start().await;
    let stock = stock(&edge, 1).await;
    let mut connection = primary.connect().await;
    let replicate = async |of: [&str; 2], connection: &mut redis::aio::MultiplexedConnection| {
        let mut replicate = cmd("REPLICAOF");
        replicate.arg(&of);
        let () = replicate.query_async(connection).await.unwrap();
    };
    replicate(["127.0.0.1", &other.port.to_string()], &mut connection).await;
    let (code, body) = call(&edge, &stock.mandates[0]).await;
    assert_eq!((code, body["error"].as_str()), (503, Some("marks_unavailable")));
    eventually("not ready", async || ready(&edge).await.0 == 503).await;
    // Back as a primary it has another history, in which marks may be missing.
    replicate(["NO", "ONE"], &mut connection).await;
    eventually("ready", async || ready(&edge).await.0 == 200).await;
    assert_eq!(status(&edge, &stock.mandates[0]).await, 401);
    break_even(&edge, &stock.agent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_reached_over_tls_with_a_password_and_not_with_a_wrong_one() {
    let plain = Redis::start().await;
    let mut edge = node(Upstream::start().await, &plain);
    let redis = Redis::tls(edge.dir.path(), "correct horse").await;
    edge.plan.config = format!(
        "[state]\nredis = \"rediss://localhost:{}\"\nredis_password_file = \"redis.password\"\n\
         redis_ca_file = \"redis-ca.pem\"\nstream_key_file = \"stream.key\"\n",
        redis.port
    );
    write_private(&edge.path("redis.password"), "battery staple\n");
    let refused = edge.boot(ServeOptions::default()).await.unwrap_err();
    assert_eq!(refused.exit_code(), 1, "{refused}");
    assert!(!refused.to_string().contains("battery"), "{refused}");
    write_private(&edge.path("redis.password"), "correct horse\n");
    edge.boot(ServeOptions::default()).await.unwrap();
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    break_even(&edge, &agent).await;
}
