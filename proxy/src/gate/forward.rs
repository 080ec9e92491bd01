//! Permit and credential to the upstream head: what is removed, what is set, and the exact target.
//!
//! Path and query go upstream byte for byte as they were decided on. Only pairs that would compete with the
//! operator's own query keys are taken out. The result is a list of changes, because the listener applies it
//! to a fresh copy of the request head on every attempt.

use std::net::IpAddr;

use caracal_policies::{Enforcement, Permit, ProviderKind, Resource, Scheme};
use http::header::{ACCEPT_ENCODING, COOKIE, HOST, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::credential::Credential;
use super::head::{Head, Host};
use super::refusal::Refusal;
use super::slots;

/// Headers that let a request change its method or path behind the decision's back.
pub(super) const OVERRIDES: [&str; 5] =
    ["x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url"];

/// The changes that turn the caller's head into the upstream's.
#[derive(Debug)]
pub struct UpstreamHead {
    /// Origin-form target.
    pub target: String,
    /// Fields to take out.
    pub remove: Vec<HeaderName>,
    /// Fields to set, replacing what is there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Permitted method; the listener compares it with what it is about to send.
    pub method: String,
}

impl UpstreamHead {
    /// Asks for a body as it is and as a whole: one that is encoded or cut into ranges cannot be searched.
    pub fn ask_plainly(&mut self) {
        self.set.retain(|(name, _)| *name != RANGE && *name != IF_RANGE);
        self.remove.extend([RANGE, IF_RANGE]);
        self.set.push((ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    }
}

/// What the upstream learns about the caller's connection.
#[derive(Clone, Debug)]
pub struct Via<'a> {
    /// The source address.
    pub peer: IpAddr,
    /// Whether the caller used TLS.
    pub tls: bool,
    /// The host the caller addressed.
    pub host: &'a Host,
    /// The request id.
    pub request_id: &'a str,
}

/// Builds the upstream head. Takes the permit by value: one permit, one forwarded request.
///
/// `headers` are the caller's fields after the request plugins, if any ran.
///
/// # Errors
/// [`Refusal::PathMalformed`] for a query that cannot be read in one way; [`Refusal::TokenMisplaced`] when the
/// presented token would reach the upstream: the caller's head was searched before, this is what plugins made
/// of it.
#[expect(clippy::needless_pass_by_value, reason = "a permit is good for one forwarded request")]
pub fn plan(
    permit: Permit,
    credential: &Credential,
    head: &Head<'_>,
    headers: Option<&HeaderMap>,
    token: &str,
    via: &Via<'_>,
) -> Result<UpstreamHead, Refusal> {
    let resource = permit.resource();
    let sent = headers.unwrap_or(head.headers);
    let mut remove = removals(resource, sent, credential);
    let mut set = plugin_changes(head.headers, headers, &mut remove);
    let target = target(&permit, credential)?;
    misplaced(token, sent, &remove, &target)?;
    if let Some(cookies) = kept_cookies(resource, sent, credential) {
        set.push((COOKIE, cookies));
    }
    set.extend(trace(sent, &mut remove));
    set.push((HOST, value(&resource.upstream.authority())?));
    set.push((HeaderName::from_static("x-request-id"), value(via.request_id)?));
    set.push((HeaderName::from_static("x-forwarded-for"), value(&via.peer.to_string())?));
    let scheme = if via.tls { "https" } else { "http" };
    set.push((HeaderName::from_static("x-forwarded-proto"), HeaderValue::from_static(scheme)));
    set.push((HeaderName::from_static("x-forwarded-host"), value(&via.host.authority)?));
    if let Some(identity) = &credential.identity {
        set.push((HeaderName::from_static("x-caracal-identity"), identity.clone()));
    }
    if let Some(header) = &credential.header {
        set.push(header.clone());
    }
    Ok(UpstreamHead { target, remove, set, method: permit.method().to_owned() })
}

fn removals(resource: &Resource, sent: &HeaderMap, credential: &Credential) -> Vec<HeaderName> {
    let slots: Vec<&str> = slots::stripped(resource).collect();
    let enforced = resource.enforcement == Enforcement::Enforced;
    sent.keys()
        .filter(|name| {
            let name = name.as_str();
            name.starts_with("x-caracal-")
                || name.starts_with("x-forwarded-")
                || matches!(name, "forwarded" | "x-real-ip")
                || slots.contains(&name)
                || (enforced && OVERRIDES.contains(&name))
                || (name == "cookie" && credential.injects())
        })
        .cloned()
        .collect()
}

/// The plugins' changes, as removals and sets on the caller's own head. A plugin sets a field to one value.
fn plugin_changes(
    before: &HeaderMap,
    after: Option<&HeaderMap>,
    remove: &mut Vec<HeaderName>,
) -> Vec<(HeaderName, HeaderValue)> {
    let Some(after) = after else { return Vec::new() };
    remove.extend(before.keys().filter(|name| !after.contains_key(*name)).cloned());
    let changed = after.keys().filter(|name| !before.get_all(*name).iter().eq(after.get_all(*name).iter()));
    changed.filter_map(|name| after.get(name).map(|value| (name.clone(), value.clone()))).collect()
}

/// Cookies the resource lets through by name, where a credential is injected.
fn kept_cookies(resource: &Resource, sent: &HeaderMap, credential: &Credential) -> Option<HeaderValue> {
    if !credential.injects() || resource.cookies.is_empty() {
        return None;
    }
    let fields = sent.get_all(COOKIE).iter().filter_map(|field| field.to_str().ok());
    let pairs = fields.flat_map(|field| field.split(';')).map(str::trim).filter(|pair| {
        let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
        resource.cookies.iter().any(|kept| kept == name)
    });
    let kept: Vec<&str> = pairs.collect();
    if kept.is_empty() { None } else { HeaderValue::from_str(&kept.join("; ")).ok() }
}

/// Path and query as they go upstream for this one as it was decided on, without a key in them.
///
/// # Errors
/// [`Refusal::PathMalformed`] for a query that cannot be read in one way.
pub fn target_without_key(resource: &Resource, decided: &str) -> Result<String, Refusal> {
    joined(resource, decided, None)
}

fn target(permit: &Permit, credential: &Credential) -> Result<String, Refusal> {
    let injected = credential.query.as_ref().map(|(name, secret)| format!("{name}={}", **secret));
    joined(permit.resource(), permit.target(), injected.as_deref())
}

fn joined(resource: &Resource, decided: &str, injected: Option<&str>) -> Result<String, Refusal> {
    let (path, query) = match decided.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (decided, None),
    };
    let base = resource.upstream.base_path.as_str();
    let mut target = match (base, path) {
        ("", path) => path.to_owned(),
        (base, "" | "/") => base.to_owned(),
        (base, path) => format!("{base}{path}"),
    };
    let mut pairs: Vec<&str> = resource.upstream.query.iter().map(|(_, raw)| raw.as_str()).collect();
    let kept = query.map(|query| own_pairs(resource, query)).transpose()?;
    let only_copied = pairs.is_empty() && injected.is_none();
    match (&kept, query) {
        // Nothing to merge: not a byte of the query is touched, a trailing `?` included.
        (Some(None), Some(query)) if only_copied => {
            target.push('?');
            target.push_str(query);
            return Ok(target);
        }
        (Some(None), Some(query)) => pairs.push(query),
        (Some(Some(kept)), _) => pairs.extend(kept.iter().copied()),
        _ => {}
    }
    pairs.extend(injected);
    pairs.retain(|pair| !pair.is_empty());
    if !pairs.is_empty() {
        target.push('?');
        target.push_str(&pairs.join("&"));
    }
    Ok(target)
}

/// The caller's pairs without those that would compete with the operator's; `None` when none has to go.
fn own_pairs<'a>(resource: &Resource, query: &'a str) -> Result<Option<Vec<&'a str>>, Refusal> {
    let mut reserved: Vec<&str> = resource.upstream.query.iter().map(|(name, _)| name.as_str()).collect();
    if let Some(provider) = &resource.provider {
        if let ProviderKind::ApiKeyQuery { param } = &provider.kind {
            reserved.push(param);
        }
        reserved.extend(slots::query_slots(resource));
    }
    if reserved.is_empty() {
        return Ok(None);
    }
    if query.contains(';') {
        return Err(Refusal::PathMalformed);
    }
    let mut kept = Vec::new();
    for pair in query.split('&') {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name).replace('+', " ");
        let name = decoded(&name).ok_or(Refusal::PathMalformed)?;
        if !reserved.contains(&name.as_str()) {
            kept.push(pair);
        }
    }
    Ok(Some(kept))
}

