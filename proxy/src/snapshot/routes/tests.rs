use caracal_policies::{BundleSource, SourceFile, compile};

use super::*;

fn assigned(zones: &[(&str, &[&str], &[&str])]) -> BTreeMap<String, Assigned> {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    zones
        .iter()
        .map(|(id, hosts, prefixes)| {
            ((*id).to_owned(), Assigned { hosts: owned(hosts), prefixes: owned(prefixes) })
        })
        .collect()
}

/// A zone whose resources are called after the prefix or host each claims.
fn zone(id: &str, hosts: &[&str], prefixes: &[&str], given: &BTreeMap<String, Assigned>) -> Arc<Zone> {
    let resource = |key: &str, claim: &str| {
        format!(
            "[[resources]]\nidentifier = \"resource://{claim}\"\nupstream_url = \"http://127.0.0.1:1\"\n\
             scopes = [\"a:b\"]\noperation_enforcement = \"transport_uniform\"\n{key} = [\"{claim}\"]\n"
        )
    };
    let mut text = format!("schema = 1\n[zone]\nid = \"{id}\"\nname = \"{id}\"\n");
    text.extend(hosts.iter().map(|host| resource("hosts", host)));
    text.extend(prefixes.iter().map(|prefix| resource("prefixes", prefix)));
    let path = format!("{id}.toml");
    let source = BundleSource { root: path.clone(), files: vec![SourceFile { path, text }] };
    Arc::new(compile(&source, id, &given[id]).unwrap_or_else(|report| panic!("{report}")))
}

fn two_zones() -> Routes {
    let given = assigned(&[("a", &["a.example"], &["/", "/api"]), ("b", &["b.example"], &["/b", "/api/b"])]);
    let a = zone("a", &["a.example"], &["/", "/api", "/api/v1"], &given);
    let b = zone("b", &["b.example"], &["/api/b"], &given);
    Routes::build([&a, &b], &given)
}

#[test]
fn hosts_are_found_in_every_spelling() {
    let routes = two_zones();
    for host in ["a.example", "A.Example", "a.example.", "A.EXAMPLE."] {
        let target = routes.by_host(host).unwrap();
        assert_eq!((&*target.zone, &*target.resource), ("a", "resource://a.example"), "{host}");
    }
    for host in ["", ".", "a.example..", "x.a.example", "a.example:80", "c.example"] {
        assert_eq!(routes.by_host(host), None, "{host}");
    }
}

#[test]
fn the_longest_prefix_that_ends_with_a_segment_wins() {
    let routes = two_zones();
    let cases = [
        ("/", Some(("resource:///", 0))),
        ("/x/y", Some(("resource:///", 0))),
        ("/api", Some(("resource:///api", 4))),
        ("/api/", Some(("resource:///api", 4))),
        ("/api/v2", Some(("resource:///api", 4))),
        ("/api/v1", Some(("resource:///api/v1", 7))),
        ("/api/v1/x", Some(("resource:///api/v1", 7))),
        ("/api/v10", Some(("resource:///api", 4))),
        ("/apis", Some(("resource:///", 0))),
        ("/API/v1", Some(("resource:///", 0))),
        ("/api/b/x", Some(("resource:///api/b", 6))),
        ("/api//v1", Some(("resource:///api", 4))),
        ("", None),
        ("api", None),
        ("*", None),
    ];
    for (path, expected) in cases {
        let found = routes.by_prefix(path).map(|(target, cut)| (&*target.resource, cut));
        assert_eq!(found, expected, "{path}");
    }
}

#[test]
fn a_prefix_given_to_a_zone_is_not_another_zones_even_when_nobody_claims_it() {
    let routes = two_zones();
    assert_eq!(routes.by_prefix("/b"), None);
    assert_eq!(routes.by_prefix("/b/x"), None);
    assert!(routes.by_prefix("/bb").is_some());
}

#[test]
fn two_readings_of_a_path_never_reach_two_resources() {
    let routes = two_zones();
    for path in ["/%61pi/v1", "/api/%761/x", "/api%2fv1", "/%62/x", "/api/%62/x", "/api/v2/%ff"] {
        assert_eq!(routes.by_prefix(path), None, "{path}");
    }
    for (path, resource) in [("/api/v1/%61", "resource:///api/v1"), ("/x%20y", "resource:///")] {
        assert_eq!(&*routes.by_prefix(path).unwrap().0.resource, resource, "{path}");
    }
}

#[test]
fn no_zone_claims_what_lies_in_the_prefix_of_another() {
    let given = assigned(&[("a", &[], &["/"]), ("b", &[], &["/b"])]);
    let a = zone("a", &[], &["/b/x", "/bx", "/c"], &given);
    let found: Vec<String> =
        misplaced(&a, &given).into_iter().map(|p| format!("{} {}", p.code, p.found)).collect();
    assert_eq!(found, ["route_of_another_zone `/b/x`, given to `b`"]);
    let b = zone("b", &[], &["/b/x"], &given);
    assert_eq!(misplaced(&b, &given), []);
}
