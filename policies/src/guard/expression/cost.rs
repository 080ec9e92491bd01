//! What a step costs in the worst case, and how costs add up.

use super::Kind;
use crate::guard::node::Node;

/// Bytes of a text that are read in one step.
pub(super) const STEP_BYTES: u64 = 64;
/// Steps to read the longest text.
pub(super) const TEXT_STEPS: u64 = 1_024;
/// Steps to read every text of a list once: they are part of one body, which is 1 MiB at most.
pub(super) const BODY_STEPS: u64 = 16_384;
/// Entries of the longest list.
pub(super) const ENTRIES: u64 = 1_000;
/// A step with what is known about it.
pub(super) struct Typed {
    pub(super) node: Node,
    pub(super) kind: Kind,
    pub(super) steps: u64,
    /// How often it reads all of a text that comes from what a loop stands at.
    pub(super) reads: u64,
    /// Whether its value comes from what a loop stands at.
    pub(super) looped: bool,
    /// Entries of a list literal; none for what comes from a request.
    pub(super) entries: Option<u64>,
}

impl Typed {
    /// The text, where it is written out.
    pub(super) fn text(&self) -> Option<&str> {
        if let Node::Text(text) = &self.node { Some(text) } else { None }
    }
}

pub(super) fn leaf(node: Node, kind: Kind) -> Typed {
    Typed { node, kind, steps: 1, reads: 0, looped: false, entries: None }
}

pub(super) fn pair(
    one: Typed,
    two: Typed,
    kind: Kind,
    steps: u64,
    reads: u64,
    node: impl FnOnce(Box<Node>, Box<Node>) -> Node,
) -> Typed {
    Typed {
        node: node(Box::new(one.node), Box::new(two.node)),
        kind,
        steps: one.steps.saturating_add(two.steps).saturating_add(steps).saturating_add(1),
        reads: one.reads.saturating_add(two.reads).saturating_add(reads),
        looped: one.looped || two.looped,
        entries: None,
    }
}

/// Steps and reads of going through all of a text.
pub(super) fn reading(text: &Typed) -> (u64, u64) {
    match (&text.node, text.looped) {
        (Node::Text(text), _) => (literal_steps(text), 0),
        // Counted for the whole loop: its texts are one body together.
        (_, true) => (1, 1),
        (_, false) => (TEXT_STEPS, 0),
    }
}

pub(super) fn literal_steps(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX).div_euclid(STEP_BYTES).saturating_add(1)
}

/// A step that goes through all of a text.
pub(super) fn read(of: Typed, factor: u64, kind: Kind, node: impl FnOnce(Node) -> Node) -> Typed {
    let (steps, reads) = reading(&of);
    Typed {
        kind,
        steps: of.steps.saturating_add(steps.saturating_mul(factor)),
        reads: of.reads.saturating_add(reads.saturating_mul(factor)),
        looped: of.looped,
        entries: None,
        node: node(of.node),
    }
}

/// Steps and reads of comparing two values: as long as the shorter text.
pub(super) fn comparison_cost(one: &Typed, two: &Typed) -> (u64, u64) {
    let short = |typed: &Typed| match (typed.text(), typed.kind) {
        (Some(text), _) => Some(literal_steps(text)),
        (None, Kind::Any | Kind::Text) => None,
        (None, Kind::Null | Kind::Bool | Kind::Int | Kind::Double | Kind::List | Kind::Map) => Some(1),
    };
    match (short(one), short(two)) {
        (Some(one), Some(two)) => (one.min(two), 0),
        (Some(steps), None) | (None, Some(steps)) => (steps, 0),
        (None, None) if one.looped || two.looped => (1, 1),
        (None, None) => (TEXT_STEPS, 0),
    }
}

pub(super) fn comparable(one: Kind, two: Kind) -> bool {
    let container = |kind| matches!(kind, Kind::List | Kind::Map);
    let number = |kind| matches!(kind, Kind::Int | Kind::Double);
    !container(one)
        && !container(two)
        && (one == Kind::Any || two == Kind::Any || one == two || (number(one) && number(two)))
}
