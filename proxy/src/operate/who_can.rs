//! Who may send a request: every resource it would be a request to, and every role that may.
//!
//! The answers are those of the decisions that a mint and then the request would get at this moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use caracal_policies::{
    EdgeFacts, Enforcement, Guarding, Path, Presented, Refused, Resource, Scheme, Upstream, UseRequest, Zone,
};
use serde_json::{Value, json};

use super::Operate;
use super::what_can::application_standing;
use crate::authority::exchange::{Mint, Unminted};
use crate::control::Failure;
use crate::snapshot::LiveZone;

/// A resource that takes the request, and the path below it.
struct Way {
    live: Arc<LiveZone>,
    resource: Arc<Resource>,
    path: String,
}

/// What a role is answered: the scopes that open it with the rule, or why none does.
type Answer<'a> = Result<(Vec<&'a str>, String), &'static str>;

pub(super) fn who_can(on: &Operate, zone: Option<&str>, method: &str, url: &str) -> Result<Value, Failure> {
    let zones = on.looked_at(zone)?;
    let ways = if url.starts_with('/') { routed(on, &zones, url) } else { reached(on, &zones, url)? };
    if ways.is_empty() {
        return Err(Failure::new("no_resource", "no resource leads there; nobody can, through this edge"));
    }
    let told = ways.iter().map(|way| tell(on, way, method)).collect::<Result<Vec<_>, _>>()?;
    Ok(json!({ "method": method, "url": url, "ways": told }))
}

/// By the prefix of a path at the gateway.
fn routed(on: &Operate, zones: &[Arc<LiveZone>], path: &str) -> Vec<Way> {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let snapshot = on.app.snapshot.load();
    let found = snapshot.routes.by_prefix(path).and_then(|(target, cut)| {
        let live = zones.iter().find(|live| *live.zone.id() == target.zone)?;
        let resource = Arc::clone(live.zone.resource(&target.resource)?);
        Some(Way { live: Arc::clone(live), resource, path: path.get(cut..)?.to_owned() })
    });
    found.into_iter().collect()
}

/// By the URL of an upstream, or a host that the gateway routes.
fn reached(on: &Operate, zones: &[Arc<LiveZone>], url: &str) -> Result<Vec<Way>, Failure> {
    let parts = parse(url).ok_or_else(|| {
        let message = "write an absolute URL as the upstream has it, or a path at the gateway";
        Failure::new("malformed_url", message)
    })?;
    let snapshot = on.app.snapshot.load();
    let hosted = snapshot.routes.by_host(&parts.host);
    let mut ways = Vec::new();
    for live in zones {
        for resource in live.zone.resources() {
            let by_host = hosted.is_some_and(|target| {
                target.zone == *live.zone.id() && target.resource == resource.identifier
            });
            let path = if by_host { Some(parts.path.as_str()) } else { below(&resource.upstream, &parts) };
            if let Some(path) = path {
                let (live, resource) = (Arc::clone(live), Arc::clone(resource));
                ways.push(Way { live, resource, path: path.to_owned() });
            }
        }
    }
    Ok(ways)
}

struct Parts {
    scheme: Scheme,
    host: String,
    port: u16,
    path: String,
}

fn parse(url: &str) -> Option<Parts> {
    let uri: http::Uri = url.parse().ok()?;
    let (scheme, own) = match uri.scheme_str()? {
        "http" => (Scheme::Http, 80),
        "https" => (Scheme::Https, 443),
        _ => return None,
    };
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    let host = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
    let port = authority.port_u16().unwrap_or(own);
    Some(Parts { scheme, host, port, path: uri.path().to_owned() })
}

/// The path below an upstream, if the URL is one of it.
fn below<'a>(upstream: &Upstream, url: &'a Parts) -> Option<&'a str> {
    let same = (upstream.scheme, &*upstream.host, upstream.port) == (url.scheme, url.host.as_str(), url.port);
    let rest = url.path.strip_prefix(&upstream.base_path).filter(|_| same)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

