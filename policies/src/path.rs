//! Request paths: refused when two servers could read them differently, otherwise kept byte for byte.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::limits;

/// A path without dot segments, backslashes and control characters at any decoding depth.
///
/// Shape: `raw` is what goes upstream, untouched. Segments are what stands between the slashes of `raw`, each decoded
/// once, so a segment may itself hold a `/` that was sent as `%2F`. A path that can be decoded further is also kept as
/// it reads then, since some servers do.
#[derive(Debug, Clone)]
pub struct Path<'a> {
    raw: &'a str,
    reading: Reading<'a>,
    deeper: Vec<Reading<'static>>,
}

/// The segments of a path at one decoding depth.
#[derive(Debug, Clone)]
pub(crate) struct Reading<'a> {
    text: Cow<'a, str>,
    /// Where each segment starts in `text`; each but the last ends before the slash before the next.
    starts: SmallVec<[usize; 12]>,
    next_start: usize,
    plain_from: usize,
}

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    /// It does not start with `/`.
    #[error("the path does not start with a slash")]
    NotAbsolute,
    /// It holds a `?` or `#`, which end a path.
    #[error("the path holds a question mark or a hash")]
    NotAPath,
    /// It is longer than 8 KiB.
    #[error("the path is too long")]
    TooLong,
    /// A `%` is not followed by two hexadecimal digits.
    #[error("the path holds a percent sign that encodes nothing")]
    Undecodable,
    /// Decoded, it is not UTF-8.
    #[error("the decoded path is not UTF-8")]
    NotUtf8,
    /// It is still encoded after six decodings.
    #[error("the path is encoded too many times")]
    TooDeep,
    /// A segment is `.` or `..`, now or after more decoding.
    #[error("the path holds a dot segment")]
    DotSegment,
    /// It holds a backslash, now or after more decoding.
    #[error("the path holds a backslash")]
    Backslash,
    /// It holds a control character, now or after more decoding.
    #[error("the path holds a control character")]
    ControlCharacter,
    /// What stands before a `;` in a segment is empty, `.` or `..`; some servers drop everything from the `;` on.
    #[error("the path holds a parameter on an empty or dot segment")]
    EmptyParameterHead,
}

impl<'a> Path<'a> {
    /// Reads a path as it stands in the request line, without the query. An empty one counts as `/`.
    ///
    /// Dot segments, backslashes and control characters are looked for at every decoding depth, as some upstream may
    /// decode again. `%25` is therefore fine as long as what it leads to is. Deeper decodings leave a `%` that encodes
    /// nothing alone, as lenient servers do; the first one does not.
    ///
    /// Cost: no allocation for a path without `%` and with up to twelve segments.
    ///
    /// # Errors
    /// The first [`PathProblem`] found.
    pub fn parse(raw: &'a str) -> Result<Self, PathProblem> {
        if raw.len() > limits::PATH_BYTES {
            return Err(PathProblem::TooLong);
        }
        let Some(inner) = raw.strip_prefix('/').or_else(|| raw.is_empty().then_some("")) else {
            return Err(PathProblem::NotAbsolute);
        };
        if inner.contains(['?', '#']) {
            return Err(PathProblem::NotAPath);
        }
        check_depth(inner.as_bytes())?;
        let reading = Reading::first(raw, inner)?;
        let deeper = if raw.contains('%') { deeper(&reading.text)? } else { Vec::new() };
        Ok(Self { raw, reading, deeper })
    }

    /// The path as it was sent.
    pub fn raw(&self) -> &str {
        self.raw
    }

    /// The path decoded once. Not for matching: a `/` sent as `%2F` looks like any other here.
    pub fn decoded(&self) -> String {
        self.reading.text.clone().into_owned()
    }

    /// Decoded once.
    pub(crate) fn reading(&self) -> &Reading<'a> {
        &self.reading
    }

    /// Decoded twice and more, as long as that changes anything.
    pub(crate) fn deeper(&self) -> &[Reading<'static>] {
        &self.deeper
    }
}

impl<'a> Reading<'a> {
    /// Decodes each segment once.
    fn first(raw: &'a str, inner: &'a str) -> Result<Self, PathProblem> {
        let text = match raw {
            "" => Cow::Borrowed("/"),
            _ if raw.contains('%') => Cow::Owned(String::with_capacity(raw.len())),
            _ => Cow::Borrowed(raw),
        };
        let mut reading = Self { text, starts: SmallVec::new(), next_start: 1, plain_from: 0 };
        for part in inner.split('/') {
            let segment = decode_strictly(part)?;
            if segment.chars().any(char::is_control) {
                return Err(PathProblem::ControlCharacter);
            }
            reading.add(&segment);
            if let Cow::Owned(text) = &mut reading.text {
                text.push('/');
                text.push_str(&segment);
            }
        }
        Ok(reading)
    }

