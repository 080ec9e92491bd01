//! `caracal.toml`: a path in, a checked [`Config`] or every problem at once out.
//!
//! The file form (`file`) is what the text says and what the JSON Schema is made from. The checked form below is
//! what the program uses: paths are absolute or relative to the working folder, addresses are parsed, and a
//! listener that would speak plaintext to a network does not exist.

mod checked;
pub(crate) mod document;
mod egress;
mod file;
mod fleet;
mod net;
mod sinks;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use caracal_policies::{Assigned, EndpointUrl, Place, Problem, Report, SecretRef};
use serde_json::Value;

use crate::ledger::PublicKey;

pub(crate) use sinks::EVENTS as SINK_EVENTS;

pub use net::{IpNet, IpNetProblem};

/// The words a listener needs to speak plaintext off loopback.
pub const PLAINTEXT_WORDS: &str = "I have TLS in front";

/// The configuration file with every setting at its default and the quickstart's zone.
pub const EMBEDDED: &str = include_str!("config/default.toml");

/// Bytes a configuration file may have; a real one has a few thousand.
const MAX_CONFIG_BYTES: u64 = 1_048_576;

/// The checked configuration of the process. It does not change while the process runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// What mandates carry as `iss`: an http or https URL without a trailing slash.
    pub issuer: String,
    /// The folder of `caracal.toml`.
    pub base: PathBuf,
    /// Folder for everything the process remembers.
    pub state_dir: PathBuf,
    /// Folder with one folder or one file per zone.
    pub bundles_dir: PathBuf,
    /// What holds for the bundle of every zone.
    pub bundles: BundlesConfig,
    /// The secrets file.
    pub secrets: SecretsConfig,
    /// File with the sealing key; never inside the state folder.
    pub sealing_key: Option<PathBuf>,
    /// What the nodes of a fleet share; nothing for a process on its own.
    pub fleet: Option<FleetConfig>,
    /// The four listeners.
    pub listeners: Listeners,
    /// Hosts and prefixes by zone id.
    pub zones: BTreeMap<String, Assigned>,
    /// Who is told what happens to approvals, by zone and name.
    pub sinks: Vec<SinkConfig>,
    /// The ledger.
    pub ledger: LedgerConfig,
    /// Caps.
    pub limits: Limits,
    /// Networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// File with the coordinator's operator token.
    pub coordinator_token_file: Option<PathBuf>,
    /// What may be dialled for agents and bundles.
    pub egress: EgressConfig,
    /// Fetching the keys of subject issuers.
    pub federation: FederationConfig,
    /// File with the bearer token of `/metrics`.
    pub metrics_bearer_file: Option<PathBuf>,
    /// How long a stop waits for requests in flight.
    pub shutdown_deadline: Duration,
    /// The log.
    pub log: LogConfig,
    /// How file changes are noticed.
    pub watch: WatchConfig,
}

/// What holds for the bundle of every zone.
#[derive(Clone, Debug)]
pub struct BundlesConfig {
    /// Versions of each zone's bundle that are kept.
    pub keep_versions: usize,
    /// Whether a bundle without a good signature is refused.
    pub require_signature: bool,
    /// Who may sign. With none, signatures are not looked at.
    pub trusted_keys: Vec<PublicKey>,
}

/// The secrets file and who may read it.
#[derive(Clone, Debug, Default)]
pub struct SecretsConfig {
    /// Path of the file.
    pub file: PathBuf,
    /// Whether an orchestrator mounts it, so that it may be readable for one of our groups.
    pub mounted: bool,
    /// What opens it; with one, a file that is not sealed is refused.
    pub key: Option<SecretsKey>,
    /// Folder whose files it may name in place of values.
    pub files_dir: Option<PathBuf>,
}

/// The file with what opens a sealed secrets file.
#[derive(Clone, Debug)]
pub enum SecretsKey {
    /// Age identities (X25519), one a line.
    Identity(PathBuf),
    /// A passphrase.
    Passphrase(PathBuf),
}

