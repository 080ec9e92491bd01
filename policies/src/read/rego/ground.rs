//! From parsed rules to the table of the roots they define: only values that are written out.

use regorus::unstable::{Expr, Rule, RuleHead, Span};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::super::Document;
use super::first_byte;
use crate::draft::ROOTS;
use crate::names;
use crate::report::{Place, listed, shortened};

/// What the original's engine has no part in: calls of these are told apart from calls of others.
const FORBIDDEN: [&str; 9] = [
    "http.send",
    "net.lookup_ip_addr",
    "net.cidr_contains",
    "net.cidr_intersects",
    "net.cidr_expand",
    "net.cidr_merge",
    "opa.runtime",
    "rand.intn",
    "time.now_ns",
];

type Value<'d> = Spanned<DeValue<'d>>;

/// The roots of one document.
pub(super) struct Roots<'a, 'd> {
    document: &'a Document<'d>,
    table: DeTable<'d>,
    /// Roots that were given as a whole, and so take no more keys.
    whole: Vec<String>,
}

impl<'a, 'd> Roots<'a, 'd> {
    pub(super) fn new(document: &'a Document<'d>) -> Self {
        Self { document, table: DeTable::new(), whole: Vec::new() }
    }

    pub(super) fn into_table(self) -> DeTable<'d> {
        self.table
    }

    /// Adds what a rule defines, or reports why it is no data.
    pub(super) fn add(&mut self, rule: &Rule) {
        let (head, bodies) = match rule {
            Rule::Spec { head, bodies, .. } => (head, bodies),
            Rule::Default { refr, .. } => {
                return self.not_ground(refr.span(), "a default", "write `name := value` instead");
            }
        };
        let (RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. }) = head;
        let Some((root, key)) = self.name(refr) else { return };
        if let Some(body) = bodies.first() {
            return self.not_ground(&body.span, "a rule with a body", "write `name := value`");
        }
        match head {
            RuleHead::Func { span, .. } => self.document.not_data(
                "data_document_function",
                &self.document.spot(span),
                ("a data document has no functions", "a function"),
                ("`name := value`", "remove it, and write the values out"),
            ),
            RuleHead::Compr { assign: Some(assign), .. } => self.assign(&root, key, &assign.value),
            RuleHead::Set { key: Some(member), .. } if key.is_none() => self.member(&root, member),
            RuleHead::Compr { span, assign: None, .. } | RuleHead::Set { span, .. } => {
                self.not_ground(span, "a rule without a value", "write `name := value`");
            }
        }
    }

    /// The root a rule defines, and the key of it when the rule gives only that.
    fn name<'r>(&self, refr: &'r Expr) -> Option<(Spanned<String>, Option<&'r Expr>)> {
        let (head, key) = if let Expr::RefBrack { refr, index, .. } = refr {
            (refr.as_ref(), Some(index.as_ref()))
        } else {
            (refr, None)
        };
        let Expr::Var { span, .. } = head else {
            let hint = "write `name := {...}`, or `name[\"key\"] := ...`";
            self.not_ground(head.span(), "a path", hint);
            return None;
        };
        let name = span.text();
        if ROOTS.contains(&name) {
            let start = first_byte(head);
            let name = Spanned::new(start..start.saturating_add(name.len()), name.to_owned());
            return Some((name, key));
        }
        let expected = format!("one of {}", listed(ROOTS));
        let near = names::nearest(name, ROOTS).map(|near| format!("did you mean `{near}`?"));
        let (code, hint) = match name {
            "result" => ("data_document_must_not_define_result", "remove it; the decision is the edge's own"),
            _ => (
                "data_document_rule_not_allowed",
                near.as_deref().unwrap_or("remove it; a data document defines the six roots only"),
            ),
        };
        let found = format!("`{}`", shortened(name));
        let what = ("a data document has no such root", found.as_str());
        self.document.not_data(code, &self.document.spot(span), what, (&expected, hint));
        None
    }

    /// `root := value`, or `root[key] := value`.
    fn assign(&mut self, root: &Spanned<String>, key: Option<&Expr>, value: &Expr) {
        let Some(key) = key else {
            let value = self.root_value(root.get_ref(), value);
            if self.table.contains_key(root.get_ref().as_str()) {
                return self.twice(&self.document.at(&root.span()), root.get_ref());
            }
            self.whole.push(root.get_ref().clone());
            if let Some(value) = value {
                self.table.insert(Spanned::new(root.span(), root.get_ref().clone().into()), value);
            }
            return;
        };
        let (Some(key), Some(value)) = (self.key(key), self.ground(value)) else { return };
        if let Some(entries) = self.entries(root, DeValue::Table(DeTable::new()))
            && let DeValue::Table(entries) = entries
        {
            if entries.contains_key(&**key.get_ref()) {
                self.twice(&self.document.at(&key.span()), key.get_ref());
            } else {
                entries.insert(key, value);
            }
        }
    }

    /// `root contains member`.
    fn member(&mut self, root: &Spanned<String>, member: &Expr) {
        if root.get_ref() != "restrict" {
            return self.not_ground(
                member.span(),
                "a set",
                "only `restrict` may be one; write `name := ...`",
            );
        }
        let Some(member) = self.ground(member) else { return };
        if let Some(DeValue::Array(items)) = self.entries(root, DeValue::Array(std::iter::empty().collect()))
        {
            items.push(member);
        }
    }

    /// What a root holds so far, for one more key or member. Reported when it was given as a whole before.
    fn entries(&mut self, root: &Spanned<String>, empty: DeValue<'d>) -> Option<&mut DeValue<'d>> {
        if self.whole.contains(root.get_ref()) {
            self.twice(&self.document.at(&root.span()), root.get_ref());
            return None;
        }
        let name: Spanned<DeString<'d>> = Spanned::new(root.span(), root.get_ref().clone().into());
        let entry = self.table.entry(name).or_insert_with(|| Spanned::new(root.span(), empty));
        Some(entry.get_mut())
    }

    fn twice(&self, place: &Place, name: &str) {
        self.document.not_data(
            "duplicate",
            place,
            ("this is defined twice in one document", &format!("`{}`", shortened(name))),
            ("each root, and each key of it, once", "write everything in one place"),
        );
    }

    /// The value of a whole root: `restrict` may be any collection, the lists of rules are arrays.
    fn root_value(&self, root: &str, value: &Expr) -> Option<Value<'d>> {
        match (root, value) {
            ("restrict", Expr::Object { fields, .. }) => {
                let keys: Option<_> = fields.iter().map(|(_, key, _)| self.text(key)).collect();
                Some(self.placed(value, DeValue::Array(keys?)))
            }
            ("restrict", _) | (_, Expr::Array { .. } | Expr::Object { .. }) => self.ground(value),
            (_, Expr::Set { span, .. }) => {
                self.not_ground(span, "a set", "write an array, `[...]`");
                None
            }
            _ => self.ground(value),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what is not listed is refused, whatever it is")]
    fn ground(&self, value: &Expr) -> Option<Value<'d>> {
        let plain = match value {
            Expr::String { .. } | Expr::RawString { .. } => return self.text(value),
            Expr::Bool { value: truth, .. } => DeValue::Boolean(matches!(truth, regorus::Value::Bool(true))),
            Expr::Number { span, .. } => {
                let number = self.slice(span).and_then(|text| DeValue::parse(text).ok());
                let Some(number) = number else {
                    self.not_ground(span, "a number of another form", "write an integer");
                    return None;
                };
                number.into_inner()
            }
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                // Every element is looked at, so that all problems are told at once.
                let items: Vec<_> = items.iter().map(|item| self.ground(item)).collect();
                DeValue::Array(items.into_iter().collect::<Option<_>>()?)
            }
            Expr::Object { fields, .. } => {
                let mut table = DeTable::new();
                for (_, key, value) in fields {
                    let (key, value) = (self.key(key), self.ground(value));
                    let (Some(key), Some(value)) = (key, value) else { continue };
                    if table.contains_key(&**key.get_ref()) {
                        self.twice(&self.document.at(&key.span()), key.get_ref());
                    }
                    table.insert(key, value);
                }
                DeValue::Table(table)
            }
            Expr::Call { span, fcn, .. } => {
                self.call(span, fcn.span().text());
                return None;
            }
            other => {
                self.not_ground(other.span(), kind(other), "write the values out");
                return None;
            }
        };
        Some(self.placed(value, plain))
    }

    fn text(&self, value: &Expr) -> Option<Value<'d>> {
        self.key(value).map(|text| Spanned::new(text.span(), DeValue::String(text.into_inner())))
    }

    fn key(&self, key: &Expr) -> Option<Spanned<DeString<'d>>> {
        let (Expr::String { span, value, .. } | Expr::RawString { span, value, .. }) = key else {
            self.not_ground(key.span(), kind(key), "write a string");
            return None;
        };
        let written = self.slice(span)?;
        let escaped = matches!(key, Expr::String { .. }) && written.contains('\\');
        let text = if escaped { value.as_string().ok()?.to_string().into() } else { written.into() };
        Some(Spanned::new(first_byte(key)..byte(span.end).saturating_add(1), text))
    }

    /// The text of a span, of the document itself.
    fn slice(&self, span: &Span) -> Option<&'d str> {
        self.document.text.get(byte(span.start)..byte(span.end))
    }

    fn placed(&self, at: &Expr, value: DeValue<'d>) -> Value<'d> {
        Spanned::new(first_byte(at)..byte(at.span().end), value)
    }

    fn call(&self, span: &Span, name: &str) {
        if FORBIDDEN.contains(&name) {
            let found = format!("`{}`", shortened(name));
            return self.document.not_data(
                "forbidden_builtin",
                &self.document.spot(span),
                ("this function is not to be called from a policy", &found),
                ("data only", "write the value out"),
            );
        }
        self.not_ground(span, "a call", "write the value out");
    }

    fn not_ground(&self, span: &Span, found: &str, hint: &str) {
        self.document.not_data(
            "data_document_not_ground",
            &self.document.spot(span),
            ("a data document holds values that are written out", found),
            ("strings, integers, arrays and objects", hint),
        );
    }
}

fn byte(at: u32) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

fn kind(value: &Expr) -> &'static str {
    match value {
        Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => "a reference",
        Expr::ArrayCompr { .. } | Expr::SetCompr { .. } | Expr::ObjectCompr { .. } => "a comprehension",
        Expr::Null { .. } => "`null`",
        Expr::Call { .. } => "a call",
        Expr::Number { .. } => "a number",
        Expr::Bool { .. } => "a boolean",
        Expr::Array { .. } | Expr::Set { .. } | Expr::Object { .. } => "a collection",
        Expr::String { .. } | Expr::RawString { .. } => "a string",
        Expr::UnaryExpr { .. }
        | Expr::BinExpr { .. }
        | Expr::BoolExpr { .. }
        | Expr::ArithExpr { .. }
        | Expr::AssignExpr { .. }
        | Expr::Membership { .. } => "an expression",
    }
}
