//! Guards of a resource: their conditions, and what they are about.

use std::sync::Arc;

use crate::data::TierDeclaration;
use crate::draft::{DraftAsk, DraftGuard};
use crate::guard::{About, Ask, Guard, Guards, Unusable};
use crate::names;
use crate::operations::OperationMethod;
use crate::read::PlacedName;
use crate::report::{Place, Problem, Problems, one_of, shortened};
use crate::resource::{Enforcement, Resource};

/// Builds the guards of a resource whose operations and MCP rules are known.
pub(super) fn build(
    drafts: Vec<DraftGuard>,
    resource: &Resource,
    problems: &Problems,
) -> Option<Arc<Guards>> {
    let mut guards: Vec<Arc<Guard>> = Vec::new();
    for draft in drafts {
        if let Some(first) = guards.iter().find(|guard| guard.name == draft.name.value) {
            problems.push(
                Problem::new("duplicate", &draft.name.place, "two guards of one resource have the same name")
                    .found(format!("`{}`, also at {}", draft.name.value, first.place))
                    .expected("a name of its own: records name the guard that refused")
                    .hint("rename one of them"),
            );
            continue;
        }
        let Some(about) = about(&draft, resource, problems) else { continue };
        let ask = draft.ask.as_ref().map(|(tier, show)| Ask::undeclared(tier, show));
        let (name, when) = (Arc::clone(&draft.name.value), &draft.when);
        match Guard::new(name, &when.value, draft.mode, ask, about, draft.place.clone()) {
            Ok(guard) => {
                check_facts(&guard, resource, &when.place, problems);
                guards.push(Arc::new(guard));
            }
            Err(unusable) => problems.push(condition(&draft, &unusable)),
        }
    }
    Guards::new(guards)
}

/// The tiers of a zone, in which guards ask.
pub(super) struct Tiers<'a> {
    pub(super) declared: &'a [TierDeclaration],
    /// Whether every document could be read. Otherwise a tier that is missing proves nothing.
    pub(super) complete: bool,
}

impl Tiers<'_> {
    /// Reports tiers that are not declared.
    pub(super) fn check(&self, asks: &[DraftAsk], problems: &Problems) {
        let declared = |tier: &str| self.declared.iter().any(|declared| *declared.tier == *tier);
        for DraftAsk { guard, tier } in asks.iter().filter(|ask| self.complete && !declared(&ask.tier.value))
        {
            let known = || self.declared.iter().map(|declared| &*declared.tier);
            problems.push(
                Problem::new(
                    "reference_unknown",
                    &tier.place,
                    format!("the guard `{guard}` names an unknown tier"),
                )
                .found(format!("`{}`", shortened(&tier.value)))
                .expected(one_of(known()))
                .hint(match names::nearest(&tier.value, known()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => {
                        "declare it in `[[approval_tiers]]`: who answers, and how long that is waited for"
                            .to_owned()
                    }
                }),
            );
        }
    }
}

