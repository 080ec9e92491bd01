//! What `caracal.toml` says, word for word. The published JSON Schema is made from these types.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// `caracal.toml`: the process, its listeners, and which zones there are.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "caracal.toml")]
pub(super) struct FileConfig {
    /// Version of the file format. Always 1.
    #[schemars(range(min = 1, max = 1))]
    #[expect(dead_code, reason = "the schema walk has checked it before this form is read")]
    pub(super) schema: u32,
    /// What mandates carry as `iss`: the URL under which clients reach the authority.
    #[serde(default = "default_issuer")]
    pub(super) issuer: String,
    /// Folder for everything the process remembers, relative to this file.
    #[serde(default = "default_state_dir")]
    pub(super) state_dir: String,
    /// Folder with one folder or one file per zone, relative to this file.
    #[serde(default = "default_bundles_dir")]
    pub(super) bundles_dir: String,
    /// Networks whose `X-Forwarded-For` is believed, such as `10.0.0.0/8`.
    #[serde(default)]
    pub(super) trusted_proxies: Vec<String>,
    /// How long a stop waits for requests in flight.
    #[serde(default = "default_shutdown")]
    #[schemars(range(min = 1, max = 3600))]
    pub(super) shutdown_deadline_seconds: u32,
    /// The bundles of the zones.
    #[serde(default)]
    pub(super) bundles: FileBundles,
    /// The watched secrets file.
    #[serde(default)]
    pub(super) secrets: FileSecrets,
    /// Where the key comes from that seals the zone keys.
    #[serde(default)]
    pub(super) keys: FileKeys,
    /// What the nodes of a fleet share.
    #[serde(default)]
    pub(super) state: FileState,
    /// The four listeners.
    #[serde(default)]
    pub(super) listeners: FileListeners,
    /// The zones of this process and the hosts and prefixes each may use.
    pub(super) zones: BTreeMap<String, FileZone>,
    /// The ledger.
    #[serde(default)]
    pub(super) ledger: FileLedger,
    /// Caps.
    #[serde(default)]
    pub(super) limits: FileLimits,
    /// The metrics endpoint.
    #[serde(default)]
    pub(super) metrics: FileMetrics,
    /// The coordinator.
    #[serde(default)]
    pub(super) coordinator: FileCoordinator,
    /// What may be dialled for agents and bundles.
    #[serde(default)]
    pub(super) egress: FileEgress,
    /// Tokens of identity providers.
    #[serde(default)]
    pub(super) federation: FileFederation,
    /// The log on standard error.
    #[serde(default)]
    pub(super) log: FileLog,
    /// How file changes are noticed.
    #[serde(default)]
    pub(super) watch: FileWatch,
}

/// The bundles of the zones.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileBundles {
    /// Versions of each zone that were in force and are kept in the state folder, to compare with and go back to.
    #[schemars(range(min = 2, max = 1_000))]
    pub(super) keep_versions: u32,
    /// Whether a bundle without a good signature is refused.
    pub(super) require_signature: bool,
    /// Public keys that may sign bundles, as `caracal bundle keygen` prints them. With any, a signature that is there
    /// must be good; with none, signatures are not looked at.
    pub(super) trusted_keys: Vec<String>,
}

/// The secrets file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileSecrets {
    /// Path of the secrets file, relative to this file.
    pub(super) file: String,
    /// Whether the file is mounted by an orchestrator, which may leave it readable for one of our groups.
    pub(super) mounted: bool,
    /// File with the age identities (X25519) that open a sealed secrets file, relative to this file. With it, a file that
    /// is not sealed is refused.
    pub(super) identity_file: Option<String>,
    /// File with the passphrase that opens a sealed secrets file, relative to this file. With it, a file that is not
    /// sealed is refused.
    pub(super) passphrase_file: Option<String>,
    /// The folder whose files the secrets file may name with `{ file = "..." }`, relative to this file. Without it, none.
    pub(super) files_dir: Option<String>,
}

