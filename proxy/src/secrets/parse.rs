//! The text of a secrets file to entries. No report quotes anything but keys and names.

use std::collections::BTreeMap;
use std::ops::Range;

use caracal_policies::{Place, Problem};
use secrecy::SecretString;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::destination::Destination;
use super::files::{Files, Unread};
use super::fingerprint::FingerprintKey;
use super::{Entry, Lookout, Secret};
use crate::config::document::Document;

/// Entries by name, and the digests of the files they were read from, one behind the other.
type Entries = (BTreeMap<Box<str>, Entry>, Vec<u8>);

const NO_VALUE: &str = "this is neither a value nor a file with one";
const VALUES: &str = "<key> = \"value\", or <key> = { file = \"name\" }";

/// Every entry of the file, or every problem.
pub(super) fn entries(
    shown: &str,
    text: &str,
    key: &FingerprintKey,
    files: Files<'_>,
) -> Result<Entries, Vec<Problem>> {
    let document = Document::parse(shown, text)?;
    let mut reader = Reader { document: &document, key, files, digests: Vec::new(), problems: Vec::new() };
    let entries = reader.file();
    let (digests, problems) = (reader.digests, reader.problems);
    document.wipe();
    if problems.is_empty() { Ok((entries, digests)) } else { Err(problems) }
}

