//! Who is told what happens to approvals: signed, in order, again after a failure or a crash, and only where it may go.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use caracal::clock::Clock;
use caracal::control::{Request, call, socket_path};
use caracal::serve::{Embedding, ServeError, ServeOptions};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::crash;
use crate::edge::{APP, Agent, CANARY, ECHO, Edge, Plan, ZONE, eventually, ledger_lines, write_private};
use crate::upstream::{Seen, read_body, read_head, respond};

const KEY: &str = "nsk_canary-signs-what-sinks-are-told-0123456789";
const TIER: &str = "[[risk]]\nscope = \"echo:write\"\ntier = \"high\"\n\n\
                    [[approval_tiers]]\ntier = \"high\"\nttl_seconds = 900\n";

/// A webhook that answers as it is told, and 204 when it is told nothing.
#[derive(Clone)]
struct Receiver {
    address: SocketAddr,
    answers: Arc<Mutex<VecDeque<String>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let receiver = Self { address, answers: Arc::default(), seen: Arc::default() };
        let accepting = receiver.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let receiver = accepting.clone();
                tokio::spawn(async move {
                    let mut buffer = Vec::new();
                    while let Some(head) = read_head(&mut stream, &mut buffer).await {
                        let body = read_body(&mut stream, &mut buffer, &head).await;
                        let answer = receiver.answers.lock().pop_front();
                        receiver.seen.lock().push(Seen { head, body });
                        let answer = answer.unwrap_or_else(|| respond(204, "", ""));
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        receiver
    }

    fn will_say(&self, answers: &[String]) {
        self.answers.lock().extend(answers.iter().cloned());
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    async fn has(&self, count: usize) -> Vec<Seen> {
        eventually("the sink is told", async || self.seen.lock().len() >= count).await;
        self.seen()
    }

    fn sink(&self, name: &str, more: &str) -> String {
        let url = format!("http://{}/hooks/{name}", self.address);
        sink(name, &url, more)
    }
}

fn sink(name: &str, url: &str, more: &str) -> String {
    format!("[zones.{ZONE}.sinks.{name}]\nurl = \"{url}\"\nsecret = \"secret://hooks/key\"\n{more}")
}

fn failing() -> String {
    respond(500, "", "no")
}

fn plan(config: String) -> Plan {
    let clock = Clock::manual(Clock::system().now());
    let granted = vec!["echo:read", "echo:write"];
    let embedding = Embedding { clock, ..Embedding::default() };
    Plan { config, zone: TIER.to_owned(), granted, embedding, ..Plan::default() }
}

/// The secrets file with what signs, for these hosts.
fn write_secrets(edge: &Edge, hosts: &[String]) {
    let text = format!(
        "schema = 1\n[secrets.echo]\nzones = [\"{ZONE}\"]\nhosts = [\"{}\"]\napi_key = \"{CANARY}\"\n\
         [secrets.hooks]\nzones = [\"{ZONE}\"]\nhosts = {hosts:?}\nkey = \"{KEY}\"\n",
        edge.upstream.address
    );
    write_private(&edge.path("secrets.toml"), &text);
}

async fn edge(config: String, receivers: &[&Receiver]) -> Edge {
    let mut edge = Edge::prepared(plan(config)).await;
    write_secrets(&edge, &receivers.iter().map(|one| one.address.to_string()).collect::<Vec<_>>());
    edge.boot(ServeOptions::default()).await.unwrap();
    edge
}

async fn ask(edge: &Edge, request: Request) -> Value {
    call(&socket_path(&edge.path("state")), &request).await.unwrap()
}

async fn row(edge: &Edge, name: &str) -> Value {
    let listed = ask(edge, Request::Sinks { zone: None }).await;
    listed["sinks"].as_array().unwrap().iter().find(|row| row["sink"] == name).unwrap().clone()
}

/// Asks for what a person has to approve; the approval's id.
async fn held(edge: &Edge) -> String {
    let agent = Agent::provision(edge, &["echo:read", "echo:write"]).await;
    let (status, held) = agent.try_mint(edge, &["echo:write"], &[]).await;
    assert_eq!(status, 401, "{held}");
    held["approval_id"].as_str().unwrap().to_owned()
}

async fn reject(edge: &Edge, id: &str) {
    let reason = Some("checked".to_owned());
    ask(edge, Request::DecideApproval { id: id.to_owned(), approved: false, reason }).await;
}

fn advance(edge: &Edge, seconds: u64) {
    edge.plan.embedding.clock.advance(Duration::from_secs(seconds));
}

/// What was said, after its signature was checked as a receiver would.
fn told(seen: &Seen) -> (String, Value) {
    let header = |name| seen.header(name).first().copied().unwrap_or_default().to_owned();
    let mut signed = format!("{}.", header("x-caracal-timestamp")).into_bytes();
    signed.extend_from_slice(&seen.body);
    let signature = header("x-caracal-signature");
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
    let tag = hex::decode(signature.strip_prefix("v1=").unwrap()).unwrap();
    hmac::verify(&key, &signed, &tag).expect("the signature is good");
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(
        (&body["type"], &body["id"]),
        (&json!(header("x-caracal-event")), &json!(header("x-caracal-delivery")))
    );
    assert!(!seen.head.contains(KEY) && !String::from_utf8_lossy(&seen.body).contains(KEY));
    (header("x-caracal-delivery"), body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_of_an_approval_is_told_once_signed_and_in_order_whatever_fails_in_between() {
    let (ops, asked) = (Receiver::start().await, Receiver::start().await);
    let only = "events = [\"step_up_issued\"]\n";
    let edge = edge(ops.sink("ops", "") + &asked.sink("asked", only), &[&ops, &asked]).await;
    ops.will_say(&[failing(), respond(302, "Location: http://127.0.0.1:1/\r\n", "")]);
    let id = held(&edge).await;
    let first = ops.has(1).await;
    reject(&edge, &id).await;
    assert_eq!(told(&asked.has(1).await[0]).1["data"]["approval_id"], json!(id));
    eventually("the failure is noted", async || row(&edge, "ops").await["failed_attempts"] == 1).await;
    eventually("both wait", async || row(&edge, "ops").await["waiting"] == 2).await;
    let failed = row(&edge, "ops").await;
    assert_eq!(
        (&failed["last_failure"], &failed["host"]),
        (&json!("the answer is 500"), &json!("127.0.0.1"))
    );
    assert_eq!(failed["next_attempt_in_seconds"], 30);
    advance(&edge, 29);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(ops.seen().len(), 1, "a pause is kept");
    advance(&edge, 1);
    ops.has(2).await;
    eventually("the second is noted", async || row(&edge, "ops").await["failed_attempts"] == 2).await;
    let failed = row(&edge, "ops").await;
    assert_eq!(failed["last_failure"], "the answer is 302, and redirects are not followed");
    assert_eq!(failed["next_attempt_in_seconds"], 60, "the pause doubles");
    advance(&edge, 60);
    let all: Vec<_> = ops.has(4).await.iter().map(told).collect();
    assert!(
        all[..3].iter().all(|(delivery, _)| *delivery == told(&first[0]).0),
        "one delivery, three attempts"
    );
    let kinds: Vec<_> = all.iter().map(|(_, body)| body["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["step_up_issued", "step_up_issued", "step_up_issued", "step_up_decided"]);
    let (issued, decided) = (&all[2].1, &all[3].1);
    assert_eq!((&issued["zone_id"], &issued["decision"]), (&json!(ZONE), &json!("pending")));
    assert_eq!((&decided["decision"], &decided["data"]["reason"]), (&json!("rejected"), &json!("checked")));
    for body in [issued, decided] {
        let data = &body["data"];
        assert_eq!(
            (&data["approval_id"], &data["tier"], &data["application_id"]),
            (&json!(id), &json!("high"), &json!(APP))
        );
        assert_eq!((&data["resources"], &data["requested_scopes"]), (&json!([ECHO]), &json!(["echo:write"])));
        assert!(data["agent_session_id"].is_string() && data["expires_at"].is_string());
        assert!(data["client_ip"].is_null() && data["request"].is_null());
    }
    eventually("all is settled", async || row(&edge, "ops").await["waiting"] == 0).await;
    let settled = row(&edge, "ops").await;
    assert_eq!(
        (&settled["delivered"], &settled["given_up"], &settled["failed_attempts"]),
        (&json!(2), &json!(0), &json!(0))
    );
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!((ops.seen().len(), asked.seen().len()), (4, 1), "once, and only what was asked for");
    let metrics =
        edge.http.get(format!("{}/metrics", edge.ops())).send().await.unwrap().text().await.unwrap();
    for (outcome, count) in [("delivered", 2), ("failed", 2)] {
        let line = format!(
            "caracal_approval_deliveries_total{{outcome=\"{outcome}\",sink=\"ops\",zone=\"{ZONE}\"}} {count}"
        );
        assert!(metrics.contains(&line), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_never_takes_an_event_loses_it_after_eight_attempts_and_gets_the_next() {
    let ops = Receiver::start().await;
    let edge = edge(ops.sink("ops", ""), &[&ops]).await;
    ops.will_say(&vec![failing(); 8]);
    let id = held(&edge).await;
    reject(&edge, &id).await;
    for attempt in 1..=8 {
        ops.has(attempt).await;
        eventually("it is noted", async || {
            let row = row(&edge, "ops").await;
            row["failed_attempts"] == attempt || row["given_up"] == 1
        })
        .await;
        advance(&edge, 900);
    }
    let all: Vec<_> = ops.has(9).await.iter().map(|seen| told(seen).1["type"].clone()).collect();
    assert!(all[..8].iter().all(|kind| kind == "step_up_issued"));
    assert_eq!(all[8], "step_up_decided");
    eventually("it is counted", async || row(&edge, "ops").await["delivered"] == 1).await;
    assert_eq!(row(&edge, "ops").await["given_up"], 1);
    // What is older than a week is not told.
    ops.will_say(&[failing()]);
    held(&edge).await;
    ops.has(10).await;
    eventually("it is noted", async || row(&edge, "ops").await["failed_attempts"] == 1).await;
    advance(&edge, 8 * 24 * 3_600);
    eventually("it is too old", async || row(&edge, "ops").await["given_up"] == 2).await;
    assert_eq!(ops.seen().len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_crash_between_attempts_the_event_is_told_and_nothing_from_before_the_sink() {
    let ops = Receiver::start().await;
    let mut edge = crash::outside().await;
    (edge.plan.zone, edge.plan.granted) = (TIER.to_owned(), vec!["echo:read", "echo:write"]);
    let config = std::fs::read_to_string(edge.path("caracal.toml")).unwrap();
    std::fs::write(edge.bundle(), edge.bundle_text()).unwrap();
    write_secrets(&edge, &[ops.address.to_string()]);
    let mut process = crash::spawn(&edge.path("caracal.toml"));
    crash::ready(&edge).await;
    held(&edge).await;
    let ledger = edge.path("state/ledger").join(ZONE);
    let written = async || ledger_lines(&ledger).iter().any(|line| line["event_type"] == "step_up_issued");
    eventually("the record is on disk", written).await;
    process.kill().unwrap();
    process.wait().unwrap();
    std::fs::write(edge.path("caracal.toml"), config + &ops.sink("ops", "")).unwrap();
    ops.will_say(&[failing()]);
    let mut process = crash::spawn(&edge.path("caracal.toml"));
    crash::ready(&edge).await;
    let id = held(&edge).await;
    let first = told(&ops.has(1).await[0]);
    assert_eq!(first.1["data"]["approval_id"], json!(id), "the first one was before the sink");
    eventually("the failure is stored", async || row(&edge, "ops").await["failed_attempts"] == 1).await;
    process.kill().unwrap();
    process.wait().unwrap();
    let mut process = crash::spawn(&edge.path("caracal.toml"));
    crash::ready(&edge).await;
    assert_eq!(told(&ops.has(2).await[1]), first, "the same delivery, at once");
    eventually("it is settled", async || row(&edge, "ops").await["delivered"] == 1).await;
    let output = Command::new(env!("CARGO_BIN_EXE_caracal"))
        .args(["approvals", "sinks", "test", "ops", "--config"])
        .arg(edge.path("caracal.toml"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.starts_with("the sink took the event"), "{said}");
    assert_eq!(told(ops.seen().last().unwrap()).1["type"], "step_up_test");
    process.kill().unwrap();
    process.wait().unwrap();
    let mut left = vec![edge.path("state")];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if let Ok(bytes) = std::fs::read(&path) {
            assert!(!bytes.windows(KEY.len()).any(|part| part == KEY.as_bytes()), "{}", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_is_told_nothing_where_it_may_not_be_or_nobody_answers() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let config = sink("inside", "https://10.1.2.3/x", "") + &sink("gone", &format!("http://{gone}/x"), "");
    let mut edge = Edge::prepared(plan(config)).await;
    write_secrets(&edge, &["10.1.2.3".to_owned(), gone.to_string()]);
    edge.boot(ServeOptions::default()).await.unwrap();
    let test = async |name: &str| ask(&edge, Request::SinkTest { zone: None, sink: name.to_owned() }).await;
    let refused = test("inside").await;
    assert_eq!(refused["outcome"], "failed");
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("list its network in [egress] networks"), "{detail}");
    let refused = test("gone").await;
    assert!(refused["detail"].as_str().unwrap().starts_with("cannot connect"), "{refused}");
    let acts = edge.ledger_with("operator_sink_test", 2).await;
    let acts: Vec<_> = acts.iter().filter(|act| act["event_type"] == "operator_sink_test").collect();
    assert_eq!(acts[0]["metadata_json"]["outcome"], "failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_signs_must_be_for_the_sinks_zone_and_host_and_is_looked_up_each_time() {
    let ops = Receiver::start().await;
    let mut edge = Edge::prepared(plan(ops.sink("ops", ""))).await;
    let host = ops.address.to_string();
    for (text, code) in [
        (String::new(), "secret_unknown"),
        (
            format!("[secrets.hooks]\nzones = [\"other\"]\nhosts = [\"{host}\"]\nkey = \"{KEY}\"\n"),
            "secret_zone",
        ),
        (
            format!("[secrets.hooks]\nzones = [\"{ZONE}\"]\nhosts = [\"a.example\"]\nkey = \"{KEY}\"\n"),
            "secret_host",
        ),
    ] {
        edge.write_secrets(CANARY);
        let known = std::fs::read_to_string(edge.path("secrets.toml")).unwrap();
        write_private(&edge.path("secrets.toml"), &(known + &text));
        let refused = edge.boot(ServeOptions::default()).await.unwrap_err();
        let ServeError::Configuration(report) = refused else { panic!("{refused}") };
        assert!(
            report.contains(code) && report.contains("caracal.toml") && !report.contains(KEY),
            "{report}"
        );
    }
    write_secrets(&edge, std::slice::from_ref(&host));
    edge.boot(ServeOptions::default()).await.unwrap();
    // Taking a secret away is how a leak is stopped: accepted, and the sink is told nothing.
    edge.write_secrets(CANARY);
    ask(&edge, Request::Reload).await;
    held(&edge).await;
    eventually("it cannot be signed", async || {
        row(&edge, "ops").await["last_failure"] == "the secret is unknown"
    })
    .await;
    assert!(ops.seen().is_empty());
    write_secrets(&edge, &[host]);
    ask(&edge, Request::Reload).await;
    advance(&edge, 30);
    assert_eq!(told(&ops.has(1).await[0]).1["type"], "step_up_issued");
}
