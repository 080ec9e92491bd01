//! Caps on requests in flight: one agent in a loop must not take every upstream connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::Notify;

/// Requests in flight by name, such as `zone/application`.
#[derive(Debug, Default)]
pub struct InFlight(RwLock<HashMap<String, Arc<Gauge>>>);

#[derive(Debug, Default)]
struct Gauge {
    taken: AtomicU32,
    waiting: AtomicU32,
    freed: Notify,
}

/// One request in flight; dropping it frees its place.
#[derive(Debug)]
pub struct Place(Arc<Gauge>);

/// Who may wait for a place.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    /// So many at once.
    pub most: u32,
    /// So long.
    pub longest: Duration,
}

impl InFlight {
    /// Takes a place unless `cap` of them are taken. Names come from bundles, so their number is bounded.
    #[must_use]
    pub fn enter(&self, zone: &str, name: &str, cap: u32) -> Option<Place> {
        let gauge = self.gauge(zone, name);
        if gauge.take(cap) { Some(Place(gauge)) } else { None }
    }

    /// As [`InFlight::enter`]; waits for a place where the queue has room. Whoever came first is served first.
    pub async fn enter_or_wait(&self, zone: &str, name: &str, cap: u32, queue: Queue) -> Option<Place> {
        let gauge = self.gauge(zone, name);
        // Nobody goes past those who wait.
        if gauge.waiting.load(Ordering::Acquire) == 0 && gauge.take(cap) {
            return Some(Place(gauge));
        }
        let waiting = Waiting::join(&gauge, queue.most)?;
        let place = async {
            // A place that is freed while nobody listens is remembered for the next who does.
            loop {
                gauge.freed.notified().await;
                if gauge.take(cap) {
                    break;
                }
            }
            // Several may have been freed for one who listened.
            if gauge.taken.load(Ordering::Acquire) < cap {
                gauge.freed.notify_one();
            }
            Place(Arc::clone(&gauge))
        };
        let place = tokio::time::timeout(queue.longest, place).await.ok();
        drop(waiting);
        place
    }

    fn gauge(&self, zone: &str, name: &str) -> Arc<Gauge> {
        let key = format!("{zone}/{name}");
        let known = self.0.read().get(&key).cloned();
        known.unwrap_or_else(|| Arc::clone(self.0.write().entry(key).or_default()))
    }
}

impl Gauge {
    fn take(&self, cap: u32) -> bool {
        add(&self.taken, cap)
    }
}

/// One more, unless there are `most`.
fn add(number: &AtomicU32, most: u32) -> bool {
    let add = |number: u32| (number < most).then(|| number.saturating_add(1));
    number.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).is_ok()
}

// Made only once it is counted: dropping one counts it off.
impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_one();
    }
}

/// One of those who wait, until it is dropped.
struct Waiting<'a>(&'a Gauge);

impl<'a> Waiting<'a> {
    fn join(gauge: &'a Gauge, most: u32) -> Option<Self> {
        if add(&gauge.waiting, most) { Some(Self(gauge)) } else { None }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Queue = Queue { most: 2, longest: Duration::from_secs(600) };

    #[test]
    fn a_cap_is_per_name_and_places_come_back() {
        let in_flight = InFlight::default();
        let first = in_flight.enter("z", "a", 1);
        assert!(first.is_some() && in_flight.enter("z", "a", 1).is_none());
        assert!(in_flight.enter("z", "b", 1).is_some());
        drop(first);
        assert!(in_flight.enter("z", "a", 1).is_some());
    }

    #[tokio::test]
    async fn who_waits_is_served_in_turn_and_the_queue_has_an_end() {
        let in_flight = Arc::new(InFlight::default());
        let held = in_flight.enter_or_wait("z", "a", 1, LONG).await.unwrap();
        let (served, mut order) = tokio::sync::mpsc::unbounded_channel();
        for number in 0..2 {
            let (in_flight, served) = (Arc::clone(&in_flight), served.clone());
            tokio::spawn(async move {
                let place = in_flight.enter_or_wait("z", "a", 1, LONG).await.unwrap();
                served.send(number).unwrap();
                drop(place);
            });
            tokio::task::yield_now().await;
        }
        assert!(in_flight.enter_or_wait("z", "a", 1, LONG).await.is_none(), "the queue is full");
        drop(held);
        // The place is free, and two are there before it.
        assert!(in_flight.enter_or_wait("z", "a", 1, Queue { most: 3, ..LONG }).await.is_some());
        assert_eq!([order.recv().await, order.recv().await], [Some(0), Some(1)]);
    }

    #[tokio::test]
    async fn places_that_are_freed_at_once_serve_all_who_wait() {
        let in_flight = Arc::new(InFlight::default());
        let held: Vec<_> = (0..3).map(|_| in_flight.enter("z", "a", 3).unwrap()).collect();
        let wait = || {
            let in_flight = Arc::clone(&in_flight);
            async move { in_flight.enter_or_wait("z", "a", 3, Queue { most: 3, ..LONG }).await }
        };
        let first = tokio::spawn(wait());
        tokio::task::yield_now().await;
        drop(held);
        let (second, third) = (tokio::spawn(wait()), tokio::spawn(wait()));
        // All three hold their places at once.
        assert!(first.await.unwrap().zip(second.await.unwrap()).zip(third.await.unwrap()).is_some());
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_that_and_who_gives_up_takes_nothing_along() {
        let in_flight = InFlight::default();
        let held = in_flight.enter("z", "a", 1).unwrap();
        let short = Queue { most: 1, longest: Duration::from_millis(50) };
        let before = std::time::Instant::now();
        assert!(in_flight.enter_or_wait("z", "a", 1, short).await.is_none());
        assert!(before.elapsed() >= short.longest);
        assert!(in_flight.enter_or_wait("z", "a", 1, Queue { most: 0, ..LONG }).await.is_none());
        drop(held);
        assert!(in_flight.enter_or_wait("z", "a", 1, short).await.is_some());
    }
}
