//! The difference between two generations of a zone, in words about authority.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use crate::application::Application;
use crate::data::{GrantData, PolicyData, SelfApproval};
use crate::digest::Comparison;
use crate::guard::{Ask, Guard, GuardMode};
use crate::report::{listed, shortened};
use crate::resource::{Enforcement, HealthCheck, Resource};
use crate::zone::Parts;

/// What the newer generation changes, sorted by what it is about.
///
/// Settings are told when they change; those of something that comes or goes are not told beside it.
pub(crate) fn between(older: &Parts, newer: &Parts) -> Vec<String> {
    let same = Same::in_both(older, newer);
    let (older, newer) = (Statements::of(older, &same), Statements::of(newer, &same));
    let mut words = Vec::new();
    for (about, value) in &older.all {
        match newer.all.get(about) {
            None if about.rank == Rank::Setting => {}
            None => words.push((about.rank, about.lost(value))),
            Some(now) if now != value => words.push((about.rank, about.changed(value, now))),
            Some(_) => {}
        }
    }
    for (about, value) in newer.all.iter().filter(|(about, _)| !older.all.contains_key(*about)) {
        if about.rank != Rank::Setting {
            words.push((about.rank, about.gained(value)));
        }
    }
    words.sort();
    words.into_iter().map(|(_, text)| text).collect()
}

/// The resources both generations say the same of: most of a large zone, and nothing of it has to be put into words.
struct Same<'a> {
    resources: HashSet<&'a str>,
    grants: HashSet<&'a str>,
}

impl<'a> Same<'a> {
    fn in_both(older: &'a Parts, newer: &'a Parts) -> Self {
        let known: HashMap<&str, &Arc<Resource>> =
            older.resources.iter().map(|resource| (&*resource.identifier, resource)).collect();
        let mut comparison = Comparison::new();
        let mut equal = |resource: &Arc<Resource>| {
            let before = known.get(&*resource.identifier);
            before.is_some_and(|before| Arc::ptr_eq(before, resource) || comparison.same(before, resource))
        };
        let resources = newer.resources.iter().filter(|resource| equal(resource));
        let resources = resources.map(|resource| &*resource.identifier).collect();
        let mut grants = HashSet::default();
        if let (Some(older), Some(newer)) = (&older.data, &newer.data) {
            let owner = |data: &'a PolicyData, grant: &GrantData| data.app_ids.get(&grant.application);
            let kept = newer.grants.iter().filter(|(resource, grant)| {
                let before = older.grants.get(*resource);
                before.is_some_and(|before| {
                    let roles = Arc::ptr_eq(before, grant) || before.roles == grant.roles;
                    roles && owner(older, before) == owner(newer, grant)
                })
            });
            grants.extend(kept.map(|(resource, _)| &**resource));
        }
        Self { resources, grants }
    }
}

/// What a statement is about. The rank orders the report: freezes first, tuning last.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct About {
    rank: Rank,
    subject: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Freeze,
    Policy,
    Application,
    Issuer,
    Grant,
    Confinement,
    Tier,
    Approval,
    Budget,
    Resource,
    Declared,
    Operation,
    Guard,
    Asking,
    Route,
    Provider,
    Setting,
}

#[derive(Debug, Default)]
struct Statements {
    all: BTreeMap<About, String>,
}

impl About {
    fn gained(&self, value: &str) -> String {
        let subject = &self.subject;
        match self.rank {
            Rank::Freeze => "the zone is frozen".to_owned(),
            Rank::Policy => "the zone has a policy now".to_owned(),
            Rank::Application | Rank::Issuer | Rank::Resource | Rank::Provider => {
                format!("{subject} is added{value}")
            }
            Rank::Grant => with_verb(subject, "gains"),
            Rank::Confinement => format!("{subject} are confined to {value}"),
            Rank::Tier => format!("{subject} is in risk tier {value} now"),
            Rank::Approval => format!("{subject} needs an approval now: {value}"),
            Rank::Budget => format!("{subject} allows no more than {value}"),
            Rank::Declared => format!("{subject} is declared"),
            Rank::Operation => format!("{subject} is open to {value}"),
            Rank::Guard => format!("{subject} refuses {value} now"),
            Rank::Asking => format!("{subject} asks {value} now"),
            Rank::Route => format!("{subject} leads to {value}"),
            Rank::Setting => format!("{subject}: {value}"),
        }
    }

