//! What is known about a request beside its head: short named texts, read by plugins and kept in the record.

use std::collections::BTreeMap;

/// Facts about one request. Those of the edge have plain names (`application`), those of a plugin carry its
/// name in front (`ticket.number`), so that one plugin cannot speak for another.
///
/// Shape: at most [`Facts::MAX`] entries, each value at most [`Facts::MAX_VALUE_BYTES`] long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    values: BTreeMap<String, String>,
}

impl Facts {
    /// Entries per request. Every fact is written to the ledger, so their number is bounded.
    pub const MAX: usize = 64;
    /// Bytes of one value, for the same reason.
    pub const MAX_VALUE_BYTES: usize = 1024;

    /// No facts yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// States a fact of the edge itself. Facts are never changed: the first statement stands.
    pub fn state(&mut self, name: &'static str, value: impl Into<String>) {
        self.values.entry(name.to_owned()).or_insert_with(|| value.into());
    }

    /// The fact called `name`, such as `application` or `ticket.number`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// All facts in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Adds `<plugin>.<name>`. False when a limit is reached, the name is not a plain word, or it is taken.
    pub(crate) fn add(&mut self, plugin: &str, name: &str, value: &str) -> bool {
        let plain = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !plain || value.len() > Self::MAX_VALUE_BYTES || self.values.len() >= Self::MAX {
            return false;
        }
        self.values.insert(format!("{plugin}.{name}"), value.to_owned()).is_none()
    }
}
