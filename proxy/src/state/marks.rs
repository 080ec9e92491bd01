//! Marks of used single-use mandates. A mark is kept until its time is over and never makes room for another.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use aws_lc_rs::digest;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::error::MarkError;
use super::shards::Parts;

/// First half of SHA-256 over zone and jti: fixed size, and two jtis never meet.
type Key = [u8; 16];

/// Marks of every zone, about 60 bytes each.
#[derive(Debug)]
pub(super) struct Marks {
    parts: Parts<Mutex<Part>>,
    live: AtomicUsize,
    most: usize,
    most_of_one: usize,
    owners: RwLock<HashMap<Arc<str>, Owners>>,
    swept_at: AtomicI64,
}

/// The applications of one zone.
type Owners = HashMap<Arc<str>, Arc<Owner>>;

#[derive(Debug, Default)]
struct Part {
    known: HashSet<Key, foldhash::fast::RandomState>,
    by_second: BTreeMap<i64, Vec<(Key, Arc<Owner>)>>,
    stopped: bool,
}

#[derive(Debug)]
struct Owner {
    zone: Arc<str>,
    application: Arc<str>,
    live: AtomicUsize,
}

/// The marks of one application as the clean-stop file holds them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedMarks {
    zone: Arc<str>,
    application: Arc<str>,
    /// Hex key and the second it is kept through.
    marks: Vec<(String, i64)>,
}

impl Marks {
    pub(super) fn new(most: usize, most_of_one: usize) -> Self {
        Self {
            parts: Parts::new(),
            live: AtomicUsize::new(0),
            most,
            most_of_one,
            owners: RwLock::default(),
            swept_at: AtomicI64::new(i64::MIN),
        }
    }

