//! The requests in flight, so that a revocation can end them.
//!
//! Being in flight costs a request one insertion; a revocation pays for the scan. That is the right way round:
//! requests are many and revocations are few.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::sync::Notify;

use super::slot::{Cut, Slot};
use crate::gate::authorize;
use crate::snapshot::Snapshot;
use crate::state::{Anchor, Narrowed, State};

const SHARDS: usize = 16;

/// Age in milliseconds from which a request is decided again when the policy changes.
const YOUNG_MS: i64 = 1_000;

/// Every bound request.
#[derive(Debug)]
pub struct Live {
    shards: [Mutex<HashMap<u64, Arc<Slot>>>; SHARDS],
    next: AtomicU64,
    count: AtomicUsize,
    emptied: Notify,
}

/// Keeps a slot in [`Live`] until it is dropped.
#[derive(Debug)]
pub struct Membership {
    live: Arc<Live>,
    key: u64,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            next: AtomicU64::new(0),
            count: AtomicUsize::new(0),
            emptied: Notify::new(),
        }
    }
}

impl Live {
    /// Adds a bound slot. Must happen before its standing is checked: a revocation in between then finds it.
    #[must_use]
    pub fn join(self: &Arc<Self>, slot: &Arc<Slot>) -> Membership {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(shard) = self.shard(key) {
            shard.lock().insert(key, Arc::clone(slot));
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        Membership { live: Arc::clone(self), key }
    }

    /// How many requests are in flight.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Resolves once no request is in flight.
    pub async fn empty(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.emptied.notified());
            // Listens before it looks, so that the last request cannot slip out in between.
            emptied.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Ends every request that stands on one of the dead anchors; gives their number.
    pub fn narrow(&self, narrowed: &Narrowed) -> usize {
        let dead: HashSet<&Anchor> = narrowed.anchors.iter().collect();
        self.cut_where(Cut::Revoked, |slot| stands_on(slot, &narrowed.zone, &dead))
    }

    /// How many requests in flight stand on one of the anchors: those that [`Live::narrow`] would end.
    #[must_use]
    pub fn standing_on(&self, zone: &str, anchors: &[Anchor]) -> usize {
        let dead: HashSet<&Anchor> = anchors.iter().collect();
        let of_shard = |shard: &Mutex<HashMap<u64, Arc<Slot>>>| {
            let slots = shard.lock();
            slots.values().filter(|slot| slot.why().is_none() && stands_on(slot, zone, &dead)).count()
        };
        self.shards.iter().map(of_shard).sum()
    }

    /// Ends every request whose time is over.
    pub fn expire(&self, now: i64) -> usize {
        self.cut_where(Cut::Deadline, |slot| slot.ends_at().is_some_and(|at| at <= now))
    }

    /// Ends every request that acts with a connection which was ended, here or by another node; gives their number.
    pub fn disconnect(&self, state: &State) -> usize {
        self.cut_where(Cut::Revoked, |slot| {
            slot.connection().is_some_and(|connection| !state.connection_stands(connection))
        })
    }

    /// Decides every request again that was permitted under an older snapshot, and ends those that are denied
    /// now; gives their number. Requests younger than a second are left for the next round: they are nearly
    /// always over by then.
    pub fn decide_again(&self, snapshot: &Snapshot, now: i64) -> usize {
        let old = |slot: &Slot| {
            slot.why().is_none()
                && slot.bound().is_some_and(|bound| now.saturating_sub(bound.since) >= YOUNG_MS)
        };
        let mut ended = 0_usize;
        for shard in &self.shards {
            let slots: Vec<_> = shard.lock().values().filter(|slot| old(slot)).cloned().collect();
            for slot in slots {
                let Some(decided) = slot.outdated(snapshot.generation) else { continue };
                if snapshot.zones.get(&decided.zone).is_some_and(|live| authorize::again(&live.zone, decided))
                {
                    slot.confirm(snapshot.generation);
                } else {
                    slot.cut(Cut::Policy);
                    ended = ended.saturating_add(1);
                }
            }
        }
        ended
    }

    /// Ends every request for which `dead` holds.
    pub fn cut_where(&self, why: Cut, dead: impl Fn(&Slot) -> bool) -> usize {
        let mut ended = 0_usize;
        for shard in &self.shards {
            for slot in shard.lock().values().filter(|slot| slot.why().is_none() && dead(slot)) {
                slot.cut(why);
                ended = ended.saturating_add(1);
            }
        }
        ended
    }

    fn shard(&self, key: u64) -> Option<&Mutex<HashMap<u64, Arc<Slot>>>> {
        self.shards.get(usize::try_from(key).unwrap_or_default() % SHARDS)
    }
}

fn stands_on(slot: &Slot, zone: &str, dead: &HashSet<&Anchor>) -> bool {
    slot.bound()
        .is_some_and(|bound| *bound.zone == *zone && bound.anchors.iter().any(|anchor| dead.contains(anchor)))
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(shard) = self.live.shard(self.key) {
            shard.lock().remove(&self.key);
        }
        if self.live.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.live.emptied.notify_waiters();
        }
    }
}

/// One request in the gauge of requests in flight.
pub(super) struct Counted(IntGauge);

impl Counted {
    pub(super) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::slot::Bound;
    use crate::state::Origin;

    fn bound(zone: &str, session: &str) -> Arc<Slot> {
        let slot = Arc::new(Slot::default());
        slot.bind(Bound {
            zone: zone.into(),
            anchors: vec![Anchor::Zone, Anchor::Session(session.into())],
            since: 0,
        });
        slot
    }

    #[test]
    fn a_revocation_ends_exactly_the_requests_that_stand_on_it() {
        let live = Arc::new(Live::default());
        let slots = [bound("z", "s1"), bound("z", "s2"), bound("other", "s1")];
        let memberships: Vec<_> = slots.iter().map(|slot| live.join(slot)).collect();
        let narrowed = Narrowed {
            zone: "z".into(),
            anchors: vec![Anchor::Session("s1".into())],
            graph_epoch: None,
            reason: "test".into(),
            origin: Origin::Here,
        };
        assert_eq!(live.standing_on("z", &narrowed.anchors), 1);
        assert_eq!(live.narrow(&narrowed), 1);
        assert_eq!(slots.each_ref().map(|slot| slot.why()), [Some(Cut::Revoked), None, None]);
        assert_eq!(live.narrow(&narrowed), 0, "the first reason counts");
        assert_eq!(live.count(), 3);
        drop(memberships);
        assert_eq!(live.count(), 0);
    }

    #[test]
    fn a_request_ends_when_its_time_is_over() {
        let live = Arc::new(Live::default());
        let slot = bound("z", "s");
        slot.end_at(100);
        let _membership = live.join(&slot);
        assert_eq!((live.expire(99), live.expire(100)), (0, 1));
        assert_eq!(slot.why(), Some(Cut::Deadline));
    }
}
