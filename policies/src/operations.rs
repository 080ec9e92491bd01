//! Operations: which scope a method on a path needs. Exactly one operation decides, the most specific that matches.

use std::fmt;
use std::sync::Arc;

use foldhash::HashMap;

use crate::limits;
use crate::path::{Path, PathProblem, Reading, is_plain};
use crate::report::Place;

/// One declared operation.
#[derive(Debug, Clone)]
pub struct Operation {
    /// The method it is about.
    pub method: OperationMethod,
    /// Its template: literal segments, `{name}` for one segment, a final `/**` for one or more.
    pub path: Box<str>,
    /// The scope a mandate must carry for it.
    pub scope: Arc<str>,
    /// Where it is declared.
    pub place: Place,
}

/// The method an operation is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum OperationMethod {
    /// Every method: `*`.
    Any,
    /// This one, in upper case.
    Named(Box<str>),
}

/// The operations of one resource, as a tree by path segment.
///
/// Specificity: segment by segment from the left, a literal before `{name}` before `/**`; between equal paths, a named
/// method before `*`.
#[derive(Debug, Clone, Default)]
pub struct Operations {
    list: Vec<Operation>,
    root: Node,
}

/// Why a template is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TemplateProblem {
    /// It is no path at all.
    Path(PathProblem),
    /// A segment mixes a placeholder with other text.
    Mixed,
    /// `**` stands before the end.
    RestNotLast,
    /// It has too many segments.
    TooLong,
    /// It is still encoded after one decoding, so it could be read two ways.
    EncodedTwice,
}

/// What was asked for is already declared with another scope.
#[derive(Debug)]
pub(crate) struct Clash {
    pub(crate) first: Operation,
    pub(crate) second: Operation,
}

#[derive(Debug, Clone, Default)]
struct Node {
    literals: HashMap<Box<str>, Self>,
    one: Option<Box<Self>>,
    here: Methods,
    rest: Methods,
}

#[derive(Debug, Clone, Default)]
struct Methods {
    named: Vec<(Box<str>, usize)>,
    any: Option<usize>,
}

enum Step {
    Literal(Box<str>),
    One,
    Rest,
}

impl Operations {
    /// The single most specific operation that matches, or none.
    ///
    /// Methods are compared exactly. A `{name}` and `/**` match neither an empty segment nor one with a decoded `/` or a
    /// `;` in it; only a template that spells those matches them. A path that can be decoded more than once must lead to
    /// the same operation at every depth, so that no upstream reads another operation than the one that decided.
    ///
    /// Cost: at most one visit to each node of the tree; no allocation.
    pub fn find(&self, method: &str, path: &Path<'_>) -> Option<&Operation> {
        let index = self.root.find(method, path.reading(), 0)?;
        let agreed = path.deeper().iter().all(|reading| self.root.find(method, reading, 0) == Some(index));
        if agreed { self.list.get(index) } else { None }
    }

    /// Every operation, in the order of the bundle.
    pub fn iter(&self) -> impl Iterator<Item = &Operation> {
        self.list.iter()
    }

    /// Adds one; its template was checked by [`check_template`].
    ///
    /// # Errors
    /// Both operations, when one of equal specificity asks for another scope.
    pub(crate) fn insert(&mut self, operation: Operation) -> Result<(), Box<Clash>> {
        let mut node = &mut self.root;
        let mut to_rest = false;
        for step in steps(&operation.path).unwrap_or_default() {
            match step {
                Step::Literal(text) => node = node.literals.entry(text).or_default(),
                Step::One => node = node.one.get_or_insert_with(Box::default),
                Step::Rest => to_rest = true,
            }
        }
        let methods = if to_rest { &mut node.rest } else { &mut node.here };
        let taken = match &operation.method {
            OperationMethod::Any => methods.any,
            OperationMethod::Named(method) => {
                methods.named.iter().find(|(name, _)| name == method).map(|(_, index)| *index)
            }
        };
        if let Some(first) = taken.and_then(|index| self.list.get(index)) {
            if first.scope == operation.scope {
                return Ok(());
            }
            return Err(Box::new(Clash { first: first.clone(), second: operation }));
        }
        let index = self.list.len();
        match &operation.method {
            OperationMethod::Any => methods.any = Some(index),
            OperationMethod::Named(method) => methods.named.push((method.clone(), index)),
        }
        self.list.push(operation);
        Ok(())
    }
}

impl Node {
    /// Tries the more specific branch first, so the first hit is the answer.
    fn find(&self, method: &str, path: &Reading<'_>, at: usize) -> Option<usize> {
        let Some(segment) = path.segment(at) else { return self.here.find(method) };
        let next = at.saturating_add(1);
        if let Some(node) = self.literals.get(segment)
            && let Some(found) = node.find(method, path, next)
        {
            return Some(found);
        }
        if let Some(node) = &self.one
            && is_plain(segment)
            && let Some(found) = node.find(method, path, next)
        {
            return Some(found);
        }
        if path.plain_from() <= at { self.rest.find(method) } else { None }
    }
}

impl Methods {
    fn find(&self, method: &str) -> Option<usize> {
        let named = self.named.iter().find(|(name, _)| name.as_ref() == method).map(|(_, index)| *index);
        named.or(self.any)
    }
}

impl fmt::Display for OperationMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "*",
            Self::Named(method) => method,
        })
    }
}

/// `GET /users/{id}`, for messages.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// Whether a template can be used.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_template(template: &str) -> Result<(), TemplateProblem> {
    steps(template).map(|_steps| ())
}

fn steps(template: &str) -> Result<Vec<Step>, TemplateProblem> {
    let path = Path::parse(template).map_err(TemplateProblem::Path)?;
    if !path.deeper().is_empty() {
        return Err(TemplateProblem::EncodedTwice);
    }
    // A placeholder is told from the template as written: `%7Bid%7D` spells a literal.
    let written = template.strip_prefix('/').ok_or(TemplateProblem::Path(PathProblem::NotAbsolute))?;
    let count = path.reading().count();
    if count > limits::TEMPLATE_SEGMENTS {
        return Err(TemplateProblem::TooLong);
    }
    let mut steps = Vec::with_capacity(count);
    for (index, written) in written.split('/').enumerate() {
        let last = index.saturating_add(1) == count;
        steps.push(match written {
            "**" if last => Step::Rest,
            "**" => return Err(TemplateProblem::RestNotLast),
            _ if is_placeholder(written) => Step::One,
            _ if written.contains(['{', '}', '*']) => return Err(TemplateProblem::Mixed),
            _ => Step::Literal(path.reading().segment(index).unwrap_or_default().into()),
        });
    }
    Ok(steps)
}

fn is_placeholder(segment: &str) -> bool {
    segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).is_some_and(|name| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    })
}

#[cfg(test)]
mod tests;
