//! The shapes of a secret: encodings that are read unit by unit, and base64, where bytes share characters.

use std::fmt;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

/// An encoding that turns each byte or character into one unit of text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// The bytes themselves.
    Raw,
    /// RFC 3986 section 2.1: any byte may be `%XX`, in either case.
    Percent,
    /// As `Percent`, with `+` for a space (application/x-www-form-urlencoded).
    Query,
    /// RFC 8259 section 7: `\n`, `\"`, `\u0041`, surrogate pairs.
    Json,
    /// Two hexadecimal digits a byte, in either case.
    Hex,
}

impl Form {
    pub(super) const ALL: [Self; 5] = [Self::Raw, Self::Percent, Self::Query, Self::Json, Self::Hex];

    /// How many bytes of `text` spell the whole `secret`, when `text` begins with it.
    pub(super) fn length_of(self, secret: &[u8], text: &[u8]) -> Option<usize> {
        let (mut secret, mut rest) = (secret, text);
        while !secret.is_empty() {
            let unit = self.unit(rest)?;
            secret = secret.strip_prefix(unit.bytes.get(..unit.len)?)?;
            rest = rest.get(unit.used..)?;
        }
        text.len().checked_sub(rest.len())
    }

    fn unit(self, text: &[u8]) -> Option<Unit> {
        let escaped = match (self, text) {
            (Self::Percent | Self::Query, [b'%', high, low, ..]) => {
                hex_byte(*high, *low).map(|byte| Unit::byte(byte, 3))
            }
            (Self::Query, [b'+', ..]) => Some(Unit::byte(b' ', 1)),
            (Self::Json, [b'\\', ..]) => json_escape(text),
            (Self::Hex, [high, low, ..]) => return hex_byte(*high, *low).map(|byte| Unit::byte(byte, 2)),
            (Self::Raw | Self::Percent | Self::Query | Self::Json | Self::Hex, _) => None,
        };
        // An escape that does not decode stands for itself, as lenient decoders have it.
        escaped.or_else(|| text.first().map(|byte| Unit::byte(*byte, 1)))
    }
}

/// What one unit of text stands for.
struct Unit {
    bytes: [u8; 4],
    len: usize,
    used: usize,
}

impl Unit {
    fn byte(byte: u8, used: usize) -> Self {
        Self { bytes: [byte, 0, 0, 0], len: 1, used }
    }

    fn character(character: char, used: usize) -> Self {
        let mut bytes = [0; 4];
        let len = character.encode_utf8(&mut bytes).len();
        Self { bytes, len, used }
    }
}

fn json_escape(text: &[u8]) -> Option<Unit> {
    let byte = match text.get(1)? {
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => {
            let first = code_unit(text)?;
            if let Some(character) = char::from_u32(u32::from(first)) {
                return Some(Unit::character(character, 6));
            }
            let second = code_unit(text.get(6..)?)?;
            let character = char::decode_utf16([first, second]).next()?.ok()?;
            return Some(Unit::character(character, 12));
        }
        other @ (b'"' | b'\\' | b'/') => *other,
        _ => return None,
    };
    Some(Unit::byte(byte, 2))
}

fn code_unit(text: &[u8]) -> Option<u16> {
    match text {
        [b'\\', b'u', a, b, c, d, ..] => Some(u16::from_be_bytes([hex_byte(*a, *b)?, hex_byte(*c, *d)?])),
        _ => None,
    }
}

fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)?.checked_shl(4)? | digit(low)?)
}

/// The characters of a base64 text that only the secret decides, when it begins at one of the three places
/// within a group of three bytes. The characters at either edge also hold bits of its neighbours.
pub(super) struct Base64 {
    core: Zeroizing<Vec<u8>>,
    edge_before: bool,
    edge_after: bool,
}

impl Base64 {
    pub(super) fn alignments(secret: &[u8]) -> Vec<Self> {
        (0..3_usize).filter_map(|offset| Self::at_offset(secret, offset)).collect()
    }

    fn at_offset(secret: &[u8], offset: usize) -> Option<Self> {
        let mut shifted = Zeroizing::new(vec![0; offset]);
        shifted.extend_from_slice(secret);
        let text = Zeroizing::new(STANDARD_NO_PAD.encode(shifted.as_slice()));
        // Bits 0..8*offset belong to what comes before: 0, 2 or 3 characters hold some of them.
        let first = [0, 2, 3].get(offset)?;
        let whole = shifted.len().checked_mul(8)?.checked_div(6)?;
        let core = text.as_bytes().get(*first..whole).filter(|core| core.len() >= MIN_CORE)?;
        Some(Self {
            core: Zeroizing::new(core.to_vec()),
            edge_before: offset != 0,
            edge_after: shifted.len().checked_rem(3)? != 0,
        })
    }

    /// The occurrence whose core begins at `start`, with the characters at its edges.
    pub(super) fn at(&self, bytes: &[u8], start: usize) -> Option<Range<usize>> {
        let end = start.checked_add(self.core.len())?;
        let found = bytes.get(start..end)?.iter().zip(self.core.iter()).all(|(a, b)| standard(*a) == *b);
        if !found {
            return None;
        }
        let is_text = |index: usize| bytes.get(index).is_some_and(|byte| is_base64(*byte));
        let before = start.checked_sub(1).filter(|index| self.edge_before && is_text(*index));
        let after = if self.edge_after && is_text(end) { end.checked_add(1)? } else { end };
        Some(before.unwrap_or(start)..after)
    }
}

impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Base64").finish_non_exhaustive()
    }
}

/// Fewer characters than this are four bytes or less and found by chance.
const MIN_CORE: usize = 6;

/// The url-safe alphabet's two characters of its own, said in the standard alphabet (RFC 4648 section 5).
fn standard(byte: u8) -> u8 {
    match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => other,
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}
