//! Accounts that somebody connected: the way there, whose they are, how they are renewed, and how they end.

use std::sync::Arc;
use std::time::Duration;

use caracal::clock::Clock;
use caracal::control::{Request, call, socket_path};
use caracal::serve::{Embedding, ServeOptions};
use caracal::state::{ConnectionKey, ConnectionStatus, SHARED_SUBJECT, Target};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::edge::{APP, Agent, Edge, Plan, ZONE, eventually, write_private};
use crate::tokens::{CLIENT, CLIENT_SECRET, Mode, TokenServer, form};
use crate::upstream::respond;

const RENEWABLE: &str = r#""token_type":"Bearer","expires_in":300,"refresh_token":"rt-canary-refresh""#;
const ROTATED: &str = r#""token_type":"Bearer","expires_in":300,"refresh_token":"rt-canary-rotated""#;
const ONCE: &str = r#""token_type":"Bearer","expires_in":300"#;

struct Case {
    edge: Edge,
    server: TokenServer,
    clock: Clock,
    agent: Agent,
}

impl Case {
    async fn start() -> Self {
        let server = TokenServer::start().await;
        let provider = format!(
            "kind = \"oauth2_authorization_code\"\nclient_id = \"{CLIENT}\"\n\
             client_secret = \"secret://idp/client_secret\"\ntoken_endpoint = \"{}\"\n\
             authorization_endpoint = \"https://id.example/authorize\"\n\
             revocation_endpoint = \"http://{}/revoke\"\nscopes = [\"a\", \"b\"]\n\
             authorization_params = {{ prompt = \"consent\" }}\ntoken_params = {{ tenant = \"t 1\" }}\n",
            server.url(),
            server.address,
        );
        let clock = Clock::manual(1_790_000_000_000);
        let embedding = Embedding { clock: clock.clone(), ..Embedding::default() };
        let mut edge = Edge::prepared(Plan { provider, embedding, ..Plan::default() }).await;
        write_private(
            &edge.path("secrets.toml"),
            &format!(
                "schema = 1\n[secrets.idp]\nzones = [\"{ZONE}\"]\nhosts = [\"{}\", \"{}\"]\nclient_secret = \"{CLIENT_SECRET}\"\n",
                edge.upstream.address, server.address
            ),
        );
        edge.boot(ServeOptions::default()).await.unwrap();
        let agent = Agent::provision(&edge, &["echo:read"]).await;
        server.answer(Mode::Good(RENEWABLE));
        Self { edge, server, clock, agent }
    }

    async fn operate(&self, request: Request) -> Result<Value, String> {
        let socket = socket_path(&self.edge.path("state"));
        call(&socket, &request).await.map_err(|error| error.to_string())
    }

    /// The flow and the fields of the address it sends a person to.
    async fn begin(&self, subject: &str) -> (String, Vec<(String, String)>) {
        let (zone, provider) = (ZONE.to_owned(), "provider://echo".to_owned());
        let begun = self
            .operate(Request::ProviderConnect { zone, provider, subject: subject.to_owned() })
            .await
            .unwrap();
        let url = begun["url"].as_str().unwrap();
        let (place, query) = url.split_once('?').unwrap();
        assert_eq!(place, "https://id.example/authorize");
        (begun["flow"].as_str().unwrap().to_owned(), form(query.as_bytes()))
    }

