//! `request` of a test: what guards look at.

use serde_json::Value;

use crate::case::CaseFacts;
use crate::read::Section;
use crate::report::Problem;

/// Keys of `request`.
pub(crate) const KEYS: [&str; 8] =
    ["headers", "query", "body", "arguments", "subject", "depth", "source", "seconds"];

/// Reads the table of one test, if it has one.
pub(super) fn read(test: &Section<'_>) -> CaseFacts {
    let mut facts = CaseFacts::default();
    let Some(entry) = test.entry("request") else { return facts };
    let Some(section) = entry.section("request", format!("`request` of {}", test.what()).into()) else {
        return facts;
    };
    section.only(&KEYS);
    facts.headers = pairs(&section, "headers");
    facts.query = pairs(&section, "query");
    facts.body = section.has("body").then(|| json(&section, "body")).flatten();
    facts.arguments = section.has("arguments").then(|| json(&section, "arguments")).flatten();
    facts.subject = section.text("subject").map(|text| text.value.to_owned());
    if let Some(depth) = section.number("depth", 0..=64) {
        facts.depth = u32::try_from(depth).unwrap_or(u32::MAX);
    }
    if let Some(source) = section.text("source") {
        facts.source = source.value.to_owned();
    }
    if let Some(seconds) = section.number("seconds", 0..=253_402_300_799) {
        facts.seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    }
    facts
}

/// Names with a text, or with a list of texts for what comes more than once.
fn pairs(section: &Section<'_>, key: &str) -> Vec<(String, String)> {
    let Some(entry) = section.entry(key) else { return Vec::new() };
    let Some(table) = entry.section(key, format!("`{key}` of {}", section.what()).into()) else {
        return Vec::new();
    };
    let mut pairs = Vec::new();
    for (name, value) in table.entries() {
        let texts = if value.kind() == "an array" {
            value.texts(name.value)
        } else {
            value.text(name.value).into_iter().collect()
        };
        pairs.extend(texts.into_iter().map(|text| (name.value.to_owned(), text.value.to_owned())));
    }
    pairs
}

/// The value as JSON. A date has no place there.
fn json(section: &Section<'_>, key: &str) -> Option<Value> {
    let entry = section.entry(key)?;
    let json = entry.plain().filter(|value| !has_date(value));
    let json = json.and_then(|value| serde_json::to_value(value).ok());
    if json.is_none() {
        section.report(
            Problem::new("type_wrong", &entry.place(), format!("`{key}` of {} is not JSON", section.what()))
                .found("a date or a time")
                .expected("texts, numbers, `true`, `false`, arrays and tables")
                .hint("write a date as a text"),
        );
    }
    json
}

fn has_date(value: &toml::Value) -> bool {
    match value {
        toml::Value::Datetime(_) => true,
        toml::Value::Array(items) => items.iter().any(has_date),
        toml::Value::Table(table) => table.values().any(has_date),
        toml::Value::String(_)
        | toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_) => false,
    }
}