    fn lost(&self, value: &str) -> String {
        let subject = &self.subject;
        match self.rank {
            Rank::Freeze => "the zone is no longer frozen".to_owned(),
            Rank::Policy => "the zone has no policy any more and denies everything".to_owned(),
            Rank::Application | Rank::Issuer | Rank::Resource | Rank::Provider => {
                format!("{subject} is removed")
            }
            Rank::Grant => with_verb(subject, "loses"),
            Rank::Confinement => format!("{subject} are no longer confined to {value}"),
            Rank::Tier => format!("{subject} is no longer in risk tier {value}"),
            Rank::Approval => format!("{subject} no longer needs an approval"),
            Rank::Budget => format!("{subject} is lifted: {value}"),
            Rank::Declared => format!("{subject} is no longer declared"),
            Rank::Operation => format!("{subject} is no longer open to {value}"),
            Rank::Guard => format!("{subject} no longer refuses {value}"),
            Rank::Asking => format!("{subject} no longer asks {value}"),
            Rank::Route => format!("{subject} no longer leads to {value}"),
            Rank::Setting => format!("{subject} is gone: {value}"),
        }
    }

    fn changed(&self, before: &str, now: &str) -> String {
        let subject = &self.subject;
        match self.rank {
            Rank::Freeze | Rank::Policy | Rank::Grant | Rank::Declared => self.gained(now),
            Rank::Application | Rank::Issuer | Rank::Resource | Rank::Provider => {
                format!("{subject} is changed{now}, before{before}")
            }
            Rank::Confinement => format!("{subject} are confined to {now} instead of {before}"),
            Rank::Tier => format!("{subject} is in risk tier {now} instead of {before}"),
            Rank::Approval => format!("{subject} needs another approval: {now} instead of {before}"),
            Rank::Budget => format!("{subject} allows {now} instead of {before}"),
            Rank::Operation => format!("{subject} is open to {now} instead of {before}"),
            Rank::Guard => format!("{subject} refuses {now} instead of {before}"),
            Rank::Asking => format!("{subject} asks {now} instead of {before}"),
            Rank::Route => format!("{subject} leads to {now} instead of {before}"),
            Rank::Setting => format!("{subject}: {now} instead of {before}"),
        }
    }
}

/// A grant's subject keeps its verb's place as `{}`.
fn with_verb(subject: &str, verb: &str) -> String {
    subject.replacen("{}", verb, 1)
}

/// Whom a guard asks about what.
fn asking(ask: &Ask, guard: &Guard) -> String {
    let shown = match ask.show.as_slice() {
        [] => String::new(),
        show => format!(", showing {}", listed(show.iter().map(|pointer| &**pointer))),
    };
    format!("for approval in tier `{}` of {}{shown}", ask.tier.tier, guarded(guard))
}

/// What a guard refuses.
fn guarded(guard: &Guard) -> String {
    let about = guard.about.words();
    let about =
        if about.is_empty() { "requests".to_owned() } else { listed(about.iter().map(String::as_str)) };
    let shadow = match guard.mode {
        GuardMode::Enforce => "",
        GuardMode::Shadow => " (in shadow: counted only)",
    };
    format!("{about} where `{}`{shadow}", shortened(&guard.when))
}

