//! Bundles to start from.

use caracal_policies::{Assigned, BundleSource, Report, SourceFile, Zone, compile};

/// A zone with one of everything, as one file.
pub(crate) const SINGLE: &str = r#"
schema = 1

[zone]
id = "demo"
name = "Demo"

[[applications]]
id = "agent"
name = "Agent"
secrets = ["sha256$AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"]
traits = ["team:demo"]

[[applications]]
id = "other"

[[providers]]
identifier = "provider://echo-key"
kind = "api_key"
location = "header"
header_name = "X-Api-Key"
secret = "secret://echo/api_key"

[[resources]]
identifier = "resource://echo"
id = "r-1"
upstream_url = "http://127.0.0.1:9000/base"
scopes = ["echo:read", "echo:write", "echo:admin"]
credential_provider = "provider://echo-key"
operations = [
    { method = "GET", path = "/read/**", scope = "echo:read" },
    { method = "POST", path = "/write/{id}", scope = "echo:write" },
    { method = "POST", path = "/write/all", scope = "echo:admin" },
]
prefixes = ["/echo"]
plugins = [{ name = "response_scrub", depth = 3 }]

[[resources]]
identifier = "resource://open"
upstream_url = "https://open.example"
scopes = ["open:any"]
operation_enforcement = "transport_uniform"
hosts = ["open.example"]

[app_ids]
demo = "agent"
second = "other"

[grants."resource://echo"]
application = "demo"
roles = { reader = ["echo:read"], writer = ["echo:read", "echo:write"], ops = ["echo:admin"] }

[grants."resource://open"]
application = "second"
roles = { reader = ["open:any"] }

[[confinement]]
label_prefix = "sandbox"
scopes = ["echo:read"]

[[risk]]
scope = "echo:admin"
tier = "high"

[[approval_tiers]]
tier = "high"
approver = "operator"
"#;

pub(crate) fn assigned() -> Assigned {
    Assigned { hosts: vec!["open.example".into()], prefixes: vec!["/echo".into()] }
}

/// A bundle in one file.
pub(crate) fn single(text: &str) -> BundleSource {
    let file = SourceFile { path: "demo.toml".into(), text: text.into() };
    BundleSource { root: "bundles/demo.toml".into(), files: vec![file] }
}

/// A bundle in a folder.
pub(crate) fn folder<'a>(files: impl IntoIterator<Item = (&'a str, String)>) -> BundleSource {
    let files = files.into_iter().map(|(path, text)| SourceFile { path: path.into(), text }).collect();
    BundleSource { root: "bundles/demo".into(), files }
}

pub(crate) fn compiled(source: &BundleSource) -> Result<Zone, Report> {
    compile(source, "demo", &assigned())
}

pub(crate) fn zone(text: &str) -> Zone {
    compiled(&single(text)).unwrap_or_else(|report| panic!("{report}"))
}

/// The codes of a report, in its order.
pub(crate) fn codes(text: &str) -> Vec<&'static str> {
    match compiled(&single(text)) {
        Ok(_) => Vec::new(),
        Err(report) => report.problems.iter().map(|problem| problem.code).collect(),
    }
}

/// The parts of [`SINGLE`] spread over a folder; `order` names the documents in the order the head lists them.
pub(crate) fn spread(order: [&str; 4]) -> BundleSource {
    let start = |mark: &str| SINGLE.find(mark).unwrap();
    let part = |from: &str, to: &str| format!("schema = 1\n{}", SINGLE.get(start(from)..start(to)).unwrap());
    let rest = |from: &str| format!("schema = 1\n{}", SINGLE.get(start(from)..).unwrap());
    let list = order.map(|name| format!("\"{name}\"")).join(", ");
    let head = format!("schema = 1\n[zone]\nid = \"demo\"\nname = \"Demo\"\ndocuments = [{list}]\n");
    folder([
        ("zone.toml", head),
        ("applications.toml", part("[[applications]]", "[[providers]]")),
        ("providers.toml", part("[[providers]]", "[[resources]]")),
        ("resources.toml", part("[[resources]]", "[app_ids]")),
        ("policies/grants.toml", rest("[app_ids]")),
        ("README.md", "not a document".into()),
    ])
}