    /// What a browser that comes back is told.
    async fn back(&self, query: &str) -> (u16, Value) {
        let url = format!("{}/oauth/2/callback?{query}", self.edge.authority());
        let answer = self.edge.http.get(url).header("accept", "application/json").send().await.unwrap();
        assert_eq!(answer.headers()["cache-control"], "no-store");
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn connect(&self, subject: &str) {
        let (_, fields) = self.begin(subject).await;
        let (status, told) = self.back(&format!("state={}&code=code-canary", field(&fields, "state"))).await;
        assert_eq!(status, 200, "{told}");
    }

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

    fn row(&self, subject: &str) -> Arc<caracal::state::Connection> {
        let key =
            ConnectionKey { zone: ZONE.into(), provider: "provider://echo".into(), subject: subject.into() };
        self.edge.running().app.state.connection(&key).unwrap()
    }

    fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Another process on the same folder; the agent's authority does not outlive a crash, connections do.
    async fn again(&mut self, crash: bool) {
        if crash {
            self.edge.crash().await
        } else {
            self.edge.stop().await
        }
        self.edge.boot(ServeOptions::default()).await.unwrap();
        self.agent = Agent::provision(&self.edge, &["echo:read"]).await;
    }
}

fn field(fields: &[(String, String)], name: &str) -> String {
    fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_connected_with_pkce_used_and_recorded_and_outlives_a_crash() {
    use aws_lc_rs::digest::{SHA256, digest};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    let mut case = Case::start().await;
    let (status, code, _) = case.call("/read/a").await;
    assert_eq!((status, code.as_str()), (403, "access_denied"), "nobody is connected");
    let (flow, fields) = case.begin(APP).await;
    let redirect = format!("{}/oauth/2/callback", std::fs::read_to_string(case.edge.path("issuer")).unwrap());
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", CLIENT),
        ("redirect_uri", &redirect),
        ("scope", "a b"),
        ("code_challenge_method", "S256"),
        ("prompt", "consent"),
    ] {
        assert_eq!(field(&fields, name), value, "{name}");
    }
    let pending = case.operate(Request::ProviderFlow { flow: flow.clone() }).await.unwrap();
    assert_eq!(pending["outcome"], "pending");
    let state = field(&fields, "state");
    assert!(state.len() >= 43, "{state}");
    let (status, told) = case.back(&format!("state={state}&code=code-canary")).await;
    assert_eq!((status, &told["code"]), (200, &"connected".into()));
    let asked = form(&case.server.asked()[0].body);
    assert_eq!(field(&asked, "grant_type"), "authorization_code");
    assert_eq!((field(&asked, "code"), field(&asked, "redirect_uri")), ("code-canary".to_owned(), redirect));
    assert_eq!(field(&asked, "tenant"), "t 1");
    let verifier = field(&asked, "code_verifier");
    assert_eq!(
        URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes())),
        field(&fields, "code_challenge")
    );
    let told = case.operate(Request::ProviderFlow { flow }).await.unwrap();
    assert_eq!(told["outcome"], "connected");
    // Twice with one token, and again after a crash: nobody is asked for another.
    case.passes("at-1").await;
    case.passes("at-1").await;
    case.edge.ledger_with("gateway_resource_request", 3).await;
    case.again(true).await;
    case.passes("at-1").await;
    assert_eq!(case.server.count(), 1);
    let lines = case.edge.ledger_with("gateway_resource_request", 4).await;
    let uses: Vec<_> =
        lines.iter().filter_map(|line| line["metadata_json"]["connection_id"].as_str()).collect();
    assert!(uses.iter().all(|id| *id == &*case.row(APP).id) && uses.len() >= 4, "{uses:?}");
    let text = serde_json::to_string(&lines).unwrap();
    for event in ["operator_provider_connect", "provider_connected"] {
        assert!(text.contains(event), "{event}");
    }
    for secret in ["rt-canary", "at-1-", "code-canary", state.as_str(), verifier.as_str()] {
        assert!(!text.contains(secret), "{secret} is in the ledger");
        for entry in std::fs::read_dir(case.edge.path("state")).unwrap() {
            let path = entry.unwrap().path();
            let found = std::fs::read(&path).unwrap_or_default();
            let there = found.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!there, "{secret} is in {}", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_browser_brings_is_good_once_in_time_and_from_the_server_that_was_asked() {
    let case = Case::start().await;
    for query in ["", "code=x", "state=nobodys&code=x", "state=a&state=b&code=x"] {
        let (status, told) = case.back(query).await;
        assert_eq!((status, &told["error"]), (400, &"oauth_state_invalid".into()), "{query}");
    }
    let (flow, fields) = case.begin(APP).await;
    let state = field(&fields, "state");
    let head = format!("{}/oauth/2/callback?state={state}&code=x", case.edge.authority());
    assert_eq!(case.edge.http.head(head).send().await.unwrap().status(), 405, "a look ahead uses nothing up");
    let (status, told) =
        case.back(&format!("state={state}&error=access_denied&error_description=canary")).await;
    assert_eq!((status, &told["error"]), (403, &"provider_oauth_denied".into()));
    assert!(!told.to_string().contains("canary"));
    let (status, told) = case.back(&format!("state={state}&code=x")).await;
    assert_eq!((status, &told["error"]), (400, &"oauth_state_used".into()));
    let said = case.operate(Request::ProviderFlow { flow }).await.unwrap();
    assert_eq!(said["outcome"], "provider_oauth_denied");
    assert!(said["detail"].as_str().unwrap().contains("access_denied"), "{said}");
    let (flow, fields) = case.begin(APP).await;
    case.wait(600);
    let (status, told) = case.back(&format!("state={}&code=x", field(&fields, "state"))).await;
    assert_eq!((status, &told["error"]), (400, &"oauth_state_expired".into()));
    let said = case.operate(Request::ProviderFlow { flow }).await.unwrap();
    assert_eq!(said["outcome"], "oauth_state_expired");
    let (_, fields) = case.begin(APP).await;
    let (status, told) = case.back(&format!("state={}", field(&fields, "state"))).await;
    assert_eq!((status, &told["error"]), (400, &"authorization_code_required".into()));
    for (mode, status, code) in [
        (Mode::Raw(respond(500, "", "canary")), 502, "provider_token_exchange_failed"),
        (Mode::Raw(respond(400, "", r#"{"error":"invalid_grant"}"#)), 502, "provider_token_exchange_failed"),
        (Mode::Raw(respond(200, "", "<html>")), 502, "provider_token_response_invalid"),
        (Mode::Good(r#""token_type":"mac""#), 502, "provider_token_response_invalid"),
    ] {
        case.server.answer(mode);
        let before = case.server.count();
        let (_, fields) = case.begin(APP).await;
        let (got, told) = case.back(&format!("state={}&code=x", field(&fields, "state"))).await;
        assert_eq!((got, &told["error"]), (status, &code.into()));
        assert_eq!(case.server.count(), before + 1, "a code is shown once");
    }
    let listed = case.operate(Request::ProviderConnections { zone: None }).await.unwrap();
    assert_eq!(listed["connections"], Value::Array(Vec::new()));
    let answer =
        case.edge.http.get(format!("{}/oauth/2/callback", case.edge.authority())).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
    assert!(answer.text().await.unwrap().contains("oauth_state_invalid"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_renewed_in_time_with_the_token_that_was_rotated_and_by_one_of_many() {
    let mut case = Case::start().await;
    case.connect(APP).await;
    case.passes("at-1").await;
    case.server.answer(Mode::Good(ROTATED));
    // Past the end: whoever comes waits for one renewal.
    case.wait(275);
    let gate = Arc::new(Semaphore::new(0));
    let mut mandates = Vec::new();
    for _ in 0..10 {
        mandates.push(case.agent.mint(&case.edge, &["echo:read"]).await);
    }
    case.server.answer(Mode::Gated(Arc::clone(&gate)));
    let calls = futures_util::future::join_all(mandates.iter().map(|it| case.edge.get("/read/a", it).send()));
    let app = Arc::clone(&case.edge.running().app);
    let open = async {
        eventually("all wait", async || app.metrics.in_flight.get() == 10).await;
        eventually("one asks", async || case.server.count() > 1).await;
        case.server.answer(Mode::Good(ROTATED));
        gate.add_permits(1);
    };
    let (answers, ()) = tokio::join!(calls, open);
    assert!(answers.into_iter().all(|answer| answer.unwrap().status() == 200));
    drop(app);
    let asked = case.server.asked();
    assert_eq!(asked.len(), 2);
    let fields = form(&asked[1].body);
    assert_eq!(field(&fields, "grant_type"), "refresh_token");
    assert_eq!(field(&fields, "refresh_token"), "rt-canary-refresh");
    // The gated answer had no new refresh token, so the old one goes on; and the next brings a rotated one.
    case.wait(3_580);
    case.agent = Agent::provision(&case.edge, &["echo:read"]).await;
    case.passes("at-3").await;
    assert_eq!(field(&form(&case.server.asked()[2].body), "refresh_token"), "rt-canary-refresh");
    case.again(true).await;
    case.passes("at-3").await;
    case.wait(275);
    case.passes("at-4").await;
    assert_eq!(field(&form(&case.server.asked()[3].body), "refresh_token"), "rt-canary-rotated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_does_not_take_the_token_brings_the_next_one_once() {
    let case = Case::start().await;
    case.connect(APP).await;
    case.server.answer(Mode::Good(ROTATED));
    let (status, _, body) = case.call("/read/stale").await;
    assert_eq!((status, case.server.count(), case.edge.upstream.count()), (200, 2, 2), "{body}");
    case.passes("at-2").await;
    assert_eq!(field(&form(&case.server.asked()[1].body), "refresh_token"), "rt-canary-refresh");
    // Without a refresh token there is no other one, and nothing is sent twice.
    let once = Case::start().await;
    once.server.answer(Mode::Good(ONCE));
    once.connect(APP).await;
    for _ in 0..3 {
        assert_eq!(once.call("/read/never").await.0, 401);
    }
    assert_eq!((once.server.count(), once.edge.upstream.count()), (1, 3));
    once.passes("at-1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_cannot_be_renewed_is_used_to_its_end_and_then_over() {
    let case = Case::start().await;
    case.server.answer(Mode::Good(ONCE));
    case.connect(APP).await;
    case.wait(295);
    case.passes("at-1").await;
    case.wait(10);
    for _ in 0..7 {
        let (status, code, body) = case.call("/read/a").await;
        assert_eq!((status, code.as_str()), (403, "credential_expired_not_renewable"), "{body}");
    }
    assert_eq!(case.row(APP).status, ConnectionStatus::Expired);
    assert_eq!(case.server.count(), 1);
    // The shared one does not stand in for it.
    case.server.answer(Mode::Good(RENEWABLE));
    case.connect(SHARED_SUBJECT).await;
    assert_eq!(case.call("/read/a").await.0, 403);
    case.connect(APP).await;
    case.passes("at-3").await;
    // The server takes the refresh token back: the access token is used to its end.
    case.server.answer(Mode::Raw(respond(400, "", r#"{"error":"invalid_grant"}"#)));
    case.wait(275);
    case.passes("at-3").await;
    assert!(!case.row(APP).renewable);
    case.wait(30);
    let (status, code, _) = case.call("/read/a").await;
    assert_eq!((status, code.as_str()), (403, "credential_expired_not_renewable"));
    let lines = case.edge.ledger_with("gateway_resource_request", 2).await;
    let kinds: Vec<_> =
        lines.iter().filter_map(|line| line["metadata_json"]["error_kind"].as_str()).collect();
    assert!(kinds.contains(&"credential_expired_not_renewable"), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_fails_at_a_renewal_ends_nothing() {
    let case = Case::start().await;
    case.connect(APP).await;
    case.wait(280);
    for (mode, kind) in [
        (Mode::Raw(respond(500, "", r#"{"error":"invalid_grant"}"#)), "http_request_failed"),
        (Mode::Raw(respond(200, "", "no json")), "http_request_failed"),
        (Mode::Raw(respond(429, "", "")), "provider_rate_limited"),
    ] {
        case.server.answer(mode);
        let (_, code, body) = case.call("/read/a").await;
        assert_eq!(code, kind, "{body}");
        case.wait(2);
    }
    case.server.answer(Mode::Good(ROTATED));
    let before = case.server.count();
    case.passes(&format!("at-{}", before + 1)).await;
    assert_eq!(case.row(APP).status, ConnectionStatus::Active);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_shares_and_an_operator_ends() {
    let case = Case::start().await;
    case.connect(SHARED_SUBJECT).await;
    case.passes("at-1").await;
    case.connect(APP).await;
    case.passes("at-2").await;
    let listed = case.operate(Request::ProviderConnections { zone: Some(ZONE.into()) }).await.unwrap();
    assert_eq!(listed["connections"].as_array().unwrap().len(), 2, "{listed}");
    assert_eq!(listed["connections"][0]["status"], "active");
    assert!(!listed.to_string().contains("canary"), "{listed}");
    let end = |subject: &str| Request::ProviderDisconnect {
        zone: ZONE.into(),
        provider: "provider://echo".into(),
        subject: subject.to_owned(),
    };
    case.server.answer(Mode::Raw(respond(200, "", "")));
    let ended = case.operate(end(APP)).await.unwrap();
    assert_eq!(ended["upstream_revocation"], "revoked", "{ended}");
    let asked = case.server.asked();
    let told: Vec<_> = asked[2..].iter().map(|seen| field(&form(&seen.body), "token_type_hint")).collect();
    assert_eq!(told, ["refresh_token", "access_token"]);
    assert_eq!(field(&form(&asked[2].body), "token"), "rt-canary-refresh");
    assert!(asked[2].line().starts_with("POST /revoke "));
    // From the next request on the application has none of its own.
    case.passes("at-1").await;
    case.server.answer(Mode::Raw(respond(503, "", "")));
    let ended = case.operate(end(SHARED_SUBJECT)).await.unwrap();
    assert_eq!(ended["upstream_revocation"], "failed");
    assert_eq!(case.call("/read/a").await.0, 403, "it is over here all the same");
    assert!(case.operate(end(APP)).await.unwrap_err().contains("no such connection"));
    let tried = Request::ProviderTest { zone: None, provider: "provider://echo".into() };
    assert!(case.operate(tried).await.unwrap_err().contains("providers connections"));
    let recorded = case.edge.ledger_with("operator_provider_disconnect", 3).await;
    let recorded: Vec<_> =
        recorded.iter().filter(|line| line["event_type"] == "operator_provider_disconnect").collect();
    assert_eq!(recorded[0]["metadata_json"]["upstream_revocation"], "revoked");
    assert_eq!(recorded[2]["decision"], "deny");
}

/// A call under way, once its first piece has arrived.
async fn streaming(case: &Case) -> reqwest::Response {
    let mandate = case.agent.mint(&case.edge, &["echo:read"]).await;
    let mut response = case.edge.get("/read/sse", &mandate).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.chunk().await.unwrap().unwrap(), "data: one\n\n");
    response
}

async fn is_cut(mut response: reqwest::Response) {
    let rest = tokio::time::timeout(Duration::from_secs(5), response.chunk()).await.expect("it is cut");
    assert!(rest.is_err(), "a cut stream does not look complete: {rest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_connection_cuts_the_calls_that_act_with_it_and_no_others() {
    let case = Case::start().await;
    let end = |subject: &str| Request::ProviderDisconnect {
        zone: ZONE.into(),
        provider: "provider://echo".into(),
        subject: subject.to_owned(),
    };
    case.connect(SHARED_SUBJECT).await;
    let shared = streaming(&case).await;
    case.connect(APP).await;
    let own = streaming(&case).await;
    assert_eq!(case.edge.running().app.live.count(), 2);
    assert_eq!(case.operate(end(SHARED_SUBJECT)).await.unwrap()["requests"], 1);
    is_cut(shared).await;
    eventually("one is left", async || case.edge.running().app.live.count() == 1).await;

    // Ended where this process was not asked, as by another node: its row says so.
    let key = case.row(APP).key.clone();
    case.edge.running().app.state.end_connection(&key).await.unwrap();
    is_cut(own).await;
    let lines = case.edge.ledger_with("gateway_resource_request", 2).await;
    let cut = lines.iter().filter(|line| line["metadata_json"]["cut"] == "revoked").count();
    assert_eq!(cut, 2, "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_subject_loses_what_it_connected_also_where_nobody_acts_for_it() {
    let mut case = Case::start().await;
    let revoke = |subject: &str, dry_run| Request::Revoke {
        zone: None,
        target: Target::Subject(subject.into()),
        reason: None,
        dry_run,
    };
    case.connect(APP).await;
    case.connect("ada@example.com").await;
    case.connect(SHARED_SUBJECT).await;
    let dry = case.operate(revoke(APP, true)).await.unwrap();
    assert_eq!(
        (&dry["counts"]["connections"], &dry["connections"][0]["id"]),
        (&1.into(), &(*case.row(APP).id).into())
    );
    assert_eq!(case.row(APP).status, ConnectionStatus::Active);

    case.server.answer(Mode::Raw(respond(200, "", "")));
    let before = case.server.count();
    let done = case.operate(revoke(APP, false)).await.unwrap();
    assert_eq!(done["connections"][0]["upstream_revocation"], "revoked", "{done}");
    assert!(done["counts"]["records"].as_u64().unwrap() > 0, "{done}");
    assert!(case.server.asked()[before..].iter().all(|seen| seen.line().starts_with("POST /revoke ")));
    assert_eq!(case.row(APP).status, ConnectionStatus::Revoked);

    // A person of whom nothing else is left here, at a provider that does not answer well.
    case.server.answer(Mode::Raw(respond(503, "", "")));
    let done = case.operate(revoke("ada@example.com", false)).await.unwrap();
    assert_eq!(done["connections"][0]["upstream_revocation"], "failed", "{done}");
    assert!(case.operate(revoke("ada@example.com", false)).await.unwrap_err().contains("nothing here"));
    assert_eq!(case.row(SHARED_SUBJECT).status, ConnectionStatus::Active);
    let recorded = case.edge.ledger_with("operator_revoke", 2).await;
    let recorded: Vec<_> = recorded.iter().filter(|line| line["event_type"] == "operator_revoke").collect();
    assert_eq!(recorded[0]["metadata_json"]["connections"], serde_json::json!([case.row(APP).id]));
    case.again(true).await;
    assert_eq!(case.row(APP).status, ConnectionStatus::Revoked);
}
