//! The rules that a decision went through, in their order, each with what it was compared with.
//!
//! Which one decided is the decision's own word; nothing here decides anything.

use caracal_policies::{Enforcement, Grounds, Path, Place, RulePlaces, Tiered, Zone};

use super::{Kind, Question, Short};

/// One rule on the way.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) rule: &'static str,
    pub(crate) holds: bool,
    pub(crate) compared: String,
    pub(crate) place: Option<Place>,
}

const STANDING: &str = "standing";
const DELEGATION: &str = "delegation";
const OWNERSHIP: &str = "ownership";
const PLUGINS: &str = "plugins";
const SCOPES: &str = "declared scopes";
const REACH: &str = "reach of the delegation";
const OPERATION: &str = "operation";
const FREEZE: &str = "freeze";
const SHAPE: &str = "shape";
const TARGET: &str = "target";
const CONFINEMENT: &str = "confinement";
const ROLE: &str = "role";
const TIERS: &str = "tiers";
const GUARDS: &str = "guards";
const BUDGETS: &str = "budgets";
const ISSUING: &str = "issuing";

/// Mints and uses ask the same rules in another order.
const MINT: [&str; 8] = [STANDING, DELEGATION, OWNERSHIP, SCOPES, FREEZE, CONFINEMENT, ROLE, TIERS];
const SESSIONS: [&str; 4] = [STANDING, OWNERSHIP, SCOPES, FREEZE];
const USE: [&str; 8] = [STANDING, OWNERSHIP, OPERATION, FREEZE, TARGET, ROLE, CONFINEMENT, TIERS];

/// The rule that a reason is of, and the one it comes right behind where it is not always asked.
fn rule_of(reason: &str, restricted: bool) -> (&'static str, Option<&'static str>) {
    match reason {
        "resource_not_granted" | "no_active_policy_set" => (OWNERSHIP, None),
        "plugin_refused" | "plugin_fault" => (PLUGINS, Some(OWNERSHIP)),
        "guard_denied"
        | "guard_unanswered"
        | "request_held"
        | "request_rejected"
        | "approval_mismatch"
        | "request_consumed"
        | "request_approver_conflict"
        | "request_approval_limit"
        | "approval_unavailable" => (GUARDS, Some(TIERS)),
        "budget_exhausted" | "rate_limited" | "budgets_full" | "budgets_unavailable" => {
            (BUDGETS, Some(TIERS))
        }
        "scope_mismatch" => (SCOPES, None),
        "resource_outside_delegation" => (REACH, Some(SCOPES)),
        "operation_not_permitted" => (OPERATION, None),
        "restriction_active" if restricted => (FREEZE, None),
        "no_rule_matched" => (SHAPE, Some(FREEZE)),
        "mandate_target_mismatch" => (TARGET, None),
        "delegation_scope_exceeded" => (DELEGATION, None),
        "confinement_violation" => (CONFINEMENT, None),
        "role_scope_mismatch" => (ROLE, None),
        "approval_pending"
        | "approval_required"
        | "policy_eval_failed"
        | "malformed_risk_data"
        | "malformed_approval_data" => (TIERS, None),
        "approval_invalid"
        | "approval_rejected"
        | "approval_consumed"
        | "approver_conflict"
        | "approval_limit_exceeded"
        | "reusable_mandate_not_allowed"
        | "delegation_ttl_exceeded"
        | "delegation_expired" => (ISSUING, Some(TIERS)),
        _ => (STANDING, None),
    }
}

/// Whether a policy may have given this reason, of whatever zone.
pub(super) fn may_be_of_policy(reason: &str) -> bool {
    // What a delegation carries is looked at before, and so is a freeze by an operator, which has the policy's words.
    ![STANDING, DELEGATION, FREEZE, PLUGINS, ISSUING].contains(&rule_of(reason, true).0)
}

