//! Requests that a person has to approve, to the byte: the matrix of envoyproxy/ai-gateway#2073, one test for each row,
//! and what the approvals of single requests promise beside it.

mod durable;
mod outcomes;
mod tools;

use std::time::Duration;

use caracal::clock::Clock;
use caracal::control::{Request, call, socket_path};
use caracal::serve::Embedding;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::edge::{APP, Agent, CANARY, ECHO, Edge, Plan, ZONE};
use crate::versions::caracal;

const BOTH: [&str; 2] = ["echo:read", "echo:write"];

/// Large payments are for a person to approve.
pub const GUARD: &str = r#"{ name = "large", when = "has(body.amount) && body.amount > 1000", operations = ["POST /write/**"], effect = "approval", tier = "large", show = ["/amount", "/to"] }"#;

const LARGE: &str = r#"{"amount":5000,"to":"acme","note":"note-nobody-is-shown"}"#;

pub fn plan(guards: &str) -> Plan {
    Plan {
        resource: format!("guards = [{guards}]"),
        zone: "[[approval_tiers]]\ntier = \"large\"\nttl_seconds = 900\n".to_owned(),
        granted: BOTH.to_vec(),
        ..Plan::default()
    }
}

async fn bench() -> (Edge, Agent) {
    with(plan(GUARD)).await
}

async fn with(plan: Plan) -> (Edge, Agent) {
    let edge = Edge::with(plan).await;
    let agent = Agent::provision(&edge, &BOTH).await;
    (edge, agent)
}

/// What a caller got.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    pub fn id(&self) -> String {
        self.json()["approval_id"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }

    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }

    fn replayed(&self) -> Option<&str> {
        self.headers.get("x-caracal-replayed").map(|id| id.to_str().unwrap())
    }
}

pub async fn got(request: reqwest::RequestBuilder) -> Got {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Got { status, headers, text: response.text().await.unwrap() }
}

/// A request with a fresh mandate.
async fn request(edge: &Edge, agent: &Agent, path: &str, body: &str) -> reqwest::RequestBuilder {
    let mandate = agent.mint(edge, &["echo:write"]).await;
    let request = edge.http.post(format!("{}{path}", edge.gateway())).header("x-caracal-resource", ECHO);
    request.bearer_auth(mandate).header("content-type", "application/json").body(body.to_owned())
}

pub async fn pay(edge: &Edge, agent: &Agent, body: &str) -> Got {
    got(request(edge, agent, "/write/pay", body).await).await
}

async fn pay_on(edge: &Edge, agent: &Agent, body: &str, approval: &str) -> Got {
    got(request(edge, agent, "/write/pay", body).await.header("x-caracal-approval", approval)).await
}

pub async fn ask(edge: &Edge, request: Request) -> Result<Value, String> {
    call(&socket_path(&edge.path("state")), &request).await.map_err(|error| error.to_string())
}

pub async fn answer(edge: &Edge, id: &str, approved: bool) {
    let reason = Some("checked".to_owned());
    ask(edge, Request::DecideApproval { id: id.to_owned(), approved, reason }).await.unwrap();
}

