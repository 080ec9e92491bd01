//! From the text of an expression to something that can be evaluated: known names, fitting types, bounded cost.

mod calls;
mod cost;

use cel::common::ast::{ComprehensionExpr, Expr, IdedExpr, LiteralValue, SelectExpr, SourceInfo, operators};
use cel::parser::Parser;

use self::cost::{BODY_STEPS, ENTRIES, Typed, leaf, pair};
use super::node::{Fact, Node};
use super::time;

/// Bytes of an expression.
pub(super) const MAX_SOURCE: usize = 4 * 1024;
/// Steps an expression may take in the worst case. A step takes well under 20 ns, so that is below a millisecond.
const MAX_STEPS: u64 = 50_000;
/// An expression that can be evaluated.
#[derive(Debug)]
pub(super) struct Expression {
    pub(super) root: Node,
    /// Every fact it reads.
    pub(super) facts: Vec<Fact>,
}

/// Why an expression cannot be used.
#[derive(Debug)]
pub(super) struct Wrong {
    /// Line and column within the expression, from 1, where they are known.
    pub(super) at: Option<(usize, usize)>,
    pub(super) found: String,
    pub(super) expected: String,
}

/// What is known about a value before there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Only the request can tell.
    Any,
    Null,
    Bool,
    Int,
    Double,
    Text,
    List,
    Map,
}

/// Compiles an expression.
pub(super) fn compile(source: &str) -> Result<Expression, Wrong> {
    let bare = |found: String, expected: &str| Wrong { at: None, found, expected: expected.to_owned() };
    if source.len() > MAX_SOURCE {
        return Err(bare(format!("{} bytes", source.len()), "at most 4096 bytes"));
    }
    let parsed = Parser::new().max_recursion_depth(48).parse_with_source_info(source);
    let (tree, places) = parsed.map_err(|errors| match errors.errors.first() {
        Some(error) => Wrong {
            at: usize::try_from(error.pos.0).ok().zip(usize::try_from(error.pos.1).ok()),
            // Without the list of every token that could follow.
            found: error
                .msg
                .split(['\n', '{'])
                .next()
                .unwrap_or_default()
                .trim_end_matches(" expecting ")
                .to_owned(),
            expected: "an expression of CEL".to_owned(),
        },
        None => bare("no expression".to_owned(), "an expression of CEL"),
    })?;
    let mut compiler = Compiler { places: &places, source, locals: Vec::new(), facts: Vec::new() };
    let root = compiler.typed(&tree)?;
    if !matches!(root.kind, Kind::Bool | Kind::Any) {
        return Err(compiler.wrong(&tree, kind_of(root.kind), "`true` or `false`"));
    }
    if root.steps > MAX_STEPS {
        let found = format!("{} steps in the worst case", root.steps);
        return Err(bare(
            found,
            "at most 50000 steps: fewer loops, or fewer texts read to their end in a loop",
        ));
    }
    Ok(Expression { root: root.node, facts: compiler.facts })
}

struct Compiler<'s> {
    places: &'s SourceInfo,
    source: &'s str,
    /// Names of what the loops around stand at, and whether it comes from a request.
    locals: Vec<(String, bool)>,
    facts: Vec<Fact>,
}

type Compiled = Result<Typed, Wrong>;

