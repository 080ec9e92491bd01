//! A person's yes before a mandate is minted (spec 3.11): when one is asked for, and what a mint stands on then.
//!
//! A mint whose scopes are in a tier that asks is held. The same request later meets the same hold: while nobody has
//! answered it waits, after a yes it is minted once, after a no it is refused until the hold is over. What the yes is
//! for is fixed by the hold's binding; policy is asked again at the mint, so that a yes never overrides it.

mod plane;
mod refused;

use std::collections::BTreeSet;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use caracal_policies::{Approver, Privacy, Resource, TierDeclaration};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::exchange::{Asked, Held};
use super::refused::Refused;
use crate::app::App;
use crate::ledger::Event;
use crate::state::{AuthorityRecord, Hold, HoldState, RecordKind, Session, iso};

pub(super) use plane::{decide, read};
pub(super) use refused::Unapproved;

/// Version of the contract that decides, part of what a yes is for. Source: spec 3.8.
const CONTRACT: &str = "2026-07-12";
/// Milliseconds in which a caller that lost its answer gets a token for the same record again.
const AGAIN_MS: i64 = 120_000;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// What a mint stands on.
#[derive(Debug)]
pub(super) enum Grounds {
    /// Policy alone.
    Policy,
    /// A yes that is used up by this mint.
    Approved(Arc<Hold>),
    /// A yes that was used up a moment ago: a token for the record that was made then.
    Again(Arc<Hold>, Arc<AuthorityRecord>),
}

/// Finds out what a mint stands on that policy allows if `gate` is met.
///
/// # Errors
/// [`Unapproved::Held`] while nobody has answered, and why there will be no mint.
pub(super) async fn settle(
    asked: &Asked<'_>,
    held: &Held,
    resources: &[Arc<Resource>],
    mut gate: Vec<TierDeclaration>,
) -> Result<Grounds, Refused> {
    if gate.is_empty() {
        return Ok(Grounds::Policy);
    }
    gate.sort_unstable();
    gate.dedup();
    let fresh = new_hold(asked, held, resources, &gate)?;
    let Some(id) = &asked.form.approval_id else {
        let (hold, new) = asked.app.state.hold(fresh).await.map_err(|error| match error.code {
            "approval_limit_exceeded" => Unapproved::TooMany.into(),
            _ => Refused::Store,
        })?;
        return match hold.state(asked.now) {
            HoldState::Approved => Ok(Grounds::Approved(hold)),
            HoldState::Rejected => Err(Unapproved::Rejected.into()),
            HoldState::Pending => Err(Unapproved::Held { hold, new }.into()),
            // Between the look at the hold and this one; the next request gets a new one.
            HoldState::Expired | HoldState::Consumed => Err(Unapproved::Unknown.into()),
        };
    };
    let hold = asked.app.state.find_hold(id).filter(|hold| same(hold, &fresh));
    let hold = hold.ok_or(Unapproved::Unknown)?;
    match hold.state(asked.now) {
        HoldState::Approved => Ok(Grounds::Approved(hold)),
        HoldState::Rejected => Err(Unapproved::Rejected.into()),
        HoldState::Pending => Err(Unapproved::Held { hold, new: false }.into()),
        HoldState::Expired => Err(Unapproved::Unknown.into()),
        HoldState::Consumed => again(asked, hold),
    }
}

fn same(hold: &Hold, fresh: &Hold) -> bool {
    hold.zone == fresh.zone
        && hold.application == fresh.application
        && hold.record == fresh.record
        && hold.binding == fresh.binding
}

fn again(asked: &Asked<'_>, hold: Arc<Hold>) -> Result<Grounds, Refused> {
    let used = hold.used.as_ref().filter(|used| asked.now.saturating_sub(used.at) <= AGAIN_MS);
    let record = used.and_then(|used| asked.app.state.live_record(&hold.zone, &used.record, asked.now));
    record.map(|record| Grounds::Again(hold, record)).ok_or_else(|| Unapproved::Consumed.into())
}

