//! A whole edge in this process, on free ports and in a folder of its own, and an agent that uses it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use caracal::serve::{Embedding, Running, ServeError, ServeOptions, Sockets, start_with};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::upstream::Upstream;

pub const SECRET: &str = "cs_dGhlLWFnZW50cy1vd24tc2VjcmV0LW9mLTMyLWJ5dGVz";
pub const CANARY: &str = "sk-canary-5f1d7c0a9e8b4c3d";
pub const ZONE: &str = "z1";
pub const APP: &str = "agent-1";
pub const ECHO: &str = "resource://echo";

/// What a test wants to differ from the plain edge.
#[derive(Clone, Default)]
pub struct Plan {
    /// More of `caracal.toml`.
    pub config: String,
    /// More members of the echo resource, one TOML line each.
    pub resource: String,
    /// The provider table; an API key in `X-Api-Key` when empty.
    pub provider: String,
    /// More documents' worth of zone file.
    pub zone: String,
    /// Scopes the role is granted; `echo:read` when empty.
    pub granted: Vec<&'static str>,
    /// Plugins and clock.
    pub embedding: Embedding,
}

/// A running edge with its folder and its upstream.
pub struct Edge {
    pub dir: TempDir,
    pub upstream: Upstream,
    pub running: Option<Running>,
    /// The edge has a runtime of its own, so that a test can take it away as a crash would.
    pub runtime: Option<Runtime>,
    pub plan: Plan,
    pub http: reqwest::Client,
    /// Gateway, authority, coordinator and ops of an edge that runs as a process of its own.
    pub remote: Option<[String; 4]>,
}

impl Edge {
    pub async fn start() -> Self {
        Self::with(Plan::default()).await
    }

    pub async fn with(plan: Plan) -> Self {
        let mut edge = Self::prepared(plan).await;
        edge.boot(ServeOptions::default()).await.unwrap();
        edge
    }

    /// An edge whose files are written and that does not run yet.
    pub async fn prepared(plan: Plan) -> Self {
        install_crypto();
        let dir = TempDir::new().unwrap();
        let upstream = Upstream::start().await;
        let edge = Self { dir, upstream, running: None, runtime: None, plan, http: client(), remote: None };
        edge.write_files();
        edge
    }

