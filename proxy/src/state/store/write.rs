//! One [`Write`] to one statement, in words that SQLite and Postgres share.
//!
//! What two nodes of a fleet may write at once is guarded: an end is final, cuts and epochs only rise, a block is
//! lifted by nothing but its restore. A guard that does not hold leaves the row as it is.

use super::database::{Database, Statement};
use super::{OwnWrite, ReceiptId, Write, ZoneWrite};
use crate::budgets::Standing;
use crate::state::connections::Connection;
use crate::state::holds::Hold;
use crate::state::identities::Identity;
use crate::state::jobs::Invocation;
use crate::state::model::{AuthorityRecord, Delegation, Session};
use crate::state::receipts::StoredReceipt;

impl Write {
    /// Runs the statement inside the caller's transaction; how many rows it changed.
    pub(in crate::state) async fn run<D: Database>(&self, database: &mut D) -> Result<u64, sqlx::Error> {
        database.execute(self.statement()?).await
    }

    fn statement(&self) -> Result<Statement, sqlx::Error> {
        Ok(match self {
            Self::Record(record) => insert_record(record)?,
            Self::RecordRevoked { zone, id } => {
                query("UPDATE records SET revoked = 1 WHERE zone = $1 AND id = $2 AND revoked = 0")
                    .bind(s(zone))
                    .bind(s(id))
            }
            Self::ForgetRecords { before } => {
                query("DELETE FROM records WHERE expires_at < $1").bind(*before)
            }
            Self::Session(row) => insert_session(row)?,
            Self::SessionStatus(row) => session_status(row),
            Self::SessionResumed(row) => session_resumed(row),
            Self::SessionLease(row) => session_lease(row),
            Self::ForgetSession { zone, id } => {
                query("DELETE FROM sessions WHERE zone = $1 AND id = $2").bind(s(zone)).bind(s(id))
            }
            Self::Delegation(row) => insert_delegation(row)?,
            Self::DelegationStatus(row) => delegation_status(row),
            Self::ForgetDelegation { zone, id } => {
                query("DELETE FROM delegations WHERE zone = $1 AND id = $2").bind(s(zone)).bind(s(id))
            }
            Self::Receipt(id, stored, response) => insert_receipt(id, stored, response),
            Self::ForgetReceipt(id) => forget_receipt(id),
            Self::ForgetReceipts { before } => {
                query("DELETE FROM receipts WHERE expires_at <= $1").bind(*before)
            }
            Self::Meta(key, value) => query(
                "INSERT INTO meta (key, value) VALUES ($1, $2)
                     ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            )
            .bind(s(key))
            .bind(value.clone()),
            Self::ForgetMeta(key) => query("DELETE FROM meta WHERE key = $1").bind(s(key)),
            Self::Epoch(epoch, at) => {
                query("INSERT INTO epochs (epoch, started_at) VALUES ($1, $2)").bind(epoch.clone()).bind(*at)
            }
            Self::ForgetEpochs { before } => query("DELETE FROM epochs WHERE started_at < $1").bind(*before),
            Self::Zone(write) => write.statement(),
            Self::Own(write) => write.statement(),
            Self::Service(row) => query(
                "INSERT INTO agent_services (zone, id, body) VALUES ($1, $2, $3)
                     ON CONFLICT (zone, id) DO UPDATE SET body = excluded.body",
            )
            .bind(s(&row.zone))
            .bind(s(&row.id))
            .bind(encode(row)?),
            Self::ForgetService { zone, id } => {
                query("DELETE FROM agent_services WHERE zone = $1 AND id = $2").bind(s(zone)).bind(s(id))
            }
            Self::Invocation(row, payload) => insert_invocation(row, payload)?,
            Self::InvocationStatus(row, outcome) => invocation_status(row, outcome.as_deref()),
            Self::Hold(row) => query("INSERT INTO approvals (zone, id, body) VALUES ($1, $2, $3)")
                .bind(s(&row.zone))
                .bind(s(&row.id))
                .bind(encode(row)?),
            Self::Budget(row) => budget(row),
            Self::ForgetBudget(row) => {
                query("DELETE FROM budgets WHERE zone = $1 AND budget = $2 AND subject = $3")
                    .bind(s(&row.zone))
                    .bind(s(&row.key))
                    .bind(s(&row.subject))
            }
            Self::ForgetBudgets { before } => query("DELETE FROM budgets WHERE until <= $1").bind(*before),
            Self::HoldDecided(row) => hold_decided(row),
            Self::HoldUsed(row) => hold_used(row),
            Self::HoldLapsed(row) => hold_lapsed(row),
            Self::ForgetHold { zone, id } => {
                query("DELETE FROM approvals WHERE zone = $1 AND id = $2").bind(s(zone)).bind(s(id))
            }
            Self::Connection(row) => connection(row),
            Self::ConnectionEnded(row) => connection_ended(row),
            Self::ForgetInvocation { zone, id } => {
                query("DELETE FROM invocations WHERE zone = $1 AND id = $2").bind(s(zone)).bind(s(id))
            }
        })
    }
}