fn about(draft: &DraftGuard, resource: &Resource, problems: &Problems) -> Option<About> {
    let name = &draft.name.value;
    let unknown = |at: &PlacedName, what: &str, known: &[String]| {
        let near = names::nearest(&at.value, known.iter().map(String::as_str));
        problems.push(
            Problem::new(
                "reference_unknown",
                &at.place,
                format!("the guard `{name}` names an unknown {what}"),
            )
            .found(format!("`{}`", shortened(&at.value)))
            .expected(one_of(known.iter().map(String::as_str)))
            .hint(match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("write the {what} as the resource declares it"),
            }),
        );
    };
    match (&draft.operations, &draft.tools) {
        (None, None) => Some(About::Everything),
        (None, Some(tools)) => {
            let known = resource.mcp.iter().flat_map(|mcp| &mcp.tools).map(|tool| tool.name.to_string());
            let known: Vec<String> = known.collect();
            tools.iter().filter(|tool| !known.iter().any(|known| *known == *tool.value)).for_each(|tool| {
                unknown(tool, "tool", &known);
            });
            let mut tools: Vec<Box<str>> = tools.iter().map(|tool| (*tool.value).into()).collect();
            tools.sort_unstable();
            Some(About::Tools(tools))
        }
        (Some(operations), None)
            if resource.mcp.is_none() && resource.enforcement == Enforcement::Enforced =>
        {
            let known: Vec<String> = resource.operations.iter().map(ToString::to_string).collect();
            let mut found: Vec<(OperationMethod, Box<str>)> = Vec::new();
            for at in operations {
                match resource.operations.iter().find(|operation| *operation.to_string() == *at.value) {
                    Some(operation) => found.push((operation.method.clone(), operation.path.clone())),
                    None => unknown(at, "operation", &known),
                }
            }
            found.sort_unstable();
            Some(About::Operations(found))
        }
        (Some(_), both) => {
            let (found, expected) = match (both, resource.mcp.is_some()) {
                (Some(_), _) => ("`operations` and `tools`", "one of them"),
                (None, true) => ("`operations` on a resource with `mcp`", "`tools`"),
                (None, false) => {
                    ("`operations` that are not enforced", "`operation_enforcement = \"enforced\"`")
                }
            };
            problems.push(
                Problem::new(
                    "guard_scope",
                    &draft.place,
                    format!("the guard `{name}` cannot say what it is about"),
                )
                .found(found)
                .expected(expected)
                .hint("leave both out for a guard that looks at every request"),
            );
            None
        }
    }
}

/// A fact that no request can have is a mistake, not one that is missing now and then.
fn check_facts(guard: &Guard, resource: &Resource, place: &Place, problems: &Problems) {
    let templates: Vec<&str> = match &guard.about {
        About::Operations(operations) => operations.iter().map(|(_, path)| &**path).collect(),
        About::Everything | About::Tools(_) => {
            resource.operations.iter().map(|operation| &*operation.path).collect()
        }
    };
    if let Some(name) = guard.impossible(resource.mcp.is_some()) {
        let what = format!("the condition of the guard `{}` cannot be used", guard.name);
        problems.push(
            Problem::new("guard_condition", place, what)
                .found(format!("`{name}`"))
                .expected(if resource.mcp.is_some() {
                    "`mcp.arguments`: the body of an MCP server is a message"
                } else {
                    "`body`: only a resource with `mcp` has messages"
                })
                .hint("a condition on it would refuse every request"),
        );
    }
    if let Some(param) = guard.unknown_param(&templates) {
        problems.push(
            Problem::new(
                "guard_condition",
                place,
                format!("the condition of the guard `{}` cannot be used", guard.name),
            )
            .found(format!("`params.{param}`"))
            .expected("a placeholder of an operation that the guard is about")
            .hint("name the operations, or correct the placeholder"),
        );
    }
}

fn condition(draft: &DraftGuard, unusable: &Unusable) -> Problem {
    let message = format!("the condition of the guard `{}` cannot be used", draft.name.value);
    let text = &draft.when.value;
    let mut place = draft.when.place.clone();
    let mut found = vec![unusable.found.clone()];
    if let Some((line, column)) = unusable.at {
        let one_line = !text.contains('\n');
        if one_line {
            // Behind the quote.
            place.column = place.column.saturating_add(u32::try_from(column).unwrap_or(u32::MAX));
        } else {
            found.push(format!("in line {line} of the condition"));
        }
        let rest: String = text
            .lines()
            .nth(line.saturating_sub(1))
            .unwrap_or_default()
            .chars()
            .skip(column.saturating_sub(1))
            .collect();
        if !rest.is_empty() {
            found.push(format!("at `{}`", shortened(&rest)));
        }
    }
    Problem::new("guard_condition", &place, message)
        .found(found.join(", "))
        .expected(&unusable.expected)
        .hint("docs/guides/guards.md lists what a condition can say")
}
