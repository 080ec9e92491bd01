//! What a policy was needed for, from the ledger of a zone.

use std::collections::{BTreeMap, BTreeSet};

use caracal_policies::{Enforcement, Path, Zone};
use serde_json::Value;

use crate::ledger::Record;
use crate::state::parse_iso;

/// One scope that one role of an application has on a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Grant {
    pub(super) resource: String,
    pub(super) application: String,
    pub(super) label: String,
    pub(super) scope: String,
}

/// What was asked for and refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Refused {
    pub(super) application: String,
    pub(super) labels: String,
    pub(super) resource: String,
    pub(super) asked: String,
    pub(super) reason: String,
}

/// How much a grant was needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// A permitted request needed it.
    Used,
    /// Mandates carried it, and no request needed it.
    Carried,
    /// Nobody asked for it.
    Never,
}

/// What the records of a zone say.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Permitted requests.
    pub(super) requests: u64,
    /// The time of the first record that counted, as it is written.
    pub(super) first: Option<String>,
    /// Records that say that others may be missing.
    pub(super) gaps: u64,
    used: BTreeSet<Grant>,
    carried: BTreeSet<Grant>,
    operations: BTreeSet<(String, String)>,
    refused: BTreeMap<Refused, u64>,
}

impl Usage {
    /// Counts a record, if it is not from before `since`.
    pub(super) fn count(&mut self, zone: &Zone, record: &Record, since: i64) {
        if parse_iso(&record.occurred_at).is_none_or(|at| at < since) {
            return;
        }
        self.first.get_or_insert_with(|| record.occurred_at.clone());
        match (record.event_type.as_str(), record.decision.as_str()) {
            ("gateway_decision", "allow") => self.request(zone, record),
            ("token_exchange", "allow") => self.mint(zone, record),
            ("gateway_decision" | "token_exchange", "deny") => self.refusal(record),
            ("gap", _) => self.gaps = self.gaps.saturating_add(1),
            _ => {}
        }
    }

    /// How much a grant was needed.
    pub(super) fn need(&self, grant: &Grant) -> Need {
        if self.used.contains(grant) {
            Need::Used
        } else if self.carried.contains(grant) {
            Need::Carried
        } else {
            Need::Never
        }
    }

    /// Every grant of the zone.
    pub(super) fn grants(zone: &Zone) -> Vec<Grant> {
        let of = |application: &str| {
            let roles = zone.roles(application).flat_map(|(resource, label, scopes)| {
                scopes.iter().map(move |scope| (resource.to_string(), label.to_string(), scope.to_string()))
            });
            let grant = |(resource, label, scope)| Grant {
                resource,
                application: application.to_owned(),
                label,
                scope,
            };
            roles.map(grant).collect::<Vec<_>>()
        };
        let mut grants: Vec<Grant> = zone.applications().flat_map(|one| of(&one.id)).collect();
        grants.sort_unstable();
        grants
    }

    /// Operations that no permitted request was one of: resource, and the operation as it is declared.
    pub(super) fn unused_operations(&self, zone: &Zone) -> Vec<(String, String)> {
        let enforced =
            zone.resources().filter(|resource| matches!(resource.enforcement, Enforcement::Enforced));
        let all = enforced.flat_map(|resource| {
            resource.operations.iter().map(|one| (resource.identifier.to_string(), one.to_string()))
        });
        all.filter(|one| !self.operations.contains(one)).collect()
    }

    /// What was refused, most often first.
    pub(super) fn refused(&self) -> Vec<(&Refused, u64)> {
        let mut refused: Vec<_> = self.refused.iter().map(|(what, count)| (what, *count)).collect();
        refused.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        refused
    }

    fn request(&mut self, zone: &Zone, record: &Record) {
        self.requests = self.requests.saturating_add(1);
        let name = text(record, "resource");
        let Some(resource) = zone.resource(name) else { return };
        let carried = words(record, "scopes");
        self.carry(zone, record, name, &carried);
        let path = Path::parse(text(record, "path"));
        let operation = path.ok().and_then(|path| resource.operations.find(text(record, "method"), &path));
        match (resource.enforcement, operation) {
            // Any scope opens it, so each that was carried may have been the one.
            (Enforcement::TransportUniform, _) => self.needed(zone, record, name, &carried, &carried),
            (Enforcement::Enforced, Some(operation)) => {
                self.operations.insert((name.to_owned(), operation.to_string()));
                self.needed(zone, record, name, &carried, &[&operation.scope]);
            }
            (Enforcement::Enforced, None) => {}
        }
    }

    fn mint(&mut self, zone: &Zone, record: &Record) {
        let asked = words(record, "requested_scopes");
        for resource in words(record, "resources") {
            self.carry(zone, record, resource, &asked);
        }
    }

    fn carry(&mut self, zone: &Zone, record: &Record, resource: &str, scopes: &[&str]) {
        let grants = by_roles(zone, record, resource, scopes, scopes);
        self.carried.extend(grants);
    }

    fn needed(&mut self, zone: &Zone, record: &Record, resource: &str, carried: &[&str], scopes: &[&str]) {
        let grants = by_roles(zone, record, resource, carried, scopes);
        self.used.extend(grants);
    }

    fn refusal(&mut self, record: &Record) {
        let asked = match record.event_type.as_str() {
            "token_exchange" => words(record, "requested_scopes").join(" "),
            _ => format!("{} {}", text(record, "method"), text(record, "path")),
        };
        let reason = record.diagnostics.get(0).and_then(|first| first.get("reason")).and_then(Value::as_str);
        let refused = Refused {
            application: text(record, "application_id").to_owned(),
            labels: words(record, "agent_labels").join(" "),
            resource: text(record, "resource").to_owned(),
            asked,
            reason: reason.unwrap_or(&record.evaluation_status).to_owned(),
        };
        let count = self.refused.entry(refused).or_default();
        *count = count.saturating_add(1);
    }
}

/// The grants by which `scopes` were had: of every role of the caller that covers all that was carried, since one
/// role must.
fn by_roles(zone: &Zone, record: &Record, resource: &str, carried: &[&str], scopes: &[&str]) -> Vec<Grant> {
    let (application, labels) = (text(record, "application_id"), words(record, "agent_labels"));
    let roles = zone.roles(application).filter(|(on, label, held)| {
        ***on == *resource
            && labels.contains(&&***label)
            && carried.iter().all(|scope| held.iter().any(|one| **one == **scope))
    });
    let grants = roles.flat_map(|(_, label, _)| {
        scopes.iter().map(|scope| Grant {
            resource: resource.to_owned(),
            application: application.to_owned(),
            label: label.to_string(),
            scope: (*scope).to_owned(),
        })
    });
    grants.collect()
}

fn text<'a>(record: &'a Record, name: &str) -> &'a str {
    record.metadata.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn words<'a>(record: &'a Record, name: &str) -> Vec<&'a str> {
    let list = record.metadata.get(name).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).collect()
}
