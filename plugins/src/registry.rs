//! The explicit list of plugins a process knows. Nothing registers itself behind the reader's back.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Plugin, stock};

/// Builds a plugin from the table a bundle gives it.
///
/// # Errors
/// A sentence that says what is wrong with the table.
pub type Make = fn(&toml::Table) -> Result<Arc<dyn Plugin>, String>;

/// Names and the functions that build what they stand for.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    makers: BTreeMap<&'static str, Make>,
}

impl Registry {
    /// The plugins that come with the edge: `headers` and `response_scrub`.
    #[must_use]
    pub fn stock() -> Self {
        let mut makers: BTreeMap<&'static str, Make> = BTreeMap::new();
        makers.insert(stock::headers::NAME, stock::headers::make);
        makers.insert(stock::response_scrub::NAME, stock::response_scrub::make);
        Self { makers }
    }

    /// Adds a plugin of your own.
    ///
    /// # Errors
    /// [`NameTaken`] when the name already stands for something: a plugin never replaces another.
    pub fn register(&mut self, name: &'static str, make: Make) -> Result<(), NameTaken> {
        if self.makers.contains_key(name) {
            return Err(NameTaken { name });
        }
        self.makers.insert(name, make);
        Ok(())
    }

    /// Every name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.makers.keys().copied()
    }

    pub(crate) fn make(&self, name: &str) -> Option<Make> {
        self.makers.get(name).copied()
    }
}

/// Two plugins want one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is already a plugin called `{name}`")]
pub struct NameTaken {
    /// The name in question.
    pub name: &'static str,
}
