//! May this very request be forwarded? The operation floor, then the decision, then the current caps and tiers.

use std::fmt;
use std::sync::Arc;

use crate::decision::{Action, Decision, DenyReason, EdgeFacts, Failure, Input, Presented, Principal, Rule};
use crate::engine::{Recheck, carried};
use crate::guard::{Asked, Fired, GuardFacts, Judgement, Stopped};
use crate::mcp::McpCall;
use crate::operations::Operation;
use crate::path::Path;
use crate::resource::{Enforcement, Resource};
use crate::zone::Zone;

/// A request that shows a mandate.
#[derive(Debug, Clone)]
pub struct UseRequest<'a, 'p> {
    /// Application the mandate was minted for.
    pub application: &'a str,
    /// Current labels of its session.
    pub labels: &'a [Arc<str>],
    /// Its delegation.
    pub edge: Option<EdgeFacts<'a>>,
    /// Its session.
    pub agent_session_id: Option<&'a str>,
    /// What it carries.
    pub presented: Presented<'a>,
    /// Method of the request, compared exactly.
    pub method: &'a str,
    /// Path the operations are about.
    pub path: &'a Path<'p>,
    /// Raw path and query as they will be forwarded.
    pub target: &'a str,
    /// What the posted message does, on a resource with MCP rules.
    pub call: Option<&'a McpCall>,
    /// Whether the mandate's authority record holds an approval.
    pub approved: bool,
    /// What the guards of the resource look at.
    pub guards: Guarding<'a>,
}

/// Whether the guards of the resource judge a request. There is no default: leaving them out is said.
#[derive(Debug, Clone, Copy)]
pub enum Guarding<'a> {
    /// They judge it on these facts.
    On(&'a GuardFacts<'a>),
    /// They judge it on these facts, and a person has said yes to whatever they ask of this very request.
    Answered(&'a GuardFacts<'a>),
    /// Not here: the request is under way and they judged it before, or there is none, only a question about policy.
    Elsewhere,
}

/// Why a request is not forwarded. Closed on purpose: a new reason must break every match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// No operation of the resource matches, or the mandate lacks the scope of the one that does.
    OperationNotPermitted {
        /// The scope of the addressed operation, when there is one. Tell it only to callers who hold a grant there.
        needs: Option<Arc<str>>,
    },
    /// The policy says no.
    Denied(DenyReason),
    /// A carried scope is in a tier that asks for an approval, and the mandate was minted without.
    ApprovalRequired,
    /// A guard says no, has no answer, or asks for a person's yes to this very request.
    Guarded(Box<Stopped>),
    /// The policy could not be evaluated.
    Failed(Failure),
}

/// Leave to forward one request, as it was decided.
///
/// Only [`Zone::authorize`] makes one, and nothing copies it, so a forwarding function that takes a `Permit` cannot be
/// reached without a decision. Its members can be read:
///
/// ```
/// fn forward(permit: caracal_policies::Permit) -> String {
///     format!("{} {}", permit.method(), permit.target())
/// }
/// ```
///
/// and that is all:
///
/// ```compile_fail
/// fn forward(permit: caracal_policies::Permit) -> String {
///     let forged = caracal_policies::Permit { method: "DELETE".into(), ..permit };
///     format!("{} {}", forged.method(), forged.target())
/// }
/// ```
///
/// ```compile_fail
/// fn forward(permit: caracal_policies::Permit) -> String {
///     let second = permit.clone();
///     format!("{} {}", second.method(), second.target())
/// }
/// ```
#[must_use = "a permit that is not used forwards nothing"]
pub struct Permit {
    resource: Arc<Resource>,
    method: Box<str>,
    target: Box<str>,
    rule: Rule,
    scope: Option<Arc<str>>,
    answered: Vec<Fired>,
    shadowed: Vec<Fired>,
}

