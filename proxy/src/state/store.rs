//! Rows to SQL and back, for SQLite and Postgres alike. Every statement of the state is here and below.

mod database;
pub(super) mod postgres;
mod rows;
pub(super) mod sqlite;
mod write;

use std::sync::Arc;

use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;

use super::connections;
use super::cursors::StoredCursor;
use super::error::StateError;
use super::holds::Hold;
use super::identities::Identity;
use super::jobs::{AgentService, Invocation};
use super::model::{AuthorityRecord, Delegation, Session};
use super::receipts::{Operation, StoredReceipt};
use super::standing::TombstoneKind;
use super::writer::Payload;
pub(super) use database::{Columns, Database, Statement};

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
    Budget(crate::budgets::Standing),
    ForgetBudget(crate::budgets::Standing),
    ForgetBudgets {
        before: i64,
    },
    Own(OwnWrite),
    Hold(Arc<Hold>),
    HoldDecided(Arc<Hold>),
    HoldUsed(Arc<Hold>),
    /// Nobody answered in time, which is written down once.
    HoldLapsed(Arc<Hold>),
    ForgetHold {
        zone: Arc<str>,
        id: Arc<str>,
    },
    Connection(Arc<connections::Connection>),
    ConnectionEnded(Arc<connections::Connection>),
}

/// A change of what a node keeps for itself.
#[derive(Debug)]
pub(super) enum OwnWrite {
    Cursor(StoredCursor),
    /// Zone and sink.
    ForgetCursor(String, String),
    Identity(Identity),
    ForgetIdentity(Identity),
}