/// What the nodes of a fleet share. Without it this process is on its own.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileState {
    /// The Redis that holds marks and revocations: `redis://` or `rediss://` (TLS), `[user@]host[:port][/database]`.
    pub(super) redis: Option<String>,
    /// File with the password of Redis, relative to this file.
    pub(super) redis_password_file: Option<String>,
    /// File with the certificates (PEM) a `rediss://` server is believed by, relative to this file. Default: the
    /// system's.
    pub(super) redis_ca_file: Option<String>,
    /// File with the key that signs revocations, at least 64 hexadecimal digits, relative to this file. The same
    /// on every node and with every resource server.
    pub(super) stream_key_file: Option<String>,
    /// The Postgres that holds sessions, delegations and records: `postgres://user@host[:port]/database`, over TLS
    /// unless `?sslmode=disable` is added. Needs `redis`. Default: each node keeps its own.
    pub(super) url: Option<String>,
    /// File with the password of Postgres, relative to this file.
    pub(super) url_password_file: Option<String>,
    /// File with certificates (PEM) the Postgres server is believed by beside the public ones, relative to this
    /// file.
    pub(super) url_ca_file: Option<String>,
}

/// Where keys come from.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileKeys {
    /// File with the sealing key, outside the state folder. Without it one is made beside the state folder.
    pub(super) sealing_key: Option<String>,
}

/// The four listeners.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileListeners {
    /// Where agents send governed requests. Default `127.0.0.1:8081`.
    pub(super) gateway: FileListener,
    /// Token endpoint and published keys. Default `127.0.0.1:8080`.
    pub(super) authority: FileListener,
    /// Sessions and delegations. Default `127.0.0.1:4000`.
    pub(super) coordinator: FileListener,
    /// Metrics, health and readiness. Default `127.0.0.1:9090`.
    pub(super) ops: FileListener,
}

/// One listener.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileListener {
    /// Address and port, such as `127.0.0.1:8081` or `[::1]:8081`.
    pub(super) address: Option<String>,
    /// Certificate and key; both are read again when they change.
    pub(super) tls: Option<FileTls>,
    /// An address off loopback without TLS needs exactly the words `I have TLS in front` here.
    pub(super) plaintext: Option<String>,
}

/// Certificate chain and private key, PEM.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FileTls {
    /// Path of the certificate chain, relative to this file.
    pub(super) cert: String,
    /// Path of the private key, relative to this file.
    pub(super) key: String,
}

/// What one zone may use.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileZone {
    /// Host names whose requests belong to this zone.
    pub(super) hosts: Vec<String>,
    /// Path prefixes whose requests belong to this zone.
    pub(super) prefixes: Vec<String>,
    /// Who is told what happens to approvals of this zone, by name; at most 20.
    pub(super) sinks: BTreeMap<String, FileSink>,
}

/// A notification sink: a URL that is posted what happens to approvals.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FileSink {
    /// Where it is: https, or http on loopback; no query.
    pub(super) url: String,
    /// `secret://<name>/<key>`: the key that signs, in the secrets file. Its entry names this zone and the URL's host.
    #[schemars(regex(pattern = r"^secret://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub(super) secret: String,
    /// Only events of these types, such as `step_up_issued`. All of them when left out.
    #[serde(default)]
    pub(super) events: Vec<String>,
}

/// Whether a decision is on disk before the request goes on.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum FileLedgerMode {
    /// Records reach the kernel within 50 ms; a crash may lose that much.
    #[default]
    Buffered,
    /// A decision is durable before the first byte goes upstream.
    Strict,
}

/// The ledger.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileLedger {
    /// Whether a decision is on disk before the request goes on.
    pub(super) mode: FileLedgerMode,
    /// How many records may wait for the disk; when it is full, requests are refused.
    #[schemars(range(min = 16, max = 16_777_216))]
    pub(super) queue: u64,
    /// A signed checkpoint is written after this many records.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) checkpoint_every: u64,
}

