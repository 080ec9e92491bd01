//! Approvals as an operator sees and answers them.

use serde_json::{Map, Value, json};

use super::{Operate, store_failed};
use crate::authority::approvals::recorded;
use crate::control::{Failure, Operator};
use crate::state::{CoordinatorError, ExactRequest, Hold, HoldDecision, HoldState, iso};
use caracal_policies::Approver;

/// Longest reason, in bytes.
const MAX_REASON: usize = 500;

/// Holds of one zone or all, newest first; with `all` also those that are answered, used or over.
pub(super) fn list(operate: &Operate, zone: Option<&str>, all: bool) -> Result<Value, Failure> {
    let now = operate.app.clock.now();
    let mut rows = Vec::new();
    for live in operate.looked_at(zone)? {
        let holds = operate.app.state.list_holds(live.zone.id());
        rows.extend(
            holds
                .iter()
                .filter(|hold| all || hold.state(now) == HoldState::Pending)
                .map(|hold| row(hold, now)),
        );
    }
    Ok(json!({ "approvals": rows }))
}

/// Answers a hold as an operator.
pub(super) async fn decide(
    operate: &Operate,
    operator: Operator,
    id: &str,
    approved: bool,
    reason: Option<&str>,
) -> Result<Value, Failure> {
    let state = &operate.app.state;
    let lost = || {
        Failure::new(
            "approval_not_found",
            "there is no such approval; `caracal approvals list` shows those that wait",
        )
    };
    if reason.is_some_and(|reason| reason.len() > MAX_REASON || reason.contains(char::is_control)) {
        return Err(Failure::new(
            "invalid_reason",
            "a reason has at most 500 bytes, none of them control characters",
        ));
    }
    let hold = state.find_hold(id).ok_or_else(lost)?;
    if hold.approver == Approver::Subject {
        let text = "this approval is reserved for the person the agent works for";
        return Err(Failure::new("approver_class", text));
    }
    let decision = HoldDecision {
        approved,
        at: operate.app.clock.now(),
        by: format!("operator:{}", operator.uid),
        reason: reason.map(str::to_owned),
    };
    let decided = state.decide_hold(&hold.zone, &hold.id, &decision).await;
    let decided = decided.map_err(|error| refused(operate, &hold.id, error))?;
    Ok(row(&decided, operate.app.clock.now()))
}

/// What the ledger record of an answer says.
pub(super) fn about(done: &Value) -> Map<String, Value> {
    let mut about = done.get("recorded").and_then(Value::as_object).cloned().unwrap_or_default();
    about.insert("approver_plane".into(), json!("operator"));
    for (name, from) in [("approver_id", "decided_by"), ("reason", "reason")] {
        about.insert(name.into(), done.get(from).cloned().unwrap_or_default());
    }
    about
}

fn refused(operate: &Operate, id: &str, error: CoordinatorError) -> Failure {
    match (error.code, error.source) {
        (_, Some(source)) => store_failed(source),
        ("approval_not_decidable", None) => {
            let state = operate.app.state.find_hold(id);
            let state = state.map_or("gone", |hold| hold.state(operate.app.clock.now()).as_str());
            Failure::new("approval_not_decidable", format!("it cannot be answered any more: it is {state}"))
        }
        (code, None) => Failure::new(code, code),
    }
}

/// The one request, and of its body what its guard shows.
fn request(hold: &Hold, exact: &ExactRequest) -> Value {
    let shown: Map<String, Value> =
        exact.shown.iter().map(|(pointer, value)| (pointer.clone(), json!(value))).collect();
    json!({
        "method": exact.method, "path": exact.path, "content_type": exact.content_type,
        "tool": exact.tool, "body_bytes": exact.body_bytes, "body_sha256": exact.body_sha256,
        "shown": shown, "guards": exact.guards, "decision_id": exact.decision,
        "let_through_by": hold.used.as_ref().map(|used| &used.record),
    })
}

fn row(hold: &Hold, now: i64) -> Value {
    let decision = hold.decision.as_ref();
    json!({
        "id": hold.id, "zone": hold.zone, "state": hold.state(now).as_str(),
        "application": hold.application, "session": hold.session, "delegation": hold.delegation,
        "labels": hold.labels, "resources": hold.resources, "scopes": hold.scopes,
        "tier": hold.tier, "approver": hold.approver.word(),
        "self_approval": hold.self_approval.word(), "subject": hold.subject,
        "binding": hold.binding, "asked_at": iso(hold.created_at), "expires_at": iso(hold.expires_at),
        "age_seconds": now.saturating_sub(hold.created_at).div_euclid(1_000),
        "left_seconds": hold.expires_at.saturating_sub(now).max(0).div_euclid(1_000),
        "decided_at": decision.map(|decision| iso(decision.at)),
        "decided_by": decision.map(|decision| &decision.by),
        "reason": decision.and_then(|decision| decision.reason.as_ref()),
        "minted_record": hold.used.as_ref().filter(|_| hold.exact.is_none()).map(|used| &used.record),
        "request": hold.exact.as_deref().map(|exact| request(hold, exact)),
        "recorded": recorded(hold),
    })
}
