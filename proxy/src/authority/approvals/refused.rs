//! Why a mint that asks for a person's yes is not made.

use std::sync::Arc;

use super::super::refused::{denied, unauthenticated, unavailable};
use crate::refusal::Answer;
use crate::state::Hold;

/// Why there is no mandate yet, or never will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Unapproved {
    /// A person has to answer first.
    Held {
        hold: Arc<Hold>,
        /// Whether this request made the hold.
        new: bool,
    },
    /// There is no such approval, not for this request, or not any more.
    Unknown,
    /// A person said no.
    Rejected,
    /// It was used before.
    Consumed,
    /// One tier asks an operator, another one the person the agent works for.
    ApproverConflict,
    /// Too many requests of the application wait already.
    TooMany,
}

impl Unapproved {
    /// What the caller is told.
    pub(in super::super) const fn answer(&self) -> Answer {
        match self {
            Self::Held { .. } => Answer {
                next_step: "wait at /approvals/{approval_id}?wait=25 until it is approved, then send the same request with approval_id",
                retryable: true,
                ..unauthenticated("interaction_required", "a person has to approve this first")
            },
            Self::Unknown => unauthenticated("access_denied", "the approval is unknown or has expired"),
            Self::Rejected => Answer {
                next_step: "do without it, or ask whoever rejected it",
                ..denied("the approval was rejected")
            },
            Self::Consumed => Answer {
                status: 409,
                code: "approval_consumed",
                next_step: "send the request without approval_id to ask again",
                ..denied("the approval was used before")
            },
            Self::ApproverConflict => Answer {
                next_step: "ask for fewer scopes at once",
                ..denied("the tiers of these scopes ask different people for approval")
            },
            Self::TooMany => Answer {
                status: 429,
                code: "provider_rate_limited",
                ..unavailable("too many requests of this application wait for approval", 30)
            },
        }
    }

    /// The word in the ledger.
    pub(in super::super) const fn status(&self) -> &'static str {
        match self {
            Self::Held { .. } => "approval_pending",
            Self::Unknown => "approval_invalid",
            Self::Rejected => "approval_rejected",
            Self::Consumed => "approval_consumed",
            Self::ApproverConflict => "approver_conflict",
            Self::TooMany => "approval_limit_exceeded",
        }
    }
}

impl From<Unapproved> for super::super::refused::Refused {
    fn from(why: Unapproved) -> Self {
        Self::Unapproved(why)
    }
}
