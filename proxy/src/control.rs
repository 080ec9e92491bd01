//! The control socket: the only way the command line changes a running process.
//!
//! A Unix socket in the state folder, mode 0600 in a folder of mode 0700, that speaks one JSON object per line
//! in each direction. Whoever connects must run as the owner of the process or as root; the kernel says who
//! that is, not the caller. Every act reaches the handler together with that uid, so that the ledger can name
//! the operator.

mod client;
mod server;
mod view;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::reload::Promotion;
use crate::state::{SessionStatus, Target};

pub use client::{ControlError, call};
pub use server::{ControlSocket, serve};
pub use view::{ApplicationView, Endpoints, ResourceView, base_url};

/// Longest request line, in bytes. The longest honest request is a few identifiers.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// Longest response line a client reads, in bytes; a status of some thousand zones fits.
pub const MAX_RESPONSE_BYTES: usize = 8 * 1024 * 1024;

/// Where the control socket of a state folder is.
#[must_use]
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("control.sock")
}

/// The folder a socket is in.
fn folder_of(socket: &Path) -> &Path {
    match socket.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// What an operator may ask of a running process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How the process is: version, generations, zones, listeners, readiness.
    Status,
    /// Read bundles and secrets again now, and say what changed or why nothing did.
    Reload,
    /// Stop everything in a zone at once; survives reloads and restarts.
    Freeze {
        /// The zone.
        zone: String,
    },
    /// End a freeze.
    Unfreeze {
        /// The zone.
        zone: String,
    },
    /// The signing keys of every zone: public facts only.
    KeysList,
    /// Publish a new signing key; it starts signing once verifiers have had time to fetch it.
    KeysRotate {
        /// The zone.
        zone: String,
    },
    /// Refuse everything a key signed, from the next request on.
    KeysRevoke {
        /// The zone.
        zone: String,
        /// The key's id, as `keys list` and the mandate header name it.
        kid: String,
    },
    /// End everything that stands on something: see [`Target`].
    Revoke {
        /// The zone; may be left out while there is only one.
        zone: Option<String>,
        /// What is revoked.
        target: Target,
        /// Why, in the operator's words; a word that fits the target when there is none.
        reason: Option<String>,
        /// Only say what would end.
        dry_run: bool,
    },
    /// Let a revoked application mint again; what was revoked stays dead.
    RestoreApplication {
        /// The zone.
        zone: String,
        /// The application's id.
        application: String,
    },
    /// Sessions with what they hold and gave, newest first.
    Sessions {
        /// The zone; every one when left out.
        zone: Option<String>,
        /// Which ones by where they stand.
        which: Which,
        /// Most rows.
        limit: usize,
    },
    /// One session with every delegation it received or gave.
    Session {
        /// The zone; may be left out while only one has such a session.
        zone: Option<String>,
        /// The session's id.
        id: String,
    },
    /// What a session or an application may do at this moment, and what it would be refused and why.
    WhatCan {
        /// The zone; may be left out while only one has such a session or application.
        zone: Option<String>,
        /// A session's or an application's id.
        id: String,
    },
    /// What is used of budgets and rates.
    Budgets {
        /// The zone; every one when left out.
        zone: Option<String>,
        /// Only this budget or rate.
        budget: Option<String>,
        /// Most rows of each.
        limit: usize,
    },
    /// What waits for a person's answer, newest first.
    Approvals {
        /// The zone; every one when left out.
        zone: Option<String>,
        /// Also what is answered, used or over.
        all: bool,
    },
    /// Answer an approval as an operator.
    DecideApproval {
        /// The approval's id.
        id: String,
        /// Yes or no.
        approved: bool,
        /// Why, for the ledger.
        reason: Option<String>,
    },
    /// Who is told what happens to approvals: how far each sink has come, and what failed.
    Sinks {
        /// The zone; every one when left out.
        zone: Option<String>,
    },
    /// Send a sink a test event: `{"outcome":..}`, which is `delivered` or `failed` with a `detail`.
    SinkTest {
        /// The zone; may be left out while only one has such a sink.
        zone: Option<String>,
        /// The sink's name.
        sink: String,
    },
    /// Names of the application secrets that were retired, and which of them the files list all the same.
    RetiredSecrets {
        /// The zone; every one when left out.
        zone: Option<String>,
    },
    /// Let retired secrets in again that an application's bundle lists.
    ReadmitSecret {
        /// The zone.
        zone: String,
        /// The application's id.
        application: String,
        /// The beginning of the secret's name; all that are retired when left out.
        secret: Option<String>,
    },
    /// Which applications may send a request at this moment, in which roles.
    WhoCan {
        /// The zone; every one when left out.
        zone: Option<String>,
        /// The method.
        method: String,
        /// The URL at the upstream, or the path at the gateway.
        url: String,
    },
    /// Put a kept version of a zone's bundle into force instead of what the files say, or the files again.
    Activate {
        /// The zone; may be left out while there is only one.
        zone: Option<String>,
        /// The beginning of the version's digest; what the files say when left out.
        version: Option<String>,
    },
    /// Put the version into force that the files said before the one in force.
    Rollback {
        /// The zone; may be left out while there is only one.
        zone: Option<String>,
    },
    /// What candidates would change about the decisions that were made beside them.
    Shadow {
        /// The zone; every one when left out.
        zone: Option<String>,
    },
    /// Put the candidate of a zone into force in place of its files: see [`Promotion`].
    Promote {
        /// The zone.
        zone: String,
        /// Which candidate, and what it may change.
        promotion: Promotion,
    },
    /// The secrets in use: names, keys, fingerprints, since when and when used last, never values.
    SecretsList,
    /// Whether an earlier value of a secret may be deleted where it came from: `{"may_delete":..,"why":..}` and what
    /// was seen.
    RotateCheck {
        /// `name/key`, or the name alone where it has one key.
        secret: String,
        /// Fingerprint of the value that is meant; every earlier one when left out.
        old: Option<String>,
        /// How long after a change calls may still use the value before it.
        grace_ms: i64,
    },
    /// The providers: kinds, endpoints, and which access token is kept by its fingerprint, never a value.
    Providers {
        /// The zone; every one when left out.
        zone: Option<String>,
    },
    /// Fetch an access token for a provider and say how that went; the token is dropped.
    ProviderTest {
        /// The zone; may be left out while only one has such a provider.
        zone: Option<String>,
        /// The provider's identifier or id.
        provider: String,
    },
    /// Begin to connect an account to a provider: `{"url":..,"flow":..,"expires_in_seconds":..}`.
    ProviderConnect {
        /// The zone.
        zone: String,
        /// The provider's identifier or id.
        provider: String,
        /// Whose connection it will be.
        subject: String,
    },
    /// How a flow stands: `{"outcome":..}`, which is `pending` until the browser is back. Waits for that a moment.
    ProviderFlow {
        /// What `ProviderConnect` gave.
        flow: String,
    },
    /// The connections: whose, to what, how they stand and until when, never a token.
    ProviderConnections {
        /// The zone; every one when left out.
        zone: Option<String>,
    },
    /// End a connection: its tokens are given back at the provider where that takes them, and forgotten.
    ProviderDisconnect {
        /// The zone.
        zone: String,
        /// The provider's identifier or id.
        provider: String,
        /// Whose connection it is.
        subject: String,
    },
    /// The ledger records of one decision, by decision id or request id: `{"records":[..]}`; `unknown_decision`
    /// while there are none.
    Decision {
        /// The decision id or the request id.
        id: String,
    },
    /// The key that signs the ledger: `{"public_key":"ed25519:..","fingerprint":"sha256:..","ledger":"<folder>"}`.
    LedgerKey,
    /// What one application needs to know to make a governed call: see [`ApplicationView`].
    Application {
        /// The zone; may be left out while only one zone has the application.
        zone: Option<String>,
        /// The application's id.
        application: String,
    },
}

