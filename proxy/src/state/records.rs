//! Authority records in memory: durable ones from the store, passing ones that live only here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::RwLock;

use super::model::AuthorityRecord;
use super::shards::Parts;

/// Milliseconds a durable record is kept after its expiry, so that a late look-up still finds out why.
pub(super) const KEPT_AFTER_EXPIRY_MS: i64 = 60_000;

/// Whether the store has a row of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeping {
    /// In the store; survives a crash.
    Durable,
    /// In memory; survives only a clean stop. After a crash it is unknown, and unknown is denied.
    Passing,
}

/// Every known authority record.
#[derive(Debug)]
pub(super) struct Records(Parts<RwLock<Part>>);

#[derive(Debug, Default)]
struct Part {
    rows: HashMap<Arc<str>, HashMap<Arc<str>, Held>>,
    due: BTreeMap<i64, Vec<Place>>,
}

/// Zone and id.
type Place = (Arc<str>, Arc<str>);

#[derive(Clone, Debug)]
struct Held {
    record: Arc<AuthorityRecord>,
    keeping: Keeping,
}

impl Records {
    pub(super) fn new() -> Self {
        Self(Parts::new())
    }

    pub(super) fn find(&self, zone: &str, id: &str) -> Option<Arc<AuthorityRecord>> {
        let part = self.0.of(id.as_bytes()).read();
        part.rows.get(zone)?.get(id).map(|held| Arc::clone(&held.record))
    }

    /// Adds a record. One that is known and revoked stays revoked.
    pub(super) fn put(&self, mut record: AuthorityRecord, keeping: Keeping) {
        let mut part = self.0.of(record.id.as_bytes()).write();
        let (zone, id) = (Arc::clone(&record.zone), Arc::clone(&record.id));
        let due = over_at(&record, keeping).div_euclid(1_000).saturating_add(1);
        part.due.entry(due).or_default().push((Arc::clone(&zone), Arc::clone(&id)));
        let rows = part.rows.entry(zone).or_default();
        record.revoked |= rows.get(&id).is_some_and(|held| held.record.revoked);
        rows.insert(id, Held { record: Arc::new(record), keeping });
    }

    /// Marks a record revoked and tells how it is kept; none when it is unknown.
    pub(super) fn revoke(&self, zone: &str, id: &str) -> Option<Keeping> {
        let mut part = self.0.of(id.as_bytes()).write();
        let held = part.rows.get_mut(zone)?.get_mut(id)?;
        if !held.record.revoked {
            held.record = Arc::new(AuthorityRecord { revoked: true, ..AuthorityRecord::clone(&held.record) });
        }
        Some(held.keeping)
    }

    /// Ids of every record of the zone that `wanted` picks. Reads every record: for operators' acts only.
    pub(super) fn ids(&self, zone: &str, wanted: impl Fn(&AuthorityRecord) -> bool) -> Vec<Arc<str>> {
        let mut ids = Vec::new();
        for part in self.0.iter() {
            let part = part.read();
            let rows = part.rows.get(zone).into_iter().flat_map(HashMap::values);
            ids.extend(rows.filter(|held| wanted(&held.record)).map(|held| Arc::clone(&held.record.id)));
        }
        ids
    }

    /// Every passing record that is still in its time.
    pub(super) fn passing(&self, now: i64) -> Vec<Arc<AuthorityRecord>> {
        let mut found = Vec::new();
        for part in self.0.iter() {
            let part = part.read();
            let held = part.rows.values().flat_map(HashMap::values);
            found.extend(
                held.filter(|held| held.keeping == Keeping::Passing && held.record.expires_at > now)
                    .map(|held| Arc::clone(&held.record)),
            );
        }
        found
    }

    /// Forgets records whose time is long over. Cost: one look per shard plus what is dropped.
    pub(super) fn sweep(&self, now: i64) {
        let now_s = now.div_euclid(1_000);
        for part in self.0.iter() {
            let mut part = part.write();
            while part.due.first_key_value().is_some_and(|(at, _)| *at <= now_s) {
                let Some((_, ids)) = part.due.pop_first() else { break };
                for (zone, id) in ids {
                    part.drop_if_over(&zone, &id, now);
                }
            }
        }
    }
}

impl Part {
    /// A record put twice with different times is listed twice; only the row itself decides.
    fn drop_if_over(&mut self, zone: &str, id: &str, now: i64) {
        let Some(rows) = self.rows.get_mut(zone) else { return };
        if rows.get(id).is_some_and(|held| over_at(&held.record, held.keeping) <= now) {
            rows.remove(id);
        }
    }
}

/// There can be one passing record per request, so those go at once.
fn over_at(record: &AuthorityRecord, keeping: Keeping) -> i64 {
    match keeping {
        Keeping::Durable => record.expires_at.saturating_add(KEPT_AFTER_EXPIRY_MS),
        Keeping::Passing => record.expires_at,
    }
}
