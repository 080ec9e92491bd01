//! Policy data: the six roots a bundle may define, before they are indexed for decisions.
//!
//! Loading a bundle refuses data that is malformed or contradicts itself, so a loaded zone never carries
//! [`Checked::Malformed`]. The decision still knows what to answer then, since it is defined over such data too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The data of one zone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PolicyData {
    /// Binding key to application id.
    pub(crate) app_ids: BTreeMap<Arc<str>, Arc<str>>,
    /// By resource identifier.
    pub(crate) grants: BTreeMap<Arc<str>, Arc<GrantData>>,
    /// Caps by label prefix.
    pub(crate) confinement: Vec<Confinement>,
    /// Not empty: the zone is frozen.
    pub(crate) restrict: BTreeSet<Arc<str>>,
    /// Scopes and their tiers.
    pub(crate) risk: Checked<Risk>,
    /// Tiers that ask for an approval.
    pub(crate) tiers: Checked<TierDeclaration>,
}

/// Who owns a resource, and which scopes each role has on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GrantData {
    /// A key of `app_ids`.
    pub(crate) application: Arc<str>,
    /// Session label to scopes.
    pub(crate) roles: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
}

/// Sessions with a label that starts so may have these scopes only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Confinement {
    pub(crate) label_prefix: Arc<str>,
    pub(crate) scopes: BTreeSet<Arc<str>>,
}

/// A scope and the tier it is in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Risk {
    pub(crate) scope: Arc<str>,
    pub(crate) tier: Arc<str>,
}

/// A list of rules, or the fact that it is not one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Checked<T> {
    /// Every element is well formed.
    Rules(Vec<T>),
    /// It is no list, or an element is not well formed.
    Malformed,
}

/// What a risk tier asks for before anything in it is minted. Members the bundle leaves out are not written out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TierDeclaration {
    /// The tier.
    pub tier: Arc<str>,
    /// Who may approve; see [`Self::approver`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approver: Option<Approver>,
    /// How long an approval may be waited for; see [`Self::ttl_seconds`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// What the approver sees of the requester; see [`Self::privacy`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privacy: Option<Privacy>,
    /// Whether the person a session acts for may answer for it; see [`Self::self_approval`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_approval: Option<SelfApproval>,
}

/// Who may approve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approver {
    /// An operator of the zone.
    Operator,
    /// The user the session acts for.
    Subject,
    /// Either.
    Any,
}

/// Whether the person a session acts for may answer what it asks. Later ones allow less.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SelfApproval {
    /// That person, and of persons nobody else.
    #[default]
    Allowed,
    /// Any other person of the application, and never that one.
    Forbidden,
}

/// What the approver sees of the requester. Later ones hide more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Privacy {
    /// Everything.
    Identified,
    /// A stable stand-in.
    Pseudonymous,
    /// Nothing.
    Anonymous,
}

impl<T> Default for Checked<T> {
    fn default() -> Self {
        Self::Rules(Vec::new())
    }
}

impl<T> Checked<T> {
    /// The rules; none when malformed.
    pub(crate) fn rules(&self) -> &[T] {
        match self {
            Self::Rules(rules) => rules,
            Self::Malformed => &[],
        }
    }
}

impl Approver {
    /// The word bundles use.
    pub fn word(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Subject => "subject",
            Self::Any => "any",
        }
    }
}

impl Privacy {
    /// The word bundles use.
    pub fn word(self) -> &'static str {
        match self {
            Self::Identified => "identified",
            Self::Pseudonymous => "pseudonymous",
            Self::Anonymous => "anonymous",
        }
    }
}

impl SelfApproval {
    /// The word bundles use.
    pub fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Forbidden => "forbidden",
        }
    }
}

impl TierDeclaration {
    /// Who may approve: an operator unless the bundle says otherwise.
    pub fn approver(&self) -> Approver {
        self.approver.unwrap_or(Approver::Operator)
    }

    /// Seconds an approval may be waited for: 1,800 unless the bundle says otherwise.
    pub fn ttl_seconds(&self) -> u64 {
        self.ttl_seconds.unwrap_or(1800)
    }

    /// What the approver sees: everything unless the bundle says otherwise.
    pub fn privacy(&self) -> Privacy {
        self.privacy.unwrap_or(Privacy::Identified)
    }

    /// Whether the person a session acts for may answer: yes unless the bundle says otherwise.
    pub fn self_approval(&self) -> SelfApproval {
        self.self_approval.unwrap_or_default()
    }
}
