//! Access tokens that the edge fetches: what is asked for, kept, replaced, refused and told.

use std::sync::Arc;
use std::time::Duration;

use caracal::clock::Clock;
use caracal::control::{Request, call, socket_path};
use caracal::serve::{Embedding, ServeOptions};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::edge::{Agent, Edge, Plan, ZONE, eventually, write_private};
use crate::egress::Names;
use crate::tokens::{CLIENT, CLIENT_SECRET, LIFE, Mode, TokenServer, form};
use crate::upstream::respond;

struct Case {
    edge: Edge,
    server: TokenServer,
    clock: Clock,
    agent: Agent,
}

impl Case {
    async fn start() -> Self {
        Self::with("", TokenServer::start().await).await
    }

    /// `more` are further members of the provider; it names `server` unless they do.
    async fn with(more: &str, server: TokenServer) -> Self {
        Self::embedded(more, server, Embedding::default()).await
    }

    async fn embedded(more: &str, server: TokenServer, embedding: Embedding) -> Self {
        let named = more.contains("issuer") || more.contains("token_endpoint");
        let source = if named { String::new() } else { format!("token_endpoint = \"{}\"\n", server.url()) };
        let method = if more.contains("client_auth_method") {
            ""
        } else {
            "client_secret = \"secret://idp/client_secret\"\n"
        };
        let provider = format!(
            "kind = \"oauth2_client_credentials\"\nclient_id = \"{CLIENT}\"\n{source}{method}{more}\n"
        );
        let clock = Clock::manual(1_790_000_000_000);
        let embedding = Embedding { clock: clock.clone(), ..embedding };
        let mut edge = Edge::prepared(Plan { provider, embedding, ..Plan::default() }).await;
        secrets(&edge, &server, CLIENT_SECRET, "");
        edge.boot(ServeOptions::default()).await.unwrap();
        let agent = Agent::provision(&edge, &["echo:read"]).await;
        Self { edge, server, clock, agent }
    }

    /// One call; status, error code and body.
    async fn call(&self, path: &str) -> (u16, String, String) {
        let mandate = self.agent.mint(&self.edge, &["echo:read"]).await;
        let response = self.edge.get(path, &mandate).send().await.unwrap();
        let code = response.headers().get("x-caracal-error").map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), code.unwrap_or_default(), response.text().await.unwrap())
    }

    async fn passes(&self, token: &str) {
        let (status, _, body) = self.call("/read/a").await;
        assert_eq!(status, 200, "{body}");
        let seen = self.edge.upstream.last();
        let [sent] = seen.header("authorization")[..] else { panic!("{}", seen.head) };
        assert!(sent.starts_with(&format!("Bearer {token}-")), "{sent}");
    }

    fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    async fn results(&self, count: usize) -> Vec<Value> {
        let lines = self.edge.ledger_with("gateway_resource_request", count).await;
        lines.into_iter().filter(|line| line["event_type"] == "gateway_resource_request").collect()
    }

    async fn metrics(&self) -> String {
        self.edge.http.get(format!("{}/metrics", self.edge.ops())).send().await.unwrap().text().await.unwrap()
    }

    async fn operate(&self, request: Request) -> Result<Value, String> {
        let socket = socket_path(&self.edge.path("state"));
        call(&socket, &request).await.map_err(|error| error.to_string())
    }
}

