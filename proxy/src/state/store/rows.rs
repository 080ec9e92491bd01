//! A row of the store to a row of the state; none when it cannot be read.

use std::sync::Arc;

use super::{Columns, ReceiptId};
use crate::state::connections::{Connection, ConnectionKey, ConnectionStatus};
use crate::state::cursors::StoredCursor;
use crate::state::holds::{Hold, HoldDecision, HoldUse};
use crate::state::identities::Identity;
use crate::state::jobs::{Invocation, InvocationStatus};
use crate::state::model::{AuthorityRecord, Delegation, DelegationStatus, Session, SessionStatus};
use crate::state::receipts::{KeyKind, Operation, StoredReceipt};
use crate::state::standing::TombstoneKind;

fn text(row: &impl Columns, column: &str) -> Option<Arc<str>> {
    row.text(column).map(Arc::from)
}

fn count(row: &impl Columns, column: &str) -> Option<u64> {
    u64::try_from(row.number(column)?).ok()
}

fn digest(row: &impl Columns, column: &str) -> Option<[u8; 32]> {
    row.bytes(column)?.try_into().ok()
}

pub(super) fn body<T: serde::de::DeserializeOwned>(row: &impl Columns) -> Option<T> {
    serde_json::from_str(&row.text("body")?).ok()
}

pub(super) fn record(row: &impl Columns) -> Option<AuthorityRecord> {
    Some(AuthorityRecord { revoked: row.number("revoked")? != 0, ..body(row)? })
}

pub(super) fn session(row: &impl Columns) -> Option<Session> {
    Some(Session {
        status: SessionStatus::from_word(&text(row, "status")?)?,
        lease_generation: count(row, "lease_generation")?,
        last_heartbeat_at: row.maybe_number("last_heartbeat_at")?,
        heartbeat_deadline_at: row.maybe_number("heartbeat_deadline_at")?,
        terminated_at: row.maybe_number("terminated_at")?,
        termination_reason: row.maybe_text("termination_reason")?,
        ..body(row)?
    })
}

pub(super) fn delegation(row: &impl Columns) -> Option<Delegation> {
    Some(Delegation {
        status: DelegationStatus::from_word(&text(row, "status")?)?,
        version: count(row, "version")?,
        revoked_at: row.maybe_number("revoked_at")?,
        ..body(row)?
    })
}

pub(super) fn invocation(row: &impl Columns) -> Option<Invocation> {
    Some(Invocation {
        status: InvocationStatus::from_word(&text(row, "status")?)?,
        attempts: u32::try_from(row.number("attempts")?).ok()?,
        deadline_at: row.maybe_number("deadline_at")?,
        started_at: row.maybe_number("started_at")?,
        cancel_requested_at: row.maybe_number("cancel_requested_at")?,
        cancel_reason: row.maybe_text("cancel_reason")?,
        completed_at: row.maybe_number("completed_at")?,
        ..body(row)?
    })
}

pub(super) fn receipt(row: &impl Columns) -> Option<(ReceiptId, StoredReceipt)> {
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
        created_at: row.number("created_at")?,
        expires_at: row.number("expires_at")?,
    };
    Some((id, stored))
}

pub(super) fn graph_epoch(row: &impl Columns) -> Option<(Arc<str>, u64)> {
    Some((text(row, "zone")?, count(row, "epoch")?))
}

pub(super) fn application(row: &impl Columns) -> Option<(Arc<str>, Arc<str>, i64, bool)> {
    let (zone, application) = (text(row, "zone")?, text(row, "application")?);
    Some((zone, application, row.number("cut_at")?, row.number("blocked")? != 0))
}

pub(super) fn frozen(row: &impl Columns) -> Option<(Arc<str>, bool)> {
    Some((text(row, "zone")?, row.number("frozen_at")? > 0))
}

pub(super) fn tombstone(row: &impl Columns) -> Option<(TombstoneKind, String, String, bool)> {
    let kind = TombstoneKind::from_word(&text(row, "kind")?)?;
    Some((kind, row.text("zone")?, row.text("value")?, row.number("at")? > 0))
}

pub(super) fn head(row: &impl Columns) -> Option<(String, u64, String)> {
    Some((row.text("zone")?, count(row, "seq")?, row.text("hash")?))
}

pub(super) fn cursor(row: &impl Columns) -> Option<StoredCursor> {
    Some((row.text("zone")?, row.text("sink")?, row.text("body")?))
}

pub(super) fn identity(row: &impl Columns) -> Option<Identity> {
    let (application, secret) = (text(row, "application")?, text(row, "secret")?);
    Some(Identity { zone: text(row, "zone")?, application, secret })
}

pub(super) fn budget(row: &impl Columns) -> Option<crate::budgets::Standing> {
    let (zone, key, subject) = (text(row, "zone")?, text(row, "budget")?, text(row, "subject")?);
    Some(crate::budgets::Standing {
        zone,
        key,
        subject,
        used: count(row, "used")?,
        until: row.number("until")?,
    })
}

pub(super) fn hold(row: &impl Columns) -> Option<Hold> {
    let (approved, decided_at) = (row.maybe_number("approved")?, row.maybe_number("decided_at")?);
    let (by, reason) = (row.maybe_text("decided_by")?, row.maybe_text("reason")?);
    let decision = approved.zip(decided_at).zip(by).map(|((approved, at), by)| HoldDecision {
        approved: approved != 0,
        at,
        by,
        reason,
    });
    let used = row.maybe_number("consumed_at")?.zip(row.maybe_text("consumed_record")?);
    let used = used.map(|(at, record)| HoldUse { at, record: record.into() });
    let lapsed = decided_at.filter(|_| approved.is_none());
    Some(Hold { decision, used, lapsed, ..body(row)? })
}

pub(super) fn connection(row: &impl Columns) -> Option<Connection> {
    let claimed_until = row.number("claimed_until")?;
    let key = ConnectionKey {
        zone: text(row, "zone")?,
        provider: text(row, "provider")?,
        subject: text(row, "subject")?,
    };
    Some(Connection {
        key,
        id: text(row, "id")?,
        version: count(row, "version")?,
        status: ConnectionStatus::from_word(&row.text("status")?)?,
        sealed: row.bytes("sealed")?.into(),
        renewable: row.number("renewable")? != 0,
        created_at: row.number("created_at")?,
        refreshed_at: row.number("refreshed_at")?,
        expires_at: row.maybe_number("expires_at")?,
        claim: row.maybe_text("claimed_by")?.map(|by| (by.into(), claimed_until)),
    })
}
