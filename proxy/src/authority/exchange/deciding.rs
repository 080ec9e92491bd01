//! One decision about one resource, as every mint asks for it. Whoever only wants to know asks the same.

use std::sync::Arc;

use caracal_policies::{Action, Allowed, Decision, EdgeFacts, Input, Principal, Resource, Zone};

use super::LIFECYCLE;
use crate::state::Delegation;

/// A mint as the policy sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mint<'a> {
    pub(crate) zone: &'a Zone,
    pub(crate) application: &'a str,
    /// The session's labels; none without a session.
    pub(crate) labels: &'a [Arc<str>],
    pub(crate) session: Option<&'a str>,
    pub(crate) edge: Option<EdgeFacts<'a>>,
    /// The edge with everything it was cut from, root first; empty without an edge.
    pub(crate) lineage: &'a [Arc<Delegation>],
    pub(crate) requested: &'a [&'a str],
}

/// Why a mint is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unminted {
    /// For this reason, a stable word.
    Denied(&'static str),
    /// The policy could not be evaluated.
    Failed,
}

impl Mint<'_> {
    /// Decides whether every requested scope is minted for the resource, together; if the answer has a gate, only
    /// after a person's yes.
    pub(crate) fn decide(&self, resource: &str) -> Result<(Arc<Resource>, Allowed), Unminted> {
        let zone = self.zone;
        // A resource that is not there and one that is not granted must look the same.
        let resource = zone
            .resource(resource)
            .filter(|resource| zone.granted_somewhere(self.application, &resource.identifier))
            .ok_or(Unminted::Denied("resource_not_granted"))?;
        let declared =
            |scope: &&str| **scope == *LIFECYCLE || resource.scopes.iter().any(|known| **known == **scope);
        if !self.requested.iter().all(declared) {
            return Err(Unminted::Denied("scope_mismatch"));
        }
        if !reaches(self.lineage, resource) {
            return Err(Unminted::Denied("resource_outside_delegation"));
        }
        let input = Input {
            principal: Principal::Application(self.application),
            action: Action::TokenExchange,
            resource: &resource.identifier,
            labels: self.labels,
            requested: self.requested,
            edge: self.edge,
            agent_session_id: self.session,
            presented: None,
        };
        match zone.decide(&input) {
            Decision::Allow(allowed) => Ok((Arc::clone(resource), allowed)),
            Decision::Deny(reason) => Err(Unminted::Denied(reason.code())),
            Decision::Failed(failure) => {
                tracing::error!(zone = %zone.id(), ?failure, "the policy could not be evaluated");
                Err(Unminted::Failed)
            }
        }
    }
}

/// Whether every edge of the lineage is good for this resource.
pub(crate) fn reaches(lineage: &[Arc<Delegation>], resource: &Resource) -> bool {
    lineage.iter().all(|edge| {
        let row = edge.resource_id.as_ref().is_none_or(|id| *id == resource.id || *id == resource.identifier);
        let named = &edge.constraints.resources;
        row && (named.is_empty() || named.contains(&resource.identifier))
    })
}

/// Whether every edge of the lineage carries the scope.
pub(crate) fn carries(lineage: &[Arc<Delegation>], scope: &str) -> bool {
    lineage.iter().all(|edge| edge.scopes.iter().any(|held| **held == *scope))
}
