//! The one place that prints.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use serde_json::{Map, Value};

use crate::state::iso;

/// Where a command's words go: answers to standard output, everything else to standard error.
pub struct Out {
    answers: Box<dyn Write + Send>,
    notes: Box<dyn Write + Send>,
    colour_answers: Colour,
    colour_notes: Colour,
}

impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Out")
            .field("colour_answers", &self.colour_answers)
            .field("colour_notes", &self.colour_notes)
            .finish_non_exhaustive()
    }
}

/// Whether text may carry colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Plain,
    Ansi,
}

/// What a piece of text is, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// A heading or what to look at first.
    Strong,
    /// Detail that may be skipped.
    Faint,
    /// It worked.
    Good,
    /// It did not.
    Bad,
}

impl Out {
    /// The process's own output; colour on a terminal only, and never when `NO_COLOR` is set and not empty.
    #[must_use]
    pub fn process() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            colour_answers: Colour::of(io::stdout().is_terminal(), wanted),
            colour_notes: Colour::of(io::stderr().is_terminal(), wanted),
            answers: Box::new(io::stdout()),
            notes: Box::new(io::stderr()),
        }
    }

    /// Output into anything; for tests.
    #[cfg(test)]
    pub(super) fn into_writers(
        answers: Box<dyn Write + Send>,
        notes: Box<dyn Write + Send>,
        colour: Colour,
    ) -> Self {
        Self { answers, notes, colour_answers: colour, colour_notes: colour }
    }

    /// Prints one line (or several) of the answer.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.answers, "{text}")?;
        self.answers.flush()
    }

    /// Prints one line about the answer, to standard error.
    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.notes, "{text}")?;
        self.notes.flush()
    }

    /// Prints a value: as it is with `json`, else as indented text.
    pub(super) fn value(&mut self, value: &Value, json: bool) -> io::Result<()> {
        if json {
            return self.line(&format!("{value:#}"));
        }
        let mut lines = Vec::new();
        describe(value, 0, &mut lines);
        for line in lines {
            self.line(&line)?;
        }
        Ok(())
    }

    /// Whether answers may carry colour.
    pub(super) fn in_colour(&self) -> bool {
        self.colour_answers == Colour::Ansi
    }

    /// Text for [`Out::line`], coloured where colour is wanted.
    pub(super) fn paint(&self, style: Style, text: &str) -> String {
        self.colour_answers.paint(style, text)
    }

    /// Text for [`Out::note`], coloured where colour is wanted.
    pub(super) fn paint_error(&self, style: Style, text: &str) -> String {
        self.colour_notes.paint(style, text)
    }
}

impl Colour {
    /// Colour is for terminals, and only while the user has not said no.
    pub(super) fn of(terminal: bool, wanted: bool) -> Self {
        if terminal && wanted { Self::Ansi } else { Self::Plain }
    }

    fn paint(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Strong => "1",
            Style::Faint => "2",
            Style::Good => "32",
            Style::Bad => "31",
        };
        match self {
            Self::Plain => text.to_owned(),
            Self::Ansi => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }
}

/// Text that came from outside, with everything that could drive a terminal made visible.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\n' && character != '\t' {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// A JSON value as indented text: `key: value` for what fits a line, nested lines for what does not.
fn describe(value: &Value, depth: usize, lines: &mut Vec<String>) {
    match value {
        Value::Object(members) => describe_members(members, depth, lines),
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::Object(members) => describe_item(members, depth, lines),
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                        lines.push(format!("{}- {}", indent(depth), scalar(item)));
                    }
                }
            }
        }
        Value::String(text) => {
            lines.extend(visible(text).lines().map(|line| format!("{}{line}", indent(depth))));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            lines.push(format!("{}{}", indent(depth), scalar(value)));
        }
    }
}

fn describe_members(members: &Map<String, Value>, depth: usize, lines: &mut Vec<String>) {
    let width = members.keys().map(|key| key.chars().count()).max().unwrap_or(0).saturating_add(1);
    for (key, value) in members {
        let nested = match value {
            Value::Object(inner) => !inner.is_empty(),
            Value::Array(items) => items.iter().any(|item| item.is_object() || item.is_array()),
            Value::String(text) => text.contains('\n'),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        };
        if nested {
            lines.push(format!("{}{key}:", indent(depth)));
            describe(value, depth.saturating_add(1), lines);
        } else {
            let label = format!("{key}:");
            let shown = moment(key, value).unwrap_or_else(|| scalar(value));
            lines.push(format!("{}{label:width$} {shown}", indent(depth)));
        }
    }
}

/// One object of a list: its first member carries the dash, the others line up below.
fn describe_item(members: &Map<String, Value>, depth: usize, lines: &mut Vec<String>) {
    let mut own = Vec::new();
    describe_members(members, depth.saturating_add(1), &mut own);
    let plain = indent(depth.saturating_add(1));
    for (number, line) in own.into_iter().enumerate() {
        match line.strip_prefix(&plain) {
            Some(rest) if number == 0 => lines.push(format!("{}- {rest}", indent(depth))),
            _ => lines.push(line),
        }
    }
}

/// A member that is a time, as our JSON has them: unix milliseconds under a name that ends with `at`.
fn moment(key: &str, value: &Value) -> Option<String> {
    let is_time = key == "at" || key.ends_with("_at");
    value.as_i64().filter(|_ms| is_time).map(iso)
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => visible(text),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(scalar).collect::<Vec<_>>().join(", "),
        Value::Object(members) if members.is_empty() => "none".to_owned(),
        Value::Object(_) => visible(&value.to_string()),
    }
}

fn indent(depth: usize) -> String {
    "  ".repeat(depth)
}
