//! A TOML text together with the places of everything in it, and its check against a schema.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use caracal_policies::{Place, Problem};
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroize;

/// A parsed TOML text that can say where each of its values stands.
pub(crate) struct Document<'t> {
    file: Arc<str>,
    text: &'t str,
    root: DeTable<'t>,
}

impl<'t> Document<'t> {
    /// Parses `text`; `file` is the name shown in reports.
    ///
    /// # Errors
    /// One problem per syntax error. The parser's words are static, they never quote the text.
    pub(crate) fn parse(file: &str, text: &'t str) -> Result<Self, Vec<Problem>> {
        let file: Arc<str> = file.into();
        let (root, errors) = DeTable::parse_recoverable(text);
        let document = Self { file, text, root: root.into_inner() };
        if errors.is_empty() {
            return Ok(document);
        }
        let file = Arc::clone(&document.file);
        document.wipe();
        Err(errors
            .iter()
            .map(|error| Problem {
                code: "toml_syntax",
                place: place_in(&file, text, error.span().map_or(0, |span| span.start)),
                message: "this is not valid TOML".to_owned(),
                found: String::new(),
                expected: first_line(error.message()),
                hint: "fix the syntax; an unfinished line often means the file was read while it was written"
                    .to_owned(),
            })
            .collect())
    }

    /// The top-level table.
    pub(crate) const fn root(&self) -> &DeTable<'t> {
        &self.root
    }

    /// The place of a span's first byte.
    pub(crate) fn place(&self, span: &Range<usize>) -> Place {
        place_in(&self.file, self.text, span.start)
    }

    /// The place of the value at `path`, or of the deepest table on the way that exists.
    pub(crate) fn place_of(&self, path: &[&str]) -> Place {
        let mut at = 0;
        let mut table = Some(&self.root);
        for step in path {
            let Some((key, value)) = table.and_then(|t| t.iter().find(|(key, _)| key.get_ref() == step))
            else {
                break;
            };
            at = if value.get_ref().is_table() { key.span().start } else { value.span().start };
            table = value.get_ref().as_table();
        }
        place_in(&self.file, self.text, at)
    }

    /// Overwrites every string the parser had to copy because it was written with escapes. The others are only
    /// borrowed from the text.
    pub(crate) fn wipe(mut self) {
        wipe_table(&mut self.root);
    }

    /// Checks the whole text against a JSON Schema as `schemars` writes it: unknown keys, missing keys, wrong
    /// types, unknown words and numbers out of range, all of them at once.
    pub(crate) fn check(&self, schema: &Value) -> Vec<Problem> {
        let mut walk = Walk { document: self, definitions: schema.get("$defs"), problems: Vec::new() };
        walk.table(schema, &self.root, &(0..0), "the file");
        walk.problems
    }
}

struct Walk<'d, 't> {
    document: &'d Document<'t>,
    definitions: Option<&'d Value>,
    problems: Vec<Problem>,
}