fn new_hold(
    asked: &Asked<'_>,
    held: &Held,
    resources: &[Arc<Resource>],
    gate: &[TierDeclaration],
) -> Result<Hold, Refused> {
    let Asked { app, zone, application, form, now } = *asked;
    let session = held.session.as_deref();
    let record = form.session_id.as_deref().map(Arc::from);
    let record = record.or_else(|| session.map(|session| Arc::clone(&session.subject_record)));
    let subject = session.and_then(|session| person(app, session));
    let approver = approver(gate).ok_or(Unapproved::ApproverConflict)?;
    let scopes: BTreeSet<&str> = form.scopes.iter().map(|scope| scope.trim()).collect();
    let delegation = held.delegation.as_ref().map(|held| Arc::clone(&held.edge().id));
    let mut hold = Hold {
        id: Uuid::new_v4().to_string().into(),
        zone: Arc::clone(zone.zone.id()),
        application: Arc::clone(&application.id),
        record,
        session: session.map(|session| Arc::clone(&session.id)),
        delegation,
        labels: session.map(|session| session.labels.clone()).unwrap_or_default(),
        resources: resources.iter().map(|resource| Arc::clone(&resource.identifier)).collect(),
        scopes: scopes.into_iter().map(Arc::from).collect(),
        tier: tiers(gate),
        approver,
        privacy: gate.iter().map(TierDeclaration::privacy).max().unwrap_or(Privacy::Identified),
        self_approval: gate.iter().map(TierDeclaration::self_approval).max().unwrap_or_default(),
        subject,
        binding: "".into(),
        created_at: now,
        expires_at: now.saturating_add(patience(gate, approver)),
        decision: None,
        used: None,
        lapsed: None,
        exact: None,
    };
    hold.binding = binding(&hold, gate).into();
    Ok(hold)
}

/// The person a session acts for.
pub(crate) fn person(app: &App, session: &Session) -> Option<Arc<str>> {
    let of_person = session.subject_kind == RecordKind::User;
    let record = of_person.then(|| app.state.record(&session.zone, &session.subject_record)).flatten()?;
    Some(Arc::clone(&record.subject))
}

/// The tiers that ask, in one word.
pub(crate) fn tiers(gate: &[TierDeclaration]) -> String {
    let tiers: BTreeSet<&str> = gate.iter().map(|tier| &*tier.tier).collect();
    tiers.into_iter().collect::<Vec<_>>().join(",")
}

/// Who may answer where several tiers ask: whoever is named beats `any`; none where two are named.
pub(crate) fn approver(gate: &[TierDeclaration]) -> Option<Approver> {
    let named: BTreeSet<Approver> =
        gate.iter().map(TierDeclaration::approver).filter(|approver| *approver != Approver::Any).collect();
    let mut named = named.into_iter();
    match (named.next(), named.next()) {
        (Some(_), Some(_)) => None,
        (Some(only), None) => Some(only),
        (None, _) => Some(Approver::Any),
    }
}

/// Milliseconds an answer is waited for: the shortest of what the tiers say, within the bounds of who answers.
pub(crate) fn patience(gate: &[TierDeclaration], approver: Approver) -> i64 {
    let (usual, most) = match approver {
        Approver::Operator => (4 * HOUR_MS, 7 * DAY_MS),
        Approver::Subject | Approver::Any => (15 * MINUTE_MS, DAY_MS),
    };
    let seconds = gate.iter().filter_map(|tier| tier.ttl_seconds).min();
    let declared = seconds.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000));
    declared.unwrap_or(usual).clamp(MINUTE_MS, most)
}

