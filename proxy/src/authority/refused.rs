//! Every way the token endpoint says no, and the one table from there to what the caller is told.

use super::approvals::Unapproved;
use super::federation::Rejected;
use super::form::FormProblem;
use crate::refusal::Answer;

/// Why a token request got no mandate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    QueryString,
    ContentType,
    TooLarge,
    Unreadable,
    Form(FormProblem),
    GatewayHeaders,
    /// No such application, or a secret that does not verify: one answer for both.
    BadClient,
    /// As [`Refused::BadClient`], after too many of them; seconds until the next try.
    Throttled(u32),
    /// The application mints faster than it may; seconds until the next.
    MintRate(u32),
    /// Too many slow secret hashes are being computed already.
    HashQueue,
    /// The secret is right, the application lives in another zone.
    WrongZone,
    NoResources,
    TtlOverCap,
    ReusableShape,
    FederationFields,
    NoSubjectIssuer,
    /// The identity token was not accepted.
    Federation(Rejected),
    /// A person has to say yes, and has not, or not to this.
    Unapproved(Unapproved),
    SubjectToken,
    DirectExchange,
    ApplicationRevoked,
    /// The named authority record, session or delegation is not there, not live or not the caller's.
    Reference(Reference),
    /// The decision said no; the reason is one of the decision's codes or of this endpoint's.
    Denied(&'static str),
    PolicyFailed,
    Clock,
    NoKeys,
    Signing,
    Store,
    LedgerFull,
}

/// Which reference failed; for the ledger only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    Record,
    Session,
    DelegationWithoutSession,
    Delegation,
    Lineage,
    Hops,
    Scopes,
    Ttl,
    Expiry,
}

impl Refused {
    /// What the caller is told.
    pub(super) fn answer(&self) -> Answer {
        match self {
            Self::QueryString => malformed("the token endpoint takes no query string"),
            Self::ContentType => Answer {
                status: 415,
                ..malformed("the body must be application/x-www-form-urlencoded without content encoding")
            },
            Self::TooLarge => Answer {
                status: 413,
                code: "payload_too_large",
                ..malformed("the request body is larger than 64 KiB")
            },
            Self::Unreadable => malformed("the request body could not be read"),
            Self::Form(problem) => malformed(form_problem(*problem)),
            Self::NoResources => malformed("at least one resource is required"),
            Self::TtlOverCap => malformed("ttl_seconds is above the maximum of 3600"),
            Self::ReusableShape => malformed(
                "a reusable mandate is a delegated one for exactly one resource and at most 900 seconds",
            ),
            Self::FederationFields => malformed(
                "an identity token is exchanged alone, without resource, scope, session or delegation",
            ),
            Self::GatewayHeaders => {
                unauthenticated("access_denied", "gateway signatures are not accepted here")
            }
            // Official clients and operators look for this sentence; no other refusal may use it.
            Self::BadClient => unauthenticated("access_denied", "invalid client credentials"),
            Self::Unapproved(why) => why.answer(),
            Self::SubjectToken => unauthenticated("invalid_token", "the subject token is not valid"),
            Self::NoSubjectIssuer => {
                unauthenticated("invalid_token", "no subject issuer is registered for this zone")
            }
            Self::Federation(rejected) if rejected.passes() => unavailable(rejected.description(), 10),
            Self::Federation(rejected) => unauthenticated("invalid_token", rejected.description()),
            Self::WrongZone => Answer {
                code: "zone_invalid",
                next_step: "send the zone_id the application belongs to",
                ..denied("the application belongs to another zone")
            },
            Self::DirectExchange => denied("a session mandate cannot be exchanged for resource authority"),
            Self::ApplicationRevoked => Answer {
                next_step: "ask the operator of the zone to restore the application",
                ..denied("the application has been revoked")
            },
            Self::Reference(_) => Answer {
                next_step: "start a new session or delegation and ask again",
                ..denied("the session or delegation does not carry this request")
            },
            Self::Denied("restriction_active") => Answer {
                next_step: "wait until an operator lifts the freeze or the restriction",
                ..denied("access denied by policy")
            },
            Self::Denied(_) => denied("access denied by policy"),
            Self::Throttled(wait) => Answer {
                status: 429,
                code: "provider_rate_limited",
                ..unavailable("too many failed attempts", *wait)
            },
            Self::MintRate(wait) => Answer {
                status: 429,
                code: "rate_limited",
                ..unavailable("the application mints faster than it may", *wait)
            },
            Self::PolicyFailed => Answer {
                code: "policy_eval_failed",
                next_step: "an operator has to correct the zone's policy",
                ..unavailable("the policy could not be evaluated", 30)
            },
            Self::HashQueue => unavailable("too many secrets are being verified", 1),
            Self::Clock => unavailable("the clock of this host cannot be relied on", 30),
            Self::Store => unavailable("the store could not be written", 2),
            Self::LedgerFull => unavailable("the ledger takes no more records now", 1),
            Self::NoKeys | Self::Signing => Answer {
                status: 500,
                code: "internal_error",
                description: "the mandate could not be issued",
                next_step: "report this with the request id",
                retryable: false,
                retry_after: None,
            },
        }
    }

