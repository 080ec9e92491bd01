//! An authority and a coordinator over one in-memory application, for tests: two zones, a clock that is moved
//! by hand, a folder of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use caracal_plugins::Registry;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::form::GRANT;
use crate::app::{App, Parts};
use crate::clock::Clock;
use crate::config;
use crate::egress::{Egress, SystemResolver};
use crate::keyring::Keyring;
use crate::ledger::{Durability, Ledger, LedgerKey, LedgerOptions};
use crate::metrics::Metrics;
use crate::reload::{LogObserver, Reloader};
use crate::sealing::SealingKey;
use crate::state::{State, StateLimits};

pub(crate) const ISSUER: &str = "http://127.0.0.1:8080";
pub(crate) const NOW: i64 = 1_790_000_000_250;
pub(crate) const SECRET: &str = "cs_the-secret-of-the-billing-application";
pub(crate) const OTHER_SECRET: &str = "cs_the-secret-of-the-other-application";
pub(crate) const SLOW_SECRET: &str = "cs_the-secret-kept-as-a-slow-hash";
pub(crate) const OPERATOR: &str = "cot_an-operator-token-for-tests-only-0001";

/// The cases of a property test: `PROPTEST_CASES`, or few enough for every build.
pub(crate) fn cases(usual: u32) -> proptest::prelude::ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual);
    proptest::prelude::ProptestConfig { cases, failure_persistence: None, ..Default::default() }
}

/// Made once in a process: hashing it takes longer than most tests.
static SLOW: OnceLock<String> = OnceLock::new();

/// One running pair of routers.
pub(crate) struct Kit {
    pub(crate) app: Arc<App>,
    pub(crate) clock: Clock,
    pub(crate) authority: Router,
    pub(crate) coordinator: Router,
    folder: TempDir,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) json: Value,
}

impl Reply {
    /// Status and error code.
    pub(crate) fn told(&self) -> (u16, &str) {
        (self.status, self.json["error"].as_str().unwrap_or_default())
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.json[name].as_str().unwrap_or_else(|| panic!("no {name} in {self:?}")).to_owned()
    }
}

impl Kit {
    pub(crate) async fn new() -> Self {
        Self::with_options(LedgerOptions::default()).await
    }

    pub(crate) async fn with_options(options: LedgerOptions) -> Self {
        Self::configured(options, CONFIG, "").await
    }

    /// A kit with more of `caracal.toml` and of the bundle of zone `z1`.
    pub(crate) async fn with_more(config: &str, zone_one: &str) -> Self {
        Self::configured(LedgerOptions::default(), &format!("{CONFIG}\n{config}"), zone_one).await
    }

    /// A kit whose ledger is strict.
    pub(crate) async fn strict() -> Self {
        let options = LedgerOptions { durability: Durability::Strict, ..LedgerOptions::default() };
        Self::configured(options, &format!("{CONFIG}\n[ledger]\nmode = \"strict\"\n"), "").await
    }

    async fn configured(options: LedgerOptions, config: &str, zone_one: &str) -> Self {
        let folder = TempDir::new().unwrap();
        lay_out(folder.path(), config, zone_one);
        Self::open(folder, Clock::manual(NOW), options).await
    }

    /// Stops cleanly and starts again on the same folder and clock.
    pub(crate) async fn restart(self) -> Self {
        let Self { app, clock, authority, coordinator, folder } = self;
        app.state.close().await.unwrap();
        app.ledger.close().await.unwrap();
        drop((app, authority, coordinator));
        Self::open(folder, clock, LedgerOptions::default()).await
    }

    /// Writes the bundle of the first zone anew and takes it up.
    pub(crate) async fn rewrite(&self, edit: impl FnOnce(String) -> String) {
        let path = self.folder.path().join("bundles/z1.toml");
        fs::write(&path, edit(fs::read_to_string(&path).unwrap())).unwrap();
        self.app.reloader.reload().await;
    }

    async fn open(folder: TempDir, clock: Clock, options: LedgerOptions) -> Self {
        let base = folder.path();
        let config =
            Arc::new(config::load(&base.join("caracal.toml")).unwrap_or_else(|report| panic!("{report}")));
        let registry = Arc::new(Registry::stock());
        let reloader =
            Reloader::load_initial(Arc::clone(&config), registry, Arc::new(LogObserver), clock.clone())
                .unwrap();
        let state = State::open(&config.state_dir, clock.clone(), StateLimits::default()).await.unwrap();
        let keys = config.state_dir.join("keys");
        let sealing = SealingKey::from_bytes(*b"a sealing key for the tests only").unwrap();
        let zones = ["z1".to_owned(), "z2".to_owned()];
        let keyring = Keyring::open(&keys, &sealing, &zones, clock.now()).unwrap();
        let key = LedgerKey::open(&base.join("ledger-keys")).unwrap();
        let ledger_key = key.public();
        let ledger = Ledger::open(&base.join("ledger"), options, key, clock.clone()).unwrap();
        let egress = Arc::new(Egress::new(&config, Arc::new(SystemResolver)).unwrap());
        let app = Arc::new(App::new(Parts {
            sealing,
            egress,
            config,
            clock: clock.clone(),
            reloader,
            keyring,
            state,
            ledger,
            ledger_key,
            fleet: None,
            metrics: Arc::new(Metrics::new().unwrap()),
            metrics_bearer: None,
        }));
        Self {
            authority: super::router(Arc::clone(&app)),
            coordinator: crate::coordinator::router(Arc::clone(&app)),
            app,
            clock,
            folder,
        }
    }

