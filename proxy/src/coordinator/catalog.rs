//! The resources of a zone, as delegations look at them.

use std::sync::Arc;

use super::call::Call;
use crate::snapshot::LiveZone;
use crate::state::{ResourceCatalog, ResourceInfo};

/// The resources of the running bundle, taken once for a whole call.
#[derive(Debug)]
pub(super) struct Catalog(Option<Arc<LiveZone>>);

impl Catalog {
    pub(super) fn of(call: &Call) -> Self {
        Self(call.app().snapshot.load().zones.get(call.zone.as_str()).cloned())
    }
}

impl ResourceCatalog for Catalog {
    fn find(&self, identifier_or_id: &str) -> Option<ResourceInfo> {
        let resource = self.0.as_ref()?.zone.resource(identifier_or_id)?;
        Some(ResourceInfo {
            id: Arc::clone(&resource.id),
            identifier: Arc::clone(&resource.identifier),
            scopes: resource.scopes.clone(),
        })
    }
}