/// A change of a zone-wide switch.
#[derive(Debug)]
pub(super) enum ZoneWrite {
    GraphEpoch(Arc<str>, u64),
    Freeze(Arc<str>, i64),
    Unfreeze(Arc<str>),
    /// A cut, a block or both; neither undoes an earlier one.
    Application {
        zone: Arc<str>,
        application: Arc<str>,
        cut_at: i64,
        blocked: bool,
    },
    Unblock {
        zone: Arc<str>,
        application: Arc<str>,
    },
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

pub(super) async fn meta<D: Database>(database: &mut D, key: &str) -> Result<Option<String>, StateError> {
    let asked = Statement::new("SELECT value FROM meta WHERE key = $1").bind(key.to_owned());
    let found = database.fetch(asked).await.map_err(|source| StateError::store("read the store", source))?;
    Ok(found.first().and_then(|row| row.text("value")))
}

/// Commits writes of the start, before there is a writer.
pub(super) async fn commit(connection: &mut SqliteConnection, writes: &[Write]) -> Result<(), StateError> {
    let failed = |source| StateError::store("commit to the store", source);
    let mut transaction = connection.begin().await.map_err(failed)?;
    for write in writes {
        write.run(&mut *transaction).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}

/// The recorded answer of a receipt.
pub(super) async fn response<D: Database>(
    database: &mut D,
    id: &ReceiptId,
) -> Result<Option<String>, StateError> {
    let asked = Statement::new(
        "SELECT response FROM receipts WHERE zone = $1 AND operation = $2 AND scope = $3 AND key_digest = $4",
    )
    .bind(id.zone.to_string())
    .bind(id.operation.as_str().to_owned())
    .bind(id.scope.to_string())
    .bind(id.key.to_vec());
    let found = database.fetch(asked).await.map_err(|source| StateError::store("read a receipt", source))?;
    Ok(found.first().and_then(|row| row.text("response")))
}

/// What was sent along with an invocation, and what came of it.
pub(super) async fn payload<D: Database>(
    database: &mut D,
    zone: &str,
    id: &str,
) -> Result<Option<Payload>, StateError> {
    let asked = Statement::new("SELECT payload, outcome FROM invocations WHERE zone = $1 AND id = $2")
        .bind(zone.to_owned())
        .bind(id.to_owned());
    let found =
        database.fetch(asked).await.map_err(|source| StateError::store("read an invocation", source))?;
    Ok(found.first().and_then(|row| Some((row.text("payload")?, row.maybe_text("outcome")?))))
}

/// Everything that is read at start; in a fleet also what other nodes have written since.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) records: Vec<AuthorityRecord>,
    pub(super) sessions: Vec<Session>,
    pub(super) delegations: Vec<Delegation>,
    pub(super) receipts: Vec<(ReceiptId, StoredReceipt)>,
    pub(super) graph_epochs: Vec<(Arc<str>, u64)>,
    /// Zones with whether they are stopped.
    pub(super) frozen: Vec<(Arc<str>, bool)>,
    pub(super) applications: Vec<(Arc<str>, Arc<str>, i64, bool)>,
    /// With whether it is still buried.
    pub(super) tombstones: Vec<(TombstoneKind, String, String, bool)>,
    pub(super) services: Vec<AgentService>,
    pub(super) invocations: Vec<Invocation>,
    pub(super) holds: Vec<Hold>,
    pub(super) connections: Vec<connections::Connection>,
}

/// The two forms of a query: all rows of a table, and those written after a commit of a fleet's store.
macro_rules! select {
    ($columns:literal, $table:literal) => {
        Select {
            table: $table,
            all: concat!("SELECT ", $columns, " FROM ", $table),
            since: concat!("SELECT ", $columns, " FROM ", $table, " WHERE rev > $1"),
        }
    };
}

#[derive(Clone, Copy)]
struct Select {
    table: &'static str,
    all: &'static str,
    since: &'static str,
}

const RECORDS: Select = select!("*", "records");
const SESSIONS: Select = select!("*", "sessions");
const DELEGATIONS: Select = select!("*", "delegations");
/// Without the answer, which is asked for rarely.
const RECEIPTS: Select = select!(
    "zone, operation, scope, key_digest, request_digest, result, key_kind, created_at, expires_at",
    "receipts"
);
const GRAPH_EPOCHS: Select = select!("*", "graph_epochs");
const FROZEN_ZONES: Select = select!("*", "frozen_zones");
const APPLICATIONS: Select = select!("*", "applications");
const TOMBSTONES: Select = select!("*", "tombstones");
const APPROVALS: Select = select!("*", "approvals");
const CONNECTIONS: Select = select!("*", "connections");
const AGENT_SERVICES: Select = select!("*", "agent_services");
/// Without what was sent along, which may be much and is asked for rarely.
const INVOCATIONS: Select = select!(
    "zone, id, body, status, attempts, deadline_at, started_at, cancel_requested_at, cancel_reason, completed_at",
    "invocations"
);

/// Reads the whole store of a single node.
pub(super) async fn load(connection: &mut SqliteConnection) -> Result<Loaded, StateError> {
    read(connection, None).await
}

/// Reads what was written to a fleet's store after commit `since`; 0 for all of it.
pub(super) async fn load_since<D: Database>(database: &mut D, since: i64) -> Result<Loaded, StateError> {
    read(database, Some(since)).await
}

async fn read<D: Database>(database: &mut D, since: Option<i64>) -> Result<Loaded, StateError> {
    let mut receipts = rows(database, RECEIPTS, since, rows::receipt).await?;
    receipts.sort_by_key(|(_, stored)| stored.created_at);
    Ok(Loaded {
        records: rows(database, RECORDS, since, rows::record).await?,
        sessions: rows(database, SESSIONS, since, rows::session).await?,
        delegations: rows(database, DELEGATIONS, since, rows::delegation).await?,
        receipts,
        graph_epochs: rows(database, GRAPH_EPOCHS, since, rows::graph_epoch).await?,
        frozen: rows(database, FROZEN_ZONES, since, rows::frozen).await?,
        applications: rows(database, APPLICATIONS, since, rows::application).await?,
        tombstones: rows(database, TOMBSTONES, since, rows::tombstone).await?,
        services: rows(database, AGENT_SERVICES, since, rows::body).await?,
        invocations: rows(database, INVOCATIONS, since, rows::invocation).await?,
        holds: rows(database, APPROVALS, since, rows::hold).await?,
        connections: rows(database, CONNECTIONS, since, rows::connection).await?,
    })
}

/// What a node keeps for itself.
#[derive(Debug)]
pub(super) struct Own {
    /// What was used of budgets that outlast a process.
    pub(super) budgets: Vec<crate::budgets::Standing>,
    /// How far sinks have come.
    pub(super) cursors: Vec<StoredCursor>,
    /// Who could ask here.
    pub(super) identities: Vec<Identity>,
    /// The heads of the ledger as this node last saw them: zone, number, hash.
    pub(super) heads: Vec<(String, u64, String)>,
}

/// Reads what a node keeps for itself.
pub(super) async fn own(connection: &mut SqliteConnection) -> Result<Own, StateError> {
    Ok(Own {
        budgets: rows(connection, select!("*", "budgets"), None, rows::budget).await?,
        cursors: rows(connection, select!("*", "sink_cursors"), None, rows::cursor).await?,
        identities: rows(connection, select!("*", "identities"), None, rows::identity).await?,
        heads: rows(connection, select!("*", "ledger_heads"), None, rows::head).await?,
    })
}

async fn rows<D: Database, T>(
    database: &mut D,
    select: Select,
    since: Option<i64>,
    read: impl Fn(&D::Row) -> Option<T>,
) -> Result<Vec<T>, StateError> {
    let asked = match since {
        None => Statement::new(select.all),
        Some(since) => Statement::new(select.since).bind(since),
    };
    let found = database.fetch(asked).await.map_err(|source| StateError::store("read the store", source))?;
    let unreadable = |row: &D::Row| StateError::Corrupt {
        table: select.table,
        id: row.text("id").or_else(|| row.text("zone")).unwrap_or_default(),
    };
    found.iter().map(|row| read(row).ok_or_else(|| unreadable(row))).collect()
}