/// Percent-decodes text strictly: `None` for a stray `%` or for bytes that are not UTF-8.
pub(super) fn decoded(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let strict = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%').all(|(at, _)| {
        let digit = |offset: usize| {
            at.checked_add(offset).and_then(|index| bytes.get(index)).is_some_and(u8::is_ascii_hexdigit)
        };
        digit(1) && digit(2)
    });
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8().ok()?;
    strict.then(|| decoded.into_owned())
}

/// Refuses a request whose token also stands where it would be forwarded.
fn misplaced(token: &str, sent: &HeaderMap, remove: &[HeaderName], target: &str) -> Result<(), Refusal> {
    let holds = |bytes: &[u8]| slots::holds(bytes, token);
    let in_header =
        sent.iter().any(|(name, value)| holds(value.as_bytes()) && !remove.contains(name) && name != COOKIE);
    let in_cookie = !remove.contains(&COOKIE) && sent.get_all(COOKIE).iter().any(|v| holds(v.as_bytes()));
    if in_header || in_cookie || holds(target.as_bytes()) { Err(Refusal::TokenMisplaced) } else { Ok(()) }
}

/// A valid `traceparent` is kept, anything else replaced; `caracal.*` baggage members are taken out.
fn trace(sent: &HeaderMap, remove: &mut Vec<HeaderName>) -> Vec<(HeaderName, HeaderValue)> {
    let mut set = Vec::new();
    let traceparent = HeaderName::from_static("traceparent");
    let kept = sent.get(&traceparent).and_then(|value| value.to_str().ok()).is_some_and(valid_traceparent);
    if !kept {
        let ids = uuid::Uuid::new_v4();
        let parent = uuid::Uuid::new_v4().simple().to_string();
        let parent = parent.get(..16).unwrap_or_default();
        if let Ok(value) = HeaderValue::from_str(&format!("00-{}-{parent}-01", ids.simple())) {
            set.push((traceparent, value));
        }
    }
    let baggage = HeaderName::from_static("baggage");
    if sent.contains_key(&baggage) {
        let fields = sent.get_all(&baggage).iter().filter_map(|field| field.to_str().ok());
        let members = fields.flat_map(|field| field.split(',')).map(str::trim);
        let kept: Vec<&str> =
            members.filter(|member| !member.is_empty() && !member.starts_with("caracal.")).collect();
        match HeaderValue::from_str(&kept.join(",")) {
            Ok(value) if !kept.is_empty() => set.push((baggage, value)),
            _ => remove.push(baggage),
        }
    }
    set
}

/// Whether a `traceparent` is well-formed (W3C Trace Context section 3.2).
#[must_use]
pub fn valid_traceparent(text: &str) -> bool {
    let fields: Vec<&str> = text.split('-').collect();
    let hex = |field: &str, len: usize| {
        field.len() == len && field.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    match fields.as_slice() {
        [version, trace, parent, flags, rest @ ..] => {
            hex(version, 2)
                && *version != "ff"
                && (*version != "00" || rest.is_empty())
                && hex(trace, 32)
                && trace.bytes().any(|byte| byte != b'0')
                && hex(parent, 16)
                && parent.bytes().any(|byte| byte != b'0')
                && hex(flags, 2)
        }
        _ => false,
    }
}

fn value(text: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_str(text).map_err(|_invalid| Refusal::Internal)
}

/// Whether the upstream is spoken to with TLS.
#[must_use]
pub fn tls(resource: &Resource) -> bool {
    resource.upstream.scheme == Scheme::Https
}