impl Statements {
    fn of(parts: &Parts, same: &Same<'_>) -> Self {
        let mut statements = Self::default();
        for application in &parts.applications {
            statements.application(application);
        }
        for provider in &parts.providers {
            let secrets: Vec<_> =
                provider.secrets().map(|secret| format!("secret://{}/{}", secret.name, secret.key)).collect();
            let secret =
                if secrets.is_empty() { String::new() } else { format!(" from {}", secrets.join(" and ")) };
            let subject = format!("provider `{}`", provider.identifier);
            let identity = if provider.forward_caracal_identity { " with identity" } else { "" };
            let kind = &provider.kind;
            statements.say(Rank::Provider, subject, format!(" ({kind}{secret}{identity})"));
            let slots: Vec<_> = provider.key_slots.iter().map(ToString::to_string).collect();
            let slots = listed(slots.iter().map(String::as_str));
            statements.say(Rank::Setting, format!("key slots of `{}`", provider.identifier), slots);
        }
        for issuer in &parts.issuers {
            let again = if issuer.single_use { ", each token once" } else { "" };
            let value = format!(" (tokens for `{}`, keys from {}{again})", issuer.audience, issuer.jwks_url);
            statements.say(Rank::Issuer, format!("subject issuer `{}`", issuer.issuer), value);
        }
        for resource in &parts.resources {
            if !same.resources.contains(&*resource.identifier) {
                statements.resource(resource);
            }
        }
        for budget in &parts.budgets {
            let what = if budget.is_rate() { "rate" } else { "budget" };
            statements.say(Rank::Budget, format!("{what} `{}`", budget.name), budget.to_string());
        }
        if let Some(data) = &parts.data {
            statements.say(Rank::Policy, String::new(), "");
            statements.policy(data, same);
        }
        statements
    }

    fn say(&mut self, rank: Rank, subject: impl Into<String>, value: impl Into<String>) {
        self.all.insert(About { rank, subject: subject.into() }, value.into());
    }

    fn setting(&mut self, name: &str, of: &str, value: impl Display) {
        self.say(Rank::Setting, format!("{name} of `{of}`"), value.to_string());
    }

    fn application(&mut self, application: &Application) {
        let id = &application.id;
        self.say(Rank::Application, format!("application `{id}`"), "");
        self.setting("number of secrets", id, application.secrets.len());
        self.setting("traits", id, listed(application.traits.iter().map(String::as_str)));
        self.setting("max_concurrent", id, application.max_concurrent);
    }

