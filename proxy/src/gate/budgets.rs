//! Which accounts a permitted call counts for: its own, and everybody's above it.

mod refusal;

use std::sync::Arc;

use caracal_policies::{Budget, BudgetPer, Measure, Span};
use serde_json::{Map, Value, json};

use super::standing::{CurrentMandate, session_end};
use crate::budgets::{Item, Limited};
use crate::refusal::Limits;
use crate::state::{Session, State};

pub use refusal::BudgetRefusal;

/// Most sessions above a call that are looked for: a lineage of ten delegations, each with its sessions' ancestors.
const MOST_ABOVE: usize = 128;

/// The accounts a call counts for; none when no budget covers it.
///
/// A call without a session counts as its application's own for budgets per session, so that leaving the session out
/// gains nobody anything.
#[must_use]
pub fn items(
    budgets: &[Arc<Budget>],
    resource: &Arc<str>,
    current: &CurrentMandate,
    state: &State,
    zone: &str,
) -> Vec<Item> {
    let application = current.claims().client_id.as_str();
    let mut items = Vec::new();
    let mut above: Option<Vec<Arc<Session>>> = None;
    for budget in budgets.iter().filter(|budget| budget.covers(application, resource)) {
        let mut add = |subject: String, ends_at: Option<i64>| {
            items.push(Item { budget: Arc::clone(budget), subject: subject.into(), ends_at });
        };
        match budget.per {
            BudgetPer::Application => add(format!("application:{application}"), None),
            BudgetPer::Resource => add(format!("resource:{resource}"), None),
            BudgetPer::Delegation => {
                for edge in current.lineage() {
                    add(format!("delegation:{}", edge.id), Some(edge.expires_at));
                }
            }
            BudgetPer::Session => {
                let sessions = above.get_or_insert_with(|| sessions(current, state, zone));
                for session in sessions.iter() {
                    add(format!("session:{}", session.id), session_end(session));
                }
                if sessions.is_empty() {
                    add(format!("application:{application}"), None);
                }
            }
        }
    }
    items
}

/// The call's session, those its authority was delegated from, and every ancestor of all of them, each once.
fn sessions(current: &CurrentMandate, state: &State, zone: &str) -> Vec<Arc<Session>> {
    let own = current.session().map(|session| Arc::clone(&session.id));
    let sources = current.lineage().iter().map(|edge| Arc::clone(&edge.source_session));
    let mut waiting: Vec<Arc<str>> = own.into_iter().chain(sources).collect();
    let mut found: Vec<Arc<Session>> = Vec::new();
    while let Some(id) = waiting.pop() {
        if found.len() >= MOST_ABOVE || found.iter().any(|session| session.id == id) {
            continue;
        }
        if let Some(session) = state.session(zone, &id) {
            waiting.extend(session.parent.clone());
            found.push(session);
        }
    }
    found
}

/// What a refused caller reads in the head, and the member of the body that says the same.
#[must_use]
pub fn told(limited: &Limited) -> (Limits, Map<String, Value>) {
    let budget = &limited.budget;
    let unit = match budget.measure {
        Measure::Calls => "",
        Measure::Bytes { .. } => ";qu=\"content-bytes\"",
        Measure::Units { .. } => ";qu=\"units\"",
    };
    let window = match budget.span {
        Span::Window { seconds } | Span::Rate { seconds, .. } => Some(seconds),
        Span::Life => None,
    };
    let optional =
        |name: &str, value: Option<u64>| value.map_or_else(String::new, |n| format!(";{name}={n}"));
    let limits = Limits {
        policy: format!("\"{}\";q={}{unit}{}", budget.name, budget.limit, optional("w", window)),
        limit: format!("\"{}\";r={}{}", budget.name, limited.remaining, optional("t", limited.reset_s)),
        retry_after: limited.reset_s,
    };
    let told = json!({
        "name": budget.name, "per": budget.per.word(), "measure": budget.measure.word(),
        "limit": budget.most(), "remaining": limited.remaining, "reset_seconds": limited.reset_s,
        "window_seconds": window, "taken_before_a_call": budget.taken_before(),
    });
    (limits, Map::from_iter([("limit".to_owned(), told)]))
}
