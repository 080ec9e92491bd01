//! A recorded decision, whole: what the policy answered, and what another policy answers to the same.

use std::sync::Arc;

use caracal_policies::{Resource, Zone};
use serde_json::{Value, json};

use super::{Answer, Kind, Question, Said, steps};
use crate::state::Delegation;

/// Member of a decision's metadata with what the policy answered, there if it was asked. What it was asked is in the
/// other members: all of it, as far as this says.
pub(crate) const POLICY: &str = "policy";
/// Member of a mint's metadata with the resources that its delegations are confined to, if they are.
pub(crate) const REACH: &str = "delegation_reach";
/// Counts what a decision may look at. A record with another number was made on something that we do not know.
const INPUT: u64 = 1;

/// What goes into the record of a decision.
pub(crate) fn policy(answer: &'static str) -> Value {
    json!({ "answer": answer, "input": INPUT })
}

/// The resources that a lineage is confined to: a row id, or identifiers, for each edge that says any.
pub(crate) fn reach(lineage: &[Arc<Delegation>]) -> Option<Value> {
    let rows = lineage.iter().filter_map(|edge| edge.resource_id.as_ref()).map(|row| json!({ "row": row }));
    let named = lineage.iter().map(|edge| &edge.constraints.resources).filter(|named| !named.is_empty());
    let all: Vec<Value> = rows.chain(named.map(|named| json!({ "named": named }))).collect();
    (!all.is_empty()).then_some(Value::Array(all))
}

/// Why a decision cannot be made again from its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Incomparable {
    /// The record does not hold all it was decided on: another release wrote it.
    NoInput,
    /// It ended before any policy was asked: a used or revoked mandate, a plugin, a session that is over.
    BeforePolicy,
    /// The other policy has rules for messages to a server whose messages were not read.
    MessageNotRead,
    /// The other bundle has other plugins there, and what they would say is not known.
    Plugins,
    /// The same policy, asked again, does not answer what it answered: a fault of ours.
    Inexact,
}

impl Incomparable {
    /// The stable word for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::NoInput => "no_input",
            Self::BeforePolicy => "before_policy",
            Self::MessageNotRead => "message_not_read",
            Self::Plugins => "plugins",
            Self::Inexact => "inexact",
        }
    }
}

/// How two policies answer one decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    /// The same.
    Same,
    /// Differently: this, and not that.
    Different {
        /// The answer that was given.
        from: Answer,
        /// The other policy's.
        to: Answer,
    },
    /// Nobody can tell.
    Not(Incomparable),
}

/// One decision that a policy made.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    /// One for each resource of a mint; all must be allowed, and the first refusal counts.
    questions: Vec<Question>,
    reach: Vec<Reach>,
    reusable: bool,
    answer: Answer,
}

#[derive(Clone, Debug)]
enum Reach {
    Row(String),
    Named(Vec<String>),
}

impl Recorded {
    /// The decision in a record; nothing when the record is of none.
    pub(crate) fn read(said: Said<'_>) -> Option<Result<Self, Incomparable>> {
        let question = Question::of(said)?;
        let Some(policy) = said.metadata.get(POLICY) else {
            return Some(Err(unasked(said, &question)));
        };
        let answer = policy.get("answer").and_then(Value::as_str);
        let (Some(answer), Some(INPUT)) = (answer, policy.get("input").and_then(Value::as_u64)) else {
            return Some(Err(Incomparable::NoInput));
        };
        let reach = said.metadata.get(REACH).and_then(Value::as_array).into_iter().flatten();
        Some(Ok(Self {
            answer: match answer {
                "allow" => Answer::Allow(String::new()),
                "approval" => Answer::Approval,
                code => Answer::Deny(code.to_owned()),
            },
            reach: reach.map(Reach::read).collect(),
            reusable: said.is("reusable"),
            questions: question.about_each(said),
        }))
    }

    /// What the decision was about; of several resources, the one that `zone` refuses, or the first.
    pub(crate) fn question(&self, zone: &Zone) -> Option<&Question> {
        let refused = |question: &&Question| self.answer_to(question, zone).is_err();
        self.questions.iter().find(refused).or_else(|| self.questions.first())
    }

