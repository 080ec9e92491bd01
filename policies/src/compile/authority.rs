//! Policy data of several documents as one. The unit is the whole key: a second document never adds to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};

use super::Words;
use crate::data::{Checked, Confinement, GrantData, PolicyData, Risk};
use crate::draft::{Draft, DraftGrant};
use crate::report::{Place, Problem, Problems};

/// Merges, and reports keys that two documents define differently.
pub(super) fn merge(draft: &Draft, words: &mut Words, problems: &Problems) -> PolicyData {
    let mut confinement: Vec<_> = draft
        .confinement
        .iter()
        .map(|(rule, _)| Confinement {
            label_prefix: Arc::clone(&rule.label_prefix),
            scopes: rule.scopes.iter().map(|scope| words.one(scope)).collect(),
        })
        .collect();
    confinement.sort_unstable();
    confinement.dedup();
    PolicyData {
        app_ids: merge_app_ids(draft, problems),
        grants: merge_grants(draft, words, problems),
        confinement,
        restrict: draft.restrict.iter().map(|reason| Arc::clone(&reason.value)).collect(),
        risk: Checked::Rules(merge_risk(draft, words, problems)),
        tiers: Checked::Rules(merge_tiers(draft, problems)),
    }
}

fn merge_app_ids(draft: &Draft, problems: &Problems) -> BTreeMap<Arc<str>, Arc<str>> {
    let mut merged: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
    let mut places: HashMap<Arc<str>, Place> = HashMap::new();
    for (key, id) in &draft.app_ids {
        match (merged.get(&key.value), places.get(&key.value)) {
            (Some(first), Some(place)) if *first != id.value => {
                problems.push(conflict("binding key", &key.value, &key.place, place));
            }
            (Some(_), Some(_)) => {}
            _ => {
                merged.insert(Arc::clone(&key.value), Arc::clone(&id.value));
                places.insert(Arc::clone(&key.value), key.place.clone());
            }
        }
    }
    merged
}

fn merge_grants(draft: &Draft, words: &mut Words, problems: &Problems) -> BTreeMap<Arc<str>, GrantData> {
    let mut merged: BTreeMap<Arc<str>, GrantData> = BTreeMap::new();
    let mut places: HashMap<Arc<str>, Place> = HashMap::new();
    for draft in &draft.grants {
        let grant = grant(draft, words);
        let name = &draft.resource.value;
        match (merged.get(name), places.get(name)) {
            (Some(first), Some(place)) if *first != grant => {
                problems.push(conflict("grant", name, &draft.resource.place, place));
            }
            (Some(_), Some(_)) => {}
            _ => {
                places.insert(Arc::clone(name), draft.resource.place.clone());
                merged.insert(Arc::clone(name), grant);
            }
        }
    }
    merged
}

fn grant(draft: &DraftGrant, words: &mut Words) -> GrantData {
    let roles = draft.roles.iter().map(|(role, scopes)| {
        let scopes = scopes.iter().map(|scope| words.one(&scope.value)).collect();
        (Arc::clone(&role.value), scopes)
    });
    let roles = roles.collect::<Vec<_>>();
    GrantData {
        application: words.one(&draft.application.value),
        roles: roles.into_iter().map(|(role, scopes)| (words.one(&role), scopes)).collect(),
    }
}

fn merge_risk(draft: &Draft, words: &mut Words, problems: &Problems) -> Vec<Risk> {
    let mut merged: BTreeMap<Arc<str>, (Risk, Place)> = BTreeMap::new();
    for (rule, scope) in &draft.risk {
        match merged.get(&rule.scope) {
            Some((first, place)) if first.tier != rule.tier => problems.push(
                Problem::new("risk_conflict", &scope.place, "one scope is in two risk tiers")
                    .found(format!("`{}` in `{}`, and in `{}` at {place}", rule.scope, rule.tier, first.tier))
                    .expected("one tier for each scope")
                    .hint("remove one of the rules"),
            ),
            Some(_) => {}
            None => {
                let rule = Risk { scope: words.one(&rule.scope), tier: words.one(&rule.tier) };
                merged.insert(Arc::clone(&rule.scope), (rule, scope.place.clone()));
            }
        }
    }
    merged.into_values().map(|(rule, _)| rule).collect()
}

fn merge_tiers(draft: &Draft, problems: &Problems) -> Vec<crate::data::TierDeclaration> {
    let mut merged: BTreeMap<Arc<str>, &crate::read::Placed<crate::data::TierDeclaration>> = BTreeMap::new();
    for declaration in &draft.tiers {
        match merged.get(&declaration.value.tier) {
            Some(first) if first.value != declaration.value => {
                let tier = &declaration.value.tier;
                problems.push(conflict("approval tier", tier, &declaration.place, &first.place));
            }
            Some(_) => {}
            None => {
                merged.insert(Arc::clone(&declaration.value.tier), declaration);
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