/// Whether the policy itself gave this reason, so that another version of it may answer differently.
pub(crate) fn is_of_policy(reason: &str, zone: &Zone, question: &Question) -> bool {
    let restricted = !restrict(zone, question).is_empty();
    ![STANDING, PLUGINS, REACH, ISSUING, GUARDS, BUDGETS].contains(&rule_of(reason, restricted).0)
}

fn restrict(zone: &Zone, question: &Question) -> Vec<std::sync::Arc<str>> {
    grounds(zone, question).restrict
}

pub(crate) fn grounds(zone: &Zone, question: &Question) -> Grounds {
    let scopes: Vec<&str> = question.scopes.iter().map(String::as_str).collect();
    let resource = zone.resource(&question.resource).map_or(&*question.resource, |one| &*one.identifier);
    zone.grounds(&question.application, resource, &question.labels, &scopes)
}

/// The way to the rule that decided, or through all of them when `reason` is none.
pub(crate) fn path(
    question: &Question,
    reason: Option<&str>,
    zone: &Zone,
    places: Option<&RulePlaces>,
) -> Vec<Step> {
    let asked = Asked { question, zone, grounds: grounds(zone, question), places };
    let decisive = reason.map(|reason| rule_of(reason, !asked.grounds.restrict.is_empty()));
    let mut rules = match question.kind {
        _ if question.resource.is_empty() => vec![STANDING],
        Kind::Mint if question.is_lifecycle() => SESSIONS.to_vec(),
        Kind::Mint => MINT.to_vec(),
        Kind::Use => USE.to_vec(),
    };
    if question.kind == Kind::Mint && question.delegation.is_none() {
        rules.retain(|rule| *rule != DELEGATION);
    }
    if let Some((rule, behind)) = decisive {
        let at = rules.iter().position(|known| *known == rule || Some(*known) == behind);
        rules.truncate(at.map_or(rules.len(), |at| at.saturating_add(1)));
        if rules.last() != Some(&rule) {
            rules.push(rule);
        }
    }
    let step = |rule: &'static str| {
        let failed = decisive.is_some_and(|(decided, _)| decided == rule);
        let reason = reason.filter(|_| failed);
        let (compared, place) = asked.compared(rule, reason);
        Step { rule, holds: !failed, compared, place: place.cloned() }
    };
    rules.into_iter().map(step).collect()
}

struct Asked<'a> {
    question: &'a Question,
    zone: &'a Zone,
    grounds: Grounds,
    places: Option<&'a RulePlaces>,
}

impl<'a> Asked<'a> {
    /// What a rule looked at, and where it stands. `reason` is there for the rule that decided.
    fn compared(&self, rule: &str, reason: Option<&str>) -> (String, Option<&'a Place>) {
        let (question, grounds, places) = (self.question, &self.grounds, self.places);
        let (resource, scopes) = (&question.resource, named(&question.scopes));
        match rule {
            STANDING => (standing(reason, question.kind), None),
            DELEGATION => (self.delegation(), None),
            OWNERSHIP => {
                let owner = match (&grounds.owner, self.zone.resource(resource)) {
                    (_, None) => "the bundle has no such resource".to_owned(),
                    (None, Some(_)) => "it is granted to no application".to_owned(),
                    (Some(owner), Some(_)) => format!("it is granted to {owner}"),
                };
                let place = places.and_then(|all| all.grant(resource).or_else(|| all.resource(resource)));
                (format!("{} asked about {resource}; {owner}", question.application), place)
            }
            SCOPES => {
                let declared = self.zone.resource(resource).map(|one| named(&one.scopes)).unwrap_or_default();
                let place = places.and_then(|all| all.resource(resource));
                (format!("asked for {scopes}; {resource} declares {declared}"), place)
            }
            OPERATION => self.operation(),
            FREEZE if grounds.restrict.is_empty() => ("the bundle does not stop the zone".to_owned(), None),
            FREEZE => {
                let place = places.and_then(RulePlaces::restrict);
                (format!("`restrict` stops the zone: {}", named(&grounds.restrict)), place)
            }
            TARGET => (format!("the mandate is for {}", named(&question.target)), None),
            CONFINEMENT => self.confinement(),
            ROLE => self.role(),
            TIERS => self.tiers(),
            SHAPE => {
                ("the request is neither a mint through a delegation nor the use of one".to_owned(), None)
            }
            GUARDS => self.guard(),
            BUDGETS => (self.budget(reason), None),
            // What a plugin or the issuing looked at is not in the record.
            _ => (format!("ended with {}", reason.unwrap_or("nothing")), None),
        }
    }

