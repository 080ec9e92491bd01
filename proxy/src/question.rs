//! What was decided on, read back from its record, and asked again: by the very decisions that mints and requests get.

mod recorded;
pub(crate) mod steps;

use std::fmt;
use std::sync::Arc;

use caracal_policies::{EdgeFacts, Guarding, McpCall, Path, Presented, Refused, Resource, UseRequest, Zone};
use serde_json::{Map, Value};

use crate::authority::exchange::{LIFECYCLE, Mint, Unminted};
use crate::ledger::{Event, Record};

pub(crate) use recorded::{Compared, POLICY, REACH, Recorded, policy, reach};

/// What a decision is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A mandate was asked for.
    Mint,
    /// A request came with a mandate.
    Use,
}

/// The recorded input of a decision about one resource.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) kind: Kind,
    pub(crate) application: String,
    /// Empty where an identity token was all that was shown.
    pub(crate) resource: String,
    pub(crate) labels: Vec<Arc<str>>,
    /// Asked for at a mint, carried at a use.
    pub(crate) scopes: Vec<String>,
    pub(crate) session: Option<String>,
    pub(crate) delegation: Option<String>,
    pub(crate) delegation_scopes: Vec<Arc<str>>,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) target: Vec<String>,
    /// What the message did, at an MCP server.
    pub(crate) call: Option<McpCall>,
    pub(crate) approved: bool,
    /// The guard that refused or asks, and what its condition came to.
    pub(crate) guard: Option<(String, String)>,
    /// The budget or rate that had not enough left.
    pub(crate) budget: Option<Short>,
}

/// How a budget stood when it refused.
#[derive(Clone, Debug)]
pub(crate) struct Short {
    pub(crate) name: String,
    /// What was used, and how much there is; not in records from before they said it.
    pub(crate) used: Option<(u64, u64)>,
    /// Seconds until it comes back; none when it does not.
    pub(crate) reset_s: Option<u64>,
}

/// What a record says, before or after it was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said<'a> {
    event_type: &'a str,
    decision: &'a str,
    diagnostics: &'a Value,
    metadata: &'a Map<String, Value>,
}

impl<'a> From<&'a Record> for Said<'a> {
    fn from(record: &'a Record) -> Self {
        let Record { event_type, decision, diagnostics, metadata, .. } = record;
        Self { event_type, decision, diagnostics, metadata }
    }
}

impl<'a> From<&'a Event> for Said<'a> {
    fn from(event: &'a Event) -> Self {
        let Event { event_type, decision, diagnostics, metadata, .. } = event;
        Self { event_type, decision, diagnostics, metadata }
    }
}

impl<'a> Said<'a> {
    fn word(self, name: &str) -> Option<&'a str> {
        self.metadata.get(name).and_then(Value::as_str)
    }

    fn words(self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let list = self.metadata.get(name).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str)
    }

    fn is(self, name: &str) -> bool {
        self.metadata.get(name) == Some(&Value::Bool(true))
    }
}

/// What the policy answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Yes, by this rule.
    Allow(String),
    /// Yes, once a person approves.
    Approval,
    /// No, with this code.
    Deny(String),
}