    /// The decision's reason, told to the caller as `policy denied (<reason>)`.
    pub(super) const fn reason(&self) -> Option<&'static str> {
        if let Self::Denied(reason) = self { Some(reason) } else { None }
    }

    /// The word in the ledger for what exactly was wrong.
    pub(super) const fn detail(&self) -> &'static str {
        if let Self::Federation(rejected) = self {
            return rejected.word();
        }
        match self.reason() {
            Some(reason) => reason,
            None => self.status(),
        }
    }

    /// The `evaluation_status` of the ledger event.
    pub(super) const fn status(&self) -> &'static str {
        match self {
            Self::Denied(reason) => match reason.as_bytes() {
                b"resource_not_granted" | b"scope_mismatch" | b"resource_outside_delegation" => reason,
                _ => "complete",
            },
            Self::Reference(reference) => reference.status(),
            Self::MintRate(_) => "rate_limited",
            Self::PolicyFailed => "policy_eval_failed",
            Self::Unapproved(why) => why.status(),
            Self::NoSubjectIssuer | Self::Federation(_) => "subject_federation_rejected",
            Self::FederationFields => "subject_federation_invalid",
            Self::SubjectToken => "subject_token_invalid",
            Self::ApplicationRevoked => "application_revoked",
            Self::QueryString
            | Self::ContentType
            | Self::TooLarge
            | Self::Unreadable
            | Self::Form(_)
            | Self::GatewayHeaders
            | Self::BadClient
            | Self::Throttled(_)
            | Self::HashQueue
            | Self::WrongZone
            | Self::NoResources
            | Self::TtlOverCap
            | Self::ReusableShape
            | Self::DirectExchange
            | Self::Clock
            | Self::NoKeys
            | Self::Signing
            | Self::Store
            | Self::LedgerFull => "exchange_denied",
        }
    }
}

impl Reference {
    const fn status(self) -> &'static str {
        match self {
            Self::Record => "authority_record_inactive",
            Self::Session => "session_inactive",
            Self::DelegationWithoutSession => "delegation_without_session",
            Self::Delegation => "delegation_inactive",
            Self::Lineage => "delegation_lineage_broken",
            Self::Hops => "delegation_hops_exceeded",
            Self::Scopes => "delegation_scope_exceeded",
            Self::Ttl => "delegation_ttl_exceeded",
            Self::Expiry => "delegation_expired",
        }
    }
}

const fn malformed(description: &'static str) -> Answer {
    Answer {
        status: 400,
        code: "invalid_token",
        description,
        next_step: "correct the request",
        retryable: false,
        retry_after: None,
    }
}

pub(super) const fn unauthenticated(code: &'static str, description: &'static str) -> Answer {
    Answer {
        status: 401,
        code,
        description,
        next_step: "check the credentials that were sent",
        retryable: false,
        retry_after: None,
    }
}

pub(super) const fn denied(description: &'static str) -> Answer {
    Answer {
        status: 403,
        code: "access_denied",
        description,
        next_step: "ask the operator of the zone for the missing grant",
        retryable: false,
        retry_after: None,
    }
}

pub(super) const fn unavailable(description: &'static str, retry_after: u32) -> Answer {
    Answer {
        status: 503,
        code: "sts_unavailable",
        description,
        next_step: "try again after the time in Retry-After",
        retryable: true,
        retry_after: Some(retry_after),
    }
}

const fn form_problem(problem: FormProblem) -> &'static str {
    match problem {
        FormProblem::Malformed => "the form is malformed",
        FormProblem::DuplicateField => "a form field occurs more than once; only resource may",
        FormProblem::ForbiddenField => "actor tokens and client assertions are not supported",
        FormProblem::BadTtl => "ttl_seconds must be a whole number of seconds",
        FormProblem::BlankResource => "a resource is blank",
        FormProblem::GrantType => "grant_type must be urn:ietf:params:oauth:grant-type:token-exchange",
        FormProblem::SubjectTokenType => "subject_token_type is not supported",
        FormProblem::SubjectTokenPair => "subject_token and subject_token_type belong together",
        FormProblem::BadReusable => "reusable must be true or false",
    }
}
