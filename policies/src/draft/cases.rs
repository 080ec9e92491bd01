//! `[[tests]]`: what a bundle expects of its own policy.

use std::sync::Arc;

use super::{LABEL, NAME, SCOPE, at_most, checked, checked_all};
use crate::case::{
    Answer, Asks, BUDGET_EXHAUSTED, Case, GUARD_DENIED, NOT_EVALUATED, NOT_PERMITTED, RATE_LIMITED, Who,
};
use crate::decision::DenyReason;
use crate::mcp::McpCall;
use crate::path::Path;
use crate::read::{Placed, PlacedName, Section};
use crate::report::{Problem, one_of, shortened};
use crate::{limits, names};

/// Keys of one table of `tests`.
pub(crate) const KEYS: [&str; 19] = [
    "name",
    "application",
    "workload",
    "action",
    "resource",
    "labels",
    "scopes",
    "delegation",
    "targets",
    "method",
    "path",
    "tool",
    "mcp_method",
    "approved",
    "request",
    "used",
    "expect",
    "reason",
    "guard",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mint,
    Use,
    Inject,
}

const ACTIONS: [(&str, Kind); 3] = [("mint", Kind::Mint), ("use", Kind::Use), ("inject", Kind::Inject)];

/// Keys that only one action knows.
const OF_MINT: [&str; 1] = ["delegation"];
const OF_USE: [&str; 9] =
    ["targets", "method", "path", "tool", "mcp_method", "approved", "request", "used", "guard"];

#[derive(Clone, Copy)]
enum Expected {
    Allow,
    Approval,
    Deny,
}

const EXPECTED: [(&str, Expected); 3] =
    [("allow", Expected::Allow), ("approval", Expected::Approval), ("deny", Expected::Deny)];

/// Adds the tests of one document.
pub(crate) fn read(cases: &mut Vec<Case>, document: &Section<'_>) {
    for mut section in document.sections("tests", "a test") {
        section.only(&KEYS);
        let name = section.needed_text("name");
        if let Some(name) = &name {
            section.named(format!("the test `{}`", shortened(name.value)));
        }
        let name = name.and_then(|name| fresh(cases, &section, &name));
        if let (Some(case), Some(name)) = (read_case(&section), name) {
            cases.push(Case { name, ..case });
        }
    }
    at_most(document, "tests", cases.len(), limits::TESTS);
}

/// The name, when no other test has it.
fn fresh(cases: &[Case], section: &Section<'_>, name: &Placed<&str>) -> Option<PlacedName> {
    let good = !name.value.trim().is_empty() && name.value.len() <= limits::NAME_BYTES;
    let first = cases.iter().find(|case| *case.name.value == *name.value);
    if good && first.is_none() {
        return Some(Placed { value: name.value.into(), place: name.place.clone() });
    }
    let (code, expected) = match first {
        Some(first) => ("duplicate", format!("a name that no other test has; see {}", first.name.place)),
        None => ("value_invalid", format!("1 to {} bytes that say what is tested", limits::NAME_BYTES)),
    };
    section.report(
        Problem::new(code, &name.place, "this cannot be the name of a test")
            .found(format!("`{}`", shortened(name.value)))
            .expected(expected)
            .hint("choose another one"),
    );
    None
}

fn read_case(section: &Section<'_>) -> Option<Case> {
    let who = read_who(section);
    let default = if section.has("workload") { Kind::Inject } else { Kind::Mint };
    let kind = if section.has("action") { section.word("action", &ACTIONS) } else { Some(default) };
    let resource = section.needed_text("resource");
    let resource = resource.and_then(|text| checked(section, "resource", text, names::is_name, NAME));
    let labels = values(checked_all(section, "labels", names::is_label, LABEL));
    let scopes = match section.needed("scopes") {
        Some(_) => checked_all(section, "scopes", names::is_scope, SCOPE),
        None => Vec::new(),
    };
    let expect = read_answer(section);
    let asks = kind.and_then(|kind| {
        foreign_keys(section, kind);
        if kind == Kind::Use && section.has("workload") {
            section.report(
                Problem::new("test_facts", section.place(), "a workload shows no mandate")
                    .found("`action = \"use\"` with `workload`")
                    .expected("an application that uses, or a workload that injects")
                    .hint("name the application whose mandate is used"),
            );
        }
        read_asks(section, kind)
    });
    let (expect, reasoned) = expect?;
    // Filled in by the caller, who knows whether it is the only one.
    let name = Placed { value: "".into(), place: section.place().clone() };
    Some(Case { name, who: who?, asks: asks?, resource: resource?, labels, scopes, expect, reasoned })
}

fn read_who(section: &Section<'_>) -> Option<Who> {
    let of = |key: &str| section.text(key).and_then(|text| checked(section, key, text, names::is_name, NAME));
    match (section.has("application"), section.has("workload")) {
        (true, false) => of("application").map(Who::Application),
        (false, true) => of("workload").map(|id| Who::Workload(id.value)),
        (both, _) => {
            section.report(
                Problem::new(
                    "test_facts",
                    section.place(),
                    format!("{} does not say who asks", section.what()),
                )
                .found(if both { "`application` and `workload`" } else { "neither" })
                .expected("either `application` or `workload`")
                .hint("keep the one that is meant"),
            );
            None
        }
    }
}