impl SecretsKey {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Identity(path) | Self::Passphrase(path) => path,
        }
    }

    /// What is in it, for reports.
    pub(crate) const fn noun(&self) -> &'static str {
        match self {
            Self::Identity(_) => "identity",
            Self::Passphrase(_) => "passphrase",
        }
    }
}

/// How the nodes of a fleet reach what they share.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// The Postgres server with what must last; without one, each node keeps its own.
    pub store: Option<StoreConfig>,
    /// The Redis server.
    pub redis: RedisAddress,
    /// File with its password.
    pub password_file: Option<PathBuf>,
    /// File with the certificates a TLS server is believed by; the system's when there is none.
    pub ca_file: Option<PathBuf>,
    /// File with the key that signs revocations.
    pub stream_key_file: PathBuf,
}

/// The Postgres server that a fleet shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Name of the database.
    pub database: String,
    /// User name.
    pub user: String,
    /// Whether TLS is spoken; the server's certificate is then checked for the host name.
    pub tls: bool,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// File with certificates the server is believed by, beside the public ones.
    pub ca_file: Option<PathBuf>,
}

/// Where a Redis server listens. Never carries a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisAddress {
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Number of the database.
    pub database: i64,
    /// User name, where the server knows several.
    pub user: Option<String>,
    /// Whether TLS is spoken.
    pub tls: bool,
}

/// The four listeners.
#[derive(Clone, Debug)]
pub struct Listeners {
    /// Governed requests.
    pub gateway: Listener,
    /// Token endpoint and published keys.
    pub authority: Listener,
    /// Sessions and delegations.
    pub coordinator: Listener,
    /// Metrics, health and readiness.
    pub ops: Listener,
}

/// One listener: on loopback, or with TLS, or with TLS in front by the operator's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Certificate and key, for a listener that speaks TLS.
    pub tls: Option<TlsFiles>,
}

/// Certificate chain and private key, PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// A notification sink: who is told what happens to approvals of a zone.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    /// The zone.
    pub zone: String,
    /// Its name in the zone.
    pub name: String,
    /// Where it is.
    pub url: EndpointUrl,
    /// What signs.
    pub secret: SecretRef,
    /// The types of events it is told of; all where there are none.
    pub events: Vec<String>,
}

/// Whether a decision is durable before the request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerMode {
    /// Records reach the kernel within 50 ms; a crash may lose that much.
    Buffered,
    /// A decision is durable before the first byte goes upstream.
    Strict,
}

/// The ledger's settings.
#[derive(Clone, Debug)]
pub struct LedgerConfig {
    /// Whether a decision is durable before the request goes on.
    pub mode: LedgerMode,
    /// Records that may wait for the disk.
    pub queue: usize,
    /// Records between two signed checkpoints.
    pub checkpoint_every: u64,
}

/// Caps of the process.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request head.
    pub max_header_bytes: usize,
    /// Header lines of a request.
    pub max_header_count: usize,
    /// Bytes of a request body on the authority and the coordinator.
    pub max_request_bytes: u64,
    /// Open connections per listener.
    pub max_connections: usize,
    /// Marks of used mandates kept at a time.
    pub max_marks: usize,
    /// Failed verifications per source address and minute.
    pub failed_verifications_per_minute: u32,
    /// Mandates of one application and minute, on one node.
    pub mints_per_minute: u32,
    /// Live sessions in one zone.
    pub sessions_per_zone: u32,
    /// Live sessions of one application.
    pub sessions_per_application: u32,
    /// Live children of one session.
    pub session_children: u32,
    /// How deep sessions may nest.
    pub session_depth: u32,
}

