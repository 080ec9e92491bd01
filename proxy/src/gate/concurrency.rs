//! Caps on requests in flight: one agent in a loop must not take every upstream connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::RwLock;

/// Requests in flight by name, such as `zone/application`.
#[derive(Debug, Default)]
pub struct InFlight(RwLock<HashMap<String, Arc<AtomicU32>>>);

/// One request in flight; dropping it frees its place.
#[derive(Debug)]
pub struct Place(Arc<AtomicU32>);

impl InFlight {
    /// Takes a place unless `cap` of them are taken. Names come from bundles, so their number is bounded.
    #[must_use]
    pub fn enter(&self, zone: &str, name: &str, cap: u32) -> Option<Place> {
        let key = format!("{zone}/{name}");
        let known = self.0.read().get(&key).cloned();
        let count = known.unwrap_or_else(|| Arc::clone(self.0.write().entry(key).or_default()));
        let take = |taken: u32| (taken < cap).then(|| taken.saturating_add(1));
        count.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
        Some(Place(count))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_is_per_name_and_places_come_back() {
        let in_flight = InFlight::default();
        let first = in_flight.enter("z", "a", 1);
        assert!(first.is_some() && in_flight.enter("z", "a", 1).is_none());
        assert!(in_flight.enter("z", "b", 1).is_some());
        drop(first);
        assert!(in_flight.enter("z", "a", 1).is_some());
    }
}