    fn delegation(&self) -> String {
        let held = match self.question.delegation_scopes.as_slice() {
            [] => "the record does not say what the delegation carries".to_owned(),
            held => format!("the delegation carries {}", named(held)),
        };
        format!("asked for {}; {held}", named(&self.question.scopes))
    }

    fn operation(&self) -> (String, Option<&'a Place>) {
        let Question { method, path, resource, .. } = self.question;
        let Some(found) = self.zone.resource(resource) else { return ("no resource".to_owned(), None) };
        if let (Some(mcp), Some(call)) = (&found.mcp, self.question.called(found)) {
            let message = match (call.tool(), call.method()) {
                (Some(tool), _) => format!("a call of the tool `{}`", tool),
                (None, Some(method)) => format!("the MCP method `{}`", method),
                (None, None) => "an answer to the server".to_owned(),
            };
            let place = self.places.and_then(|all| all.resource(resource));
            return match mcp.scope_of(&call) {
                Some(scope) => {
                    (format!("{message} needs {scope}; carried {}", named(&self.question.scopes)), place)
                }
                None => (format!("{message} is not listed by {resource}"), place),
            };
        }
        if found.enforcement == Enforcement::TransportUniform {
            return ("the resource does not tell operations apart".to_owned(), None);
        }
        let parsed = Path::parse(path).ok();
        let Some(operation) = parsed.and_then(|path| found.operations.find(method, &path)) else {
            let place = self.places.and_then(|all| all.resource(resource));
            return (format!("{method} {path} is no operation of {resource}"), place);
        };
        let carried = named(&self.question.scopes);
        let compared =
            format!("{method} {path} is `{operation}`, which needs {}; carried {carried}", operation.scope);
        (compared, Some(&operation.place).filter(|_| self.places.is_some()))
    }

    /// The budget that had not enough left, as it stood then.
    fn budget(&self, reason: Option<&str>) -> String {
        let Some(Short { name, used, reset_s }) = &self.question.budget else {
            return format!("ended with {}", reason.unwrap_or("nothing"));
        };
        let known = self.zone.budgets().unwrap_or_default().iter().find(|budget| *budget.name == **name);
        let allows = known.map(|budget| format!(" ({budget})")).unwrap_or_default();
        let needs = known.map_or(1, |budget| budget.taken_before());
        let Some((used, limit)) = used else {
            return format!("`{name}`{allows} had not enough left for a call, which takes {needs}");
        };
        let back = match reset_s {
            Some(seconds) => format!("enough is back {seconds} s after the decision"),
            None => "it does not come back".to_owned(),
        };
        format!("`{name}`{allows} had {used} of {limit} used, and a call takes {needs}; {back}")
    }

    /// The guard that refused. What it looked at is not in the record.
    fn guard(&self) -> (String, Option<&'a Place>) {
        let Some((name, outcome)) = &self.question.guard else {
            return ("a guard refused, and the record does not say which".to_owned(), None);
        };
        let all = self.zone.resource(&self.question.resource).and_then(|found| found.guards.as_deref());
        let guard = all.and_then(|all| all.iter().find(|guard| *guard.name == **name));
        let when = guard.map_or(String::new(), |guard| format!(": {}", guard.when));
        let came = match outcome.as_str() {
            "held" => "held".to_owned(),
            why => format!("has no answer for this request ({why})"),
        };
        let asks = guard.and_then(|guard| guard.ask.as_ref());
        let asks = asks.map(|ask| format!(", and it asks for approval in tier `{}`", ask.tier.tier));
        let told = format!("the condition of `{name}` {came}{when}{}", asks.unwrap_or_default());
        (told, guard.map(|guard| &guard.place))
    }