fn secrets(edge: &Edge, server: &TokenServer, secret: &str, more: &str) {
    let text = format!(
        "schema = 1\n[secrets.idp]\nzones = [\"{ZONE}\"]\nhosts = [\"{}\", \"{}\"]\nclient_secret = \"{secret}\"\n{more}\n",
        edge.upstream.address, server.address
    );
    write_private(&edge.path("secrets.toml"), &text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_fetched_once_injected_and_recorded() {
    let case = Case::with(
        "scopes = [\"a\", \"b\"]\naudience = \"https://api\"\nresource = \"urn:x\"\ntoken_params = { tenant = \"t 1\" }",
        TokenServer::start().await,
    )
    .await;
    case.passes("at-1").await;
    case.passes("at-1").await;
    let asked = case.server.asked();
    assert_eq!(asked.len(), 1, "the second call had a token");
    let fields = form(&asked[0].body);
    let expected = [
        ("grant_type", "client_credentials"),
        ("audience", "https://api"),
        ("resource", "urn:x"),
        ("scope", "a b"),
        ("tenant", "t 1"),
    ];
    let expected: Vec<_> = expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    assert_eq!(fields, expected);
    let results = case.results(2).await;
    for line in &results {
        let metadata = &line["metadata_json"];
        assert_eq!(metadata["provider_id"], "provider://echo", "{line}");
        assert_eq!(metadata["auth_mode"], "provider_oauth");
        assert_eq!(
            (&metadata["secrets_generation"], &metadata["token_secrets_generation"]),
            (&1.into(), &1.into())
        );
        assert_eq!(metadata["credential_fingerprint"].as_str().unwrap().len(), 16);
    }
    let metrics = case.metrics().await;
    for line in [
        "caracal_provider_tokens_total{provider=\"provider://echo\",source=\"fetched\",zone=\"z1\"} 1",
        "caracal_provider_tokens_total{provider=\"provider://echo\",source=\"kept\",zone=\"z1\"} 1",
        "caracal_provider_token_fetches_total{outcome=\"ok\",provider=\"provider://echo\",zone=\"z1\"} 1",
        "caracal_provider_token_fetch_duration_seconds_count{provider=\"provider://echo\",zone=\"z1\"} 1",
    ] {
        assert!(metrics.contains(&line.replace("z1", ZONE)), "{line}\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_may_show_its_secret_in_the_form() {
    let more = "client_auth_method = \"client_secret_post\"\nclient_secret = \"secret://idp/client_secret\"\n\
                auth_header = \"X-Token\"\nauth_scheme = \"Token\"";
    let case = Case::with(more, TokenServer::start().await).await;
    let (status, _, body) = case.call("/read/a").await;
    assert_eq!(status, 200, "{body}");
    assert!(case.server.asked()[0].header("authorization").is_empty());
    assert!(case.edge.upstream.last().header("x-token")[0].starts_with("Token at-1-"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_fetched_for_a_request_that_is_not_permitted() {
    let case = Case::start().await;
    let (status, ..) = case.call("/admin").await;
    assert_eq!(status, 403);
    assert_eq!(case.server.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_bring_one_fetch() {
    let case = Case::start().await;
    let gate = Arc::new(Semaphore::new(0));
    case.server.answer(Mode::Gated(Arc::clone(&gate)));
    let mut mandates = Vec::new();
    for _ in 0..20 {
        mandates.push(case.agent.mint(&case.edge, &["echo:read"]).await);
    }
    let calls = mandates.iter().map(|mandate| case.edge.get("/read/a", mandate).send());
    let calls = futures_util::future::join_all(calls);
    let app = Arc::clone(&case.edge.running().app);
    let open = async {
        eventually("all wait", async || app.metrics.in_flight.get() == 20).await;
        eventually("one asks", async || case.server.count() > 0).await;
        assert_eq!(case.server.count(), 1);
        gate.add_permits(1);
    };
    let (answers, ()) = tokio::join!(calls, open);
    assert!(answers.into_iter().all(|answer| answer.unwrap().status() == 200));
    assert_eq!(case.server.count(), 1);
}

/// What the caller, the ledger and the metrics are told about each way a token endpoint can fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_answer_has_its_refusal() {
    let case = Case::start().await;
    let json = |status, body: &str| Mode::Raw(respond(status, "Content-Type: application/json\r\n", body));
    let evil = format!("Location: http://{}/read/stolen\r\n", case.edge.upstream.address);
    let huge = format!(r#"{{"access_token":"x","padding":"{}"}}"#, "p".repeat(70_000));
    let token = |members: &str| json(200, &format!(r#"{{"access_token":"at-9"{members}}}"#));
    let cases = [
        (json(500, "cs-canary"), 502, "http_request_failed", "provider_unavailable"),
        (json(400, r#"{"error":"invalid_scope"}"#), 502, "http_request_failed", "provider_refused"),
        (json(401, r#"{"error":"invalid_client"}"#), 502, "http_request_failed", "provider_refused"),
        (json(429, ""), 429, "provider_rate_limited", "provider_rate_limited"),
        (json(200, "<html>"), 502, "http_request_failed", "provider_answer_invalid"),
        (json(200, "{}"), 502, "http_request_failed", "provider_answer_invalid"),
        (token(r#","token_type":"mac""#), 502, "http_request_failed", "provider_answer_invalid"),
        (token(r#","expires_in":-1"#), 502, "http_request_failed", "provider_answer_invalid"),
        (json(200, r#"{"access_token":"a\r\nb"}"#), 502, "http_request_failed", "provider_answer_invalid"),
        (json(200, &huge), 502, "http_request_failed", "provider_answer_invalid"),
        (Mode::Raw(respond(307, &evil, "")), 502, "http_request_failed", "provider_answer_invalid"),
    ];
    for (index, (mode, status, code, label)) in cases.into_iter().enumerate() {
        case.server.answer(mode);
        // Past the pause after the failure before, and past the circuit breaker.
        case.wait(31);
        let (got, error, body) = case.call("/read/a").await;
        assert_eq!((got, error.as_str()), (status, code), "{label}: {body}");
        assert!(!body.contains("canary"), "{body}");
        let results = case.results(index + 1).await;
        let last = &results[index]["metadata_json"];
        assert_eq!((&last["error_kind"], &last["provider_id"]), (&label.into(), &"provider://echo".into()));
    }
    assert_eq!(case.edge.upstream.count(), 0, "nothing went upstream, and no redirect was followed");
    case.server.answer(Mode::Good(LIFE));
    case.wait(31);
    let (status, ..) = case.call("/read/a").await;
    assert_eq!(status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_token_endpoint_is_given_up() {
    let case = Case::start().await;
    case.server.answer(Mode::Silent);
    let started = std::time::Instant::now();
    let (status, code, _) = case.call("/read/a").await;
    assert_eq!((status, code.as_str()), (502, "http_request_failed"));
    assert!(started.elapsed() < Duration::from_secs(9), "it waited {:?}", started.elapsed());
    assert_eq!(case.server.count(), 1, "whoever is slow is not asked twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_endpoint_that_keeps_failing_is_left_alone_and_tried_by_one() {
    let case = Case::start().await;
    case.server.answer(Mode::Raw(respond(400, "", r#"{"error":"invalid_client"}"#)));
    for _ in 0..5 {
        case.call("/read/a").await;
        case.wait(2);
    }
    assert_eq!(case.server.count(), 5);
    let (status, code, body) = case.call("/read/a").await;
    assert_eq!((status, code.as_str()), (502, "http_request_failed"));
    assert!(body.contains("left alone"), "{body}");
    assert_eq!(case.server.count(), 5);
    let listed = case.operate(Request::Providers { zone: None }).await.unwrap();
    assert_eq!(listed["providers"][0]["circuit_open"], true, "{listed}");
    // Half open: one probes, and nobody waits behind it.
    case.wait(31);
    let gate = Arc::new(Semaphore::new(0));
    case.server.answer(Mode::Gated(Arc::clone(&gate)));
    let mandate = case.agent.mint(&case.edge, &["echo:read"]).await;
    let probe = case.edge.get("/read/a", &mandate).send();
    let meanwhile = async {
        eventually("the probe is under way", async || case.server.count() == 6).await;
        let (status, _, body) = case.call("/read/a").await;
        assert_eq!(status, 502, "{body}");
        gate.add_permits(1);
    };
    let (probed, ()) = tokio::join!(probe, meanwhile);
    assert_eq!(probed.unwrap().status(), 200);
    case.passes("at-6").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_replaced_before_it_expires() {
    let case = Case::start().await;
    case.server.answer(Mode::Good(r#""token_type":"Bearer","expires_in":"300""#));
    case.passes("at-1").await;
    case.wait(205);
    case.passes("at-1").await;
    assert_eq!(case.server.count(), 1);
    // Within a minute of its last use: still used, and replaced behind the scenes.
    case.wait(10);
    case.passes("at-1").await;
    eventually("it is replaced", async || {
        let listed = case.operate(Request::Providers { zone: None }).await.unwrap();
        listed["providers"][0]["token"]["expires_in_seconds"] == 300
    })
    .await;
    case.passes("at-2").await;
    // A refresh that fails leaves it in use, until half a minute before its end.
    case.server.answer(Mode::Raw(respond(500, "", "")));
    case.wait(269);
    case.passes("at-2").await;
    eventually("the refresh has failed", async || {
        let listed = case.operate(Request::Providers { zone: None }).await.unwrap();
        listed["providers"][0]["failures"] == 1
    })
    .await;
    assert_eq!(case.server.count(), 4, "it was tried once more");
    case.server.answer(Mode::Good(LIFE));
    case.wait(2);
    case.passes("at-5").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_without_a_life_is_kept_for_an_hour_and_a_short_one_not_at_all() {
    let case = Case::start().await;
    case.server.answer(Mode::Good(r#""token_type":"Bearer""#));
    case.passes("at-1").await;
    let listed = case.operate(Request::Providers { zone: None }).await.unwrap();
    assert_eq!(listed["providers"][0]["token"]["expires_in_seconds"], 3600, "{listed}");
    let short = Case::start().await;
    short.server.answer(Mode::Good(r#""token_type":"Bearer","expires_in":20"#));
    short.passes("at-1").await;
    short.passes("at-2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_secret_brings_another_token_and_a_foreign_one_does_not() {
    let case = Case::start().await;
    case.passes("at-1").await;
    secrets(&case.edge, &case.server, CLIENT_SECRET, "other = \"something else\"");
    case.operate(Request::Reload).await.unwrap();
    case.passes("at-1").await;
    let results = case.results(2).await;
    let metadata = &results[1]["metadata_json"];
    assert_eq!(
        (&metadata["secrets_generation"], &metadata["token_secrets_generation"]),
        (&2.into(), &1.into())
    );
    case.server.rotate("cs-new-secret");
    secrets(&case.edge, &case.server, "cs-new-secret", "");
    case.operate(Request::Reload).await.unwrap();
    case.passes("at-2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_a_body_is_sent_again_with_a_fresh_token() {
    let case = Case::start().await;
    let (status, _, body) = case.call("/read/stale").await;
    assert_eq!((status, case.server.count(), case.edge.upstream.count()), (200, 2, 2), "{body}");
    let results = case.results(1).await;
    assert_eq!(results[0]["metadata_json"]["upstream_status"], 200);
    // An upstream that never takes a token does not make us fetch one each time.
    for _ in 0..3 {
        let (status, ..) = case.call("/read/never").await;
        assert_eq!(status, 401);
    }
    assert_eq!((case.server.count(), case.edge.upstream.count()), (2, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_with_a_body_is_not_sent_again_but_the_next_one_has_a_fresh_token() {
    let case = Case::start().await;
    let mandate = case.agent.mint(&case.edge, &["echo:read"]).await;
    let url = format!("{}/read/stale", case.edge.gateway());
    let posted =
        case.edge.http.post(url).header("x-caracal-resource", crate::edge::ECHO).bearer_auth(&mandate);
    assert_eq!(posted.body("order").send().await.unwrap().status(), 401);
    assert_eq!(case.edge.upstream.count(), 1);
    case.passes("at-2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_names_its_token_endpoint_in_its_metadata() {
    let server = TokenServer::start().await;
    let issuer = format!("issuer = \"http://{}\"", server.address);
    let case = Case::with(&issuer, server).await;
    case.passes("at-1").await;
    let good = case.server.metadata.lock().clone();
    let other = format!("http://localhost:{}/oauth/token", case.server.address.port());
    let through = format!("{}/read/token", case.edge.upstream.url());
    let cases = [
        (("http://127.0.0.1:1".to_owned(), good.1.clone()), "provider_answer_invalid"),
        ((format!("{}/", good.0), good.1.clone()), "provider_answer_invalid"),
        ((good.0.clone(), "http://id.example/token".to_owned()), "provider_answer_invalid"),
        ((good.0.clone(), other), "provider_host_not_allowed"),
        ((good.0.clone(), through), "provider_not_addressable"),
    ];
    for (index, (metadata, kind)) in cases.into_iter().enumerate() {
        *case.server.metadata.lock() = metadata;
        // Another secret is another token; nothing that is kept answers.
        case.server.rotate(&format!("cs-{index}-secret"));
        secrets(&case.edge, &case.server, &format!("cs-{index}-secret"), "");
        case.operate(Request::Reload).await.unwrap();
        let (status, code, body) = case.call("/read/a").await;
        assert_eq!((status, code.as_str()), (502, "http_request_failed"), "{kind}: {body}");
        assert_eq!(case.results(index + 2).await[index + 1]["metadata_json"]["error_kind"], kind);
    }
    assert_eq!(case.server.count(), 1, "no secret went anywhere else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_metadata_service_is_never_asked_for_a_token() {
    let more = "client_auth_method = \"none\"\ntoken_endpoint = \"https://metadata.test/latest/token\"";
    let resolver = Names::of(&[("metadata.test", &[&["169.254.169.254"]])]);
    let embedding = Embedding { resolver, ..Embedding::default() };
    let case = Case::embedded(more, TokenServer::start().await, embedding).await;
    let (status, code, _) = case.call("/read/a").await;
    assert_eq!((status, code.as_str()), (502, "http_request_failed"));
    assert_eq!(case.results(1).await[0]["metadata_json"]["error_kind"], "provider_not_addressable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_can_try_a_provider_and_sees_no_token() {
    let case = Case::start().await;
    let test = |provider: &str| Request::ProviderTest { zone: None, provider: provider.to_owned() };
    let tried = case.operate(test("provider://echo")).await.unwrap();
    assert_eq!((&tried["outcome"], &tried["expires_in_seconds"]), (&"ok".into(), &3600.into()), "{tried}");
    assert_eq!(tried["fingerprint"].as_str().unwrap().len(), 16);
    assert!(!tried.to_string().contains("at-1"), "{tried}");
    let listed = case.operate(Request::Providers { zone: Some(ZONE.into()) }).await.unwrap();
    assert_eq!(listed["providers"][0]["token"], Value::Null, "a test keeps nothing: {listed}");
    case.server.rotate("cs-other");
    let tried = case.operate(test("provider://echo")).await.unwrap();
    assert_eq!(tried["outcome"], "refused");
    assert_eq!(tried["detail"], "the answer is 401, invalid_client");
    assert!(case.operate(test("provider://none")).await.unwrap_err().contains("providers list"));
    let recorded = case.edge.ledger_with("operator_provider_test", 2).await;
    let recorded: Vec<_> = recorded
        .iter()
        .filter(|line| line["event_type"] == "operator_provider_test")
        .map(|line| line["metadata_json"]["outcome"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(recorded, ["ok", "refused"]);
}
