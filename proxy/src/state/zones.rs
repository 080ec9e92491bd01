//! The zones of a state, each with its desk.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::desk::Desk;
use super::shared::Shared;

/// Every zone that was ever named. The writer of a shared store looks in from the side, so it is apart from the
/// state that callers hold.
#[derive(Debug)]
pub(super) struct Zones {
    pub(super) shared: Arc<Shared>,
    map: RwLock<HashMap<Arc<str>, Arc<Zone>>>,
}

#[derive(Debug)]
pub(super) struct Zone {
    pub(super) name: Arc<str>,
    pub(super) desk: Mutex<Desk>,
}

impl Zones {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, map: RwLock::default() }
    }

    pub(super) fn zone(&self, name: &str) -> Arc<Zone> {
        if let Some(zone) = self.known(name) {
            return zone;
        }
        let name: Arc<str> = name.into();
        let mut zones = self.map.write();
        let new = || {
            let desk = Mutex::new(Desk::new(Arc::clone(&name), Arc::clone(&self.shared)));
            Arc::new(Zone { name: Arc::clone(&name), desk })
        };
        Arc::clone(zones.entry(Arc::clone(&name)).or_insert_with(new))
    }

    pub(super) fn known(&self, name: &str) -> Option<Arc<Zone>> {
        self.map.read().get(name).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Zone>> {
        self.map.read().values().cloned().collect()
    }
}
