//! An axum application that verifies mandates itself, behind the edge: `examples/protected-axum`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use caracal_example_protected_axum::{HttpJwks, follow, router};
use caracal_mandates::StreamKey;
use caracal_mandates::resource_server::{MemoryRevocations, RevocationFeed, Revocations, Settings};
use caracal_mandates::tower::Protection;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::edge::{APP, Edge, Plan, ZONE, bootstrap, eventually, post, session, write_private};
use crate::redis::Redis;

const INVOICES: &str = "resource://invoices";

/// The application on a free port, protected once the edge in front of it is there.
struct App {
    address: std::net::SocketAddr,
    listener: tokio::net::TcpListener,
}

impl App {
    async fn bind() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { address: listener.local_addr().unwrap(), listener }
    }

    fn plan(&self) -> Plan {
        let zone = format!(
            r#"
[[providers]]
identifier = "provider://mandate"
kind = "caracal_mandate"

[[resources]]
identifier = "{INVOICES}"
upstream_url = "http://{}"
scopes = ["invoices:read", "invoices:pay"]
credential_provider = "provider://mandate"
operations = [
    {{ method = "GET", path = "/invoices", scope = "invoices:read" }},
    {{ method = "POST", path = "/invoices/{{id}}/pay", scope = "invoices:read" }},
]

[grants."{INVOICES}"]
application = "one"
roles = {{ {APP} = ["invoices:read", "invoices:pay"] }}
"#,
            self.address
        );
        Plan { zone, ..Plan::default() }
    }
}

/// What an application instance is told about itself, and what it remembers.
struct Instance {
    base: String,
    revocations: Arc<MemoryRevocations>,
    /// Seconds its clock is ahead.
    ahead: Arc<AtomicI64>,
    /// Bearer tokens that arrived.
    seen: Arc<Mutex<Vec<String>>>,
}

/// Serves the example's router as it is, with an ear at its front.
fn serve(listener: tokio::net::TcpListener, issuer: &str, audience: &str, zone: &str) -> Instance {
    let revocations = Arc::new(MemoryRevocations::default());
    let view = Arc::clone(&revocations);
    serve_with(listener, issuer, audience, zone, revocations, view)
}

/// As [`serve`], asking `view` what is revoked.
fn serve_with(
    listener: tokio::net::TcpListener,
    issuer: &str,
    audience: &str,
    zone: &str,
    revocations: Arc<MemoryRevocations>,
    view: Arc<dyn Revocations>,
) -> Instance {
    let ahead = Arc::new(AtomicI64::new(0));
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let (offset, heard) = (Arc::clone(&ahead), Arc::clone(&seen));
    let clock = move || unix_seconds() + offset.load(Ordering::Relaxed);
    let settings = Settings::new(issuer, audience, zone);
    let protection = Protection::new(settings, HttpJwks::new().unwrap(), view, clock).unwrap();
    let listening =
        axum::middleware::from_fn(move |request: axum::extract::Request, next: axum::middleware::Next| {
            if let Some(value) = request.headers().get("authorization") {
                heard.lock().push(value.to_str().unwrap().trim_start_matches("Bearer ").to_owned());
            }
            next.run(request)
        });
    let base = format!("http://{}", listener.local_addr().unwrap());
    let app = router(&protection).layer(listening);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Instance { base, revocations, ahead, seen }
}

async fn another(issuer: &str, audience: &str, zone: &str) -> Instance {
    serve(tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(), issuer, audience, zone)
}

fn unix_seconds() -> i64 {
    caracal::clock::Clock::system().now_s()
}

/// A fresh gateway mandate for the application.
async fn mandate(edge: &Edge, scopes: &str) -> String {
    let bearer = bootstrap(edge).await;
    let source = session(edge, &bearer, json!({})).await.unwrap();
    let target = session(edge, &bearer, json!({})).await.unwrap();
    let delegation = json!({
        "issuer_application_id": APP, "receiver_application_id": APP,
        "source_session_id": source, "target_session_id": target,
        "constraints": { "resources": [INVOICES] },
        "scopes": scopes.split(' ').collect::<Vec<_>>(), "ttl_seconds": 1020,
    });
    let (status, body) = post(edge, &bearer, "/delegations", delegation).await.unwrap();
    assert_eq!(status, 201, "{body}");
    let edge_id = body["delegation_edge_id"].as_str().unwrap();
    let fields = [
        ("resource", INVOICES),
        ("scope", scopes),
        ("agent_session_id", &target),
        ("delegation_edge_id", edge_id),
    ];
    let (status, body) = edge.try_token(&fields).await.unwrap();
    assert_eq!(status, 200, "{body}");
    body["access_token"].as_str().unwrap().to_owned()
}

async fn through(edge: &Edge, method: reqwest::Method, path: &str, scopes: &str) -> (u16, Value) {
    let request = edge
        .http
        .request(method, format!("{}{path}", edge.gateway()))
        .header("x-caracal-resource", INVOICES)
        .bearer_auth(mandate(edge, scopes).await);
    outcome(request).await
}

async fn directly(edge: &Edge, instance: &Instance, token: &str) -> (u16, Value) {
    outcome(edge.http.get(format!("{}/invoices", instance.base)).bearer_auth(token)).await
}

