//! The two ledger records of a governed call: the decision, and what came of it.

use std::net::SocketAddr;
use std::sync::Arc;

use caracal_mandates::Claims;
use caracal_plugins::Facts;
use caracal_policies::{McpCall, Permit, ProviderKind, Resource};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::slot::{Cut, Slot};
use crate::budgets::{Limited, Spending};
use crate::gate::concurrency::Place;
use crate::gate::credential::Credential;
use crate::gate::head::Head;
use crate::gate::refusal::Refusal;
use crate::gate::route::Matched;
use crate::ledger::{Admission, Event, uses};
use crate::question::{POLICY, policy};
use crate::rehearsal::Waiting;
use crate::secrets::SecretsTable;
use crate::state::Hold;

/// A decided request whose result is still to be written.
#[derive(Debug)]
pub(super) struct Open {
    /// Holds the ledger's place for the result.
    pub admission: Admission,
    /// The ids that join result and decision.
    pub identity: Identity,
    /// What is known of the result so far.
    pub result: ResultSoFar,
    /// Places under the concurrency caps; freed with the record.
    pub places: Vec<Place>,
    /// What it took from budgets and has to be settled.
    pub spending: Option<Spending>,
    /// Keeps the slot findable for revocations.
    pub membership: super::live::Membership,
    /// Puts the decision to the candidate once the record is written.
    pub rehearsed: Option<Waiting>,
}

/// What decision and result have in common.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub zone: Arc<str>,
    pub resource: Arc<str>,
    pub application: Arc<str>,
    pub request_id: String,
    pub client_request_id: Option<String>,
    pub decision_id: String,
    pub fingerprint: String,
    pub method: String,
    /// What it does at an MCP server.
    pub call: Option<McpCall>,
    pub user: bool,
    pub started_at: i64,
}

/// Facts that the result record collects on the way.
#[derive(Clone, Debug, Default)]
pub(super) struct ResultSoFar {
    pub upstream: Option<String>,
    pub auth_mode: Option<&'static str>,
    pub provider: Option<Arc<str>>,
    pub credential_fingerprint: Option<String>,
    /// The connection it belongs to, where somebody agreed to it.
    pub connection: Option<Arc<str>>,
    /// The values of secrets that are used, `name/key` to fingerprint.
    pub secrets: Map<String, Value>,
    pub secrets_generation: u64,
    /// The version of the secrets file that a fetched token was fetched with; it may be kept over a reload.
    pub token_secrets_generation: Option<u64>,
    pub upstream_status: Option<u16>,
    pub head_at: Option<i64>,
    pub response_bytes: u64,
    pub request_bytes: u64,
    pub status: u16,
    pub error_kind: Option<&'static str>,
    /// Which of the upstream's addresses it went to, where it has several.
    pub upstream_address: Option<SocketAddr>,
    /// Places in head and body where the upstream had repeated a secret.
    pub scrubbed: u64,
    pub cut: Option<Cut>,
    /// The approval that the same request had used up; what came of it then was the answer.
    pub replayed: Option<Arc<str>>,
}

/// First 16 hex digits of the token's digest: names a mandate without carrying it.
#[must_use]
pub(super) fn fingerprint(digest: &[u8; 32]) -> String {
    hex::encode(digest.get(..8).unwrap_or_default())
}

/// Everything a decision was made on, with nothing secret in it, so that it can be made again later.
pub(super) struct DecisionInput<'a> {
    pub matched: &'a Matched<'a>,
    pub claims: &'a Claims,
    pub head: &'a Head<'a>,
    pub path: &'a str,
    pub labels: Vec<Arc<str>>,
    pub edge_scopes: Vec<Arc<str>>,
    /// Whether the mandate was minted after an approval.
    pub approved: bool,
    pub facts: Value,
    /// The budget that had not enough left.
    pub limited: Option<Box<Limited>>,
    /// What the policy answered, once it was asked; what is refused before or after that has reasons of its own.
    pub answer: Option<&'static str>,
    /// The guards that fired.
    pub guards: Map<String, Value>,
    /// What it has to do with an approval of the very request.
    pub held: Option<Held>,
    pub generation: u64,
}

/// An approval of the very request that is decided.
pub(super) struct Held {
    pub hold: Arc<Hold>,
    /// It was used by the same request a moment ago.
    pub again: bool,
}

/// Which values of secrets a call uses: what it sends, gets its token with, or proves the edge with.
pub(super) fn secrets(resource: &Resource, table: &SecretsTable) -> Map<String, Value> {
    let keys = resource.tls.client.iter().map(|client| &client.key);
    let references = resource.provider.iter().flat_map(|provider| provider.secrets()).chain(keys);
    let used = references.filter_map(|at| {
        let fingerprint = table.fingerprint(&at.name, &at.key)?;
        Some((format!("{}/{}", at.name, at.key), json!(fingerprint)))
    });
    used.collect()
}

