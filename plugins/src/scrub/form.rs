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

/// What a text says about a secret that may begin at its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// So many bytes of it spell the whole secret.
    Whole(usize),
    /// All of it may be the beginning of one; more would tell.
    Begun,
    /// Something else.
    Not,
}

impl Form {
    pub(super) const ALL: [Self; 5] = [Self::Raw, Self::Percent, Self::Query, Self::Json, Self::Hex];

    /// Whether `text` begins with the `secret` in this form.
    pub(super) fn spells(self, secret: &[u8], text: &[u8]) -> Spelling {
        let (mut secret, mut rest) = (secret, text);
        while !secret.is_empty() {
            let unit = match self.unit(rest) {
                Ok(unit) => unit,
                Err(spelling) => return spelling,
            };
            let Some(left) = unit.bytes.get(..unit.len).and_then(|said| secret.strip_prefix(said)) else {
                return Spelling::Not;
            };
            secret = left;
            rest = rest.get(unit.used..).unwrap_or_default();
        }
        Spelling::Whole(text.len().saturating_sub(rest.len()))
    }

    /// Every byte with which a secret that begins with `first` may begin in this form.
    pub(super) fn beginnings(self, first: u8) -> [u8; 3] {
        match self {
            Self::Raw => [first; 3],
            Self::Percent => [first, b'%', b'%'],
            Self::Query => [first, b'%', if first == b' ' { b'+' } else { first }],
            Self::Json => [first, b'\\', b'\\'],
            Self::Hex => {
                let digit = char::from_digit(u32::from(first >> 4), 16).unwrap_or('0');
                let digit = u8::try_from(digit).unwrap_or(b'0');
                [digit, digit.to_ascii_uppercase(), digit]
            }
        }
    }

    /// The first unit of `text`, or what its lack says.
    fn unit(self, text: &[u8]) -> Result<Unit, Spelling> {
        let escaped = match (self, text) {
            (_, []) => return Err(Spelling::Begun),
            (Self::Hex, [high, rest @ ..]) => {
                let Some(low) = rest.first() else {
                    return Err(if high.is_ascii_hexdigit() { Spelling::Begun } else { Spelling::Not });
                };
                return hex_byte(*high, *low).map(|byte| Unit::byte(byte, 2)).ok_or(Spelling::Not);
            }
            (Self::Percent | Self::Query, [b'%']) => return Err(Spelling::Begun),
            (Self::Percent | Self::Query, [b'%', high]) if high.is_ascii_hexdigit() => {
                return Err(Spelling::Begun);
            }
            (Self::Percent | Self::Query, [b'%', high, low, ..]) => {
                hex_byte(*high, *low).map(|byte| Unit::byte(byte, 3))
            }
            (Self::Query, [b'+', ..]) => Some(Unit::byte(b' ', 1)),
            (Self::Json, [b'\\', ..]) if is_unfinished(text) => return Err(Spelling::Begun),
            (Self::Json, [b'\\', ..]) => json_escape(text),
            (Self::Raw | Self::Percent | Self::Query | Self::Json, _) => None,
        };
        // An escape that does not decode stands for itself, as lenient decoders have it.
        escaped.or_else(|| text.first().map(|byte| Unit::byte(*byte, 1))).ok_or(Spelling::Begun)
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

/// Whether a text that begins with a backslash ends within the escape, so that more of it could say another thing.
fn is_unfinished(text: &[u8]) -> bool {
    let digits = |from: usize| text.iter().skip(from).take(4).all(u8::is_ascii_hexdigit);
    match text {
        [_] => true,
        [_, b'u', ..] if text.len() < 6 => digits(2),
        // The first half of a surrogate pair, and what may be the beginning of the second.
        [_, b'u', b'd' | b'D', b'8' | b'9' | b'a' | b'A' | b'b' | b'B', _, _, rest @ ..] => {
            rest.len() < 6 && digits(2) && b"\\u".iter().zip(rest).all(|(a, b)| a == b) && digits(8)
        }
        _ => false,
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

    /// The occurrence whose core begins at `start`, with the characters at its edges; and whether more text may
    /// finish one, or add the character at its edge.
    pub(super) fn at(&self, bytes: &[u8], start: usize) -> (Option<Range<usize>>, bool) {
        let text = bytes.get(start..).unwrap_or_default();
        if !text.iter().zip(self.core.iter()).all(|(a, b)| standard(*a) == *b) {
            return (None, false);
        }
        let end = start.saturating_add(self.core.len());
        if end > bytes.len() {
            return (None, true);
        }
        let is_text = |index: usize| bytes.get(index).is_some_and(|byte| is_base64(*byte));
        let before = start.checked_sub(1).filter(|index| self.edge_before && is_text(*index));
        let after = end.saturating_add(usize::from(self.edge_after && is_text(end)));
        (Some(before.unwrap_or(start)..after), self.edge_after && end == bytes.len())
    }

    /// Bytes of the core, which every occurrence has.
    pub(super) fn shortest(&self) -> usize {
        self.core.len()
    }

    /// Every byte with which the core may begin, in either alphabet.
    pub(super) fn beginnings(&self) -> impl Iterator<Item = u8> {
        let first = self.core.first().copied();
        let other = first.and_then(|first| match first {
            b'+' => Some(b'-'),
            b'/' => Some(b'_'),
            _ => None,
        });
        first.into_iter().chain(other)
    }

    /// Whether the character before the core belongs to an occurrence.
    pub(super) fn has_edge_before(&self) -> bool {
        self.edge_before
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

pub(super) fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}
