//! What a guard may look at, and the values it finds there.

use std::cmp::Ordering;
use std::fmt;

use serde_json::Value as Json;

/// Entries of a list or a map that a guard looks at; a longer one is a fault.
pub(super) const MAX_ENTRIES: usize = 1_000;
/// Bytes of a text that a guard looks at; a longer one is a fault.
pub(super) const MAX_TEXT: usize = 64 * 1024;

/// What is known about a request beside what the decision itself looks at. Nothing in it is a credential.
#[derive(Debug, Clone, Copy)]
pub struct GuardFacts<'a> {
    /// Header fields as they will be forwarded: lower-case name and value, without slots of keys and without cookies.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// Pairs of the query, decoded, without slots of keys. `None` when it cannot be decoded.
    pub query: Option<&'a [(String, String)]>,
    /// The `arguments` of a tool call.
    pub arguments: Option<&'a Json>,
    /// The body.
    pub body: Option<&'a Json>,
    /// Who the call is made for.
    pub subject: Option<&'a str>,
    /// How many delegations are between the application and the root of its authority.
    pub depth: u32,
    /// Where the request came from.
    pub source: &'a str,
    /// Seconds since 1970.
    pub now_s: i64,
}

/// Why an expression has no answer. Every one of them denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It uses a fact that the request does not have.
    Missing,
    /// It uses a value as what it is not, such as a list as one value.
    Kind,
    /// A list, map or text is longer than a guard looks at.
    TooLong,
    /// A path, query or header field that cannot be read in one way only.
    Unreadable,
    /// A number is too large, or divided by zero.
    Arithmetic,
}

impl Fault {
    /// The word for records.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Missing => "fact_missing",
            Self::Kind => "kind_wrong",
            Self::TooLong => "fact_too_long",
            Self::Unreadable => "fact_unreadable",
            Self::Arithmetic => "arithmetic",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A value in an expression. Texts are borrowed: nothing makes a new one.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(&'a str),
    List(Vec<Self>),
    /// A list of the body or the arguments.
    Items(&'a [Json]),
    /// A map of the body or the arguments.
    Members(&'a serde_json::Map<String, Json>),
}

impl<'a> Value<'a> {
    pub(super) fn text(text: &'a str) -> Result<Self, Fault> {
        if text.len() > MAX_TEXT { Err(Fault::TooLong) } else { Ok(Self::Text(text)) }
    }

    pub(super) fn json(json: &'a Json) -> Result<Self, Fault> {
        match json {
            Json::Null => Ok(Self::Null),
            Json::Bool(value) => Ok(Self::Bool(*value)),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => Ok(Self::Int(integer)),
                (None, Some(double)) => Ok(Self::Double(double)),
                (None, None) => Err(Fault::Arithmetic),
            },
            Json::String(text) => Self::text(text),
            Json::Array(items) if items.len() > MAX_ENTRIES => Err(Fault::TooLong),
            Json::Array(items) => Ok(Self::Items(items)),
            Json::Object(members) if members.len() > MAX_ENTRIES => Err(Fault::TooLong),
            Json::Object(members) => Ok(Self::Members(members)),
        }
    }

    /// The elements of a list.
    pub(super) fn elements(self) -> Result<Vec<Self>, Fault> {
        match self {
            Self::List(list) => Ok(list),
            Self::Items(items) => items.iter().map(Self::json).collect(),
            Self::Null
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Double(_)
            | Self::Text(_)
            | Self::Members(_) => Err(Fault::Kind),
        }
    }

    pub(super) fn truth(&self) -> Result<bool, Fault> {
        if let Self::Bool(value) = self { Ok(*value) } else { Err(Fault::Kind) }
    }

    pub(super) fn as_text(&self) -> Result<&'a str, Fault> {
        if let Self::Text(text) = self { Ok(text) } else { Err(Fault::Kind) }
    }

    /// Equality of two single values of one kind. CEL would call `["a"] == "a"` false, and a guard that denies `"a"`
    /// would be walked around by sending the field twice; so it is a fault. Only null may be compared with anything.
    pub(super) fn equals(&self, other: &Self) -> Result<bool, Fault> {
        match (self, other) {
            (Self::Null, Self::Null) => Ok(true),
            (Self::Null, _) | (_, Self::Null) => Ok(false),
            (Self::Bool(one), Self::Bool(two)) => Ok(one == two),
            _ => Ok(self.compare(other)? == Ordering::Equal),
        }
    }

    /// The order of two numbers or two texts.
    pub(super) fn compare(&self, other: &Self) -> Result<Ordering, Fault> {
        match (self, other) {
            (Self::Int(one), Self::Int(two)) => Ok(one.cmp(two)),
            (Self::Text(one), Self::Text(two)) => Ok(one.cmp(two)),
            (Self::Double(one), Self::Double(two)) => one.partial_cmp(two).ok_or(Fault::Arithmetic),
            (Self::Int(one), Self::Double(two)) => int_to_double(*one, *two),
            (Self::Double(one), Self::Int(two)) => int_to_double(*two, *one).map(Ordering::reverse),
            _ => Err(Fault::Kind),
        }
    }
}

/// Exactly, also where the integer has no double of its own.
fn int_to_double(integer: i64, double: f64) -> Result<Ordering, Fault> {
    // Two to the power of 63: every integer is below it, and none below its negative.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if double.is_nan() {
        return Err(Fault::Arithmetic);
    }
    if double >= BEYOND {
        return Ok(Ordering::Less);
    }
    if double < -BEYOND {
        return Ok(Ordering::Greater);
    }
    let whole = whole(double).ok_or(Fault::Arithmetic)?;
    let fraction = || 0.0_f64.partial_cmp(&double.fract()).ok_or(Fault::Arithmetic);
    match integer.cmp(&whole) {
        Ordering::Equal => fraction(),
        other @ (Ordering::Less | Ordering::Greater) => Ok(other),
    }
}

/// A double without its fraction, where an integer can hold it.
pub(super) fn whole(double: f64) -> Option<i64> {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::as_conversions,
        reason = "the range was checked, and the fraction is meant to go"
    )]
    (-BEYOND..BEYOND).contains(&double).then(|| double.trunc() as i64)
}
