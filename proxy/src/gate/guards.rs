//! What the guards of a resource look at, taken from a request, and what is told and kept of their answers.
//!
//! A body must mean to the guard what it means to the upstream. What two readers could take for two things is refused:
//! repeated names, names that differ in case only, numbers that do not survive, encodings, anything but one JSON value.

use caracal_policies::{Fired, ProviderKind, Resource};
use http::HeaderMap;
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, COOKIE, TRANSFER_ENCODING};
use serde_json::{Map, Value, json};

use super::forward::{self, OVERRIDES};
use super::refusal::{Refusal, later, no};
use super::slots;
use crate::refusal::Answer;

/// Levels of a body.
const MAX_DEPTH: usize = 64;
/// Pairs of a query; more cannot be judged.
const MAX_PAIRS: usize = 1_000;
/// Digits that every double keeps (IEEE 754 needs 17 to tell any two apart).
const DIGITS: usize = 17;

/// Why a request is refused by a guard, or cannot be shown to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardRefusal {
    /// The condition of a guard holds.
    Denied,
    /// The condition of a guard has no answer.
    Unanswered,
    /// The body is encoded.
    Encoded,
    /// The body is not one JSON value that can be read in one way only.
    NotJson,
    /// The body is longer than a guard looks at.
    TooLarge,
    /// The body is longer than may be read without a declared length.
    LengthRequired,
    /// The body did not come in time.
    Late,
    /// No room to hold another body while it is read.
    Busy,
}

impl GuardRefusal {
    /// What the caller is told. Never which condition it was.
    #[must_use]
    pub const fn answer(self) -> Answer {
        match self {
            Self::Denied => no(
                403,
                "guard_denied",
                "a rule of the resource refuses this very request",
                "send another request, or ask the operator; the decision id names this case",
            ),
            Self::Unanswered => no(
                403,
                "guard_unanswered",
                "a rule of the resource cannot judge this request",
                "send each field once and as the API documents it; the decision id names this case",
            ),
            Self::Encoded => no(
                415,
                "body_encoded",
                "the body is encoded, and a rule of the resource has to read it",
                "send the body without Content-Encoding",
            ),
            Self::NotJson => no(
                400,
                "body_not_json",
                "the body is not one JSON value that can be read in one way only",
                "send one JSON value in UTF-8, with each name once and no number beyond a double",
            ),
            Self::TooLarge => no(
                413,
                "body_too_large_to_judge",
                "a rule of the resource has to read the body, and it is longer than 1 MiB",
                "send a smaller body",
            ),
            Self::LengthRequired => no(
                411,
                "body_length_required",
                "a rule of the resource has to read the body, and one this long needs a Content-Length",
                "send Content-Length",
            ),
            Self::Late => later(408, "body_late", "the body did not come in time", "try again", 1),
            Self::Busy => later(503, "capacity", "no room to read another body", "try again", 1),
        }
    }

    /// A short stable word for ledger and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Denied => "guard_denied",
            Self::Unanswered => "guard_unanswered",
            Self::Encoded => "body_encoded",
            Self::NotJson => "body_not_json",
            Self::TooLarge => "body_too_large_to_judge",
            Self::LengthRequired => "body_length_required",
            Self::Late => "body_late",
            Self::Busy => "body_busy",
        }
    }
}

impl From<GuardRefusal> for Refusal {
    fn from(refusal: GuardRefusal) -> Self {
        Self::Guard(refusal)
    }
}

/// The guards that fired on one request.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The one that refuses it.
    pub refused: Option<Fired>,
    /// Those that ask for a person's yes to it.
    pub asked: Vec<Fired>,
    /// Whether there is one.
    pub answered: bool,
    /// Those in shadow mode that would have refused it or asked.
    pub shadowed: Vec<Fired>,
}

impl Outcome {
    /// The members of the decision record: names and places, never a value of the request.
    #[must_use]
    pub fn recorded(&self) -> Map<String, Value> {
        let one = |fired: &Fired| {
            json!({
                "name": fired.guard.name,
                "place": fired.guard.place.to_string(),
                "outcome": fired.outcome(),
            })
        };
        let mut members = Map::new();
        if let Some(fired) = &self.refused {
            members.insert("guard".into(), one(fired));
        }
        if !self.asked.is_empty() {
            members.insert("guards_that_ask".into(), self.asked.iter().map(one).collect());
        }
        if !self.shadowed.is_empty() {
            members.insert("guards_in_shadow".into(), self.shadowed.iter().map(one).collect());
        }
        members
    }

    /// Guards with the word that counts what they did.
    pub fn counted(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let refused = self.refused.iter().map(|fired| (fired, "denied", "unanswered"));
        let asked = if self.answered { "approved" } else { "asked" };
        let asked = self.asked.iter().map(move |fired| (fired, asked, asked));
        let shadowed = self.shadowed.iter().map(|fired| {
            let held = if fired.guard.ask.is_some() { "shadow_asked" } else { "shadow_denied" };
            (fired, held, "shadow_unanswered")
        });
        refused.chain(asked).chain(shadowed).map(|(fired, held, fault)| {
            (&*fired.guard.name, if fired.fault.is_none() { held } else { fault })
        })
    }
}