impl Answer {
    /// Whether that is the same to the caller; the rule may have another name.
    pub(crate) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Allow(_), Self::Allow(_)) | (Self::Approval, Self::Approval) => true,
            (Self::Deny(one), Self::Deny(two)) => one == two,
            (Self::Allow(_) | Self::Approval | Self::Deny(_), _) => false,
        }
    }

    /// One of three words.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Allow(_) => "allow",
            Self::Approval => "approval",
            Self::Deny(_) => "deny",
        }
    }

    /// Why not.
    pub(crate) fn code(&self) -> Option<&str> {
        if let Self::Deny(code) = self { Some(code) } else { None }
    }

    /// How much it lets through, to compare.
    pub(crate) const fn breadth(&self) -> u8 {
        match self {
            Self::Deny(_) => 0,
            Self::Approval => 1,
            Self::Allow(_) => 2,
        }
    }

    /// The word, and the reason of a refusal; not the rule, whose name says nothing about authority.
    pub(crate) fn reasoned(&self) -> String {
        match self {
            Self::Allow(_) | Self::Approval => self.word().to_owned(),
            Self::Deny(_) => self.to_string(),
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
    pub(crate) fn all(record: &Record) -> Vec<Self> {
        let said = Said::from(record);
        let Some(one) = Self::of(said) else { return Vec::new() };
        // A refusal names the one resource it is about.
        if said.decision == "deny" { vec![one] } else { one.about_each(said) }
    }

    /// The input in a record, about the resource that it names first.
    fn of(said: Said<'_>) -> Option<Self> {
        let kind = match said.event_type {
            // That of one request is beside its decision.
            "step_up_issued" if said.metadata.contains_key("decision_id") => return None,
            "token_exchange" | "step_up_issued" => Kind::Mint,
            "gateway_decision" | "replay_detected" => Kind::Use,
            _ => return None,
        };
        let word = |name: &str| said.word(name).map(str::to_owned);
        let shared = |name: &str| said.words(name).map(Arc::from).collect();
        let asked = if kind == Kind::Mint { "requested_scopes" } else { "scopes" };
        Some(Self {
            kind,
            application: word("application_id").unwrap_or_default(),
            resource: word("resource").unwrap_or_default(),
            labels: shared("agent_labels"),
            scopes: said.words(asked).map(str::to_owned).collect(),
            session: word("agent_session_id"),
            delegation: word("delegation_edge_id"),
            delegation_scopes: shared("delegation_scopes"),
            method: word("method").unwrap_or_default(),
            path: word("path").unwrap_or_default(),
            target: said.words("target").map(str::to_owned).collect(),
            call: word("mcp_tool")
                .map(|tool| McpCall::Tool(tool.into()))
                .or_else(|| word("mcp_method").map(|method| McpCall::Method(method.into())))
                .or_else(|| said.is("mcp_response").then_some(McpCall::Response)),
            guard: said
                .metadata
                .get("guard")
                .or_else(|| said.metadata.get("guards_that_ask")?.get(0))
                .and_then(|guard| {
                    let word = |name: &str| guard.get(name).and_then(Value::as_str).map(str::to_owned);
                    word("name").zip(word("outcome"))
                }),
            budget: said.word("budget").map(|name| {
                let number = |name: &str| said.metadata.get(name).and_then(Value::as_u64);
                Short {
                    name: name.to_owned(),
                    used: number("budget_used").zip(number("budget_limit")),
                    reset_s: number("budget_reset_seconds"),
                }
            }),
            approved: said.is("approved")
                || (said.decision == "allow" && said.metadata.contains_key("challenge_id")),
        })
    }

    /// The same about each resource that a mint named, in their order.
    fn about_each(self, said: Said<'_>) -> Vec<Self> {
        let each: Vec<Self> = said
            .words("resources")
            .map(|resource| Self { resource: resource.to_owned(), ..self.clone() })
            .collect();
        if each.is_empty() { vec![self] } else { each }
    }

    /// Whether it asks for a mandate that only manages sessions.
    pub(crate) fn is_lifecycle(&self) -> bool {
        let only = self.scopes.iter().all(|scope| scope == LIFECYCLE) && !self.scopes.is_empty();
        self.kind == Kind::Mint && only && self.delegation.is_none() && self.session.is_none()
    }

    /// What is asked for, without what differs from one request to the next: scopes, a tool, or an operation of `zone`.
    pub(crate) fn what(&self, zone: &Zone) -> String {
        if self.kind == Kind::Mint {
            return self.scopes.join(" ");
        }
        if let Some(call) = &self.call {
            return match (call.tool(), call.method()) {
                (Some(tool), _) => format!("tool {tool}"),
                (None, Some(method)) => format!("message {method}"),
                (None, None) => "answer to the server".to_owned(),
            };
        }
        let resource = zone.resource(&self.resource);
        let operation = resource.and_then(|resource| {
            resource.operations.find(&self.method, &Path::parse(&self.path).ok()?).map(ToString::to_string)
        });
        operation.unwrap_or_else(|| self.method.clone())
    }

    /// What `zone` answers.
    pub(crate) fn ask(&self, zone: &Zone) -> Answer {
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
    pub(crate) fn called(&self, resource: &Resource) -> Option<McpCall> {
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