struct Reader<'d> {
    document: &'d Document<'d>,
    key: &'d FingerprintKey,
    files: Files<'d>,
    /// Of the files read so far.
    digests: Vec<u8>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn file(&mut self) -> BTreeMap<Box<str>, Entry> {
        let mut entries = BTreeMap::new();
        let root = self.document.root();
        match root.get("schema").map(Spanned::get_ref) {
            Some(DeValue::Integer(version)) if version.as_str() == "1" => {}
            Some(_) => {
                self.add("schema_version", &at(root, "schema"), "this version is not known", "schema = 1")
            }
            None => self.add("missing_key", &(0..0), "the file does not say its version", "schema = 1"),
        }
        for (name, value) in root {
            match (name.get_ref().as_ref(), value.get_ref()) {
                ("schema", _) => {}
                ("secrets", DeValue::Table(all)) => {
                    for (name, value) in all {
                        if let Some(entry) = self.entry(name, value) {
                            entries.insert(name.get_ref().as_ref().into(), entry);
                        }
                    }
                }
                ("secrets", _) => {
                    self.add("wrong_type", &value.span(), "`secrets` is no table", "[secrets.<name>] tables");
                }
                _ => {
                    self.add("unknown_key", &name.span(), "unknown key", "schema and [secrets.<name>] tables")
                }
            }
        }
        entries
    }

    fn entry(
        &mut self,
        name: &Spanned<toml::de::DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<Entry> {
        if !is_word(name.get_ref()) {
            let expected = "1 to 64 letters, digits, `-` or `_`";
            self.add("secret_name", &name.span(), "this name cannot be referred to", expected);
        }
        let Some(table) = value.get_ref().as_table() else {
            self.add(
                "wrong_type",
                &name.span(),
                "the entry is no table",
                "[secrets.<name>] with zones and hosts",
            );
            return None;
        };
        let zones = self.list(table, "zones", &name.span());
        let hosts = self.list(table, "hosts", &name.span());
        let mut values = BTreeMap::new();
        let mut demo = false;
        for (key, value) in table {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("zones" | "hosts", _) => {}
                ("demo", DeValue::Boolean(marked)) => demo = *marked,
                ("demo", _) => self.add("wrong_type", &value.span(), "`demo` is no boolean", "true or false"),
                (_, DeValue::String(text)) => {
                    if let Some(secret) = self.secret(key, text, &value.span()) {
                        values.insert(key.get_ref().as_ref().into(), secret);
                    }
                }
                (_, DeValue::Table(table)) => {
                    if let Some(secret) = self.in_file(key, table) {
                        values.insert(key.get_ref().as_ref().into(), secret);
                    }
                }
                _ => self.add("wrong_type", &key.span(), NO_VALUE, VALUES),
            }
        }
        let hosts = hosts
            .into_iter()
            .filter_map(|(host, span)| match host.parse::<Destination>() {
                Ok(destination) => Some(destination),
                Err(_) => {
                    let expected = "a host name or address, or one with a port; no wildcards, no URL";
                    self.add("secret_hosts", &span, "this is no destination", expected);
                    None
                }
            })
            .collect();
        Some(Entry { zones: zones.into_iter().map(|(zone, _)| zone.into()).collect(), hosts, demo, values })
    }

    /// The strings of `zones` or `hosts`; both must be there and name something.
    fn list(&mut self, table: &DeTable<'_>, key: &str, entry: &Range<usize>) -> Vec<(String, Range<usize>)> {
        let message = "the entry does not say where it may go";
        let expected = if key == "zones" {
            "zones = [\"<zone id>\"], at least one"
        } else {
            "hosts = [\"api.example.com\"], at least one"
        };
        let Some(value) = table.get(key) else {
            self.add("secret_destination", entry, message, expected);
            return Vec::new();
        };
        let items: Vec<(String, Range<usize>)> = value
            .get_ref()
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|item| Some((item.get_ref().as_str()?.to_owned(), item.span())))
            .collect();
        let written = value.get_ref().as_array().map_or(0, |array| array.iter().count());
        if items.is_empty() || items.len() != written || items.iter().any(|(text, _)| text.is_empty()) {
            self.add("secret_destination", &value.span(), message, expected);
        }
        items
    }

    /// A value that stands in a file of its own. Where it may go is said here, as for the others.
    fn in_file(&mut self, key: &Spanned<toml::de::DeString<'_>>, table: &DeTable<'_>) -> Option<Secret> {
        let file = table.get("file").filter(|_| table.iter().count() == 1);
        let Some((file, named)) = file.and_then(|file| Some((file, file.get_ref().as_str()?))) else {
            self.add("wrong_type", &key.span(), NO_VALUE, VALUES);
            return None;
        };
        match self.files.read(named) {
            Ok(text) => {
                self.digests.extend(self.key.digest(text.as_bytes()));
                let line = text.strip_suffix('\n').unwrap_or(&text);
                let line = line.strip_suffix('\r').unwrap_or(line);
                let secret = self.secret(key, line, &file.span())?;
                Some(Secret { file: Some(named.into()), ..secret })
            }
            Err(Unread::Name { code, message, expected }) => {
                self.add(code, &file.span(), message, expected);
                None
            }
            Err(Unread::File(problem)) => {
                self.problems.push(*problem);
                None
            }
        }
    }

    fn secret(
        &mut self,
        key: &Spanned<toml::de::DeString<'_>>,
        text: &str,
        span: &Range<usize>,
    ) -> Option<Secret> {
        if !is_word(key.get_ref()) {
            let expected = "1 to 64 letters, digits, `-` or `_`";
            self.add("secret_name", &key.span(), "this key cannot be referred to", expected);
            return None;
        }
        if text.is_empty() {
            self.add("secret_empty", span, "the secret is empty", "a value");
            return None;
        }
        if text.chars().any(char::is_control) && !is_pem(text) {
            let expected = "one line of printable text, or a key in PEM; a value that ends in a line break is most often a mistake";
            self.add(
                "secret_unprintable",
                span,
                "the secret has a line break or control character",
                expected,
            );
            return None;
        }
        let fingerprint = self.key.fingerprint(text);
        Some(Secret {
            value: SecretString::from(text),
            fingerprint,
            lookout: Lookout::default(),
            file: None,
            since: 0,
        })
    }

    fn add(&mut self, code: &'static str, span: &Range<usize>, message: &str, expected: &str) {
        let place: Place = self.document.place(span);
        self.problems.push(Problem {
            code,
            place,
            message: message.to_owned(),
            found: String::new(),
            expected: expected.to_owned(),
            hint: "values are never shown in reports; look at the place".to_owned(),
        });
    }
}

fn at(table: &DeTable<'_>, key: &str) -> Range<usize> {
    table.get(key).map_or(0..0, Spanned::span)
}

/// A private key over several lines, and nothing before or after it.
fn is_pem(text: &str) -> bool {
    let text = text.trim();
    text.starts_with("-----BEGIN ")
        && text.ends_with("-----")
        && text.chars().all(|c| matches!(c, '\n' | '\r') || !c.is_control())
}

/// Names and keys stand in `secret://name/key`.
fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}
