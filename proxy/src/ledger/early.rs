//! The second lane: requests refused before their caller was known, kept small whatever comes.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use serde_json::{Map, json};

use super::record::{EARLY, timestamp};
use super::{Event, SYSTEM};

/// Records of their own that wait at once, over all codes and listeners; the rest is counted.
const MAX_SINGLES: usize = 512;

/// Address prefixes told apart at once; the rest is counted under code and listener alone.
const MAX_PREFIXES: usize = 256;

/// A request that was refused before its caller was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EarlyRefusal {
    /// The refusal's code.
    pub code: &'static str,
    /// The listener it came to.
    pub listener: &'static str,
    /// The source address.
    pub peer: IpAddr,
}

/// What has been refused and is not yet in the ledger.
///
/// Shape: at most [`MAX_SINGLES`] single refusals, and counters for [`MAX_PREFIXES`] prefixes plus one for each
/// code and listener, both of which are fixed sets.
#[derive(Debug)]
pub(super) struct EarlyLane {
    per_second: u32,
    second: i64,
    rates: HashMap<(&'static str, &'static str), u32>,
    singles: Vec<(EarlyRefusal, i64)>,
    counts: HashMap<Source, Count>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Source {
    code: &'static str,
    listener: &'static str,
    prefix: Prefix,
}

/// Where it came from, coarse enough that one sender cannot make many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Prefix {
    /// /24
    V4([u8; 3]),
    /// /48
    V6([u16; 3]),
    Any,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    first: i64,
    last: i64,
    count: u64,
}

impl EarlyLane {
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, second: 0, rates: HashMap::new(), singles: Vec::new(), counts: HashMap::new() }
    }

    /// Counts one refusal; answers whether the lane was empty before.
    pub(super) fn note(&mut self, early: EarlyRefusal, now: i64) -> bool {
        let first = self.is_empty();
        let second = now.div_euclid(1_000);
        if second != self.second {
            self.second = second;
            self.rates.clear();
        }
        let rate = self.rates.entry((early.code, early.listener)).or_insert(0);
        *rate = rate.saturating_add(1);
        if *rate <= self.per_second && self.singles.len() < MAX_SINGLES {
            self.singles.push((early, now));
        } else {
            self.count(early, now);
        }
        first
    }

    pub(super) fn is_empty(&self) -> bool {
        self.singles.is_empty() && self.counts.is_empty()
    }

    /// The single refusals, as events of the system chain.
    pub(super) fn take_singles(&mut self) -> Vec<Event> {
        let singles = std::mem::take(&mut self.singles);
        let event = |(early, at): (EarlyRefusal, i64)| {
            early_event(early.code, early.listener, &early.peer, Count { first: at, last: at, count: 1 })
        };
        singles.into_iter().map(event).collect()
    }

    /// The counters, as events of the system chain.
    pub(super) fn take_counts(&mut self) -> Vec<Event> {
        let counts = std::mem::take(&mut self.counts);
        counts
            .into_iter()
            .map(|(source, count)| early_event(source.code, source.listener, &source.prefix, count))
            .collect()
    }

    fn count(&mut self, early: EarlyRefusal, now: i64) {
        let EarlyRefusal { code, listener, peer } = early;
        let exact = Source { code, listener, prefix: Prefix::of(peer) };
        let full = self.counts.len() >= MAX_PREFIXES && !self.counts.contains_key(&exact);
        let source = if full { Source { code, listener, prefix: Prefix::Any } } else { exact };
        let count = self.counts.entry(source).or_insert(Count { first: now, last: now, count: 0 });
        count.last = now;
        count.count = count.count.saturating_add(1);
    }
}

impl Prefix {
    fn of(peer: IpAddr) -> Self {
        match peer.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(address) => {
                let [a, b, c, ..] = address.segments();
                Self::V6([a, b, c])
            }
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4([a, b, c]) => write!(f, "{a}.{b}.{c}.0/24"),
            Self::V6([a, b, c]) => write!(f, "{}/48", std::net::Ipv6Addr::new(*a, *b, *c, 0, 0, 0, 0, 0)),
            Self::Any => f.write_str("any"),
        }
    }
}

fn early_event(code: &'static str, listener: &'static str, source: &dyn fmt::Display, count: Count) -> Event {
    let mut metadata = Map::new();
    metadata.insert("listener".into(), json!(listener));
    metadata.insert("source".into(), json!(source.to_string()));
    metadata.insert("count".into(), json!(count.count));
    metadata.insert("first_at".into(), json!(timestamp(count.first)));
    metadata.insert("last_at".into(), json!(timestamp(count.last)));
    let event = Event::internal(EARLY, SYSTEM, metadata, count.last);
    Event { decision: "deny", evaluation_status: code.into(), ..event }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: &'static str, peer: &str) -> EarlyRefusal {
        EarlyRefusal { code, listener: "gateway", peer: peer.parse().unwrap() }
    }

    fn total(events: &[Event]) -> u64 {
        events.iter().map(|event| event.metadata["count"].as_u64().unwrap()).sum()
    }

    #[test]
    fn above_the_rate_refusals_are_counted_by_prefix() {
        let mut lane = EarlyLane::new(2);
        assert!(lane.note(refusal("no_route", "203.0.113.7"), 1_000));
        assert!(!lane.note(refusal("no_route", "203.0.113.8"), 1_001));
        for at in 1_002..1_012 {
            lane.note(refusal("no_route", "::ffff:203.0.113.9"), at);
        }
        lane.note(refusal("no_route", "2001:db8:1:2::1"), 1_013);
        assert_eq!(total(&lane.take_singles()), 2);
        let mut counts = lane.take_counts();
        counts.sort_by_key(|event| event.metadata["source"].to_string());
        assert_eq!(counts[0].metadata["source"], "2001:db8:1::/48");
        assert_eq!(
            (&counts[1].metadata["source"], &counts[1].metadata["count"]),
            (&json!("203.0.113.0/24"), &json!(10))
        );
        assert_eq!(counts[1].metadata["first_at"], "1970-01-01T00:00:01.002Z");
        assert_eq!(counts[1].metadata["last_at"], "1970-01-01T00:00:01.011Z");
        assert!(lane.is_empty());
    }

    #[test]
    fn the_rate_is_per_code_and_starts_anew_each_second() {
        let mut lane = EarlyLane::new(1);
        lane.note(refusal("a", "10.0.0.1"), 0);
        lane.note(refusal("b", "10.0.0.1"), 0);
        lane.note(refusal("a", "10.0.0.1"), 1_000);
        assert_eq!(lane.take_singles().len(), 3);
        assert!(lane.is_empty());
    }

    #[test]
    fn many_sources_cannot_make_the_lane_grow() {
        let mut lane = EarlyLane::new(0);
        for high in 0..=255_u8 {
            for low in 0..=15_u8 {
                lane.note(refusal("junk", &format!("{high}.{low}.0.1")), 5);
            }
        }
        let counts = lane.take_counts();
        assert_eq!(counts.len(), MAX_PREFIXES + 1);
        assert_eq!(total(&counts), 4_096);
    }
}
