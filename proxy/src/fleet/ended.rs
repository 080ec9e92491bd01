//! What other nodes ended, for as long as a mandate of it may live: it counts also where the row is not known.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use parking_lot::RwLock;

/// Milliseconds an end is remembered: the longest life of a mandate, the leeway of its check, and as much again
/// for nodes whose clocks differ.
pub(super) const REMEMBERED_MS: i64 = 3_720_000;

/// Ids of dead records, sessions and delegations.
#[derive(Debug, Default)]
pub(super) struct EndedElsewhere(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    ids: HashSet<Arc<str>>,
    until: BTreeMap<i64, Vec<Arc<str>>>,
}

impl EndedElsewhere {
    /// Remembers an id until `until` (unix milliseconds), and forgets what is over.
    pub(super) fn insert(&self, id: &str, until: i64, now: i64) {
        let mut known = self.0.write();
        while known.until.first_key_value().is_some_and(|(at, _)| *at <= now) {
            let Some((_, over)) = known.until.pop_first() else { break };
            for id in over {
                known.ids.remove(&id);
            }
        }
        let id: Arc<str> = id.into();
        if until > now && known.ids.insert(Arc::clone(&id)) {
            known.until.entry(until).or_default().push(id);
        }
    }

    /// Forgets an id whose authority was given back here.
    pub(super) fn remove(&self, id: &str) {
        self.0.write().ids.remove(id);
    }

    /// Whether one of the ids is dead.
    pub(super) fn any<'i>(&self, mut ids: impl Iterator<Item = &'i str>) -> bool {
        let known = self.0.read();
        !known.ids.is_empty() && ids.any(|id| known.ids.contains(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_counts_for_its_time_and_makes_room_afterwards() {
        let ended = EndedElsewhere::default();
        ended.insert("s1", 100, 0);
        ended.insert("s1", 100, 0);
        ended.insert("over", 10, 10);
        assert!(ended.any(["other", "s1"].into_iter()));
        assert!(!ended.any(["other", "over"].into_iter()));
        ended.insert("s2", 300, 200);
        assert!(!ended.any(["s1"].into_iter()));
        assert!(ended.any(["s2"].into_iter()));
        assert_eq!(ended.0.read().ids.len(), 1);
    }
}
