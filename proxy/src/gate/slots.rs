//! Where a mandate may stand in a request, and how it is taken out again.
//!
//! An unmodified API client puts its "key" where its provider wants it: `Authorization`, `x-api-key`, the
//! password of HTTP Basic, a query parameter. The route fixes which of these are read; all header slots are
//! stripped from every request whatever was read.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caracal_policies::{KeySlot, Provider, Resource};
use http::{HeaderName, HeaderValue};

use super::head::Head;
use super::refusal::Refusal;
use super::route::{Matched, RoutedBy};

/// Header fields that are never forwarded, because some API client keeps its key there.
const STRIPPED: [&str; 8] = [
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "x-auth-token",
    "private-token",
    "x-caracal-mandate",
];

/// Longest mandate that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 4_096;

/// Every header field of a request to this resource that may hold a mandate.
pub fn stripped(resource: &Resource) -> impl Iterator<Item = &str> {
    stripped_by(resource.provider.as_deref())
}

/// As [`stripped`], of any resource with this provider.
pub fn stripped_by(provider: Option<&Provider>) -> impl Iterator<Item = &str> {
    let declared = provider.into_iter().flat_map(|provider| &provider.key_slots);
    let declared = declared.filter_map(|slot| match slot {
        KeySlot::Header(name) | KeySlot::Bearer(name) => Some(name.as_str()),
        KeySlot::BasicUser | KeySlot::BasicPassword | KeySlot::Query(_) => None,
    });
    STRIPPED.into_iter().chain(declared)
}

/// Whether the presented token also stands where it would be forwarded: in the path, in a query pair or header
/// field that is no slot of this resource.
///
/// Cost: a length comparison for every field that is shorter than a token, which is nearly all of them.
#[must_use]
pub fn misplaced(head: &Head<'_>, resource: Option<&Resource>, token: &str) -> bool {
    let slot = |name: &str| match resource {
        Some(resource) => stripped(resource).any(|slot| slot == name),
        None => STRIPPED.contains(&name),
    };
    let in_header =
        |(name, value): (&HeaderName, &HeaderValue)| holds(value.as_bytes(), token) && !slot(name.as_str());
    let queries: Vec<&str> = resource.into_iter().flat_map(query_slots).collect();
    let in_query =
        |pair: &str| holds(pair.as_bytes(), token) && !queries.iter().any(|name| names(pair, name));
    holds(head.path().as_bytes(), token)
        || head.query().is_some_and(|query| query.split('&').any(in_query))
        || head.headers.iter().any(in_header)
}

/// Whether `bytes` hold the token anywhere.
pub(super) fn holds(bytes: &[u8], token: &str) -> bool {
    bytes.len() >= token.len() && bytes.windows(token.len()).any(|window| window == token.as_bytes())
}

/// The query parameters of a resource that may hold a mandate, and never reach the upstream.
pub(super) fn query_slots(resource: &Resource) -> impl Iterator<Item = &str> {
    let declared = resource.provider.iter().flat_map(|provider| &provider.key_slots);
    declared.filter_map(|slot| match slot {
        KeySlot::Query(name) => Some(name.as_str()),
        KeySlot::Header(_) | KeySlot::Bearer(_) | KeySlot::BasicUser | KeySlot::BasicPassword => None,
    })
}

fn names(pair: &str, name: &str) -> bool {
    let key = pair.split_once('=').map_or(pair, |(key, _)| key);
    percent_encoding::percent_decode_str(key).decode_utf8().is_ok_and(|key| key == name)
}

/// The bearer in `Authorization`: the scheme in any case, one space, a non-empty value.
///
/// # Errors
/// [`Refusal::TokenMissing`] when there is none; [`Refusal::SlotConflict`] for a repeated header;
/// [`Refusal::TokenOversized`].
pub fn bearer<'a>(head: &Head<'a>) -> Result<&'a str, Refusal> {
    let value = head.single("authorization").map_err(|()| Refusal::SlotConflict)?;
    let token = value.and_then(bearer_value).ok_or(Refusal::TokenMissing)?;
    capped(token)
}

/// The mandate of a request whose route is known, from any slot that route reads.
///
/// # Errors
/// As [`bearer`], and [`Refusal::SlotConflict`] when two slots carry different tokens.
pub fn extract<'a>(head: &Head<'a>, matched: &Matched<'a>) -> Result<Cow<'a, str>, Refusal> {
    let resource = match (matched.by(), matched.resource()) {
        (RoutedBy::Header, _) | (_, None) => return bearer(head).map(Cow::Borrowed),
        (RoutedBy::Host | RoutedBy::Prefix, Some(resource)) => resource,
    };
    let mut found: Option<Cow<'a, str>> = None;
    let mut take = |token: Cow<'a, str>| match &found {
        Some(other) if **other != *token => Err(Refusal::SlotConflict),
        Some(_) => Ok(()),
        None => {
            found = Some(token);
            Ok(())
        }
    };
    let authorization = head.single("authorization").map_err(|()| Refusal::SlotConflict)?;
    if let Some(token) = authorization.and_then(bearer_value) {
        take(Cow::Borrowed(token))?;
    }
    let declared = resource.provider.as_ref().map_or(&[][..], |provider| &provider.key_slots);
    for slot in declared {
        if matches!(slot, KeySlot::Query(_)) && !resource.query_key_slots {
            continue;
        }
        if let Some(token) = read(head, slot)? {
            take(token)?;
        }
    }
    let token = found.ok_or(Refusal::TokenMissing)?;
    if token.len() > MAX_TOKEN_BYTES { Err(Refusal::TokenOversized) } else { Ok(token) }
}

fn read<'a>(head: &Head<'a>, slot: &KeySlot) -> Result<Option<Cow<'a, str>>, Refusal> {
    let header = |name: &str| head.single(name).map_err(|()| Refusal::SlotConflict);
    Ok(match slot {
        KeySlot::Header(name) => header(name)?.and_then(text).map(Cow::Borrowed),
        KeySlot::Bearer(name) => header(name)?.and_then(bearer_value).map(Cow::Borrowed),
        KeySlot::BasicUser => basic(header("authorization")?).and_then(|(user, _)| shaped(user)),
        KeySlot::BasicPassword => basic(header("authorization")?).and_then(|(_, password)| shaped(password)),
        KeySlot::Query(name) => head.query().and_then(|query| query_value(query, name)),
    })
}

fn bearer_value(value: &[u8]) -> Option<&str> {
    let (scheme, token) = text(value)?.split_once(' ')?;
    let fits = scheme.eq_ignore_ascii_case("bearer") && !token.starts_with(' ');
    Some(token.trim()).filter(|token| fits && !token.is_empty())
}

fn basic(value: Option<&[u8]>) -> Option<(String, String)> {
    let (scheme, encoded) = text(value?)?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    decoded.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

fn query_value<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = percent_encoding::percent_decode_str(key).decode_utf8().ok()?;
        let value = percent_encoding::percent_decode_str(value).decode_utf8().ok()?;
        (key == name && !value.is_empty()).then_some(value)
    })
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().map(str::trim).filter(|text| !text.is_empty())
}

/// One half of Basic credentials, if it has the three parts of a mandate: the other half then holds whatever a
/// client puts there, such as `x-oauth-basic` or a user name.
fn shaped<'a>(value: String) -> Option<Cow<'a, str>> {
    (value.split('.').count() == 3).then_some(Cow::Owned(value))
}

fn capped(token: &str) -> Result<&str, Refusal> {
    if token.len() > MAX_TOKEN_BYTES { Err(Refusal::TokenOversized) } else { Ok(token) }
}
