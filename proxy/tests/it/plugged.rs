//! Plugins of one's own in a whole edge: what they see, and what becomes of a request they end.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use caracal::serve::Embedding;
use caracal_plugins::{Declaration, Phase, Plugin, RequestView, ResponseView, Verdict};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::edge::{Agent, CANARY, Edge, Plan};

static SEEN: Mutex<String> = Mutex::new(String::new());
static RUNS: AtomicUsize = AtomicUsize::new(0);

/// Notes everything it is shown.
#[derive(Debug)]
struct Nosy;

impl Plugin for Nosy {
    fn name(&self) -> &'static str {
        "nosy"
    }

    fn declares(&self) -> Declaration {
        Declaration { phases: vec![Phase::Request], ..Declaration::default() }
    }

    fn on_request(&self, view: &mut RequestView<'_>) -> Verdict {
        RUNS.fetch_add(1, Ordering::SeqCst);
        write!(SEEN.lock(), "{view:?} {}", view.raw_path()).unwrap();
        for name in ["authorization", "x-api-key", "cookie", "x-caracal-resource", "referer", "x-note"] {
            for value in view.headers(name) {
                SEEN.lock().push_str(&String::from_utf8_lossy(value.as_bytes()));
            }
        }
        Verdict::Continue
    }
}

/// Panics in the phase its name says.
#[derive(Debug)]
struct Panics(&'static str, Phase);

impl Plugin for Panics {
    fn name(&self) -> &'static str {
        self.0
    }

    fn declares(&self) -> Declaration {
        Declaration { phases: vec![self.1], ..Declaration::default() }
    }

    fn on_request(&self, _view: &mut RequestView<'_>) -> Verdict {
        panic!("a plugin that panics on purpose")
    }

    fn on_response(&self, _view: &mut ResponseView<'_>) -> Verdict {
        panic!("a plugin that panics on purpose")
    }
}

/// Lets no answer pass.
#[derive(Debug)]
struct Strict;

impl Plugin for Strict {
    fn name(&self) -> &'static str {
        "strict"
    }

    fn declares(&self) -> Declaration {
        Declaration { phases: vec![Phase::Response], ..Declaration::default() }
    }

    fn on_response(&self, _view: &mut ResponseView<'_>) -> Verdict {
        Verdict::refuse("answer_not_wanted")
    }
}

/// An edge that knows these plugins and runs those of `list` on its resource.
async fn edge(list: &str) -> Edge {
    let mut embedding = Embedding::default();
    let registry = &mut embedding.registry;
    registry.register(caracal_example_plugin::NAME, caracal_example_plugin::make).unwrap();
    registry.register("nosy", |_| Ok(Arc::new(Nosy))).unwrap();
    registry.register("strict", |_| Ok(Arc::new(Strict))).unwrap();
    registry.register("panics_early", |_| Ok(Arc::new(Panics("panics_early", Phase::Request)))).unwrap();
    registry.register("panics_late", |_| Ok(Arc::new(Panics("panics_late", Phase::Response)))).unwrap();
    Edge::with(Plan { resource: format!("plugins = [{list}]"), embedding, ..Plan::default() }).await
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_plugin_decides_with_the_policy_and_its_fact_is_recorded() {
    let edge = edge("{ name = \"ticket\", open = [\"CHG-1\"] }").await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let (status, body) = answer(edge.get("/read/a", &mandate)).await;
    assert_eq!((status, &body["error"]), (403, &json!("plugin_refused")));
    assert!(body["error_description"].as_str().unwrap().ends_with("(ticket_missing)"), "{body}");
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let passed = edge.get("/read/a", &mandate).header("x-ticket", "CHG-1").send().await.unwrap();
    assert_eq!(passed.status(), 200);
    assert!(edge.upstream.last().header("x-ticket").is_empty());
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let policy = edge.get("/admin", &mandate).header("x-ticket", "CHG-1");
    assert_eq!(answer(policy).await.1["error"], "operation_not_permitted", "a plugin cannot allow");
    let lines = edge.ledger().await;
    let decisions: Vec<_> = lines.iter().filter(|line| line["event_type"] == "gateway_decision").collect();
    assert_eq!(decisions[0]["diagnostics_json"][0]["reason"], "ticket_missing");
    assert_eq!(decisions[1]["metadata_json"]["facts"]["ticket.number"], "CHG-1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugins_see_neither_mandate_nor_credential() {
    let edge = edge("{ name = \"nosy\" }").await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let mut mandates = Vec::new();
    let mut mint = async || {
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        mandates.push(mandate.clone());
        mandate
    };
    let named = mint().await;
    assert_eq!(edge.get("/read/a", &named).send().await.unwrap().status(), 200);
    let slot = mint().await;
    let prefixed = edge.http.get(format!("{}/echo/read/a", edge.gateway())).header("x-api-key", &slot);
    assert_eq!(prefixed.send().await.unwrap().status(), 200);
    let misplaced = mint().await;
    let request = edge.get("/read/a", &misplaced).header("x-note", &misplaced).header("referer", &misplaced);
    assert_eq!(request.send().await.unwrap().status(), 400);
    assert_eq!(RUNS.load(Ordering::SeqCst), 2, "a request with a misplaced mandate is shown to nobody");
    let seen = SEEN.lock().clone();
    assert!(seen.contains("/read/a"));
    assert!(mandates.iter().all(|mandate| !seen.contains(mandate)) && !seen.contains(CANARY));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_request_plugin_is_one_refusal_and_one_record() {
    let edge = edge("{ name = \"panics_early\" }").await;
    let mandate = edge.mandate().await;
    let (status, body) = answer(edge.get("/read/a", &mandate)).await;
    assert_eq!((status, &body["error"]), (500, &json!("plugin_fault")));
    let of_gateway = |line: &&Value| line["event_type"].as_str().unwrap().starts_with("gateway");
    let lines = edge.ledger().await;
    let records: Vec<_> = lines.iter().filter(of_gateway).collect();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(
        (&records[0]["decision"], &records[0]["evaluation_status"]),
        (&json!("deny"), &json!("plugin_fault"))
    );
    assert_eq!(edge.upstream.count(), 0);
    assert_eq!(edge.running().app.metrics.in_flight.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_plugin_that_refuses_or_panics_lets_nothing_of_the_answer_through() {
    for (plugin, status, code, said) in [
        ("strict", 403, "plugin_refused", "(answer_not_wanted)"),
        ("panics_late", 500, "plugin_fault", "failed"),
    ] {
        let edge = edge(&format!("{{ name = \"{plugin}\" }}")).await;
        let mandate = edge.mandate().await;
        let (answered, body) = answer(edge.get("/read/a", &mandate)).await;
        assert_eq!((answered, &body["error"]), (status, &json!(code)), "{body}");
        assert!(body["error_description"].as_str().unwrap().ends_with(said), "{body}");
        assert!(!body.to_string().contains("hello"));
        let lines = edge.ledger_with("gateway_resource_request", 1).await;
        let of_gateway =
            lines.iter().filter(|line| line["event_type"].as_str().unwrap().starts_with("gateway"));
        assert_eq!(of_gateway.count(), 2, "one decision, one result");
        let result = lines.iter().find(|line| line["event_type"] == "gateway_resource_request").unwrap();
        assert_eq!(result["metadata_json"]["error_kind"], "response_refused");
        assert_eq!(result["metadata_json"]["gateway_status"], status);
        assert_eq!(body["decision_id"], result["metadata_json"]["decision_id"]);
    }
}
