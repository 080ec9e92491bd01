//! The contract in Rego (`tests/contract.rego`), evaluated by a Rego engine: engine, model and it must agree.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::cases::{self, CORNERS, TRUTH_TABLE};
use super::model::{Answer, Model, asked, engine, mint, policy_data};
use crate::convert::as_rego;
use crate::data::{Checked, PolicyData};
use crate::decision::{Action, Input, Principal};
use crate::engine::Policy;

const CONTRACT: &str = include_str!("../../../tests/contract.rego");
/// The cases another engine is asked about, in `interop/test_contract.py`.
const EXPORT: &str = include_str!("../../../tests/cases/contract.jsonl");

struct Oracle(regorus::Engine);

impl Oracle {
    fn new() -> Self {
        let mut engine = regorus::Engine::new();
        engine.add_policy("contract.rego".into(), CONTRACT.into()).unwrap();
        Self(engine)
    }

    /// With the data as a Rego document, as a bundle would have it.
    fn over_document(data: &PolicyData) -> Self {
        let mut oracle = Self::new();
        oracle.0.add_policy("data.rego".into(), as_rego(data)).unwrap();
        oracle
    }

    fn over(&mut self, roots: &Value) -> &mut Self {
        self.0.clear_data();
        let data = json!({ "caracal": { "authz": roots } });
        self.0.add_data_json(&data.to_string()).unwrap();
        self
    }

    fn answer(&mut self, input: &Value) -> Value {
        self.0.set_input_json(&input.to_string()).unwrap();
        match self.0.eval_rule("data.caracal.oracle.decision".into()) {
            Ok(answer) => sorted(serde_json::from_str(&answer.to_json_str().unwrap()).unwrap()),
            Err(error) => {
                // The one failure the contract knows: two tiers for one scope.
                assert!(error.to_string().contains("multiple"), "{error}");
                json!({ "failed": true })
            }
        }
    }
}

/// Without an order among the declarations of the gate.
fn sorted(mut answer: Value) -> Value {
    if let Some(gate) = answer.get_mut("gate").and_then(Value::as_array_mut) {
        gate.sort_by_key(Value::to_string);
    }
    answer
}

fn shown(answer: &Answer) -> Value {
    match answer {
        Answer::Allow(rule, gate, risk) => sorted(json!({ "allow": rule, "gate": gate, "risk": risk })),
        Answer::Deny(reason) => json!({ "deny": reason }),
        Answer::Failed => json!({ "failed": true }),
    }
}

/// The input as the wire has it: members without a value are not there.
fn document(input: &Input<'_>) -> Value {
    let (kind, id) = match input.principal {
        Principal::Application(id) => ("Application", id),
        Principal::Workload(id) => ("Workload", id),
    };
    let action = match input.action {
        Action::TokenExchange => "TokenExchange",
        Action::CredentialInjection => "CredentialInjection",
    };
    let labels: BTreeSet<&str> = input.labels.iter().map(AsRef::as_ref).collect();
    let mut context = json!({ "requested_scopes": input.requested });
    if let Some(session) = input.agent_session_id {
        context["agent_session_id"] = session.into();
    }
    if let Some(claims) = input.presented {
        context["subject_claims"] = json!({ "scope": claims.scope, "target": claims.target });
        if let Some(edge) = claims.delegation_edge_id {
            context["subject_claims"]["delegation_edge_id"] = edge.into();
        }
    }
    let mut document = json!({
        "principal": { "type": kind, "id": id, "labels": labels },
        "resource": { "identifier": input.resource },
        "action": { "id": action },
        "context": context,
    });
    if let Some(edge) = input.edge {
        let scopes: Vec<&str> = edge.scopes.iter().map(AsRef::as_ref).collect();
        document["delegation_edge"] = json!({ "id": edge.id, "scopes": scopes });
    }
    document
}

/// The six roots as JSON.
fn roots(data: &PolicyData) -> Value {
    let texts =
        |words: &BTreeSet<std::sync::Arc<str>>| json!(words.iter().map(AsRef::as_ref).collect::<Vec<&str>>());
    let mut roots = json!({ "app_ids": {}, "grants": {}, "restrict": texts(&data.restrict) });
    for (key, id) in &data.app_ids {
        roots["app_ids"][&**key] = json!(&**id);
    }
    for (resource, grant) in &data.grants {
        roots["grants"][&**resource] = json!({ "application": &*grant.application, "roles": {} });
        for (role, scopes) in &grant.roles {
            roots["grants"][&**resource]["roles"][&**role] = texts(scopes);
        }
    }
    let confinement = data.confinement.iter();
    roots["confinement"] = confinement
        .map(|rule| json!({ "label_prefix": &*rule.label_prefix, "scopes": texts(&rule.scopes) }))
        .collect();
    roots["risk"] = match &data.risk {
        Checked::Rules(rules) => {
            rules.iter().map(|rule| json!({ "scope": &*rule.scope, "tier": &*rule.tier })).collect()
        }
        Checked::Malformed => json!("not a list"),
    };
    roots["approval_tiers"] = match &data.tiers {
        Checked::Rules(rules) => json!(rules),
        Checked::Malformed => json!([{ "tier": "" }]),
    };
    roots
}

#[test]
fn a_rego_engine_answers_every_case_as_written() {
    let mut oracle = Oracle::new();
    for text in [TRUTH_TABLE, CORNERS] {
        cases::for_each(text, |name, written, data, input| {
            let expected = shown(&engine(&Policy::new(data), input));
            let written = serde_json::to_value(written).unwrap();
            assert_eq!(oracle.over(&written).answer(&document(input)), expected, "{name}");
            if data.risk != Checked::Malformed && data.tiers != Checked::Malformed {
                let answer = Oracle::over_document(data).answer(&document(input));
                assert_eq!(answer, expected, "{name}, as a document");
            }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(512)))]

    #[test]
    fn engine_model_and_a_rego_engine_agree(
        data in policy_data(), asked in prop_oneof![asked(), mint()],
    ) {
        let mut oracle = Oracle::new();
        asked.with(|input| {
            let expected = shown(&engine(&Policy::new(&data), input));
            prop_assert_eq!(&shown(&Model { data: &data, input }.decide()), &expected);
            prop_assert_eq!(&oracle.over(&roots(&data)).answer(&document(input)), &expected);
            Ok(())
        })?;
    }
}

/// `BLESS=1` writes the file anew.
#[test]
fn the_cases_for_another_engine_are_those_of_this_one() {
    let mut lines = String::new();
    let mut add = |name: &str, roots: &Value, input: &Value, answer: &Value| {
        let case = json!({ "name": name, "roots": roots, "input": input, "answer": answer });
        writeln!(lines, "{case}").unwrap();
    };
    for text in [TRUTH_TABLE, CORNERS] {
        cases::for_each(text, |name, written, data, input| {
            let answer = shown(&engine(&Policy::new(data), input));
            add(name, &serde_json::to_value(written).unwrap(), &document(input), &answer);
        });
    }
    let mut runner = TestRunner::deterministic();
    for number in 0..100 {
        let data = policy_data().new_tree(&mut runner).unwrap().current();
        let asked = prop_oneof![asked(), mint()].new_tree(&mut runner).unwrap().current();
        asked.with(|input| {
            let answer = shown(&engine(&Policy::new(&data), input));
            add(&format!("generated_{number}"), &roots(&data), &document(input), &answer);
        });
    }
    if std::env::var_os("BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/contract.jsonl");
        std::fs::write(path, &lines).unwrap();
    }
    assert_eq!(lines, EXPORT, "BLESS=1 writes the file anew");
}