/// The decision record.
pub(super) fn decision(
    identity: &Identity,
    input: &DecisionInput<'_>,
    rule: Option<String>,
    refusal: Option<&Refusal>,
    now: i64,
) -> Event {
    let claims = input.claims;
    let mut metadata = common(identity);
    metadata.insert("path".into(), json!(input.path));
    metadata.insert("peer".into(), json!(input.head.peer.to_string()));
    metadata.insert("host".into(), json!(input.matched.host().name));
    metadata.insert("jti".into(), json!(claims.jti));
    metadata.insert("session_id".into(), json!(claims.sid));
    metadata.insert("root_session_id".into(), json!(claims.root_sid));
    metadata.insert("scopes".into(), json!(claims.scopes().collect::<Vec<_>>()));
    metadata.insert("target".into(), json!(claims.target));
    metadata.insert("agent_labels".into(), json!(input.labels));
    metadata.insert("delegation_scopes".into(), json!(input.edge_scopes));
    if input.approved {
        metadata.insert("approved".into(), json!(true));
    }
    metadata.insert("bundle".into(), json!(input.matched.zone().zone.digest().to_string()));
    metadata.insert("generation".into(), json!(input.generation));
    let optional =
        [("agent_session_id", &claims.agent_session_id), ("delegation_edge_id", &claims.delegation_edge_id)];
    for (name, value) in optional {
        if let Some(value) = value {
            metadata.insert(name.into(), json!(value));
        }
    }
    if !claims.delegation_path.is_empty() {
        metadata.insert("delegation_path".into(), json!(claims.delegation_path));
    }
    if input.facts.as_object().is_some_and(|facts| !facts.is_empty()) {
        metadata.insert("facts".into(), input.facts.clone());
    }
    if let Some(limited) = &input.limited {
        metadata.insert("budget".into(), json!(limited.budget.name));
        metadata.insert("budget_used".into(), json!(limited.budget.most().saturating_sub(limited.remaining)));
        metadata.insert("budget_limit".into(), json!(limited.budget.most()));
        if let Some(seconds) = limited.reset_s {
            metadata.insert("budget_reset_seconds".into(), json!(seconds));
        }
    }
    if let Some(answer) = input.answer {
        metadata.insert(POLICY.into(), policy(answer));
    }
    if identity.call == Some(McpCall::Response) {
        metadata.insert("mcp_response".into(), json!(true));
    }
    metadata.extend(input.guards.clone());
    if let Some(held) = &input.held {
        metadata.insert("approval_id".into(), json!(held.hold.id));
        metadata.insert("approval_binding".into(), json!(held.hold.binding));
        if held.again {
            metadata.insert("replayed".into(), json!(true));
        }
    }
    let (event_type, status) = match refusal {
        Some(Refusal::Replayed) => ("replay_detected", "anomaly"),
        Some(refusal) => ("gateway_decision", refusal.label()),
        None => ("gateway_decision", "complete"),
    };
    Event {
        id: identity.decision_id.clone(),
        zone_id: identity.zone.to_string(),
        event_type,
        request_id: identity.request_id.clone(),
        decision: if refusal.is_some() { "deny" } else { "allow" },
        evaluation_status: status.to_owned(),
        determining_policies: rule.into_iter().collect(),
        diagnostics: refusal.map_or_else(
            || json!([]),
            |refusal| json!([{ "reason": refusal.reason().unwrap_or_else(|| refusal.label()) }]),
        ),
        metadata,
        occurred_at: now,
    }
}

/// What goes upstream: for the result record, and for whoever ends the connection that it belongs to.
pub(super) fn credential(slot: &Slot, credential: &Credential) {
    let connection = credential.held.as_ref().and_then(|held| held.connection.as_ref());
    if let Some(connection) = connection {
        slot.act_with(connection);
    }
    slot.note(|open| {
        open.result.credential_fingerprint.clone_from(&credential.fingerprint);
        open.result.connection = connection.map(|connection| Arc::clone(&connection.id));
        open.result.token_secrets_generation =
            credential.held.as_ref().map(|held| held.token.secrets_generation);
    });
}

