//! Rows to SQL and back. Every statement of the state is in this file.

mod write;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row};

use super::error::StateError;
use super::jobs::{AgentService, Invocation, InvocationStatus};
use super::model::{AuthorityRecord, Delegation, DelegationStatus, Session, SessionStatus};
use super::receipts::{KeyKind, Operation, StoredReceipt};
use super::standing::TombstoneKind;
use super::writer::Payload;

/// Version of the store this program writes; the migrations set it as `user_version`.
pub(super) const VERSION: i64 = 2;
/// Key of the nonce that makes a clean-stop file good.
pub(super) const CLEAN_STOP: &str = "clean_stop";
/// Key of the secret idempotency keys are digested with.
pub(super) const RECEIPT_KEY: &str = "receipt_key";

/// One change of one row. Fields that other operations change are written column by column.
#[derive(Debug)]
pub(super) enum Write {
    Meta(&'static str, String),
    ForgetMeta(&'static str),
    Epoch(String, i64),
    ForgetEpochs {
        before: i64,
    },
    Record(Arc<AuthorityRecord>),
    RecordRevoked {
        zone: Arc<str>,
        id: Arc<str>,
    },
    ForgetRecords {
        before: i64,
    },
    Session(Arc<Session>),
    SessionStatus(Arc<Session>),
    SessionResumed(Arc<Session>),
    SessionLease(Arc<Session>),
    ForgetSession {
        zone: Arc<str>,
        id: Arc<str>,
    },
    Delegation(Arc<Delegation>),
    DelegationStatus(Arc<Delegation>),
    ForgetDelegation {
        zone: Arc<str>,
        id: Arc<str>,
    },
    Receipt(ReceiptId, StoredReceipt, String),
    ForgetReceipt(ReceiptId),
    ForgetReceipts {
        before: i64,
    },
    Zone(ZoneWrite),
    Service(Arc<AgentService>),
    ForgetService {
        zone: Arc<str>,
        id: Arc<str>,
    },
    /// With what was sent along, as JSON.
    Invocation(Arc<Invocation>, String),
    /// With what came of it, as JSON, where that is known now.
    InvocationStatus(Arc<Invocation>, Option<String>),
    ForgetInvocation {
        zone: Arc<str>,
        id: Arc<str>,
    },
}

/// A change of a zone-wide switch.
#[derive(Debug)]
pub(super) enum ZoneWrite {
    GraphEpoch(Arc<str>, u64),
    Freeze(Arc<str>, i64),
    Unfreeze(Arc<str>),
    Application { zone: Arc<str>, application: Arc<str>, cut_at: i64, blocked: bool },
    Tombstone(TombstoneKind, Arc<str>, Arc<str>, i64),
    ForgetTombstone(TombstoneKind, Arc<str>, Arc<str>),
    Head(String, u64, String),
}

/// Primary key of a receipt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ReceiptId {
    pub(super) zone: Arc<str>,
    pub(super) operation: Operation,
    pub(super) scope: Arc<str>,
    pub(super) key: [u8; 32],
}

/// Opens the store and brings it to this version; a newer one is refused untouched.
pub(super) async fn open(path: &Path) -> Result<SqliteConnection, StateError> {
    let failed = |source| StateError::store("open the store", source);
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5))
        .foreign_keys(true)
        .disable_statement_logging()
        .connect()
        .await
        .map_err(failed)?;
    let version: i64 =
        sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut connection).await.map_err(failed)?;
    if version > VERSION {
        return Err(StateError::NewerStore { found: version, known: VERSION });
    }
    sqlx::migrate!()
        .run_direct(None, &mut connection, false)
        .await
        .map_err(|source| StateError::Migrate(Arc::new(source)))?;
    Ok(connection)
}

pub(super) async fn meta(connection: &mut SqliteConnection, key: &str) -> Result<Option<String>, StateError> {
    sqlx::query_scalar("SELECT value FROM meta WHERE key = ?")
        .bind(key.to_owned())
        .fetch_optional(connection)
        .await
        .map_err(|source| StateError::store("read the store", source))
}