/// Reports facts that the action does not look at: they would only seem to be tested.
fn foreign_keys(section: &Section<'_>, kind: Kind) {
    let foreign: &[&[&str]] = match kind {
        Kind::Mint => &[&OF_USE],
        Kind::Use => &[&OF_MINT],
        Kind::Inject => &[&OF_MINT, &OF_USE],
    };
    let word = ACTIONS.iter().find(|(_, known)| *known == kind).map_or("", |(word, _)| word);
    for key in foreign.iter().copied().flatten().filter(|key| section.has(key)) {
        let place = section.entry(key).map_or_else(|| section.place().clone(), |entry| entry.place());
        section.report(
            Problem::new("test_facts", &place, format!("`{key}` says nothing about `action = \"{word}\"`"))
                .found(format!("`{key}`"))
                .expected("facts that the decision looks at")
                .hint("remove it, or set the `action` that is meant"),
        );
    }
}

fn read_asks(section: &Section<'_>, kind: Kind) -> Option<Asks> {
    Some(match kind {
        Kind::Mint => {
            let held = || values(checked_all(section, "delegation", names::is_scope, SCOPE));
            Asks::Mint { delegation: section.has("delegation").then(held) }
        }
        Kind::Inject => Asks::Inject,
        Kind::Use => {
            let targets = checked_all(section, "targets", names::is_name, NAME);
            let method = section.needed_text("method");
            let method =
                method.and_then(|text| checked(section, "method", text, names::is_token, "an HTTP method"));
            let path = section.needed_text("path");
            let path = path.and_then(|text| {
                checked(
                    section,
                    "path",
                    text,
                    |text| Path::parse(text).is_ok(),
                    "a path as a request has it, without a query",
                )
            });
            let call = read_call(section);
            let approved = section.flag("approved");
            let facts = Box::new(super::case_facts::read(section));
            let used = read_used(section);
            let targets = targets.iter().map(|target| target.value.to_string()).collect();
            Asks::Use { targets, method: method?.value, path: path?.value, call, approved, facts, used }
        }
    })
}

/// What was used of budgets and rates, by their names.
fn read_used(section: &Section<'_>) -> Vec<(PlacedName, u64)> {
    let entry = section.entry("used");
    let table = entry.and_then(|entry| entry.section("used", format!("`used` of {}", section.what()).into()));
    let Some(table) = table else { return Vec::new() };
    let numbers = table.entries().filter_map(|(name, entry)| {
        let used = entry.number(name.value, &(0..=limits::COUNTED))?;
        Some((Placed { value: name.value.into(), place: name.place }, used))
    });
    numbers.collect()
}

/// What the message of the request does, where it is one to an MCP server.
fn read_call(section: &Section<'_>) -> Option<McpCall> {
    if section.has("tool") && section.has("mcp_method") {
        section.report(
            Problem::new("test_facts", section.place(), format!("{} says two things", section.what()))
                .found("`tool` and `mcp_method`")
                .expected("one message")
                .hint("`tool` alone calls a tool"),
        );
    }
    let text = |key| section.text(key).map(|text| text.value);
    text("tool").map(|name| McpCall::Tool(name.into())).or_else(|| {
        let method = text("mcp_method")?;
        Some(McpCall::Method(method.into()))
    })
}

/// The answer expected, and whether its reason is.
fn read_answer(section: &Section<'_>) -> Option<(Answer, bool)> {
    section.needed("expect")?;
    let expected = section.word("expect", &EXPECTED)?;
    let reason = section.text("reason");
    let told = reason.as_ref().map(|reason| reason.value.to_owned()).unwrap_or_default();
    let reasons = || {
        let others = [NOT_PERMITTED, NOT_EVALUATED, GUARD_DENIED, BUDGET_EXHAUSTED, RATE_LIMITED];
        DenyReason::ALL.iter().map(|reason| reason.code()).chain(others)
    };
    if let Some(reason) = &reason {
        let (good, can_be) = match expected {
            Expected::Allow => (reason.value.starts_with("caracal-"), "the rule, `caracal-...`".to_owned()),
            Expected::Approval => (false, "no `reason` beside `approval`".to_owned()),
            Expected::Deny => (reasons().any(|known| known == reason.value), one_of(reasons())),
        };
        if !good {
            let near = names::nearest(reason.value, reasons());
            section.report(
                Problem::new(
                    "word_unknown",
                    &reason.place,
                    format!("no such answer gives this reason in {}", section.what()),
                )
                .found(format!("`{}`", shortened(reason.value)))
                .expected(can_be)
                .hint(match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "leave `reason` out to test the answer alone".to_owned(),
                }),
            );
            return None;
        }
    }
    if let Some(guard) = section.text("guard") {
        if matches!(expected, Expected::Deny)
            && reason.as_ref().is_none_or(|reason| reason.value == GUARD_DENIED)
        {
            return Some((Answer::Guard(guard.value.to_owned()), true));
        }
        if matches!(expected, Expected::Approval) {
            return Some((Answer::Asked(guard.value.to_owned()), true));
        }
        section.report(
            Problem::new(
                "test_facts",
                &guard.place,
                format!("{} names a guard that cannot answer", section.what()),
            )
            .found("`guard` beside another answer than a guard's")
            .expected("`expect = \"deny\"` or `expect = \"approval\"`, without `reason`")
            .hint("leave `guard` out to test the answer alone"),
        );
        return None;
    }
    let answer = match expected {
        Expected::Allow => Answer::Allow(told),
        Expected::Approval => Answer::Approval,
        Expected::Deny => Answer::Deny(told),
    };
    Some((answer, reason.is_some()))
}

fn values(names: Vec<PlacedName>) -> Vec<Arc<str>> {
    names.into_iter().map(|name| name.value).collect()
}
