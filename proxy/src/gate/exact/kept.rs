//! What came of approved requests, for a caller that lost its answer: in memory, for two minutes, and never much of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use parking_lot::Mutex;

use crate::clock::Clock;

/// Milliseconds an outcome is kept after the request is over, and a yes that was used up is told apart from a new
/// question.
pub const KEPT_MS: i64 = 120_000;

/// Bytes of a body that is kept.
pub const MAX_BODY: usize = 64 * 1024;

/// Outcomes that are kept, and bytes of all their bodies.
const MAX_KEPT: usize = 4_096;
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// An answer as its caller got it.
pub struct Kept {
    /// Its status.
    pub status: u16,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Without what the upstream answered.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("status", &self.status).finish_non_exhaustive()
    }
}

/// What is known of a request that used a yes up.
#[derive(Debug)]
pub enum Found {
    /// Its outcome.
    Settled(Arc<Kept>),
    /// It is under way, or its outcome is lost.
    Lost,
    /// Nothing.
    Nothing,
}

#[derive(Debug)]
enum Row {
    Underway,
    Over { kept: Option<Arc<Kept>>, until: i64 },
}

#[derive(Debug, Default)]
struct Rows {
    /// By the id of the approval.
    all: HashMap<Arc<str>, Row>,
    bytes: usize,
}

/// The outcomes of approved requests.
#[derive(Debug)]
pub struct Outcomes {
    clock: Clock,
    rows: Mutex<Rows>,
}

impl Outcomes {
    /// None yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, rows: Mutex::default() }
    }

    /// Keeps the outcome of the request that uses this approval up.
    #[must_use]
    pub fn begin(self: &Arc<Self>, approval: &Arc<str>) -> Keeping {
        let mut rows = self.rows.lock();
        rows.forget(self.clock.now());
        rows.all.insert(Arc::clone(approval), Row::Underway);
        Keeping {
            outcomes: Arc::clone(self),
            approval: Arc::clone(approval),
            head: None,
            body: BytesMut::new(),
            over: false,
        }
    }

    /// What is known of the request that used this approval up.
    #[must_use]
    pub fn find(&self, approval: &str) -> Found {
        let mut rows = self.rows.lock();
        rows.forget(self.clock.now());
        match rows.all.get(approval) {
            Some(Row::Over { kept: Some(kept), .. }) => Found::Settled(Arc::clone(kept)),
            Some(Row::Over { kept: None, .. } | Row::Underway) => Found::Lost,
            None => Found::Nothing,
        }
    }

    /// Forgets what has been kept long enough.
    pub fn sweep(&self) {
        self.rows.lock().forget(self.clock.now());
    }

    fn end(&self, approval: &Arc<str>, kept: Option<Kept>) {
        let now = self.clock.now();
        let mut rows = self.rows.lock();
        rows.forget(now);
        let bytes = kept.as_ref().map_or(0, |kept| kept.body.len());
        let fits = rows.all.len() <= MAX_KEPT && rows.bytes.saturating_add(bytes) <= MAX_BYTES;
        let kept = kept.filter(|_| fits).map(Arc::new);
        if kept.is_some() {
            rows.bytes = rows.bytes.saturating_add(bytes);
        }
        rows.all.insert(Arc::clone(approval), Row::Over { kept, until: now.saturating_add(KEPT_MS) });
    }
}

impl Rows {
    fn forget(&mut self, now: i64) {
        let mut freed = 0_usize;
        self.all.retain(|_, row| match row {
            Row::Over { kept, until } if *until <= now => {
                freed = freed.saturating_add(kept.as_ref().map_or(0, |kept| kept.body.len()));
                false
            }
            Row::Over { .. } | Row::Underway => true,
        });
        self.bytes = self.bytes.saturating_sub(freed);
    }
}

/// The outcome of one request as it comes. Dropped before its end, the outcome is lost.
#[derive(Debug)]
pub struct Keeping {
    outcomes: Arc<Outcomes>,
    approval: Arc<str>,
    head: Option<(u16, HeaderMap)>,
    body: BytesMut,
    over: bool,
}