/// Which sessions are asked for, by where they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// Those that have not ended.
    Standing,
    /// Every one that is still listed.
    All,
    /// Those with this very status.
    Only(SessionStatus),
}

/// Who asked, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operator {
    /// Effective user id of the peer when it connected.
    pub uid: u32,
    /// Process id of the peer, where the kernel gives one.
    pub pid: Option<i32>,
}

/// Why an act was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Stable machine-readable word, such as `unknown_zone`.
    pub code: String,
    /// One sentence for the operator.
    pub message: String,
}

impl Failure {
    /// A failure with its stable code and a sentence.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }
}

/// One answer line: `{"ok":true,"data":...}` or `{"ok":false,"error":{...}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Whether the act was carried out.
    pub ok: bool,
    /// What came of it, when it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// Why not, when it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

impl From<Result<Value, Failure>> for Response {
    fn from(result: Result<Value, Failure>) -> Self {
        match result {
            Ok(data) => Self { ok: true, data: Some(data), error: None },
            Err(failure) => Self { ok: false, data: None, error: Some(failure) },
        }
    }
}

/// Carries out requests; implemented by the running process.
#[async_trait]
pub trait ControlHandler: Send + Sync + 'static {
    /// Carries out one request.
    ///
    /// When this returns `Ok` for a request that narrows authority, the narrowing is already in force.
    ///
    /// # Errors
    /// [`Failure`] with a stable code when the request was not carried out.
    async fn handle(&self, request: Request, operator: Operator) -> Result<Value, Failure>;
}

#[cfg(test)]
mod tests;
