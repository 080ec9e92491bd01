//! The words for a refusal in ledger and metrics.

use super::Refusal;

impl Refusal {
    /// The reason code a caller is told and the ledger keeps, where policy or a plugin decided.
    #[must_use]
    pub fn reason(&self) -> Option<&'static str> {
        if let Self::Denied(reason) = self {
            return Some(reason.code());
        }
        if let Self::PluginRefused(code) = self {
            return Some(code);
        }
        (*self == Self::Frozen).then_some("restriction_active")
    }

    /// A short stable word for ledger and metrics; finer than the client's code.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::TokenMissing => "token_missing",
            Self::TokenOversized => "token_oversized",
            Self::TokenMalformed => "token_malformed",
            Self::TokenExpiring => "token_expiring",
            Self::ClientHeader => "client_header",
            Self::ResourceMissing => "resource_missing",
            Self::ResourceConflict => "resource_conflict",
            Self::PathTraversal => "path_traversal",
            Self::PathMalformed => "path_malformed",
            Self::HostInvalid => "host_invalid",
            Self::ConnectionInvalid => "connection_invalid",
            Self::LengthAmbiguous => "length_ambiguous",
            Self::MethodRefused => "method_refused",
            Self::HeadersTooLarge => "headers_too_large",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyMalformed => "body_malformed",
            Self::Misdirected => "misdirected",
            Self::SlotConflict => "slot_conflict",
            Self::TokenMisplaced => "token_misplaced",
            Self::TokenInvalid => "token_invalid",
            Self::TooManyFailures => "too_many_failures",
            Self::Replayed => "replayed",
            Self::EpochGone => "epoch_gone",
            Self::Revoked => "revoked",
            Self::NotStanding => "not_standing",
            Self::Frozen => "restriction_active",
            Self::Denied(reason) => reason.code(),
            Self::OperationNotPermitted => "operation_not_permitted",
            Self::ApprovalRequired => "approval_required",
            Self::PolicyFailed => "policy_eval_failed",
            Self::PluginRefused(_) => "plugin_refused",
            Self::PluginFault => "plugin_fault",
            Self::LedgerFull => "ledger_full",
            Self::MarksFull => "marks_full",
            Self::MarksUnavailable => "marks_unavailable",
            Self::ApplicationBusy => "application_busy",
            Self::ResourceBusy => "resource_busy",
            Self::Budget(refusal) => refusal.label(),
            Self::CredentialUnavailable => "credential_unavailable",
            Self::ProviderUnavailable => "provider_unavailable",
            Self::ProviderNotAddressable => "provider_not_addressable",
            Self::ProviderRefused => "provider_refused",
            Self::ProviderRateLimited => "provider_rate_limited",
            Self::ProviderAnswerInvalid => "provider_answer_invalid",
            Self::ProviderCircuitOpen => "provider_circuit_open",
            Self::CredentialNotProvisioned => "credential_not_provisioned",
            Self::CredentialLapsed => "credential_expired_not_renewable",
            Self::UpstreamUnsafe => "upstream_not_addressable",
            Self::UpstreamFailed => "upstream_failed",
            Self::UpstreamUntrusted => "upstream_untrusted",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::ResponseEncoded => "response_encoded",
            Self::UpgradeRefused => "upgrade_refused",
            Self::Mcp(refusal) => refusal.label(),
            Self::Guard(refusal) => refusal.label(),
            Self::Exact(refusal) => refusal.label(),
            Self::ClientGone => "client_gone",
            Self::Restarting => "restarting",
            Self::Internal => "internal_error",
        }
    }
}