/// Checks that the body of a request is sent as it is.
///
/// # Errors
/// [`GuardRefusal::Encoded`].
pub fn unencoded(headers: &HeaderMap) -> Result<(), GuardRefusal> {
    let identity = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    let plain = headers.get_all(CONTENT_ENCODING).iter().all(identity);
    if plain { Ok(()) } else { Err(GuardRefusal::Encoded) }
}

/// The length that the head of a request declares for its body.
///
/// # Errors
/// [`GuardRefusal::TooLarge`] when it declares more than `most`.
pub fn declared_length(headers: &HeaderMap, most: usize) -> Result<Option<usize>, GuardRefusal> {
    if headers.contains_key(TRANSFER_ENCODING) {
        return Ok(None);
    }
    let Some(length) = headers.get(CONTENT_LENGTH) else { return Ok(None) };
    let length = length.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
    if length > most { Err(GuardRefusal::TooLarge) } else { Ok(Some(length)) }
}

/// Reads a body, whatever its content type says; none when there is nothing in it.
///
/// # Errors
/// [`GuardRefusal::NotJson`].
pub fn read(body: &[u8]) -> Result<Option<Value>, GuardRefusal> {
    if body.is_empty() {
        return Ok(None);
    }
    let value = caracal_mandates::json_value(body).filter(|value| is_plain(value, body));
    value.map(Some).ok_or(GuardRefusal::NotJson)
}

/// Whether every reader finds in these bytes what is in this value.
#[must_use]
pub fn is_plain(value: &Value, bytes: &[u8]) -> bool {
    is_unambiguous(value, 1) && numbers_survive(bytes)
}

/// At most 64 levels, and no names that a reader who overlooks case takes for one.
fn is_unambiguous(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => {
            depth <= MAX_DEPTH && items.iter().all(|item| is_unambiguous(item, depth.saturating_add(1)))
        }
        Value::Object(members) => {
            let mut names: Vec<String> = members.keys().map(|name| name.to_lowercase()).collect();
            names.sort_unstable();
            names.dedup();
            let inner = |value| is_unambiguous(value, depth.saturating_add(1));
            depth <= MAX_DEPTH && names.len() == members.len() && members.values().all(inner)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

/// Whether no number of a JSON text is beyond what a double or a 64-bit integer keeps.
fn numbers_survive(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        rest = match first {
            b'"' => behind_text(tail),
            b'-' | b'0'..=b'9' => {
                let part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
                let length = rest.iter().take_while(|byte| part(byte)).count();
                let (number, behind) = rest.split_at(length);
                if !survives(number) {
                    return false;
                }
                behind
            }
            _ => tail,
        };
    }
    true
}

/// What stands behind the text whose first quote was read.
fn behind_text(mut rest: &[u8]) -> &[u8] {
    while let Some((first, tail)) = rest.split_first() {
        match first {
            b'"' => return tail,
            b'\\' => rest = tail.split_first().map_or(tail, |(_, tail)| tail),
            _ => rest = tail,
        }
    }
    rest
}

fn survives(number: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(number) else { return false };
    if !text.contains(['.', 'e', 'E']) {
        return text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok();
    }
    let digits = text.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
    let significant = digits.trim_matches('0');
    let read = text.parse::<f64>().unwrap_or(f64::INFINITY);
    // A number too small to be told from nothing has become nothing.
    significant.len() <= DIGITS && read.is_finite() && (read.abs() > 0.0) != significant.is_empty()
}

/// Header fields as the upstream gets them, without slots of keys, cookies and what is for the connection alone.
#[must_use]
pub fn headers<'a>(resource: &Resource, sent: &'a HeaderMap) -> Vec<(&'a str, &'a [u8])> {
    let slots: Vec<&str> = slots::stripped(resource).collect();
    let connection: Vec<String> = sent
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|name| name.trim().to_ascii_lowercase()))
        .collect();
    let kept = |name: &str| {
        !slots.contains(&name)
            && !OVERRIDES.contains(&name)
            && name != COOKIE.as_str()
            && !connection.iter().any(|gone| gone == name)
    };
    let fields = sent.iter().filter(|(name, _)| kept(name.as_str()));
    fields.map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
}

/// Pairs of a query as the upstream reads them, without those that would carry a key; none when it can be read in two
/// ways.
#[must_use]
pub fn query(resource: &Resource, query: Option<&str>) -> Option<Vec<(String, String)>> {
    let query = query.unwrap_or_default();
    if query.contains(';') {
        return None;
    }
    let mut withheld: Vec<&str> = slots::query_slots(resource).collect();
    withheld.extend(resource.upstream.query.iter().map(|(name, _)| name.as_str()));
    if let Some(ProviderKind::ApiKeyQuery { param }) =
        resource.provider.as_ref().map(|provider| &provider.kind)
    {
        withheld.push(param);
    }
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = |text: &str| forward::decoded(&text.replace('+', " "));
        let (name, value) = (decoded(name)?, decoded(value)?);
        if !withheld.contains(&name.as_str()) {
            pairs.push((name, value));
        }
    }
    (pairs.len() <= MAX_PAIRS).then_some(pairs)
}

#[cfg(test)]
mod tests;