    /// Starts the process part again on the files that are there.
    pub async fn boot(&mut self, options: ServeOptions) -> Result<(), ServeError> {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = Sockets { gateway: bind(), authority: bind(), coordinator: bind(), ops: bind() };
        let issuer = self.path("issuer");
        let issuer = std::fs::read_to_string(&issuer).unwrap_or_else(|_| {
            let text = format!("http://{}", sockets.authority.local_addr().unwrap());
            std::fs::write(&issuer, &text).unwrap();
            text
        });
        std::fs::write(self.path("caracal.toml"), self.config_text(&issuer)).unwrap();
        let config =
            caracal::config::load(&self.path("caracal.toml")).map_err(|report| panic!("{report}")).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let started =
            runtime.spawn(start_with(config, sockets, options, self.plan.embedding.clone())).await.unwrap();
        // A refused start must let go of the folder before the next one.
        match started {
            Ok(running) => (self.running, self.runtime) = (Some(running), Some(runtime)),
            Err(error) => {
                runtime.shutdown_background();
                if !matches!(error, ServeError::Locked) {
                    self.folder_is_free().await;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        self.runtime.as_ref().unwrap().spawn(running.stop()).await.unwrap().unwrap();
        self.runtime.take().unwrap().shutdown_background();
        self.folder_is_free().await;
    }

    /// Ends the edge as `kill -9` would: nothing is saved. Gives once the folder is free again.
    pub async fn crash(&mut self) {
        drop(self.running.take());
        self.runtime.take().unwrap().shutdown_background();
        self.folder_is_free().await;
    }

    async fn folder_is_free(&self) {
        let lock = self.path("state/state.lock");
        let free = async || {
            let file = std::fs::File::open(&lock).unwrap();
            rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
        };
        eventually("the folder is free", free).await;
    }

    fn base(&self, at: usize, local: impl Fn(&Running) -> std::net::SocketAddr) -> String {
        match &self.remote {
            Some(remote) => format!("http://{}", remote[at]),
            None => format!("http://{}", local(self.running())),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn gateway(&self) -> String {
        self.base(0, |running| running.addresses.gateway)
    }

    pub fn authority(&self) -> String {
        self.base(1, |running| running.addresses.authority)
    }

    pub fn coordinator(&self) -> String {
        self.base(2, |running| running.addresses.coordinator)
    }

    pub fn ops(&self) -> String {
        self.base(3, |running| running.addresses.ops)
    }

    pub fn config_text(&self, issuer: &str) -> String {
        format!(
            "schema = 1\nissuer = \"{issuer}\"\nstate_dir = \"state\"\nbundles_dir = \"bundles\"\n\
             shutdown_deadline_seconds = 2\n{}\n[zones.{ZONE}]\nprefixes = [\"/echo\"]\nhosts = [\"echo.test\"]\n",
            self.plan.config
        )
    }

    pub fn write_files(&self) {
        std::fs::create_dir_all(self.path("bundles")).unwrap();
        std::fs::write(self.bundle(), self.bundle_text()).unwrap();
        self.write_secrets(CANARY);
    }

    pub fn write_secrets(&self, key: &str) {
        self.write_secrets_mode(key, 0o600);
    }

    pub fn write_secrets_mode(&self, key: &str, mode: u32) {
        let text = format!(
            "schema = 1\n[secrets.echo]\nzones = [\"{ZONE}\"]\nhosts = [\"{}\"]\napi_key = \"{key}\"\n",
            self.upstream.address
        );
        write_mode(&self.path("secrets.toml"), &text, mode);
    }

    pub fn bundle(&self) -> PathBuf {
        self.path(&format!("bundles/{ZONE}.toml"))
    }

    pub fn bundle_text(&self) -> String {
        let provider = if self.plan.provider.is_empty() {
            "kind = \"api_key\"\nlocation = \"header\"\nheader_name = \"X-Api-Key\"\nsecret = \"secret://echo/api_key\""
        } else {
            &self.plan.provider
        };
        let granted =
            if self.plan.granted.is_empty() { vec!["echo:read"] } else { self.plan.granted.clone() };
        let hash = caracal_hash();
        format!(
            r#"schema = 1
[zone]
id = "{ZONE}"
name = "Zone one"

[[applications]]
id = "{APP}"
name = "Agent one"
secrets = ["{hash}"]

[[applications]]
id = "agent-2"
name = "Agent two"
secrets = ["{hash}"]

[[providers]]
identifier = "provider://echo"
{provider}

[[resources]]
identifier = "{ECHO}"
upstream_url = "{}"
scopes = ["echo:read", "echo:write"]
credential_provider = "provider://echo"
operations = [
    {{ method = "GET", path = "/read/**", scope = "echo:read" }},
    {{ method = "GET", path = "/read", scope = "echo:read" }},
    {{ method = "POST", path = "/write/**", scope = "echo:write" }},
    {{ method = "POST", path = "/read/**", scope = "echo:read" }},
]
prefixes = ["/echo"]
hosts = ["echo.test"]
{}

[app_ids]
one = "{APP}"
two = "agent-2"

[grants."{ECHO}"]
application = "one"
roles = {{ {APP} = {granted:?} }}
{}
"#,
            self.upstream.url(),
            self.plan.resource,
            self.plan.zone,
        )
    }

    /// A fresh single-use gateway mandate, minted the way the SDKs do.
    pub async fn mandate(&self) -> String {
        let agent = Agent::provision(self, &["echo:read"]).await;
        agent.mint(self, &["echo:read"]).await
    }

    /// A request to the echo resource in header mode.
    pub fn get(&self, path: &str, mandate: &str) -> reqwest::RequestBuilder {
        self.http
            .get(format!("{}{path}", self.gateway()))
            .header("x-caracal-resource", ECHO)
            .header("authorization", format!("Bearer {mandate}"))
    }

    /// One request to the token endpoint; `None` when nobody answers.
    pub async fn try_token(&self, fields: &[(&str, &str)]) -> Option<(u16, Value)> {
        let mut form = vec![
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("zone_id", ZONE),
            ("application_id", APP),
            ("client_secret", SECRET),
        ];
        form.extend_from_slice(fields);
        let response =
            self.http.post(format!("{}/oauth/2/token", self.authority())).form(&form).send().await.ok()?;
        Some((response.status().as_u16(), response.json().await.ok()?))
    }

    /// The ledger lines of the edge's zone, once `count` of them have this event type.
    pub async fn ledger_with(&self, event_type: &str, count: usize) -> Vec<Value> {
        let enough = async || {
            self.ledger().await.iter().filter(|line| line["event_type"] == event_type).count() >= count
        };
        eventually(event_type, enough).await;
        self.ledger().await
    }

    /// Every ledger line of the edge's zone, parsed; waits for buffered ones. A result is recorded only after
    /// its response has gone out: see [`Edge::ledger_with`].
    pub async fn ledger(&self) -> Vec<Value> {
        self.running().app.ledger.flush().await.unwrap();
        ledger_lines(&self.path("state/ledger").join(ZONE))
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// An application's session pair and delegation, as `application_transport` makes them.
pub struct Agent {
    pub bearer: String,
    pub source: String,
    pub target: String,
    pub edge_id: String,
}

impl Agent {
    pub async fn provision(edge: &Edge, scopes: &[&str]) -> Self {
        Self::try_provision(edge, scopes).await.unwrap()
    }

    /// As [`Agent::provision`]; `None` when nobody answers.
    pub async fn try_provision(edge: &Edge, scopes: &[&str]) -> Option<Self> {
        let bearer = try_bootstrap(edge).await?;
        let source = session(edge, &bearer, json!({})).await?;
        let target = session(edge, &bearer, json!({})).await?;
        let (status, body) = post(
            edge,
            &bearer,
            "/delegations",
            json!({
                "issuer_application_id": APP, "receiver_application_id": APP,
                "source_session_id": source, "target_session_id": target,
                "constraints": { "resources": [ECHO] }, "scopes": scopes, "ttl_seconds": 1020,
            }),
        )
        .await?;
        assert_eq!(status, 201, "{body}");
        let edge_id = body["delegation_edge_id"].as_str().unwrap().to_owned();
        Some(Self { bearer, source, target, edge_id })
    }

    pub async fn mint(&self, edge: &Edge, scopes: &[&str]) -> String {
        let (status, body) = self.try_mint(edge, scopes, &[]).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    }

    pub async fn try_mint(&self, edge: &Edge, scopes: &[&str], more: &[(&str, &str)]) -> (u16, Value) {
        self.ask(edge, scopes, more).await.unwrap()
    }

    /// As [`Agent::try_mint`]; `None` when nobody answers.
    pub async fn ask(&self, edge: &Edge, scopes: &[&str], more: &[(&str, &str)]) -> Option<(u16, Value)> {
        let scope = scopes.join(" ");
        let mut fields = vec![
            ("resource", ECHO),
            ("scope", scope.as_str()),
            ("agent_session_id", self.target.as_str()),
            ("delegation_edge_id", self.edge_id.as_str()),
        ];
        fields.extend_from_slice(more);
        edge.try_token(&fields).await
    }
}

pub async fn bootstrap(edge: &Edge) -> String {
    try_bootstrap(edge).await.unwrap()
}

async fn try_bootstrap(edge: &Edge) -> Option<String> {
    let (status, body) = edge.try_token(&[("resource", ECHO), ("scope", "agent:lifecycle")]).await?;
    assert_eq!(status, 200, "{body}");
    body["access_token"].as_str().map(str::to_owned)
}

pub async fn session(edge: &Edge, bearer: &str, more: Value) -> Option<String> {
    let mut body = json!({ "application_id": APP, "labels": [APP], "ttl_seconds": 1020 });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let (status, body) = post(edge, bearer, "/agents", body).await?;
    assert_eq!(status, 201, "{body}");
    body["agent_session_id"].as_str().map(str::to_owned)
}

pub async fn post(edge: &Edge, bearer: &str, path: &str, body: Value) -> Option<(u16, Value)> {
    let response = edge
        .http
        .post(format!("{}/zones/{ZONE}{path}", edge.coordinator()))
        .bearer_auth(bearer)
        .json(&body)
        .send()
        .await
        .ok()?;
    Some((response.status().as_u16(), response.json().await.ok()?))
}

pub fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap()
}

pub fn install_crypto() {
    // A second install only says that the first one stands.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

pub fn write_private(path: &Path, text: &str) {
    write_mode(path, text, 0o600);
}

fn write_mode(path: &Path, text: &str, mode: u32) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let fresh = path.with_extension("fresh");
    let mut file =
        std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(&fresh).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    std::fs::rename(fresh, path).unwrap();
}

pub fn ledger_lines(dir: &Path) -> Vec<Value> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "jsonl"))
        .flat_map(|path| {
            std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .filter_map(|line| serde_json::from_str(&line).ok())
        .collect()
}

/// Polls until `condition` holds; panics after ten seconds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn caracal_hash() -> String {
    use base64::Engine;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, SECRET.as_bytes());
    format!("sha256${}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest))
}