impl Zone {
    /// Decides whether a request may be forwarded.
    ///
    /// In this order: with enforced operations the most specific matching one must exist and the mandate must carry its
    /// scope; the policy must allow the use; confinement and tiers of the current policy must hold for every carried
    /// scope; no guard of the resource may fire, but for one that asks what a person has answered.
    ///
    /// Cost: the operation lookup, the decision, and two small copies into the permit.
    ///
    /// # Errors
    /// [`Refused`]: operation, denial and guard are 403, a missing approval 403, a failure 503.
    pub fn authorize(
        &self,
        resource: &Arc<Resource>,
        request: &UseRequest<'_, '_>,
    ) -> Result<Permit, Refused> {
        let known = self.resource(&resource.identifier).is_some_and(|known| Arc::ptr_eq(known, resource));
        if !known {
            let resource = Arc::clone(&resource.identifier);
            return Err(Refused::Failed(Failure::ForeignResource { resource }));
        }
        let (operation, scope) = operation_floor(resource, request)?;
        let decision = self.decide(&Input {
            principal: Principal::Application(request.application),
            action: Action::TokenExchange,
            resource: &resource.identifier,
            labels: request.labels,
            requested: &[],
            edge: request.edge,
            agent_session_id: request.agent_session_id,
            presented: Some(request.presented),
        });
        let rule = match decision {
            Decision::Allow(allowed) => allowed.rule,
            Decision::Deny(reason) => return Err(Refused::Denied(reason)),
            Decision::Failed(failure) => return Err(Refused::Failed(failure)),
        };
        let Some(policy) = self.policy() else {
            return Err(Refused::Denied(DenyReason::NoActivePolicySet));
        };
        policy.recheck(request.labels, request.presented.scope, request.approved)?;
        let (answered, shadowed) = guarded(resource, request, operation)?;
        Ok(Permit {
            resource: Arc::clone(resource),
            method: request.method.into(),
            target: request.target.into(),
            rule,
            scope,
            answered,
            shadowed,
        })
    }
}

impl Permit {
    /// The resource it was decided for.
    pub fn resource(&self) -> &Arc<Resource> {
        &self.resource
    }

    /// The method it was decided for.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Raw path and query it was decided for.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The rule that allowed it.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// The scope of the operation that matched; none when operations are not enforced.
    pub fn scope(&self) -> Option<&Arc<str>> {
        self.scope.as_ref()
    }

    /// Guards that a person has said yes to.
    pub fn answered(&self) -> &[Fired] {
        &self.answered
    }

    /// Guards in shadow mode that would have refused or held it.
    pub fn shadowed(&self) -> &[Fired] {
        &self.shadowed
    }
}

/// Without the target: a query string may hold anything.
impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("resource", &self.resource.identifier)
            .field("method", &self.method)
            .field("rule", &self.rule)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

impl From<Recheck> for Refused {
    fn from(recheck: Recheck) -> Self {
        match recheck {
            Recheck::Denied(reason) => Self::Denied(reason),
            Recheck::ApprovalRequired => Self::ApprovalRequired,
            Recheck::Failed(failure) => Self::Failed(failure),
        }
    }
}

/// Asks the guards of the resource; the answer is which of them a person has said yes to, and which of those in shadow
/// mode would have stopped it.
fn guarded(
    resource: &Resource,
    request: &UseRequest<'_, '_>,
    operation: Option<&Operation>,
) -> Result<(Vec<Fired>, Vec<Fired>), Refused> {
    let (facts, answered) = match request.guards {
        Guarding::On(facts) => (facts, false),
        Guarding::Answered(facts) => (facts, true),
        Guarding::Elsewhere => return Ok((Vec::new(), Vec::new())),
    };
    let Some(guards) = &resource.guards else { return Ok((Vec::new(), Vec::new())) };
    let template = operation.map(|operation| &*operation.path);
    let Judgement { refused, asked, shadowed } = guards.judge(&Asked { request, facts, template }, operation);
    let stopped = match refused {
        Some(refused) => Stopped::Refused(refused, shadowed),
        None if asked.is_empty() || answered => return Ok((asked, shadowed)),
        None => Stopped::Asked(asked, shadowed),
    };
    Err(Refused::Guarded(Box::new(stopped)))
}

/// The operation that decides, and its scope, which the mandate carries.
fn operation_floor<'a>(
    resource: &'a Resource,
    request: &UseRequest<'_, '_>,
) -> Result<(Option<&'a Operation>, Option<Arc<str>>), Refused> {
    match resource.enforcement {
        Enforcement::TransportUniform => Ok((None, None)),
        Enforcement::Enforced => {
            let Some(operation) = resource.operations.find(request.method, request.path) else {
                return Err(Refused::OperationNotPermitted { needs: None });
            };
            let needed = match &resource.mcp {
                // Only a message that was read can say what it needs.
                Some(mcp) if request.method == "POST" => request.call.and_then(|call| mcp.scope_of(call)),
                Some(_) | None => Some(&operation.scope),
            };
            let Some(needed) = needed else {
                return Err(Refused::OperationNotPermitted { needs: None });
            };
            if carried(request.presented.scope).any(|scope| *scope == **needed) {
                return Ok((Some(operation), Some(Arc::clone(needed))));
            }
            Err(Refused::OperationNotPermitted { needs: Some(Arc::clone(needed)) })
        }
    }
}
