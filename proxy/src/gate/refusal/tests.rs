//! The table of refusals against the page that documents it.

use std::collections::BTreeSet;

use caracal_policies::DenyReason;

use super::Refusal;
use crate::gate::budgets::BudgetRefusal;
use crate::gate::exact::ExactRefusal;
use crate::gate::guards::GuardRefusal;
use crate::gate::mcp::McpRefusal;
use crate::refusal::Particulars;

const PAGE: &str = include_str!("../../../../docs/refusals.md");

/// Every refusal. [`listed`] does not compile when one is added; then it belongs here too.
const ALL: &[Refusal] = &[
    Refusal::TokenMissing,
    Refusal::TokenOversized,
    Refusal::TokenMalformed,
    Refusal::TokenExpiring,
    Refusal::ClientHeader,
    Refusal::ResourceMissing,
    Refusal::ResourceConflict,
    Refusal::PathTraversal,
    Refusal::PathMalformed,
    Refusal::HostInvalid,
    Refusal::ConnectionInvalid,
    Refusal::LengthAmbiguous,
    Refusal::MethodRefused,
    Refusal::HeadersTooLarge,
    Refusal::BodyTooLarge,
    Refusal::BodyMalformed,
    Refusal::Misdirected,
    Refusal::SlotConflict,
    Refusal::TokenMisplaced,
    Refusal::TokenInvalid,
    Refusal::TooManyFailures,
    Refusal::Replayed,
    Refusal::EpochGone,
    Refusal::Revoked,
    Refusal::NotStanding,
    Refusal::Frozen,
    Refusal::Denied(DenyReason::RestrictionActive),
    Refusal::Denied(DenyReason::MalformedRiskData),
    Refusal::Denied(DenyReason::MalformedApprovalData),
    Refusal::Denied(DenyReason::ResourceNotGranted),
    Refusal::Denied(DenyReason::DelegationScopeExceeded),
    Refusal::Denied(DenyReason::ConfinementViolation),
    Refusal::Denied(DenyReason::RoleScopeMismatch),
    Refusal::Denied(DenyReason::MandateTargetMismatch),
    Refusal::Denied(DenyReason::NoRuleMatched),
    Refusal::Denied(DenyReason::NoActivePolicySet),
    Refusal::OperationNotPermitted,
    Refusal::ApprovalRequired,
    Refusal::PolicyFailed,
    Refusal::PluginRefused("own_code"),
    Refusal::PluginFault,
    Refusal::LedgerFull,
    Refusal::MarksFull,
    Refusal::MarksUnavailable,
    Refusal::ApplicationBusy,
    Refusal::ResourceBusy,
    Refusal::Budget(BudgetRefusal::RateLimited),
    Refusal::Budget(BudgetRefusal::Exhausted),
    Refusal::Budget(BudgetRefusal::Full),
    Refusal::Budget(BudgetRefusal::Unavailable),
    Refusal::CredentialUnavailable,
    Refusal::ProviderUnavailable,
    Refusal::ProviderNotAddressable,
    Refusal::ProviderRefused,
    Refusal::ProviderRateLimited,
    Refusal::ProviderAnswerInvalid,
    Refusal::ProviderCircuitOpen,
    Refusal::CredentialNotProvisioned,
    Refusal::CredentialLapsed,
    Refusal::UpstreamUnsafe,
    Refusal::UpstreamFailed,
    Refusal::UpstreamUntrusted,
    Refusal::UpstreamTimeout,
    Refusal::ResponseEncoded,
    Refusal::UpgradeRefused,
    Refusal::Mcp(McpRefusal::Malformed),
    Refusal::Mcp(McpRefusal::Batch),
    Refusal::Mcp(McpRefusal::HeaderMismatch),
    Refusal::Mcp(McpRefusal::MediaType),
    Refusal::Mcp(McpRefusal::TooLarge),
    Refusal::Mcp(McpRefusal::LengthRequired),
    Refusal::Mcp(McpRefusal::Late),
    Refusal::Mcp(McpRefusal::Busy),
    Refusal::Mcp(McpRefusal::AnswerInvalid),
    Refusal::Guard(GuardRefusal::Denied),
    Refusal::Guard(GuardRefusal::Unanswered),
    Refusal::Guard(GuardRefusal::Encoded),
    Refusal::Guard(GuardRefusal::NotJson),
    Refusal::Guard(GuardRefusal::TooLarge),
    Refusal::Guard(GuardRefusal::LengthRequired),
    Refusal::Guard(GuardRefusal::Late),
    Refusal::Guard(GuardRefusal::Busy),
    Refusal::Exact(ExactRefusal::Pending),
    Refusal::Exact(ExactRefusal::Rejected),
    Refusal::Exact(ExactRefusal::Mismatch),
    Refusal::Exact(ExactRefusal::Consumed),
    Refusal::Exact(ExactRefusal::Conflict),
    Refusal::Exact(ExactRefusal::TooMany),
    Refusal::Exact(ExactRefusal::Unavailable),
    Refusal::ClientGone,
    Refusal::Restarting,
    Refusal::Internal,
];