    fn confinement(&self) -> (String, Option<&'a Place>) {
        let caps = &self.grounds.caps;
        if caps.is_empty() {
            return ("no label of the session is confined".to_owned(), None);
        }
        let told = caps.iter().map(|(prefix, scopes)| format!("labels from `{prefix}` to {}", named(scopes)));
        let told = told.collect::<Vec<_>>().join(", ");
        let breaks = |(_, left): &&(_, std::collections::BTreeSet<std::sync::Arc<str>>)| {
            self.question.scopes.iter().any(|scope| !left.contains(scope.as_str()))
        };
        let shown = caps.iter().find(breaks).or_else(|| caps.first());
        let place = shown.and_then(|(prefix, _)| self.places.and_then(|all| all.cap(prefix)));
        (format!("{}; confined are {told}", named(&self.question.scopes)), place)
    }

    fn role(&self) -> (String, Option<&'a Place>) {
        let Question { resource, labels, scopes, .. } = self.question;
        if labels.is_empty() {
            return ("the session has no label, and scopes are granted to labels".to_owned(), None);
        }
        let told = labels.iter().map(|label| {
            let role = self.grounds.roles.iter().find(|(known, _)| known == label);
            role.map_or_else(
                || format!("`{label}` is no role there"),
                |(_, held)| format!("`{label}` has {}", named(held)),
            )
        });
        let told = told.collect::<Vec<_>>().join(", ");
        let place = self.places.and_then(|all| {
            let first = self.grounds.roles.first();
            first.and_then(|(label, _)| all.role(resource, label)).or_else(|| all.grant(resource))
        });
        (format!("one label must have all of {}; {told}", named(scopes)), place)
    }

    fn tiers(&self) -> (String, Option<&'a Place>) {
        let Some(first) =
            self.grounds.tiers.iter().find(|one| one.gated).or_else(|| self.grounds.tiers.first())
        else {
            return ("no scope is in a risk tier".to_owned(), None);
        };
        let told = self.grounds.tiers.iter().map(|Tiered { scope, tier, gated }| {
            let asks = if *gated { "asks for an approval" } else { "asks for nothing" };
            format!("{scope} is in `{tier}`, which {asks}")
        });
        let told = told.collect::<Vec<_>>().join(", ");
        let approved = if self.question.approved { "; a person approved" } else { "" };
        (format!("{told}{approved}"), self.places.and_then(|all| all.risk(&first.scope)))
    }
}

/// What was looked at before the policy.
fn standing(reason: Option<&str>, kind: Kind) -> String {
    let Some(reason) = reason else {
        return match kind {
            Kind::Mint => "the application and the session it named were live",
            Kind::Use => "the mandate was fresh and everything behind it live",
        }
        .to_owned();
    };
    match reason {
        "replayed" => "the mandate had been used before, and it is good for one call",
        "epoch_gone" => "the mandate was minted before a restart",
        "revoked" => "something that the mandate stands on had been revoked",
        "application_revoked" => "the application had been revoked",
        "not_standing" => "the session, delegation or record behind the mandate had ended",
        "restriction_active" => "an operator had frozen the zone",
        "session_inactive" => "the session named was not live, or not the application's",
        "authority_record_inactive" => "the mandate named was not live, or not the application's",
        "delegation_inactive" => "the delegation named was not live, or not for this session",
        "delegation_lineage_broken" => "a delegation that this one was cut from had ended",
        "delegation_hops_exceeded" => "the delegation was handed on further than it allows",
        "delegation_without_session" => "a delegation was named without the session that holds it",
        other => return format!("ended with {other} before the policy was asked"),
    }
    .to_owned()
}

/// Names in a row.
pub(crate) fn named<I>(names: I) -> String
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    let names: Vec<String> = names.into_iter().map(|name| name.as_ref().to_owned()).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(" ") }
}
