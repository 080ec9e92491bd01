//! Every way the gateway can say no, each with its status, code and fixed text.

mod words;

use caracal_policies::DenyReason;

use super::budgets::BudgetRefusal;
use super::exact::ExactRefusal;
use super::guards::GuardRefusal;
use super::mcp::McpRefusal;
use crate::refusal::Answer;

/// Why a request is not forwarded. Closed on purpose: a new reason must reach every match that maps it.
///
/// Source: the check order of the gateway contract; statuses and codes are what the official clients expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No mandate in any slot the route reads.
    TokenMissing,
    /// Longer than 4096 bytes.
    TokenOversized,
    /// Not a compact ES256 JWS with the claims the gate needs before it can choose a key.
    TokenMalformed,
    /// Less than 35 s of life left.
    TokenExpiring,
    /// The caller tried to name a client in a header.
    ClientHeader,
    /// No, or more than one, `X-Caracal-Resource`.
    ResourceMissing,
    /// `X-Caracal-Resource` and the host route name different resources.
    ResourceConflict,
    /// A dot segment, at whatever depth of percent-encoding.
    PathTraversal,
    /// A path or query the gate cannot read in one way only, or a target that is none of HTTP.
    PathMalformed,
    /// No `Host`, several that disagree, or one that is not a name or address with at most one port.
    HostInvalid,
    /// `Connection` names a field that forwarding needs, or what is no name.
    ConnectionInvalid,
    /// Several values in `Content-Length`, be they equal.
    LengthAmbiguous,
    /// TRACE, TRACK or CONNECT.
    MethodRefused,
    /// More header bytes or lines than the listener takes.
    HeadersTooLarge,
    /// More body than the resource takes.
    BodyTooLarge,
    /// A chunked body that is not one.
    BodyMalformed,
    /// No route matches host or path.
    Misdirected,
    /// Two slots carry different tokens.
    SlotConflict,
    /// The mandate's bytes stand where they would reach the upstream.
    TokenMisplaced,
    /// The signature, issuer, audience, zone or class is wrong.
    TokenInvalid,
    /// Too many failed verifications from this address.
    TooManyFailures,
    /// A single-use mandate presented again.
    Replayed,
    /// Minted by a process whose marks are gone.
    EpochGone,
    /// The record, root, session or delegation has been revoked.
    Revoked,
    /// The session, delegation or record behind the mandate is not live.
    NotStanding,
    /// The zone is frozen.
    Frozen,
    /// Policy says no.
    Denied(DenyReason),
    /// No operation of the resource covers the request with a carried scope.
    OperationNotPermitted,
    /// Policy now wants an approval that this mandate was minted without.
    ApprovalRequired,
    /// The policy data contradicts itself.
    PolicyFailed,
    /// A plugin of the resource refused.
    PluginRefused(&'static str),
    /// A plugin of the resource failed.
    PluginFault,
    /// The ledger cannot take the request's records.
    LedgerFull,
    /// No room for another single-use mark.
    MarksFull,
    /// The fleet's marks cannot be reached.
    MarksUnavailable,
    /// The application has too many requests in flight.
    ApplicationBusy,
    /// The resource has too many requests in flight.
    ResourceBusy,
    /// A budget or rate of the bundle lets the call not through.
    Budget(BudgetRefusal),
    /// The credential the provider names cannot be had for this destination.
    CredentialUnavailable,
    /// The token endpoint of the provider cannot be reached, was late, or failed.
    ProviderUnavailable,
    /// The token endpoint of the provider may not be asked: its address, or a resource leads there.
    ProviderNotAddressable,
    /// The token endpoint of the provider does not give the edge a token.
    ProviderRefused,
    /// The token endpoint of the provider asks for patience.
    ProviderRateLimited,
    /// The answer of the token endpoint is none: no JSON, another token type, too long, a redirect, or metadata of another issuer.
    ProviderAnswerInvalid,
    /// The token endpoint of the provider failed five times in a row and is left alone for a moment.
    ProviderCircuitOpen,
    /// Whom the mandate acts for has no connection to the provider.
    CredentialNotProvisioned,
    /// The connection to the provider is over, and no fresh tokens are to be had.
    CredentialLapsed,
    /// The upstream's host or address may not be dialled; the log says why.
    UpstreamUnsafe,
    /// The upstream cannot be reached or broke off.
    UpstreamFailed,
    /// There is no TLS with the upstream: its certificate is not believed, or it wants another one of ours.
    UpstreamUntrusted,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The resource's bodies are searched, and the upstream sent one that is encoded.
    ResponseEncoded,
    /// The resource's bodies are searched, or its upstream speaks HTTP/2: no connection can change its protocol.
    UpgradeRefused,
    /// A message to an MCP server, or its answer, cannot be judged.
    Mcp(McpRefusal),
    /// A guard refuses the request, or cannot be shown it.
    Guard(GuardRefusal),
    /// A guard asks for a person's yes to the very request, and there is none that it could use.
    Exact(ExactRefusal),
    /// The caller went away first.
    ClientGone,
    /// The process is stopping.
    Restarting,
    /// A failure of our own.
    Internal,
}

