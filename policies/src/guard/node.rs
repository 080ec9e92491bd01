//! A compiled expression and its evaluation: no allocation but for lists, no text is ever made, no loop that was not
//! counted at load.

use std::cmp::Ordering;

use regex::Regex;

use super::Asked;
use super::facts::{Fault, Value, whole};
use super::time;

/// One step of an expression, its types and its cost checked.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Box<str>),
    List(Vec<Self>),
    Fact(Fact),
    /// What a loop stands at, counted from the outermost.
    Local(usize),
    Member(Box<Self>, Box<str>),
    Index(Box<Self>, Box<Self>),
    /// Whether this can be found.
    Has(Box<Self>),
    In(Box<Self>, Box<Self>),
    Not(Box<Self>),
    Negate(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    If(Box<Self>, Box<Self>, Box<Self>),
    /// Whether both are equal; turned round where the flag is set.
    Equal(Box<Self>, Box<Self>, bool),
    Compare(Comparison, Box<Self>, Box<Self>),
    Arithmetic(Operator, Box<Self>, Box<Self>),
    Size(Box<Self>),
    ToInt(Box<Self>),
    ToDouble(Box<Self>),
    Search(Search, Box<Self>, Box<Self>),
    Matches(Box<Self>, Box<Regex>),
    /// `all` where the flag is set, otherwise `exists`.
    Loop(Box<Self>, Box<Self>, bool),
}

/// A fact of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    Method,
    Path,
    Segments,
    Param(Box<str>),
    Header(Box<str>),
    Query(Box<str>),
    Body,
    McpMethod,
    McpTool,
    McpArguments,
    Application,
    Subject,
    Session,
    Labels,
    Depth,
    Source,
    Time(time::Part),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Comparison {
    Less,
    AtMost,
    Greater,
    AtLeast,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Search {
    Contains,
    StartsWith,
    EndsWith,
}

type Found<'a> = Result<Value<'a>, Fault>;

impl Node {
    /// The value for one request. Left to right; what is not needed is not looked at.
    pub(super) fn value<'a>(&'a self, asked: &Asked<'a>, locals: &mut Vec<Value<'a>>) -> Found<'a> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Double(value) => Value::Double(*value),
            Self::Text(text) => Value::Text(text),
            Self::List(nodes) => {
                Value::List(nodes.iter().map(|node| node.value(asked, locals)).collect::<Result<_, _>>()?)
            }
            Self::Fact(fact) => return fact.value(asked),
            Self::Local(at) => return locals.get(*at).cloned().ok_or(Fault::Missing),
            Self::Member(of, name) => return member(&of.value(asked, locals)?, name),
            Self::Index(of, at) => {
                let of = of.value(asked, locals)?;
                return index(of, &at.value(asked, locals)?);
            }
            Self::Has(node) => match node.value(asked, locals) {
                Err(Fault::Missing) => Value::Bool(false),
                found => found.map(|_| Value::Bool(true))?,
            },
            Self::In(one, many) => {
                let one = one.value(asked, locals)?;
                Value::Bool(contains(many.value(asked, locals)?, &one)?)
            }
            Self::Not(node) => Value::Bool(!node.truth(asked, locals)?),
            Self::Negate(node) => negated(&node.value(asked, locals)?)?,
            Self::And(one, two) => Value::Bool(one.truth(asked, locals)? && two.truth(asked, locals)?),
            Self::Or(one, two) => Value::Bool(one.truth(asked, locals)? || two.truth(asked, locals)?),
            Self::If(condition, yes, no) => {
                let chosen = if condition.truth(asked, locals)? { yes } else { no };
                return chosen.value(asked, locals);
            }
            Self::Equal(one, two, turned) => {
                let equal = one.value(asked, locals)?.equals(&two.value(asked, locals)?)?;
                Value::Bool(equal != *turned)
            }
            Self::Compare(comparison, one, two) => {
                let order = one.value(asked, locals)?.compare(&two.value(asked, locals)?)?;
                Value::Bool(comparison.holds(order))
            }
            Self::Arithmetic(operator, one, two) => {
                operator.apply(&one.value(asked, locals)?, &two.value(asked, locals)?)?
            }
            Self::Size(node) => size(&node.value(asked, locals)?)?,
            Self::ToInt(node) => to_int(&node.value(asked, locals)?)?,
            Self::ToDouble(node) => to_double(&node.value(asked, locals)?)?,
            Self::Search(search, text, part) => {
                let (text, part) = (text.value(asked, locals)?, part.value(asked, locals)?);
                Value::Bool(search.finds(text.as_text()?, part.as_text()?))
            }
            Self::Matches(text, regex) => Value::Bool(regex.is_match(text.value(asked, locals)?.as_text()?)),
            Self::Loop(range, body, all) => {
                let mut answer = *all;
                for element in range.value(asked, locals)?.elements()? {
                    locals.push(element);
                    let truth = body.truth(asked, locals);
                    locals.pop();
                    if truth? != *all {
                        answer = !*all;
                        break;
                    }
                }
                Value::Bool(answer)
            }
        })
    }

    pub(super) fn truth<'a>(&'a self, asked: &Asked<'a>, locals: &mut Vec<Value<'a>>) -> Result<bool, Fault> {
        self.value(asked, locals)?.truth()
    }
}

