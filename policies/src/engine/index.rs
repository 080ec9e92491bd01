//! Lookup tables for decisions: sizes of the policy cost memory, never time.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use smallvec::SmallVec;

use crate::data::{Checked, Confinement, GrantData, PolicyData, Risk, TierDeclaration};

/// Grants by resource identifier.
///
/// Scopes and labels are numbered once for the zone, and the numbers of all grants lie in two arrays: in a large zone the
/// time of a decision is that of the memory it touches.
#[derive(Debug)]
pub(super) struct Grants {
    by_resource: HashMap<Box<str>, Grant>,
    owners: Vec<Owner>,
    scopes: Numbers,
    labels: Numbers,
    granted: Vec<u32>,
    roles: Vec<Role>,
}

/// The roles on one resource, as bit sets over the scopes granted on it.
#[derive(Debug)]
pub(super) struct Grant {
    owner: usize,
    /// Its part of `granted`: the scopes granted in any role, sorted. A scope's bit is its position here.
    scopes: Range<usize>,
    /// Its part of `roles`, sorted by label.
    roles: Range<usize>,
}

/// A binding key, and the application it stands for; none when `app_ids` lacks the key.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) key: Arc<str>,
    pub(super) application: Option<Arc<str>>,
}

#[derive(Debug)]
struct Role {
    label: u32,
    scopes: ScopeSet,
}

/// A set of scopes of one grant, by position. Up to 128 scopes are held inline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ScopeSet {
    words: SmallVec<[u64; 2]>,
}

/// A number for each distinct word.
#[derive(Debug, Default)]
struct Numbers {
    by_word: HashMap<Arc<str>, u32>,
}

impl Numbers {
    fn number(&mut self, word: &Arc<str>) -> u32 {
        let next = u32::try_from(self.by_word.len()).unwrap_or(u32::MAX);
        *self.by_word.entry(Arc::clone(word)).or_insert(next)
    }

    fn find(&self, word: &str) -> Option<u32> {
        self.by_word.get(word).copied()
    }
}

impl Grants {
    pub(super) fn new(data: &PolicyData) -> Self {
        let mut grants = Self {
            by_resource: HashMap::with_capacity(data.grants.len()),
            owners: Vec::new(),
            scopes: Numbers::default(),
            labels: Numbers::default(),
            granted: Vec::new(),
            roles: Vec::new(),
        };
        let mut owners: HashMap<&Arc<str>, usize> = HashMap::new();
        for (resource, data_grant) in &data.grants {
            let key = &data_grant.application;
            let owner = *owners.entry(key).or_insert_with(|| {
                let application = data.app_ids.get(key).map(Arc::clone);
                grants.owners.push(Owner { key: Arc::clone(key), application });
                grants.owners.len().saturating_sub(1)
            });
            let (scopes, roles) = grants.number_roles(data_grant);
            grants.by_resource.insert(resource.as_ref().into(), Grant { owner, scopes, roles });
        }
        grants
    }

    pub(super) fn get(&self, resource: &str) -> Option<&Grant> {
        self.by_resource.get(resource)
    }

    pub(super) fn owner(&self, grant: &Grant) -> Option<&Owner> {
        self.owners.get(grant.owner)
    }

    /// Whether one single label has a role with every one of the scopes. Scopes of two labels are never added up.
    pub(super) fn one_role_covers<'a>(
        &self,
        grant: &Grant,
        labels: &[Arc<str>],
        scopes: impl Iterator<Item = &'a str>,
    ) -> bool {
        let granted = self.granted.get(grant.scopes.clone()).unwrap_or_default();
        let roles = self.roles.get(grant.roles.clone()).unwrap_or_default();
        let mut wanted = ScopeSet::default();
        for scope in scopes {
            let position = self.scopes.find(scope).and_then(|number| granted.binary_search(&number).ok());
            let Some(position) = position else { return false };
            wanted.insert(position);
        }
        labels
            .iter()
            .filter_map(|label| self.labels.find(label))
            .filter_map(|label| roles.binary_search_by_key(&label, |role| role.label).ok())
            .filter_map(|index| roles.get(index))
            .any(|role| wanted.is_subset_of(&role.scopes))
    }

    fn number_roles(&mut self, grant: &GrantData) -> (Range<usize>, Range<usize>) {
        let mut all: Vec<u32> =
            grant.roles.values().flatten().map(|scope| self.scopes.number(scope)).collect();
        all.sort_unstable();
        all.dedup();
        let mut roles: Vec<Role> = Vec::with_capacity(grant.roles.len());
        for (label, scopes) in &grant.roles {
            let mut set = ScopeSet::default();
            for scope in scopes {
                if let Ok(position) = all.binary_search(&self.scopes.number(scope)) {
                    set.insert(position);
                }
            }
            roles.push(Role { label: self.labels.number(label), scopes: set });
        }
        roles.sort_unstable_by_key(|role| role.label);
        (append(&mut self.granted, all), append(&mut self.roles, roles))
    }
}