impl Refusal {
    /// The whole mapping from refusal to response.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one table, to be read as one")]
    pub const fn answer(&self) -> Answer {
        match self {
            Self::TokenMissing => invalid(401, "no mandate was presented", MINT),
            Self::TokenOversized => invalid(401, "the mandate is longer than 4096 bytes", MINT),
            Self::TokenMalformed => invalid(401, "the mandate is malformed", MINT),
            Self::TokenExpiring => {
                no(401, "credential_expired_not_renewable", "the mandate has less than 35 seconds left", MINT)
            }
            Self::ClientHeader => invalid(400, "X-Caracal-Client-ID is not accepted", "leave the header out"),
            Self::ResourceMissing => invalid(
                400,
                "X-Caracal-Resource is missing",
                "send X-Caracal-Resource exactly once, or use a host or path that is routed",
            ),
            Self::ResourceConflict => invalid(
                400,
                "X-Caracal-Resource and the host name different resources",
                "address one resource",
            ),
            Self::PathTraversal => {
                invalid(400, "the path contains dot segments", "send the path without . and .. segments")
            }
            Self::PathMalformed => {
                invalid(400, "the path or query is malformed", "percent-encode the path as UTF-8")
            }
            Self::HostInvalid => invalid(400, "the Host is missing or ambiguous", "send one Host header"),
            Self::ConnectionInvalid => invalid(
                400,
                "Connection names what must not be taken out",
                "name only fields that are for the connection, nine at most",
            ),
            Self::LengthAmbiguous => {
                invalid(400, "Content-Length has several values", "send one Content-Length with one number")
            }
            Self::MethodRefused => {
                no(405, "method_not_allowed", "the method is never forwarded", "use another method")
            }
            Self::HeadersTooLarge => {
                no(431, "headers_too_large", "the request head is too large", "send fewer or shorter headers")
            }
            Self::BodyTooLarge => {
                no(413, "payload_too_large", "the request body is too large", "send a smaller body")
            }
            Self::BodyMalformed => invalid(
                400,
                "the chunks of the request body are malformed",
                "check whether the call had an effect before you repeat it",
            ),
            Self::Misdirected => no(
                421,
                "misdirected_request",
                "no resource is routed here",
                "check the base URL, or name the resource in X-Caracal-Resource",
            ),
            Self::SlotConflict => {
                invalid(400, "two credential slots carry different tokens", "send the mandate in one place")
            }
            Self::TokenMisplaced => no(
                400,
                "token_misplaced",
                "the mandate also stands in a place that would reach the upstream",
                "send the mandate only in a credential slot",
            ),
            Self::TokenInvalid => invalid(401, "the mandate is not valid here", MINT),
            Self::TooManyFailures => later(
                429,
                "provider_rate_limited",
                "too many invalid mandates from this address",
                "wait, then present a valid mandate",
                60,
            ),
            Self::Replayed => invalid(401, "token replay detected", MINT),
            Self::EpochGone => invalid(401, "the mandate was minted before a restart", MINT),
            Self::Revoked => invalid(
                401,
                "the authority behind the mandate was revoked",
                "ask who revoked it; a new mandate needs a new session",
            ),
            Self::NotStanding => no(
                403,
                "access_denied",
                "the session or delegation behind the mandate is not live",
                "start a new session and mint again",
            ),
            Self::Frozen => no(
                403,
                "access_denied",
                "policy denied (restriction_active)",
                "wait until an operator lifts the freeze",
            ),
            Self::Denied(_) => no(
                403,
                "access_denied",
                "policy denied",
                "ask the operator for the authority you lack; the decision id names this case",
            ),
            Self::OperationNotPermitted => no(
                403,
                "operation_not_permitted",
                "the mandate does not cover this operation",
                "mint a mandate with a scope that `missing` names; where nothing is missing, the resource has no such operation",
            ),
            Self::ApprovalRequired => {
                no(403, "approval_required", "this scope now needs an approval", "mint again")
            }
            Self::PolicyFailed => later(
                503,
                "policy_eval_failed",
                "the policy cannot be evaluated",
                "tell the operator; the decision id names this case",
                5,
            ),
            Self::PluginRefused(_) => no(
                403,
                "plugin_refused",
                "a plugin of the resource refused the request",
                "the decision id names this case",
            ),
            Self::PluginFault => no(
                500,
                "plugin_fault",
                "a plugin of the resource failed",
                "tell the operator; the decision id names this case",
            ),
            Self::LedgerFull => {
                later(503, "ledger_unavailable", "the ledger cannot take a record", "try again", 1)
            }
            Self::MarksFull => {
                later(503, "capacity", "no room for another single-use mandate", "try again later", 5)
            }
            Self::MarksUnavailable => later(
                503,
                "marks_unavailable",
                "the fleet's marks cannot be reached: whether the mandate was used before cannot be told",
                "mint a new mandate and try again",
                1,
            ),
            Self::ApplicationBusy => later(
                429,
                "concurrency_limited",
                "the application has too many requests in flight",
                "wait for one to finish",
                1,
            ),
            Self::ResourceBusy => {
                later(503, "capacity", "the resource has too many requests in flight", "try again", 1)
            }
            Self::Budget(refusal) => refusal.answer(),
            Self::CredentialUnavailable => no(
                502,
                "http_request_failed",
                "the credential for the upstream is not available",
                "tell the operator; the decision id names this case",
            ),
            Self::ProviderUnavailable => later(
                502,
                "http_request_failed",
                "the token endpoint of the provider cannot be reached or failed",
                "try again with a new mandate",
                1,
            ),
            Self::ProviderNotAddressable => no(
                502,
                "http_request_failed",
                "the token endpoint of the provider may not be asked",
                "tell the operator; the decision id names this case",
            ),
            Self::ProviderRefused => no(
                502,
                "http_request_failed",
                "the token endpoint of the provider refuses the edge",
                "tell the operator: `caracal providers test` says why",
            ),
            Self::ProviderRateLimited => later(
                429,
                "provider_rate_limited",
                "the token endpoint of the provider asks for patience",
                "try again later with a new mandate",
                5,
            ),
            Self::ProviderAnswerInvalid => no(
                502,
                "http_request_failed",
                "the token endpoint of the provider gives no usable answer",
                "tell the operator: `caracal providers test` says why",
            ),
            Self::ProviderCircuitOpen => later(
                502,
                "http_request_failed",
                "the token endpoint of the provider failed too often and is left alone",
                "try again later with a new mandate",
                30,
            ),
            Self::CredentialNotProvisioned => no(
                403,
                "access_denied",
                "whom the mandate acts for is not connected to the provider",
                "ask the operator to connect an account: `caracal providers connect`",
            ),
            Self::CredentialLapsed => no(
                403,
                "credential_expired_not_renewable",
                "the connection to the provider is over and cannot be renewed",
                "ask the operator to connect the account again: `caracal providers connect`",
            ),
            Self::UpstreamUnsafe => no(
                502,
                "internal_error",
                "the upstream is not addressable",
                "tell the operator; the decision id names this case",
            ),
            Self::UpstreamFailed => later(
                502,
                "internal_error",
                "the upstream cannot be reached",
                "check whether the call had an effect before you repeat it",
                1,
            ),
            Self::UpstreamUntrusted => no(
                502,
                "internal_error",
                "there is no TLS with the upstream",
                "tell the operator: the log says why",
            ),
            Self::UpstreamTimeout => later(
                504,
                "internal_error",
                "the upstream did not answer in time",
                "check whether the call had an effect before you repeat it",
                1,
            ),
            Self::ResponseEncoded => no(
                502,
                "internal_error",
                "the upstream's answer is encoded and cannot be searched",
                "tell the operator; the call may have had its effect",
            ),
            Self::UpgradeRefused => no(
                403,
                "operation_not_permitted",
                "the resource takes no protocol upgrade",
                "call it without `Upgrade`",
            ),
            Self::Mcp(refusal) => refusal.answer(),
            Self::Guard(refusal) => refusal.answer(),
            Self::Exact(refusal) => refusal.answer(),
            Self::ClientGone => no(499, "internal_error", "the caller went away", "none"),
            Self::Restarting => later(503, "restarting", "the edge is restarting", "try again", 1),
            Self::Internal => no(
                500,
                "internal_error",
                "internal error",
                "tell the operator; the request id names this case",
            ),
        }
    }
}

const MINT: &str = "mint a new mandate and present it once";

pub(super) const fn no(
    status: u16,
    code: &'static str,
    description: &'static str,
    next_step: &'static str,
) -> Answer {
    Answer { status, code, description, next_step, retryable: false, retry_after: None }
}

const fn invalid(status: u16, description: &'static str, next_step: &'static str) -> Answer {
    no(status, "invalid_token", description, next_step)
}

pub(super) const fn later(
    status: u16,
    code: &'static str,
    description: &'static str,
    next_step: &'static str,
    seconds: u32,
) -> Answer {
    Answer { status, code, description, next_step, retryable: true, retry_after: Some(seconds) }
}

#[cfg(test)]
mod tests;
