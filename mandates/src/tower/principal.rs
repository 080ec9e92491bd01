//! Who is asking, proven.

use std::fmt;
use std::sync::Arc;

use super::Clock;
use crate::claims::{Claims, SubjectType};
use crate::mandate::VerifiedMandate;
use crate::resource_server::{Refused, Verifier};

/// The caller of a request that passed a [`ProtectLayer`](super::ProtectLayer); in the request's extensions.
#[derive(Clone)]
pub struct Principal {
    mandate: VerifiedMandate,
    verifier: Arc<Verifier>,
    clock: Clock,
}

impl Principal {
    pub(super) const fn new(mandate: VerifiedMandate, verifier: Arc<Verifier>, clock: Clock) -> Self {
        Self { mandate, verifier, clock }
    }

    /// Everything the mandate says.
    #[must_use]
    pub const fn claims(&self) -> &Arc<Claims> {
        self.mandate.claims()
    }

    /// The application acting.
    #[must_use]
    pub fn application(&self) -> &str {
        &self.claims().client_id
    }

    /// The application's id, or a federated user's subject.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.claims().sub
    }

    /// What [`Principal::subject`] names.
    #[must_use]
    pub fn subject_type(&self) -> SubjectType {
        self.claims().sub_type
    }

    /// The zone.
    #[must_use]
    pub fn zone(&self) -> &str {
        &self.claims().zone_id
    }

    /// The session acting, if any.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.claims().agent_session_id.as_deref()
    }

    /// The delegation acted under, if any.
    #[must_use]
    pub fn delegation(&self) -> Option<&str> {
        self.claims().delegation_edge_id.as_deref()
    }

    /// Whether a scope is granted, for decisions finer than a route.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.claims().scopes().any(|granted| granted == scope)
    }

    /// Checks the mandate again during long work (a stream, a job): alive, not revoked, not stale.
    ///
    /// # Errors
    /// [`Refused`], as [`Verifier::recheck`]; the work should then end.
    pub fn recheck(&self) -> Result<(), Refused> {
        self.verifier.recheck(&self.mandate, (self.clock)())
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal").field("mandate", &self.mandate).finish_non_exhaustive()
    }
}