    /// Sends one request to a router.
    pub(crate) async fn send(router: &Router, request: Request<Body>) -> Reply {
        let response = router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            json: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        }
    }

    /// Posts a raw form to the token endpoint.
    pub(crate) async fn post_form(&self, body: String) -> Reply {
        let request = Request::post("/oauth/2/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("x-request-id", "req-1")
            .body(Body::from(body))
            .unwrap();
        Self::send(&self.authority, request).await
    }

    /// Asks for a mandate as the billing application, with further or other fields.
    pub(crate) async fn mint(&self, fields: &[(&str, &str)]) -> Reply {
        let base = [("zone_id", "z1"), ("application_id", "billing-agent"), ("client_secret", SECRET)];
        self.post_form(form(&base, fields)).await
    }

    /// A session mandate of an application of zone `z1`.
    pub(crate) async fn lifecycle(&self, application: &str, secret: &str, resource: &str) -> String {
        let fields = [
            ("application_id", application),
            ("client_secret", secret),
            ("resource", resource),
            ("scope", "agent:lifecycle"),
        ];
        let reply = self.mint(&fields).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.text("access_token")
    }

    /// Gets a document of the authority.
    pub(crate) async fn get(&self, uri: &str) -> Reply {
        Self::send(&self.authority, Request::get(uri).body(Body::empty()).unwrap()).await
    }

    /// Posts JSON to the authority.
    pub(crate) async fn post(&self, uri: &str, bearer: &str, body: &str) -> Reply {
        let mut request = Request::post(uri).header("content-type", "application/json");
        if !bearer.is_empty() {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        Self::send(&self.authority, request.body(Body::from(body.to_owned())).unwrap()).await
    }

    /// Calls the coordinator; `body` null sends no body and no content type.
    pub(crate) async fn call(&self, method: &str, path: &str, bearer: &str, body: &Value) -> Reply {
        self.call_with(method, path, bearer, body, &[]).await
    }

    pub(crate) async fn call_with(
        &self,
        method: &str,
        path: &str,
        bearer: &str,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path).header("x-request-id", "req-2");
        if !bearer.is_empty() {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() {
            Body::empty()
        } else {
            request = request.header("content-type", "application/json");
            Body::from(body.to_string())
        };
        Self::send(&self.coordinator, request.body(body).unwrap()).await
    }

    /// Two sessions of the billing application and a delegation between them, made with these constraints.
    pub(crate) async fn provision(&self, scopes: &[&str], constraints: &Value) -> Provision {
        let bearer = self.lifecycle("billing-agent", SECRET, "resource://billing").await;
        let source = self.session(&bearer, &json!({ "labels": ["billing-agent"] })).await;
        let target = self.session(&bearer, &json!({ "labels": ["billing-agent"] })).await;
        let edge = self.delegate(&bearer, &source, &target, scopes, constraints).await;
        Provision { bearer, source, target, edge }
    }

    /// Starts a session of the billing application.
    pub(crate) async fn session(&self, bearer: &str, extra: &Value) -> String {
        let mut body = json!({ "application_id": "billing-agent" });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let reply = self.call("POST", "/zones/z1/agents", bearer, &body).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        reply.text("agent_session_id")
    }

    /// Delegates between two sessions of the billing application.
    pub(crate) async fn delegate(
        &self,
        bearer: &str,
        source: &str,
        target: &str,
        scopes: &[&str],
        constraints: &Value,
    ) -> String {
        let body = delegation(source, target, scopes, constraints);
        let reply = self.call("POST", "/zones/z1/delegations", bearer, &body).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        reply.text("delegation_edge_id")
    }

    /// Every event of a zone that is in the ledger by now, as the lines on disk.
    pub(crate) async fn ledger(&self, zone: &str) -> Vec<Value> {
        self.app.ledger.flush().await.unwrap();
        self.on_disk(zone)
    }

    /// Every event of a zone that has been written so far.
    pub(crate) fn on_disk(&self, zone: &str) -> Vec<Value> {
        let folder = self.folder.path().join("ledger").join(zone);
        let mut segments: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        segments.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
        segments.sort();
        let text: String = segments.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// What a delegated mandate needs.
#[derive(Debug)]
pub(crate) struct Provision {
    pub(crate) bearer: String,
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) edge: String,
}

impl Provision {
    /// The fields of a delegated request for `resource`, and further ones.
    pub(crate) fn fields<'a>(
        &'a self,
        resource: &'a str,
        scope: &'a str,
        more: &[(&'a str, &'a str)],
    ) -> Vec<(&'a str, &'a str)> {
        let own = [
            ("resource", resource),
            ("scope", scope),
            ("agent_session_id", &*self.target),
            ("delegation_edge_id", &*self.edge),
        ];
        let replaced = |name: &str| more.iter().any(|(other, _)| *other == name);
        own.into_iter().filter(|(name, _)| !replaced(name)).chain(more.iter().copied()).collect()
    }
}

/// The body of a delegation between two sessions of the billing application.
pub(crate) fn delegation(source: &str, target: &str, scopes: &[&str], constraints: &Value) -> Value {
    json!({
        "issuer_application_id": "billing-agent",
        "receiver_application_id": "billing-agent",
        "source_session_id": source,
        "target_session_id": target,
        "scopes": scopes,
        "ttl_seconds": 1_020,
        "constraints": constraints,
    })
}

/// A form body; later fields replace earlier ones of the same name, except `resource`.
pub(crate) fn form(base: &[(&str, &str)], fields: &[(&str, &str)]) -> String {
    let replaced = |name: &str| fields.iter().any(|(other, _)| *other == name);
    let kept = base.iter().filter(|(name, _)| !replaced(name));
    let mut pairs = vec![("grant_type", GRANT)];
    pairs.retain(|(name, _)| !replaced(name));
    pairs.extend(kept.chain(fields));
    let encode = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    pairs.join("&")
}

/// The claims of a mandate, unverified.
pub(crate) fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn fast(secret: &str) -> String {
    format!("sha256${}", URL_SAFE_NO_PAD.encode(digest(&SHA256, secret.as_bytes())))
}

fn slow(secret: &str) -> String {
    let salt = *b"0123456789abcdef";
    let params = argon2::Params::new(65_536, 3, 2, Some(32)).unwrap();
    let mut hash = [0; 32];
    argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
        .hash_password_into(secret.as_bytes(), &salt, &mut hash)
        .unwrap();
    format!("argon2id${}${}", STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash))
}

