//! [`CurrentMandate`] to [`Permit`]: the request plugins, then the one decision.
//!
//! A request that is still under way when the policy changes is decided again on the same input: [`again`].

use std::sync::Arc;

use caracal_mandates::SubjectType;
use caracal_plugins::{ChainStop, Facts};
use caracal_policies::{
    DenyReason, EdgeFacts, GuardFacts, Guarding, McpCall, Path, Permit, Presented, Refused, Resource,
    Stopped, UseRequest, Zone,
};
use http::HeaderMap;
use serde_json::Value;

use super::exact::ExactRefusal;
use super::guards::{self, GuardRefusal};
use super::head::Head;
use super::refusal::Refusal;
use super::route::Matched;
use super::slots;
use super::standing::CurrentMandate;

/// What the decision was made on and how it came out; all of it goes into the ledger.
#[derive(Debug)]
pub struct Outcome {
    /// The permit, or why there is none.
    pub result: Result<Permit, Refusal>,
    /// Scopes of the addressed operation that the mandate lacked; only for a resource granted to the caller.
    pub missing: Vec<Arc<str>>,
    /// Header fields after the request plugins; `None` when no plugin ran.
    pub headers: Option<HeaderMap>,
    /// Facts that plugins added.
    pub facts: Facts,
    /// Path and query as they were decided on.
    pub target: String,
    /// Guards that fired.
    pub guards: guards::Outcome,
}

/// What a decision sees of a body that was read, and when.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// What the message does, at an MCP server.
    pub call: Option<&'a McpCall>,
    /// The arguments of the tool that it calls.
    pub arguments: Option<&'a Value>,
    /// JSON that a guard looks at.
    pub body: Option<&'a Value>,
    /// Seconds since 1970.
    pub now_s: i64,
    /// Whether a person has said yes to this very request.
    pub answered: bool,
}

/// A permitted request as it was decided on, kept for as long as it is under way.
#[derive(Debug)]
pub struct Decided {
    /// Its zone.
    pub zone: Arc<str>,
    /// The resource's identifier.
    pub resource: Arc<str>,
    /// Who called, with the session and delegation that were live then.
    pub current: CurrentMandate,
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// What its message does, at an MCP server.
    pub call: Option<McpCall>,
}

impl Outcome {
    fn refused(refusal: Refusal) -> Self {
        let (missing, facts, target) = (Vec::new(), Facts::default(), String::new());
        let guards = guards::Outcome::default();
        Self { result: Err(refusal), missing, headers: None, facts, target, guards }
    }
}

/// Decides one request. Pure: the same input gives the same outcome.
#[must_use]
pub fn decide(
    matched: &Matched<'_>,
    current: &CurrentMandate,
    head: &Head<'_>,
    path: &Path<'_>,
    seen: &Seen<'_>,
) -> Outcome {
    let call = seen.call;
    let claims = current.claims();
    let zone = &matched.zone().zone;
    // A resource that does not exist, is another zone's or is not granted looks the same from outside.
    let granted = zone.granted_somewhere(&claims.client_id, matched.named());
    let Some(resource) = matched.resource().filter(|_| granted) else {
        return Outcome::refused(Refusal::Denied(DenyReason::ResourceNotGranted));
    };
    let mut headers = None;
    let mut facts = Facts::default();
    if let Some(chain) = matched.zone().chains.get(&resource.identifier).filter(|chain| !chain.is_empty()) {
        // Plugins never see a mandate.
        let mut changed = head.headers.clone();
        for slot in slots::stripped(resource) {
            changed.remove(slot);
        }
        facts.state("zone", &**zone.id());
        facts.state("application", claims.client_id.as_str());
        facts.state("resource", &*resource.identifier);
        if let Some(method) = call.and_then(McpCall::method) {
            facts.state("mcp_method", method);
        }
        if let Some(tool) = call.and_then(McpCall::tool) {
            facts.state("mcp_tool", tool);
        }
        if let Err(stop) = chain.on_request(head.method, path.raw(), &mut changed, &mut facts) {
            return Outcome { facts, ..Outcome::refused(stopped(stop)) };
        }
        headers = Some(changed);
    }
    let target = target(path.raw(), head.query());
    let asked = Asked { method: head.method, path, target: &target, call };
    // After the plugins: guards see what is forwarded.
    let sent = headers.as_ref().unwrap_or(head.headers);
    let outcome = guarded(zone, resource, current, &asked, &Shown { head, sent, seen });
    let mut guards = guards::Outcome::default();
    let (result, missing) = match outcome {
        Ok(permit) => {
            guards.shadowed = permit.shadowed().to_vec();
            guards.asked = permit.answered().to_vec();
            guards.answered = true;
            (Ok(permit), Vec::new())
        }
        Err(Refused::OperationNotPermitted { needs }) => {
            (Err(Refusal::OperationNotPermitted), needs.into_iter().collect())
        }
        Err(Refused::Denied(reason)) => (Err(Refusal::Denied(reason)), Vec::new()),
        Err(Refused::ApprovalRequired) => (Err(Refusal::ApprovalRequired), Vec::new()),
        Err(Refused::Guarded(stopped)) => {
            let (refusal, outcome) = by_guards(*stopped);
            guards = outcome;
            (Err(refusal), Vec::new())
        }
        Err(Refused::Failed(_)) => (Err(Refusal::PolicyFailed), Vec::new()),
    };
    Outcome { result, missing, headers, facts, target, guards }
}

