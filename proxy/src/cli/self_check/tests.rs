use caracal_policies::{Assigned, BundleSource, SourceFile, compile};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::super::out::Colour;
use super::judge::{Seen, judge};
use super::*;

const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln";
const OURS: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJiIn0.c2ln";
const SECRET: &str = "cs_made-up";

/// A probe of a provider as a bundle writes it.
fn probe(provider: &str) -> Probe {
    let text = format!(
        "schema = 1\n[zone]\nid = \"z\"\n[[providers]]\nidentifier = \"provider://p\"\n{provider}\n\
         [[resources]]\nidentifier = \"resource://r\"\nupstream_url = \"https://api.example\"\n\
         scopes = [\"a\"]\ncredential_provider = \"provider://p\"\n"
    );
    let files = vec![SourceFile { path: "z.toml".into(), text }];
    let source = BundleSource { root: "bundles/z.toml".into(), files };
    let zone = compile(&source, "z", &Assigned::default()).unwrap_or_else(|report| panic!("{report}"));
    probes(&BTreeMap::from([("z".to_owned(), Arc::new(zone))])).pop().unwrap()
}

const HEADER: &str = "kind = \"api_key\"\nlocation = \"header\"\nheader_name = \"X-Shop\"\nauth_scheme = \"Key\"\nsecret = \"secret://s/k\"";
const QUERY: &str =
    "kind = \"api_key\"\nlocation = \"query\"\nquery_param_name = \"key\"\nsecret = \"secret://s/k\"";
const BEARER: &str = "kind = \"bearer_token\"\nforward_caracal_identity = true\nsecret = \"secret://s/k\"\nkey_slots = [{ header = \"x-extra\" }, { query = \"q\" }]";
const BASIC: &str = "kind = \"http_basic\"\nusername = \"u\"\nsecret = \"secret://s/k\"";
const MANDATE: &str = "kind = \"caracal_mandate\"";
const NONE: &str = "kind = \"none\"\nforward_caracal_identity = true";
const KINDS: [&str; 6] = [HEADER, QUERY, BEARER, BASIC, MANDATE, NONE];

fn seen(target: &str, headers: &[(&str, &str)]) -> Seen {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    Seen { target: target.to_owned(), headers: map }
}

fn found(provider: &str, target: &str, headers: &[(&str, &str)]) -> Vec<String> {
    let found = judge(&probe(provider), &seen(target, headers), TOKEN, SECRET);
    assert!(!format!("{found:?}").contains(SECRET) && !format!("{found:?}").contains(TOKEN));
    found
}

#[test]
fn what_each_kind_should_send_passes() {
    let (key, bearer, ours) =
        (&*format!("Key {SECRET}"), &*format!("Bearer {SECRET}"), &*format!("Bearer {OURS}"));
    for (provider, target, headers) in [
        (HEADER, "/probe?kept=1", &[("x-shop", key), ("accept", "*/*")][..]),
        (QUERY, "/probe?kept=1&key=cs%5Fmade%2Dup", &[]),
        (BEARER, "/probe?kept=1", &[("authorization", bearer), ("x-caracal-identity", OURS)]),
        (BASIC, "/probe?kept=1", &[("authorization", "Basic dTpjc19tYWRlLXVw")]),
        (MANDATE, "/probe?kept=1", &[("authorization", ours)]),
        (NONE, "/probe?kept=1", &[("x-caracal-identity", OURS)]),
    ] {
        assert_eq!(found(provider, target, headers), [""; 0], "{provider}");
    }
}

#[test]
fn a_token_that_passes_and_a_credential_out_of_place_are_found() {
    let (key, token) = (&*format!("Key {SECRET}"), &*format!("Bearer {TOKEN}"));
    let in_query = &*format!("/probe?kept=1&q={TOKEN}");
    for (provider, target, headers, word) in [
        (
            HEADER,
            "/probe",
            &[("x-shop", key), ("x-api-key", TOKEN)][..],
            "token reached the upstream in the header field `x-api-key`",
        ),
        (HEADER, in_query, &[("x-shop", key)], "token reached the upstream in the path or query"),
        (HEADER, "/probe", &[("x-shop", TOKEN)], "is not in the header field `x-shop`"),
        (HEADER, "/probe", &[], "is not in the header field `x-shop`"),
        (HEADER, "/probe", &[("x-shop", key), ("x-shop", "b")], "or not alone there"),
        (
            HEADER,
            "/probe",
            &[("x-shop", key), ("x-other", SECRET)],
            "also stands in the header field `x-other`",
        ),
        (
            HEADER,
            "/probe",
            &[("x-shop", key), ("authorization", "Basic x")],
            "`authorization` reached the upstream",
        ),
        (
            HEADER,
            "/probe",
            &[("x-shop", key), ("x-caracal-resource", "r")],
            "own header field `x-caracal-resource`",
        ),
        (QUERY, "/probe?key=a&key=cs%5Fmade%2Dup", &[], "is not in the query as `key`"),
        (QUERY, "/probe", &[("x-shop", SECRET)], "is not in the query as `key`"),
        (
            BEARER,
            "/probe",
            &[("authorization", "Bearer cs_made-up")],
            "no mandate for the upstream in `x-caracal-identity`",
        ),
        (BASIC, "/probe", &[("authorization", "Basic eDp5")], "is not in the header field `authorization`"),
        (MANDATE, "/probe", &[("authorization", token)], "no mandate for the upstream in `authorization`"),
        (
            NONE,
            "/probe",
            &[("authorization", "Bearer x"), ("x-caracal-identity", OURS)],
            "puts nothing there",
        ),
    ] {
        let found = found(provider, target, headers);
        assert!(found.iter().any(|finding| finding.contains(word)), "{word}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_passes_through_a_real_edge_and_an_edge_that_does_something_else_fails() {
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut out =
        Out::into_writers(Box::new(std::io::sink()), Box::new(std::io::sink()), Colour::of(false, false));
    let probes: Vec<Probe> = KINDS.into_iter().map(probe).collect();
    let site = Site::start(&probes).await.unwrap_or_else(|failed| panic!("{failed:?}"));
    for (number, probe) in probes.iter().enumerate() {
        let found = site.try_one(number, probe, &mut out).await.unwrap_or_else(|failed| panic!("{failed:?}"));
        assert_eq!(found, [""; 0], "{probe:?}");
    }
    // The edge puts the key into `x-shop`; this provider says otherwise.
    let other = probe(&HEADER.replace("X-Shop", "X-Elsewhere"));
    let found = site.try_one(0, &other, &mut out).await.unwrap_or_else(|failed| panic!("{failed:?}"));
    assert!(found[0].contains("is not in the header field `x-elsewhere`"), "{found:?}");
    assert!(found[1].contains("also stands in the header field `x-shop`"), "{found:?}");
    site.stop().await.unwrap_or_else(|failed| panic!("{failed:?}"));

    let outcomes: Vec<Outcome> = probes.iter().map(|_| Outcome::Tried(found.clone())).collect();
    let global = Global { config: None, state_dir: None, json: false };
    assert_eq!(
        tell(&global, &probes, &outcomes, &mut out).unwrap_or_else(|failed| panic!("{failed:?}")),
        Exit::Failed
    );
}