    /// Splits a text that is not decoded again.
    fn of(text: String) -> Self {
        let mut reading =
            Self { text: Cow::Borrowed(""), starts: SmallVec::new(), next_start: 1, plain_from: 0 };
        for segment in text.split('/').skip(1) {
            reading.add(segment);
        }
        reading.text = Cow::Owned(text);
        reading
    }

    /// Notes where the next segment is.
    fn add(&mut self, segment: &str) {
        let start = self.next_start;
        self.starts.push(start);
        self.next_start = start.saturating_add(segment.len()).saturating_add(1);
        if !is_plain(segment) {
            self.plain_from = self.starts.len();
        }
    }

    /// How many segments there are. Never none: `/` is one empty segment.
    pub(crate) fn count(&self) -> usize {
        self.starts.len()
    }

    /// All of it, with the leading slash.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// What stands between two slashes.
    pub(crate) fn segment(&self, index: usize) -> Option<&str> {
        let start = *self.starts.get(index)?;
        match self.starts.get(index.saturating_add(1)) {
            Some(next) => self.text.get(start..next.saturating_sub(1)),
            None => self.text.get(start..),
        }
    }

    /// The first index from which every segment can be matched by a placeholder.
    pub(crate) fn plain_from(&self) -> usize {
        self.plain_from
    }
}

/// Whether a placeholder may stand for this decoded segment. Backslashes and control characters were refused before.
pub(crate) fn is_plain(segment: &str) -> bool {
    !segment.is_empty() && !segment.contains(['/', ';'])
}

/// What the text decoded once turns into when it is decoded again, until it no longer changes.
fn deeper(once: &str) -> Result<Vec<Reading<'static>>, PathProblem> {
    check_depth(once.as_bytes())?;
    let mut readings = Vec::new();
    let mut text = once.as_bytes().to_vec();
    while let Some(next) = decode_leniently(&text) {
        if readings.len() >= limits::PATH_DECODINGS {
            return Err(PathProblem::TooDeep);
        }
        check_depth(&next)?;
        readings.push(Reading::of(String::from_utf8_lossy(&next).into_owned()));
        text = next;
    }
    Ok(readings)
}

fn check_depth(text: &[u8]) -> Result<(), PathProblem> {
    if text.contains(&b'\\') {
        return Err(PathProblem::Backslash);
    }
    if text.iter().any(|byte| byte.is_ascii_control()) {
        return Err(PathProblem::ControlCharacter);
    }
    for segment in text.split(|byte| *byte == b'/') {
        let head = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        let dots = head == b"." || head == b"..";
        if head.len() != segment.len() && (dots || head.is_empty()) {
            return Err(PathProblem::EmptyParameterHead);
        }
        if dots {
            return Err(PathProblem::DotSegment);
        }
    }
    Ok(())
}

/// Decodes every well-formed `%xx` and leaves the rest; `None` when there is none.
fn decode_leniently(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut changed = false;
    while let Some((first, tail)) = rest.split_first() {
        let byte = if *first == b'%' { escaped(tail) } else { None };
        match byte {
            Some((byte, after)) => {
                decoded.push(byte);
                rest = after;
                changed = true;
            }
            None => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    changed.then_some(decoded)
}

/// Decodes once, and refuses a `%` that encodes nothing.
pub(crate) fn decode_strictly(part: &str) -> Result<Cow<'_, str>, PathProblem> {
    if !part.contains('%') {
        return Ok(Cow::Borrowed(part));
    }
    let mut decoded = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let (byte, after) = escaped(tail).ok_or(PathProblem::Undecodable)?;
            decoded.push(byte);
            rest = after;
        } else {
            decoded.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_not_utf8| PathProblem::NotUtf8)
}

/// The byte two hexadecimal digits stand for, and what follows them.
fn escaped(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, after) = text.split_first_chunk::<2>()?;
    let mut byte = [0_u8];
    hex::decode_to_slice(digits, &mut byte).ok()?;
    let [byte] = byte;
    Some((byte, after))
}

#[cfg(test)]
mod tests;