impl Keeping {
    /// Takes the head of the answer, as it goes to the caller.
    pub fn head(&mut self, status: u16, headers: &HeaderMap) {
        self.head = Some((status, headers.clone()));
    }

    /// Takes a piece of the body, as it goes to the caller.
    pub fn piece(&mut self, piece: &[u8], end: bool) {
        if self.over {
            return;
        }
        if self.body.len().saturating_add(piece.len()) > MAX_BODY {
            self.lose();
            return;
        }
        self.body.extend_from_slice(piece);
        if end {
            self.complete();
        }
    }

    /// The answer is complete.
    pub fn complete(&mut self) {
        if let Some((status, headers)) = self.head.take().filter(|_| !self.over) {
            let body = std::mem::take(&mut self.body).freeze();
            self.end(Some(Kept { status, headers, body }));
        }
    }

    /// The answer cannot be repeated.
    pub fn lose(&mut self) {
        if !self.over {
            self.body = BytesMut::new();
            self.end(None);
        }
    }

    fn end(&mut self, kept: Option<Kept>) {
        self.over = true;
        self.outcomes.end(&self.approval, kept);
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.lose();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn outcomes() -> (Clock, Arc<Outcomes>) {
        let clock = Clock::manual(1_000_000);
        (clock.clone(), Arc::new(Outcomes::new(clock)))
    }

    fn keep(outcomes: &Arc<Outcomes>, approval: &str, body: &[u8]) {
        let mut keeping = outcomes.begin(&approval.into());
        keeping.head(200, &HeaderMap::new());
        keeping.piece(body, true);
    }

    fn body(found: Found) -> Option<Bytes> {
        if let Found::Settled(kept) = found { Some(kept.body.clone()) } else { None }
    }

    #[test]
    fn an_outcome_is_there_from_its_end_for_two_minutes() {
        let (clock, outcomes) = outcomes();
        let mut keeping = outcomes.begin(&"a".into());
        assert!(matches!(outcomes.find("a"), Found::Lost), "under way");
        keeping.head(201, &HeaderMap::new());
        keeping.piece(b"one ", false);
        clock.advance(Duration::from_mins(20));
        assert!(matches!(outcomes.find("a"), Found::Lost), "however long it takes");
        keeping.piece(b"two", true);
        drop(keeping);
        clock.advance(Duration::from_millis(119_999));
        assert_eq!(body(outcomes.find("a")).unwrap(), "one two");
        clock.advance(Duration::from_millis(1));
        outcomes.sweep();
        assert!(outcomes.rows.lock().all.is_empty());
        assert!(matches!(outcomes.find("a"), Found::Nothing));
        assert_eq!(outcomes.rows.lock().bytes, 0);
    }

    #[test]
    fn what_is_too_long_or_broke_off_is_lost_and_remembered_as_such() {
        let (_clock, outcomes) = outcomes();
        keep(&outcomes, "most", &vec![0; MAX_BODY]);
        keep(&outcomes, "more", &vec![0; MAX_BODY + 1]);
        let mut broken = outcomes.begin(&"broken".into());
        broken.head(200, &HeaderMap::new());
        broken.piece(b"half", false);
        drop(broken);
        assert_eq!(body(outcomes.find("most")).unwrap().len(), MAX_BODY);
        for lost in ["more", "broken"] {
            assert!(matches!(outcomes.find(lost), Found::Lost), "{lost}");
        }
    }

    #[test]
    fn bodies_are_bounded_altogether() {
        let (_clock, outcomes) = outcomes();
        for at in 0..=(MAX_BYTES / MAX_BODY) {
            keep(&outcomes, &at.to_string(), &vec![0; MAX_BODY]);
        }
        assert!(body(outcomes.find("0")).is_some());
        assert!(matches!(outcomes.find(&(MAX_BYTES / MAX_BODY).to_string()), Found::Lost));
    }
}