    /// Compares the answer that was given with that of `other`. `given` is the zone that gave it, where it is at hand:
    /// then it is asked again first, because an input that does not give the same answer twice proves nothing.
    pub(crate) fn compare(&self, given: Option<&Zone>, other: &Zone) -> Compared {
        if given.is_some_and(|given| !self.ask(given).same(&self.answer)) {
            return Compared::Not(Incomparable::Inexact);
        }
        for question in &self.questions {
            let Some(resource) = other.resource(&question.resource) else { continue };
            if question.kind == Kind::Use && question.called(resource).is_some() && question.call.is_none() {
                return Compared::Not(Incomparable::MessageNotRead);
            }
            let before = given.and_then(|given| given.resource(&question.resource));
            if question.kind == Kind::Use && before.is_some_and(|before| !same_plugins(before, resource)) {
                return Compared::Not(Incomparable::Plugins);
            }
        }
        let to = self.ask(other);
        if to.same(&self.answer) {
            Compared::Same
        } else {
            Compared::Different { from: self.answer.clone(), to }
        }
    }

    /// What `zone` answers.
    pub(crate) fn ask(&self, zone: &Zone) -> Answer {
        let (mut gated, mut first) = (false, None);
        for question in &self.questions {
            match self.answer_to(question, zone) {
                Ok((rule, asks)) => {
                    gated = gated || asks;
                    first.get_or_insert(rule);
                }
                Err(code) => return Answer::Deny(code.to_owned()),
            }
        }
        let reusable = |question: &Question| {
            zone.resource(&question.resource).is_some_and(|resource| resource.reusable_mandates)
        };
        if self.reusable && !self.questions.iter().all(reusable) {
            return Answer::Deny("reusable_mandate_not_allowed".to_owned());
        }
        if gated { Answer::Approval } else { Answer::Allow(first.unwrap_or_default()) }
    }

    /// What is answered about one resource: the rule, and whether a person must approve.
    fn answer_to(&self, question: &Question, zone: &Zone) -> Result<(String, bool), &'static str> {
        if zone.application(&question.application).is_none() {
            return Err("application_not_found");
        }
        if question.kind == Kind::Use {
            return question.send(zone);
        }
        let answer = question.mint(zone);
        // A mint looks at the delegation's reach once the resource is known to be granted and its scopes declared.
        if matches!(answer, Err("resource_not_granted" | "scope_mismatch" | "delegation_scope_exceeded")) {
            return answer;
        }
        let reached = |resource: &Resource| self.reach.iter().all(|one| one.reaches(resource));
        if zone.resource(&question.resource).is_some_and(|resource| !reached(resource)) {
            return Err("resource_outside_delegation");
        }
        answer
    }
}

impl Reach {
    fn read(value: &Value) -> Self {
        if let Some(row) = value.get("row").and_then(Value::as_str) {
            return Self::Row(row.to_owned());
        }
        let named = value.get("named").and_then(Value::as_array).into_iter().flatten();
        Self::Named(named.filter_map(Value::as_str).map(str::to_owned).collect())
    }

    fn reaches(&self, resource: &Resource) -> bool {
        match self {
            Self::Row(row) => **row == *resource.id || **row == *resource.identifier,
            Self::Named(named) => named.iter().any(|name| **name == *resource.identifier),
        }
    }
}

/// Why a record has no answer of a policy.
fn unasked(said: Said<'_>, question: &Question) -> Incomparable {
    let reason = said.diagnostics.pointer("/0/reason").and_then(Value::as_str);
    let asked = match (said.decision, reason) {
        ("deny", Some(reason)) => steps::may_be_of_policy(reason),
        ("deny", None) => false,
        // An identity token asks for no resource.
        _ => !question.resource.is_empty(),
    };
    if asked { Incomparable::NoInput } else { Incomparable::BeforePolicy }
}

fn same_plugins(before: &Resource, after: &Resource) -> bool {
    let said = |resource: &Resource| {
        let plugins = resource.plugins.iter().map(|plugin| (plugin.name.clone(), plugin.config.clone()));
        plugins.collect::<Vec<_>>()
    };
    said(before) == said(after)
}
