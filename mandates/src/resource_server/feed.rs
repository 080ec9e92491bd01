//! A revocation view that is fed from the streams of a fleet, without I/O: the caller reads Redis, this decides what
//! the messages mean. Source: spec 7.3.
//!
//! One that follows does so in this order, and again from the start whenever it lost the connection:
//!
//! 1. ask where each of the [`STREAMS`] ends now;
//! 2. hand over every key under [`REVOKED_PREFIX`] with [`RevocationFeed::listed`];
//! 3. say [`RevocationFeed::read`], and after each further read of the streams from there again, whether or not it
//!    brought a message for [`RevocationFeed::hear`].
//!
//! Who stops saying so is not believed any more: a view that may be old counts as one that failed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::revocations::{MemoryRevocations, REVOCATION_LIFE_MS, Revocations, StoreFailed, StoreFull};
use crate::stream_key::StreamKey;

/// The streams to follow: dead records, sessions and delegations, and delegation epochs of zones.
pub const STREAMS: [&str; 2] = ["caracal.sessions.revoke", "caracal.delegations.invalidate"];

/// A key with this prefix and an anchor says that the anchor is revoked; it is kept for a day.
pub const REVOKED_PREFIX: &str = "caracal:revoked:sessions:";

/// A key with this prefix and a zone holds the zone's delegation epoch. It starts as [`REVOKED_PREFIX`] does.
pub const EPOCH_PREFIX: &str = "caracal:revoked:sessions:delegation-epoch:";

/// Starts the value of a key that stands for a suspended session; the zone comes after it.
pub const SUSPENDED_PREFIX: &str = "suspended:";

/// A suspended session may be resumed, which nobody announces. No mandate from before is good for longer than this: a
/// minute's life and a minute of leeway.
const SUSPENSION_LIFE_MS: i64 = 2 * 60 * 1_000;

/// Fields that name what is revoked.
const ANCHORS: [&str; 5] = ["session_id", "sid", "root_sid", "agent_session_id", "delegation_edge_id"];

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is in force.
    Followed,
    /// It has no good signature and was passed over; worth a log line.
    Unsigned,
    /// It is signed and says nothing that is of use here.
    Nothing,
}

/// What a resource server knows of revocations from the streams.
#[derive(Debug)]
pub struct RevocationFeed {
    key: StreamKey,
    known: MemoryRevocations,
    patience_ms: i64,
    /// Unix milliseconds the streams were last read to their end; 0 before the first time.
    read_at: AtomicI64,
    /// An anchor had no room. What is missing from the view cannot be told, so it never becomes good again.
    full: AtomicBool,
}

impl RevocationFeed {
    /// A view that is not believed before the first [`RevocationFeed::read`], and not longer than `patience_ms` after
    /// the last one. Some seconds are usual; a blocking read of the streams should return several times in them.
    #[must_use]
    pub fn new(key: StreamKey, patience_ms: i64) -> Self {
        Self {
            key,
            known: MemoryRevocations::default(),
            patience_ms,
            read_at: AtomicI64::new(0),
            full: AtomicBool::new(false),
        }
    }

    /// Takes a message of one of the [`STREAMS`]; `now` in unix milliseconds.
    pub fn hear(&self, stream: &str, fields: &BTreeMap<String, String>, now: i64) -> Heard {
        if !self.key.verifies(stream, fields) {
            return Heard::Unsigned;
        }
        let field = |name: &str| fields.get(name).map(String::as_str).filter(|value| !value.is_empty());
        if stream == STREAMS[1] {
            let epoch = field("epoch").and_then(|text| text.parse().ok());
            let (Some(zone), Some(epoch)) = (field("zone_id"), epoch) else { return Heard::Nothing };
            self.known.raise_epoch(zone, epoch);
            return Heard::Followed;
        }
        let life = if field("event") == Some("suspend") { SUSPENSION_LIFE_MS } else { REVOCATION_LIFE_MS };
        let mut heard = Heard::Nothing;
        for anchor in ANCHORS.into_iter().filter_map(field) {
            self.remember(anchor, now, life);
            heard = Heard::Followed;
        }
        heard
    }

    /// Takes a key under [`REVOKED_PREFIX`], whole, with its value; `now` in unix milliseconds.
    pub fn listed(&self, key: &str, value: &str, now: i64) {
        if let Some(zone) = key.strip_prefix(EPOCH_PREFIX) {
            if let Ok(epoch) = value.parse() {
                self.known.raise_epoch(zone, epoch);
            }
        } else if let Some(anchor) = key.strip_prefix(REVOKED_PREFIX) {
            let life =
                if value.starts_with(SUSPENDED_PREFIX) { SUSPENSION_LIFE_MS } else { REVOCATION_LIFE_MS };
            self.remember(anchor, now, life);
        }
    }

    /// Says that everything written up to `now`, unix milliseconds, was handed over.
    pub fn read(&self, now: i64) {
        self.read_at.fetch_max(now, Ordering::AcqRel);
    }

    /// Whether the view is believed at `now`, unix milliseconds.
    #[must_use]
    pub fn current(&self, now: i64) -> bool {
        let read_at = self.read_at.load(Ordering::Acquire);
        read_at > 0 && now.saturating_sub(read_at) <= self.patience_ms && !self.full.load(Ordering::Acquire)
    }