impl Compiler<'_> {
    fn typed(&mut self, expr: &IdedExpr) -> Compiled {
        match &expr.expr {
            Expr::Literal(literal) => self.literal(expr, literal),
            Expr::Ident(name) => self.name(expr, name),
            Expr::Select(select) => self.select(expr, select),
            Expr::List(list) => {
                let elements = list.elements.iter().map(|element| self.typed(element));
                let elements = elements.collect::<Result<Vec<_>, _>>()?;
                let steps = elements.iter().map(|element| element.steps).sum::<u64>().saturating_add(1);
                let reads = elements.iter().map(|element| element.reads).sum();
                let looped = elements.iter().any(|element| element.looped);
                let entries = u64::try_from(elements.len()).ok();
                let node = Node::List(elements.into_iter().map(|element| element.node).collect());
                Ok(Typed { node, kind: Kind::List, steps, reads, looped, entries })
            }
            Expr::Call(call) => self.call(expr, call),
            Expr::Comprehension(comprehension) => self.comprehension(expr, comprehension),
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => {
                Err(self.wrong(expr, "a map or a message", "a value of the request, a literal or a list"))
            }
        }
    }

    fn literal(&self, expr: &IdedExpr, literal: &LiteralValue) -> Compiled {
        let (node, kind) = match literal {
            LiteralValue::Boolean(value) => (Node::Bool(*value.inner()), Kind::Bool),
            LiteralValue::Int(value) => (Node::Int(*value.inner()), Kind::Int),
            LiteralValue::Double(value) => (Node::Double(*value.inner()), Kind::Double),
            LiteralValue::String(value) => (Node::Text(value.inner().into()), Kind::Text),
            LiteralValue::Null => (Node::Null, Kind::Null),
            LiteralValue::Bytes(_) | LiteralValue::UInt(_) => {
                return Err(self.wrong(
                    expr,
                    "bytes or an unsigned number",
                    "a text or a number without `u`",
                ));
            }
        };
        Ok(leaf(node, kind))
    }

    fn name(&mut self, expr: &IdedExpr, name: &str) -> Compiled {
        if let Some(at) = self.locals.iter().rposition(|(local, _)| local == name) {
            let looped = self.locals.get(at).is_some_and(|(_, looped)| *looped);
            return Ok(Typed { looped, ..leaf(Node::Local(at), Kind::Any) });
        }
        match name {
            "method" => Ok(self.fact(Fact::Method, Kind::Text)),
            "path" => Ok(self.fact(Fact::Path, Kind::Text)),
            "segments" => Ok(self.fact(Fact::Segments, Kind::List)),
            "body" => Ok(self.fact(Fact::Body, Kind::Any)),
            "headers" | "query" | "params" => {
                let expected =
                    format!("one of them: `{name}.name`, `{name}[\"name\"]` or `\"name\" in {name}`");
                Err(self.wrong(expr, &format!("all of `{name}`"), &expected))
            }
            "mcp" | "caller" | "source" | "time" => {
                Err(self.wrong(expr, &format!("all of `{name}`"), &format!("one of {}", members(name))))
            }
            _ => {
                let near = crate::names::nearest(name, ROOTS.iter().copied());
                let near = near.map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default();
                let found = format!("an unknown name `{name}`{near}");
                Err(self.wrong(expr, &found, &crate::report::one_of(ROOTS)))
            }
        }
    }

    fn select(&mut self, expr: &IdedExpr, select: &SelectExpr) -> Compiled {
        let found = match self.group(&select.operand) {
            Some(group) => self.of_group(expr, group, &select.field)?,
            None => {
                let of = self.typed(&select.operand)?;
                self.fits(&select.operand, of.kind, &[Kind::Map], "a map")?;
                let node = Node::Member(Box::new(of.node), select.field.as_str().into());
                let steps = of.steps.saturating_add(10);
                Typed { node, kind: Kind::Any, steps, reads: of.reads, looped: of.looped, entries: None }
            }
        };
        Ok(if select.test {
            Typed { node: Node::Has(Box::new(found.node)), kind: Kind::Bool, ..found }
        } else {
            found
        })
    }

    /// The name of a group of facts that this stands for.
    fn group(&self, expr: &IdedExpr) -> Option<&'static str> {
        let Expr::Ident(name) = &expr.expr else { return None };
        let hidden = self.locals.iter().any(|(local, _)| local == name);
        let group = GROUPS.iter().find(|(group, _)| group == name).map(|(group, _)| *group);
        group.filter(|_| !hidden)
    }

    fn of_group(&mut self, expr: &IdedExpr, group: &str, name: &str) -> Compiled {
        let (fact, kind) = match (group, name) {
            ("headers", _) => {
                let good =
                    crate::names::is_token(name) && !name.bytes().any(|byte| byte.is_ascii_uppercase());
                if !good {
                    return Err(self.wrong(expr, &format!("the header field `{name}`"), "a lower-case name"));
                }
                if is_withheld(name) {
                    let found = format!("the header field `{name}`");
                    return Err(self.wrong(
                        expr,
                        &found,
                        "a field that is forwarded as it is, and holds no key or cookie",
                    ));
                }
                (Fact::Header(name.into()), Kind::Any)
            }
            ("query", _) => (Fact::Query(name.into()), Kind::Any),
            ("params", _) => (Fact::Param(name.into()), Kind::Text),
            ("mcp", "method") => (Fact::McpMethod, Kind::Text),
            ("mcp", "tool") => (Fact::McpTool, Kind::Text),
            ("mcp", "arguments") => (Fact::McpArguments, Kind::Map),
            ("caller", "application") => (Fact::Application, Kind::Text),
            ("caller", "subject") => (Fact::Subject, Kind::Text),
            ("caller", "session") => (Fact::Session, Kind::Text),
            ("caller", "labels") => (Fact::Labels, Kind::List),
            ("caller", "depth") => (Fact::Depth, Kind::Int),
            ("source", "address") => (Fact::Source, Kind::Text),
            ("time", _) if time::PARTS.iter().any(|(part, _)| *part == name) => {
                let part = time::PARTS.iter().find(|(part, _)| *part == name).map(|(_, part)| *part);
                (Fact::Time(part.unwrap_or(time::Part::Seconds)), Kind::Int)
            }
            _ => {
                let found = format!("`{group}.{name}`");
                return Err(self.wrong(expr, &found, &format!("one of {}", members(group))));
            }
        };
        Ok(self.fact(fact, kind))
    }

    fn fact(&mut self, fact: Fact, kind: Kind) -> Typed {
        if !self.facts.contains(&fact) {
            self.facts.push(fact.clone());
        }
        let steps = match &fact {
            Fact::Segments | Fact::Labels => 64,
            Fact::Header(_) | Fact::Query(_) | Fact::Param(_) | Fact::Path => 24,
            Fact::Method
            | Fact::Body
            | Fact::McpMethod
            | Fact::McpTool
            | Fact::McpArguments
            | Fact::Application
            | Fact::Subject
            | Fact::Session
            | Fact::Depth
            | Fact::Source
            | Fact::Time(_) => 4,
        };
        Typed { steps, ..leaf(Node::Fact(fact), kind) }
    }

    /// `exists` and `all`, told by what their answer begins with.
    fn comprehension(&mut self, expr: &IdedExpr, loops: &ComprehensionExpr) -> Compiled {
        let begins = if let Expr::Literal(LiteralValue::Boolean(begins)) = &loops.accu_init.expr {
            Some(*begins.inner())
        } else {
            None
        };
        let (Some(all), Expr::Call(step)) = (begins, &loops.loop_step.expr) else {
            return Err(self.wrong(expr, "`map`, `filter` or `exists_one`", "`all` or `exists`"));
        };
        let wanted = if all { operators::LOGICAL_AND } else { operators::LOGICAL_OR };
        let (true, [_, condition]) = (step.func_name == wanted, step.args.as_slice()) else {
            return Err(self.wrong(expr, "an unknown loop", "`all` or `exists`"));
        };
        let range = self.of(&loops.iter_range, &[Kind::List], "a list")?;
        let dynamic = range.entries.is_none();
        if dynamic && self.locals.iter().any(|(_, looped)| *looped) {
            return Err(self.wrong(expr, "a loop within a loop", "one loop over what a request brings"));
        }
        self.locals.push((loops.iter_var.clone(), dynamic));
        let body = self.of(condition, &[Kind::Bool], "`true` or `false`");
        self.locals.pop();
        let body = body?;
        let times = range.entries.unwrap_or(ENTRIES);
        let each = body.steps.saturating_add(1).saturating_mul(times);
        let (steps, reads) = if dynamic {
            (each.saturating_add(body.reads.saturating_mul(BODY_STEPS)), 0)
        } else {
            (each, body.reads.saturating_mul(times))
        };
        Ok(pair(range, Typed { steps: 0, reads: 0, ..body }, Kind::Bool, steps, reads, |range, body| {
            Node::Loop(range, body, all)
        }))
    }

    /// Compiles an operand that must be of one of these kinds.
    fn of(&mut self, expr: &IdedExpr, kinds: &[Kind], expected: &str) -> Compiled {
        let typed = self.typed(expr)?;
        self.fits(expr, typed.kind, kinds, expected)?;
        Ok(typed)
    }

    fn fits(&self, expr: &IdedExpr, kind: Kind, kinds: &[Kind], expected: &str) -> Result<(), Wrong> {
        if kind == Kind::Any || kinds.contains(&kind) {
            return Ok(());
        }
        Err(self.wrong(expr, kind_of(kind), expected))
    }

    fn wrong(&self, expr: &IdedExpr, found: &str, expected: &str) -> Wrong {
        let start = self.places.offset_for(expr.id).map(|(start, _)| start);
        let before = start.map(|start| {
            let count = usize::try_from(start).unwrap_or(usize::MAX);
            self.source.chars().take(count).collect::<String>()
        });
        let at = before.map(|before| {
            let line = before.matches('\n').count().saturating_add(1);
            let column = before.chars().rev().take_while(|character| *character != '\n').count();
            (line, column.saturating_add(1))
        });
        Wrong { at, found: found.to_owned(), expected: expected.to_owned() }
    }
}