impl ZoneWrite {
    fn statement(&self) -> Statement {
        match self {
            Self::GraphEpoch(zone, epoch) => query(
                "INSERT INTO graph_epochs (zone, epoch) VALUES ($1, $2)
                 ON CONFLICT (zone) DO UPDATE SET epoch = excluded.epoch
                 WHERE excluded.epoch > graph_epochs.epoch",
            )
            .bind(s(zone))
            .bind(signed(*epoch)),
            Self::Freeze(zone, at) => query(
                "INSERT INTO frozen_zones (zone, frozen_at) VALUES ($1, $2)
                 ON CONFLICT (zone) DO UPDATE SET frozen_at = excluded.frozen_at
                 WHERE frozen_zones.frozen_at = 0",
            )
            .bind(s(zone))
            .bind(*at),
            // The row stays, so that other nodes hear of it.
            Self::Unfreeze(zone) => {
                query("UPDATE frozen_zones SET frozen_at = 0 WHERE zone = $1").bind(s(zone))
            }
            Self::Application { zone, application, cut_at, blocked } => query(
                "INSERT INTO applications (zone, application, cut_at, blocked) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (zone, application) DO UPDATE SET
                 cut_at = CASE WHEN excluded.cut_at > applications.cut_at
                     THEN excluded.cut_at ELSE applications.cut_at END,
                 blocked = CASE WHEN excluded.blocked > applications.blocked
                     THEN excluded.blocked ELSE applications.blocked END
                 WHERE excluded.cut_at > applications.cut_at OR excluded.blocked > applications.blocked",
            )
            .bind(s(zone))
            .bind(s(application))
            .bind(*cut_at)
            .bind(*blocked),
            Self::Unblock { zone, application } => {
                query("UPDATE applications SET blocked = 0 WHERE zone = $1 AND application = $2")
                    .bind(s(zone))
                    .bind(s(application))
            }
            Self::Tombstone(kind, zone, value, at) => query(
                "INSERT INTO tombstones (kind, zone, value, at) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (kind, zone, value) DO UPDATE SET at = excluded.at WHERE tombstones.at = 0",
            )
            .bind(s(kind.as_str()))
            .bind(s(zone))
            .bind(s(value))
            .bind(*at),
            Self::ForgetTombstone(kind, zone, value) => {
                query("UPDATE tombstones SET at = 0 WHERE kind = $1 AND zone = $2 AND value = $3")
                    .bind(s(kind.as_str()))
                    .bind(s(zone))
                    .bind(s(value))
            }
            Self::Head(zone, seq, hash) => query(
                "INSERT INTO ledger_heads (zone, seq, hash) VALUES ($1, $2, $3)
                 ON CONFLICT (zone) DO UPDATE SET seq = excluded.seq, hash = excluded.hash",
            )
            .bind(zone.clone())
            .bind(signed(*seq))
            .bind(hash.clone()),
        }
    }
}

impl OwnWrite {
    fn statement(&self) -> Statement {
        match self {
            Self::Cursor((zone, sink, body)) => query(
                "INSERT INTO sink_cursors (zone, sink, body) VALUES ($1, $2, $3)
                 ON CONFLICT (zone, sink) DO UPDATE SET body = excluded.body",
            )
            .bind(s(zone))
            .bind(s(sink))
            .bind(s(body)),
            Self::ForgetCursor(zone, sink) => {
                query("DELETE FROM sink_cursors WHERE zone = $1 AND sink = $2").bind(s(zone)).bind(s(sink))
            }
            Self::Identity(row) => identity(
                "INSERT INTO identities (zone, application, secret) VALUES ($1, $2, $3)
                 ON CONFLICT (zone, application, secret) DO NOTHING",
                row,
            ),
            Self::ForgetIdentity(row) => {
                identity("DELETE FROM identities WHERE zone = $1 AND application = $2 AND secret = $3", row)
            }
        }
    }
}

