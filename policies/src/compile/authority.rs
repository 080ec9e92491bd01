//! Policy data of several documents as one. The unit is the whole key: a second document never adds to it.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};

use crate::data::{Checked, GrantData, PolicyData, Risk, TierDeclaration};
use crate::draft::{DraftGrant, Drafts};
use crate::read::Placed;
use crate::report::{Place, Problem, Problems};

/// Merges, and reports keys that two documents define differently.
pub(super) fn merge(drafts: &Drafts, problems: &Problems) -> PolicyData {
    let mut confinement: Vec<_> =
        drafts.each(|draft| &draft.confinement).map(|(rule, _)| rule.clone()).collect();
    confinement.sort_unstable();
    confinement.dedup();
    PolicyData {
        app_ids: merge_app_ids(drafts, problems),
        grants: merge_grants(drafts, problems),
        confinement,
        restrict: drafts.each(|draft| &draft.restrict).map(|reason| Arc::clone(&reason.value)).collect(),
        risk: Checked::Rules(merge_risk(drafts, problems)),
        tiers: Checked::Rules(merge_tiers(drafts, problems)),
    }
}

fn merge_app_ids(drafts: &Drafts, problems: &Problems) -> BTreeMap<Arc<str>, Arc<str>> {
    let mut merged: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
    let mut places: HashMap<&str, &Place> = HashMap::new();
    for (key, id) in drafts.each(|draft| &draft.app_ids) {
        match (merged.get(&key.value), places.get(&*key.value)) {
            (Some(first), Some(place)) if *first != id.value => {
                problems.push(conflict("binding key", &key.value, &key.place, place));
            }
            (Some(_), Some(_)) => {}
            _ => {
                merged.insert(Arc::clone(&key.value), Arc::clone(&id.value));
                places.insert(&key.value, &key.place);
            }
        }
    }
    merged
}

fn merge_grants(drafts: &Drafts, problems: &Problems) -> BTreeMap<Arc<str>, Arc<GrantData>> {
    let mut first: HashMap<&str, &DraftGrant> = HashMap::new();
    for draft in drafts.each(|draft| &draft.grants) {
        let name = &draft.resource.value;
        match first.entry(name) {
            Entry::Vacant(none) => {
                none.insert(draft);
            }
            Entry::Occupied(first) if first.get().data != draft.data => {
                problems.push(conflict("grant", name, &draft.resource.place, &first.get().resource.place));
            }
            Entry::Occupied(_) => {}
        }
    }
    // Sorted and built at once, which is cheaper than to look for the place of each.
    first.into_values().map(|draft| (Arc::clone(&draft.resource.value), Arc::clone(&draft.data))).collect()
}

fn merge_risk(drafts: &Drafts, problems: &Problems) -> Vec<Risk> {
    let mut merged: BTreeMap<&str, (&Risk, &Place)> = BTreeMap::new();
    for (rule, scope) in drafts.each(|draft| &draft.risk) {
        match merged.get(&*rule.scope) {
            Some((first, place)) if first.tier != rule.tier => problems.push(
                Problem::new("risk_conflict", &scope.place, "one scope is in two risk tiers")
                    .found(format!("`{}` in `{}`, and in `{}` at {place}", rule.scope, rule.tier, first.tier))
                    .expected("one tier for each scope")
                    .hint("remove one of the rules"),
            ),
            Some(_) => {}
            None => {
                merged.insert(&rule.scope, (rule, &scope.place));
            }
        }
    }
    merged.into_values().map(|(rule, _)| rule.clone()).collect()
}

fn merge_tiers(drafts: &Drafts, problems: &Problems) -> Vec<TierDeclaration> {
    let mut merged: BTreeMap<&str, &Placed<TierDeclaration>> = BTreeMap::new();
    for declaration in drafts.each(|draft| &draft.tiers) {
        match merged.get(&*declaration.value.tier) {
            Some(first) if first.value != declaration.value => {
                let tier = &declaration.value.tier;
                problems.push(conflict("approval tier", tier, &declaration.place, &first.place));
            }
            Some(_) => {}
            None => {
                merged.insert(&declaration.value.tier, declaration);
            }
        }
    }
    merged.into_values().map(|declaration| declaration.value.clone()).collect()
}

fn conflict(what: &str, name: &str, place: &Place, first: &Place) -> Problem {
    Problem::new("merge_conflict", place, format!("this {what} is defined twice, with different content"))
        .found(format!("`{name}`, also at {first}"))
        .expected(format!("each {what} in one place"))
        .hint("a second document cannot add to it; write everything in one")
}
