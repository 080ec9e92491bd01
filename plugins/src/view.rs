//! What a plugin sees of a request or a response, and the only hands it has to change them.
//!
//! A view keeps its plugin to its word: a change it did not declare is not made and is remembered, and the
//! chain turns the memory into a refusal. Headers that carry mandates, keys or cookies are not shown.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{Facts, Scrubber, reserved};

/// A request head before the decision.
#[derive(Debug)]
pub struct RequestView<'a> {
    pub(crate) method: &'a str,
    pub(crate) raw_path: &'a str,
    pub(crate) plugin: &'static str,
    pub(crate) facts: &'a mut Facts,
    pub(crate) head: Head<'a>,
}

impl RequestView<'_> {
    /// The method, as it was sent.
    #[must_use]
    pub fn method(&self) -> &str {
        self.method
    }

    /// The path as it was sent, still percent-encoded and without the query.
    #[must_use]
    pub fn raw_path(&self) -> &str {
        self.raw_path
    }

    /// The first value of a header; `None` when there is none or when it may hold a secret.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&HeaderValue> {
        self.head.all(name).next()
    }

    /// Every value of a header, in order.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &HeaderValue> {
        self.head.all(name)
    }

    /// Sets a declared header to one value, in place of any it had.
    pub fn set_header(&mut self, name: &str, value: &str) {
        self.head.set(name, value);
    }

    /// Removes a declared header.
    pub fn remove_header(&mut self, name: &str) {
        self.head.remove(name);
    }

    /// The fact called `name`: the edge's own (`application`) or an earlier plugin's (`ticket.number`).
    #[must_use]
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.find(name)
    }

    /// Adds the fact `<this plugin>.<name>`. A name that is not a plain word or is taken, a value that is too
    /// long, or one fact too many is a fault of the plugin.
    pub fn add_fact(&mut self, name: &str, value: &str) {
        if !self.facts.add(self.plugin, name, value) {
            self.head.broke_its_word = true;
        }
    }
}

/// A response head before any of it was sent.
#[derive(Debug)]
pub struct ResponseView<'a> {
    pub(crate) status: u16,
    pub(crate) head: Head<'a>,
}

impl ResponseView<'_> {
    /// The upstream's status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first value of a header; `None` when there is none or when it may hold a secret.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&HeaderValue> {
        self.head.all(name).next()
    }

    /// Every value of a header, in order.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &HeaderValue> {
        self.head.all(name)
    }

    /// Sets a declared header to one value, in place of any it had.
    pub fn set_header(&mut self, name: &str, value: &str) {
        self.head.set(name, value);
    }

    /// Removes a declared header.
    pub fn remove_header(&mut self, name: &str) {
        self.head.remove(name);
    }
}

/// A response head that may still hold a secret. It can be cleaned without being read.
#[derive(Debug)]
pub struct ScrubView<'a> {
    pub(crate) status: u16,
    pub(crate) headers: &'a mut HeaderMap,
    pub(crate) scrubber: Option<&'a Scrubber>,
}

impl ScrubView<'_> {
    /// The upstream's status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Overwrites every occurrence of this request's secrets in the header values; how many there were.
    /// Nothing was injected, nothing can be found.
    pub fn scrub(&mut self) -> usize {
        self.scrubber.map_or(0, |scrubber| scrubber.scrub_headers(self.headers))
    }
}

/// The header lines of either direction with the list of what the plugin may change.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    pub(crate) headers: &'a mut HeaderMap,
    pub(crate) declared: &'a [HeaderName],
    pub(crate) broke_its_word: bool,
}

impl Head<'_> {
    fn all(&self, name: &str) -> impl Iterator<Item = &HeaderValue> {
        let shown = !reserved::is_secret(&name.to_ascii_lowercase());
        shown.then(|| self.headers.get_all(name).iter()).into_iter().flatten()
    }

    fn set(&mut self, name: &str, value: &str) {
        match (self.declared(name), HeaderValue::from_str(value)) {
            (Some(name), Ok(value)) => {
                self.headers.insert(name, value);
            }
            (None, _) | (_, Err(_)) => self.broke_its_word = true,
        }
    }

    fn remove(&mut self, name: &str) {
        match self.declared(name) {
            Some(name) => {
                self.headers.remove(name);
            }
            None => self.broke_its_word = true,
        }
    }

    fn declared(&self, name: &str) -> Option<HeaderName> {
        self.declared.iter().find(|declared| declared.as_str().eq_ignore_ascii_case(name)).cloned()
    }
}