/// SHA-256 in hex over everything the yes is for: labelled sections, separated by NUL. Source: spec 3.11. In the place
/// of the policy's version stand the declarations that ask, so that an unrelated change of policy loses no answer.
fn binding(hold: &Hold, gate: &[TierDeclaration]) -> String {
    let list = |items: &[Arc<str>], lower: bool| {
        let items: BTreeSet<String> = items
            .iter()
            .map(|item| if lower { item.trim().to_lowercase() } else { item.trim().to_owned() })
            .collect();
        items.into_iter().collect::<Vec<_>>().join("\n")
    };
    let declared = serde_json::to_string(gate).unwrap_or_default();
    let sections: [(&str, &str); 11] = [
        ("resources", &list(&hold.resources, true)),
        ("scopes", &list(&hold.scopes, false)),
        ("principal", &hold.application),
        ("authority_record", hold.record.as_deref().unwrap_or_default()),
        ("session", hold.session.as_deref().unwrap_or_default()),
        ("delegation", hold.delegation.as_deref().unwrap_or_default()),
        ("application", &hold.application),
        ("policy_set_version", &declared),
        ("policy_manifest", ""),
        ("decision_contract_version", CONTRACT),
        ("decision_contract_sha", ""),
    ];
    let text: Vec<String> = sections.iter().map(|(label, value)| format!("{label}\0{value}")).collect();
    hex::encode(digest(&SHA256, text.join("\0").as_bytes()))
}

/// What a held caller is told beside the error.
pub(super) fn told(hold: &Hold, now: i64) -> Map<String, Value> {
    let members = json!({
        "approval_id": hold.id,
        "approval_type": "human_approval",
        "state": hold.state(now).as_str(),
        "tier": hold.tier,
        "binding": hold.binding,
        "approval_expires_at": iso(hold.expires_at),
    });
    crate::state::object(members)
}

/// What the ledger says of a hold.
pub(crate) fn recorded(hold: &Hold) -> Map<String, Value> {
    let members = json!({
        "challenge_id": hold.id,
        "tier": hold.tier,
        "approver_class": hold.approver.word(),
        "privacy_mode": hold.privacy.word(),
        "self_approval": hold.self_approval.word(),
        "binding": hold.binding,
        "expires_at": iso(hold.expires_at),
        "subject_anchor": hold.subject,
        "application_id": hold.application,
        "session_id": hold.record,
        "agent_session_id": hold.session,
        "delegation_edge_id": hold.delegation,
        "agent_labels": hold.labels,
        "resources": hold.resources,
        "requested_scopes": hold.scopes,
    });
    let mut members = crate::state::object(members);
    if let Some(exact) = &hold.exact {
        members.extend(crate::state::object(json!({
            "approval_type": "exact_request",
            "decision_id": exact.decision,
            "guards": exact.guards,
            "method": exact.method,
            "path": exact.path,
            "mcp_tool": exact.tool,
            "body_bytes": exact.body_bytes,
            "body_sha256": exact.body_sha256,
        })));
    }
    members.into_iter().filter(|(_, value)| !value.is_null()).collect()
}

/// Writes down which holds nobody answered in time, each once.
pub(crate) async fn lapse(app: &App) {
    for hold in app.state.lapsed_holds() {
        lapse_one(app, &hold).await;
    }
}

/// Writes down that nobody answered this hold in time, if nobody else does.
pub(crate) async fn lapse_one(app: &App, hold: &Hold) {
    match app.state.lapse_hold(&hold.zone, &hold.id).await {
        Ok(lapsed) => write_down(app, &lapsed, "step_up_expired", "deny", json!({})),
        Err(error) if error.source.is_some() => {
            tracing::error!(approval = %hold.id, "that nobody answered could not be stored; it is tried again");
        }
        // Another node was first, or an answer was.
        Err(_) => {}
    }
}

