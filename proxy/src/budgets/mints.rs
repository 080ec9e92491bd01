//! The rate at which one application may mint, on one node.

use std::sync::Arc;

use caracal_policies::{Budget, BudgetPer, Measure, Span};

use super::{Budgets, Item, NotCharged};

/// Mints of every application.
#[derive(Debug)]
pub struct Mints {
    rate: Arc<Budget>,
    accounts: Budgets,
}

impl Mints {
    /// So many a minute for each application, and as many at once.
    #[must_use]
    pub fn new(per_minute: u32) -> Self {
        let limit = u64::from(per_minute);
        let rate = Budget {
            name: "mints".into(),
            per: BudgetPer::Application,
            application: None,
            resource: None,
            measure: Measure::Calls,
            limit,
            span: Span::Rate { seconds: 60, burst: limit },
        };
        Self { rate: Arc::new(rate), accounts: Budgets::default() }
    }

    /// Counts one mint, or says after how many seconds there is room for one.
    ///
    /// # Errors
    /// The seconds to wait.
    pub fn count(&self, zone: &Arc<str>, application: &Arc<str>, now: i64) -> Result<(), u32> {
        let item = Item { budget: Arc::clone(&self.rate), subject: Arc::clone(application), ends_at: None };
        self.accounts.charge(zone, &[item], now).map(drop).map_err(|not| match not {
            NotCharged::Limited(limited) => {
                limited.reset_s.and_then(|wait| u32::try_from(wait).ok()).unwrap_or(60)
            }
            NotCharged::Full => 1,
        })
    }

    /// Forgets applications that have not minted for a while.
    pub fn sweep(&self, now: i64) {
        drop(self.accounts.sweep(now, |_, _| true));
    }
}