fn tell(on: &Operate, way: &Way, method: &str) -> Result<Value, Failure> {
    let (zone, resource) = (&way.live.zone, &way.resource);
    let refused = |problem: &dyn std::fmt::Display| Failure::new("path_refused", problem.to_string());
    let path = Path::parse(&way.path).map_err(|problem| refused(&problem))?;
    let operation = resource.operations.find(method, &path);
    let scopes: Vec<&Arc<str>> = match (resource.enforcement, operation) {
        (Enforcement::TransportUniform, _) => resource.scopes.iter().collect(),
        (Enforcement::Enforced, Some(operation)) => vec![&operation.scope],
        (Enforcement::Enforced, None) => Vec::new(),
    };
    let mut applications: BTreeMap<&Arc<str>, Vec<Value>> = BTreeMap::new();
    for application in zone.applications() {
        let standing = application_standing(&on.app.state, zone, &application.id);
        let roles = zone.roles(&application.id).filter(|(on, ..)| **on == resource.identifier);
        for (_, label, held) in roles {
            let asked = scopes.iter().filter(|scope| held.contains(**scope)).map(|scope| &***scope);
            let asked: Vec<&str> = asked.collect();
            if asked.is_empty() {
                continue;
            }
            let answer = standing.map_or_else(
                || Role { zone, resource, application: &application.id, label }.ask(&asked, method, &path),
                Err,
            );
            applications.entry(&application.id).or_default().push(match answer {
                Ok((scopes, rule)) => json!({ "label": label, "scopes": scopes, "rule": rule }),
                Err(code) => json!({ "label": label, "refused": code }),
            });
        }
    }
    let applications = applications.iter().map(|(id, roles)| json!({ "application": id, "roles": roles }));
    let guards = resource.guards.iter().flat_map(|guards| guards.enforced_on(operation));
    let guards = guards.map(|guard| {
        let asks = guard.ask.as_ref().map(|ask| &ask.tier.tier);
        json!({ "name": guard.name, "place": guard.place.to_string(), "asks_in_tier": asks })
    });
    let guards: Vec<_> = guards.collect();
    Ok(json!({
        "zone": zone.id(), "guards": guards, "resource": resource.identifier, "path": path.raw(),
        "operation": operation.map(ToString::to_string),
        "scopes": scopes, "applications": applications.collect::<Vec<_>>(),
    }))
}

/// A session with this one label, through a delegation that carries everything.
struct Role<'a> {
    zone: &'a Zone,
    resource: &'a Arc<Resource>,
    application: &'a str,
    label: &'a Arc<str>,
}

impl Role<'_> {
    /// Each scope on its own: one mandate needs only one.
    fn ask<'s>(&self, scopes: &[&'s str], method: &str, path: &Path<'_>) -> Answer<'s> {
        let (mut open, mut rule, mut refused) = (Vec::new(), String::new(), "operation_not_permitted");
        for scope in scopes {
            match self.mint(scope).and_then(|()| self.send(scope, method, path)) {
                Ok(by) => {
                    open.push(*scope);
                    rule = by;
                }
                Err(code) => refused = code,
            }
        }
        if open.is_empty() { Err(refused) } else { Ok((open, rule)) }
    }

    fn edge(&self) -> EdgeFacts<'_> {
        EdgeFacts { id: "delegation", scopes: &self.resource.scopes }
    }

    fn mint(&self, scope: &str) -> Result<(), &'static str> {
        let mint = Mint {
            zone: self.zone,
            application: self.application,
            labels: std::slice::from_ref(self.label),
            session: Some("session"),
            edge: Some(self.edge()),
            lineage: &[],
            requested: &[scope],
        };
        match mint.decide(&self.resource.identifier) {
            Ok(_) => Ok(()),
            Err(Unminted::Denied(code)) => Err(code),
            Err(Unminted::Failed) => Err("policy_eval_failed"),
        }
    }

    fn send(&self, scope: &str, method: &str, path: &Path<'_>) -> Result<String, &'static str> {
        let request = UseRequest {
            application: self.application,
            labels: std::slice::from_ref(self.label),
            edge: Some(self.edge()),
            agent_session_id: Some("session"),
            presented: Presented {
                delegation_edge_id: Some("delegation"),
                scope,
                target: &[self.resource.identifier.to_string()],
            },
            method,
            path,
            target: path.raw(),
            call: None,
            approved: false,
            guards: Guarding::Elsewhere,
        };
        match self.zone.authorize(self.resource, &request) {
            Ok(permit) => Ok(permit.rule().to_string()),
            Err(Refused::OperationNotPermitted { .. }) => Err("operation_not_permitted"),
            Err(Refused::Denied(reason)) => Err(reason.code()),
            Err(Refused::ApprovalRequired) => Err("approval_required"),
            Err(Refused::Guarded(_)) => Err("guard_denied"),
            Err(Refused::Failed(_)) => Err("policy_eval_failed"),
        }
    }
}