/// Commits writes of the start, before there is a writer.
pub(super) async fn commit(connection: &mut SqliteConnection, writes: &[Write]) -> Result<(), StateError> {
    let failed = |source| StateError::store("commit to the store", source);
    let mut transaction = connection.begin().await.map_err(failed)?;
    for write in writes {
        write.run(&mut transaction).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}

/// The recorded answer of a receipt.
pub(super) async fn response(
    connection: &mut SqliteConnection,
    id: &ReceiptId,
) -> Result<Option<String>, StateError> {
    let sql =
        "SELECT response FROM receipts WHERE zone = ? AND operation = ? AND scope = ? AND key_digest = ?";
    sqlx::query_scalar(sql)
        .bind(id.zone.to_string())
        .bind(id.operation.as_str())
        .bind(id.scope.to_string())
        .bind(id.key.to_vec())
        .fetch_optional(connection)
        .await
        .map_err(|source| StateError::store("read a receipt", source))
}

/// What was sent along with an invocation, and what came of it.
pub(super) async fn payload(
    connection: &mut SqliteConnection,
    zone: &str,
    id: &str,
) -> Result<Option<Payload>, StateError> {
    sqlx::query_as("SELECT payload, outcome FROM invocations WHERE zone = ? AND id = ?")
        .bind(zone.to_owned())
        .bind(id.to_owned())
        .fetch_optional(connection)
        .await
        .map_err(|source| StateError::store("read an invocation", source))
}

/// Everything that is read once, at start.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) records: Vec<AuthorityRecord>,
    pub(super) sessions: Vec<Session>,
    pub(super) delegations: Vec<Delegation>,
    pub(super) receipts: Vec<(ReceiptId, StoredReceipt)>,
    pub(super) graph_epochs: Vec<(Arc<str>, u64)>,
    pub(super) frozen: Vec<Arc<str>>,
    pub(super) applications: Vec<(Arc<str>, Arc<str>, i64, bool)>,
    pub(super) tombstones: Vec<(TombstoneKind, String, String)>,
    pub(super) heads: Vec<(String, u64, String)>,
    pub(super) services: Vec<AgentService>,
    pub(super) invocations: Vec<Invocation>,
}

/// Without what was sent along, which may be much and is asked for rarely.
const INVOCATIONS: &str = "SELECT zone, id, body, status, attempts, deadline_at, started_at,
    cancel_requested_at, cancel_reason, completed_at FROM invocations";

pub(super) async fn load(connection: &mut SqliteConnection) -> Result<Loaded, StateError> {
    Ok(Loaded {
        records: rows(connection, "records", "SELECT * FROM records", record).await?,
        sessions: rows(connection, "sessions", "SELECT * FROM sessions", session).await?,
        delegations: rows(connection, "delegations", "SELECT * FROM delegations", delegation).await?,
        receipts: rows(connection, "receipts", "SELECT * FROM receipts ORDER BY created_at", receipt).await?,
        graph_epochs: rows(connection, "graph_epochs", "SELECT * FROM graph_epochs", graph_epoch).await?,
        frozen: rows(connection, "frozen_zones", "SELECT zone FROM frozen_zones", |row| text(row, "zone"))
            .await?,
        applications: rows(connection, "applications", "SELECT * FROM applications", application).await?,
        tombstones: rows(connection, "tombstones", "SELECT * FROM tombstones", tombstone).await?,
        heads: rows(connection, "ledger_heads", "SELECT * FROM ledger_heads", head).await?,
        services: rows(connection, "agent_services", "SELECT * FROM agent_services", body).await?,
        invocations: rows(connection, "invocations", INVOCATIONS, invocation).await?,
    })
}

async fn rows<T>(
    connection: &mut SqliteConnection,
    table: &'static str,
    sql: &'static str,
    read: impl Fn(&SqliteRow) -> Option<T>,
) -> Result<Vec<T>, StateError> {
    let found = sqlx::query(sql)
        .fetch_all(connection)
        .await
        .map_err(|source| StateError::store("read the store", source))?;
    let unreadable = |row: &SqliteRow| StateError::Corrupt {
        table,
        id: row.try_get("id").or_else(|_| row.try_get("zone")).unwrap_or_default(),
    };
    found.iter().map(|row| read(row).ok_or_else(|| unreadable(row))).collect()
}

