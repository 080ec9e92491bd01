//! Routes: only what the zone was given, and each for one resource.

use foldhash::{HashMap, HashMapExt};

use crate::draft::Drafts;
use crate::read::PlacedName;
use crate::report::{Place, Problem, Problems, one_of};
use crate::source::Assigned;

/// Reports hosts and prefixes that were not assigned, and those claimed twice.
pub(super) fn check(drafts: &Drafts, assigned: &Assigned, problems: &Problems) {
    let mut hosts = HashMap::new();
    let mut prefixes = HashMap::new();
    for resource in drafts.each(|draft| &draft.resources) {
        for host in &resource.hosts {
            if !assigned.hosts.iter().any(|given| given.as_str() == &*host.value) {
                problems.push(unassigned("host", host, &assigned.hosts));
            }
            claim("host", host, &mut hosts, problems);
        }
        for prefix in &resource.prefixes {
            if !assigned.prefixes.iter().any(|given| is_beneath(&prefix.value, given)) {
                problems.push(unassigned("prefix", prefix, &assigned.prefixes));
            }
            claim("prefix", prefix, &mut prefixes, problems);
        }
    }
}

/// Whether a prefix is the given one or continues it after a slash.
fn is_beneath(prefix: &str, given: &str) -> bool {
    prefix
        .strip_prefix(given.trim_end_matches('/'))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn unassigned(what: &str, route: &PlacedName, given: &[String]) -> Problem {
    Problem::new("route_unassigned", &route.place, format!("this {what} was not given to the zone"))
        .found(format!("`{}`", route.value))
        .expected(one_of(given.iter().map(String::as_str)))
        .hint("caracal.toml gives each zone its hosts and prefixes")
}

fn claim<'d>(
    what: &str,
    route: &'d PlacedName,
    claimed: &mut HashMap<&'d str, &'d Place>,
    problems: &Problems,
) {
    if let Some(first) = claimed.get(&*route.value) {
        problems.push(
            Problem::new("route_taken", &route.place, format!("this {what} is claimed twice"))
                .found(format!("`{}`, also at {first}", route.value))
                .expected("each route for one resource")
                .hint("take it from one of the two"),
        );
    } else {
        claimed.insert(&route.value, &route.place);
    }
}

#[cfg(test)]
mod tests {
    use super::is_beneath;

    #[test]
    fn a_prefix_is_given_with_everything_beneath_it() {
        for (prefix, given) in [("/a", "/a"), ("/a/b", "/a"), ("/a/b", "/a/"), ("/", "/"), ("/x", "/")] {
            assert!(is_beneath(prefix, given), "{prefix} in {given}");
        }
        for (prefix, given) in [("/ab", "/a"), ("/", "/a"), ("/a", "/a/b"), ("/A", "/a")] {
            assert!(!is_beneath(prefix, given), "{prefix} in {given}");
        }
    }
}