const fn listed(refusal: Refusal) -> bool {
    match refusal {
        Refusal::TokenMissing
        | Refusal::TokenOversized
        | Refusal::TokenMalformed
        | Refusal::TokenExpiring
        | Refusal::ClientHeader
        | Refusal::ResourceMissing
        | Refusal::ResourceConflict
        | Refusal::PathTraversal
        | Refusal::PathMalformed
        | Refusal::HostInvalid
        | Refusal::ConnectionInvalid
        | Refusal::LengthAmbiguous
        | Refusal::MethodRefused
        | Refusal::HeadersTooLarge
        | Refusal::BodyTooLarge
        | Refusal::BodyMalformed
        | Refusal::Misdirected
        | Refusal::SlotConflict
        | Refusal::TokenMisplaced
        | Refusal::TokenInvalid
        | Refusal::TooManyFailures
        | Refusal::Replayed
        | Refusal::EpochGone
        | Refusal::Revoked
        | Refusal::NotStanding
        | Refusal::Frozen
        | Refusal::Denied(_)
        | Refusal::OperationNotPermitted
        | Refusal::ApprovalRequired
        | Refusal::PolicyFailed
        | Refusal::PluginRefused(_)
        | Refusal::PluginFault
        | Refusal::LedgerFull
        | Refusal::MarksFull
        | Refusal::MarksUnavailable
        | Refusal::ApplicationBusy
        | Refusal::ResourceBusy
        | Refusal::Budget(_)
        | Refusal::CredentialUnavailable
        | Refusal::ProviderUnavailable
        | Refusal::ProviderNotAddressable
        | Refusal::ProviderRefused
        | Refusal::ProviderRateLimited
        | Refusal::ProviderAnswerInvalid
        | Refusal::ProviderCircuitOpen
        | Refusal::CredentialNotProvisioned
        | Refusal::CredentialLapsed
        | Refusal::UpstreamUnsafe
        | Refusal::UpstreamFailed
        | Refusal::UpstreamUntrusted
        | Refusal::UpstreamTimeout
        | Refusal::ResponseEncoded
        | Refusal::UpgradeRefused
        | Refusal::Mcp(
            McpRefusal::Malformed
            | McpRefusal::Batch
            | McpRefusal::HeaderMismatch
            | McpRefusal::MediaType
            | McpRefusal::TooLarge
            | McpRefusal::LengthRequired
            | McpRefusal::Late
            | McpRefusal::Busy
            | McpRefusal::AnswerInvalid,
        )
        | Refusal::Guard(
            GuardRefusal::Denied
            | GuardRefusal::Unanswered
            | GuardRefusal::Encoded
            | GuardRefusal::NotJson
            | GuardRefusal::TooLarge
            | GuardRefusal::LengthRequired
            | GuardRefusal::Late
            | GuardRefusal::Busy,
        )
        | Refusal::ClientGone
        | Refusal::Restarting
        | Refusal::Internal => true,
        Refusal::Exact(refusal) => exact_listed(refusal),
    }
}

const fn exact_listed(refusal: ExactRefusal) -> bool {
    match refusal {
        ExactRefusal::Pending
        | ExactRefusal::Rejected
        | ExactRefusal::Mismatch
        | ExactRefusal::Consumed
        | ExactRefusal::Conflict
        | ExactRefusal::TooMany
        | ExactRefusal::Unavailable => true,
    }
}

fn row(refusal: &Refusal) -> String {
    let answer = refusal.answer();
    let wait = answer.retry_after.map_or_else(|| "-".to_owned(), |seconds| seconds.to_string());
    format!("| `{}` | {} | `{}` | {wait} |", refusal.label(), answer.status, answer.code)
}

#[test]
fn every_refusal_is_documented_as_it_is_and_nothing_else_is() {
    assert!(ALL.iter().copied().all(listed));
    let coded: BTreeSet<String> = ALL.iter().map(row).collect();
    let documented: BTreeSet<String> = PAGE
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.splitn(6, " | ").take(4).collect::<Vec<_>>().join(" | ") + " |")
        .collect();
    let missing: Vec<_> = coded.difference(&documented).collect();
    let stale: Vec<_> = documented.difference(&coded).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "not documented: {missing:#?}\nonly documented: {stale:#?}"
    );
}

#[test]
fn a_refused_caller_is_told_what_to_do_next_in_both_vocabularies() {
    for refusal in ALL {
        let answer = refusal.answer();
        let particulars =
            Particulars { request_id: "r".into(), reason: refusal.reason(), ..Particulars::default() };
        let body: serde_json::Value = serde_json::from_slice(&answer.body(&particulars)).unwrap();
        assert_eq!((&body["error"], &body["status"]), (&answer.code.into(), &answer.status.into()));
        assert_eq!(body["type"], format!("urn:caracal:error:{}", answer.code));
        assert_eq!(body["retryable"], answer.retry_after.is_some(), "{refusal:?}");
        assert!((400..=599).contains(&answer.status) && !answer.next_step.is_empty(), "{refusal:?}");
        let told = body["error_description"].as_str().unwrap();
        assert!(refusal.reason().is_none_or(|reason| told.ends_with(&format!("({reason})"))), "{told}");
        assert_eq!(answer.challenge().is_some(), answer.status == 401);
    }
}
