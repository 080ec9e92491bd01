//! What people start with compiles: the quickstart, and the bundle that the guide has them write.

use std::fs;
use std::path::Path;

use caracal_plugins::{Chain, Registry};
use caracal_policies::{Assigned, BundleSource, SourceFile, compile};

#[test]
fn the_quickstart_bundle_compiles_and_its_chain_scrubs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples/quickstart");
    let folder = root.join("bundles/quickstart");
    let documents = [
        "zone.toml",
        "applications.toml",
        "providers.toml",
        "resources.toml",
        "policies/grants.toml",
        "tests/grants.toml",
    ];
    let files = documents.map(|path| SourceFile {
        path: path.to_owned(),
        text: fs::read_to_string(folder.join(path)).unwrap(),
    });
    let source = BundleSource { root: "bundles/quickstart".to_owned(), files: files.to_vec() };
    let assigned = Assigned { hosts: vec![], prefixes: vec!["/echo".to_owned()] };
    let zone = compile(&source, "quickstart", &assigned).unwrap_or_else(|report| panic!("{report}"));

    let echo = zone.resource("resource://echo").unwrap();
    assert_eq!(echo.scopes.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["echo:read", "echo:write"]);
    assert!(zone.granted_somewhere("demo-agent", "resource://echo"));
    assert!(Chain::build(&Registry::stock(), &echo.plugins).unwrap().scrubs());
    assert_eq!(zone.application("demo-agent").unwrap().secrets.len(), 1);
}

#[test]
fn the_bundle_of_the_guide_compiles() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let guide = fs::read_to_string(root.join("docs/guides/first-governed-call.md")).unwrap();
    let bundle = guide
        .lines()
        .skip_while(|line| *line != "    [zone]")
        .take_while(|line| line.is_empty() || line.starts_with("    "))
        .map(|line| line.trim_start_matches("    "))
        .collect::<Vec<_>>()
        .join("\n");
    let hash = format!("sha256${}", "A".repeat(43));
    let text = format!("schema = 1\n{}", bundle.replace("sha256$...", &hash));
    let files = vec![SourceFile { path: "team.toml".to_owned(), text }];
    let source = BundleSource { root: "bundles".to_owned(), files };
    let assigned = Assigned { hosts: vec![], prefixes: vec!["/example".to_owned()] };
    let zone = compile(&source, "team", &assigned).unwrap_or_else(|report| panic!("{report}"));
    assert!(zone.granted_somewhere("my-agent", "resource://example"));
}
