//! One [`Write`] to one statement.

use sqlx::Sqlite;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};

use super::{ReceiptId, Write, ZoneWrite};
use crate::state::jobs::Invocation;
use crate::state::model::{AuthorityRecord, Delegation, Session};
use crate::state::receipts::StoredReceipt;

type Statement = Query<'static, Sqlite, SqliteArguments>;

impl Write {
    /// Runs the statement inside the caller's transaction.
    pub(in crate::state) async fn run(&self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        self.statement()?.execute(connection).await.map(drop)
    }

    fn statement(&self) -> Result<Statement, sqlx::Error> {
        Ok(match self {
            Self::Record(record) => insert_record(record)?,
            Self::RecordRevoked { zone, id } => {
                query("UPDATE records SET revoked = 1 WHERE zone = ? AND id = ?").bind(s(zone)).bind(s(id))
            }
            Self::ForgetRecords { before } => query("DELETE FROM records WHERE expires_at < ?").bind(*before),
            Self::Session(row) => insert_session(row)?,
            Self::SessionStatus(row) => session_status(row),
            Self::SessionResumed(row) => session_resumed(row),
            Self::SessionLease(row) => session_lease(row),
            Self::ForgetSession { zone, id } => {
                query("DELETE FROM sessions WHERE zone = ? AND id = ?").bind(s(zone)).bind(s(id))
            }
            Self::Delegation(row) => insert_delegation(row)?,
            Self::DelegationStatus(row) => delegation_status(row),
            Self::ForgetDelegation { zone, id } => {
                query("DELETE FROM delegations WHERE zone = ? AND id = ?").bind(s(zone)).bind(s(id))
            }
            Self::Receipt(id, stored, response) => insert_receipt(id, stored, response),
            Self::ForgetReceipt(id) => forget_receipt(id),
            Self::ForgetReceipts { before } => {
                query("DELETE FROM receipts WHERE expires_at <= ?").bind(*before)
            }
            Self::Meta(key, value) => {
                query("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)").bind(*key).bind(value.clone())
            }
            Self::ForgetMeta(key) => query("DELETE FROM meta WHERE key = ?").bind(*key),
            Self::Epoch(epoch, at) => {
                query("INSERT INTO epochs (epoch, started_at) VALUES (?, ?)").bind(epoch.clone()).bind(*at)
            }
            Self::ForgetEpochs { before } => query("DELETE FROM epochs WHERE started_at < ?").bind(*before),
            Self::Zone(write) => write.statement(),
            Self::Service(row) => {
                query("INSERT OR REPLACE INTO agent_services (zone, id, body) VALUES (?, ?, ?)")
                    .bind(s(&row.zone))
                    .bind(s(&row.id))
                    .bind(encode(row)?)
            }
            Self::ForgetService { zone, id } => {
                query("DELETE FROM agent_services WHERE zone = ? AND id = ?").bind(s(zone)).bind(s(id))
            }
            Self::Invocation(row, payload) => insert_invocation(row, payload)?,
            Self::InvocationStatus(row, outcome) => invocation_status(row, outcome.as_deref()),
            Self::ForgetInvocation { zone, id } => {
                query("DELETE FROM invocations WHERE zone = ? AND id = ?").bind(s(zone)).bind(s(id))
            }
        })
    }
}

impl ZoneWrite {
    fn statement(&self) -> Statement {
        match self {
            Self::GraphEpoch(zone, epoch) => {
                query("INSERT OR REPLACE INTO graph_epochs (zone, epoch) VALUES (?, ?)")
                    .bind(s(zone))
                    .bind(signed(*epoch))
            }
            Self::Freeze(zone, at) => {
                query("INSERT OR REPLACE INTO frozen_zones (zone, frozen_at) VALUES (?, ?)")
                    .bind(s(zone))
                    .bind(*at)
            }
            Self::Unfreeze(zone) => query("DELETE FROM frozen_zones WHERE zone = ?").bind(s(zone)),
            Self::Application { zone, application, cut_at, blocked } => query(
                "INSERT OR REPLACE INTO applications (zone, application, cut_at, blocked) VALUES (?, ?, ?, ?)",
            )
            .bind(s(zone))
            .bind(s(application))
            .bind(*cut_at)
            .bind(*blocked),
            Self::Tombstone(kind, zone, value, at) => {
                query("INSERT OR REPLACE INTO tombstones (kind, zone, value, at) VALUES (?, ?, ?, ?)")
                    .bind(kind.as_str())
                    .bind(s(zone))
                    .bind(s(value))
                    .bind(*at)
            }
            Self::ForgetTombstone(kind, zone, value) => {
                query("DELETE FROM tombstones WHERE kind = ? AND zone = ? AND value = ?")
                    .bind(kind.as_str())
                    .bind(s(zone))
                    .bind(s(value))
            }
            Self::Head(zone, seq, hash) => {
                query("INSERT OR REPLACE INTO ledger_heads (zone, seq, hash) VALUES (?, ?, ?)")
                    .bind(zone.clone())
                    .bind(signed(*seq))
                    .bind(hash.clone())
            }
        }
    }
}

fn query(sql: &'static str) -> Statement {
    sqlx::query(sql)
}