fn query(sql: &'static str) -> Statement {
    Statement::new(sql)
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
        "INSERT INTO records (zone, id, body, expires_at, revoked) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (zone, id) DO UPDATE SET body = excluded.body, expires_at = excluded.expires_at",
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
         heartbeat_deadline_at, terminated_at, termination_reason) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(s(&row.zone))
    .bind(s(&row.id))
    .bind(encode(row)?)
    .bind(s(row.status.as_str()))
    .bind(signed(row.lease_generation))
    .bind(row.last_heartbeat_at)
    .bind(row.heartbeat_deadline_at)
    .bind(row.terminated_at)
    .bind(row.termination_reason.clone()))
}

fn session_status(row: &Session) -> Statement {
    query(
        "UPDATE sessions SET status = $1, terminated_at = $2, termination_reason = $3
         WHERE zone = $4 AND id = $5 AND status <> $1 AND status NOT IN ('terminated', 'expired')",
    )
    .bind(s(row.status.as_str()))
    .bind(row.terminated_at)
    .bind(row.termination_reason.clone())
    .bind(s(&row.zone))
    .bind(s(&row.id))
}

/// An end that was committed first wins over a resume that was on its way.
fn session_resumed(row: &Session) -> Statement {
    query(
        "UPDATE sessions SET status = 'active', heartbeat_deadline_at = $1
         WHERE zone = $2 AND id = $3 AND status = 'suspended'",
    )
    .bind(row.heartbeat_deadline_at)
    .bind(s(&row.zone))
    .bind(s(&row.id))
}

fn session_lease(row: &Session) -> Statement {
    query(
        "UPDATE sessions SET
         lease_generation = CASE WHEN lease_generation > $1 THEN lease_generation ELSE $1 END,
         last_heartbeat_at = $2,
         heartbeat_deadline_at = CASE WHEN heartbeat_deadline_at > $3 THEN heartbeat_deadline_at ELSE $3 END
         WHERE zone = $4 AND id = $5",
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
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(s(&row.zone))
    .bind(s(&row.id))
    .bind(s(&row.source_session))
    .bind(s(&row.target_session))
    .bind(encode(row)?)
    .bind(s(row.status.as_str()))
    .bind(signed(row.version))
    .bind(row.revoked_at))
}

fn delegation_status(row: &Delegation) -> Statement {
    query(
        "UPDATE delegations SET status = $1, version = $2, revoked_at = $3
         WHERE zone = $4 AND id = $5 AND status = 'active'",
    )
    .bind(s(row.status.as_str()))
    .bind(signed(row.version))
    .bind(row.revoked_at)
    .bind(s(&row.zone))
    .bind(s(&row.id))
}