fn text(row: &SqliteRow, column: &str) -> Option<Arc<str>> {
    row.try_get::<String, _>(column).ok().map(Arc::from)
}

fn number(row: &SqliteRow, column: &str) -> Option<i64> {
    row.try_get(column).ok()
}

fn count(row: &SqliteRow, column: &str) -> Option<u64> {
    u64::try_from(number(row, column)?).ok()
}

fn maybe<'r, T>(row: &'r SqliteRow, column: &str) -> Option<Option<T>>
where
    Option<T>: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(column).ok()
}

fn body<T: serde::de::DeserializeOwned>(row: &SqliteRow) -> Option<T> {
    serde_json::from_str(&row.try_get::<String, _>("body").ok()?).ok()
}

fn digest(row: &SqliteRow, column: &str) -> Option<[u8; 32]> {
    row.try_get::<Vec<u8>, _>(column).ok()?.try_into().ok()
}

fn record(row: &SqliteRow) -> Option<AuthorityRecord> {
    Some(AuthorityRecord { revoked: number(row, "revoked")? != 0, ..body(row)? })
}

fn session(row: &SqliteRow) -> Option<Session> {
    Some(Session {
        status: SessionStatus::from_word(&text(row, "status")?)?,
        lease_generation: count(row, "lease_generation")?,
        last_heartbeat_at: maybe(row, "last_heartbeat_at")?,
        heartbeat_deadline_at: maybe(row, "heartbeat_deadline_at")?,
        terminated_at: maybe(row, "terminated_at")?,
        termination_reason: maybe(row, "termination_reason")?,
        ..body(row)?
    })
}

fn delegation(row: &SqliteRow) -> Option<Delegation> {
    Some(Delegation {
        status: DelegationStatus::from_word(&text(row, "status")?)?,
        version: count(row, "version")?,
        revoked_at: maybe(row, "revoked_at")?,
        ..body(row)?
    })
}

fn invocation(row: &SqliteRow) -> Option<Invocation> {
    Some(Invocation {
        status: InvocationStatus::from_word(&text(row, "status")?)?,
        attempts: u32::try_from(number(row, "attempts")?).ok()?,
        deadline_at: maybe(row, "deadline_at")?,
        started_at: maybe(row, "started_at")?,
        cancel_requested_at: maybe(row, "cancel_requested_at")?,
        cancel_reason: maybe(row, "cancel_reason")?,
        completed_at: maybe(row, "completed_at")?,
        ..body(row)?
    })
}

fn receipt(row: &SqliteRow) -> Option<(ReceiptId, StoredReceipt)> {
    let id = ReceiptId {
        zone: text(row, "zone")?,
        operation: Operation::from_word(&text(row, "operation")?)?,
        scope: text(row, "scope")?,
        key: digest(row, "key_digest")?,
    };
    let stored = StoredReceipt {
        request: digest(row, "request_digest")?,
        result: text(row, "result")?,
        kind: KeyKind::from_word(&text(row, "key_kind")?)?,
        created_at: number(row, "created_at")?,
        expires_at: number(row, "expires_at")?,
    };
    Some((id, stored))
}

fn graph_epoch(row: &SqliteRow) -> Option<(Arc<str>, u64)> {
    Some((text(row, "zone")?, count(row, "epoch")?))
}

fn application(row: &SqliteRow) -> Option<(Arc<str>, Arc<str>, i64, bool)> {
    let (zone, application) = (text(row, "zone")?, text(row, "application")?);
    Some((zone, application, number(row, "cut_at")?, number(row, "blocked")? != 0))
}

fn tombstone(row: &SqliteRow) -> Option<(TombstoneKind, String, String)> {
    let kind = TombstoneKind::from_word(&text(row, "kind")?)?;
    Some((kind, row.try_get("zone").ok()?, row.try_get("value").ok()?))
}

fn head(row: &SqliteRow) -> Option<(String, u64, String)> {
    Some((row.try_get("zone").ok()?, count(row, "seq")?, row.try_get("hash").ok()?))
}
