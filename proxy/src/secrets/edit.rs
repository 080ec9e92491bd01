//! One value of a secrets file written over, and every other byte of the text left as it is.

use std::ops::Range;

use caracal_policies::Report;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::set::{NotSet, Setting};
use crate::config::document::Document;

/// The words of an entry that are no values.
const RESERVED: [&str; 3] = ["zones", "hosts", "demo"];

/// What became of the text.
pub(super) struct Edited {
    pub(super) text: Zeroizing<String>,
    /// Whether the value was not there before.
    pub(super) added: bool,
}

/// The text with the value in it.
pub(super) fn edited(shown: &str, text: &str, setting: &Setting<'_>) -> Result<Edited, NotSet> {
    if RESERVED.contains(&setting.key) {
        return Err(NotSet::Input(format!("`{}` is a word of every entry and no value's name", setting.key)));
    }
    let document = Document::parse(shown, text).map_err(|problems| NotSet::Report(Report { problems }))?;
    let change = change(document.root(), text, setting);
    document.wipe();
    let Change { at, new, added } = change?;
    let (before, after) = (text.get(..at.start).unwrap_or(text), text.get(at.end..).unwrap_or_default());
    // Room for everything at once: a buffer that grows leaves copies behind.
    let mut whole = Zeroizing::new(String::with_capacity(text.len().saturating_add(new.len())));
    for part in [before, &new, after] {
        whole.push_str(part);
    }
    Ok(Edited { text: whole, added })
}

struct Change {
    at: Range<usize>,
    new: Zeroizing<String>,
    added: bool,
}

fn change(root: &DeTable<'_>, text: &str, setting: &Setting<'_>) -> Result<Change, NotSet> {
    let all = root.get("secrets").and_then(|all| all.get_ref().as_table());
    let Some(entry) = all.and_then(|all| all.get(setting.name)) else {
        return new_entry(text, setting);
    };
    let Setting { name, key, .. } = setting;
    if !setting.zones.is_empty() || !setting.hosts.is_empty() {
        return Err(NotSet::Input(format!(
            "`{name}` is there already and keeps its zones and hosts: leave out --zone and --host, and edit the file \
             to change where it may go"
        )));
    }
    let by_hand = || NotSet::Input(format!("`{name}` is laid out so that only a hand can put `{key}` there"));
    let values = entry.get_ref().as_table().ok_or_else(by_hand)?;
    let encoded = encoded(setting.value);
    match values.get(*key) {
        None => new_key(text, entry, values, setting).ok_or_else(by_hand),
        Some(value) => match value.get_ref() {
            DeValue::Table(table) => Err(in_file(table, setting)),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => Ok(Change { at: value.span(), new: encoded, added: false }),
        },
    }
}

/// A value that stands in a file of its own is changed there: that file is not ours, but whoever mounts it.
fn in_file(table: &DeTable<'_>, setting: &Setting<'_>) -> NotSet {
    let Setting { name, key, folder, .. } = setting;
    let named = table.get("file").and_then(|file| file.get_ref().as_str()).unwrap_or_default();
    let path = folder.map_or_else(|| named.into(), |folder| folder.join(named));
    NotSet::Input(format!("`{name}/{key}` stands in a file of its own: write `{}` instead", path.display()))
}

/// A table of its own at the end of the text.
fn new_entry(text: &str, setting: &Setting<'_>) -> Result<Change, NotSet> {
    let Setting { name, key, zones, hosts, .. } = setting;
    if zones.is_empty() || hosts.is_empty() {
        return Err(NotSet::Input(format!(
            "there is no secret `{name}` yet: say with --zone and --host for whom it is and where it may go"
        )));
    }
    let gap = if text.ends_with('\n') { "\n" } else { "\n\n" };
    let (name, key) = (quoted(name), quoted(key));
    let lists = format!("zones = [{}]\nhosts = [{}]\n", list(zones), list(hosts));
    let value = encoded(setting.value);
    let new = Zeroizing::new(format!("{gap}[secrets.{name}]\n{lists}{key} = {}\n", value.as_str()));
    Ok(Change { at: text.len()..text.len(), new, added: true })
}

/// Behind the last value of an entry: in the same braces, or on a line of its own.
fn new_key(
    text: &str,
    entry: &Spanned<DeValue<'_>>,
    values: &DeTable<'_>,
    setting: &Setting<'_>,
) -> Option<Change> {
    let begins_with = |at: usize, word: &str| text.get(at..).is_some_and(|rest| rest.starts_with(word));
    // A table under a header of its own has its last line elsewhere.
    let inside = values
        .iter()
        .map(|(_, value)| value)
        .filter(|value| !value.get_ref().is_table() || begins_with(value.span().start, "{"));
    let end = inside.map(|value| value.span().end).max()?;
    let (key, value) = (quoted(setting.key), encoded(setting.value));
    if begins_with(entry.span().start, "{") {
        let new = Zeroizing::new(format!(", {key} = {}", value.as_str()));
        return Some(Change { at: end..end, new, added: true });
    }
    let line = text.get(end..)?.find('\n');
    let at = line.map_or(text.len(), |line| end.saturating_add(line));
    let new = Zeroizing::new(format!("\n{key} = {}", value.as_str()));
    Some(Change { at: at..at, new, added: true })
}

/// A name as it stands before `=` or in a header; a dot in it would part it.
fn quoted(name: &str) -> String {
    if name.contains('.') { format!("\"{name}\"") } else { name.to_owned() }
}

fn list(words: &[String]) -> String {
    words.iter().map(|word| encoded(word).to_string()).collect::<Vec<_>>().join(", ")
}

/// A value as TOML writes it: a key in PEM as its lines, everything else on one.
fn encoded(value: &str) -> Zeroizing<String> {
    if value.contains('\n') && !value.contains(['\r', '\'']) {
        return Zeroizing::new(format!("'''\n{value}'''"));
    }
    // Six characters at most for each.
    let mut text = Zeroizing::new(String::with_capacity(value.len().saturating_mul(6).saturating_add(2)));
    text.push('"');
    for character in value.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            control if control.is_control() => {
                // Every control character of TOML's own fits into four digits.
                text.extend(format!("\\u{:04X}", u32::from(control)).chars());
            }
            plain => text.push(plain),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests;
