//! Names: each given once, and none used that nobody gave.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt, HashSet};

use crate::decision::LIFECYCLE;
use crate::draft::{DraftGrant, Drafts};
use crate::names;
use crate::read::PlacedName;
use crate::report::{Place, Problem, Problems, one_of, shortened};

/// Every name the bundle gives.
pub(super) struct Known<'d> {
    applications: HashMap<&'d str, &'d Place>,
    providers: HashMap<&'d str, &'d Place>,
    /// Identifier to declared scopes, sorted.
    resources: HashMap<&'d str, &'d [PlacedName]>,
    app_ids: HashSet<&'d str>,
}

impl<'d> Known<'d> {
    /// Collects the names, and reports those given twice.
    pub(super) fn new(drafts: &'d Drafts, problems: &Problems) -> Self {
        let applications = drafts.each(|draft| &draft.applications);
        let applications = applications.map(|application| (&application.value.id, &application.place));
        let providers = drafts.each(|draft| &draft.providers);
        let providers = providers.flat_map(|provider| both(&provider.identifier, &provider.id));
        let resources = drafts.each(|draft| &draft.resources);
        let names = resources.clone().flat_map(|resource| both(&resource.identifier, &resource.id));
        unique("resources", NAME, names, problems);
        // Two tables for one issuer would leave open which audience counts.
        let issuers = drafts.each(|draft| &draft.issuers).map(|one| (&one.value.issuer, &one.place));
        unique("subject issuers", "each issuer", issuers, problems);
        Self {
            applications: unique("applications", NAME, applications, problems),
            providers: unique("providers", NAME, providers, problems),
            resources: resources.map(|one| (&*one.identifier.value, one.scopes.as_slice())).collect(),
            app_ids: drafts.each(|draft| &draft.app_ids).map(|(key, _)| &*key.value).collect(),
        }
    }

    /// Reports every use of a name nobody gave.
    pub(super) fn check_references(&self, drafts: &Drafts, problems: &Problems) {
        for resource in drafts.each(|draft| &draft.resources) {
            if let Some(provider) = &resource.provider {
                check("provider", provider, &self.providers, "declare it under `[[providers]]`", problems);
            }
        }
        for (_, id) in drafts.each(|draft| &draft.app_ids) {
            check("application", id, &self.applications, "declare it under `[[applications]]`", problems);
        }
        for grant in drafts.each(|draft| &draft.grants) {
            self.check_grant(grant, problems);
        }
        let confined = drafts.each(|draft| &draft.confinement).flat_map(|(_, scopes)| scopes);
        let confined = confined.map(|scope| ("a rule of `confinement`", scope));
        let classified = drafts.each(|draft| &draft.risk).map(|(_, scope)| ("a rule of `risk`", scope));
        let mut named = confined.chain(classified).peekable();
        // Most zones have no such rules, and the scopes of a large one are many.
        if named.peek().is_some() {
            let declared: HashSet<&str> =
                self.resources.values().copied().flatten().map(|scope| &*scope.value).collect();
            named.for_each(|(what, scope)| check_scope(what, scope, &declared, problems));
        }
    }

    fn check_grant(&self, grant: &DraftGrant, problems: &Problems) {
        if !self.app_ids.contains(&*grant.application.value) {
            let hint = if self.applications.contains_key(&*grant.application.value) {
                format!(
                    "name it first: `[app_ids]` with `<key> = \"{}\"`, and use the key",
                    grant.application.value
                )
            } else {
                "add the key to `[app_ids]`".to_owned()
            };
            problems.push_with(|| {
                unknown("binding key", &grant.application, self.app_ids.iter().copied()).hint(hint)
            });
        }
        let Some(declared) = self.resources.get(&*grant.resource.value) else {
            problems.push_with(|| {
                unknown("resource", &grant.resource, self.resources.keys().copied())
                    .hint("a grant names a resource by its identifier, declared under `[[resources]]`")
            });
            return;
        };
        for (role, scopes) in &grant.roles {
            for scope in scopes {
                let known = declared.binary_search_by(|known| known.value.cmp(&scope.value)).is_ok();
                if known || *scope.value == *LIFECYCLE {
                    continue;
                }
                problems.push_with(|| {
                    let what = format!(
                        "role `{}` grants a scope that `{}` does not declare",
                        role.value, grant.resource.value
                    );
                    Problem::new("scope_undeclared", &scope.place, what)
                        .found(format!("`{}`", scope.value))
                        .expected(one_of(declared.iter().map(|known| &*known.value)))
                        .hint("add the scope to the resource, or take it out of the role")
                });
            }
        }
    }
}

fn check_scope(what: &str, scope: &PlacedName, declared: &HashSet<&str>, problems: &Problems) {
    if declared.contains(&*scope.value) || *scope.value == *LIFECYCLE {
        return;
    }
    problems.push_with(|| {
        let hint = match names::nearest(&scope.value, declared.iter().copied()) {
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

/// Identifier and row id, when they differ.
fn both<'a>(
    identifier: &'a PlacedName,
    id: &'a PlacedName,
) -> impl Iterator<Item = (&'a Arc<str>, &'a Place)> {
    let other = (identifier.value != id.value).then_some((&id.value, &id.place));
    std::iter::once((&identifier.value, &identifier.place)).chain(other)
}

/// What stands once in a zone, of most things.
const NAME: &str = "each id and identifier";

/// The names with their places; one given twice is reported.
fn unique<'a>(
    what: &str,
    each: &str,
    names: impl Iterator<Item = (&'a Arc<str>, &'a Place)>,
    problems: &Problems,
) -> HashMap<&'a str, &'a Place> {
    let mut known: HashMap<&str, &Place> = HashMap::new();
    for (name, place) in names {
        if let Some(first) = known.get(&**name) {
            problems.push(
                Problem::new("duplicate", place, format!("two {what} have one name"))
                    .found(format!("`{}`, also at {first}", shortened(name)))
                    .expected(format!("{each} once in a zone"))
                    .hint("rename or remove one of them"),
            );
        } else {
            known.insert(name, place);
        }
    }
    known
}

fn check(what: &str, name: &PlacedName, known: &HashMap<&str, &Place>, hint: &str, problems: &Problems) {
    if !known.contains_key(&*name.value) {
        problems.push_with(|| unknown(what, name, known.keys().copied()).hint(hint));
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
