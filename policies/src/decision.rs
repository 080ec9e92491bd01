//! What a decision looks at, and what it can answer.

use std::fmt;
use std::sync::Arc;

use crate::data::TierDeclaration;

/// The implicit scope of a mandate that only manages the application's own sessions.
pub(crate) const LIFECYCLE: &str = "agent:lifecycle";

/// Everything a decision may look at, borrowed from the request.
///
/// Empty ids count as absent.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    /// Who asks.
    pub principal: Principal<'a>,
    /// What for.
    pub action: Action,
    /// Identifier of the resource, never its row id.
    pub resource: &'a str,
    /// Labels of the session the mandate belongs to.
    pub labels: &'a [Arc<str>],
    /// Scopes asked for; empty at use.
    pub requested: &'a [&'a str],
    /// The delegation, when there is one.
    pub edge: Option<EdgeFacts<'a>>,
    /// The session asked for at mint.
    pub agent_session_id: Option<&'a str>,
    /// Claims of the mandate shown, when one is.
    pub presented: Option<Presented<'a>>,
}

/// Who asks, by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Principal<'a> {
    /// An application of the zone.
    Application(&'a str),
    /// A workload, whose bindings are its grant.
    Workload(&'a str),
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A mandate, or the use of one.
    TokenExchange,
    /// A credential for a workload.
    CredentialInjection,
}

/// What a decision needs to know of a delegation.
#[derive(Debug, Clone, Copy)]
pub struct EdgeFacts<'a> {
    /// Its id.
    pub id: &'a str,
    /// The scopes it carries.
    pub scopes: &'a [Arc<str>],
}

/// What a decision needs to know of the mandate shown.
#[derive(Debug, Clone, Copy)]
pub struct Presented<'a> {
    /// Claim `delegation_edge_id`.
    pub delegation_edge_id: Option<&'a str>,
    /// Claim `scope`, separated by spaces.
    pub scope: &'a str,
    /// Claim `target`: resource identifiers.
    pub target: &'a [String],
}

/// The answer. Closed on purpose: a new one must break every match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Yes, as far as policy goes.
    Allow(Allowed),
    /// No.
    Deny(DenyReason),
    /// The policy could not be evaluated; counts as no. Callers answer 503 `policy_eval_failed`.
    Failed(Failure),
}

/// What comes with a yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// The rule that allowed it.
    pub rule: Rule,
    /// Declarations of the tiers the requested scopes are in, sorted: a human must approve before anything is minted.
    pub gate: Vec<TierDeclaration>,
    /// Requested scopes that are classified, with their tier, sorted by scope.
    pub risk: Vec<(Arc<str>, Arc<str>)>,
}

/// The rules that can allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// An application that owns the resource asks for `agent:lifecycle` alone.
    Bootstrap,
    /// A mint under the grant with this binding key.
    Mint(Arc<str>),
    /// A credential for a workload.
    Workload,
    /// The use of a mandate under the grant with this binding key.
    Use(Arc<str>),
}

/// Why the answer is no. Closed on purpose: a new one must break every match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DenyReason {
    /// The zone is frozen.
    RestrictionActive,
    /// The `risk` data is not what it must be.
    MalformedRiskData,
    /// The `approval_tiers` data is not what it must be.
    MalformedApprovalData,
    /// No grant of this resource names the application.
    ResourceNotGranted,
    /// A requested scope is not in the delegation.
    DelegationScopeExceeded,
    /// A label confines the session to other scopes.
    ConfinementViolation,
    /// No single label of the session has a role with every scope.
    RoleScopeMismatch,
    /// The mandate was minted for other resources.
    MandateTargetMismatch,
    /// The request has none of the shapes a rule is about.
    NoRuleMatched,
    /// The zone has no policy.
    NoActivePolicySet,
}

/// Why a policy could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Two risk rules put one scope into different tiers.
    #[error("scope `{scope}` is in two risk tiers")]
    ConflictingRisk {
        /// The scope.
        scope: Arc<str>,
    },
    /// The resource is not the one this zone knows under its identifier.
    #[error("resource `{resource}` is not part of this generation of the zone")]
    ForeignResource {
        /// Its identifier.
        resource: Arc<str>,
    },
}

impl<'a> Principal<'a> {
    /// The id, of whatever kind.
    pub(crate) fn id(self) -> &'a str {
        match self {
            Self::Application(id) | Self::Workload(id) => id,
        }
    }
}

impl DenyReason {
    /// Every reason, in order of precedence.
    pub const ALL: [Self; 10] = [
        Self::NoActivePolicySet,
        Self::RestrictionActive,
        Self::MalformedRiskData,
        Self::MalformedApprovalData,
        Self::ResourceNotGranted,
        Self::DelegationScopeExceeded,
        Self::ConfinementViolation,
        Self::RoleScopeMismatch,
        Self::MandateTargetMismatch,
        Self::NoRuleMatched,
    ];

    /// The stable word clients and records use.
    pub fn code(self) -> &'static str {
        match self {
            Self::RestrictionActive => "restriction_active",
            Self::MalformedRiskData => "malformed_risk_data",
            Self::MalformedApprovalData => "malformed_approval_data",
            Self::ResourceNotGranted => "resource_not_granted",
            Self::DelegationScopeExceeded => "delegation_scope_exceeded",
            Self::ConfinementViolation => "confinement_violation",
            Self::RoleScopeMismatch => "role_scope_mismatch",
            Self::MandateTargetMismatch => "mandate_target_mismatch",
            Self::NoRuleMatched => "no_rule_matched",
            Self::NoActivePolicySet => "no_active_policy_set",
        }
    }
}

impl fmt::Display for DenyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// The name records use for the determining policy.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bootstrap => f.write_str("caracal-bootstrap"),
            Self::Mint(key) => write!(f, "caracal-{key}-mint"),
            Self::Workload => f.write_str("caracal-workload-mint"),
            Self::Use(key) => write!(f, "caracal-{key}-use"),
        }
    }
}