async fn outcome(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn code((status, body): (u16, Value)) -> (u16, String) {
    (status, body["error"].as_str().unwrap_or_default().to_owned())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_application_behind_the_edge_sees_the_verified_caller() {
    let app = App::bind().await;
    let edge = Edge::with(app.plan()).await;
    serve(app.listener, &edge.authority(), INVOICES, ZONE);
    let (status, told) = through(&edge, reqwest::Method::GET, "/invoices", "invoices:read").await;
    assert_eq!(status, 200, "{told}");
    let caller = &told["asked_by"];
    assert_eq!((&caller["application"], &caller["zone"]), (&json!(APP), &json!(ZONE)));
    assert!(caller["session"].is_string() && caller["delegation"].is_string(), "{told}");
    assert_eq!(told["payable"], json!(false));
    // The edge's operation lets this through with reading alone; the application knows better.
    let (status, told) = through(&edge, reqwest::Method::POST, "/invoices/7/pay", "invoices:read").await;
    assert_eq!((status, &told["error"]), (403, &json!("insufficient_scope")), "{told}");
    let (status, told) =
        through(&edge, reqwest::Method::POST, "/invoices/7/pay", "invoices:pay invoices:read").await;
    assert_eq!((status, &told["paid"]), (200, &json!("7")), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_application_refuses_what_is_not_for_it_not_now_or_taken_back() {
    let app = App::bind().await;
    let edge = Edge::with(app.plan()).await;
    let issuer = edge.authority();
    let instance = serve(app.listener, &issuer, INVOICES, ZONE);
    let (status, told) = through(&edge, reqwest::Method::GET, "/invoices", "invoices:read").await;
    assert_eq!(status, 200, "{told}");
    // The mandate the edge made for that call is what an attacker upstream could get hold of.
    let token = instance.seen.lock().last().unwrap().clone();
    assert_eq!(directly(&edge, &instance, &token).await.0, 200);
    let bare = edge.http.get(format!("{}/invoices", instance.base));
    assert_eq!(code(outcome(bare).await), refused(401, "missing_token"));
    let gateway = mandate(&edge, "invoices:read").await;
    assert_eq!(
        code(directly(&edge, &instance, &gateway).await),
        refused(401, "invalid_token"),
        "another class"
    );

    let elsewhere = another(&issuer, "resource://other", ZONE).await;
    assert_eq!(
        code(directly(&edge, &elsewhere, &token).await),
        refused(401, "invalid_token"),
        "another audience"
    );
    let foreign = another(&issuer, INVOICES, "z2").await;
    assert_eq!(
        code(directly(&edge, &foreign, &token).await),
        refused(401, "invalid_token"),
        "a zone without keys"
    );

    instance.ahead.store(121, Ordering::Relaxed);
    assert_eq!(code(directly(&edge, &instance, &token).await), refused(401, "invalid_token"), "expired");
    instance.ahead.store(0, Ordering::Relaxed);
    let delegation = told["asked_by"]["delegation"].as_str().unwrap();
    instance.revocations.revoke(delegation, unix_seconds() * 1_000).unwrap();
    assert_eq!(code(directly(&edge, &instance, &token).await), refused(401, "session_revoked"));
    let (status, told) = through(&edge, reqwest::Method::GET, "/invoices", "invoices:read").await;
    assert_eq!(status, 200, "another delegation is not concerned: {told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_follows_the_fleet_refuses_what_an_edge_revoked_and_everything_when_it_hears_nothing()
 {
    let mut redis = Redis::start().await;
    let app = App::bind().await;
    let mut plan = app.plan();
    plan.config = redis.config();
    let stream_key = "5a".repeat(32);
    let mut edge = Edge::prepared(plan).await;
    write_private(&edge.path("stream.key"), &stream_key);
    edge.boot(caracal::serve::ServeOptions::default()).await.unwrap();
    let feed = Arc::new(RevocationFeed::new(StreamKey::parse(&stream_key).unwrap(), 2_000));
    let (address, followed) = (format!("redis://127.0.0.1:{}", redis.port), Arc::clone(&feed));
    let clock = || caracal::clock::Clock::system().now();
    let following = tokio::spawn(async move { follow(&address, followed, clock).await });
    eventually("the list is taken", async || feed.current(clock())).await;
    let issuer = edge.authority();
    let view: Arc<dyn Revocations> = Arc::<RevocationFeed>::clone(&feed);
    let instance = serve_with(app.listener, &issuer, INVOICES, ZONE, Arc::default(), view);

    let (status, told) = through(&edge, reqwest::Method::GET, "/invoices", "invoices:read").await;
    assert_eq!(status, 200, "{told}");
    let token = instance.seen.lock().last().unwrap().clone();
    assert_eq!(directly(&edge, &instance, &token).await.0, 200);
    let ended = told["asked_by"]["session"].as_str().unwrap();
    let target = caracal::state::Target::Session(ended.into());
    edge.running().app.state.revoke(ZONE, &target, "leaked").await.unwrap();
    let bites = async || code(directly(&edge, &instance, &token).await) == refused(401, "session_revoked");
    eventually("the revocation is heard", bites).await;

    let (status, told) = through(&edge, reqwest::Method::GET, "/invoices", "invoices:read").await;
    assert_eq!(status, 200, "another session goes on: {told}");
    let token = instance.seen.lock().last().unwrap().clone();
    redis.kill();
    let refuses = async || directly(&edge, &instance, &token).await.0 == 401;
    eventually("who hears nothing lets nobody in", refuses).await;
    redis.run().await;
    eventually("and recovers by itself", async || directly(&edge, &instance, &token).await.0 == 200).await;
    let told_again = async || redis.has(&format!("caracal:revoked:sessions:{ended}")).await;
    eventually("the edge tells the new server what ended", told_again).await;
    eventually("which is heard too", async || feed.is_revoked(ended, clock()) == Ok(true)).await;
    following.abort();
}
