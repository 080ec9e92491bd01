//! What was missing, and the smallest grant that would have been enough: tried out, never guessed.

use std::collections::BTreeSet;
use std::sync::Arc;

use caracal_policies::{Path, Place, RulePlaces, Zone};
use serde_json::Value;

use super::question::{Answer, Kind, Question};
use super::steps::{grounds, is_of_policy, named};

/// What would help.
#[derive(Debug, Default)]
pub(super) struct Remedy {
    pub(super) missing: Vec<String>,
    pub(super) grant: Option<Grant>,
    /// What to do, in a sentence.
    pub(super) advice: String,
}

/// A change of the bundle.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) toml: String,
    /// What it takes the place of, where that is known.
    pub(super) place: Option<Place>,
}

/// What would have turned the refusal into a yes.
pub(super) fn find(question: &Question, reason: &str, zone: &Zone, places: Option<&RulePlaces>) -> Remedy {
    if !is_of_policy(reason, zone, question) || reason == "restriction_active" {
        return Remedy { advice: no_grant(reason), ..Remedy::default() };
    }
    let missing = missing(question, reason, zone);
    let remedy = |grant, advice: String| Remedy { missing: missing.clone(), grant, advice };
    if matches!(reason, "approval_pending" | "approval_required") {
        let advice = match question.kind {
            Kind::Mint => "no grant can: it is granted, and a person has to approve; see `caracal approvals`",
            Kind::Use => "no grant can: mint again, and have a person approve",
        };
        return remedy(None, advice.to_owned());
    }
    let Some(better) = asked_well(question, reason, zone) else {
        let advice = format!("no grant can: the resource has no operation for this request ({reason})");
        return remedy(None, advice);
    };
    if let Some(how) = suffices(&better, question, zone) {
        return remedy(None, how);
    }
    match smallest(&better, zone, places) {
        Ok(grant) => {
            let also = if better.delegation_scopes == question.delegation_scopes {
                String::new()
            } else {
                "; the delegation has to carry the scope too".to_owned()
            };
            remedy(Some(grant), format!("this grant would have been enough{also}"))
        }
        Err(why) => remedy(None, format!("no grant can: {why}")),
    }
}

/// The question with what the caller itself could have done better: another scope, or a wider delegation.
fn asked_well(question: &Question, reason: &str, zone: &Zone) -> Option<Question> {
    let mut better = question.clone();
    if reason == "operation_not_permitted" {
        better.scopes = vec![needed(question, zone)?.to_string()];
    }
    if reason == "operation_not_permitted" || reason == "delegation_scope_exceeded" {
        let held = &mut better.delegation_scopes;
        for scope in &better.scopes {
            if !held.iter().any(|one| **one == **scope) {
                held.push(scope.as_str().into());
            }
        }
    }
    Some(better)
}

/// Whether the policy allows the better question as it is, and what the caller has to do then.
fn suffices(better: &Question, question: &Question, zone: &Zone) -> Option<String> {
    if matches!(better.ask(zone), Answer::Deny(_)) {
        return None;
    }
    let wider = better.delegation_scopes != question.delegation_scopes;
    let handed = if wider { "hand it down in the delegation, and " } else { "" };
    Some(format!("no grant is needed: {handed}mint with {}", named(&better.scopes)))
}

/// The scope of the operation that was addressed.
fn needed(question: &Question, zone: &Zone) -> Option<Arc<str>> {
    let resource = zone.resource(&question.resource)?;
    if let (Some(mcp), Some(call)) = (&resource.mcp, question.called(resource)) {
        return mcp.scope_of(&call).map(Arc::clone);
    }
    let path = Path::parse(&question.path).ok()?;
    Some(Arc::clone(&resource.operations.find(&question.method, &path)?.scope))
}

/// The one label to which the fewest scopes have to be added. That it is enough is asked, not assumed.
fn smallest(question: &Question, zone: &Zone, places: Option<&RulePlaces>) -> Result<Grant, String> {
    let name = &question.resource;
    let Some(resource) = zone.resource(name) else {
        return Err(format!("the bundle has no resource {name}"));
    };
    let undeclared: Vec<&String> =
        question.scopes.iter().filter(|scope| !resource.scopes.iter().any(|one| **one == ***scope)).collect();
    if !undeclared.is_empty() {
        return Err(format!("{name} declares no {}", named(undeclared)));
    }
    let grounds = grounds(zone, question);
    if let Some(owner) = grounds.owner.as_ref().filter(|owner| ***owner != *question.application) {
        return Err(format!("{name} is granted to {owner}, and a resource is granted to one application"));
    }
    let held =
        |label: &Arc<str>| grounds.roles.iter().find(|(known, _)| known == label).map(|(_, held)| held);
    let lacking = |label: &Arc<str>| {
        let lacks = |scope: &&String| held(label).is_none_or(|held| !held.contains(scope.as_str()));
        question.scopes.iter().filter(lacks).map(String::as_str).collect::<Vec<_>>()
    };
    let Some(label) = question.labels.iter().min_by_key(|label| lacking(label).len()) else {
        return Err("the session has no label, and scopes are granted to labels".to_owned());
    };
    let added = lacking(label);
    let wider = zone.granting(&question.application, name, label, &added);
    let wider = wider.ok_or_else(|| "no binding key is free for the application".to_owned())?;
    if let Answer::Deny(code) = question.ask(&wider) {
        return Err(format!("with it the answer would be {code}"));
    }
    let scopes: BTreeSet<&str> =
        held(label).into_iter().flatten().map(|scope| &**scope).chain(added).collect();
    let scopes: Vec<String> = scopes.into_iter().map(quoted).collect();
    let role = format!("{} = [{}]", quoted(label), scopes.join(", "));
    let on = quoted(name);
    if grounds.owner.is_some() {
        let place = places.and_then(|all| all.role(name, label).or_else(|| all.grant(name))).cloned();
        return Ok(Grant { toml: format!("[grants.{on}.roles]\n{role}"), place });
    }
    let key = grounds.key.as_deref();
    let own = quoted(&question.application);
    let binding = if key.is_none() { format!("[app_ids]\n{own} = {own}\n\n") } else { String::new() };
    let by = key.map_or_else(|| own.clone(), quoted);
    let toml = format!("{binding}[grants.{on}]\napplication = {by}\n\n[grants.{on}.roles]\n{role}");
    Ok(Grant { toml, place: None })
}