/// The events of a type in the ledger.
async fn events(edge: &Edge, event_type: &str) -> Vec<Value> {
    let all = edge.ledger().await;
    all.into_iter().filter(|event| event["event_type"] == event_type).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_1_the_same_request_resumes_and_is_made_exactly_once() {
    let (edge, agent) = bench().await;
    assert_eq!(pay(&edge, &agent, r#"{"amount":1}"#).await.status, 200, "nobody is asked about small ones");
    let held = pay(&edge, &agent, LARGE).await;
    assert_eq!((held.status, held.error().as_str()), (403, "interaction_required"), "{held:?}");
    let told = held.json();
    assert_eq!(
        (&told["approval_type"], &told["state"], &told["tier"]),
        (&json!("exact_request"), &json!("pending"), &json!("large"))
    );
    assert_eq!(told["binding"].as_str().unwrap().len(), 64);
    let id = held.id();
    assert_eq!(held.headers["x-caracal-approval"].to_str().unwrap(), id);
    assert_eq!(pay(&edge, &agent, LARGE).await.id(), id, "asked once");
    assert_eq!(edge.upstream.count(), 1);

    let listed = ask(&edge, Request::Approvals { zone: None, all: false }).await.unwrap();
    let row = &listed["approvals"][0];
    assert_eq!(
        (&row["id"], &row["application"], &row["binding"]),
        (&json!(id), &json!(APP), &told["binding"])
    );
    let shown = &row["request"];
    assert_eq!((&shown["method"], &shown["path"]), (&json!("POST"), &json!("/write/pay")));
    assert_eq!(shown["shown"], json!({ "/amount": "5000", "/to": "\"acme\"" }));
    assert_eq!(shown["body_bytes"], LARGE.len());
    answer(&edge, &id, true).await;
    let url = format!("{}/approvals/{id}?wait=5", edge.authority());
    let state: Value = edge.http.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(state["state"], "approved");

    let done = pay_on(&edge, &agent, LARGE, &id).await;
    assert_eq!(done.status, 200, "{done:?}");
    let seen = edge.upstream.last();
    assert_eq!((seen.body.as_slice(), seen.header("x-api-key")), (LARGE.as_bytes(), vec![CANARY]));
    assert!(seen.header("x-caracal-approval").is_empty());
    let again = pay(&edge, &agent, LARGE).await;
    assert_eq!((again.status, again.replayed()), (200, Some(id.as_str())), "{again:?}");
    assert_eq!(edge.upstream.count(), 2, "one small one and one large one");

    // Blocked, answered and executed are joined by the decision that asked and by the approval.
    let asked = told["decision_id"].as_str().unwrap();
    for event_type in ["step_up_issued", "step_up_decided", "step_up_consumed"] {
        let found = events(&edge, event_type).await;
        assert_eq!(found.len(), 1, "{event_type}");
        let metadata = &found[0]["metadata_json"];
        assert_eq!(
            (&metadata["decision_id"], &metadata["challenge_id"]),
            (&json!(asked), &json!(id)),
            "{event_type}"
        );
    }
    let decisions = events(&edge, "gateway_decision").await;
    let of = |id: &str| decisions.iter().find(|event| event["id"] == id).unwrap();
    assert_eq!(
        (&of(asked)["decision"], &of(asked)["metadata_json"]["approval_id"]),
        (&json!("deny"), &json!(id))
    );
    let consumed = events(&edge, "step_up_consumed").await;
    let executed = consumed[0]["metadata_json"]["request_decision_id"].as_str().unwrap().to_owned();
    assert_eq!(
        (&of(&executed)["decision"], &of(&executed)["metadata_json"]["approval_id"]),
        (&json!("allow"), &json!(id))
    );
    let results = edge.ledger_with("gateway_resource_request", 3).await;
    let result = |status: &str| results.iter().filter(|event| event["evaluation_status"] == status).count();
    assert_eq!((result("executed"), result("replayed")), (2, 1));
    let count = |outcome: &str| {
        edge.running().app.metrics.guards.with_label_values(&[ZONE, ECHO, "large", outcome]).get()
    };
    assert_eq!((count("asked"), count("approved")), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_2_other_arguments_on_the_same_approval_are_refused_and_not_forwarded() {
    let (edge, agent) = bench().await;
    let id = pay(&edge, &agent, LARGE).await.id();
    answer(&edge, &id, true).await;
    let changed = [
        LARGE.replace("5000", "5001"),
        LARGE.replace("acme", "evil"),
        LARGE.replace("note-", "Note-"),
        format!("{LARGE} "),
        // Below the limit, so that no guard would ask: it still is not what was approved.
        r#"{"amount":1}"#.to_owned(),
    ];
    for body in &changed {
        let refused = pay_on(&edge, &agent, body, &id).await;
        assert_eq!(
            (refused.status, refused.error().as_str()),
            (403, "approval_mismatch"),
            "{body}: {refused:?}"
        );
    }
    let on = async |path: &str, kind: &str| {
        let mandate = agent.mint(&edge, &["echo:write"]).await;
        let request = edge.http.post(format!("{}{path}", edge.gateway())).header("x-caracal-resource", ECHO);
        let request =
            request.bearer_auth(mandate).header("content-type", kind).header("x-caracal-approval", &id);
        got(request.body(LARGE)).await.error()
    };
    for (path, kind) in [
        ("/write/pay?x=1", "application/json"),
        ("/write/p%61y", "application/json"),
        ("/write/pay/a", "application/json"),
        ("/write/pay", "application/json; charset=utf-8"),
    ] {
        assert_eq!(on(path, kind).await, "approval_mismatch", "{path} {kind}");
    }
    for other in ["nothing", "00000000-0000-4000-8000-000000000000"] {
        assert_eq!(pay_on(&edge, &agent, LARGE, other).await.error(), "approval_mismatch");
    }
    assert_eq!(edge.upstream.count(), 0);
    let listed = ask(&edge, Request::Approvals { zone: None, all: true }).await.unwrap();
    assert_eq!(listed["approvals"].as_array().unwrap().len(), 1, "and nobody is asked about them");
    // Without the reference another request is another question.
    assert_ne!(pay(&edge, &agent, &changed[0]).await.id(), id);
    assert_eq!(
        pay_on(&edge, &agent, LARGE, &id).await.status,
        200,
        "the yes is still good for what it was given to"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_3_a_changed_rule_or_an_expiry_asks_anew() {
    let clock = Clock::manual(Clock::system().now());
    let embedding = Embedding { clock: clock.clone(), ..Embedding::default() };
    let (edge, agent) = with(Plan { embedding, ..plan(GUARD) }).await;
    let first = pay(&edge, &agent, LARGE).await.id();
    answer(&edge, &first, true).await;
    let stricter = edge.bundle_text().replace("body.amount > 1000", "body.amount > 100");
    let tier = edge.bundle_text().replace("ttl_seconds = 900", "ttl_seconds = 600");
    for (text, approval) in [(stricter, "approval_mismatch"), (tier, "approval_mismatch")] {
        std::fs::write(edge.bundle(), text).unwrap();
        ask(&edge, Request::Reload).await.unwrap();
        assert_eq!(pay_on(&edge, &agent, LARGE, &first).await.error(), approval);
        assert_ne!(pay(&edge, &agent, LARGE).await.id(), first);
    }
    std::fs::write(edge.bundle(), edge.bundle_text()).unwrap();
    ask(&edge, Request::Reload).await.unwrap();
    clock.advance(Duration::from_secs(901));
    assert_eq!(pay_on(&edge, &agent, LARGE, &first).await.error(), "approval_mismatch");
    let anew = pay(&edge, &agent, LARGE).await;
    assert_eq!((anew.error().as_str(), anew.id() == first), ("interaction_required", false));
    assert_eq!(edge.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_4_nobody_answers_and_the_denial_names_the_original_decision() {
    let clock = Clock::manual(Clock::system().now());
    let embedding = Embedding { clock: clock.clone(), ..Embedding::default() };
    let (edge, agent) = with(Plan { embedding, ..plan(GUARD) }).await;
    let held = pay(&edge, &agent, LARGE).await;
    let other = pay(&edge, &agent, &LARGE.replace("acme", "other")).await;
    clock.advance(Duration::from_secs(901));
    // One is found by whoever asks again, the other one by the sweep; neither twice.
    let again = pay(&edge, &agent, LARGE).await;
    assert_ne!(again.id(), held.id());
    let lines = edge.ledger_with("step_up_expired", 2).await;
    let expired: Vec<_> = lines.iter().filter(|event| event["event_type"] == "step_up_expired").collect();
    for held in [&held, &other] {
        let of: Vec<_> =
            expired.iter().filter(|event| event["metadata_json"]["challenge_id"] == held.id()).collect();
        assert_eq!(of.len(), 1);
        assert_eq!(of[0]["decision"], "deny");
        assert_eq!(of[0]["metadata_json"]["decision_id"], held.json()["decision_id"]);
    }
    assert_eq!(edge.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_at_once_exactly_one_passes() {
    let (edge, agent) = bench().await;
    for round in 0..20 {
        let body = LARGE.replace("acme", &format!("acme-{round}"));
        let id = pay(&edge, &agent, &body).await.id();
        answer(&edge, &id, true).await;
        let (one, two) = (
            request(&edge, &agent, "/write/pay", &body).await,
            request(&edge, &agent, "/write/pay", &body).await,
        );
        let (one, two) = tokio::join!(got(one), got(two));
        let passed = [&one, &two].iter().filter(|got| got.status == 200 && got.replayed().is_none()).count();
        assert_eq!(passed, 1, "{one:?} {two:?}");
        for got in [&one, &two] {
            // The second one came too early for the outcome, or had it repeated.
            assert!(
                got.status == 200 || (got.status, got.error().as_str()) == (409, "approval_consumed"),
                "{got:?}"
            );
        }
        assert_eq!(edge.upstream.count(), round + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_no_sticks() {
    let (edge, agent) = bench().await;
    let id = pay(&edge, &agent, LARGE).await.id();
    answer(&edge, &id, false).await;
    for got in [pay(&edge, &agent, LARGE).await, pay_on(&edge, &agent, LARGE, &id).await] {
        assert_eq!((got.status, got.error().as_str()), (403, "approval_rejected"), "{got:?}");
        assert_eq!(got.json()["state"], "rejected");
        assert!(!got.text.contains("checked"), "the reason is for the ledger");
    }
    assert_eq!(edge.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_can_use_it_and_an_ended_session_cannot_either() {
    let (edge, agent) = bench().await;
    let id = pay(&edge, &agent, LARGE).await.id();
    answer(&edge, &id, true).await;
    let other = Agent::provision(&edge, &BOTH).await;
    assert_eq!(pay_on(&edge, &other, LARGE, &id).await.error(), "approval_mismatch");
    assert_ne!(pay(&edge, &other, LARGE).await.id(), id);
    let mandate = agent.mint(&edge, &["echo:write"]).await;
    let url = format!("{}/zones/{ZONE}/agents/{}", edge.coordinator(), agent.target);
    assert_eq!(edge.http.delete(url).bearer_auth(&agent.bearer).send().await.unwrap().status(), 204);
    let request = edge.http.post(format!("{}/write/pay", edge.gateway())).header("x-caracal-resource", ECHO);
    let request = request.bearer_auth(mandate).header("content-type", "application/json").body(LARGE);
    assert_eq!(got(request).await.status, 401);
    assert_eq!(edge.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_that_refuses_is_asked_first_and_a_yes_does_not_outweigh_it() {
    let never = r#"{ name = "never", when = "has(body.to) && body.to == \"evil\"" }"#;
    let (edge, agent) = with(plan(&format!("{GUARD}, {never}"))).await;
    assert_eq!(pay(&edge, &agent, &LARGE.replace("acme", "evil")).await.error(), "guard_denied");
    let id = pay(&edge, &agent, LARGE).await.id();
    answer(&edge, &id, true).await;
    let later = edge.bundle_text().replace(r#"body.to == \"evil\""#, r#"body.to == \"acme\""#);
    assert_ne!(later, edge.bundle_text());
    std::fs::write(edge.bundle(), later).unwrap();
    ask(&edge, Request::Reload).await.unwrap();
    assert_eq!(pay_on(&edge, &agent, LARGE, &id).await.error(), "guard_denied");
    assert_eq!(edge.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_every_kind_are_bound_and_upgrades_are_refused() {
    let any = r#"{ name = "any", when = "true", operations = ["POST /write/**"], effect = "approval", tier = "large" }"#;
    let (edge, agent) = with(plan(any)).await;
    let send = async |body: Vec<u8>, more: &[(&str, &str)]| {
        let mandate = agent.mint(&edge, &["echo:write"]).await;
        let mut request =
            edge.http.post(format!("{}/write/raw", edge.gateway())).header("x-caracal-resource", ECHO);
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        got(request.bearer_auth(mandate).body(body)).await
    };
    let binary: Vec<u8> = (0..=255).cycle().take(200 * 1024).collect();
    let held = send(binary.clone(), &[("content-encoding", "gzip")]).await;
    answer(&edge, &held.id(), true).await;
    let mut other = binary.clone();
    other[100_000] ^= 1;
    assert_ne!(send(other, &[("content-encoding", "gzip")]).await.id(), held.id());
    assert_ne!(send(binary.clone(), &[]).await.id(), held.id());
    assert_eq!(send(binary.clone(), &[("content-encoding", "gzip")]).await.status, 200);
    assert_eq!(edge.upstream.last().body, binary);
    let empty = send(Vec::new(), &[]).await;
    assert_eq!(empty.error(), "interaction_required");
    let upgrade = send(Vec::new(), &[("connection", "upgrade"), ("upgrade", "websocket")]).await;
    assert_eq!((upgrade.status, upgrade.error().as_str()), (403, "operation_not_permitted"), "{upgrade:?}");
    assert_eq!(edge.upstream.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_held_and_what_could_be_is_explained() {
    let (edge, agent) = bench().await;
    let held = pay(&edge, &agent, LARGE).await.json();
    let decision = held["decision_id"].as_str().unwrap();
    edge.ledger().await;
    let (code, text, notes) = caracal(&edge, &["explain", decision, "--json"]).await;
    assert_eq!(code, 0, "{notes}");
    let told: Value = serde_json::from_str(&text).unwrap();
    let told = &told["decisions"][0];
    assert_eq!(told["reason"], "request_held", "{told}");
    let last = told["path"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["rule"], &last["holds"]), (&json!("guards"), &json!(false)), "{told}");
    assert!(last["compared"].as_str().unwrap().contains("asks for approval in tier `large`"), "{last}");
    assert!(told["advice"].as_str().unwrap().contains("caracal approvals"), "{told}");
    let (code, text, notes) = caracal(&edge, &["who-can", "POST", "/echo/write/pay"]).await;
    assert_eq!(code, 0, "{notes}");
    assert!(
        text.contains("where the guard `large` holds, once a person approves it in tier `large`"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_in_shadow_asks_nobody_and_is_counted() {
    let shadow = GUARD.replace("effect =", "mode = \"shadow\", effect =");
    let (edge, agent) = with(plan(&shadow)).await;
    assert_eq!(pay(&edge, &agent, LARGE).await.status, 200);
    let counted = &edge.running().app.metrics.guards;
    assert_eq!(counted.with_label_values(&[ZONE, ECHO, "large", "shadow_asked"]).get(), 1);
    let listed = ask(&edge, Request::Approvals { zone: None, all: true }).await.unwrap();
    assert!(listed["approvals"].as_array().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_shown_is_nowhere() {
    let (edge, agent) = bench().await;
    let mandate = agent.mint(&edge, &["echo:write"]).await;
    let send = edge.http.post(format!("{}/write/pay?token=query-canary", edge.gateway()));
    let send =
        send.header("x-caracal-resource", ECHO).bearer_auth(&mandate).header("x-tenant", "header-canary");
    let held = got(send.body(LARGE)).await;
    answer(&edge, &held.id(), true).await;
    let listed = ask(&edge, Request::Approvals { zone: None, all: true }).await.unwrap().to_string();
    let ledger = json!(edge.ledger().await).to_string();
    let files = std::fs::read_dir(edge.path("state")).unwrap().map(|entry| entry.unwrap().path());
    let stored: Vec<u8> =
        files.filter(|path| path.is_file()).flat_map(|path| std::fs::read(path).unwrap()).collect();
    assert!(stored.windows(4).any(|window| window == b"acme"), "the store keeps what is shown");
    for secret in ["note-nobody-is-shown", "query-canary", "header-canary", mandate.as_str(), CANARY] {
        for (place, text) in
            [("list", listed.as_bytes()), ("ledger", ledger.as_bytes()), ("store", &stored[..])]
        {
            let found = text.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} in the {place}");
        }
    }
    assert!(listed.contains("acme") && !ledger.contains("acme"), "the ledger has no values at all");
}