impl Fact {
    fn value<'a>(&self, asked: &Asked<'a>) -> Found<'a> {
        let Asked { request, facts, template } = asked;
        // What can be decoded more than once has no one reading.
        let once = || {
            if request.path.deeper().is_empty() { Ok(request.path.reading()) } else { Err(Fault::Unreadable) }
        };
        match self {
            Self::Method => Value::text(request.method),
            Self::Path => {
                let reading = once()?;
                let plain = |index| reading.segment(index).is_some_and(|segment| !segment.contains('/'));
                if (0..reading.count()).all(plain) {
                    Value::text(reading.text())
                } else {
                    Err(Fault::Unreadable)
                }
            }
            Self::Segments => {
                let reading = once()?;
                let segments = (0..reading.count()).filter_map(|index| reading.segment(index));
                Ok(Value::List(segments.map(Value::text).collect::<Result<_, _>>()?))
            }
            Self::Param(name) => {
                let template = template.ok_or(Fault::Missing)?;
                let at = template.split('/').skip(1).position(|segment| is_placeholder_of(segment, name));
                Value::text(once()?.segment(at.ok_or(Fault::Missing)?).ok_or(Fault::Missing)?)
            }
            Self::Header(name) => {
                let values = facts.headers.iter().filter(|(known, _)| *known == &**name);
                one_or_many(
                    values.map(|(_, value)| std::str::from_utf8(value).map_err(|_bytes| Fault::Unreadable)),
                )
            }
            Self::Query(name) => {
                let pairs = facts.query.ok_or(Fault::Unreadable)?;
                let values = pairs.iter().filter(|(known, _)| **known == **name);
                one_or_many(values.map(|(_, value)| Ok(value.as_str())))
            }
            Self::Body => Value::json(facts.body.ok_or(Fault::Missing)?),
            Self::McpMethod => {
                Value::text(request.call.and_then(crate::mcp::McpCall::method).ok_or(Fault::Missing)?)
            }
            Self::McpTool => {
                Value::text(request.call.and_then(crate::mcp::McpCall::tool).ok_or(Fault::Missing)?)
            }
            Self::McpArguments => Value::json(facts.arguments.ok_or(Fault::Missing)?),
            Self::Application => Value::text(request.application),
            Self::Subject => Value::text(facts.subject.ok_or(Fault::Missing)?),
            Self::Session => Value::text(request.agent_session_id.ok_or(Fault::Missing)?),
            Self::Labels => {
                let labels = request.labels.iter();
                Ok(Value::List(labels.map(|label| Value::text(label)).collect::<Result<_, _>>()?))
            }
            Self::Depth => Ok(Value::Int(i64::from(facts.depth))),
            Self::Source => Value::text(facts.source),
            Self::Time(part) => Ok(Value::Int(part.of(facts.now_s))),
        }
    }
}

/// Whether a segment of a template is the placeholder of this name.
pub(super) fn is_placeholder_of(segment: &str, name: &str) -> bool {
    segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) == Some(name)
}

/// A field that comes once is its value; one that comes more often is the list of its values.
fn one_or_many<'a>(mut values: impl Iterator<Item = Result<&'a str, Fault>>) -> Found<'a> {
    let first = Value::text(values.next().ok_or(Fault::Missing)??)?;
    let Some(second) = values.next() else { return Ok(first) };
    let mut all = vec![first, Value::text(second?)?];
    for value in values {
        all.push(Value::text(value?)?);
        if all.len() > super::facts::MAX_ENTRIES {
            return Err(Fault::TooLong);
        }
    }
    Ok(Value::List(all))
}

fn member<'a>(of: &Value<'a>, name: &str) -> Found<'a> {
    let Value::Members(members) = of else { return Err(Fault::Kind) };
    Value::json(members.get(name).ok_or(Fault::Missing)?)
}

