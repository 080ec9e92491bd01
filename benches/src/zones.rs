//! Bundles of any size.

use std::fmt::Write as _;

use anyhow::{Context as _, anyhow};
use caracal_policies::{Assigned, BundleSource, SourceFile, Zone, compile};

/// The application every bench zone has.
pub const APPLICATION: &str = "agent";

/// The label under which it holds its grants.
pub const LABEL: &str = "agent";

/// Scopes of each resource; a zone of `n` resources therefore holds `10 n` grants.
pub const SCOPES: usize = 10;

/// The identifier of the resource with this number.
#[must_use]
pub fn resource(number: usize) -> String {
    format!("resource://r{number}")
}

/// The text of a zone with this many resources, each with ten scopes, all granted to one application.
///
/// `secret` is the stored form of the application's secret, `upstream` where every resource leads.
#[must_use]
pub fn text(id: &str, resources: usize, secret: &str, upstream: &str) -> String {
    let mut zone = format!(
        "schema = 1\n[zone]\nid = \"{id}\"\nname = \"Bench\"\n\
         [[applications]]\nid = \"{APPLICATION}\"\nsecrets = [\"{secret}\"]\nmax_concurrent = 1000\n\
         [[providers]]\nidentifier = \"provider://key\"\nkind = \"api_key\"\nlocation = \"header\"\n\
         header_name = \"X-Api-Key\"\nsecret = \"secret://bench/api_key\"\n"
    );
    let mut grants = format!("[app_ids]\none = \"{APPLICATION}\"\n");
    let scopes: Vec<String> = (0..SCOPES).map(|scope| format!("\"s{scope}\"")).collect();
    let scopes = scopes.join(", ");
    for number in 0..resources {
        let name = resource(number);
        let prefix = if number == 0 { "prefixes = [\"/bench\"]\n" } else { "" };
        // Writing to a string cannot fail.
        write!(
            zone,
            "[[resources]]\nidentifier = \"{name}\"\nupstream_url = \"{upstream}\"\nscopes = [{scopes}]\n\
             credential_provider = \"provider://key\"\nreusable_mandates = true\n{prefix}operations = [\n\
             {{ method = \"GET\", path = \"/read/**\", scope = \"s0\" }},\n\
             {{ method = \"GET\", path = \"/users/{{id}}\", scope = \"s1\" }},\n\
             {{ method = \"POST\", path = \"/write/**\", scope = \"s2\" }},\n]\n"
        )
        .ok();
        write!(grants, "[grants.\"{name}\"]\napplication = \"one\"\nroles = {{ {LABEL} = [{scopes}] }}\n")
            .ok();
    }
    zone + &grants
}

/// A compiled zone with this many resources.
///
/// # Errors
/// The report, when the text does not compile.
pub fn compiled(resources: usize) -> anyhow::Result<Zone> {
    let secret = crate::edge::stored_secret();
    let source = BundleSource {
        root: "bundles/bench.toml".into(),
        files: vec![SourceFile {
            path: "bench.toml".into(),
            text: text("bench", resources, &secret, "http://127.0.0.1:9"),
        }],
    };
    let assigned = Assigned { hosts: Vec::new(), prefixes: vec!["/bench".into()] };
    compile(&source, "bench", &assigned).map_err(|report| anyhow!("{report}")).context("the bench zone")
}