    fn remember(&self, anchor: &str, now: i64, life_ms: i64) {
        if self.known.revoke_for(anchor, now, life_ms) == Err(StoreFull) {
            self.full.store(true, Ordering::Release);
        }
    }
}

impl Revocations for RevocationFeed {
    fn is_revoked(&self, anchor: &str, now: i64) -> Result<bool, StoreFailed> {
        if self.current(now) { self.known.is_revoked(anchor, now) } else { Err(StoreFailed) }
    }

    /// Asked together with the anchors, which have said whether the view is current.
    fn delegation_epoch(&self, zone: &str) -> Result<Option<u64>, StoreFailed> {
        self.known.delegation_epoch(zone)
    }
}

#[cfg(test)]
mod tests {
    use super::super::MAX_REVOCATIONS;
    use super::*;

    const NOW: i64 = 1_790_000_000_000;

    fn key() -> StreamKey {
        StreamKey::parse(&"ab".repeat(32)).unwrap()
    }

    fn feed() -> RevocationFeed {
        let feed = RevocationFeed::new(key(), 5_000);
        feed.read(NOW);
        feed
    }

    fn signed(stream: &str, fields: &[(&str, &str)]) -> BTreeMap<String, String> {
        let mut message: BTreeMap<String, String> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        message.insert(crate::SIGNATURE_FIELD.to_owned(), key().sign(stream, &message));
        message
    }

    #[test]
    fn every_anchor_of_a_signed_message_is_revoked() {
        let feed = feed();
        let fields = ANCHORS.map(|name| (name, name));
        assert_eq!(feed.hear(STREAMS[0], &signed(STREAMS[0], &fields), NOW), Heard::Followed);
        for anchor in ANCHORS {
            assert_eq!(feed.is_revoked(anchor, NOW), Ok(true), "{anchor}");
        }
        assert_eq!(feed.is_revoked("another", NOW), Ok(false));
    }

    #[test]
    fn an_unsigned_message_or_one_of_another_stream_changes_nothing() {
        let feed = feed();
        let mut message = signed(STREAMS[0], &[("session_id", "r1")]);
        assert_eq!(feed.hear(STREAMS[1], &message, NOW), Heard::Unsigned);
        message.insert("session_id".into(), "r2".into());
        assert_eq!(feed.hear(STREAMS[0], &message, NOW), Heard::Unsigned);
        assert_eq!((feed.is_revoked("r1", NOW), feed.is_revoked("r2", NOW)), (Ok(false), Ok(false)));
        assert_eq!(feed.hear(STREAMS[0], &signed(STREAMS[0], &[("zone_id", "z")]), NOW), Heard::Nothing);
    }

    #[test]
    fn epochs_come_by_stream_and_by_key() {
        let feed = feed();
        let message = signed(STREAMS[1], &[("zone_id", "z"), ("epoch", "7")]);
        assert_eq!(feed.hear(STREAMS[1], &message, NOW), Heard::Followed);
        feed.listed(&format!("{EPOCH_PREFIX}z"), "5", NOW);
        feed.listed(&format!("{EPOCH_PREFIX}y"), "2", NOW);
        assert_eq!((feed.delegation_epoch("z"), feed.delegation_epoch("y")), (Ok(Some(7)), Ok(Some(2))));
        assert_eq!(feed.is_revoked("delegation-epoch:y", NOW), Ok(false), "an epoch is no anchor");
    }

    #[test]
    fn a_suspension_is_forgotten_when_no_mandate_from_before_it_can_be_good() {
        let feed = feed();
        let message = signed(STREAMS[0], &[("agent_session_id", "s"), ("event", "suspend")]);
        feed.hear(STREAMS[0], &message, NOW);
        feed.listed(&format!("{REVOKED_PREFIX}t"), &format!("{SUSPENDED_PREFIX}z"), NOW);
        feed.listed(&format!("{REVOKED_PREFIX}u"), "1", NOW);
        let later = NOW + SUSPENSION_LIFE_MS;
        assert_eq!((feed.is_revoked("s", NOW), feed.is_revoked("t", NOW)), (Ok(true), Ok(true)));
        feed.read(later);
        assert_eq!((feed.is_revoked("s", later), feed.is_revoked("t", later)), (Ok(false), Ok(false)));
        assert_eq!(feed.is_revoked("u", later), Ok(true));
    }

    #[test]
    fn a_view_that_was_never_filled_is_old_or_had_no_room_is_not_believed() {
        let feed = RevocationFeed::new(key(), 5_000);
        assert_eq!(feed.is_revoked("a", NOW), Err(StoreFailed));
        feed.read(NOW);
        assert_eq!(feed.is_revoked("a", NOW + 5_000), Ok(false));
        assert_eq!(feed.is_revoked("a", NOW + 5_001), Err(StoreFailed));
        feed.read(NOW + 9_000);
        assert_eq!(feed.is_revoked("a", NOW + 9_000), Ok(false));
        for number in 0..=MAX_REVOCATIONS {
            feed.listed(&format!("{REVOKED_PREFIX}{number}"), "1", NOW);
        }
        assert_eq!(feed.is_revoked("a", NOW + 9_000), Err(StoreFailed));
    }
}
