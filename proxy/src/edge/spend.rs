//! What a permitted call takes from budgets, before its credential is looked up.

use std::sync::Arc;

use caracal_policies::{Resource, Zone};

use crate::app::App;
use crate::budgets::{Limited, NotCharged, Spending};
use crate::fleet::NotSpent;
use crate::gate::budgets::{BudgetRefusal, items};
use crate::gate::refusal::Refusal;
use crate::gate::standing::CurrentMandate;
use crate::metrics::Metrics;

/// Takes what the call costs from every budget it counts for, in the whole fleet where there is one.
pub(super) async fn charge(
    app: &App,
    zone: &Zone,
    resource: &Resource,
    current: &CurrentMandate,
    now: i64,
) -> Result<Option<Spending>, (Refusal, Option<Box<Limited>>)> {
    let Some(budgets) = zone.budgets() else { return Ok(None) };
    let items = items(budgets, &resource.identifier, current, &app.state, zone.id());
    if items.is_empty() {
        return Ok(None);
    }
    let charged = match &app.fleet {
        None => app.budgets.charge(zone.id(), &items, now).map_err(|not| match not {
            NotCharged::Limited(limited) => short(&app.metrics, zone, limited),
            NotCharged::Full => (Refusal::Budget(BudgetRefusal::Full), None),
        }),
        Some(fleet) => fleet.spend(&app.budgets, zone.id(), &items, now).await.map_err(|not| match not {
            NotSpent::Limited(limited) => short(&app.metrics, zone, limited),
            NotSpent::Unavailable => (Refusal::Budget(BudgetRefusal::Unavailable), None),
        }),
    };
    charged.map(|charges| Spending::of(zone.id(), charges))
}

fn short(metrics: &Metrics, zone: &Zone, limited: Box<Limited>) -> (Refusal, Option<Box<Limited>>) {
    let budget = Arc::clone(&limited.budget);
    metrics.budget_refusals.with_label_values(&[&**zone.id(), &budget.name]).inc();
    let refusal = if budget.is_rate() { BudgetRefusal::RateLimited } else { BudgetRefusal::Exhausted };
    (Refusal::Budget(refusal), Some(limited))
}