/// Caps.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileLimits {
    /// Bytes of a request head.
    #[schemars(range(min = 1_024, max = 1_048_576))]
    pub(super) max_header_bytes: u64,
    /// Header lines of a request.
    #[schemars(range(min = 8, max = 1_000))]
    pub(super) max_header_count: u64,
    /// Bytes of a request body on the authority and the coordinator; resources have their own cap.
    #[schemars(range(min = 1_024, max = 1_073_741_824))]
    pub(super) max_request_bytes: u64,
    /// Open connections per listener.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) max_connections: u64,
    /// Marks of used single-use mandates kept at a time.
    #[schemars(range(min = 1_000, max = 100_000_000))]
    pub(super) max_marks: u64,
    /// Failed signature checks or client secrets per source address and minute.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) failed_verifications_per_minute: u32,
    /// Mandates one application may mint a minute, on one node.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) mints_per_minute: u32,
    /// Live sessions in one zone.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(super) sessions_per_zone: u32,
    /// Live sessions of one application.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(super) sessions_per_application: u32,
    /// Live children of one session.
    #[schemars(range(min = 1, max = 10_000))]
    pub(super) session_children: u32,
    /// How deep sessions may nest.
    #[schemars(range(min = 1, max = 64))]
    pub(super) session_depth: u32,
}

/// The metrics endpoint.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileMetrics {
    /// File with the bearer token that `/metrics` asks for, relative to this file.
    pub(super) bearer_file: Option<String>,
}

/// The coordinator.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileCoordinator {
    /// File with the operator's bearer token, relative to this file. Without it there is no operator access.
    pub(super) operator_token_file: Option<String>,
}

/// What may be dialled for upstreams, token endpoints and key sets. Link-local, metadata, multicast and unspecified
/// addresses never are.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileEgress {
    /// The only hosts that may be dialled, `*.example.com` for every name below one. Any without it.
    pub(super) hosts: Vec<String>,
    /// Networks such as `10.20.0.0/16`. Where given, of the addresses that are not public only these may be dialled;
    /// without it upstreams and token endpoints may have loopback and private ones.
    pub(super) networks: Option<Vec<String>>,
    /// PEM files with certificate authorities that resources may name in `tls.ca`, relative to this file.
    pub(super) authorities: BTreeMap<String, String>,
}

/// Tokens of identity providers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileFederation {
    /// Hosts of key sets that may have a loopback or private address.
    pub(super) private_hosts: Vec<String>,
    /// PEM file with the authorities that certificates of key sets are checked against, relative to this file;
    /// those of the system without it.
    pub(super) ca_file: Option<String>,
}

/// Least severe message that is logged.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum FileLogLevel {
    /// Only what failed.
    Error,
    /// Also what an operator should look at.
    Warn,
    /// Also what changed.
    #[default]
    Info,
    /// Also what each part does.
    Debug,
    /// Everything.
    Trace,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum FileLogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The log on standard error.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileLog {
    /// Least severe message that is logged.
    pub(super) level: FileLogLevel,
    /// How a log line looks.
    pub(super) format: FileLogFormat,
}

/// How file changes are noticed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileWatch {
    /// How often the files are compared with what is loaded, whether or not a change was reported.
    #[schemars(range(min = 1, max = 3600))]
    pub(super) poll_seconds: u32,
}

impl Default for FileBundles {
    fn default() -> Self {
        Self { keep_versions: 20, require_signature: false, trusted_keys: Vec::new() }
    }
}

impl Default for FileSecrets {
    fn default() -> Self {
        Self {
            file: "secrets.toml".to_owned(),
            mounted: false,
            identity_file: None,
            passphrase_file: None,
            files_dir: None,
        }
    }
}

impl Default for FileLedger {
    fn default() -> Self {
        Self { mode: FileLedgerMode::Buffered, queue: 65_536, checkpoint_every: 1_000 }
    }
}

impl Default for FileLimits {
    fn default() -> Self {
        Self {
            max_header_bytes: 16_384,
            max_header_count: 100,
            max_request_bytes: 1_048_576,
            max_connections: 10_000,
            max_marks: 1_000_000,
            failed_verifications_per_minute: 60,
            mints_per_minute: 60_000,
            sessions_per_zone: 10_000,
            sessions_per_application: 10_000,
            session_children: 10,
            session_depth: 10,
        }
    }
}

impl Default for FileWatch {
    fn default() -> Self {
        Self { poll_seconds: 30 }
    }
}

fn default_issuer() -> String {
    "http://127.0.0.1:8080".to_owned()
}

fn default_state_dir() -> String {
    "state".to_owned()
}

fn default_bundles_dir() -> String {
    "bundles".to_owned()
}

const fn default_shutdown() -> u32 {
    30
}
