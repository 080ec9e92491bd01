//! Resources with everything they point to.

use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use super::{Words, guards};
use crate::data::TierDeclaration;
use crate::draft::{DraftEntry, DraftMcp, DraftResource};
use crate::mcp::{Mcp, McpEntry};
use crate::operations::{Operation, OperationMethod, Operations};
use crate::provider::Provider;
use crate::read::PlacedName;
use crate::report::{Place, Problem, Problems, one_of};
use crate::resource::Resource;

/// Builds the resources whose every part could be read; the others were reported.
pub(super) fn build(
    drafts: Vec<DraftResource>,
    providers: &[Arc<Provider>],
    tiers: &[TierDeclaration],
    words: &mut Words,
    problems: &Problems,
) -> Vec<Arc<Resource>> {
    let providers: HashMap<&str, &Arc<Provider>> = providers
        .iter()
        .flat_map(|provider| [(&*provider.identifier, provider), (&*provider.id, provider)])
        .collect();
    drafts
        .into_iter()
        .filter_map(|mut draft| {
            let mcp = mcp(&mut draft, words, problems);
            let operations = operations(&mut draft, words, problems);
            let mut resource = draft.resource?;
            resource.operations = operations;
            resource.mcp = mcp;
            resource.guards = guards::build(draft.guards, &resource, tiers, problems);
            resource.provider = match &draft.provider {
                Some(name) => Some(Arc::clone(providers.get(&*name.value)?)),
                None => None,
            };
            resource.scopes = sorted(&draft.scopes, words);
            resource.hosts = sorted(&draft.hosts, words);
            resource.prefixes = sorted(&draft.prefixes, words);
            resource.cookies.sort_unstable();
            Some(Arc::new(resource))
        })
        .collect()
}

fn sorted(names: &[PlacedName], words: &mut Words) -> Vec<Arc<str>> {
    let mut names: Vec<_> = names.iter().map(|name| words.one(&name.value)).collect();
    names.sort_unstable();
    names
}

fn operations(draft: &mut DraftResource, words: &mut Words, problems: &Problems) -> Operations {
    let mut operations = Operations::default();
    let declared: HashSet<&str> = draft.scopes.iter().map(|scope| &*scope.value).collect();
    for (mut operation, scope_place) in draft.operations.drain(..) {
        if !declared.contains(&*operation.scope) {
            problems.push(undeclared(&operation.scope, &scope_place, &draft.identifier.value, &draft.scopes));
        }
        operation.scope = words.one(&operation.scope);
        if let Err(clash) = operations.insert(operation) {
            let (first, second) = (&clash.first, &clash.second);
            problems.push(
                Problem::new(
                    "operation_ambiguous",
                    &second.place,
                    format!("two operations of `{}` match the same requests", draft.identifier.value),
                )
                .found(format!(
                    "`{second}` needs `{}`, and `{first}` at {} needs `{}`",
                    second.scope, first.place, first.scope
                ))
                .expected("one scope for each method and path")
                .hint("remove one of them, or make its path more specific"),
            );
        }
    }
    operations
}

/// What the `mcp` table says. The requests that reach its endpoint become the operations of the resource.
fn mcp(draft: &mut DraftResource, words: &mut Words, problems: &Problems) -> Option<Mcp> {
    let DraftMcp { place, path, scope, tools, methods } = draft.mcp.take()?;
    let declared = |scope: &PlacedName| draft.scopes.iter().any(|known| known.value == scope.value);
    let scopes = tools.iter().chain(&methods).map(|(_, scope)| scope).chain([&scope]);
    for missing in scopes.filter(|scope| !declared(scope)) {
        problems.push(undeclared(&missing.value, &missing.place, &draft.identifier.value, &draft.scopes));
    }
    if declared(&scope) {
        let operation = |method: &str| Operation {
            method: OperationMethod::Named(method.into()),
            path: (*path.value).into(),
            scope: Arc::clone(&scope.value),
            place: place.clone(),
        };
        let methods = ["POST", "GET", "DELETE"].into_iter();
        draft.operations = methods.map(|method| (operation(method), scope.place.clone())).collect();
    }
    let mut entries = |drafts: Vec<DraftEntry>| {
        let named = |(name, scope): (PlacedName, PlacedName)| McpEntry {
            name: (*name.value).into(),
            scope: words.one(&scope.value),
        };
        let mut entries: Vec<_> = drafts.into_iter().map(named).collect();
        entries.sort_unstable();
        entries
    };
    let (tools, methods) = (entries(tools), entries(methods));
    Some(Mcp { path: (*path.value).into(), scope: words.one(&scope.value), tools, methods })
}

fn undeclared(scope: &str, place: &Place, resource: &str, declared: &[PlacedName]) -> Problem {
    let what = format!("an operation of `{resource}` needs a scope that it does not declare");
    Problem::new("scope_undeclared", place, what)
        .found(format!("`{scope}`"))
        .expected(one_of(declared.iter().map(|scope| &*scope.value)))
        .hint("add the scope to the resource, or correct the operation")
}