fn insert_invocation(row: &Invocation, payload: &str) -> Result<Statement, sqlx::Error> {
    Ok(query(
        "INSERT INTO invocations (zone, id, body, status, attempts, payload) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(s(&row.zone))
    .bind(s(&row.id))
    .bind(encode(row)?)
    .bind(s(row.status.as_str()))
    .bind(i64::from(row.attempts))
    .bind(s(payload)))
}

fn invocation_status(row: &Invocation, outcome: Option<&str>) -> Statement {
    query(
        "UPDATE invocations SET status = $1, attempts = $2, deadline_at = $3, started_at = $4,
         cancel_requested_at = $5, cancel_reason = $6, completed_at = $7, outcome = coalesce($8, outcome)
         WHERE zone = $9 AND id = $10 AND status NOT IN ('succeeded', 'canceled', 'timed_out', 'dead')",
    )
    .bind(s(row.status.as_str()))
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

fn hold_decided(row: &Hold) -> Statement {
    let decision = row.decision.as_ref();
    query(
        "UPDATE approvals SET approved = $1, decided_at = $2, decided_by = $3, reason = $4
         WHERE zone = $5 AND id = $6 AND approved IS NULL AND consumed_at IS NULL",
    )
    .bind(decision.map(|decision| i64::from(decision.approved)))
    .bind(decision.map(|decision| decision.at))
    .bind(decision.map(|decision| decision.by.clone()))
    .bind(decision.and_then(|decision| decision.reason.clone()))
    .bind(s(&row.zone))
    .bind(s(&row.id))
}

fn identity(sql: &'static str, row: &Identity) -> Statement {
    query(sql).bind(s(&row.zone)).bind(s(&row.application)).bind(s(&row.secret))
}

fn budget(row: &Standing) -> Statement {
    query(
        "INSERT INTO budgets (zone, budget, subject, used, until) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (zone, budget, subject) DO UPDATE SET used = excluded.used, until = excluded.until",
    )
    .bind(s(&row.zone))
    .bind(s(&row.key))
    .bind(s(&row.subject))
    .bind(signed(row.used))
    .bind(row.until)
}

fn hold_used(row: &Hold) -> Statement {
    query(
        "UPDATE approvals SET consumed_at = $1, consumed_record = $2
         WHERE zone = $3 AND id = $4 AND approved = 1 AND consumed_at IS NULL",
    )
    .bind(row.used.as_ref().map(|used| used.at))
    .bind(row.used.as_ref().map(|used| s(&used.record)))
    .bind(s(&row.zone))
    .bind(s(&row.id))
}

/// A time without an answer beside it is the one at which nobody was waited for any more.
fn hold_lapsed(row: &Hold) -> Statement {
    query(
        "UPDATE approvals SET decided_at = $1
         WHERE zone = $2 AND id = $3 AND approved IS NULL AND decided_at IS NULL AND consumed_at IS NULL",
    )
    .bind(row.lapsed)
    .bind(s(&row.zone))
    .bind(s(&row.id))
}

fn insert_receipt(id: &ReceiptId, stored: &StoredReceipt, response: &str) -> Statement {
    query(
        "INSERT INTO receipts (zone, operation, scope, key_digest, request_digest, result, response,
         key_kind, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (zone, operation, scope, key_digest) DO UPDATE SET request_digest = excluded.request_digest,
         result = excluded.result, response = excluded.response, key_kind = excluded.key_kind,
         created_at = excluded.created_at, expires_at = excluded.expires_at",
    )
    .bind(s(&id.zone))
    .bind(s(id.operation.as_str()))
    .bind(s(&id.scope))
    .bind(id.key.to_vec())
    .bind(stored.request.to_vec())
    .bind(s(&stored.result))
    .bind(s(response))
    .bind(s(stored.kind.as_str()))
    .bind(stored.created_at)
    .bind(stored.expires_at)
}

fn forget_receipt(id: &ReceiptId) -> Statement {
    query("DELETE FROM receipts WHERE zone = $1 AND operation = $2 AND scope = $3 AND key_digest = $4")
        .bind(s(&id.zone))
        .bind(s(id.operation.as_str()))
        .bind(s(&id.scope))
        .bind(id.key.to_vec())
}

fn connection(row: &Connection) -> Statement {
    let (by, until) = row.claim.clone().unzip();
    query(
        "INSERT INTO connections (zone, provider, subject, id, version, status, sealed, renewable, created_at,
         refreshed_at, expires_at, claimed_by, claimed_until)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         ON CONFLICT (zone, provider, subject) DO UPDATE SET id = excluded.id, version = excluded.version,
         status = excluded.status, sealed = excluded.sealed, renewable = excluded.renewable,
         created_at = excluded.created_at, refreshed_at = excluded.refreshed_at,
         expires_at = excluded.expires_at, claimed_by = excluded.claimed_by,
         claimed_until = excluded.claimed_until WHERE excluded.version > connections.version",
    )
    .bind(s(&row.key.zone))
    .bind(s(&row.key.provider))
    .bind(s(&row.key.subject))
    .bind(s(&row.id))
    .bind(signed(row.version))
    .bind(s(row.status.as_str()))
    .bind(row.sealed.to_vec())
    .bind(row.renewable)
    .bind(row.created_at)
    .bind(row.refreshed_at)
    .bind(row.expires_at)
    .bind(by.map(|by| s(&by)))
    .bind(until.unwrap_or(0))
}

/// An end stands against whatever was on its way; an agreement that came later is another connection.
fn connection_ended(row: &Connection) -> Statement {
    query(
        "UPDATE connections SET status = 'revoked', sealed = $1, renewable = 0, claimed_by = NULL, claimed_until = 0,
         version = CASE WHEN version >= $2 THEN version + 1 ELSE $2 END
         WHERE zone = $3 AND provider = $4 AND subject = $5 AND id = $6 AND status <> 'revoked'",
    )
    .bind(Vec::new())
    .bind(signed(row.version))
    .bind(s(&row.key.zone))
    .bind(s(&row.key.provider))
    .bind(s(&row.key.subject))
    .bind(s(&row.id))
}
