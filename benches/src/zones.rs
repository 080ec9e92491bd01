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

/// The same zone as a folder of a head and this many documents: names and texts. The documents share the resources
/// evenly; `edited` is written into the first one, as an edit that changes its text.
#[must_use]
pub fn folder(
    id: &str,
    resources: usize,
    documents: usize,
    secret: &str,
    upstream: &str,
    edited: usize,
) -> Vec<(String, String)> {
    let whole = text(id, resources, secret, upstream);
    let (head, rest) = whole.split_once("[[resources]]\n").unwrap_or((&whole, ""));
    let (tables, grants) = rest.split_once("[app_ids]\n").unwrap_or((rest, ""));
    let (app_ids, grants) = grants.split_once("[grants.").unwrap_or((grants, ""));
    let names: Vec<String> = (0..documents).map(|number| format!("\"d{number}.toml\"")).collect();
    let named = format!("name = \"Bench\"\ndocuments = [{}]\n", names.join(", "));
    let head = head.replacen("name = \"Bench\"\n", &named, 1);
    let mut files = vec![("zone.toml".to_owned(), format!("{head}[app_ids]\n{app_ids}"))];
    let tables: Vec<&str> = tables.split("[[resources]]\n").collect();
    let grants: Vec<&str> = grants.split("[grants.").collect();
    let share = resources.div_ceil(documents.max(1)).max(1);
    for (number, (tables, grants)) in tables.chunks(share).zip(grants.chunks(share)).enumerate() {
        let mut document = "schema = 1\n".to_owned();
        if number == 0 {
            writeln!(document, "# edit {edited}").ok();
        }
        tables.iter().for_each(|table| document.extend(["[[resources]]\n", table]));
        grants.iter().for_each(|grant| document.extend(["[grants.", grant]));
        files.push((format!("d{number}.toml"), document));
    }
    files
}

/// The source of such a folder.
#[must_use]
pub fn folder_source(resources: usize, documents: usize, edited: usize) -> BundleSource {
    let secret = crate::edge::stored_secret();
    let files = folder("bench", resources, documents, &secret, "http://127.0.0.1:9", edited);
    let files = files.into_iter().map(|(path, text)| SourceFile { path, text }).collect();
    BundleSource { root: "bundles/bench".into(), files }
}

/// The prefix that the bench zone is given.
#[must_use]
pub fn assigned() -> Assigned {
    Assigned { hosts: Vec::new(), prefixes: vec!["/bench".into()] }
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
    compile(&source, "bench", &assigned()).map_err(|report| anyhow!("{report}")).context("the bench zone")
}