impl<'d> Walk<'d, '_> {
    fn table(&mut self, schema: &'d Value, table: &DeTable<'_>, span: &Range<usize>, name: &str) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        for (key, value) in table {
            let known = properties.and_then(|all| all.get(key.get_ref().as_ref())).or(others);
            if let Some(inner) = known {
                self.value(inner, value, key.get_ref());
                continue;
            }
            let mut words: Vec<&str> =
                properties.into_iter().flatten().map(|(word, _)| word.as_str()).collect();
            words.sort_unstable();
            self.add(
                "unknown_key",
                &key.span(),
                format!("unknown key in {name}"),
                format!("`{}`", key.get_ref()),
                format!("one of: {}", words.join(", ")),
            );
        }
        for word in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            let Some(word) = word.as_str() else { continue };
            if !table.iter().any(|(key, _)| key.get_ref() == word) {
                self.add(
                    "missing_key",
                    span,
                    format!("{name} lacks a key"),
                    String::new(),
                    format!("`{word}`"),
                );
            }
        }
    }

    fn value(&mut self, schema: &'d Value, value: &Spanned<DeValue<'_>>, name: &str) {
        let schema = self.resolve(schema);
        let span = value.span();
        if let Some(expected) = wrong_type(schema, value.get_ref()) {
            let found = value.get_ref().type_str().to_owned();
            self.add("wrong_type", &span, format!("`{name}` has the wrong type"), found, expected);
            return;
        }
        match value.get_ref() {
            DeValue::Table(table) => self.table(schema, table, &span, &format!("`{name}`")),
            DeValue::Array(array) => {
                if let Some(items) = schema.get("items") {
                    for item in array {
                        self.value(items, item, name);
                    }
                }
            }
            DeValue::String(word) => self.word(schema, word, &span, name),
            DeValue::Integer(number) => {
                let parsed = i128::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok();
                self.number(schema, parsed, number.as_str(), &span, name);
            }
            DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
        }
    }

    fn word(&mut self, schema: &Value, word: &str, span: &Range<usize>, name: &str) {
        let words = words(schema);
        if !words.is_empty() && !words.contains(&word) {
            let expected = format!("one of: {}", words.join(", "));
            self.add(
                "unknown_word",
                span,
                format!("unknown word for `{name}`"),
                format!("`{word}`"),
                expected,
            );
        }
    }

    fn number(&mut self, schema: &Value, number: Option<i128>, text: &str, span: &Range<usize>, name: &str) {
        let bound = |key: &str| schema.get(key).and_then(Value::as_i64).map(i128::from);
        let low = bound("minimum").unwrap_or(i128::MIN);
        let high = bound("maximum").unwrap_or_else(|| i64::MAX.into());
        if number.is_none_or(|n| n < low || n > high) {
            let expected = format!("a number from {low} to {high}");
            self.add("out_of_range", span, format!("`{name}` is out of range"), text.to_owned(), expected);
        }
    }

    /// Follows `$ref` and takes the branch of an optional value that is not `null`.
    fn resolve(&self, schema: &'d Value) -> &'d Value {
        let branch = schema
            .get("anyOf")
            .and_then(Value::as_array)
            .and_then(|all| all.iter().find(|one| one.get("type").and_then(Value::as_str) != Some("null")))
            .unwrap_or(schema);
        branch
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|path| path.strip_prefix("#/$defs/"))
            .and_then(|name| self.definitions?.get(name))
            .unwrap_or(branch)
    }

    fn add(
        &mut self,
        code: &'static str,
        span: &Range<usize>,
        message: String,
        found: String,
        expected: String,
    ) {
        let hint = match code {
            "unknown_key" => "remove the key or correct its spelling; unknown keys are never ignored",
            "unknown_word" => "unknown words are never taken as a default",
            "missing_key" => "add the key",
            _ => "correct the value",
        };
        let place = self.document.place(span);
        self.problems.push(Problem { code, place, message, found, expected, hint: hint.to_owned() });
    }
}

/// The words a string may be: a plain `enum`, or `const` alternatives with a description each.
fn words(schema: &Value) -> Vec<&str> {
    let list = |key: &str| schema.get(key).and_then(Value::as_array).into_iter().flatten();
    let mut words: Vec<&str> = list("enum").filter_map(Value::as_str).collect();
    for one in list("oneOf") {
        words.extend(one.get("const").and_then(Value::as_str));
        words.extend(
            one.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str),
        );
    }
    words
}

/// What was expected, when `value` is not of the type the schema names.
fn wrong_type(schema: &Value, value: &DeValue<'_>) -> Option<String> {
    let allowed: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).filter(|t| *t != "null").collect(),
        _ if schema.get("oneOf").is_some() || schema.get("enum").is_some() => vec!["string"],
        _ => return None,
    };
    let actual = match value {
        DeValue::String(_) => "string",
        DeValue::Integer(_) => "integer",
        DeValue::Float(_) => "number",
        DeValue::Boolean(_) => "boolean",
        DeValue::Array(_) => "array",
        DeValue::Table(_) => "object",
        DeValue::Datetime(_) => "datetime",
    };
    (!allowed.contains(&actual)).then(|| allowed.join(" or ").replace("object", "table"))
}

fn wipe_table(table: &mut DeTable<'_>) {
    for (_, value) in table.iter_mut() {
        wipe_value(value.get_mut());
    }
}

fn wipe_value(value: &mut DeValue<'_>) {
    match value {
        DeValue::String(Cow::Owned(copy)) => copy.zeroize(),
        DeValue::Array(items) => items.iter_mut().for_each(|item| wipe_value(item.get_mut())),
        DeValue::Table(table) => wipe_table(table),
        DeValue::String(Cow::Borrowed(_))
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => {}
    }
}

/// Line and column (both from 1, columns in characters) of a byte offset.
pub(crate) fn place_in(file: &Arc<str>, text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.bytes().filter(|b| *b == b'\n').count().saturating_add(1);
    let column = before.rsplit('\n').next().unwrap_or("").chars().count().saturating_add(1);
    Place {
        file: Arc::clone(file),
        line: u32::try_from(line).unwrap_or(u32::MAX),
        column: u32::try_from(column).unwrap_or(u32::MAX),
    }
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or("").to_owned()
}
