//! Finding a secret again, in the shapes in which an upstream may echo it.

mod form;

use std::fmt;
use std::ops::Range;

use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use form::{Base64, Form};

/// Knows the secrets of one request and overwrites them wherever they occur in a response head.
///
/// Forms: as they are, percent-encoded (with `+` for a space too), escaped as in JSON, hexadecimal, and base64
/// at each of the three alignments in both alphabets. A find is replaced by as many `*`, so that nothing that
/// counts bytes notices. The copies it holds are wiped when it is dropped, and it cannot be printed.
pub struct Scrubber {
    secrets: Vec<Needle>,
}

struct Needle {
    plain: Zeroizing<Vec<u8>>,
    base64: Vec<Base64>,
}

impl Scrubber {
    /// Shorter secrets occur by chance in ordinary values: refuse them at load where scrubbing is on.
    pub const MIN_SECRET_BYTES: usize = 12;

    /// Learns what to look for. Empty secrets are passed over: they would be found everywhere.
    #[must_use]
    pub fn new(secrets: &[&[u8]]) -> Self {
        let secrets = secrets
            .iter()
            .filter(|secret| !secret.is_empty())
            .map(|secret| Needle {
                plain: Zeroizing::new(secret.to_vec()),
                base64: Base64::alignments(secret),
            })
            .collect();
        Self { secrets }
    }

    /// Overwrites every occurrence in `bytes` with `*` and says how many separate ones there were.
    ///
    /// Cost: length of `bytes` times the number of forms; no allocation unless something is found.
    pub fn scrub(&self, bytes: &mut [u8]) -> usize {
        let found = self.occurrences(bytes);
        for range in &found {
            if let Some(occurrence) = bytes.get_mut(range.clone()) {
                occurrence.fill(b'*');
            }
        }
        found.len()
    }

    pub(crate) fn scrub_headers(&self, headers: &mut HeaderMap) -> usize {
        let mut count = 0_usize;
        for value in headers.values_mut() {
            let mut bytes = Zeroizing::new(value.as_bytes().to_vec());
            let found = self.scrub(&mut bytes);
            if found == 0 {
                continue;
            }
            count = count.saturating_add(found);
            let sensitive = value.is_sensitive();
            // INVARIANT: `*` is legal in a field value, so what was legal stays legal.
            *value = HeaderValue::from_bytes(&bytes).unwrap_or(HeaderValue::from_static(""));
            value.set_sensitive(sensitive);
        }
        count
    }

    /// The places of all occurrences, merged where they touch or overlap.
    fn occurrences(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        for start in 0..bytes.len() {
            for range in self.secrets.iter().filter_map(|needle| needle.at(bytes, start)) {
                match found.last_mut() {
                    Some(last) if last.end >= range.start => {
                        last.start = last.start.min(range.start);
                        last.end = last.end.max(range.end);
                    }
                    Some(_) | None => found.push(range),
                }
            }
        }
        found
    }
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrubber").field("secrets", &self.secrets.len()).finish_non_exhaustive()
    }
}

impl Needle {
    /// The longest occurrence that begins at `start`.
    fn at(&self, bytes: &[u8], start: usize) -> Option<Range<usize>> {
        let rest = bytes.get(start..)?;
        let plain = Form::ALL
            .iter()
            .filter_map(|form| form.length_of(&self.plain, rest))
            .max()
            .map(|length| start..start.saturating_add(length));
        let base64 = self.base64.iter().filter_map(|needle| needle.at(bytes, start));
        base64.chain(plain).max_by_key(|range| range.end.saturating_sub(range.start))
    }
}

#[cfg(test)]
mod tests;