fn lay_out(base: &Path, config: &str, zone_one: &str) {
    let hashes = [
        ("FAST", fast(SECRET)),
        ("OTHER", fast(OTHER_SECRET)),
        ("SLOW", SLOW.get_or_init(|| slow(SLOW_SECRET)).clone()),
    ];
    let filled =
        |text: &str| hashes.iter().fold(text.to_owned(), |text, (name, hash)| text.replace(name, hash));
    fs::create_dir(base.join("bundles")).unwrap();
    fs::write(base.join("caracal.toml"), config).unwrap();
    fs::write(base.join("bundles/z1.toml"), format!("{}{zone_one}", filled(ZONE_ONE))).unwrap();
    fs::write(base.join("bundles/z2.toml"), filled(ZONE_TWO)).unwrap();
    for (name, text) in [("secrets.toml", "schema = 1\n"), ("operator.token", OPERATOR)] {
        let path = base.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

const CONFIG: &str = r#"
schema = 1
issuer = "http://127.0.0.1:8080"
[coordinator]
operator_token_file = "operator.token"
[zones.z1]
[zones.z2]
"#;

const ZONE_ONE: &str = r#"
schema = 1
[zone]
id = "z1"
name = "One"
[[applications]]
id = "billing-agent"
name = "Billing agent"
secrets = ["FAST"]
[[applications]]
id = "other-agent"
secrets = ["OTHER"]
[[applications]]
id = "slow-agent"
secrets = ["SLOW"]
[[resources]]
identifier = "resource://billing"
id = "row-billing"
upstream_url = "http://127.0.0.1:9000"
scopes = ["invoice.read", "invoice.write", "invoice.pay"]
operation_enforcement = "transport_uniform"
reusable_mandates = true
[[resources]]
identifier = "resource://plain"
upstream_url = "http://127.0.0.1:9001"
scopes = ["invoice.read"]
operation_enforcement = "transport_uniform"
[[resources]]
identifier = "resource://other"
upstream_url = "http://127.0.0.1:9002"
scopes = ["other.read"]
operation_enforcement = "transport_uniform"
[app_ids]
billing = "billing-agent"
other = "other-agent"
slow = "slow-agent"
[grants."resource://billing"]
application = "billing"
roles = { billing-agent = ["invoice.read", "invoice.write", "invoice.pay"], reader = ["invoice.read"] }
[grants."resource://plain"]
application = "billing"
roles = { billing-agent = ["invoice.read"] }
[grants."resource://other"]
application = "other"
roles = { other-agent = ["other.read"] }
[[risk]]
scope = "invoice.pay"
tier = "high"
[[approval_tiers]]
tier = "high"
"#;

const ZONE_TWO: &str = r#"
schema = 1
[zone]
id = "z2"
name = "Two"
[[applications]]
id = "two-agent"
secrets = ["OTHER"]
[[resources]]
identifier = "resource://two"
upstream_url = "http://127.0.0.1:9003"
scopes = ["two.read"]
operation_enforcement = "transport_uniform"
[app_ids]
two = "two-agent"
[grants."resource://two"]
application = "two"
roles = { two-agent = ["two.read"] }
"#;
