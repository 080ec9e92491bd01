//! The maps every read goes to: 64 locks, each held only for one lookup or one insertion.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use parking_lot::RwLock;

const SHARDS: usize = 64;

/// Picks one of a fixed number of parts by hash, so that unrelated keys rarely wait for each other.
#[derive(Debug)]
pub(super) struct Parts<T> {
    parts: Vec<T>,
    first: T,
    hasher: foldhash::fast::RandomState,
}

impl<T: Default> Parts<T> {
    pub(super) fn new() -> Self {
        let parts = std::iter::repeat_with(T::default).take(SHARDS).collect();
        Self { parts, first: T::default(), hasher: foldhash::fast::RandomState::default() }
    }

    pub(super) fn of(&self, key: &[u8]) -> &T {
        let count = u64::try_from(SHARDS).unwrap_or(1);
        let place = usize::try_from(self.hasher.hash_one(key).checked_rem(count).unwrap_or(0)).unwrap_or(0);
        self.parts.get(place).unwrap_or(&self.first)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.parts.iter().chain(std::iter::once(&self.first))
    }
}

/// Rows by zone and id, shared as `Arc`s.
#[derive(Debug)]
pub(super) struct Shards<T>(Parts<RwLock<ByZone<T>>>);

type ByZone<T> = HashMap<Arc<str>, HashMap<Arc<str>, Arc<T>>>;

impl<T> Shards<T> {
    pub(super) fn new() -> Self {
        Self(Parts::new())
    }

    pub(super) fn find(&self, zone: &str, id: &str) -> Option<Arc<T>> {
        self.0.of(id.as_bytes()).read().get(zone)?.get(id).cloned()
    }

    pub(super) fn put(&self, zone: &Arc<str>, id: &Arc<str>, row: Arc<T>) {
        let mut part = self.0.of(id.as_bytes()).write();
        part.entry(Arc::clone(zone)).or_default().insert(Arc::clone(id), row);
    }

    pub(super) fn remove(&self, zone: &str, id: &str) {
        if let Some(rows) = self.0.of(id.as_bytes()).write().get_mut(zone) {
            rows.remove(id);
        }
    }
}
