//! What a resource server remembers about revocation.

use std::collections::HashMap;
use std::fmt;

use parking_lot::RwLock;

/// How long a revoked anchor is remembered, in milliseconds: longer than any mandate lives.
pub const REVOCATION_LIFE_MS: i64 = 24 * 60 * 60 * 1_000;

/// The most anchors [`MemoryRevocations`] holds.
pub const MAX_REVOCATIONS: usize = 100_000;

/// A store of revoked anchors and delegation epochs.
pub trait Revocations: Send + Sync + fmt::Debug {
    /// Whether an anchor (authority record, session or delegation) is revoked at `now`, unix milliseconds.
    ///
    /// # Errors
    /// [`StoreFailed`] when the store cannot say; the mandate is then refused.
    fn is_revoked(&self, anchor: &str, now: i64) -> Result<bool, StoreFailed>;

    /// The zone's delegation epoch; `None` when nothing was ever heard of it.
    ///
    /// # Errors
    /// [`StoreFailed`] when the store cannot say; a delegated mandate is then refused.
    fn delegation_epoch(&self, zone: &str) -> Result<Option<u64>, StoreFailed>;
}

/// A store could not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revocation store failed")]
pub struct StoreFailed;

/// [`MAX_REVOCATIONS`] anchors are alive. None is forgotten early: that would bring a revoked mandate back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revocation store is full")]
pub struct StoreFull;

/// A store in this process.
#[derive(Debug, Default)]
pub struct MemoryRevocations(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Anchor to the millisecond it is forgotten.
    until: HashMap<String, i64>,
    epochs: HashMap<String, u64>,
}

impl MemoryRevocations {
    /// Marks an anchor revoked for [`REVOCATION_LIFE_MS`] from `now`, unix milliseconds. An empty anchor is none.
    ///
    /// # Errors
    /// [`StoreFull`]; the caller must stop accepting mandates rather than go on without it.
    pub fn revoke(&self, anchor: &str, now: i64) -> Result<(), StoreFull> {
        self.revoke_for(anchor, now, REVOCATION_LIFE_MS)
    }

    /// As [`MemoryRevocations::revoke`], for `life_ms` milliseconds; what is marked for longer stays so.
    pub(super) fn revoke_for(&self, anchor: &str, now: i64, life_ms: i64) -> Result<(), StoreFull> {
        if anchor.is_empty() {
            return Ok(());
        }
        let mut known = self.0.write();
        if known.until.len() >= MAX_REVOCATIONS && !known.until.contains_key(anchor) {
            known.until.retain(|_, until| *until > now);
            if known.until.len() >= MAX_REVOCATIONS {
                return Err(StoreFull);
            }
        }
        let until = known.until.entry(anchor.to_owned()).or_default();
        *until = (*until).max(now.saturating_add(life_ms));
        Ok(())
    }

    /// Raises a zone's delegation epoch; a lower value than the known one changes nothing.
    pub fn raise_epoch(&self, zone: &str, epoch: u64) {
        let mut known = self.0.write();
        let current = known.epochs.entry(zone.to_owned()).or_default();
        *current = (*current).max(epoch);
    }
}

impl Revocations for MemoryRevocations {
    fn is_revoked(&self, anchor: &str, now: i64) -> Result<bool, StoreFailed> {
        Ok(self.0.read().until.get(anchor).is_some_and(|until| *until > now))
    }

    fn delegation_epoch(&self, zone: &str) -> Result<Option<u64>, StoreFailed> {
        Ok(self.0.read().epochs.get(zone).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anchor_is_remembered_for_a_day_from_its_last_revocation() {
        let store = MemoryRevocations::default();
        store.revoke("a", 1_000).unwrap();
        store.revoke("a", 0).unwrap();
        assert_eq!(store.is_revoked("a", 1_000 + REVOCATION_LIFE_MS - 1), Ok(true));
        assert_eq!(store.is_revoked("a", 1_000 + REVOCATION_LIFE_MS), Ok(false));
        assert_eq!(store.is_revoked("b", 1_000), Ok(false));
        store.revoke("", 1_000).unwrap();
        assert_eq!(store.is_revoked("", 1_000), Ok(false));
    }

    #[test]
    fn a_full_store_refuses_and_forgets_nothing_alive() {
        let store = MemoryRevocations::default();
        for number in 0..MAX_REVOCATIONS {
            store.revoke(&number.to_string(), 0).unwrap();
        }
        assert_eq!(store.revoke("one more", 1), Err(StoreFull));
        assert_eq!(store.revoke("7", 1), Ok(()), "a known anchor needs no room");
        assert_eq!(store.is_revoked("0", 1), Ok(true));
        assert_eq!(store.revoke("one more", REVOCATION_LIFE_MS), Ok(()), "a day later the dead make room");
        assert_eq!(store.is_revoked("7", REVOCATION_LIFE_MS), Ok(true));
    }

    #[test]
    fn an_epoch_only_rises() {
        let store = MemoryRevocations::default();
        assert_eq!(store.delegation_epoch("z"), Ok(None));
        store.raise_epoch("z", 5);
        store.raise_epoch("z", 3);
        assert_eq!(store.delegation_epoch("z"), Ok(Some(5)));
    }
}