fn by_guards(stopped: Stopped) -> (Refusal, guards::Outcome) {
    let nothing = guards::Outcome::default();
    match stopped {
        Stopped::Refused(refused, shadowed) => {
            let refusal =
                if refused.fault.is_none() { GuardRefusal::Denied } else { GuardRefusal::Unanswered };
            (refusal.into(), guards::Outcome { refused: Some(refused), shadowed, ..nothing })
        }
        Stopped::Asked(asked, shadowed) => {
            (ExactRefusal::Pending.into(), guards::Outcome { asked, shadowed, ..nothing })
        }
    }
}

/// What a request is answered that a plugin ended, before or after it went upstream.
#[must_use]
pub const fn stopped(stop: ChainStop) -> Refusal {
    match stop {
        ChainStop::Refused { code, .. } => Refusal::PluginRefused(code),
        ChainStop::Fault { .. } => Refusal::PluginFault,
    }
}

/// Whether the policy of `zone`, which has changed since, still permits a request that is under way. The request
/// plugins and the guards are not asked again: their part was what has long been sent.
#[must_use]
pub fn again(zone: &Zone, decided: &Decided) -> bool {
    let client = &decided.current.claims().client_id;
    let Some(resource) = zone.resource(&decided.resource) else { return false };
    let path = decided.target.split_once('?').map_or(decided.target.as_str(), |(path, _)| path);
    let Ok(path) = Path::parse(path) else { return false };
    let Decided { method, target, call, .. } = decided;
    let asked = Asked { method, path: &path, target, call: call.as_ref() };
    zone.application(client).is_some()
        && zone.granted_somewhere(client, &decided.resource)
        && permit(zone, resource, &decided.current, &asked, Guarding::Elsewhere).is_ok()
}

/// What guards are shown of a request.
struct Shown<'a> {
    head: &'a Head<'a>,
    /// Header fields after the plugins.
    sent: &'a HeaderMap,
    seen: &'a Seen<'a>,
}

/// [`permit`], with the guards of the resource. Fetches only what one of them reads.
fn guarded(
    zone: &Zone,
    resource: &Arc<Resource>,
    current: &CurrentMandate,
    asked: &Asked<'_, '_>,
    shown: &Shown<'_>,
) -> Result<Permit, Refused> {
    let Some(guards) = &resource.guards else {
        return permit(zone, resource, current, asked, Guarding::Elsewhere);
    };
    let (claims, Shown { head, sent, seen }) = (current.claims(), shown);
    let reads = guards.reads();
    let fields = if reads.headers { guards::headers(resource, sent) } else { Vec::new() };
    let query = if reads.query { guards::query(resource, head.query()) } else { None };
    let facts = GuardFacts {
        headers: &fields,
        query: query.as_deref(),
        arguments: seen.arguments,
        body: seen.body,
        subject: (claims.sub_type == SubjectType::User).then_some(claims.sub.as_str()),
        depth: u32::try_from(claims.delegation_path.len()).unwrap_or(u32::MAX),
        source: &head.peer.to_string(),
        now_s: seen.now_s,
    };
    let guarding = if seen.answered { Guarding::Answered(&facts) } else { Guarding::On(&facts) };
    permit(zone, resource, current, asked, guarding)
}

/// What a request asks for.
struct Asked<'a, 'p> {
    method: &'a str,
    path: &'a Path<'p>,
    target: &'a str,
    call: Option<&'a McpCall>,
}

fn permit(
    zone: &Zone,
    resource: &Arc<Resource>,
    current: &CurrentMandate,
    asked: &Asked<'_, '_>,
    guards: Guarding<'_>,
) -> Result<Permit, Refused> {
    let claims = current.claims();
    let request = UseRequest {
        application: &claims.client_id,
        labels: current.session().map_or(&[], |session| &session.labels),
        edge: current.delegation().map(|edge| EdgeFacts { id: &edge.id, scopes: &edge.scopes }),
        agent_session_id: claims.agent_session_id.as_deref(),
        presented: Presented {
            delegation_edge_id: claims.delegation_edge_id.as_deref(),
            scope: claims.scope.as_deref().unwrap_or_default(),
            target: &claims.target,
        },
        method: asked.method,
        path: asked.path,
        target: asked.target,
        call: asked.call,
        approved: current.approved(),
        guards,
    };
    zone.authorize(resource, &request)
}

fn target(path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}
