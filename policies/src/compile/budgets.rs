//! Budgets against the rest of the bundle: each name once, and about what there is.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::application::Application;
use crate::budget::Budget;
use crate::draft::{DraftBudget, Drafts};
use crate::names;
use crate::read::PlacedName;
use crate::report::{Place, Problem, Problems, shortened};
use crate::resource::Resource;

/// The budgets, with the identifiers of their resources. `complete` is false where a document could not be read:
/// then what is missing proves nothing.
pub(super) fn build(
    drafts: &Drafts,
    applications: &[Arc<Application>],
    resources: &[Arc<Resource>],
    complete: bool,
    problems: &Problems,
) -> Vec<Arc<Budget>> {
    let mut seen: BTreeMap<Arc<str>, Place> = BTreeMap::new();
    let mut budgets = Vec::new();
    for draft in drafts.each(|draft| &draft.budgets) {
        let DraftBudget { budget, place, application, resource } = draft;
        let mut budget = budget.clone();
        if let Some(first) = seen.get(&budget.name) {
            problems.push(
                Problem::new("duplicate", place, "two budgets or rates have one name")
                    .found(format!("`{}`, also at {first}", budget.name))
                    .expected("each name once")
                    .hint("rename one of them"),
            );
            continue;
        }
        seen.insert(Arc::clone(&budget.name), place.clone());
        if let Some(name) = application
            && complete
            && !applications.iter().any(|application| application.id == name.value)
        {
            unknown("application", name, applications.iter().map(|known| &*known.id), problems);
        }
        budget.application = application.as_ref().map(|name| Arc::clone(&name.value));
        if let Some(name) = resource {
            let known = resources.iter().find(|one| one.identifier == name.value || one.id == name.value);
            match known {
                Some(known) => budget.resource = Some(Arc::clone(&known.identifier)),
                None if complete => {
                    unknown("resource", name, resources.iter().map(|known| &*known.identifier), problems);
                }
                None => {}
            }
        }
        budgets.push(Arc::new(budget));
    }
    budgets
}

fn unknown<'a>(what: &str, name: &PlacedName, known: impl Iterator<Item = &'a str>, problems: &Problems) {
    let hint = match names::nearest(&name.value, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("name {what}s of this bundle, or leave the key out"),
    };
    problems.push(
        Problem::new("reference_unknown", &name.place, format!("a budget is about no known {what}"))
            .found(format!("`{}`", shortened(&name.value)))
            .expected(format!("the {what} of a table of this bundle"))
            .hint(hint),
    );
}