fn s(text: &str) -> String {
    text.to_owned()
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn encode(row: &impl serde::Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(row).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn insert_record(record: &AuthorityRecord) -> Result<Statement, sqlx::Error> {
    Ok(query(
        "INSERT INTO records (zone, id, body, expires_at, revoked) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET body = excluded.body, expires_at = excluded.expires_at",
    )
    .bind(s(&record.zone))
    .bind(s(&record.id))
    .bind(encode(record)?)
    .bind(record.expires_at)
    .bind(record.revoked))
}

fn insert_session(row: &Session) -> Result<Statement, sqlx::Error> {
    Ok(query(
        "INSERT INTO sessions (zone, id, body, status, lease_generation, last_heartbeat_at,
         heartbeat_deadline_at, terminated_at, termination_reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(s(&row.zone))
    .bind(s(&row.id))
    .bind(encode(row)?)
    .bind(row.status.as_str())
    .bind(signed(row.lease_generation))
    .bind(row.last_heartbeat_at)
    .bind(row.heartbeat_deadline_at)
    .bind(row.terminated_at)
    .bind(row.termination_reason.clone()))
}

fn session_status(row: &Session) -> Statement {
    query(
        "UPDATE sessions SET status = ?, terminated_at = ?, termination_reason = ? WHERE zone = ? AND id = ?",
    )
    .bind(row.status.as_str())
    .bind(row.terminated_at)
    .bind(row.termination_reason.clone())
    .bind(s(&row.zone))
    .bind(s(&row.id))
}

/// An end that was committed first wins over a resume that was on its way.
fn session_resumed(row: &Session) -> Statement {
    query(
        "UPDATE sessions SET status = 'active', heartbeat_deadline_at = ?
         WHERE zone = ? AND id = ? AND status = 'suspended'",
    )
    .bind(row.heartbeat_deadline_at)
    .bind(s(&row.zone))
    .bind(s(&row.id))
}

fn session_lease(row: &Session) -> Statement {
    query(
        "UPDATE sessions SET lease_generation = max(lease_generation, ?), last_heartbeat_at = ?,
         heartbeat_deadline_at = max(coalesce(heartbeat_deadline_at, 0), ?) WHERE zone = ? AND id = ?",
    )
    .bind(signed(row.lease_generation))
    .bind(row.last_heartbeat_at)
    .bind(row.heartbeat_deadline_at)
    .bind(s(&row.zone))
    .bind(s(&row.id))
}

fn insert_delegation(row: &Delegation) -> Result<Statement, sqlx::Error> {
    Ok(query(
        "INSERT INTO delegations (zone, id, source_session, target_session, body, status, version, revoked_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(s(&row.zone))
    .bind(s(&row.id))
    .bind(s(&row.source_session))
    .bind(s(&row.target_session))
    .bind(encode(row)?)
    .bind(row.status.as_str())
    .bind(signed(row.version))
    .bind(row.revoked_at))
}

fn delegation_status(row: &Delegation) -> Statement {
    query("UPDATE delegations SET status = ?, version = ?, revoked_at = ? WHERE zone = ? AND id = ?")
        .bind(row.status.as_str())
        .bind(signed(row.version))
        .bind(row.revoked_at)
        .bind(s(&row.zone))
        .bind(s(&row.id))
}

fn insert_invocation(row: &Invocation, payload: &str) -> Result<Statement, sqlx::Error> {
    Ok(query("INSERT INTO invocations (zone, id, body, status, attempts, payload) VALUES (?, ?, ?, ?, ?, ?)")
        .bind(s(&row.zone))
        .bind(s(&row.id))
        .bind(encode(row)?)
        .bind(row.status.as_str())
        .bind(i64::from(row.attempts))
        .bind(s(payload)))
}

fn invocation_status(row: &Invocation, outcome: Option<&str>) -> Statement {
    query(
        "UPDATE invocations SET status = ?, attempts = ?, deadline_at = ?, started_at = ?,
         cancel_requested_at = ?, cancel_reason = ?, completed_at = ?, outcome = coalesce(?, outcome)
         WHERE zone = ? AND id = ?",
    )
    .bind(row.status.as_str())
    .bind(i64::from(row.attempts))
    .bind(row.deadline_at)
    .bind(row.started_at)
    .bind(row.cancel_requested_at)
    .bind(row.cancel_reason.clone())
    .bind(row.completed_at)
    .bind(outcome.map(s))
    .bind(s(&row.zone))
    .bind(s(&row.id))
}

fn insert_receipt(id: &ReceiptId, stored: &StoredReceipt, response: &str) -> Statement {
    query(
        "INSERT OR REPLACE INTO receipts (zone, operation, scope, key_digest, request_digest, result, response,
         key_kind, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(s(&id.zone))
    .bind(id.operation.as_str())
    .bind(s(&id.scope))
    .bind(id.key.to_vec())
    .bind(stored.request.to_vec())
    .bind(s(&stored.result))
    .bind(s(response))
    .bind(stored.kind.as_str())
    .bind(stored.created_at)
    .bind(stored.expires_at)
}

fn forget_receipt(id: &ReceiptId) -> Statement {
    query("DELETE FROM receipts WHERE zone = ? AND operation = ? AND scope = ? AND key_digest = ?")
        .bind(s(&id.zone))
        .bind(id.operation.as_str())
        .bind(s(&id.scope))
        .bind(id.key.to_vec())
}
