//! A body that is searched while it passes.

use std::borrow::Cow;
use std::fmt;

use zeroize::Zeroizing;

use super::Scrubber;

/// What of a body has come and not gone on yet.
///
/// Only bytes that may be the beginning of a secret in some form wait for the next piece; everything else goes on at
/// once. The length stays what it was, so a `Content-Length` stays true. Memory: a few times the longest secret.
#[derive(Default)]
pub struct ScrubStream {
    pub(super) held: Zeroizing<Vec<u8>>,
    /// Bytes at the front of `held` that belong to an occurrence that has been found.
    covered: usize,
}

impl ScrubStream {
    /// Takes a piece of the body and gives what can go on, with the number of occurrences in it. At the `end` that
    /// is all there is.
    ///
    /// Cost: as [`Scrubber::scrub`]; nothing is copied while nothing waits and nothing is found.
    pub fn push<'p>(&mut self, scrubber: &Scrubber, piece: &'p [u8], end: bool) -> (Cow<'p, [u8]>, usize) {
        let mut joined = std::mem::take(&mut self.held);
        let waited = !joined.is_empty();
        if waited {
            joined.extend_from_slice(piece);
        }
        let bytes = if waited { joined.as_slice() } else { piece };
        let (found, begun) = scrubber.scan(bytes);
        let until = if end { bytes.len() } else { begun.min(scrubber.edge(bytes)) };
        let begin = |range: &&std::ops::Range<usize>| range.start < until;
        let count = found.iter().filter(begin).count();
        let reached = found.iter().filter(begin).map(|range| range.end).max().unwrap_or_default();
        let covered = std::mem::replace(&mut self.covered, reached.saturating_sub(until));
        self.covered = self.covered.max(covered.saturating_sub(until));
        self.held = Zeroizing::new(bytes.get(until..).unwrap_or_default().to_vec());
        let ready = bytes.get(..until).unwrap_or_default();
        if !waited && count == 0 {
            return (Cow::Borrowed(piece.get(..until).unwrap_or_default()), 0);
        }
        let mut ready = ready.to_vec();
        let masked = found.into_iter().chain(std::iter::once(0..covered));
        for range in masked {
            let range = range.start.min(until)..range.end.min(until);
            if let Some(occurrence) = ready.get_mut(range) {
                occurrence.fill(b'*');
            }
        }
        (Cow::Owned(ready), count)
    }
}

impl fmt::Debug for ScrubStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScrubStream").field("held", &self.held.len()).finish_non_exhaustive()
    }
}
