//! Reading documents with places: every value knows its line and column, and a wrong one is reported without stopping.

mod rego;
mod section;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use foldhash::HashSet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::limits;
use crate::report::{Place, Problem, Problems};

pub(crate) use section::Section;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Placed<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
}

/// A name and where it stands.
pub(crate) type PlacedName = Placed<Arc<str>>;

/// The text of one document, its name in reports, and where its lines start.
pub(crate) struct Document<'d> {
    file: Arc<str>,
    text: &'d str,
    line_starts: Vec<usize>,
    /// The line asked for last: places are mostly asked for in the order of the text.
    last_line: Cell<usize>,
    /// One `Arc` for each distinct word: scopes are written many times.
    words: RefCell<HashSet<Arc<str>>>,
    problems: &'d Problems,
}

impl<'d> Document<'d> {
    pub(crate) fn new(file: Arc<str>, text: &'d str, problems: &'d Problems) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0).chain(ends.map(|(end, _)| end.saturating_add(1))).collect();
        let words = RefCell::default();
        Self { file, text, line_starts, last_line: Cell::new(1), words, problems }
    }

    /// Parses the text; `None` after syntax errors, which are reported.
    ///
    /// The parser's own rendering is not used, since it repeats the source line, which may hold a secret.
    pub(crate) fn parse(&self) -> Option<Spanned<DeTable<'d>>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let place = self.place(error.span().map_or(0, |span| span.start));
            let message = error.message().lines().next().unwrap_or_default();
            self.problems.push(
                Problem::new("syntax", &place, "this is not TOML")
                    .found(if message.is_empty() { "an error" } else { message })
                    .expected("a TOML document")
                    .hint("correct the syntax; nothing else in this file was checked"),
            );
        }
        errors.is_empty().then_some(table)
    }

    /// The whole document as a section.
    pub(crate) fn root<'t>(&'t self, table: &'t Spanned<DeTable<'t>>) -> Section<'t> {
        Section::new(self, "the document".into(), self.start(), table.get_ref())
    }

    /// The first character of the document.
    pub(crate) fn start(&self) -> Place {
        Place { file: Arc::clone(&self.file), line: 1, column: 1 }
    }

    /// The word, as every other mention of it in this document holds it.
    fn word(&self, word: &str) -> Arc<str> {
        let mut words = self.words.borrow_mut();
        if let Some(known) = words.get(word) {
            return Arc::clone(known);
        }
        let new: Arc<str> = word.into();
        words.insert(Arc::clone(&new));
        new
    }

    pub(crate) fn problems(&self) -> &'d Problems {
        self.problems
    }

    /// Line and column of a byte.
    pub(crate) fn place(&self, offset: usize) -> Place {
        let line = self.line(offset);
        let start = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or_default();
        let before = self.text.get(start..offset).unwrap_or_default();
        let column = if before.len() > limits::COLUMN_BYTES { before.len() } else { before.chars().count() };
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Place { file: Arc::clone(&self.file), line: number(line), column: number(column).saturating_add(1) }
    }

    /// The number of the line a byte is in, from 1.
    fn line(&self, offset: usize) -> usize {
        let starts = |line: usize| self.line_starts.get(line).copied().unwrap_or(usize::MAX);
        let last = self.last_line.get();
        let near = (last..last.saturating_add(4))
            .find(|line| starts(line.saturating_sub(1)) <= offset && offset < starts(*line));
        let line = near.unwrap_or_else(|| self.line_starts.partition_point(|start| *start <= offset).max(1));
        self.last_line.set(line);
        line
    }

    fn at(&self, span: &Range<usize>) -> Place {
        self.place(span.start)
    }
}

impl fmt::Debug for Document<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("file", &self.file).finish_non_exhaustive()
    }
}

/// What a value is, for `found`.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
