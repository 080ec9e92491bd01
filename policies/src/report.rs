//! Everything wrong with a bundle, told at once: where, what was found, what was expected, what to do.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::limits;

/// Where something stands in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The file as reports name it, such as `bundles/quickstart/zone.toml`.
    pub file: Arc<str>,
    /// Counted from 1.
    pub line: u32,
    /// Counted from 1, in characters.
    pub column: u32,
}

/// One thing wrong with a bundle.
///
/// No field ever repeats the value of a key that may hold a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Stable word for programs, such as `key_unknown`.
    pub code: &'static str,
    /// Where it is.
    pub place: Place,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What stands there.
    pub found: String,
    /// What may stand there.
    pub expected: String,
    /// What to do about it.
    pub hint: String,
}

/// Every problem of a bundle, in the order of files and lines. `Display` writes one block for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error[{}]: {}", self.code, self.message)?;
        writeln!(f, "  --> {}", self.place)?;
        writeln!(f, "  found:    {}", self.found)?;
        writeln!(f, "  expected: {}", self.expected)?;
        writeln!(f, "  hint:     {}", self.hint)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        match self.problems.len() {
            1 => write!(f, "1 problem"),
            count => write!(f, "{count} problems"),
        }
    }
}

impl std::error::Error for Report {}

impl Problem {
    /// A problem whose `found`, `expected` and `hint` are filled in by the calls that follow.
    pub(crate) fn new(code: &'static str, place: &Place, message: impl Into<String>) -> Self {
        Self {
            code,
            place: place.clone(),
            message: message.into(),
            found: String::new(),
            expected: String::new(),
            hint: String::new(),
        }
    }

    pub(crate) fn found(mut self, found: impl Into<String>) -> Self {
        self.found = found.into();
        self
    }

    pub(crate) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = expected.into();
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// Collects problems while a bundle is read. Shared by reference, so that no reader has to hand it around mutably.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    list: RefCell<Vec<Problem>>,
    beyond: Cell<usize>,
}

impl Problems {
    pub(crate) fn push(&self, problem: Problem) {
        self.push_with(|| problem);
    }

    /// Puts a problem into words only when it will be listed. For words that take a search.
    pub(crate) fn push_with(&self, problem: impl FnOnce() -> Problem) {
        if self.list.borrow().len() < limits::PROBLEMS {
            let problem = problem();
            self.list.borrow_mut().push(problem);
        } else {
            self.beyond.set(self.beyond.get().saturating_add(1));
        }
    }

    /// How many there are so far.
    pub(crate) fn count(&self) -> usize {
        self.list.borrow().len().saturating_add(self.beyond.get())
    }

    /// The report, or `None` when nothing was wrong.
    pub(crate) fn into_report(self) -> Option<Report> {
        let mut problems = self.list.into_inner();
        problems.sort_by(|a, b| a.place.cmp(&b.place).then_with(|| a.code.cmp(b.code)));
        let last = problems.last()?.place.clone();
        let beyond = self.beyond.get();
        if beyond > 0 {
            problems.push(
                Problem::new("too_many_problems", &last, format!("{beyond} more problems are not listed"))
                    .found(format!("{} problems", beyond.saturating_add(limits::PROBLEMS)))
                    .expected("none")
                    .hint("correct those above and check again"),
            );
        }
        Some(Report { problems })
    }
}

/// The names in backticks, separated by commas, at most a dozen of them.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 12;
    let mut text = String::new();
    let mut count = 0_usize;
    for name in names {
        if count < SHOWN {
            if count > 0 {
                text.push_str(", ");
            }
            text.push('`');
            text.push_str(&shortened(name));
            text.push('`');
        }
        count = count.saturating_add(1);
    }
    if count > SHOWN {
        text.push_str(", ...");
    }
    if count == 0 {
        text.push_str("nothing");
    }
    text
}

/// `one of` and the names, or that there are none.
pub(crate) fn one_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names = names.into_iter().peekable();
    if names.peek().is_none() {
        "none (there are none here)".to_owned()
    } else {
        format!("one of {}", listed(names))
    }
}

/// At most 80 characters of a text, without control characters, for use in a message.
pub(crate) fn shortened(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut short: String = text
        .chars()
        .take(SHOWN)
        .map(|character| if character.is_control() { '\u{fffd}' } else { character })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        short.push_str("...");
    }
    short
}
