//! Finding a secret again, in the shapes in which an upstream may echo it.

mod form;
mod stream;

use std::fmt;
use std::ops::Range;

use http::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use form::{Base64, Form, Spelling, is_base64};

pub use stream::ScrubStream;

/// Knows the secrets of one request and overwrites them wherever they occur in a response: in a head as a
/// whole, in a body piece by piece with a [`ScrubStream`].
///
/// Forms: as they are, percent-encoded (with `+` for a space too), escaped as in JSON, hexadecimal, and base64
/// at each of the three alignments in both alphabets. A find is replaced by as many `*`, so that nothing that
/// counts bytes notices. The copies it holds are wiped when it is dropped, and it cannot be printed.
pub struct Scrubber {
    secrets: Vec<Needle>,
    /// The bytes with which any form of any secret begins; all others are passed over.
    first: [bool; 256],
    /// Fewer bytes than this hold no occurrence.
    shortest: usize,
}

struct Needle {
    plain: Zeroizing<Vec<u8>>,
    /// The same in lower case.
    lower: Zeroizing<Vec<u8>>,
    base64: Vec<Base64>,
}

impl Scrubber {
    /// Shorter secrets occur by chance in ordinary values: refuse them at load where scrubbing is on.
    pub const MIN_SECRET_BYTES: usize = 12;

    /// Learns what to look for. Empty secrets are passed over: they would be found everywhere.
    #[must_use]
    pub fn new(secrets: &[&[u8]]) -> Self {
        let secrets: Vec<_> = secrets.iter().filter_map(|secret| Needle::new(secret)).collect();
        let mut first = [false; 256];
        for byte in secrets.iter().flat_map(Needle::beginnings) {
            if let Some(may) = first.get_mut(usize::from(byte)) {
                *may = true;
            }
        }
        let shortest = secrets.iter().map(Needle::shortest).min().unwrap_or(usize::MAX);
        Self { secrets, first, shortest }
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

    /// Overwrites every occurrence in the values, takes out fields whose name holds a secret, and says how many
    /// there were.
    ///
    /// Cost: as [`Scrubber::scrub`] over all of it; no allocation unless something is found.
    pub fn scrub_headers(&self, headers: &mut HeaderMap) -> usize {
        let named: Vec<_> = headers.keys().filter(|name| self.is_named_in(name)).cloned().collect();
        let mut count = named.len();
        for name in named {
            headers.remove(name);
        }
        for value in headers.values_mut() {
            if self.occurrences(value.as_bytes()).is_empty() {
                continue;
            }
            let mut bytes = Zeroizing::new(value.as_bytes().to_vec());
            count = count.saturating_add(self.scrub(&mut bytes));
            let sensitive = value.is_sensitive();
            // INVARIANT: `*` is legal in a field value, so what was legal stays legal.
            *value = HeaderValue::from_bytes(&bytes).unwrap_or(HeaderValue::from_static(""));
            value.set_sensitive(sensitive);
        }
        count
    }

    /// Whether [`Scrubber::scrub_headers`] would change anything.
    #[must_use]
    pub fn finds_in(&self, headers: &HeaderMap) -> bool {
        headers
            .iter()
            .any(|(name, value)| self.is_named_in(name) || !self.occurrences(value.as_bytes()).is_empty())
    }

    /// Names are kept in lower case, and so is what is looked for in them.
    fn is_named_in(&self, name: &HeaderName) -> bool {
        let name = name.as_str().as_bytes();
        self.secrets.iter().any(|needle| name.windows(needle.lower.len()).any(|part| *part == **needle.lower))
    }

    /// The places of all occurrences, merged where they touch or overlap.
    fn occurrences(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        if bytes.len() < self.shortest { Vec::new() } else { self.scan(bytes).0 }
    }

    /// The places of all occurrences as above, and where those begin that more bytes may finish: the length of
    /// `bytes` if there are none.
    fn scan(&self, bytes: &[u8]) -> (Vec<Range<usize>>, usize) {
        let mut found: Vec<Range<usize>> = Vec::new();
        let mut begun = bytes.len();
        for (start, byte) in bytes.iter().enumerate() {
            if !self.first.get(usize::from(*byte)).is_some_and(|may| *may) {
                continue;
            }
            for needle in &self.secrets {
                let (range, unfinished) = needle.at(bytes, start);
                begun = begun.min(unfinished.unwrap_or(begun));
                let Some(range) = range else { continue };
                match found.last_mut() {
                    Some(last) if last.end >= range.start => {
                        last.start = last.start.min(range.start);
                        last.end = last.end.max(range.end);
                    }
                    Some(_) | None => found.push(range),
                }
            }
        }
        (found, begun)
    }

    /// Where a last byte stands that belongs to an occurrence if one begins after it.
    fn edge(&self, bytes: &[u8]) -> usize {
        let may = bytes.last().is_some_and(|byte| is_base64(*byte))
            && self.secrets.iter().flat_map(|needle| &needle.base64).any(Base64::has_edge_before);
        bytes.len().saturating_sub(usize::from(may))
    }
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrubber").field("secrets", &self.secrets.len()).finish_non_exhaustive()
    }
}

impl Needle {
    fn new(secret: &[u8]) -> Option<Self> {
        let plain = Zeroizing::new(secret.to_vec());
        let lower = Zeroizing::new(secret.to_ascii_lowercase());
        (!secret.is_empty()).then(|| Self { plain, lower, base64: Base64::alignments(secret) })
    }

    /// Bytes of its shortest form: every one that is read unit by unit is as long as the secret, or longer.
    fn shortest(&self) -> usize {
        self.base64.iter().map(Base64::shortest).min().unwrap_or(usize::MAX).min(self.plain.len())
    }

    fn beginnings(&self) -> impl Iterator<Item = u8> {
        let plain = self.plain.first().copied();
        let plain =
            plain.into_iter().flat_map(|first| Form::ALL.map(|form| form.beginnings(first))).flatten();
        plain.chain(self.base64.iter().flat_map(Base64::beginnings))
    }

    /// The longest occurrence that begins at `start`, and where one begins that more bytes may finish.
    fn at(&self, bytes: &[u8], start: usize) -> (Option<Range<usize>>, Option<usize>) {
        let rest = bytes.get(start..).unwrap_or_default();
        let (mut longest, mut begun): (Option<Range<usize>>, Option<usize>) = (None, None);
        let mut keep = |range: Range<usize>| {
            if longest.as_ref().is_none_or(|known| known.len() < range.len()) {
                longest = Some(range);
            }
        };
        for form in Form::ALL {
            match form.spells(&self.plain, rest) {
                Spelling::Whole(length) => keep(start..start.saturating_add(length)),
                Spelling::Begun => begun = Some(start),
                Spelling::Not => {}
            }
        }
        for needle in &self.base64 {
            let (range, unfinished) = needle.at(bytes, start);
            if let Some(range) = range {
                keep(range);
            }
            if unfinished {
                let edge = usize::from(needle.has_edge_before());
                begun = Some(begun.unwrap_or(start).min(start.saturating_sub(edge)));
            }
        }
        (longest, begun)
    }
}

#[cfg(test)]
mod tests;
