//! A bundle's own tests: facts, and what its policy is expected to answer.
//!
//! They go through the very decision that mints and requests go through. A zone is never built from a bundle whose
//! tests fail, see [`compile`](crate::compile).

mod facts;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

pub(crate) use self::facts::CaseFacts;
use crate::authorize::{Guarding, Refused, UseRequest};
use crate::decision::{Action, Decision, DenyReason, EdgeFacts, Input, LIFECYCLE, Presented, Principal};
use crate::guard::Stopped;
use crate::mcp::McpCall;
use crate::names;
use crate::path::Path;
use crate::read::PlacedName;
use crate::report::{Place, Problem, Problems, one_of, shortened};
use crate::resource::Resource;
use crate::zone::Zone;

/// The reason of a use that no operation of the resource allows, as the gateway says it.
pub(crate) const NOT_PERMITTED: &str = "operation_not_permitted";
/// The reason of an answer that could not be found.
pub(crate) const NOT_EVALUATED: &str = "policy_eval_failed";

/// The reason of a use for which a budget has not enough left.
pub(crate) const BUDGET_EXHAUSTED: &str = "budget_exhausted";
/// The same of a rate.
pub(crate) const RATE_LIMITED: &str = "rate_limited";

/// The reason of a use that a guard refuses.
pub(crate) const GUARD_DENIED: &str = "guard_denied";

/// The outcome of one test of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseResult {
    /// What the bundle calls it.
    pub name: Arc<str>,
    /// Where its name stands.
    pub place: Place,
    /// What the bundle expects, such as `deny (role_scope_mismatch)`.
    pub expected: String,
    /// What the policy answers, in the same words.
    pub answered: String,
    /// Whether the answer is the expected one.
    pub passed: bool,
}

/// One test, as it was read.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: PlacedName,
    pub(crate) who: Who,
    pub(crate) asks: Asks,
    pub(crate) resource: PlacedName,
    pub(crate) labels: Vec<Arc<str>>,
    /// Asked for at a mint, carried at a use.
    pub(crate) scopes: Vec<PlacedName>,
    pub(crate) expect: Answer,
    /// Whether the bundle also says why.
    pub(crate) reasoned: bool,
}

/// Who asks.
#[derive(Debug)]
pub(crate) enum Who {
    Application(PlacedName),
    Workload(Arc<str>),
}

/// What for.
#[derive(Debug)]
pub(crate) enum Asks {
    Mint {
        /// Scopes of the delegation. Left out: those asked for, or no delegation for `agent:lifecycle`.
        delegation: Option<Vec<Arc<str>>>,
    },
    Inject,
    Use {
        /// Resources the mandate was minted for. Left out: the resource.
        targets: Vec<String>,
        method: Arc<str>,
        path: Arc<str>,
        call: Option<McpCall>,
        approved: bool,
        facts: Box<CaseFacts>,
        /// What was used before of budgets and rates, by name.
        used: Vec<(PlacedName, u64)>,
    },
}

/// An answer, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Allow(String),
    /// A human has to approve first.
    Approval,
    Deny(String),
    /// A guard denies, the one with this name.
    Guard(String),
    /// Guards ask a person about this very request, the first of them with this name.
    Asked(String),
}

impl CaseResult {
    /// What a report says of a test that failed.
    pub(crate) fn problem(&self) -> Problem {
        Problem::new(
            "bundle_tests_failed",
            &self.place,
            format!("the test `{}` fails", shortened(&self.name)),
        )
        .found(&self.answered)
        .expected(&self.expected)
        .hint("correct the policy, or the test if the new answer is the right one; `caracal test` runs all")
    }
}