/// What was not there, in the terms of the rule that decided.
fn missing(question: &Question, reason: &str, zone: &Zone) -> Vec<String> {
    let name = &question.resource;
    let grounds = grounds(zone, question);
    let without = |held: &dyn Fn(&str) -> bool| {
        question.scopes.iter().filter(|scope| !held(scope)).map(String::as_str).collect::<Vec<_>>()
    };
    match reason {
        "resource_not_granted" => vec![format!("a grant of {name} to {}", question.application)],
        "scope_mismatch" => {
            let declared = |scope: &str| {
                zone.resource(name).is_some_and(|one| one.scopes.iter().any(|known| **known == *scope))
            };
            vec![format!("{} among the scopes of {name}", named(without(&declared)))]
        }
        "delegation_scope_exceeded" => {
            let carried = |scope: &str| question.delegation_scopes.iter().any(|held| **held == *scope);
            vec![format!("{} in the delegation", named(without(&carried)))]
        }
        "operation_not_permitted" => match needed(question, zone) {
            Some(scope) => vec![format!("{scope} in the mandate")],
            None => vec![format!("an operation of {name} for {} {}", question.method, question.path)],
        },
        "confinement_violation" => {
            let of = |(prefix, left): &(Arc<str>, BTreeSet<Arc<str>>)| {
                let lacks = without(&|scope| left.contains(scope));
                (!lacks.is_empty())
                    .then(|| format!("{} in the confinement of labels from `{prefix}`", named(lacks)))
            };
            grounds.caps.iter().filter_map(of).collect()
        }
        "role_scope_mismatch" => {
            let of = |label: &Arc<str>| {
                let role = grounds.roles.iter().find(|(known, _)| known == label);
                let lacks = without(&|scope| role.is_some_and(|(_, held)| held.contains(scope)));
                format!("{} in the role `{label}`", named(lacks))
            };
            question.labels.iter().map(of).collect()
        }
        "mandate_target_mismatch" => vec![format!("{name} among the resources of the mandate")],
        "approval_pending" | "approval_required" => {
            let gated = grounds.tiers.iter().filter(|one| one.gated).map(|one| &one.scope);
            vec![format!("a person's approval of {}", named(gated))]
        }
        _ => Vec::new(),
    }
}

fn no_grant(reason: &str) -> String {
    let why = match reason {
        "replayed" => "mint a new mandate for each call",
        "epoch_gone" => "mint a new mandate",
        "revoked" => "what was revoked stays so; start a new session",
        "application_revoked" => "an operator has to restore the application",
        "restriction_active" => "the zone is stopped until an operator lifts the freeze or the restriction",
        "not_standing" | "session_inactive" | "authority_record_inactive" => {
            "start a new session and mint again"
        }
        "delegation_inactive"
        | "delegation_lineage_broken"
        | "delegation_expired"
        | "delegation_hops_exceeded"
        | "delegation_ttl_exceeded"
        | "delegation_without_session"
        | "resource_outside_delegation" => "it takes another delegation",
        "budget_exhausted" => "more has to come back, or the budget to be raised; see `caracal budgets`",
        "rate_limited" => "it came too fast; try again later",
        "guard_denied" | "guard_unanswered" => "a guard of the resource refused this very request",
        "request_held" => "a person has to approve this very request; see `caracal approvals`",
        "request_rejected" => "a person said no to this very request",
        "approval_mismatch" => "the request named an approval of another request",
        "request_consumed" => "the approval of this very request was used",
        "request_approver_conflict" => "guards of the resource ask different people",
        "plugin_refused" | "plugin_fault" => "a plugin of the resource ended it",
        "approval_rejected" => "a person said no",
        "approval_invalid" | "approval_consumed" => "ask for an approval anew",
        _ => "grants were not what it failed on",
    };
    format!("no grant can: {why}")
}

/// A name as TOML writes it: names are visible ASCII, where JSON and TOML quote alike.
fn quoted(name: &str) -> String {
    Value::from(name).to_string()
}
