//! Host and prefix to resource.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use caracal_policies::{Assigned, Problem, Zone};
use percent_encoding::percent_decode_str;

#[cfg(test)]
mod tests;

/// Where a host or prefix leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTarget {
    /// The zone's id.
    pub zone: Arc<str>,
    /// The resource's identifier.
    pub resource: Arc<str>,
}

/// The routes of one snapshot.
///
/// Shape: a prefix that `caracal.toml` gives to a zone stays that zone's even while no resource claims it: it is
/// kept without a target, so that another zone's shorter prefix does not receive its requests.
#[derive(Debug, Default)]
pub struct Routes {
    hosts: HashMap<Arc<str>, RouteTarget>,
    prefixes: HashMap<Box<str>, Option<RouteTarget>>,
    longest: usize,
}

impl Routes {
    /// Collects the claims of zones that [`misplaced`] found nothing wrong with.
    #[must_use]
    pub fn build<'a>(
        zones: impl IntoIterator<Item = &'a Arc<Zone>>,
        assigned: &BTreeMap<String, Assigned>,
    ) -> Self {
        let mut routes = Self::default();
        for prefix in assigned.values().flat_map(|zone| &zone.prefixes) {
            routes.prefixes.insert(plain(prefix).into(), None);
        }
        for zone in zones {
            for resource in zone.resources() {
                let target =
                    RouteTarget { zone: Arc::clone(zone.id()), resource: Arc::clone(&resource.identifier) };
                for host in &resource.hosts {
                    routes.hosts.insert(canonical_host(host).into(), target.clone());
                }
                for prefix in &resource.prefixes {
                    routes.prefixes.insert(plain(prefix).into(), Some(target.clone()));
                }
            }
        }
        routes.longest = routes.prefixes.keys().map(|prefix| prefix.len()).max().unwrap_or(0);
        routes
    }

    /// The resource a host leads to. `host` comes without a port; case and a dot at the end do not count.
    ///
    /// Cost: one hash; an allocation only when `host` is not in lower case.
    #[must_use]
    pub fn by_host(&self, host: &str) -> Option<&RouteTarget> {
        self.hosts.get(canonical_host(host).as_ref())
    }

    /// The resource of the longest prefix of a raw path, and the offset behind which the rest begins. The rest is
    /// empty or begins with `/`.
    ///
    /// Shape: a prefix ends where a segment ends. When decoding the path would lead to another prefix there is no
    /// match: two readings of one path must not reach two resources.
    ///
    /// Cost: one hash per segment, no further than the longest prefix there is.
    #[must_use]
    pub fn by_prefix(&self, raw_path: &str) -> Option<(&RouteTarget, usize)> {
        let (prefix, target) = self.longest(raw_path)?;
        if raw_path.contains('%') {
            let decoded = percent_decode_str(raw_path).decode_utf8().ok()?;
            let (canonical, _) = self.longest(&decoded)?;
            if canonical != prefix {
                return None;
            }
        }
        target.as_ref().map(|target| (target, prefix.len()))
    }

    fn longest(&self, path: &str) -> Option<(&str, &Option<RouteTarget>)> {
        if !path.starts_with('/') {
            return None;
        }
        let mut end = path.len();
        loop {
            if end <= self.longest
                && let Some((prefix, target)) = self.prefixes.get_key_value(path.get(..end)?)
            {
                return Some((prefix, target));
            }
            end = path.get(..end)?.rfind('/')?;
        }
    }
}

/// Prefixes of a zone that `caracal.toml` gives to another zone: zone `a` has `/`, zone `b` has `/b`, and a
/// resource of `a` claims `/b/x`. The compiler sees one zone at a time and cannot know.
#[must_use]
pub fn misplaced(zone: &Zone, assigned: &BTreeMap<String, Assigned>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for resource in zone.resources() {
        for prefix in &resource.prefixes {
            match prefix_owner(plain(prefix), assigned) {
                Some(owner) if *owner == **zone.id() => {}
                owner => problems.push(Problem {
                    code: "route_of_another_zone",
                    place: resource.place.clone(),
                    message: "this prefix belongs to another zone".to_owned(),
                    found: format!("`{prefix}`, given to `{}`", owner.unwrap_or("nobody")),
                    expected: format!("a prefix that caracal.toml gives to `{}`", zone.id()),
                    hint: "the longest prefix in caracal.toml decides whose a path is".to_owned(),
                }),
            }
        }
    }
    problems
}

/// The zone with the longest prefix that covers `claim`.
fn prefix_owner<'a>(claim: &str, assigned: &'a BTreeMap<String, Assigned>) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for (id, zone) in assigned {
        for prefix in zone.prefixes.iter().map(|prefix| plain(prefix)) {
            let covers =
                claim.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            if covers && best.is_none_or(|(length, _)| prefix.len() > length) {
                best = Some((prefix.len(), id));
            }
        }
    }
    best.map(|(_, id)| id)
}

/// A prefix as it is compared: `/` is the empty one.
fn plain(prefix: &str) -> &str {
    prefix.strip_suffix('/').unwrap_or(prefix)
}

/// A host as it is compared.
fn canonical_host(host: &str) -> Cow<'_, str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}