impl Case {
    /// Reports names that the zone does not have: such a test would pass for the wrong reason.
    pub(crate) fn check(&self, zone: &Zone, problems: &Problems) {
        let unknown = |what: &str, name: &PlacedName, known: &mut dyn Iterator<Item = &str>| {
            let known: Vec<&str> = known.collect();
            let hint = match names::nearest(&name.value, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "a test about what does not exist proves nothing".to_owned(),
            };
            problems.push(
                Problem::new("reference_unknown", &name.place, format!("the test names an unknown {what}"))
                    .found(format!("`{}`", shortened(&name.value)))
                    .expected(one_of(known.iter().copied()))
                    .hint(hint),
            );
        };
        if let Who::Application(name) = &self.who
            && zone.application(&name.value).is_none()
        {
            unknown("application", name, &mut zone.applications().map(|known| &*known.id));
        }
        let Some(resource) = zone.resource(&self.resource.value) else {
            unknown("resource", &self.resource, &mut zone.resources().map(|known| &*known.identifier));
            return;
        };
        if let Answer::Guard(name) | Answer::Asked(name) = &self.expect
            && !resource.guards.iter().flat_map(|guards| guards.iter()).any(|guard| *guard.name == **name)
        {
            let name = PlacedName { value: name.as_str().into(), place: self.name.place.clone() };
            let known = resource.guards.iter().flat_map(|guards| guards.iter());
            unknown("guard", &name, &mut known.map(|guard| &*guard.name));
        }
        if let (Asks::Use { used, .. }, Who::Application(application)) = (&self.asks, &self.who) {
            let counted = zone.budgets().unwrap_or_default().iter();
            let counted: Vec<&str> = counted
                .filter(|budget| budget.covers(&application.value, &resource.identifier))
                .map(|budget| &*budget.name)
                .collect();
            for (name, _) in used.iter().filter(|(name, _)| !counted.contains(&&*name.value)) {
                unknown("budget of such calls", name, &mut counted.iter().copied());
            }
        }
        for scope in &self.scopes {
            if *scope.value != *LIFECYCLE && !resource.scopes.contains(&scope.value) {
                unknown("scope", scope, &mut resource.scopes.iter().map(|known| &**known));
            }
        }
    }

    /// Asks the policy.
    pub(crate) fn run(&self, zone: &Zone) -> CaseResult {
        let answer = match zone.resource(&self.resource.value) {
            Some(resource) => self.answer(zone, resource),
            None => Answer::Deny(DenyReason::ResourceNotGranted.code().to_owned()),
        };
        let passed = match (&self.expect, &answer) {
            (Answer::Approval, Answer::Approval | Answer::Asked(_)) => true,
            (Answer::Asked(expected), Answer::Asked(got)) => expected == got,
            (Answer::Allow(expected), Answer::Allow(got)) | (Answer::Deny(expected), Answer::Deny(got)) => {
                !self.reasoned || expected == got
            }
            (Answer::Guard(expected), Answer::Guard(got)) => !self.reasoned || expected == got,
            // A bundle that does not care why does not care that it was a guard.
            (Answer::Deny(expected), Answer::Guard(_)) => !self.reasoned || expected == GUARD_DENIED,
            (
                Answer::Allow(_) | Answer::Approval | Answer::Deny(_) | Answer::Guard(_) | Answer::Asked(_),
                _,
            ) => false,
        };
        CaseResult {
            name: Arc::clone(&self.name.value),
            place: self.name.place.clone(),
            expected: self.expect.to_string(),
            answered: answer.to_string(),
            passed,
        }
    }

    fn answer(&self, zone: &Zone, resource: &Arc<Resource>) -> Answer {
        let scopes: Vec<&str> = self.scopes.iter().map(|scope| &*scope.value).collect();
        match &self.asks {
            Asks::Mint { delegation } => {
                let asked: Vec<Arc<str>> = self.scopes.iter().map(|scope| Arc::clone(&scope.value)).collect();
                let held = match delegation {
                    Some(held) => Some(held),
                    None => (!scopes.contains(&LIFECYCLE)).then_some(&asked),
                };
                let edge = held.map(|scopes| EdgeFacts { id: "delegation", scopes });
                self.decide(zone, resource, Action::TokenExchange, &scopes, edge)
            }
            Asks::Inject => self.decide(zone, resource, Action::CredentialInjection, &scopes, None),
            Asks::Use { targets, method, path, call, approved, facts, used } => {
                let own = [resource.identifier.to_string()];
                let request = Use {
                    scope: scopes.join(" "),
                    target: if targets.is_empty() { &own } else { targets },
                    method,
                    path,
                    call: call.as_ref(),
                    approved: *approved,
                    facts,
                };
                match self.authorize(zone, resource, &request) {
                    // As at the gateway: a budget is asked once everything else has said yes.
                    Answer::Allow(rule) => short_of(zone, used).map_or(Answer::Allow(rule), Answer::Deny),
                    answer @ (Answer::Approval | Answer::Asked(_) | Answer::Deny(_) | Answer::Guard(_)) => {
                        answer
                    }
                }
            }
        }
    }

