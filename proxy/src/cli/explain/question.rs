//! What was decided on, read back from its record, and asked again: by the very decisions that mints and requests get.

use std::fmt;
use std::sync::Arc;

use caracal_policies::{EdgeFacts, Guarding, McpCall, Path, Presented, Refused, Resource, UseRequest, Zone};
use serde_json::Value;

use crate::authority::exchange::{LIFECYCLE, Mint, Unminted};
use crate::ledger::Record;

/// What a decision is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A mandate was asked for.
    Mint,
    /// A request came with a mandate.
    Use,
}

/// The recorded input of a decision about one resource.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) kind: Kind,
    pub(super) application: String,
    /// Empty where an identity token was all that was shown.
    pub(super) resource: String,
    pub(super) labels: Vec<Arc<str>>,
    /// Asked for at a mint, carried at a use.
    pub(super) scopes: Vec<String>,
    pub(super) session: Option<String>,
    pub(super) delegation: Option<String>,
    pub(super) delegation_scopes: Vec<Arc<str>>,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) target: Vec<String>,
    /// What the message did, at an MCP server.
    pub(super) call: Option<McpCall>,
    pub(super) approved: bool,
    /// The guard that refused, and what its condition came to.
    pub(super) guard: Option<(String, String)>,
}

/// What the policy answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Yes, by this rule.
    Allow(String),
    /// Yes, once a person approves.
    Approval,
    /// No, with this code.
    Deny(String),
}

impl Answer {
    /// Whether that is the same to the caller; the rule may have another name.
    pub(super) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Allow(_), Self::Allow(_)) | (Self::Approval, Self::Approval) => true,
            (Self::Deny(one), Self::Deny(two)) => one == two,
            (Self::Allow(_) | Self::Approval | Self::Deny(_), _) => false,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow(rule) => write!(f, "allow ({rule})"),
            Self::Approval => f.write_str("approval"),
            Self::Deny(code) => write!(f, "deny ({code})"),
        }
    }
}

impl Question {
    /// The input in a record, about each resource of it; nothing when the record is of no decision.
    pub(super) fn all(record: &Record) -> Vec<Self> {
        let kind = match record.event_type.as_str() {
            "token_exchange" | "step_up_issued" => Kind::Mint,
            "gateway_decision" | "replay_detected" => Kind::Use,
            _ => return Vec::new(),
        };
        let word = |name: &str| record.metadata.get(name).and_then(Value::as_str).map(str::to_owned);
        let words = |name: &str| {
            let list = record.metadata.get(name).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
        };
        let shared = |name: &str| words(name).iter().map(|word| Arc::from(word.as_str())).collect();
        let one = Self {
            kind,
            application: word("application_id").unwrap_or_default(),
            resource: word("resource").unwrap_or_default(),
            labels: shared("agent_labels"),
            scopes: words(if kind == Kind::Mint { "requested_scopes" } else { "scopes" }),
            session: word("agent_session_id"),
            delegation: word("delegation_edge_id"),
            delegation_scopes: shared("delegation_scopes"),
            method: word("method").unwrap_or_default(),
            path: word("path").unwrap_or_default(),
            target: words("target"),
            call: word("mcp_tool")
                .map(|tool| McpCall::Tool(tool.into()))
                .or_else(|| word("mcp_method").map(|method| McpCall::Method(method.into()))),
            guard: record.metadata.get("guard").and_then(|guard| {
                let word = |name: &str| guard.get(name).and_then(Value::as_str).map(str::to_owned);
                word("name").zip(word("outcome"))
            }),
            approved: record.metadata.get("approved") == Some(&Value::Bool(true))
                || (record.decision == "allow" && record.metadata.contains_key("challenge_id")),
        };
        let resources = words("resources");
        // A refusal names the one resource it is about.
        if record.decision == "deny" || resources.is_empty() {
            return vec![one];
        }
        resources.into_iter().map(|resource| Self { resource, ..one.clone() }).collect()
    }

    /// Whether it asks for a mandate that only manages sessions.
    pub(super) fn is_lifecycle(&self) -> bool {
        let only = self.scopes.iter().all(|scope| scope == LIFECYCLE) && !self.scopes.is_empty();
        self.kind == Kind::Mint && only && self.delegation.is_none() && self.session.is_none()
    }

    /// What `zone` answers.
    pub(super) fn ask(&self, zone: &Zone) -> Answer {
        let denied = |code: &str| Answer::Deny(code.to_owned());
        if zone.application(&self.application).is_none() {
            return denied("application_not_found");
        }
        let (rule, gated) = match self.kind {
            Kind::Mint => match self.mint(zone) {
                Ok(answer) => answer,
                Err(code) => return denied(code),
            },
            Kind::Use => match self.send(zone) {
                Ok(answer) => answer,
                Err(code) => return denied(code),
            },
        };
        if gated && !self.approved { Answer::Approval } else { Answer::Allow(rule) }
    }

    /// What the message did, on a resource with MCP rules. One without a method answers the server.
    pub(super) fn called(&self, resource: &Resource) -> Option<McpCall> {
        let posted = resource.mcp.is_some() && self.method == "POST";
        posted.then(|| self.call.clone().unwrap_or(McpCall::Response))
    }

    fn edge(&self) -> Option<EdgeFacts<'_>> {
        self.delegation.as_deref().map(|id| EdgeFacts { id, scopes: &self.delegation_scopes })
    }

    fn mint(&self, zone: &Zone) -> Result<(String, bool), &'static str> {
        let requested: Vec<&str> = self.scopes.iter().map(String::as_str).collect();
        let edge = self.edge();
        // As at a mint, what the delegation carries comes first.
        if edge.is_some_and(|edge| {
            requested.iter().any(|scope| !edge.scopes.iter().any(|held| **held == **scope))
        }) {
            return Err("delegation_scope_exceeded");
        }
        let mint = Mint {
            zone,
            application: &self.application,
            labels: &self.labels,
            session: self.session.as_deref(),
            edge,
            lineage: &[],
            requested: &requested,
        };
        match mint.decide(&self.resource) {
            Ok((_, allowed)) => Ok((allowed.rule.to_string(), !allowed.gate.is_empty())),
            Err(Unminted::Denied(code)) => Err(code),
            Err(Unminted::Failed) => Err("policy_eval_failed"),
        }
    }

    fn send(&self, zone: &Zone) -> Result<(String, bool), &'static str> {
        let granted = zone.granted_somewhere(&self.application, &self.resource);
        let resource = zone.resource(&self.resource).filter(|_| granted).ok_or("resource_not_granted")?;
        let path = Path::parse(&self.path).map_err(|_problem| "path_malformed")?;
        let call = self.called(resource);
        let request = UseRequest {
            application: &self.application,
            labels: &self.labels,
            edge: self.edge(),
            agent_session_id: self.session.as_deref(),
            presented: Presented {
                delegation_edge_id: self.delegation.as_deref(),
                scope: &self.scopes.join(" "),
                target: &self.target,
            },
            method: &self.method,
            path: &path,
            target: path.raw(),
            call: call.as_ref(),
            approved: self.approved,
            guards: Guarding::Elsewhere,
        };
        match zone.authorize(resource, &request) {
            Ok(permit) => Ok((permit.rule().to_string(), false)),
            Err(Refused::OperationNotPermitted { .. }) => Err("operation_not_permitted"),
            Err(Refused::Denied(reason)) => Err(reason.code()),
            Err(Refused::ApprovalRequired) => Ok((String::new(), true)),
            Err(Refused::Guarded(_)) => Err("guard_denied"),
            Err(Refused::Failed(_)) => Err("policy_eval_failed"),
        }
    }
}
