//! The decision: policy data indexed for lookup, and the rules in their order.
//!
//! Default deny. Everything that is not one of four shapes is refused, whatever the data says.

mod index;

use std::sync::Arc;

use crate::data::{PolicyData, TierDeclaration};
use crate::decision::{
    Action, Allowed, Decision, DenyReason, EdgeFacts, Failure, Input, LIFECYCLE, Presented, Principal, Rule,
};
use index::{Caps, Grant, Grants, Tier, Tiers};

/// The policy of one zone, ready to decide. Immutable.
#[derive(Debug)]
pub(crate) struct Policy {
    frozen: bool,
    grants: Grants,
    caps: Caps,
    tiers: Tiers,
}

/// A grant of the application that asks.
#[derive(Clone, Copy)]
struct Owned<'a> {
    grant: &'a Grant,
    key: &'a Arc<str>,
}

/// Risk and approval diagnostics of a mint.
type Classified = (Vec<TierDeclaration>, Vec<(Arc<str>, Arc<str>)>);

impl Policy {
    /// Indexes the data.
    pub(crate) fn new(data: &PolicyData) -> Self {
        Self {
            frozen: !data.restrict.is_empty(),
            grants: Grants::new(data),
            caps: Caps::new(&data.confinement),
            tiers: Tiers::new(data),
        }
    }

    /// Decides a mint or a use.
    ///
    /// Cost: a lookup for the resource, one for each requested scope and one for each label, whatever the size of the
    /// policy. No allocation on the way to an allow without classified scopes.
    pub(crate) fn decide(&self, input: &Input<'_>) -> Decision {
        let owned = self.owned(input.resource, input.principal.id());
        let bootstrap = is_bootstrap(input);
        let mint = mint_edge(input);
        let workload = is_workload(input);
        let presented = presented(input);

        if self.frozen {
            return Decision::Deny(DenyReason::RestrictionActive);
        }
        if bootstrap && owned.is_some() {
            return allow(Rule::Bootstrap, (Vec::new(), Vec::new()));
        }
        if (mint.is_some() || workload) && !bootstrap {
            if self.tiers.bad_risk {
                return Decision::Deny(DenyReason::MalformedRiskData);
            }
            if self.tiers.bad_tiers {
                return Decision::Deny(DenyReason::MalformedApprovalData);
            }
        }
        if let Some(edge) = mint {
            return self.decide_mint(input, edge, owned);
        }
        if workload && !self.tiers.bad_risk && !self.tiers.bad_tiers {
            return self.allow_classified(Rule::Workload, input.requested.iter().copied());
        }
        if let Some(presented) = presented {
            return self.decide_use(input, presented, owned);
        }
        Decision::Deny(DenyReason::NoRuleMatched)
    }

    /// Whether the confinement and the tiers of this policy still hold for scopes that were minted before.
    ///
    /// # Errors
    /// What no longer holds. A tier that asks for an approval is met by `approved` alone.
    pub(crate) fn recheck(&self, labels: &[Arc<str>], scope: &str, approved: bool) -> Result<(), Recheck> {
        if self.tiers.bad_risk {
            return Err(Recheck::Denied(DenyReason::MalformedRiskData));
        }
        if self.tiers.bad_tiers {
            return Err(Recheck::Denied(DenyReason::MalformedApprovalData));
        }
        if !self.caps.allow(labels, &|| carried(scope)) {
            return Err(Recheck::Denied(DenyReason::ConfinementViolation));
        }
        let mut gated = false;
        for scope in carried(scope) {
            match self.tiers.of(scope) {
                Tier::None => {}
                Tier::One(tier) => gated = gated || self.tiers.declared(tier),
                Tier::Conflict(scope) => {
                    return Err(Recheck::Failed(Failure::ConflictingRisk { scope: Arc::clone(scope) }));
                }
            }
        }
        if gated && !approved { Err(Recheck::ApprovalRequired) } else { Ok(()) }
    }

    /// Whether the application has any scope in any role on the resource.
    pub(crate) fn granted_somewhere(&self, application: &str, resource: &str) -> bool {
        self.owned(resource, application).is_some_and(|owned| owned.grant.has_any_scope())
    }