/// Writes down what happened to a hold, beside the record of the request that made it happen.
pub(crate) fn write_down(app: &App, hold: &Hold, act: &'static str, decision: &'static str, more: Value) {
    let mut metadata = recorded(hold);
    metadata.extend(crate::state::object(more));
    let event = Event {
        id: Uuid::now_v7().to_string(),
        zone_id: hold.zone.to_string(),
        event_type: act,
        request_id: Uuid::new_v4().to_string(),
        decision,
        evaluation_status: "complete".to_owned(),
        determining_policies: Vec::new(),
        diagnostics: json!([]),
        metadata,
        occurred_at: app.clock.now(),
    };
    if let Err(error) = app.ledger.event(event) {
        tracing::error!(%error, approval = %hold.id, act, "an event of an approval could not be recorded");
    }
}

#[cfg(test)]
mod tests {
    use caracal_policies::SelfApproval;

    use super::*;

    fn tier(name: &str, approver: Option<Approver>, ttl_seconds: Option<u64>) -> TierDeclaration {
        TierDeclaration { tier: name.into(), approver, ttl_seconds, privacy: None, self_approval: None }
    }

    #[test]
    fn who_is_named_beats_anybody_and_two_of_them_contradict() {
        use Approver::{Any, Operator, Subject};
        for (asked, expected) in [
            (vec![None], Some(Operator)),
            (vec![Some(Any)], Some(Any)),
            (vec![Some(Any), Some(Subject)], Some(Subject)),
            (vec![Some(Any), None], Some(Operator)),
            (vec![Some(Operator), Some(Subject)], None),
        ] {
            let gate: Vec<_> = asked.iter().map(|approver| tier("t", *approver, None)).collect();
            assert_eq!(approver(&gate), expected, "{asked:?}");
        }
    }

    #[test]
    fn an_answer_is_waited_for_within_bounds() {
        let wait = |seconds: &[Option<u64>], approver| {
            let gate: Vec<_> = seconds.iter().map(|seconds| tier("t", None, *seconds)).collect();
            patience(&gate, approver) / 1_000
        };
        assert_eq!(wait(&[None], Approver::Operator), 4 * 3_600);
        assert_eq!(wait(&[None], Approver::Any), 900);
        assert_eq!(wait(&[Some(600), Some(300), None], Approver::Operator), 300, "the shortest");
        assert_eq!(wait(&[Some(1)], Approver::Operator), 60);
        assert_eq!(wait(&[Some(u64::MAX)], Approver::Operator), 7 * 86_400);
        assert_eq!(wait(&[Some(u64::MAX)], Approver::Subject), 86_400);
    }

    /// Sections written out by hand, so that a change of their order or form is seen.
    #[test]
    fn the_binding_is_over_every_section_in_its_order() {
        let hold = Hold {
            id: "i".into(),
            zone: "z".into(),
            application: "app".into(),
            record: Some("rec".into()),
            session: Some("ses".into()),
            delegation: None,
            labels: Vec::new(),
            resources: vec!["resource://B".into(), "resource://a".into(), " resource://A ".into()],
            scopes: vec!["w".into(), "r".into(), "w".into()],
            tier: "high".into(),
            approver: Approver::Operator,
            privacy: Privacy::Identified,
            self_approval: SelfApproval::Allowed,
            subject: None,
            binding: "".into(),
            created_at: 0,
            expires_at: 1,
            decision: None,
            used: None,
            lapsed: None,
            exact: None,
        };
        let gate = [tier("high", None, None)];
        let text = "resources\0resource://a\nresource://b\0scopes\0r\nw\0principal\0app\0authority_record\0rec\0\
                    session\0ses\0delegation\0\0application\0app\0policy_set_version\0[{\"tier\":\"high\"}]\0\
                    policy_manifest\0\0decision_contract_version\x002026-07-12\0decision_contract_sha\0";
        assert_eq!(binding(&hold, &gate), hex::encode(digest(&SHA256, text.as_bytes())));
        let other = [tier("high", Some(Approver::Any), None)];
        assert_ne!(binding(&hold, &gate), binding(&hold, &other), "who may answer is part of it");
        let mut other = gate.clone();
        other[0].self_approval = Some(SelfApproval::Forbidden);
        assert_ne!(binding(&hold, &gate), binding(&hold, &other), "and who may not");
    }
}
