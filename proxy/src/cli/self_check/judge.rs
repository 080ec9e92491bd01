//! What reached the upstream against what should have.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use caracal_policies::ProviderKind;
use http::HeaderMap;

use super::Probe;

/// A request as the upstream got it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
}

/// Where something stands, for the words of a finding.
const IDENTITY: &str = "x-caracal-identity";

/// What is wrong with a request that carried `token` in every slot and should have got `secret`; nothing when all is well.
/// No finding repeats either.
pub(super) fn judge(probe: &Probe, seen: &Seen, token: &str, secret: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for place in places(seen, token) {
        wrong.push(format!("the caller's token reached the upstream in {place}"));
    }
    let kind = probe.provider.as_ref().map_or(&ProviderKind::CaracalMandate, |provider| &provider.kind);
    // Where the credential stands, its whole value there, and what of it must stand nowhere else.
    let basic = |user: &str| STANDARD.encode(format!("{user}:{secret}"));
    let expected = match kind {
        ProviderKind::None | ProviderKind::CaracalMandate | ProviderKind::ServiceToken(_) => None,
        ProviderKind::ApiKeyHeader { name, scheme: Some(scheme) } => {
            Some((name.as_str(), format!("{scheme} {secret}")))
        }
        ProviderKind::ApiKeyHeader { name, scheme: None } => Some((name.as_str(), secret.to_owned())),
        ProviderKind::ApiKeyQuery { .. } => None,
        ProviderKind::BearerToken { header, scheme } => Some((header.as_str(), format!("{scheme} {secret}"))),
        ProviderKind::HttpBasic { username } => Some(("authorization", format!("Basic {}", basic(username)))),
    };
    if let Some((name, value)) = &expected
        && !is_alone(&seen.headers, name, value)
    {
        wrong.push(format!("the credential is not in the header field `{name}`, or not alone there"));
    }
    if let ProviderKind::ApiKeyQuery { param } = kind {
        let pair = format!(
            "{param}={}",
            percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC)
        );
        let query = seen.target.split_once('?').map_or("", |(_, query)| query);
        let named = |pair: &&str| pair.split_once('=').map_or(**pair == *param, |(name, _)| name == param);
        if query.split('&').filter(named).collect::<Vec<_>>() != [pair.as_str()] {
            wrong.push(format!("the credential is not in the query as `{param}`, or not alone there"));
        }
    }
    let place = expected.as_ref().map(|(name, _)| header_place(name));
    let query = matches!(kind, ProviderKind::ApiKeyQuery { .. }).then(|| TARGET.to_owned());
    for found in places(seen, secret)
        .into_iter()
        .filter(|found| place.as_ref() != Some(found) && query.as_ref() != Some(found))
    {
        wrong.push(format!("the credential also stands in {found}"));
    }
    if *kind == ProviderKind::CaracalMandate && !is_mandate(&seen.headers, "authorization", "Bearer ", token)
    {
        wrong.push("there is no mandate for the upstream in `authorization`".to_owned());
    }
    let bare = !matches!(kind, ProviderKind::CaracalMandate)
        && expected.as_ref().is_none_or(|(name, _)| *name != "authorization");
    if bare && seen.headers.contains_key(http::header::AUTHORIZATION) {
        wrong.push("`authorization` reached the upstream, and the provider puts nothing there".to_owned());
    }
    let identity = probe.provider.as_ref().is_some_and(|provider| provider.forward_caracal_identity)
        && *kind != ProviderKind::CaracalMandate;
    if identity && !is_mandate(&seen.headers, IDENTITY, "", token) {
        wrong.push(format!("there is no mandate for the upstream in `{IDENTITY}`"));
    }
    let own = |name: &str| name.starts_with("x-caracal-") && !(identity && name == IDENTITY);
    for name in seen.headers.keys().filter(|name| own(name.as_str())) {
        wrong.push(format!("the edge's own header field `{name}` reached the upstream"));
    }
    wrong
}

const TARGET: &str = "the path or query";

fn header_place(name: &str) -> String {
    format!("the header field `{name}`")
}

/// Where a text stands in a request.
fn places(seen: &Seen, text: &str) -> Vec<String> {
    let holds = |bytes: &[u8]| bytes.windows(text.len().max(1)).any(|window| window == text.as_bytes());
    let fields = seen.headers.iter().filter(|(_, value)| holds(value.as_bytes()));
    let mut places: Vec<String> = fields.map(|(name, _)| header_place(name.as_str())).collect();
    let plain: Vec<u8> = percent_encoding::percent_decode_str(&seen.target).collect();
    if holds(seen.target.as_bytes()) || holds(&plain) {
        places.push(TARGET.to_owned());
    }
    places
}

fn is_alone(headers: &HeaderMap, name: &str, value: &str) -> bool {
    let mut values = headers.get_all(name).iter();
    values.next().is_some_and(|found| found.as_bytes() == value.as_bytes()) && values.next().is_none()
}

/// Whether a field holds one JWS, and not the caller's.
fn is_mandate(headers: &HeaderMap, name: &str, scheme: &str, token: &str) -> bool {
    let mut values = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default());
    let first = values.next().and_then(|value| value.strip_prefix(scheme));
    let jws = |text: &str| text.starts_with("eyJ") && text.split('.').count() == 3 && text != token;
    first.is_some_and(jws) && values.next().is_none()
}
