//! What makes a delegation narrower than the one it is cut from. Pure: no clock, no store.

use std::sync::Arc;

use super::delegations::ResourceInfo;
use super::error::CoordinatorError;
use super::model::{Constraints, Delegation};

/// A delegation as asked for, with its resources looked up.
#[derive(Debug)]
pub(super) struct Draft {
    /// The resource it is fixed to.
    pub(super) resource: Option<ResourceInfo>,
    pub(super) scopes: Vec<Arc<str>>,
    pub(super) constraints: Constraints,
    /// What was asked for as a point in time, not worked out from a lifetime.
    pub(super) explicit_expiry: Option<i64>,
}

/// Refuses a draft that is wider than `parent` in any respect. `fixed` is the resource the parent is fixed to.
///
/// # Errors
/// 403 `delegation_exceeds_parent_authority`.
pub(super) fn must_narrow(
    parent: &Delegation,
    fixed: Option<&ResourceInfo>,
    draft: &Draft,
) -> Result<(), CoordinatorError> {
    let narrower = draft.scopes.iter().all(|scope| parent.scopes.contains(scope))
        && draft.explicit_expiry.is_none_or(|expiry| expiry <= parent.expires_at)
        && resources_narrow(parent, fixed, draft)
        && hops_narrow(&parent.constraints, &draft.constraints)
        && lifetime_narrows(&parent.constraints, &draft.constraints)
        && budget_narrows(&parent.constraints, draft);
    if narrower { Ok(()) } else { Err(exceeds_parent()) }
}

pub(super) const fn exceeds_parent() -> CoordinatorError {
    CoordinatorError::new(403, "delegation_exceeds_parent_authority")
}

fn resources_narrow(parent: &Delegation, fixed: Option<&ResourceInfo>, draft: &Draft) -> bool {
    if let Some(id) = &parent.resource_id {
        return match (&draft.resource, draft.constraints.resources.as_slice()) {
            (Some(resource), _) => resource.id == *id,
            (None, [only]) => fixed.is_some_and(|fixed| fixed.identifier == *only),
            (None, _) => false,
        };
    }
    let allowed = &parent.constraints.resources;
    if allowed.is_empty() {
        return true;
    }
    let named = draft.resource.iter().map(|resource| &resource.identifier);
    let mut named = named.chain(&draft.constraints.resources).peekable();
    // Naming none would be naming all.
    named.peek().is_some() && named.all(|identifier| allowed.contains(identifier))
}

fn hops_narrow(parent: &Constraints, child: &Constraints) -> bool {
    parent.hops() > 1 && child.hops() <= parent.hops().saturating_sub(1)
}

fn lifetime_narrows(parent: &Constraints, child: &Constraints) -> bool {
    parent.ttl_seconds.is_none_or(|most| child.ttl_seconds.is_some_and(|ttl| ttl <= most))
}

fn budget_narrows(parent: &Constraints, draft: &Draft) -> bool {
    let scopes = u32::try_from(draft.scopes.len()).unwrap_or(u32::MAX);
    parent.budget.is_none_or(|most| draft.constraints.budget.unwrap_or(scopes) <= most)
}