    fn decide(
        &self,
        zone: &Zone,
        resource: &Resource,
        action: Action,
        scopes: &[&str],
        edge: Option<EdgeFacts<'_>>,
    ) -> Answer {
        let decision = zone.decide(&Input {
            principal: match &self.who {
                Who::Application(id) => Principal::Application(&id.value),
                Who::Workload(id) => Principal::Workload(id),
            },
            action,
            resource: &resource.identifier,
            labels: &self.labels,
            requested: scopes,
            edge,
            agent_session_id: edge.is_some().then_some("session"),
            presented: None,
        });
        match decision {
            Decision::Allow(allowed) if allowed.gate.is_empty() => Answer::Allow(allowed.rule.to_string()),
            Decision::Allow(_) => Answer::Approval,
            Decision::Deny(reason) => Answer::Deny(reason.code().to_owned()),
            Decision::Failed(_) => Answer::Deny(NOT_EVALUATED.to_owned()),
        }
    }

    fn authorize(&self, zone: &Zone, resource: &Arc<Resource>, request: &Use<'_>) -> Answer {
        let Who::Application(application) = &self.who else {
            return Answer::Deny(DenyReason::NoRuleMatched.code().to_owned());
        };
        // The reader takes only paths that parse.
        let Ok(path) = Path::parse(request.path) else {
            return Answer::Deny(NOT_PERMITTED.to_owned());
        };
        let headers = request.facts.headers();
        let permit = zone.authorize(
            resource,
            &UseRequest {
                application: &application.value,
                labels: &self.labels,
                edge: None,
                agent_session_id: Some("session"),
                presented: Presented {
                    delegation_edge_id: Some("delegation"),
                    scope: &request.scope,
                    target: request.target,
                },
                method: request.method,
                path: &path,
                target: request.path,
                call: request.call,
                approved: request.approved,
                guards: Guarding::On(&request.facts.for_guards(&headers)),
            },
        );
        match permit {
            Ok(permit) => Answer::Allow(permit.rule().to_string()),
            Err(Refused::ApprovalRequired) => Answer::Approval,
            Err(Refused::OperationNotPermitted { .. }) => Answer::Deny(NOT_PERMITTED.to_owned()),
            Err(Refused::Denied(reason)) => Answer::Deny(reason.code().to_owned()),
            Err(Refused::Guarded(stopped)) => match *stopped {
                Stopped::Refused(fired, _) => Answer::Guard(fired.guard.name.to_string()),
                Stopped::Asked(asked, _) => {
                    Answer::Asked(asked.first().map(|fired| fired.guard.name.to_string()).unwrap_or_default())
                }
            },
            Err(Refused::Failed(_)) => Answer::Deny(NOT_EVALUATED.to_owned()),
        }
    }
}

/// The reason of the first budget or rate that has not enough left for one more call.
fn short_of(zone: &Zone, used: &[(PlacedName, u64)]) -> Option<String> {
    let mut budgets = zone.budgets().unwrap_or_default().iter();
    let short = budgets.find(|budget| {
        let used = used.iter().find(|(name, _)| *name.value == *budget.name).map_or(0, |(_, used)| *used);
        used.saturating_add(budget.taken_before()) > budget.most()
    })?;
    Some(if short.is_rate() { RATE_LIMITED } else { BUDGET_EXHAUSTED }.to_owned())
}

/// A request at the gateway.
struct Use<'a> {
    scope: String,
    target: &'a [String],
    method: &'a str,
    path: &'a str,
    call: Option<&'a McpCall>,
    approved: bool,
    facts: &'a CaseFacts,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, reason) = match self {
            Self::Allow(reason) => ("allow", reason.as_str()),
            Self::Approval => ("approval", ""),
            Self::Deny(reason) => ("deny", reason.as_str()),
            Self::Asked(name) => return write!(f, "approval (asked by `{}`)", shortened(name)),
            Self::Guard(name) => return write!(f, "deny ({GUARD_DENIED} by `{}`)", shortened(name)),
        };
        if reason.is_empty() { f.write_str(word) } else { write!(f, "{word} ({reason})") }
    }
}
