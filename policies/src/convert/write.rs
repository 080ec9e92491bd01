//! Policy data as text. Sorted, so that the same data gives the same text.

use std::sync::Arc;

use serde_json::Value;

use crate::data::{PolicyData, TierDeclaration};

/// Lists that are longer than this get a line for each element: a line in Rego has a bound.
const LINE_BYTES: usize = 100;

/// A Rego data document.
pub(super) fn rego(data: &PolicyData) -> String {
    let mut out = "package caracal.authz\n\n# caracal:data-document\n".to_owned();
    let mut root = |name: &str, value: String| {
        let rule = ["\n", name, " := ", &value, "\n"];
        out.extend(rule);
    };
    if !data.app_ids.is_empty() {
        let ids = data.app_ids.iter().map(|(key, id)| format!("{}: {}", quoted(key), quoted(id)));
        root("app_ids", block('{', ids, '}'));
    }
    // One root at least, so that the data stays data when it is empty.
    if !data.grants.is_empty() || *data == PolicyData::default() {
        let grants = data.grants.iter().map(|(resource, grant)| {
            let roles =
                grant.roles.iter().map(|(role, scopes)| format!("{}: {}", quoted(role), list(scopes)));
            let owner = format!("\"application\": {}", quoted(&grant.application));
            let members = [owner, format!("\"roles\": {}", block('{', roles, '}'))];
            format!("{}: {}", quoted(resource), block('{', members.into_iter(), '}'))
        });
        root("grants", block('{', grants, '}'));
    }
    if !data.confinement.is_empty() {
        let rules = data.confinement.iter().map(|rule| {
            format!(
                "{{\"label_prefix\": {}, \"scopes\": {}}}",
                quoted(&rule.label_prefix),
                list(&rule.scopes)
            )
        });
        root("confinement", block('[', rules, ']'));
    }
    if !data.restrict.is_empty() {
        root("restrict", list(&data.restrict));
    }
    if !data.risk.rules().is_empty() {
        let rules = data.risk.rules().iter();
        let rules = rules
            .map(|rule| format!("{{\"scope\": {}, \"tier\": {}}}", quoted(&rule.scope), quoted(&rule.tier)));
        root("risk", block('[', rules, ']'));
    }
    if !data.tiers.rules().is_empty() {
        let rules = data.tiers.rules().iter().map(|tier| {
            let members = members(tier).into_iter().map(|(key, value)| format!("{}: {value}", quoted(key)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        });
        root("approval_tiers", block('[', rules, ']'));
    }
    out
}

/// A TOML document.
pub(super) fn toml(data: &PolicyData) -> String {
    let mut lines = vec!["schema = 1".to_owned()];
    if !data.restrict.is_empty() {
        lines.extend([String::new(), format!("restrict = {}", list(&data.restrict))]);
    }
    if !data.app_ids.is_empty() {
        lines.extend([String::new(), "[app_ids]".to_owned()]);
        lines.extend(data.app_ids.iter().map(|(key, id)| format!("{} = {}", quoted(key), quoted(id))));
    }
    if *data == PolicyData::default() {
        lines.extend([String::new(), "[grants]".to_owned()]);
    }
    for (resource, grant) in &data.grants {
        let on = quoted(resource);
        let application = format!("application = {}", quoted(&grant.application));
        lines.extend([String::new(), format!("[grants.{on}]"), application]);
        lines.extend([String::new(), format!("[grants.{on}.roles]")]);
        lines.extend(grant.roles.iter().map(|(role, scopes)| format!("{} = {}", quoted(role), list(scopes))));
    }
    for rule in &data.confinement {
        let prefix = format!("label_prefix = {}", quoted(&rule.label_prefix));
        let scopes = format!("scopes = {}", list(&rule.scopes));
        lines.extend([String::new(), "[[confinement]]".to_owned(), prefix, scopes]);
    }
    for rule in data.risk.rules() {
        let (scope, tier) =
            (format!("scope = {}", quoted(&rule.scope)), format!("tier = {}", quoted(&rule.tier)));
        lines.extend([String::new(), "[[risk]]".to_owned(), scope, tier]);
    }
    for tier in data.tiers.rules() {
        lines.extend([String::new(), "[[approval_tiers]]".to_owned()]);
        lines.extend(members(tier).into_iter().map(|(key, value)| format!("{key} = {value}")));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// What a declaration says, with its values written out.
fn members(tier: &TierDeclaration) -> Vec<(&'static str, String)> {
    let TierDeclaration { tier, approver, ttl_seconds, privacy, self_approval } = tier;
    let written = [
        Some(("tier", quoted(tier))),
        approver.map(|approver| ("approver", quoted(approver.word()))),
        ttl_seconds.map(|seconds| ("ttl_seconds", seconds.to_string())),
        privacy.map(|privacy| ("privacy", quoted(privacy.word()))),
        self_approval.map(|own| ("self_approval", quoted(own.word()))),
    ];
    written.into_iter().flatten().collect()
}

/// A text as JSON writes it, which Rego and TOML read alike once the one character is escaped that TOML wants so.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// Both forms take a trailing comma and line ends in arrays.
fn list<'a>(words: impl IntoIterator<Item = &'a Arc<str>>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| quoted(word)).collect();
    let line = format!("[{}]", words.join(", "));
    if line.len() <= LINE_BYTES { line } else { block('[', words.into_iter(), ']') }
}

/// One element a line, indented by what stands in it.
fn block(open: char, elements: impl Iterator<Item = String>, close: char) -> String {
    let mut out = String::from(open);
    for element in elements {
        out.push_str("\n\t");
        // No text has a line end of its own: they are escaped.
        out.push_str(&element.replace('\n', "\n\t"));
        out.push(',');
    }
    if out.len() > 1 {
        out.push('\n');
    }
    out.push(close);
    out
}