    /// Uses a jti up. Of two simultaneous calls exactly one succeeds: both take the same part's lock.
    pub(super) fn use_once(
        &self,
        zone: &str,
        jti: &str,
        application: &str,
        keep_until: i64,
        now: i64,
    ) -> Result<(), MarkError> {
        let key = key(zone, jti);
        let owner = self.owner(zone, application);
        if self.full(&owner) {
            self.make_room(now);
        }
        let mut part = self.parts.of(&key).lock();
        self.expire(&mut part, now);
        if part.stopped {
            return Err(MarkError::Stopping);
        }
        if part.known.contains(&key) {
            return Err(MarkError::Replayed);
        }
        take(&owner.live, self.most_of_one)?;
        if let Err(full) = take(&self.live, self.most) {
            owner.live.fetch_sub(1, Ordering::Relaxed);
            return Err(full);
        }
        part.known.insert(key);
        let second = keep_until.div_euclid(1_000).saturating_add(1);
        part.by_second.entry(second).or_default().push((key, owner));
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    pub(super) fn sweep(&self, now: i64) {
        for part in self.parts.iter() {
            self.expire(&mut part.lock(), now);
        }
    }

    /// Refuses every later use and hands out what must be remembered.
    pub(super) fn stop(&self, now: i64) -> Vec<SavedMarks> {
        let mut saved: HashMap<_, Vec<_>> = HashMap::new();
        for part in self.parts.iter() {
            let mut part = part.lock();
            part.stopped = true;
            self.expire(&mut part, now);
            for (second, marks) in &part.by_second {
                for (key, owner) in marks {
                    let place = (Arc::clone(&owner.zone), Arc::clone(&owner.application));
                    saved.entry(place).or_default().push((hex::encode(key), *second));
                }
            }
        }
        saved
            .into_iter()
            .map(|((zone, application), marks)| SavedMarks { zone, application, marks })
            .collect()
    }

    /// Takes saved marks back, whatever the capacity says: forgetting one would let a mandate through twice.
    /// False when an entry cannot be read, and then none of the file is to be trusted.
    pub(super) fn restore(&self, saved: &[SavedMarks]) -> bool {
        for group in saved {
            let owner = self.owner(&group.zone, &group.application);
            for (text, second) in &group.marks {
                let mut key: Key = [0; 16];
                if hex::decode_to_slice(text, &mut key).is_err() {
                    return false;
                }
                let mut part = self.parts.of(&key).lock();
                if part.known.insert(key) {
                    part.by_second.entry(*second).or_default().push((key, Arc::clone(&owner)));
                    owner.live.fetch_add(1, Ordering::Relaxed);
                    self.live.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        true
    }

    fn full(&self, owner: &Owner) -> bool {
        self.live.load(Ordering::Relaxed) >= self.most
            || owner.live.load(Ordering::Relaxed) >= self.most_of_one
    }

    /// At most once a second: a full store must not make every refused request walk it.
    fn make_room(&self, now: i64) {
        let last = self.swept_at.load(Ordering::Relaxed);
        let again = now >= last.saturating_add(1_000);
        if again && self.swept_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.sweep(now);
        }
    }

    fn expire(&self, part: &mut Part, now: i64) {
        let now_s = now.div_euclid(1_000);
        while part.by_second.first_key_value().is_some_and(|(second, _)| *second <= now_s) {
            let Some((_, marks)) = part.by_second.pop_first() else { break };
            for (key, owner) in marks {
                part.known.remove(&key);
                owner.live.fetch_sub(1, Ordering::Relaxed);
                self.live.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    fn owner(&self, zone: &str, application: &str) -> Arc<Owner> {
        if let Some(owner) = self.owners.read().get(zone).and_then(|owners| owners.get(application)) {
            return Arc::clone(owner);
        }
        let mut owners = self.owners.write();
        let (zone, application): (Arc<str>, Arc<str>) = (zone.into(), application.into());
        let of_zone = owners.entry(Arc::clone(&zone)).or_default();
        let new =
            || Arc::new(Owner { zone, application: Arc::clone(&application), live: AtomicUsize::new(0) });
        Arc::clone(of_zone.entry(Arc::clone(&application)).or_insert_with(new))
    }
}

fn take(live: &AtomicUsize, most: usize) -> Result<(), MarkError> {
    let more = |count: usize| count.checked_add(1).filter(|count| *count <= most);
    match live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
        Ok(_) => Ok(()),
        Err(_) => Err(MarkError::Capacity),
    }
}

fn key(zone: &str, jti: &str) -> Key {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(zone.as_bytes());
    hash.update(&[0]);
    hash.update(jti.as_bytes());
    let mut key: Key = [0; 16];
    for (to, from) in key.iter_mut().zip(hash.finish().as_ref()) {
        *to = *from;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_simultaneous_uses_exactly_one_passes() {
        let marks = Marks::new(1_000, 1_000);
        for round in 0..50 {
            let jti = format!("jti-{round}");
            let passed = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        if marks.use_once("z", &jti, "app", 60_000, 0).is_ok() {
                            passed.fetch_add(1, Ordering::SeqCst);
                        }
                    });
                }
            });
            assert_eq!(passed.into_inner(), 1);
        }
        assert_eq!(marks.len(), 50);
    }

    #[test]
    fn a_mark_holds_through_its_last_millisecond_and_not_in_another_zone() {
        let marks = Marks::new(10, 10);
        marks.use_once("z", "j", "app", 5_500, 0).unwrap();
        assert_eq!(marks.use_once("z", "j", "app", 5_500, 5_500), Err(MarkError::Replayed));
        marks.use_once("other", "j", "app", 5_500, 0).unwrap();
        marks.sweep(7_000);
        assert_eq!(marks.len(), 0);
    }

    #[test]
    fn a_full_application_leaves_others_their_share_and_a_full_store_evicts_nothing() {
        let marks = Marks::new(3, 2);
        marks.use_once("z", "1", "greedy", 9_000, 0).unwrap();
        marks.use_once("z", "2", "greedy", 9_000, 0).unwrap();
        assert_eq!(marks.use_once("z", "3", "greedy", 9_000, 0), Err(MarkError::Capacity));
        marks.use_once("z", "4", "modest", 9_000, 0).unwrap();
        assert_eq!(marks.use_once("z", "5", "third", 9_000, 0), Err(MarkError::Capacity));
        assert_eq!(marks.use_once("z", "1", "greedy", 9_000, 0), Err(MarkError::Replayed));
        marks.use_once("z", "6", "third", 20_000, 10_000).unwrap();
        assert_eq!(marks.len(), 1, "what is over makes room");
    }

    #[test]
    fn stopped_marks_come_back_and_nothing_slips_in_after_the_stop() {
        let marks = Marks::new(10, 10);
        marks.use_once("z", "1", "app", 60_000, 0).unwrap();
        let saved = marks.stop(0);
        assert_eq!(marks.use_once("z", "2", "app", 60_000, 0), Err(MarkError::Stopping));
        let next = Marks::new(10, 1);
        assert!(next.restore(&saved));
        assert_eq!(next.use_once("z", "1", "app", 60_000, 0), Err(MarkError::Replayed));
        assert_eq!(
            next.use_once("z", "3", "app", 60_000, 0),
            Err(MarkError::Capacity),
            "restored marks count"
        );
    }
}