fn index<'a>(of: Value<'a>, at: &Value<'a>) -> Found<'a> {
    match (of, at) {
        (Value::Members(members), Value::Text(name)) => {
            Value::json(members.get(*name).ok_or(Fault::Missing)?)
        }
        (Value::Items(items), Value::Int(at)) => {
            let item = usize::try_from(*at).ok().and_then(|at| items.get(at));
            Value::json(item.ok_or(Fault::Missing)?)
        }
        (Value::List(list), Value::Int(at)) => {
            let found = usize::try_from(*at).ok().and_then(|at| list.into_iter().nth(at));
            found.ok_or(Fault::Missing)
        }
        _ => Err(Fault::Kind),
    }
}

fn contains<'a>(many: Value<'a>, one: &Value<'a>) -> Result<bool, Fault> {
    if let Value::Members(members) = many {
        return Ok(members.contains_key(one.as_text()?));
    }
    for element in many.elements()? {
        if element.equals(one)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn size<'a>(of: &Value<'a>) -> Found<'a> {
    let size = match of {
        Value::Text(text) => text.chars().count(),
        Value::List(list) => list.len(),
        Value::Items(items) => items.len(),
        Value::Members(members) => members.len(),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Double(_) => return Err(Fault::Kind),
    };
    Ok(Value::Int(i64::try_from(size).map_err(|_large| Fault::Arithmetic)?))
}

fn negated<'a>(value: &Value<'a>) -> Found<'a> {
    match value {
        Value::Int(value) => value.checked_neg().map(Value::Int).ok_or(Fault::Arithmetic),
        Value::Double(value) => Ok(Value::Double(-value)),
        Value::Null
        | Value::Bool(_)
        | Value::Text(_)
        | Value::List(_)
        | Value::Items(_)
        | Value::Members(_) => Err(Fault::Kind),
    }
}

/// Plain decimal digits only, so that the upstream reads the same number.
fn to_int<'a>(value: &Value<'a>) -> Found<'a> {
    let number = match value {
        Value::Int(value) => Some(*value),
        Value::Double(value) => whole(*value),
        Value::Text(text) if !text.starts_with('+') => text.parse().ok(),
        Value::Null
        | Value::Bool(_)
        | Value::Text(_)
        | Value::List(_)
        | Value::Items(_)
        | Value::Members(_) => {
            return Err(Fault::Kind);
        }
    };
    number.map(Value::Int).ok_or(Fault::Kind)
}

fn to_double<'a>(value: &Value<'a>) -> Found<'a> {
    let number = match value {
        Value::Int(value) => value.to_string().parse().ok(),
        Value::Double(value) => Some(*value),
        Value::Text(text) => {
            let plain = text.bytes().all(|byte| byte.is_ascii_digit() || b".-eE".contains(&byte));
            if plain { text.parse::<f64>().ok().filter(|value| value.is_finite()) } else { None }
        }
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Items(_) | Value::Members(_) => {
            return Err(Fault::Kind);
        }
    };
    number.map(Value::Double).ok_or(Fault::Kind)
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Less => order == Ordering::Less,
            Self::AtMost => order != Ordering::Greater,
            Self::Greater => order == Ordering::Greater,
            Self::AtLeast => order != Ordering::Less,
        }
    }
}

impl Operator {
    fn apply<'a>(self, one: &Value<'a>, two: &Value<'a>) -> Found<'a> {
        if let (Value::Int(one), Value::Int(two)) = (one, two) {
            let number = match self {
                Self::Add => one.checked_add(*two),
                Self::Subtract => one.checked_sub(*two),
                Self::Multiply => one.checked_mul(*two),
                Self::Divide => one.checked_div(*two),
                Self::Remainder => one.checked_rem(*two),
            };
            return number.map(Value::Int).ok_or(Fault::Arithmetic);
        }
        let (Value::Double(one), Value::Double(two)) = (to_double(one)?, to_double(two)?) else {
            return Err(Fault::Kind);
        };
        let number = match self {
            Self::Add => one + two,
            Self::Subtract => one - two,
            Self::Multiply => one * two,
            Self::Divide => one / two,
            Self::Remainder => one % two,
        };
        if number.is_finite() { Ok(Value::Double(number)) } else { Err(Fault::Arithmetic) }
    }
}

impl Search {
    fn finds(self, text: &str, part: &str) -> bool {
        match self {
            Self::Contains => text.contains(part),
            Self::StartsWith => text.starts_with(part),
            Self::EndsWith => text.ends_with(part),
        }
    }
}