/// The result record.
pub(super) fn result(identity: &Identity, result: &ResultSoFar, now: i64) -> Event {
    let mut metadata = common(identity);
    let answered = result.head_at.unwrap_or(now);
    metadata.insert("decision_id".into(), json!(identity.decision_id));
    metadata.insert("gateway_status".into(), json!(result.status));
    metadata.insert("latency_ms".into(), json!(answered.saturating_sub(identity.started_at)));
    metadata.insert("response_bytes".into(), json!(result.response_bytes));
    metadata.insert("request_bytes".into(), json!(result.request_bytes));
    metadata.insert("secrets_generation".into(), json!(result.secrets_generation));
    if !result.secrets.is_empty() {
        metadata.insert(uses::MEMBER.into(), Value::Object(result.secrets.clone()));
    }
    if let Some(generation) = result.token_secrets_generation {
        metadata.insert("token_secrets_generation".into(), json!(generation));
    }
    if let Some(status) = result.upstream_status {
        metadata.insert("upstream_status".into(), json!(status));
        metadata.insert("result_class".into(), json!(class(status)));
    }
    if let Some(address) = result.upstream_address {
        metadata.insert("upstream_address".into(), json!(address.to_string()));
    }
    if result.scrubbed > 0 {
        metadata.insert("scrubbed".into(), json!(result.scrubbed));
    }
    let texts = [
        ("upstream_host", result.upstream.as_deref()),
        ("auth_mode", result.auth_mode),
        ("provider_id", result.provider.as_deref()),
        ("credential_fingerprint", result.credential_fingerprint.as_deref()),
        ("connection_id", result.connection.as_deref()),
        ("replayed", result.replayed.as_deref()),
        ("error_kind", result.error_kind),
        ("cut", result.cut.map(Cut::word)),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            metadata.insert(name.into(), json!(value));
        }
    }
    if result.cut == Some(Cut::Revoked) {
        metadata.insert("revocation_interrupted".into(), json!(true));
    }
    Event {
        id: Uuid::now_v7().to_string(),
        zone_id: identity.zone.to_string(),
        event_type: "gateway_resource_request",
        request_id: identity.request_id.clone(),
        decision: "allow",
        evaluation_status: evaluation(result).to_owned(),
        determining_policies: Vec::new(),
        diagnostics: json!([]),
        metadata,
        occurred_at: now,
    }
}

fn evaluation(result: &ResultSoFar) -> &'static str {
    match (result.cut, result.error_kind) {
        (None, None) if result.replayed.is_some() => "replayed",
        (Some(_), _) => "interrupted",
        (None, Some("upstream_not_addressable" | "provider_host_not_allowed")) => "upstream_rejected",
        (None, Some("request_build_failed" | "approval_unusable")) => "build_failed",
        (None, Some(_)) => "upstream_error",
        (None, None) => "executed",
    }
}

fn common(identity: &Identity) -> Map<String, Value> {
    let mut metadata = Map::new();
    metadata.insert("application_id".into(), json!(identity.application));
    metadata.insert("resource".into(), json!(identity.resource));
    metadata.insert("subject_fingerprint".into(), json!(identity.fingerprint));
    metadata.insert("subject_kind".into(), json!(if identity.user { "user" } else { "application" }));
    metadata.insert("method".into(), json!(identity.method));
    let call = identity.call.as_ref();
    for (name, value) in
        [("mcp_method", call.and_then(McpCall::method)), ("mcp_tool", call.and_then(McpCall::tool))]
    {
        if let Some(value) = value {
            metadata.insert(name.into(), json!(value));
        }
    }
    if let Some(id) = &identity.client_request_id {
        metadata.insert("client_request_id".into(), json!(id));
    }
    metadata
}

/// The class of an HTTP status, as the result record names it.
#[must_use]
pub(super) const fn class(status: u16) -> &'static str {
    match status {
        // A protocol that was changed at the caller's wish is what was asked for.
        101 | 200..=299 => "success",
        300..=399 => "redirect",
        400..=499 => "client_error",
        _ => "server_error",
    }
}

/// How a resource's provider authenticates upstream, as the result record names it.
#[must_use]
pub(super) fn auth_mode(resource: &Resource) -> &'static str {
    match resource.provider.as_ref().map(|provider| &provider.kind) {
        None | Some(ProviderKind::CaracalMandate) => "caracal_jwt",
        Some(ProviderKind::None) => "none",
        Some(ProviderKind::ApiKeyHeader { .. } | ProviderKind::ApiKeyQuery { .. }) => "provider_apikey",
        Some(
            ProviderKind::BearerToken { .. } | ProviderKind::HttpBasic { .. } | ProviderKind::ServiceToken(_),
        ) => "provider_oauth",
    }
}

/// What the policy answered; nothing where a plugin came first.
pub(super) fn policy_answer(result: &Result<Permit, Refusal>) -> Option<&'static str> {
    match result {
        // Guards come after the policy, and judge what the record does not hold.
        Ok(_) | Err(Refusal::Guard(_) | Refusal::Exact(_)) => Some("allow"),
        Err(Refusal::ApprovalRequired) => Some("approval"),
        Err(Refusal::PluginRefused(_) | Refusal::PluginFault) => None,
        Err(refusal) => Some(refusal.reason().unwrap_or_else(|| refusal.label())),
    }
}

pub(super) fn facts(facts: &Facts) -> Value {
    let members = facts.iter().map(|(name, value)| (name.to_owned(), Value::from(value)));
    Value::Object(members.collect::<Map<_, _>>())
}