    fn resource(&mut self, resource: &Resource) {
        let name = &resource.identifier;
        let enforced = match resource.enforcement {
            Enforcement::Enforced => "",
            Enforcement::TransportUniform => ", open to every method and path",
        };
        let at = format!(" at {}{enforced}", resource.upstream);
        self.say(Rank::Resource, format!("resource `{name}`"), at);
        for scope in &resource.scopes {
            self.say(Rank::Declared, format!("scope `{scope}` on `{name}`"), "");
        }
        for operation in resource.operations.iter() {
            let needs = format!("holders of `{}`", operation.scope);
            self.say(Rank::Operation, format!("`{operation}` on `{name}`"), needs);
        }
        if let Some(mcp) = &resource.mcp {
            for (kind, entries) in [("tool", &mcp.tools), ("MCP method", &mcp.methods)] {
                for entry in entries {
                    let needs = format!("holders of `{}`", entry.scope);
                    self.say(Rank::Operation, format!("{kind} `{}` on `{name}`", entry.name), needs);
                }
            }
        }
        for guard in resource.guards.iter().flat_map(|guards| guards.iter()) {
            let subject = format!("guard `{}` on `{name}`", guard.name);
            match &guard.ask {
                None => self.say(Rank::Guard, subject, guarded(guard)),
                Some(ask) => self.say(Rank::Asking, subject, asking(ask, guard)),
            }
        }
        for host in &resource.hosts {
            self.say(Rank::Route, format!("host `{host}`"), format!("`{name}`"));
        }
        for prefix in &resource.prefixes {
            self.say(Rank::Route, format!("prefix `{prefix}`"), format!("`{name}`"));
        }
        let provider =
            resource.provider.as_ref().map_or("a resource mandate", |provider| &provider.identifier);
        self.setting("credential", name, provider);
        self.setting("reusable_mandates", name, resource.reusable_mandates);
        self.setting("query_key_slots", name, resource.query_key_slots);
        self.setting("cookies", name, listed(resource.cookies.iter().map(String::as_str)));
        let limits = &resource.limits;
        self.setting("max_request_bytes", name, limits.max_request_bytes);
        self.setting("connect timeout", name, format!("{:?}", limits.connect_timeout));
        self.setting("response timeout", name, format!("{:?}", limits.response_timeout));
        self.setting("idle timeout", name, format!("{:?}", limits.idle_timeout));
        self.setting("longest stream", name, format!("{:?}", limits.max_stream));
        self.setting("max_concurrent", name, limits.max_concurrent);
        self.setting("max_waiting", name, limits.max_waiting);
        self.setting("longest wait", name, format!("{:?}", limits.max_wait));
        let targets: Vec<_> = resource.targets.iter().map(ToString::to_string).collect();
        self.setting("targets", name, listed(targets.iter().map(String::as_str)));
        self.setting("upstream_protocol", name, resource.protocol.word());
        self.setting("error_format", name, resource.error_format.word());
        let check = resource.health_check.as_ref().map(|check| {
            let HealthCheck { target, interval, timeout, healthy_after, unhealthy_after } = check;
            format!("{target}, every {interval:?}, within {timeout:?}, {healthy_after}/{unhealthy_after}")
        });
        self.setting("health check", name, check.as_deref().unwrap_or("none"));
        let tls = &resource.tls;
        self.setting("server name", name, tls.server_name.as_deref().unwrap_or("its host"));
        self.setting("certificate authorities", name, tls.authorities.as_deref().unwrap_or("the system's"));
        let client = tls.client.as_ref().map(|client| (&client.key, client.chain.len()));
        let client = client.map(|(key, length)| format!("secret://{}/{}, {length} bytes", key.name, key.key));
        self.setting("client certificate", name, client.as_deref().unwrap_or("none"));
        let plugins: Vec<_> =
            resource.plugins.iter().map(|plugin| format!("{} {}", plugin.name, plugin.config)).collect();
        self.setting("plugins", name, plugins.join(", ").replace('\n', " ").trim_end());
    }

    fn policy(&mut self, data: &PolicyData, same: &Same<'_>) {
        if !data.restrict.is_empty() {
            self.say(Rank::Freeze, String::new(), "");
        }
        for (resource, grant) in &data.grants {
            if same.grants.contains(&**resource) {
                continue;
            }
            let Some(application) = data.app_ids.get(&grant.application) else { continue };
            for (role, scopes) in &grant.roles {
                for scope in scopes {
                    let subject = format!(
                        "application `{application}` {{}} scope `{scope}` on `{resource}` as `{role}`"
                    );
                    self.say(Rank::Grant, subject, "");
                }
            }
        }
        for rule in &data.confinement {
            let scopes = listed(rule.scopes.iter().map(AsRef::as_ref));
            let about = format!("labels that start with `{}`", rule.label_prefix);
            self.all
                .entry(About { rank: Rank::Confinement, subject: about })
                .and_modify(|all| *all = format!("{all} and to {scopes}"))
                .or_insert_with(|| scopes.clone());
        }
        for rule in data.risk.rules() {
            self.say(Rank::Tier, format!("scope `{}`", rule.scope), format!("`{}`", rule.tier));
        }
        for tier in data.tiers.rules() {
            let others = match tier.self_approval() {
                SelfApproval::Allowed => "",
                SelfApproval::Forbidden => ", never by the person the session acts for",
            };
            let asks = format!(
                "by {}, within {} s, requester {}{others}",
                tier.approver().word(),
                tier.ttl_seconds(),
                tier.privacy().word()
            );
            self.say(Rank::Approval, format!("risk tier `{}`", tier.tier), asks);
        }
    }
}
