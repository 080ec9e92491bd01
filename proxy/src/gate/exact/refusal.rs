//! Refusals of requests that a person has to approve.

use crate::gate::refusal::{Refusal, later, no};
use crate::refusal::Answer;

/// Why a request that a guard holds does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExactRefusal {
    /// Nobody has answered yet.
    Pending,
    /// Somebody said no.
    Rejected,
    /// The request names an approval that is not for exactly it.
    Mismatch,
    /// The yes was used, and there is no outcome to repeat.
    Consumed,
    /// One guard asks an operator, another one the person the agent works for.
    Conflict,
    /// Too many requests of the application wait already.
    TooMany,
    /// The store could not be written.
    Unavailable,
}

impl ExactRefusal {
    /// What the caller is told.
    #[must_use]
    pub const fn answer(self) -> Answer {
        match self {
            Self::Pending => no(
                403,
                "interaction_required",
                "a person has to approve this very request first",
                "ask /approvals/{approval_id}?wait=25 at the authority until it is approved, then send the same request \
                 with a fresh mandate",
            ),
            Self::Rejected => no(
                403,
                "approval_rejected",
                "a person said no to this very request",
                "do without it, or send another one; the no holds until the approval expires",
            ),
            Self::Mismatch => no(
                403,
                "approval_mismatch",
                "the approval is not for exactly this request",
                "send the request that was approved, byte for byte, or leave X-Caracal-Approval out to ask anew",
            ),
            Self::Consumed => no(
                409,
                "approval_consumed",
                "the approval was used by this request before, and its outcome cannot be repeated",
                "check whether the call had an effect; after two minutes the same request asks anew",
            ),
            Self::Conflict => no(
                403,
                "access_denied",
                "rules of the resource ask different people for approval",
                "tell the operator; the decision id names this case",
            ),
            Self::TooMany => later(
                429,
                "provider_rate_limited",
                "too many requests of this application wait for approval",
                "wait until some are answered",
                30,
            ),
            Self::Unavailable => {
                later(503, "approval_unavailable", "the approval cannot be stored", "try again", 5)
            }
        }
    }

    /// A short stable word for ledger and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pending => "request_held",
            Self::Rejected => "request_rejected",
            Self::Mismatch => "approval_mismatch",
            Self::Consumed => "request_consumed",
            Self::Conflict => "request_approver_conflict",
            Self::TooMany => "request_approval_limit",
            Self::Unavailable => "approval_unavailable",
        }
    }
}

impl From<ExactRefusal> for Refusal {
    fn from(refusal: ExactRefusal) -> Self {
        Self::Exact(refusal)
    }
}
