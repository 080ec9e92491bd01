//! The `mcp` table of a resource.

use super::resources::{PREFIX, is_prefix};
use super::{SCOPE, at_most, checked};
use crate::read::{PlacedName, Section};
use crate::report::{Place, Problem, shortened};
use crate::{limits, mcp, names};

/// Keys of `mcp`.
pub(crate) const KEYS: [&str; 4] = ["path", "scope", "tools", "methods"];
/// Keys of one tool or method.
pub(crate) const ENTRY_KEYS: [&str; 2] = ["name", "scope"];

const MCP_NAME: &str = "1 to 128 of the characters A-Z a-z 0-9 _ - . /";

/// What the table says, before its scopes are looked up.
#[derive(Debug)]
pub(crate) struct DraftMcp {
    pub(crate) place: Place,
    pub(crate) path: PlacedName,
    pub(crate) scope: PlacedName,
    pub(crate) tools: Vec<DraftEntry>,
    pub(crate) methods: Vec<DraftEntry>,
}

/// A name and its scope.
pub(crate) type DraftEntry = (PlacedName, PlacedName);

/// Reads the table of one resource, if it has one.
pub(super) fn read(resource: &Section<'_>) -> Option<DraftMcp> {
    let entry = resource.entry("mcp")?;
    let section = entry.section("mcp", format!("`mcp` of {}", resource.what()).into())?;
    section.only(&KEYS);
    exclusive(resource, "operations", "`mcp` says which requests the resource takes", "remove `operations`");
    if resource.text("operation_enforcement").is_some_and(|text| text.value == "transport_uniform") {
        exclusive(
            resource,
            "operation_enforcement",
            "without enforcement `mcp` would allow everything",
            "remove `operation_enforcement`, or write `enforced`",
        );
    }
    let path = section.needed_text("path");
    let path = path.and_then(|text| checked(&section, "path", text, is_prefix, PREFIX));
    let scope = section.needed_text("scope");
    let scope = scope.and_then(|text| checked(&section, "scope", text, names::is_scope, SCOPE));
    let tools = entries(&section, "tools", "a tool");
    let methods = entries(&section, "methods", "a method");
    for (method, _) in &methods {
        let covered = if mcp::is_connection(&method.value) {
            "the `scope` of `mcp` covers it"
        } else if mcp::calls_a_tool(&method.value) {
            "tools are allowed one by one, in `tools`"
        } else {
            continue;
        };
        section.report(
            Problem::new("mcp_method", &method.place, format!("{} has this method already", section.what()))
                .found(format!("`{}`", shortened(&method.value)))
                .expected("another method, such as `resources/read`")
                .hint(covered),
        );
    }
    Some(DraftMcp { place: section.place().clone(), path: path?, scope: scope?, tools, methods })
}

/// Reports a key of the resource that has no meaning beside `mcp`.
fn exclusive(resource: &Section<'_>, key: &str, why: &str, hint: &str) {
    let Some(entry) = resource.entry(key) else { return };
    resource.report(
        Problem::new(
            "mcp_exclusive",
            &entry.place(),
            format!("{} has both `mcp` and `{key}`", resource.what()),
        )
        .found(format!("`{key}`"))
        .expected(why)
        .hint(hint),
    );
}

fn entries(section: &Section<'_>, key: &'static str, what: &'static str) -> Vec<DraftEntry> {
    let mut read: Vec<DraftEntry> = Vec::new();
    for mut entry in section.sections(key, what) {
        entry.named(format!("{what} in {}", section.what()));
        entry.only(&ENTRY_KEYS);
        let name = entry.needed_text("name");
        let name = name.and_then(|text| checked(&entry, "name", text, names::is_mcp_name, MCP_NAME));
        let scope = entry.needed_text("scope");
        let scope = scope.and_then(|text| checked(&entry, "scope", text, names::is_scope, SCOPE));
        let (Some(name), Some(scope)) = (name, scope) else { continue };
        match read.iter().find(|(known, _)| known.value == name.value) {
            None => read.push((name, scope)),
            Some((first, _)) => entry.report(
                Problem::new("duplicate", &name.place, format!("{what} is listed twice"))
                    .found(format!("`{}`, also at {}", shortened(&name.value), first.place))
                    .expected("each name once")
                    .hint("remove one of them"),
            ),
        }
    }
    at_most(section, key, read.len(), limits::OPERATIONS);
    read
}
