//! Cases from `tests/cases/*.yaml`. Adding one needs no Rust.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_yaml_ng::Value;

use crate::data::{Approver, Checked, Confinement, GrantData, PolicyData, Privacy, Risk, TierDeclaration};
use crate::decision::{Action, Decision, EdgeFacts, Input, Presented, Principal};
use crate::engine::Policy;

pub(super) const TRUTH_TABLE: &str = include_str!("../../../tests/cases/truth_table.yaml");
pub(super) const CORNERS: &str = include_str!("../../../tests/cases/corners.yaml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    base: BTreeMap<String, Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    data: BTreeMap<String, Value>,
    input: CaseInput,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseInput {
    application: Option<String>,
    workload: Option<String>,
    action: Option<String>,
    #[serde(default)]
    labels: Vec<Arc<str>>,
    #[serde(default)]
    requested: Vec<String>,
    edge: Option<Vec<Arc<str>>>,
    edge_id: Option<String>,
    session: Option<String>,
    presented: Option<CasePresented>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CasePresented {
    edge: Option<String>,
    scope: String,
    target: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    allow: Option<String>,
    #[serde(default)]
    gate: Vec<Value>,
    #[serde(default)]
    risk: Vec<(String, String)>,
    deny: Option<String>,
    #[serde(default)]
    failed: bool,
}

#[test]
fn every_row_of_the_truth_table_holds() {
    assert_eq!(run(TRUTH_TABLE), 32);
}

#[test]
fn every_corner_of_the_contract_holds() {
    assert!(run(CORNERS) > 30);
}

fn run(text: &str) -> usize {
    let file: CaseFile = serde_yaml_ng::from_str(text).unwrap();
    let mut names = BTreeSet::new();
    let mut wrong = Vec::new();
    for case in &file.cases {
        assert!(names.insert(&case.name), "two cases are called {}", case.name);
        let answer = answer(case, &file.roots(case));
        let expected = expected(&case.expect);
        if answer != expected {
            wrong.push(format!("{}:\n  answered {answer}\n  expected {expected}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    file.cases.len()
}

/// Every case of a file: its name, its roots as they are written and as they are read, and its input.
pub(super) fn for_each(
    text: &str,
    mut look: impl FnMut(&str, &BTreeMap<String, Value>, &PolicyData, &Input<'_>),
) {
    let file: CaseFile = serde_yaml_ng::from_str(text).unwrap();
    for case in &file.cases {
        let roots = file.roots(case);
        let requested: Vec<&str> = case.input.requested.iter().map(String::as_str).collect();
        look(&case.name, &roots, &data(&roots), &case.input.input(&requested));
    }
}

impl CaseFile {
    fn roots(&self, case: &Case) -> BTreeMap<String, Value> {
        let mut roots = self.base.clone();
        roots.extend(case.data.clone());
        roots.retain(|_, value| !value.is_null());
        roots
    }
}

fn answer(case: &Case, roots: &BTreeMap<String, Value>) -> String {
    let requested: Vec<&str> = case.input.requested.iter().map(String::as_str).collect();
    let input = case.input.input(&requested);
    match Policy::new(&data(roots)).decide(&input) {
        Decision::Allow(allowed) => {
            let gate = serde_json::to_string(&allowed.gate).unwrap();
            format!("allow {} gate {gate} risk {:?}", allowed.rule, allowed.risk)
        }
        Decision::Deny(reason) => format!("deny {reason}"),
        Decision::Failed(_) => "failed".to_owned(),
    }
}

fn expected(expect: &Expect) -> String {
    match (&expect.allow, &expect.deny, expect.failed) {
        (Some(rule), None, false) => {
            let gate: Vec<_> = expect.gate.iter().map(|value| declaration(value).unwrap()).collect();
            let gate = serde_json::to_string(&gate).unwrap();
            format!("allow {rule} gate {gate} risk {:?}", expect.risk)
        }
        (None, Some(reason), false) => format!("deny {reason}"),
        (None, None, true) => "failed".to_owned(),
        _ => panic!("a case expects exactly one answer"),
    }
}

impl CaseInput {
    fn input<'a>(&'a self, requested: &'a [&'a str]) -> Input<'a> {
        let principal = match (&self.application, &self.workload) {
            (Some(id), None) => Principal::Application(id),
            (None, Some(id)) => Principal::Workload(id),
            _ => panic!("a case has exactly one principal"),
        };
        let action = match self.action.as_deref() {
            None | Some("token_exchange") => Action::TokenExchange,
            Some("credential_injection") => Action::CredentialInjection,
            Some(other) => panic!("unknown action {other}"),
        };
        let edge = self
            .edge
            .as_ref()
            .map(|scopes| EdgeFacts { id: self.edge_id.as_deref().unwrap_or("edge-1"), scopes });
        // A delegation comes with a session unless the case says otherwise.
        let session = self.session.as_deref().or_else(|| edge.is_some().then_some("session-1"));
        let presented = self.presented.as_ref().map(|presented| Presented {
            delegation_edge_id: presented.edge.as_deref(),
            scope: &presented.scope,
            target: &presented.target,
        });
        Input {
            principal,
            action,
            resource: "R",
            labels: &self.labels,
            requested,
            edge,
            agent_session_id: session,
            presented,
        }
    }
}

fn data(roots: &BTreeMap<String, Value>) -> PolicyData {
    let root = |name: &str| roots.get(name);
    let grants: BTreeMap<Arc<str>, CaseGrant> = root("grants").map(read).unwrap_or_default();
    PolicyData {
        app_ids: root("app_ids").map(read).unwrap_or_default(),
        grants: grants
            .into_iter()
            .map(|(resource, grant)| {
                (resource, Arc::new(GrantData { application: grant.application, roles: grant.roles }))
            })
            .collect(),
        confinement: root("confinement")
            .map(read::<Vec<CaseConfinement>>)
            .unwrap_or_default()
            .into_iter()
            .map(|rule| Confinement { label_prefix: rule.label_prefix, scopes: rule.scopes })
            .collect(),
        restrict: root("restrict").map(read).unwrap_or_default(),
        risk: checked(root("risk"), risk),
        tiers: checked(root("approval_tiers"), declaration),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseGrant {
    application: Arc<str>,
    roles: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseConfinement {
    label_prefix: Arc<str>,
    scopes: BTreeSet<Arc<str>>,
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_yaml_ng::from_value(value.clone()).unwrap()
}

/// The predicates `bad_risk` and `bad_tiers`: not a list, or an element that is not well formed.
fn checked<T>(root: Option<&Value>, one: fn(&Value) -> Option<T>) -> Checked<T> {
    let Some(root) = root else { return Checked::default() };
    let rules = root.as_sequence().and_then(|items| items.iter().map(one).collect::<Option<Vec<_>>>());
    rules.map_or(Checked::Malformed, Checked::Rules)
}

fn risk(value: &Value) -> Option<Risk> {
    Some(Risk { scope: word(value, "scope")?, tier: word(value, "tier")? })
}

fn declaration(value: &Value) -> Option<TierDeclaration> {
    let approver = match value.get("approver").map(|word| word.as_str()) {
        None => None,
        Some(Some("operator")) => Some(Approver::Operator),
        Some(Some("subject")) => Some(Approver::Subject),
        Some(Some("any")) => Some(Approver::Any),
        Some(_) => return None,
    };
    let privacy = match value.get("privacy").map(|word| word.as_str()) {
        None => None,
        Some(Some("identified")) => Some(Privacy::Identified),
        Some(Some("pseudonymous")) => Some(Privacy::Pseudonymous),
        Some(Some("anonymous")) => Some(Privacy::Anonymous),
        Some(_) => return None,
    };
    let ttl_seconds = match value.get("ttl_seconds") {
        None => None,
        Some(number) => Some(number.as_u64().filter(|seconds| *seconds > 0)?),
    };
    Some(TierDeclaration { tier: word(value, "tier")?, approver, ttl_seconds, privacy, self_approval: None })
}

fn word(value: &Value, key: &str) -> Option<Arc<str>> {
    value.get(key)?.as_str().filter(|word| !word.is_empty()).map(Into::into)
}
