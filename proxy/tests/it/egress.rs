//! Where the edge connects to, and where it does not: names that change, addresses inside, the operator's lists.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use caracal::egress::Resolver;
use caracal::serve::{Embedding, ServeOptions};
use parking_lot::Mutex;

use crate::edge::{Agent, Edge, Plan};

/// Names and their answers in turn; the last one stays.
#[derive(Debug, Default)]
pub struct Names {
    answers: Mutex<HashMap<String, Vec<Vec<IpAddr>>>>,
    asked: Mutex<Vec<String>>,
}

impl Names {
    pub fn of(entries: &[(&str, &[&[&str]])]) -> Arc<Self> {
        let parse = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        let answers = entries
            .iter()
            .map(|(name, answers)| ((*name).to_owned(), answers.iter().map(parse).rev().collect()));
        Arc::new(Self { answers: Mutex::new(answers.collect()), asked: Mutex::default() })
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

#[async_trait::async_trait]
impl Resolver for Names {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.lock().push(host.to_owned());
        let mut answers = self.answers.lock();
        let turns = answers.get_mut(host).ok_or(io::ErrorKind::NotFound)?;
        Ok(if turns.len() > 1 { turns.pop().unwrap() } else { turns[0].clone() })
    }
}

/// An edge whose resource leads to a name, on the port of the test's upstream.
async fn edge(names: &Arc<Names>, name: &str, config: &str) -> Edge {
    let resolver = Arc::<Names>::clone(names);
    let plan = Plan {
        config: config.to_owned(),
        provider: "kind = \"none\"".to_owned(),
        embedding: Embedding { resolver, ..Embedding::default() },
        ..Plan::default()
    };
    let mut edge = Edge::prepared(plan).await;
    let upstream = format!("upstream_url = \"http://{name}:{}\"", edge.upstream.address.port());
    let text = edge.bundle_text().replace(&format!("upstream_url = \"{}\"", edge.upstream.url()), &upstream);
    std::fs::write(edge.bundle(), text).unwrap();
    edge.boot(ServeOptions::default()).await.unwrap();
    edge
}

async fn call(edge: &Edge, agent: &Agent) -> (u16, String) {
    let mandate = agent.mint(edge, &["echo:read"]).await;
    let response = edge.get("/read/a", &mandate).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// The first answer is allowed and the second is not: a dialler that resolves again connects to the second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_that_was_checked_is_the_one_that_is_dialled() {
    let names = Names::of(&[("rebind.test", &[&["127.0.0.1"], &["169.254.169.254"]])]);
    let edge = edge(&names, "rebind.test", "").await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let (status, body) = call(&edge, &agent).await;
    assert_eq!(status, 200, "{body}");
    let port = edge.upstream.address.port();
    assert_eq!(edge.upstream.last().header("host"), [format!("rebind.test:{port}")]);
    assert_eq!(names.asked(), ["rebind.test"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_leads_inside_is_refused_without_telling_the_caller_where() {
    let names = Names::of(&[("evil.test", &[&["127.0.0.1", "::ffff:169.254.169.254"]])]);
    let edge = edge(&names, "evil.test", "").await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let (status, body) = call(&edge, &agent).await;
    assert_eq!(status, 502, "{body}");
    assert!(!body.contains("169.254") && !body.contains("metadata"), "{body}");
    assert_eq!(edge.upstream.count(), 0);
    let lines = edge.ledger_with("gateway_resource_request", 1).await;
    let result = lines.iter().find(|line| line["event_type"] == "gateway_resource_request").unwrap();
    assert_eq!(result["metadata_json"]["error_kind"], "upstream_not_addressable", "{result}");
    assert_eq!(result["evaluation_status"], "upstream_rejected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operators_networks_bound_what_names_lead_to() {
    let names = Names::of(&[("inside.test", &[&["127.0.0.1"]])]);
    let closed = edge(&names, "inside.test", "[egress]\nnetworks = []").await;
    let agent = Agent::provision(&closed, &["echo:read"]).await;
    assert_eq!(call(&closed, &agent).await.0, 502);
    assert_eq!(closed.upstream.count(), 0);
    let open = edge(&names, "inside.test", "[egress]\nnetworks = [\"127.0.0.0/8\"]").await;
    let agent = Agent::provision(&open, &["echo:read"]).await;
    assert_eq!(call(&open, &agent).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_that_leads_to_a_host_the_operator_does_not_list_does_not_start() {
    let mut edge = Edge::prepared(Plan {
        config: "[egress]\nhosts = [\"api.example.com\"]".to_owned(),
        ..Plan::default()
    })
    .await;
    let error = edge.boot(ServeOptions::default()).await.unwrap_err().to_string();
    assert!(
        error.contains("egress_host") && error.contains("`127.0.0.1` is not in [egress] hosts"),
        "{error}"
    );
}
