//! The ledger event of one token exchange.

use serde_json::{Map, Value, json};

use super::approvals::{self, Unapproved};
use super::exchange::{Asked, HeldDelegation, Issued, Trail, chain};
use super::federation;
use super::form::{Subject, UseCount};
use super::refused::Refused;
use super::token::Caller;
use crate::ledger::Event;
use crate::question::{POLICY, REACH, policy, reach};

/// What was asked, by whom, on what it was decided, and what came of it. Never a secret or a token.
pub(super) fn event(
    asked: &Asked<'_>,
    trail: &Trail,
    outcome: Result<&Issued, &Refused>,
    caller: &Caller,
    decision_id: &str,
) -> Event {
    let (decision, status, diagnostics) = match outcome {
        Ok(_) => ("allow", "complete", risks(trail)),
        Err(Refused::Unapproved(Unapproved::Held { .. })) => {
            ("pending", "complete", json!([{ "reason": "approval_pending" }]))
        }
        Err(refused) => ("deny", refused.status(), json!([{ "reason": refused.detail() }])),
    };
    let determining_policies = match outcome {
        Ok(_) if trail.issuer.is_some() => vec![federation::POLICY.to_owned()],
        Ok(_) => trail.allowed.iter().map(|allowed| allowed.rule.to_string()).collect(),
        Err(_) => Vec::new(),
    };
    let mut metadata = request(asked, trail, caller);
    let (event_type, hold) = match outcome {
        Err(Refused::Unapproved(Unapproved::Held { hold, new: true })) => ("step_up_issued", Some(hold)),
        Err(Refused::Unapproved(Unapproved::Held { hold, new: false })) => ("token_exchange", Some(hold)),
        Ok(_) | Err(_) => ("token_exchange", trail.approval.as_ref()),
    };
    metadata.extend(hold.map(|hold| approvals::recorded(hold)).unwrap_or_default());
    if let Ok(issued) = outcome {
        metadata.insert("mandate".into(), mandate(issued));
        if trail.issuer.is_some() {
            let claims = issued.mandate.claims();
            metadata.insert("session_id".into(), json!(claims.sid));
            metadata.insert("federated_user".into(), json!(claims.sub));
        }
    }
    Event {
        id: decision_id.to_owned(),
        zone_id: asked.zone.zone.id().to_string(),
        event_type,
        request_id: caller.id.own().to_owned(),
        decision,
        evaluation_status: status.to_owned(),
        determining_policies,
        diagnostics,
        metadata,
        occurred_at: asked.now,
    }
}

fn request(asked: &Asked<'_>, trail: &Trail, caller: &Caller) -> Map<String, Value> {
    let Asked { zone, application, form, .. } = *asked;
    let session = trail.held.session.as_deref();
    let all = json!({
        "application_id": application.id,
        "application_name": application.name,
        "application_registration_method": "managed",
        "resource": trail.resource.as_ref().or_else(|| form.resources.first()),
        "resources": form.resources,
        "requested_scopes": form.scopes,
        "requested_ttl_seconds": form.ttl,
        "session_id": form.session_id,
        "federated_user_issuer": trail.issuer,
        "agent_session_id": form.agent_session_id,
        "delegation_edge_id": form.delegation_edge_id,
        "subject_kind": match form.subject {
            Some(Subject::Federated(_)) => "user",
            Some(Subject::Mandate(_)) | None => "application",
        },
        "agent_lifecycle": session.map(|session| session.lifecycle.as_str()),
        "agent_labels": session.map(|session| &session.labels),
        "agent_depth": session.map(|session| session.depth),
        "agent_parent_id": session.and_then(|session| session.parent.as_ref()),
        "manifest_sha": zone.zone.digest().to_string(),
        "bundle_generation": zone.bundle_generation,
        "client_ip": caller.address.to_string(),
        "client_request_id": caller.id.client(),
    });
    let mut metadata = Map::new();
    if let Value::Object(all) = all {
        metadata.extend(all.into_iter().filter(|(_, value)| !value.is_null()));
    }
    if let Some(answer) = trail.answer {
        metadata.insert(POLICY.into(), policy(answer));
    }
    if form.use_count == UseCount::Reusable {
        metadata.insert("reusable".into(), json!(true));
    }
    if let Some(delegation) = &trail.held.delegation {
        delegated(&mut metadata, delegation);
    }
    metadata
}

fn delegated(metadata: &mut Map<String, Value>, delegation: &HeldDelegation) {
    metadata.insert("delegation_scopes".into(), json!(delegation.edge().scopes));
    metadata.insert("delegation_chain".into(), json!(chain(delegation)));
    metadata.insert("delegation_hop_count".into(), json!(delegation.lineage().len()));
    metadata.insert("delegation_graph_epoch".into(), json!(delegation.graph_epoch));
    if let Some(reach) = reach(delegation.lineage()) {
        metadata.insert(REACH.into(), reach);
    }
}

fn mandate(issued: &Issued) -> Value {
    let claims = issued.mandate.claims();
    json!({
        "use": claims.use_.as_str(),
        "jti": claims.jti,
        "sid": claims.sid,
        "root_sid": claims.root_sid,
        "expires_in": issued.expires_in,
        "reusable": claims.reusable,
    })
}

fn risks(trail: &Trail) -> Value {
    let risks: Vec<Value> = trail
        .allowed
        .iter()
        .flat_map(|allowed| &allowed.risk)
        .map(|(scope, tier)| json!({ "scope": scope, "tier": tier }))
        .collect();
    if risks.is_empty() { json!([]) } else { json!([{ "risk": risks }]) }
}
