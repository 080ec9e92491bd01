//! Revocation, and the plan of one.

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use super::{Operate, connections, store_failed};
use crate::control::Failure;
use crate::snapshot::LiveZone;
use crate::state::{Connection, CoordinatorError, Delegation, Doomed, Session, Target};

/// Longest reason, in characters.
const MAX_REASON: usize = 256;
/// Most rows of a kind in an answer; the counts are always whole.
const LISTED: usize = 1_000;
/// Most ids of a kind in the ledger record.
const RECORDED: usize = 200;

/// Revokes `target`, or with `dry_run` only says what that would end. One answer for both.
pub(super) async fn revoke(
    operate: &Operate,
    zone: Option<&str>,
    target: &Target,
    reason: Option<&str>,
    dry_run: bool,
) -> Result<Value, Failure> {
    let app = &operate.app;
    let live = operate.meant(zone)?;
    let zone = live.zone.id();
    let reason = checked(reason)?.unwrap_or_else(|| target.reason());
    if let Target::Application { id, .. } = target {
        operate.known_application(zone, id)?;
    }
    let connected = match target {
        Target::Subject(subject) => app.state.connections_of(zone, subject),
        Target::Record(_)
        | Target::Root(_)
        | Target::Session(_)
        | Target::Delegation(_)
        | Target::Application { .. } => Vec::new(),
    };
    // Counted before, because a request that was cut may be gone before it could be counted.
    let plan = match app.state.plan_revocation(zone, target) {
        Ok(plan) => Some(plan),
        // Nobody acts for the subject now, but somebody could with what it connected.
        Err(error) if error.code == "subject_not_found" && !connected.is_empty() => None,
        Err(error) => return Err(refused(error)),
    };
    let requests = plan.as_ref().map_or(0, |plan| app.live.standing_on(zone, &plan.anchors()));
    let doomed = match plan {
        Some(plan) if dry_run => plan,
        Some(_) => app.state.revoke(zone, target, reason).await.map_err(refused)?,
        None => Doomed::default(),
    };
    let connected = if dry_run {
        connected.iter().map(|row| connection(row, None)).collect()
    } else {
        disconnected(operate, &live, &connected).await?
    };
    Ok(json!({
        "zone": zone, "target": target, "reason": reason, "dry_run": dry_run,
        "counts": {
            "records": doomed.records.len(), "sessions": doomed.sessions.len(),
            "delegations": doomed.delegations.len(), "requests": requests, "connections": connected.len(),
        },
        "records": doomed.records.iter().take(LISTED).collect::<Vec<_>>(),
        "sessions": doomed.sessions.iter().take(LISTED).map(|row| session(row)).collect::<Vec<_>>(),
        "delegations": doomed.delegations.iter().take(LISTED).map(|row| delegation(row)).collect::<Vec<_>>(),
        "connections": connected,
        "more": more(&doomed),
    }))
}

/// Ends what a subject connected, at all providers at once: one that is slow holds up no other.
async fn disconnected(
    operate: &Operate,
    live: &LiveZone,
    rows: &[Arc<Connection>],
) -> Result<Vec<Value>, Failure> {
    let ends = rows.iter().map(|row| connections::end_one(operate, live, &row.key));
    let mut told = Vec::new();
    for (row, ended) in rows.iter().zip(join_all(ends).await) {
        let Some(ended) = ended? else { continue };
        told.push(connection(row, Some(ended.upstream)));
    }
    Ok(told)
}

/// What the ledger record of a revocation says about what it did.
pub(super) fn about(done: &Value) -> Map<String, Value> {
    let ids = |kind: &str| {
        let rows = done.get(kind).and_then(Value::as_array).into_iter().flatten();
        rows.take(RECORDED).map(|row| row.get("id").unwrap_or(row).clone()).collect::<Value>()
    };
    let mut about = Map::new();
    about.insert("reason".into(), done.get("reason").cloned().unwrap_or_default());
    about.insert("counts".into(), done.get("counts").cloned().unwrap_or_default());
    for kind in ["records", "sessions", "delegations", "connections"] {
        about.insert(kind.into(), ids(kind));
    }
    about
}

fn more(doomed: &Doomed) -> bool {
    [doomed.records.len(), doomed.sessions.len(), doomed.delegations.len()]
        .iter()
        .any(|count| *count > LISTED)
}

fn session(row: &Session) -> Value {
    json!({
        "id": row.id, "application": row.application, "status": row.status.as_str(),
        "lifecycle": row.lifecycle.as_str(), "labels": row.labels, "parent": row.parent,
    })
}

fn delegation(row: &Delegation) -> Value {
    json!({
        "id": row.id, "source_session": row.source_session, "target_session": row.target_session,
        "issuer": row.issuer_application, "receiver": row.receiver_application, "scopes": row.scopes,
    })
}

fn connection(row: &Connection, upstream: Option<&str>) -> Value {
    json!({ "id": row.id, "provider": row.key.provider, "upstream_revocation": upstream })
}

fn checked(reason: Option<&str>) -> Result<Option<&str>, Failure> {
    let fits =
        |text: &str| (1..=MAX_REASON).contains(&text.chars().count()) && !text.contains(char::is_control);
    match reason {
        Some(text) if !fits(text) => Err(Failure::new(
            "invalid_reason",
            "a reason has 1 to 256 characters, none of them control characters",
        )),
        reason => Ok(reason),
    }
}

fn refused(error: CoordinatorError) -> Failure {
    match error.code {
        "authority_record_not_found" => Failure::new(
            error.code,
            "no such authority record stands here and no session acts for one; what is unknown is refused anyway",
        ),
        "session_not_found" => Failure::new(error.code, "there is no such session, or it has ended"),
        "delegation_not_found" => Failure::new(error.code, "there is no such delegation, or it is closed"),
        "subject_not_found" => {
            Failure::new(error.code, "nothing here was issued to or acts for this subject")
        }
        _ => match error.source {
            Some(source) => store_failed(source),
            None => Failure::new(error.code, error.code),
        },
    }
}