/// Where the items are from now on.
fn append<T>(all: &mut Vec<T>, items: Vec<T>) -> Range<usize> {
    let start = all.len();
    all.extend(items);
    start..all.len()
}

impl Grant {
    pub(super) fn has_any_scope(&self) -> bool {
        !self.scopes.is_empty()
    }
}

impl ScopeSet {
    fn insert(&mut self, number: usize) {
        let (word, bit) = (number >> 6, number & 63);
        if self.words.len() <= word {
            self.words.resize(word.saturating_add(1), 0);
        }
        if let Some(bits) = self.words.get_mut(word) {
            *bits |= 1 << bit;
        }
    }

    fn is_subset_of(&self, other: &Self) -> bool {
        self.words
            .iter()
            .enumerate()
            .all(|(index, bits)| bits & !other.words.get(index).copied().unwrap_or(0) == 0)
    }
}

/// Caps by label prefix. Two rules with one prefix must both hold, so they are one rule with the scopes of both.
#[derive(Debug)]
pub(super) struct Caps {
    by_prefix: HashMap<Box<str>, BTreeSet<Arc<str>>>,
    /// Distinct prefix lengths, ascending: a label is looked up once for each, however many rules there are.
    lengths: Vec<usize>,
}

impl Caps {
    pub(super) fn new(rules: &[Confinement]) -> Self {
        let mut by_prefix: HashMap<Box<str>, BTreeSet<Arc<str>>> = HashMap::new();
        let mut lengths = BTreeSet::new();
        for rule in rules {
            lengths.insert(rule.label_prefix.len());
            by_prefix
                .entry(rule.label_prefix.as_ref().into())
                .and_modify(|scopes| scopes.retain(|scope| rule.scopes.contains(scope)))
                .or_insert_with(|| rule.scopes.clone());
        }
        Self { by_prefix, lengths: lengths.into_iter().collect() }
    }

    /// Whether every rule whose prefix starts some label has every one of the scopes.
    pub(super) fn allow<'a, I: Iterator<Item = &'a str>>(
        &self,
        labels: &[Arc<str>],
        scopes: &impl Fn() -> I,
    ) -> bool {
        labels.iter().all(|label| {
            self.lengths
                .iter()
                .map_while(|length| (*length <= label.len()).then(|| label.get(..*length)))
                .flatten()
                .filter_map(|prefix| self.by_prefix.get(prefix))
                .all(|capped| scopes().all(|scope| capped.contains(scope)))
        })
    }
}

/// Risk tiers of scopes, and what tiers ask for.
#[derive(Debug)]
pub(super) struct Tiers {
    pub(super) bad_risk: bool,
    pub(super) bad_tiers: bool,
    by_scope: HashMap<Arc<str>, Classification>,
    declarations: HashMap<Arc<str>, Vec<TierDeclaration>>,
}

#[derive(Debug)]
struct Classification {
    rule: Risk,
    conflict: bool,
}

/// The tier of a scope.
pub(super) enum Tier<'a> {
    None,
    One(&'a Risk),
    Conflict(&'a Arc<str>),
}

impl Tiers {
    pub(super) fn new(data: &PolicyData) -> Self {
        let mut by_scope: HashMap<Arc<str>, Classification> = HashMap::new();
        for rule in data.risk.rules() {
            by_scope
                .entry(Arc::clone(&rule.scope))
                .and_modify(|known| known.conflict = known.conflict || known.rule.tier != rule.tier)
                .or_insert_with(|| Classification { rule: rule.clone(), conflict: false });
        }
        let mut declarations: HashMap<Arc<str>, Vec<TierDeclaration>> = HashMap::new();
        for declaration in data.tiers.rules() {
            declarations.entry(Arc::clone(&declaration.tier)).or_default().push(declaration.clone());
        }
        Self {
            bad_risk: data.risk == Checked::Malformed,
            bad_tiers: data.tiers == Checked::Malformed,
            by_scope,
            declarations,
        }
    }

    pub(super) fn of(&self, scope: &str) -> Tier<'_> {
        match self.by_scope.get(scope) {
            None => Tier::None,
            Some(known) if known.conflict => Tier::Conflict(&known.rule.scope),
            Some(known) => Tier::One(&known.rule),
        }
    }

    pub(super) fn declared(&self, rule: &Risk) -> bool {
        self.declarations.contains_key(&rule.tier)
    }

    pub(super) fn declarations(&self, tier: &str) -> &[TierDeclaration] {
        self.declarations.get(tier).map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_sets_compare_across_words() {
        let set = |numbers: &[usize]| {
            let mut set = ScopeSet::default();
            numbers.iter().for_each(|number| set.insert(*number));
            set
        };
        assert!(set(&[]).is_subset_of(&set(&[])));
        assert!(set(&[0, 63, 64, 200]).is_subset_of(&set(&[0, 1, 63, 64, 200, 300])));
        assert!(!set(&[200]).is_subset_of(&set(&[0])));
        assert!(!set(&[64]).is_subset_of(&set(&[63, 65])));
    }
}
