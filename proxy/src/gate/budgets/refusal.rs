//! How a call is refused that a budget or a rate does not let through.

use crate::gate::refusal::later;
use crate::refusal::Answer;

/// Why a permitted call does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetRefusal {
    /// A rate lets no more calls through now.
    RateLimited,
    /// A budget has not enough left for the call.
    Exhausted,
    /// There is no room for another account.
    Full,
    /// The fleet's budgets cannot be reached.
    Unavailable,
}

impl BudgetRefusal {
    /// What the caller is told; the wait is that of the budget where one is known.
    #[must_use]
    pub const fn answer(self) -> Answer {
        match self {
            Self::RateLimited => later(
                429,
                "rate_limited",
                "calls come faster than a rate allows",
                "wait as Retry-After says, then mint again; `limit` names the rate",
                1,
            ),
            Self::Exhausted => later(
                429,
                "budget_exhausted",
                "a budget has not enough left for this call",
                "`limit` names the budget and when it is whole again; without a time it is used up for good",
                1,
            ),
            Self::Full => {
                later(503, "capacity", "no room for another account of a budget", "try again later", 5)
            }
            Self::Unavailable => later(
                503,
                "budgets_unavailable",
                "the fleet's budgets cannot be reached",
                "mint a new mandate and try again",
                1,
            ),
        }
    }

    /// The word for ledger and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Exhausted => "budget_exhausted",
            Self::Full => "budgets_full",
            Self::Unavailable => "budgets_unavailable",
        }
    }
}
