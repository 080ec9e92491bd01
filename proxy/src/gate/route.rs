//! Head to [`Matched`]: which zone and resource a request addresses, and on which path.
//!
//! With `X-Caracal-Resource` the path is taken whole and prefixes are not looked at; the zone is the one the
//! mandate names and is checked again once its signature is verified. Without the header the host decides,
//! then the longest prefix, which must match raw and decoded path alike. There is no default route.

use std::sync::Arc;

use caracal_policies::Resource;

use super::head::{Head, Host};
use super::refusal::Refusal;
use crate::snapshot::{LiveZone, RouteTarget, Snapshot};

/// How the resource was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutedBy {
    /// `X-Caracal-Resource`.
    Header,
    /// The host.
    Host,
    /// The first path segments.
    Prefix,
}

/// What a request addresses. Made only by [`find`].
#[derive(Clone, Debug)]
pub struct Matched<'a> {
    zone: Arc<LiveZone>,
    /// `None` when the zone has no resource of that name: answered exactly like one that is not granted.
    resource: Option<Arc<Resource>>,
    named: &'a str,
    by: RoutedBy,
    host: Host,
    cut: usize,
}

impl<'a> Matched<'a> {
    /// The zone whose policy and keys apply.
    #[must_use]
    pub fn zone(&self) -> &Arc<LiveZone> {
        &self.zone
    }

    /// The resource, if the zone has it.
    #[must_use]
    pub fn resource(&self) -> Option<&Arc<Resource>> {
        self.resource.as_ref()
    }

    /// The resource as named by the request or the route.
    #[must_use]
    pub fn named(&self) -> &str {
        self.resource.as_ref().map_or(self.named, |resource| &resource.identifier)
    }

    /// How it was named.
    #[must_use]
    pub fn by(&self) -> RoutedBy {
        self.by
    }

    /// The addressed host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The path relative to the resource: what is decided on and forwarded.
    #[must_use]
    pub fn path(&self, head: &Head<'a>) -> &'a str {
        let rest = head.path().get(self.cut..).unwrap_or_default();
        if rest.is_empty() { "/" } else { rest }
    }
}

/// The resource header, trimmed; `None` when it is absent.
///
/// # Errors
/// [`Refusal::ResourceMissing`] when it is empty, repeated or not text.
pub fn resource_header<'a>(head: &Head<'a>) -> Result<Option<&'a str>, Refusal> {
    let value = head.single("x-caracal-resource").map_err(|()| Refusal::ResourceMissing)?;
    let Some(value) = value else { return Ok(None) };
    let text = std::str::from_utf8(value).map_err(|_not_text| Refusal::ResourceMissing)?.trim();
    if text.is_empty() { Err(Refusal::ResourceMissing) } else { Ok(Some(text)) }
}

/// Finds the resource of a request that names it in the header, in the zone its mandate claims.
///
/// # Errors
/// [`Refusal::TokenInvalid`] for a zone this process does not serve; [`Refusal::ResourceConflict`] when the
/// host is routed to another resource.
pub fn by_header<'a>(
    snapshot: &Snapshot,
    host: Host,
    named: &'a str,
    claimed_zone: &str,
) -> Result<Matched<'a>, Refusal> {
    let zone = snapshot.zones.get(claimed_zone).ok_or(Refusal::TokenInvalid)?;
    let resource = zone.zone.resource(named).cloned();
    if let Some(target) = snapshot.routes.by_host(&host.name) {
        let same = *target.zone == *claimed_zone
            && resource.as_ref().is_some_and(|resource| resource.identifier == target.resource);
        if !same {
            return Err(Refusal::ResourceConflict);
        }
    }
    Ok(Matched { zone: Arc::clone(zone), resource, named, by: RoutedBy::Header, host, cut: 0 })
}

/// Finds the resource of a request that names none: by host, then by the longest prefix.
///
/// # Errors
/// [`Refusal::Misdirected`] when nothing is routed there; [`Refusal::PathMalformed`] when the prefix of the raw
/// and of the decoded path differ.
pub fn by_address<'a>(snapshot: &Snapshot, host: Host, head: &Head<'a>) -> Result<Matched<'a>, Refusal> {
    if let Some(target) = snapshot.routes.by_host(&host.name) {
        return matched(snapshot, target, RoutedBy::Host, host, 0);
    }
    let raw = snapshot.routes.by_prefix(head.path());
    let decoded = percent_encoding::percent_decode_str(head.path()).decode_utf8().ok();
    let canonical = decoded.as_deref().and_then(|path| snapshot.routes.by_prefix(path));
    match (raw, canonical) {
        (Some((target, cut)), Some((same, cut_too))) if std::ptr::eq(target, same) && cut == cut_too => {
            matched(snapshot, target, RoutedBy::Prefix, host, cut)
        }
        (None, None) => Err(Refusal::Misdirected),
        _ => Err(Refusal::PathMalformed),
    }
}

/// What stands in front of the resource's own paths where the request was routed; empty without a prefix.
#[must_use]
pub fn prefix<'a>(snapshot: &Snapshot, host: &Host, head: &Head<'a>) -> Option<&'a str> {
    if head.headers.contains_key("x-caracal-resource") || snapshot.routes.by_host(&host.name).is_some() {
        return Some("");
    }
    let (_, cut) = snapshot.routes.by_prefix(head.path())?;
    head.path().get(..cut)
}

fn matched<'a>(
    snapshot: &Snapshot,
    target: &RouteTarget,
    by: RoutedBy,
    host: Host,
    cut: usize,
) -> Result<Matched<'a>, Refusal> {
    let zone = snapshot.zones.get(&target.zone).ok_or(Refusal::Misdirected)?;
    let resource = zone.zone.resource(&target.resource).cloned().ok_or(Refusal::Misdirected)?;
    Ok(Matched { zone: Arc::clone(zone), resource: Some(resource), named: "", by, host, cut })
}
