//! What a child session takes from its parent: a copy of one delegation, one hop shorter.

use std::sync::Arc;

use super::desk::Desk;
use super::error::CoordinatorError;
use super::model::{Constraints, Delegation, DelegationStatus, Session};
use super::sessions::{ParentAuthority, StartSession};
use super::shared::new_id;

impl Desk {
    /// The copy, not yet placed; none when the parent never held a delegation for the child's application.
    ///
    /// A copy consumes a hop. When the parent's delegation has none left the child still gets its copy, to hold
    /// and to show, but nothing can be minted through it.
    pub(super) fn inherit(
        &self,
        request: &StartSession,
        parent: &Session,
        child: &Arc<str>,
        now: i64,
    ) -> Result<Option<Delegation>, CoordinatorError> {
        if request.parent_authority == ParentAuthority::None {
            return Ok(None);
        }
        let not_active = || CoordinatorError::new(409, "inherit_parent_edge_not_active");
        let mut held = self.inbound(&parent.id, now);
        held.retain(|edge| edge.receiver_application == request.application);
        if let Some(named) = &request.inherit_edge {
            let named = held.iter().find(|edge| edge.id == *named).ok_or_else(not_active)?;
            return Ok(Some(copy(named, request, parent, child, now)));
        }
        match held.as_slice() {
            [] if self.ever_received(&parent.id, &request.application) => Err(not_active()),
            [] => Ok(None),
            [one] => Ok(Some(copy(one, request, parent, child, now))),
            _ => Err(CoordinatorError::new(409, "inherit_parent_edge_ambiguous")),
        }
    }
}

fn copy(
    edge: &Delegation,
    request: &StartSession,
    parent: &Session,
    child: &Arc<str>,
    now: i64,
) -> Delegation {
    Delegation {
        id: new_id(now),
        zone: Arc::clone(&edge.zone),
        source_session: Arc::clone(&parent.id),
        target_session: Arc::clone(child),
        issuer_application: Arc::clone(&edge.receiver_application),
        receiver_application: Arc::clone(&request.application),
        parent: Some(Arc::clone(&edge.id)),
        resource_id: edge.resource_id.clone(),
        scopes: edge.scopes.clone(),
        constraints: Constraints {
            max_hops: Some(edge.constraints.hops().saturating_sub(1)),
            ..edge.constraints.clone()
        },
        status: DelegationStatus::Active,
        expires_at: edge.expires_at,
        version: 1,
        created_at: now,
        revoked_at: None,
    }
}
