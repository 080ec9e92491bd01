//! Reading a policy document in Rego. It is data and nothing else, so what is parsed becomes the same table a TOML
//! document gives, with the same places, and the same readers check it. Nothing is ever evaluated.

mod ground;
mod scan;

use std::num::{NonZeroU32, NonZeroUsize};

use regorus::unstable::{Expr, Import, Module, Parser, Source, Span};
use toml::Spanned;
use toml::de::DeTable;

use super::Document;
use crate::limits;
use crate::report::{Place, Problem, shortened};
use ground::Roots;

/// The package of every policy document.
const PACKAGE: [&str; 2] = ["caracal", "authz"];
/// The comment by which a document says that it is data.
const DIRECTIVE: &str = "# caracal:data-document";
/// The parser pads its messages to a column, which must fit 16 bits.
const LINE_BYTES: NonZeroU32 = NonZeroU32::new(32 * 1024).unwrap();

impl<'d> Document<'d> {
    /// Parses the text as Rego: the roots it defines, or `None` after problems, which are reported.
    pub(crate) fn parse_rego(&self) -> Option<Spanned<DeTable<'d>>> {
        scan::check(self)?;
        let source = self.rego_source()?;
        let package = Parser::new(&source).and_then(|mut parser| {
            parser.set_max_col(LINE_BYTES);
            parser.parse_package()
        });
        if let Err(error) = package {
            self.syntax(
                "invalid_package_name",
                &error.to_string(),
                "`package caracal.authz`",
                "correct the package",
            );
            return None;
        }
        let parsed = Parser::new(&source).and_then(|mut parser| {
            parser.set_max_col(LINE_BYTES);
            parser.enable_rego_v1()?;
            parser.parse()
        });
        match parsed {
            Ok(module) => self.roots(&module),
            Err(error) => {
                let hint = "correct the syntax; nothing else in this file was checked";
                self.syntax("syntax", &error.to_string(), "a Rego document", hint);
                None
            }
        }
    }

    fn rego_source(&self) -> Option<Source> {
        // Sizes were checked, so these only keep the parser's own, smaller ones away.
        let most = NonZeroUsize::new(limits::REGO_BYTES.saturating_add(1))?;
        let source =
            Source::from_contents_with_limits(String::new(), self.text.to_owned(), most, NonZeroUsize::MAX);
        source.map_err(|error| self.syntax("syntax", &error.to_string(), "a Rego document", "split it")).ok()
    }

    fn roots(&self, module: &Module) -> Option<Spanned<DeTable<'d>>> {
        let before = self.problems.count();
        self.check_package(module);
        if !self.text.lines().any(|line| line.trim() == DIRECTIVE) {
            self.not_data(
                "must_be_data_document",
                &self.start(),
                ("the document does not say that it is data", "no such line"),
                (&format!("the line `{DIRECTIVE}`"), "add the line below `package`"),
            );
        }
        if let Some(target) = &module.target {
            self.not_data(
                "data_document_rule_not_allowed",
                &self.start(),
                ("a data document has no target", &format!("`{}`", shortened(target))),
                ("data only", "remove `__target__`"),
            );
        }
        for import in module.imports.iter().filter(|import| !is_version(import)) {
            self.not_data(
                "data_document_import",
                &self.spot(&import.span),
                (
                    "a data document imports nothing",
                    &format!("`{}`", shortened(import.span.text().lines().next().unwrap_or_default())),
                ),
                ("data only; `import rego.v1` may stand", "write the values out here"),
            );
        }
        if module.policy.is_empty() {
            self.not_data(
                "data_document_must_define_data",
                &self.start(),
                ("the document defines nothing", "no rule"),
                (
                    "at least one of the six roots",
                    "add for example `app_ids := {...}`, or take it off the list in `zone.toml`",
                ),
            );
        }
        let mut roots = Roots::new(self);
        module.policy.iter().for_each(|rule| roots.add(rule));
        let table = roots.into_table();
        (self.problems.count() == before).then(|| Spanned::new(0..self.text.len(), table))
    }

    fn check_package(&self, module: &Module) {
        let refr = &module.package.refr;
        let path = Parser::get_path_ref_components(refr).unwrap_or_default();
        if !path.iter().map(Span::text).eq(PACKAGE) {
            self.not_data(
                "must_use_package_caracal_authz",
                &self.spot(refr.span()),
                ("the document is in another package", &format!("`{}`", shortened(refr.span().text()))),
                ("`caracal.authz`", "begin the document with `package caracal.authz`"),
            );
        }
    }

    /// `what` is the problem and what was found, `remedy` what is expected and what to do.
    fn not_data(&self, code: &'static str, place: &Place, what: (&str, &str), remedy: (&str, &str)) {
        self.problems.push(Problem::new(code, place, what.0).found(what.1).expected(remedy.0).hint(remedy.1));
    }

    /// The parser's message without the source line it repeats, and its place.
    fn syntax(&self, code: &'static str, error: &str, expected: &str, hint: &str) {
        let number = |part: Option<&str>| part.and_then(|digits| digits.trim().parse().ok());
        let mut arrow = error.trim_start().lines().next().unwrap_or_default().rsplit(':');
        let (column, line) = (number(arrow.next()), number(arrow.next()));
        let place = match (line, column) {
            (Some(line), Some(column)) => Place { line, column, ..self.start() },
            _ => self.start(),
        };
        let (_, said) = error.rsplit_once("error: ").unwrap_or_default();
        let said = shortened(said.lines().next().unwrap_or_default());
        let found = if said.is_empty() { "an error" } else { said.as_str() };
        self.not_data(code, &place, ("this is not Rego", found), (expected, hint));
    }

    /// Where a part of the parsed text stands.
    fn spot(&self, span: &Span) -> Place {
        self.place(usize::try_from(span.start).unwrap_or(usize::MAX))
    }
}

/// Imports that choose a version of the language and bring nothing in.
fn is_version(import: &Import) -> bool {
    let path = Parser::get_path_ref_components(&import.refr).unwrap_or_default();
    match path.as_slice() {
        [first, second] if first.text() == "rego" => second.text() == "v1",
        [first, second, ..] => first.text() == "future" && second.text() == "keywords",
        _ => false,
    }
}

/// The first byte of a value. Spans of strings begin behind the quote, and those of objects at their last key.
fn first_byte(expr: &Expr) -> usize {
    let start = |span: &Span| usize::try_from(span.start).unwrap_or(usize::MAX);
    if let Expr::String { span, .. } | Expr::RawString { span, .. } = expr {
        return start(span).saturating_sub(1);
    }
    let Expr::Object { span, fields, .. } = expr else { return start(expr.span()) };
    let Some((_, key, _)) = fields.first() else { return start(span) };
    let first = first_byte(key);
    let before = span.source.contents().get(..first).unwrap_or_default();
    before.rfind('{').unwrap_or(first)
}
