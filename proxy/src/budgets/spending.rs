//! What one call took, until it is known what it cost.

use std::sync::Arc;

use caracal_policies::{Budget, Measure};

use super::{Budgets, Charge, settles};
use crate::fleet::Fleet;

/// What is still to be settled when a call is over. Dropped unsettled, it stays taken: the safe side.
#[derive(Debug)]
pub(crate) struct Spending {
    zone: Arc<str>,
    charges: Vec<Charge>,
    /// What the upstream said, by budget name.
    found: Vec<(Arc<str>, u64)>,
}

/// What is known of a call when it is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Bytes of both bodies.
    pub(crate) bytes: u64,
    /// Whether the upstream may have done work that it did not say the cost of.
    pub(crate) unsaid: bool,
}

impl Spending {
    /// Keeps what has to be settled; none when nothing has.
    pub(crate) fn of(zone: &Arc<str>, mut charges: Vec<Charge>) -> Option<Self> {
        charges.retain(|charge| settles(&charge.budget.measure));
        (!charges.is_empty()).then(|| Self { zone: Arc::clone(zone), charges, found: Vec::new() })
    }

    /// The budgets whose units the upstream tells.
    pub(crate) fn metered(&self) -> Vec<Arc<Budget>> {
        let mut budgets: Vec<Arc<Budget>> = Vec::new();
        for charge in &self.charges {
            let units = matches!(charge.budget.measure, Measure::Units { .. });
            if units && budgets.iter().all(|known| known.name != charge.budget.name) {
                budgets.push(Arc::clone(&charge.budget));
            }
        }
        budgets
    }

    /// What the upstream said a call cost; the last word counts.
    pub(crate) fn found(&mut self, budget: &Arc<str>, units: u64) {
        self.found.retain(|(name, _)| name != budget);
        self.found.push((Arc::clone(budget), units));
    }

    /// Settles everything.
    pub(crate) fn settle(self, budgets: &Budgets, fleet: Option<&Arc<Fleet>>, cost: Cost) {
        let mut settled = Vec::new();
        for charge in self.charges {
            let used = match charge.budget.measure {
                Measure::Calls => continue,
                Measure::Bytes { .. } => cost.bytes,
                Measure::Units { .. } => {
                    let found = self.found.iter().find(|(name, _)| *name == charge.budget.name);
                    match found {
                        Some((_, units)) => *units,
                        None if cost.unsaid => charge.taken,
                        None => 0,
                    }
                }
            };
            budgets.settle(&self.zone, &charge, used);
            if used != charge.taken {
                settled.push((charge, used));
            }
        }
        if let (Some(fleet), false) = (fleet, settled.is_empty()) {
            fleet.settle(&self.zone, settled);
        }
    }
}
