//! Budgets and rates as an operator sees them: who used how much, and when it comes back.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde_json::{Value, json};

use super::Operate;
use crate::budgets::{Standing, used_of};
use crate::control::Failure;
use crate::state::iso;

/// Every budget of the zones looked at, each with the accounts that used most of it.
pub(super) fn list(
    operate: &Operate,
    zone: Option<&str>,
    named: Option<&str>,
    limit: usize,
) -> Result<Value, Failure> {
    let now = operate.app.clock.now();
    let mut accounts: HashMap<_, Vec<Standing>> = HashMap::new();
    for row in operate.app.budgets.standing(now) {
        accounts.entry((row.zone.to_string(), row.key.to_string())).or_default().push(row);
    }
    let mut rows = Vec::new();
    for live in operate.looked_at(zone)? {
        let budgets = live.zone.budgets().unwrap_or_default();
        for budget in budgets.iter().filter(|budget| named.is_none_or(|name| *budget.name == *name)) {
            let place = (live.zone.id().to_string(), budget.key());
            let mut own = accounts.remove(&place).unwrap_or_default();
            own.sort_by_key(|row| (Reverse(row.used), row.subject.clone()));
            let open = own.len();
            let used = own.iter().take(limit).map(|row| {
                let used = used_of(budget, row.used);
                let resets = (row.until < i64::MAX).then(|| iso(row.until));
                json!({
                    "subject": row.subject, "used": used, "left": budget.most().saturating_sub(used),
                    "resets_at": resets,
                })
            });
            rows.push(json!({
                "zone": live.zone.id(), "budget": budget.name, "says": budget.to_string(),
                "accounts": open, "used": used.collect::<Vec<_>>(),
            }));
        }
    }
    if let (true, Some(name)) = (rows.is_empty(), named) {
        return Err(Failure::new("not_found", format!("there is no budget or rate `{name}`")));
    }
    Ok(json!({ "budgets": rows, "counted": if operate.app.fleet.is_some() { "redis" } else { "here" } }))
}
