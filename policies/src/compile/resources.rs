//! Resources with everything they point to.

use std::sync::Arc;

use foldhash::HashMap;

use super::guards::{self, Tiers};
use crate::draft::{DraftEntry, DraftMcp, DraftResource};
use crate::kept::Kept;
use crate::mcp::{Mcp, McpEntry};
use crate::operations::{Operation, OperationMethod, Operations};
use crate::provider::Provider;
use crate::read::PlacedName;
use crate::report::{Place, Problem, Problems, one_of};
use crate::resource::Resource;

/// Builds a resource as far as its own table tells; none when that could not be read, which was reported.
pub(super) fn build(draft: &mut DraftResource, problems: &Problems) -> Option<Arc<Resource>> {
    let mcp = mcp(draft, problems);
    let operations = operations(draft, problems);
    let mut resource = draft.resource.take()?;
    resource.operations = operations;
    resource.mcp = mcp;
    resource.guards = guards::build(std::mem::take(&mut draft.guards), &resource, problems);
    resource.scopes = draft.scopes.iter().map(|scope| Arc::clone(&scope.value)).collect();
    resource.hosts = sorted(&draft.hosts);
    resource.prefixes = sorted(&draft.prefixes);
    resource.cookies.sort_unstable();
    Some(Arc::new(resource))
}

/// Gives the resources their providers, and their guards the tiers they ask in; resources whose provider is unknown are
/// left out. One that has both already stays what it is.
pub(super) fn link(
    documents: &mut [Kept],
    providers: &[Arc<Provider>],
    tiers: &Tiers<'_>,
    problems: &Problems,
) -> Vec<Arc<Resource>> {
    let providers: HashMap<&str, &Arc<Provider>> = providers
        .iter()
        .flat_map(|provider| [(&*provider.identifier, provider), (&*provider.id, provider)])
        .collect();
    let mut linked = Vec::new();
    for Kept { draft, resources, .. } in documents {
        for (draft, resource) in draft.resources.iter().zip(resources) {
            tiers.check(&draft.asks, problems);
            let Some(resource) = resource else { continue };
            let provider = draft.provider.as_ref().map(|name| providers.get(&*name.value).copied());
            let provider = match provider {
                Some(None) => continue,
                Some(provider) => provider,
                None => None,
            };
            let same = match (&resource.provider, provider) {
                (Some(has), Some(provider)) => Arc::ptr_eq(has, provider),
                (has, provider) => has.is_none() && provider.is_none(),
            };
            if !same {
                Arc::make_mut(resource).provider = provider.map(Arc::clone);
            }
            if let Some(guards) = resource.guards.as_ref().and_then(|guards| guards.in_tiers(tiers.declared))
            {
                Arc::make_mut(resource).guards = Some(guards);
            }
            linked.push(Arc::clone(resource));
        }
    }
    linked
}

fn sorted(names: &[PlacedName]) -> Vec<Arc<str>> {
    let mut names: Vec<_> = names.iter().map(|name| Arc::clone(&name.value)).collect();
    names.sort_unstable();
    names
}

fn operations(draft: &mut DraftResource, problems: &Problems) -> Operations {
    let mut operations = Operations::default();
    for (operation, scope_place) in std::mem::take(&mut draft.operations) {
        if draft.scopes.binary_search_by(|known| known.value.cmp(&operation.scope)).is_err() {
            problems.push(undeclared(&operation.scope, &scope_place, &draft.identifier.value, &draft.scopes));
        }
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
fn mcp(draft: &mut DraftResource, problems: &Problems) -> Option<Mcp> {
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
    let entries = |drafts: Vec<DraftEntry>| {
        let named = |(name, scope): (PlacedName, PlacedName)| McpEntry {
            name: (*name.value).into(),
            scope: scope.value,
        };
        let mut entries: Vec<_> = drafts.into_iter().map(named).collect();
        entries.sort_unstable();
        entries
    };
    let (tools, methods) = (entries(tools), entries(methods));
    Some(Mcp { path: (*path.value).into(), scope: scope.value, tools, methods })
}

fn undeclared(scope: &str, place: &Place, resource: &str, declared: &[PlacedName]) -> Problem {
    let what = format!("an operation of `{resource}` needs a scope that it does not declare");
    Problem::new("scope_undeclared", place, what)
        .found(format!("`{scope}`"))
        .expected(one_of(declared.iter().map(|scope| &*scope.value)))
        .hint("add the scope to the resource, or correct the operation")
}
