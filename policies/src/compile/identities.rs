//! Names: each given once, and none used that nobody gave.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt, HashSet};

use crate::decision::LIFECYCLE;
use crate::draft::{Draft, DraftGrant, DraftResource};
use crate::names;
use crate::read::PlacedName;
use crate::report::{Place, Problem, Problems, one_of};

/// Every name the bundle gives.
pub(super) struct Known {
    applications: HashMap<Arc<str>, Place>,
    providers: HashMap<Arc<str>, Place>,
    /// Identifier to declared scopes, sorted.
    resources: HashMap<Arc<str>, Vec<Arc<str>>>,
    app_ids: HashSet<Arc<str>>,
    scopes: HashSet<Arc<str>>,
}

impl Known {
    /// Collects the names, and reports those given twice.
    pub(super) fn new(draft: &Draft, problems: &Problems) -> Self {
        let applications =
            draft.applications.iter().map(|application| (&application.value.id, &application.place));
        let providers = draft.providers.iter().flat_map(|provider| both(&provider.identifier, &provider.id));
        let resources = draft.resources.iter().flat_map(|resource| both(&resource.identifier, &resource.id));
        unique("resources", resources, problems);
        Self {
            applications: unique("applications", applications, problems),
            providers: unique("providers", providers, problems),
            resources: draft.resources.iter().map(declared).collect(),
            app_ids: draft.app_ids.iter().map(|(key, _)| Arc::clone(&key.value)).collect(),
            scopes: scopes(draft),
        }
    }

    /// Reports every use of a name nobody gave.
    pub(super) fn check_references(&self, draft: &Draft, problems: &Problems) {
        for resource in &draft.resources {
            if let Some(provider) = &resource.provider {
                check("provider", provider, &self.providers, "declare it under `[[providers]]`", problems);
            }
        }
        for (_, id) in &draft.app_ids {
            check("application", id, &self.applications, "declare it under `[[applications]]`", problems);
        }
        for grant in &draft.grants {
            self.check_grant(grant, problems);
        }
        for (_, scopes) in &draft.confinement {
            scopes.iter().for_each(|scope| self.check_scope("a rule of `confinement`", scope, problems));
        }
        for (_, scope) in &draft.risk {
            self.check_scope("a rule of `risk`", scope, problems);
        }
    }

    fn check_grant(&self, grant: &DraftGrant, problems: &Problems) {
        if !self.app_ids.contains(&grant.application.value) {
            let hint = if self.applications.contains_key(&grant.application.value) {
                format!(
                    "name it first: `[app_ids]` with `<key> = \"{}\"`, and use the key",
                    grant.application.value
                )
            } else {
                "add the key to `[app_ids]`".to_owned()
            };
            problems.push_with(|| {
                unknown("binding key", &grant.application, self.app_ids.iter().map(AsRef::as_ref)).hint(hint)
            });
        }
        let Some(declared) = self.resources.get(&grant.resource.value) else {
            problems.push_with(|| {
                unknown("resource", &grant.resource, self.resources.keys().map(AsRef::as_ref))
                    .hint("a grant names a resource by its identifier, declared under `[[resources]]`")
            });
            return;
        };
        for (role, scopes) in &grant.roles {
            for scope in scopes {
                if declared.binary_search(&scope.value).is_ok() || *scope.value == *LIFECYCLE {
                    continue;
                }
                problems.push_with(|| {
                    let what = format!(
                        "role `{}` grants a scope that `{}` does not declare",
                        role.value, grant.resource.value
                    );
                    Problem::new("scope_undeclared", &scope.place, what)
                        .found(format!("`{}`", scope.value))
                        .expected(sorted(declared.iter().map(AsRef::as_ref)))
                        .hint("add the scope to the resource, or take it out of the role")
                });
            }
        }
    }

    fn check_scope(&self, what: &str, scope: &PlacedName, problems: &Problems) {
        if self.scopes.contains(&scope.value) || *scope.value == *LIFECYCLE {
            return;
        }
        problems.push_with(|| {
            let near = names::nearest(&scope.value, self.scopes.iter().map(AsRef::as_ref));
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => "declare the scope on a resource, or remove it here".to_owned(),
            };
            let what = format!("{what} names a scope no resource declares");
            Problem::new("scope_undeclared", &scope.place, what)
                .found(format!("`{}`", scope.value))
                .expected("a declared scope")
                .hint(hint)
        });
    }
}

fn declared(resource: &DraftResource) -> (Arc<str>, Vec<Arc<str>>) {
    let mut scopes: Vec<_> = resource.scopes.iter().map(|scope| Arc::clone(&scope.value)).collect();
    scopes.sort_unstable();
    (Arc::clone(&resource.identifier.value), scopes)
}

/// Every declared scope. Most are declared many times, so they are looked up before they are kept.
fn scopes(draft: &Draft) -> HashSet<Arc<str>> {
    let mut known = HashSet::default();
    for scope in draft.resources.iter().flat_map(|resource| &resource.scopes) {
        if !known.contains(&scope.value) {
            known.insert(Arc::clone(&scope.value));
        }
    }
    known
}

/// Identifier and row id, when they differ.
fn both<'a>(
    identifier: &'a PlacedName,
    id: &'a PlacedName,
) -> impl Iterator<Item = (&'a Arc<str>, &'a Place)> {
    let other = (identifier.value != id.value).then_some((&id.value, &id.place));
    std::iter::once((&identifier.value, &identifier.place)).chain(other)
}

/// The names with their places; one given twice is reported.
fn unique<'a>(
    what: &str,
    names: impl Iterator<Item = (&'a Arc<str>, &'a Place)>,
    problems: &Problems,
) -> HashMap<Arc<str>, Place> {
    let mut known: HashMap<Arc<str>, Place> = HashMap::new();
    for (name, place) in names {
        if let Some(first) = known.get(name) {
            problems.push(
                Problem::new("duplicate", place, format!("two {what} have one name"))
                    .found(format!("`{name}`, also at {first}"))
                    .expected("each id and identifier once in a zone")
                    .hint("rename or remove one of them"),
            );
        } else {
            known.insert(Arc::clone(name), place.clone());
        }
    }
    known
}

fn check(what: &str, name: &PlacedName, known: &HashMap<Arc<str>, Place>, hint: &str, problems: &Problems) {
    if !known.contains_key(&name.value) {
        problems.push_with(|| unknown(what, name, known.keys().map(AsRef::as_ref)).hint(hint));
    }
}

fn unknown<'a>(what: &str, name: &PlacedName, known: impl Iterator<Item = &'a str> + Clone) -> Problem {
    let expected = match names::nearest(&name.value, known.clone()) {
        Some(near) => format!("a known {what}; did you mean `{near}`?"),
        None => sorted(known),
    };
    Problem::new("reference_unknown", &name.place, format!("there is no such {what}"))
        .found(format!("`{}`", name.value))
        .expected(expected)
}

fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    one_of(names)
}
