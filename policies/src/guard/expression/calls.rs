//! Operators and functions of expressions.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};
use regex::{Regex, RegexBuilder};

use super::cost::{
    BODY_STEPS, ENTRIES, TEXT_STEPS, Typed, comparable, comparison_cost, literal_steps, pair, read, reading,
};
use super::{Compiled, Compiler, Kind, kind_of};
use crate::guard::node::{Comparison, Node, Operator, Search};

/// Bytes of a compiled regular expression.
const MAX_REGEX: usize = 256 * 1024;
/// A regular expression reads a text this much slower.
const REGEX_FACTOR: u64 = 8;

const NUMBERS: &[Kind] = &[Kind::Int, Kind::Double];

const KNOWN_CALLS: &str = "operators, `in`, `has`, `size`, `int`, `double`, `contains`, `startsWith`, `endsWith`, \
                           `matches`, `all`, `exists`";

impl Compiler<'_> {
    pub(super) fn call(&mut self, expr: &IdedExpr, call: &CallExpr) -> Compiled {
        // What is written `text.contains(part)` is a call with a target.
        let operands: Vec<&IdedExpr> = call.target.as_deref().into_iter().chain(&call.args).collect();
        match (call.func_name.as_str(), operands.as_slice()) {
            (operators::LOGICAL_AND, [one, two]) => self.logical(one, two, Node::And),
            (operators::LOGICAL_OR, [one, two]) => self.logical(one, two, Node::Or),
            (operators::LOGICAL_NOT, [one]) => {
                let one = self.of(one, &[Kind::Bool], "`true` or `false`")?;
                Ok(Typed { node: Node::Not(Box::new(one.node)), kind: Kind::Bool, ..one })
            }
            (operators::NEGATE, [one]) => {
                let one = self.of(one, NUMBERS, "a number")?;
                Ok(Typed { node: Node::Negate(Box::new(one.node)), ..one })
            }
            (operators::CONDITIONAL, [condition, yes, no]) => self.conditional(condition, yes, no),
            (operators::EQUALS, [one, two]) => self.equal(expr, one, two, false),
            (operators::NOT_EQUALS, [one, two]) => self.equal(expr, one, two, true),
            (operators::LESS, [one, two]) => self.compare(expr, one, two, Comparison::Less),
            (operators::LESS_EQUALS, [one, two]) => self.compare(expr, one, two, Comparison::AtMost),
            (operators::GREATER, [one, two]) => self.compare(expr, one, two, Comparison::Greater),
            (operators::GREATER_EQUALS, [one, two]) => self.compare(expr, one, two, Comparison::AtLeast),
            (operators::ADD, [one, two]) => self.arithmetic(one, two, Operator::Add),
            (operators::SUBSTRACT, [one, two]) => self.arithmetic(one, two, Operator::Subtract),
            (operators::MULTIPLY, [one, two]) => self.arithmetic(one, two, Operator::Multiply),
            (operators::DIVIDE, [one, two]) => self.arithmetic(one, two, Operator::Divide),
            (operators::MODULO, [one, two]) => self.arithmetic(one, two, Operator::Remainder),
            (operators::IN, [one, many]) => self.within(expr, one, many),
            (operators::INDEX, [of, at]) => self.index(expr, of, at),
            ("size", [of]) => {
                let of = self.of(of, &[Kind::Text, Kind::List, Kind::Map], "a text, a list or a map")?;
                Ok(read(of, 1, Kind::Int, |of| Node::Size(Box::new(of))))
            }
            ("int", [of]) => {
                let of = self.of(of, &[Kind::Int, Kind::Double, Kind::Text], "a number or a text")?;
                Ok(read(of, 1, Kind::Int, |of| Node::ToInt(Box::new(of))))
            }
            ("double", [of]) => {
                let of = self.of(of, &[Kind::Int, Kind::Double, Kind::Text], "a number or a text")?;
                Ok(read(of, 1, Kind::Double, |of| Node::ToDouble(Box::new(of))))
            }
            ("contains", [text, part]) => self.search(text, part, Search::Contains),
            ("startsWith", [text, part]) => self.search(text, part, Search::StartsWith),
            ("endsWith", [text, part]) => self.search(text, part, Search::EndsWith),
            ("matches", [text, pattern]) => self.matches(text, pattern),
            (name, _) => {
                let found = format!("`{name}` with {} operands", operands.len());
                Err(self.wrong(expr, &found, KNOWN_CALLS))
            }
        }
    }

    fn logical(
        &mut self,
        one: &IdedExpr,
        two: &IdedExpr,
        node: fn(Box<Node>, Box<Node>) -> Node,
    ) -> Compiled {
        let one = self.of(one, &[Kind::Bool], "`true` or `false`")?;
        let two = self.of(two, &[Kind::Bool], "`true` or `false`")?;
        Ok(pair(one, two, Kind::Bool, 0, 0, node))
    }

    fn conditional(&mut self, condition: &IdedExpr, yes: &IdedExpr, no: &IdedExpr) -> Compiled {
        let condition = self.of(condition, &[Kind::Bool], "`true` or `false`")?;
        let (yes, no) = (self.typed(yes)?, self.typed(no)?);
        let kind = if yes.kind == no.kind { yes.kind } else { Kind::Any };
        let steps = condition.steps.saturating_add(yes.steps.max(no.steps)).saturating_add(1);
        let reads = condition.reads.saturating_add(yes.reads.max(no.reads));
        // Either may be what is looped over, and one of them may have no known length.
        let entries = yes.entries.zip(no.entries).map(|(yes, no)| yes.max(no));
        // Only what differs from turn to turn is read once in all of them.
        let looped = yes.looped && no.looped;
        let node = Node::If(Box::new(condition.node), Box::new(yes.node), Box::new(no.node));
        Ok(Typed { node, kind, steps, reads, looped, entries })
    }

    fn equal(&mut self, expr: &IdedExpr, one: &IdedExpr, two: &IdedExpr, turned: bool) -> Compiled {
        let (one, two) = (self.typed(one)?, self.typed(two)?);
        if !comparable(one.kind, two.kind) && one.kind != Kind::Null && two.kind != Kind::Null {
            let found = format!("{} and {}", kind_of(one.kind), kind_of(two.kind));
            return Err(self.wrong(expr, &found, "two values of one kind; elements of a list with `in`"));
        }
        let (steps, reads) = comparison_cost(&one, &two);
        Ok(pair(one, two, Kind::Bool, steps, reads, |one, two| Node::Equal(one, two, turned)))
    }

    fn compare(&mut self, expr: &IdedExpr, one: &IdedExpr, two: &IdedExpr, by: Comparison) -> Compiled {
        let (one, two) = (self.typed(one)?, self.typed(two)?);
        let ordered = |kind| matches!(kind, Kind::Any | Kind::Int | Kind::Double | Kind::Text);
        if !comparable(one.kind, two.kind) || !ordered(one.kind) || !ordered(two.kind) {
            let found = format!("{} and {}", kind_of(one.kind), kind_of(two.kind));
            return Err(self.wrong(
                expr,
                &found,
                "two numbers or two texts; `int(...)` makes a number of a text",
            ));
        }
        let (steps, reads) = comparison_cost(&one, &two);
        Ok(pair(one, two, Kind::Bool, steps, reads, |one, two| Node::Compare(by, one, two)))
    }

    fn arithmetic(&mut self, one: &IdedExpr, two: &IdedExpr, operator: Operator) -> Compiled {
        let one = self.of(one, NUMBERS, "a number")?;
        let two = self.of(two, NUMBERS, "a number")?;
        let kind = match (one.kind, two.kind) {
            (Kind::Int, Kind::Int) => Kind::Int,
            (Kind::Double, _) | (_, Kind::Double) => Kind::Double,
            _ => Kind::Any,
        };
        Ok(pair(one, two, kind, 0, 0, |one, two| Node::Arithmetic(operator, one, two)))
    }

    fn within(&mut self, expr: &IdedExpr, one: &IdedExpr, many: &IdedExpr) -> Compiled {
        if let Some(group) = self.group(many) {
            let Expr::Literal(LiteralValue::String(name)) = &one.expr else {
                return Err(self.wrong(expr, "a name that is not written out", "a name in quotes"));
            };
            let found = self.of_group(expr, group, name.inner())?;
            return Ok(Typed { node: Node::Has(Box::new(found.node)), kind: Kind::Bool, ..found });
        }
        let one = self.typed(one)?;
        let many = self.of(many, &[Kind::List, Kind::Map], "a list or a map")?;
        if matches!(one.kind, Kind::List | Kind::Map) {
            return Err(self.wrong(expr, kind_of(one.kind), "one value on the left of `in`"));
        }
        let (steps, reads) = match many.entries {
            // The literals were counted as they were compiled; a text is compared with each of them.
            Some(entries) => (entries.saturating_mul(2), 0),
            None => (ENTRIES + BODY_STEPS, 0),
        };
        Ok(pair(one, many, Kind::Bool, steps, reads, Node::In))
    }

    fn index(&mut self, expr: &IdedExpr, of: &IdedExpr, at: &IdedExpr) -> Compiled {
        if let Some(group) = self.group(of) {
            let Expr::Literal(LiteralValue::String(name)) = &at.expr else {
                return Err(self.wrong(expr, "a name that is not written out", "a name in quotes"));
            };
            return self.of_group(expr, group, name.inner());
        }
        let of = self.of(of, &[Kind::List, Kind::Map], "a list or a map")?;
        let at = self.of(at, &[Kind::Int, Kind::Text], "a number or a name")?;
        let steps =
            if matches!(at.node, Node::Text(_) | Node::Int(_)) { 10 } else { TEXT_STEPS.saturating_mul(10) };
        let looped = of.looped;
        Ok(Typed { looped, ..pair(of, at, Kind::Any, steps, 0, Node::Index) })
    }

    fn search(&mut self, text: &IdedExpr, part: &IdedExpr, search: Search) -> Compiled {
        let text = self.of(text, &[Kind::Text], "a text")?;
        let part = self.of(part, &[Kind::Text], "a text")?;
        let (mut steps, mut reads) = reading(&text);
        if let (Search::StartsWith | Search::EndsWith, Node::Text(part)) = (search, &part.node) {
            (steps, reads) = (literal_steps(part), 0);
        }
        let (more_steps, more_reads) = reading(&part);
        let (steps, reads) = (steps.saturating_add(more_steps), reads.saturating_add(more_reads));
        Ok(pair(text, part, Kind::Bool, steps, reads, |text, part| Node::Search(search, text, part)))
    }

    fn matches(&mut self, text: &IdedExpr, pattern: &IdedExpr) -> Compiled {
        let text = self.of(text, &[Kind::Text], "a text")?;
        let Expr::Literal(LiteralValue::String(source)) = &pattern.expr else {
            return Err(self.wrong(
                pattern,
                "a pattern that is not written out",
                "a regular expression in quotes",
            ));
        };
        let compiled =
            RegexBuilder::new(source.inner()).size_limit(MAX_REGEX).dfa_size_limit(MAX_REGEX).build();
        let regex: Regex = compiled.map_err(|error| {
            let why = error.to_string();
            let why =
                why.lines().last().unwrap_or_default().trim_start_matches("error: ").trim_end_matches('.');
            self.wrong(pattern, why, "a regular expression that compiles to at most 256 KiB")
        })?;
        Ok(read(text, REGEX_FACTOR, Kind::Bool, |text| Node::Matches(Box::new(text), Box::new(regex))))
    }
}