/// Whether a header field is never a fact.
pub(super) fn is_withheld(name: &str) -> bool {
    const WITHHELD: [&str; 16] = [
        "authorization",
        "proxy-authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "x-auth-token",
        "private-token",
        "cookie",
        "forwarded",
        "x-real-ip",
        "connection",
        "te",
        "upgrade",
        "host",
        "transfer-encoding",
        "expect",
    ];
    WITHHELD.contains(&name) || name.starts_with("x-caracal-") || name.starts_with("x-forwarded-")
}

const ROOTS: [&str; 11] =
    ["method", "path", "segments", "params", "headers", "query", "body", "mcp", "caller", "source", "time"];

/// Names that stand for no value of their own.
const GROUPS: [(&str, &str); 7] = [
    ("headers", ""),
    ("query", ""),
    ("params", ""),
    ("mcp", "`method`, `tool`, `arguments`"),
    ("caller", "`application`, `subject`, `session`, `labels`, `depth`"),
    ("source", "`address`"),
    ("time", "`seconds`, `year`, `month`, `day`, `hour`, `minute`, `weekday`"),
];

fn members(group: &str) -> &'static str {
    GROUPS.iter().find(|(known, _)| *known == group).map_or("", |(_, members)| members)
}

fn kind_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Any => "a value",
        Kind::Null => "`null`",
        Kind::Bool => "`true` or `false`",
        Kind::Int => "a whole number",
        Kind::Double => "a number",
        Kind::Text => "a text",
        Kind::List => "a list",
        Kind::Map => "a map",
    }
}