/// What may be dialled for upstreams, token endpoints and key sets.
#[derive(Clone, Debug, Default)]
pub struct EgressConfig {
    /// The only hosts that may be dialled; any where there is none.
    pub hosts: Vec<HostPattern>,
    /// Where given, of the addresses that are not public only these are dialled.
    pub networks: Option<Vec<IpNet>>,
    /// Files with the certificate authorities that resources may name.
    pub authorities: BTreeMap<String, PathBuf>,
}

/// One host, or every name below one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    /// Lower case, without brackets and the root's dot.
    name: String,
    /// Whether the names below are meant, and not the name itself.
    below: bool,
}

impl HostPattern {
    /// Whether a lower-case host without brackets is meant.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        if !self.below {
            return host == self.name;
        }
        host.strip_suffix(&self.name).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
    }
}

/// Fetching the keys of subject issuers.
#[derive(Clone, Debug, Default)]
pub struct FederationConfig {
    /// Hosts that may have a loopback or private address: lower case, IPv6 without brackets.
    pub private_hosts: Vec<String>,
    /// PEM file with the authorities that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The log on standard error.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Least severe message that is logged.
    pub level: tracing::Level,
    /// How a line looks.
    pub format: LogFormat,
}

/// How file changes are noticed.
#[derive(Clone, Debug)]
pub struct WatchConfig {
    /// How often files are compared with what is loaded, whether or not a change was reported.
    pub poll: Duration,
}

impl Config {
    /// The configuration of [`EMBEDDED`], with paths relative to the working folder.
    ///
    /// # Errors
    /// Never, in a build that passes its tests.
    pub fn embedded() -> Result<Self, Report> {
        parse("caracal.toml", EMBEDDED, Path::new("."))
    }
}

/// Reads and checks a configuration file. Relative paths in it are taken from its folder.
///
/// # Errors
/// Every problem of the file, each with its place.
pub fn load(path: &Path) -> Result<Config, Report> {
    let shown = path.display().to_string();
    let refuse = |code, message: &str, found: String, hint: &str| Report {
        problems: vec![Problem {
            code,
            place: Place { file: shown.as_str().into(), line: 1, column: 1 },
            message: message.to_owned(),
            found,
            expected: "a readable TOML file of at most 1 MiB".to_owned(),
            hint: hint.to_owned(),
        }],
    };
    let size = std::fs::metadata(path)
        .map_err(|error| {
            refuse(
                "config_unreadable",
                "the configuration cannot be read",
                error.to_string(),
                "check the path",
            )
        })?
        .len();
    if size > MAX_CONFIG_BYTES {
        return Err(refuse(
            "config_too_large",
            "the configuration is too large",
            format!("{size} bytes"),
            "",
        ));
    }
    let text = std::fs::read_to_string(path).map_err(|error| {
        refuse("config_unreadable", "the configuration cannot be read", error.to_string(), "check the path")
    })?;
    let base = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    parse(&shown, &text, base)
}

/// Checks a configuration text; `shown` is its name in reports, `base` the folder of its relative paths.
///
/// # Errors
/// Every problem of the text, each with its place.
pub fn parse(shown: &str, text: &str, base: &Path) -> Result<Config, Report> {
    let document = document::Document::parse(shown, text).map_err(|problems| Report { problems })?;
    let problems = document.check(&json_schema());
    if !problems.is_empty() {
        return Err(Report { problems });
    }
    let file: file::FileConfig = toml::from_str(text).map_err(|error| Report {
        problems: vec![Problem {
            code: "wrong_value",
            place: document.place(&error.span().unwrap_or(0..0)),
            message: "a value cannot be used".to_owned(),
            found: error.message().to_owned(),
            expected: "a value as the schema describes it".to_owned(),
            hint: "run `caracal schema` for the description of every setting".to_owned(),
        }],
    })?;
    checked::check(&file, &document, base).map_err(|problems| Report { problems })
}

/// The JSON Schema of `caracal.toml`.
#[must_use]
pub fn json_schema() -> Value {
    schemars::schema_for!(file::FileConfig).to_value()
}
