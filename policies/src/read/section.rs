//! One table of a document, read key by key.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::{Document, Placed, kind};
use crate::names;
use crate::report::{Place, Problem, listed, one_of, shortened};

/// A table, and what reports call it.
#[derive(Debug, Clone)]
pub(crate) struct Section<'t> {
    document: &'t Document<'t>,
    what: Cow<'t, str>,
    place: Place,
    entries: &'t DeTable<'t>,
}

impl<'t> Section<'t> {
    pub(super) fn new(
        document: &'t Document<'t>,
        what: Cow<'t, str>,
        place: Place,
        entries: &'t DeTable<'t>,
    ) -> Self {
        Self { document, what, place, entries }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// What reports call this table from now on.
    pub(crate) fn named(&mut self, what: String) {
        self.what = what.into();
    }

    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    pub(crate) fn report(&self, problem: Problem) {
        self.document.problems().push(problem);
    }

    /// The word, as every other mention of it in the document holds it.
    pub(crate) fn shared(&self, word: &str) -> Arc<str> {
        self.document.word(word)
    }

    /// Reports every key that is not one of these.
    pub(crate) fn only(&self, known: &[&str]) {
        for key in self.entries.keys() {
            let name = key.get_ref().as_ref();
            if known.contains(&name) {
                continue;
            }
            self.document.problems().push_with(|| {
                let hint = match names::nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "remove it, or move it to where it belongs".to_owned(),
                };
                Problem::new(
                    "key_unknown",
                    &self.document.at(&key.span()),
                    format!("{} has no such key", self.what),
                )
                .found(format!("`{}`", shortened(name)))
                .expected(listed(known.iter().copied()))
                .hint(hint)
            });
        }
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Every key with its value.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Placed<&'t str>, Entry<'t>)> {
        let document = self.document;
        self.entries.iter().map(move |(key, value)| {
            let placed = Placed { value: key.get_ref().as_ref(), place: document.at(&key.span()) };
            (placed, Entry { document, value })
        })
    }

    /// The entry under this key.
    pub(crate) fn entry(&self, key: &str) -> Option<Entry<'t>> {
        self.entries.get(key).map(|value| Entry { document: self.document, value })
    }

    /// The entry under this key; its absence is reported.
    pub(crate) fn needed(&self, key: &str) -> Option<Entry<'t>> {
        let entry = self.entry(key);
        if entry.is_none() {
            self.report(
                Problem::new("key_missing", &self.place, format!("{} lacks `{key}`", self.what))
                    .found("nothing")
                    .expected(format!("`{key}`"))
                    .hint(format!("add `{key} = ...`")),
            );
        }
        entry
    }

    pub(crate) fn text(&self, key: &str) -> Option<Placed<&'t str>> {
        self.entry(key)?.text(key)
    }

    pub(crate) fn needed_text(&self, key: &str) -> Option<Placed<&'t str>> {
        self.needed(key)?.text(key)
    }

    /// The strings of an array; none when the key is absent.
    pub(crate) fn texts(&self, key: &str) -> Vec<Placed<&'t str>> {
        self.entry(key).map(|entry| entry.texts(key)).unwrap_or_default()
    }

    pub(crate) fn flag(&self, key: &str) -> bool {
        self.entry(key).and_then(|entry| entry.flag(key)).unwrap_or(false)
    }

    /// An integer in a range; `None` when absent or wrong.
    pub(crate) fn number(&self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.entry(key)?.number(key, &range)
    }

    /// One word of a closed set; `None` when absent or wrong.
    pub(crate) fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let known = words.iter().find(|(word, _)| *word == text.value);
        if known.is_none() {
            let all = || words.iter().map(|(word, _)| *word);
            let hint = match names::nearest(text.value, all()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "use one of the words listed; there is no default for others".to_owned(),
            };
            self.report(
                Problem::new(
                    "word_unknown",
                    &text.place,
                    format!("`{key}` of {} is not a known word", self.what),
                )
                .found(format!("`{}`", shortened(text.value)))
                .expected(one_of(all()))
                .hint(hint),
            );
        }
        known.map(|(_, word)| *word)
    }

    /// The tables of an array of tables.
    pub(crate) fn sections(&self, key: &str, what: &'static str) -> Vec<Self> {
        let Some(entry) = self.entry(key) else { return Vec::new() };
        entry
            .items(key, "an array of tables")
            .into_iter()
            .filter_map(|item| item.section(key, what.into()))
            .collect()
    }
}

/// One value.
#[derive(Debug, Clone)]
pub(crate) struct Entry<'t> {
    document: &'t Document<'t>,
    value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Entry<'t> {
    pub(crate) fn place(&self) -> Place {
        self.document.at(&self.value.span())
    }

    pub(crate) fn text(&self, key: &str) -> Option<Placed<&'t str>> {
        match self.value.get_ref().as_str() {
            Some(value) => Some(Placed { value, place: self.place() }),
            None => self.wrong(key, "a string"),
        }
    }

    pub(crate) fn texts(&self, key: &str) -> Vec<Placed<&'t str>> {
        self.items(key, "an array of strings").iter().filter_map(|item| item.text(key)).collect()
    }

    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        self.value.get_ref().as_bool().or_else(|| self.wrong(key, "`true` or `false`"))
    }

    pub(crate) fn number(&self, key: &str, range: &RangeInclusive<u64>) -> Option<u64> {
        let expected = || format!("an integer from {} to {}", range.start(), range.end());
        let Some(integer) = self.value.get_ref().as_integer() else { return self.wrong(key, &expected()) };
        let in_range =
            self.integer().and_then(|number| u64::try_from(number).ok()).filter(|n| range.contains(n));
        if in_range.is_none() {
            self.document.problems().push(
                Problem::new("number_out_of_range", &self.place(), format!("`{key}` is out of range"))
                    .found(format!("`{}`", shortened(integer.as_str())))
                    .expected(expected())
                    .hint("the unit is the last part of the key"),
            );
        }
        in_range
    }

    /// The integer, without a report when it is none.
    pub(crate) fn integer(&self) -> Option<i128> {
        let integer = self.value.get_ref().as_integer()?;
        i128::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    /// What the value is, for `found`.
    pub(crate) fn kind(&self) -> &'static str {
        kind(self.value.get_ref())
    }

    /// The elements of an array.
    pub(crate) fn items(&self, key: &str, expected: &str) -> Vec<Self> {
        match self.value.get_ref().as_array() {
            Some(items) => items.iter().map(|value| Self { document: self.document, value }).collect(),
            None => self.wrong(key, expected).unwrap_or_default(),
        }
    }

    pub(crate) fn section(&self, key: &str, what: Cow<'t, str>) -> Option<Section<'t>> {
        match self.value.get_ref().as_table() {
            Some(entries) => Some(Section::new(self.document, what, self.place(), entries)),
            None => self.wrong(key, "a table"),
        }
    }

    /// The value without places.
    pub(crate) fn plain(&self) -> Option<toml::Value> {
        toml::Value::deserialize(ValueDeserializer::from(self.value.clone())).ok()
    }

    fn wrong<T>(&self, key: &str, expected: &str) -> Option<T> {
        self.document.problems().push(
            Problem::new("type_wrong", &self.place(), format!("`{}` has the wrong type", shortened(key)))
                .found(kind(self.value.get_ref()))
                .expected(expected)
                .hint(format!("write `{}` as {expected}", shortened(key))),
        );
        None
    }
}