    /// The grant of a resource, when it is this application's.
    fn owned(&self, resource: &str, application: &str) -> Option<Owned<'_>> {
        let grant = self.grants.get(resource)?;
        let owner = self.grants.owner(grant)?;
        (owner.application.as_deref() == Some(application)).then_some(Owned { grant, key: &owner.key })
    }

    fn decide_mint(&self, input: &Input<'_>, edge: &EdgeFacts<'_>, owned: Option<Owned<'_>>) -> Decision {
        let Some(owned) = owned else { return Decision::Deny(DenyReason::ResourceNotGranted) };
        let requested = || input.requested.iter().copied();
        if !requested().all(|scope| edge.scopes.iter().any(|held| held.as_ref() == scope)) {
            return Decision::Deny(DenyReason::DelegationScopeExceeded);
        }
        if !self.caps.allow(input.labels, &requested) {
            return Decision::Deny(DenyReason::ConfinementViolation);
        }
        if !self.grants.one_role_covers(owned.grant, input.labels, requested()) {
            return Decision::Deny(DenyReason::RoleScopeMismatch);
        }
        self.allow_classified(Rule::Mint(Arc::clone(owned.key)), requested())
    }

    fn decide_use(&self, input: &Input<'_>, presented: &Presented<'_>, owned: Option<Owned<'_>>) -> Decision {
        if !presented.target.iter().any(|target| target == input.resource) {
            return Decision::Deny(DenyReason::MandateTargetMismatch);
        }
        let Some(owned) = owned else { return Decision::Deny(DenyReason::ResourceNotGranted) };
        if !self.grants.one_role_covers(owned.grant, input.labels, carried(presented.scope)) {
            return Decision::Deny(DenyReason::RoleScopeMismatch);
        }
        allow(Rule::Use(Arc::clone(owned.key)), (Vec::new(), Vec::new()))
    }

    fn allow_classified<'a>(&self, rule: Rule, scopes: impl Iterator<Item = &'a str>) -> Decision {
        match self.classify(scopes) {
            Ok(classified) => allow(rule, classified),
            Err(failure) => Decision::Failed(failure),
        }
    }

    /// The tiers of the scopes and what those tiers ask for, sorted and without repeats.
    fn classify<'a>(&self, scopes: impl Iterator<Item = &'a str>) -> Result<Classified, Failure> {
        let (mut gate, mut risk) = (Vec::new(), Vec::new());
        for scope in scopes {
            match self.tiers.of(scope) {
                Tier::None => {}
                Tier::Conflict(scope) => {
                    return Err(Failure::ConflictingRisk { scope: Arc::clone(scope) });
                }
                Tier::One(rule) => {
                    gate.extend_from_slice(self.tiers.declarations(&rule.tier));
                    risk.push((Arc::clone(&rule.scope), Arc::clone(&rule.tier)));
                }
            }
        }
        gate.sort_unstable();
        gate.dedup();
        risk.sort_unstable();
        risk.dedup();
        Ok((gate, risk))
    }
}

/// Why a use that was allowed is refused all the same.
#[derive(Debug)]
pub(crate) enum Recheck {
    Denied(DenyReason),
    ApprovalRequired,
    Failed(Failure),
}

fn allow(rule: Rule, (gate, risk): Classified) -> Decision {
    Decision::Allow(Allowed { rule, gate, risk })
}

/// The scopes in a `scope` claim.
pub(crate) fn carried(scope: &str) -> impl Iterator<Item = &str> {
    scope.split(' ').filter(|scope| !scope.trim().is_empty())
}

/// The application asks for nothing but its own sessions, with nothing in hand.
fn is_bootstrap(input: &Input<'_>) -> bool {
    !input.requested.is_empty()
        && input.requested.iter().all(|scope| *scope == LIFECYCLE)
        && input.presented.is_none()
        && input.edge.is_none()
        && session(input).is_none()
}

/// The delegation, when the request has the shape of a mint under one.
fn mint_edge<'a>(input: &'a Input<'_>) -> Option<&'a EdgeFacts<'a>> {
    let edge = input.edge.as_ref().filter(|edge| !edge.id.is_empty())?;
    let shaped = session(input).is_some()
        && input.presented.is_none()
        && !input.requested.is_empty()
        && !input.requested.contains(&LIFECYCLE);
    shaped.then_some(edge)
}

fn is_workload(input: &Input<'_>) -> bool {
    matches!(input.principal, Principal::Workload(_))
        && input.action == Action::CredentialInjection
        && input.presented.is_none()
        && input.edge.is_none()
        && session(input).is_none()
}

/// The mandate shown, when the request has the shape of a use.
fn presented<'a>(input: &'a Input<'_>) -> Option<&'a Presented<'a>> {
    input.presented.as_ref().filter(|presented| {
        presented.delegation_edge_id.is_some_and(|id| !id.is_empty())
            && input.requested.is_empty()
            && carried(presented.scope).next().is_some()
    })
}

fn session<'a>(input: &Input<'a>) -> Option<&'a str> {
    input.agent_session_id.filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests;
