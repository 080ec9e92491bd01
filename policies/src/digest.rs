//! The digest of a zone: over its compiled, sorted form, so that the same content has the same digest however it is
//! written and over whatever files it is spread.
//!
//! Every struct is taken apart member by member: one that is added later does not compile until it is decided here
//! whether it counts. Places do not.

mod providers;

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, Digest as Hash, SHA256, digest};

use crate::application::{Application, SecretHash};
use crate::budget::{Budget, Measure, Span, UnitsFrom};
use crate::data::{Confinement, GrantData, PolicyData, Risk, TierDeclaration};
use crate::guard::{Ask, Guard, Guards};
use crate::issuer::SubjectIssuer;
use crate::mcp::{Mcp, McpEntry};
use crate::operations::Operation;
use crate::resource::{
    ClientCertificate, ErrorFormat, HealthCheck, PluginSpec, Resource, ResourceLimits, UpstreamProtocol,
    UpstreamTls,
};
use crate::upstream::Upstream;
use crate::zone::Parts;

/// SHA-256 of a zone's content. `Display` and `FromStr`: `sha256:<64 hexadecimal digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    pub(crate) fn of(parts: &Parts) -> Self {
        let Parts { id, name, applications, providers, resources, issuers, budgets, data } = parts;
        let mut canon = Canon::new();
        // The first text names this encoding; change it when the encoding changes.
        canon.text("caracal zone 1");
        canon.text(id);
        canon.text(name);
        canon.list(applications, |canon, application| canon.application(application));
        canon.list(providers, |canon, provider| canon.provider(provider));
        canon.list(resources, |canon, resource| canon.resource(resource));
        canon.list(data, Canon::policy);
        // Last and only when there are any, so that zones without them keep their digest.
        if !issuers.is_empty() {
            canon.list(issuers, |canon, issuer| canon.issuer(issuer));
        }
        let servers: Vec<_> = resources.iter().filter(|resource| resource.mcp.is_some()).collect();
        if !servers.is_empty() {
            canon.text("mcp");
            canon.list(servers, |canon, resource| {
                canon.text(&resource.identifier);
                canon.list(&resource.mcp, Canon::mcp);
            });
        }
        if !budgets.is_empty() {
            canon.text("budgets");
            canon.list(budgets, |canon, budget| canon.budget(budget));
        }
        let tiers = data.iter().flat_map(|data| data.tiers.rules());
        let banning: Vec<_> = tiers.filter(|tier| tier.self_approval.is_some()).collect();
        if !banning.is_empty() {
            canon.text("self_approval");
            canon.list(banning, |canon, tier| {
                canon.text(&tier.tier);
                canon.text(tier.self_approval().word());
            });
        }
        canon.finish()
    }

    /// The digest of a text.
    pub(crate) fn of_text(text: &str) -> Self {
        Self::from_hash(&digest(&SHA256, text.as_bytes()))
    }

    fn from_hash(hash: &Hash) -> Self {
        let mut digest = [0; 32];
        for (byte, from) in digest.iter_mut().zip(hash.as_ref()) {
            *byte = *from;
        }
        Self(digest)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a text lacks to be a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: expected `sha256:` and 64 hexadecimal digits")]
pub struct NotADigest;

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let digits = text.strip_prefix("sha256:").ok_or(NotADigest)?;
        let mut digest = [0; 32];
        hex::decode_to_slice(digits, &mut digest).map_err(|_not_hexadecimal| NotADigest)?;
        Ok(Self(digest))
    }
}

/// Tells whether two generations say the same of a resource, places aside. The buffers are used again.
pub(crate) struct Comparison(Canon, Canon);

impl Comparison {
    pub(crate) fn new() -> Self {
        let unhashed = || Canon { at_once: usize::MAX, ..Canon::new() };
        Self(unhashed(), unhashed())
    }

    pub(crate) fn same(&mut self, one: &Resource, other: &Resource) -> bool {
        for (canon, resource) in [(&mut self.0, one), (&mut self.1, other)] {
            canon.pending.clear();
            canon.resource(resource);
            canon.list(&resource.mcp, Canon::mcp);
        }
        self.0.pending == self.1.pending
    }
}

/// Feeds values to the hash so that no two different sequences give the same bytes: lengths come first.
struct Canon {
    context: Context,
    /// What is not hashed yet: the parts are small, and the hash takes many at once for the price of one.
    pending: Vec<u8>,
    /// How much of it there may be.
    at_once: usize,
}

/// Bytes that are hashed at once.
const AT_ONCE: usize = 16 * 1024;

impl Canon {
    fn new() -> Self {
        Self { context: Context::new(&SHA256), pending: Vec::with_capacity(AT_ONCE), at_once: AT_ONCE }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        if self.pending.len().saturating_add(bytes.len()) > self.at_once {
            self.context.update(&self.pending);
            self.pending.clear();
        }
        self.pending.extend_from_slice(bytes);
    }

    fn finish(mut self) -> Digest {
        self.context.update(&self.pending);
        Digest::from_hash(&self.context.finish())
    }

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_be_bytes());
    }

    fn size(&mut self, size: usize) {
        self.number(u64::try_from(size).unwrap_or(u64::MAX));
    }

    fn text(&mut self, text: &str) {
        self.size(text.len());
        self.bytes(text.as_bytes());
    }

    fn flag(&mut self, flag: bool) {
        self.number(u64::from(flag));
    }

    /// A sequence; an `Option` is one of at most one element.
    fn list<'a, T: 'a, I>(&mut self, items: I, one: fn(&mut Self, &'a T))
    where
        I: IntoIterator<Item = &'a T>,
    {
        let items: Vec<&T> = items.into_iter().collect();
        self.size(items.len());
        for item in items {
            one(self, item);
        }
    }

    fn application(&mut self, application: &Application) {
        let Application { id, name, secrets, traits, max_concurrent } = application;
        self.text(id);
        self.text(name);
        self.number(u64::from(*max_concurrent));
        let mut secrets: Vec<String> = secrets.iter().map(secret).collect();
        secrets.sort_unstable();
        self.list(&secrets, |canon, secret| canon.text(secret));
        let mut traits: Vec<&String> = traits.iter().collect();
        traits.sort_unstable();
        self.list(traits, |canon, text| canon.text(text));
    }

    fn budget(&mut self, budget: &Budget) {
        let Budget { name, per, application, resource, measure, limit, span } = budget;
        self.text(name);
        self.text(per.word());
        self.list(application, |canon, name| canon.text(name));
        self.list(resource, |canon, name| canon.text(name));
        self.text(measure.word());
        match measure {
            Measure::Calls => {}
            Measure::Bytes { max_per_call } => self.number(*max_per_call),
            Measure::Units { max_per_call, from } => {
                self.number(*max_per_call);
                match from {
                    UnitsFrom::Pointer(pointer) => {
                        self.text("pointer");
                        self.text(pointer);
                    }
                    UnitsFrom::Header(name) => {
                        self.text("header");
                        self.text(name);
                    }
                    UnitsFrom::Sum(parts) => {
                        self.text("sum");
                        self.list(parts, |canon, places| {
                            canon.list(places, |canon, place| canon.text(place))
                        });
                    }
                }
            }
        }
        self.number(*limit);
        match span {
            Span::Window { seconds } => {
                self.text("window");
                self.number(*seconds);
            }
            Span::Life => self.text("life"),
            Span::Rate { seconds, burst } => {
                self.text("rate");
                self.number(*seconds);
                self.number(*burst);
            }
        }
    }

    fn issuer(&mut self, issuer: &SubjectIssuer) {
        let SubjectIssuer { issuer, jwks_url, audience, single_use, place: _ } = issuer;
        self.text(issuer);
        self.text(&jwks_url.to_string());
        self.text(audience);
        self.flag(*single_use);
    }

    fn resource(&mut self, resource: &Resource) {
        let Resource {
            id,
            identifier,
            upstream,
            targets,
            scopes,
            provider,
            enforcement,
            operations,
            // In a list of its own, see `of`.
            mcp: _,
            guards,
            hosts,
            prefixes,
            plugins,
            reusable_mandates,
            query_key_slots,
            cookies,
            limits,
            tls,
            health_check,
            protocol,
            error_format,
            place: _,
        } = resource;
        self.text(id);
        self.text(identifier);
        self.upstream(upstream);
        self.list(scopes, |canon, scope| canon.text(scope));
        self.list(provider, |canon, provider| canon.text(&provider.identifier));
        self.text(enforcement.word());
        let mut operations: Vec<_> = operations.iter().collect();
        operations.sort_by_key(|operation| (&operation.method, &operation.path));
        self.list(operations, |canon, operation| canon.operation(operation));
        self.list(hosts, |canon, host| canon.text(host));
        self.list(prefixes, |canon, prefix| canon.text(prefix));
        self.list(plugins, Self::plugin);
        self.flag(*reusable_mandates);
        self.flag(*query_key_slots);
        self.list(cookies, |canon, cookie| canon.text(cookie));
        self.limits(limits);
        // Only where something is said, so that resources without it keep their digest.
        if !targets.is_empty() {
            self.text("targets");
            self.list(targets, |canon, target| canon.text(&target.to_string()));
        }
        if tls.place.is_some() {
            self.tls(tls);
        }
        if let Some(HealthCheck { target, interval, timeout, healthy_after, unhealthy_after }) = health_check
        {
            self.text("health_check");
            self.text(target);
            for time in [interval, timeout] {
                self.number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
            }
            self.number((*healthy_after).into());
            self.number((*unhealthy_after).into());
        }
        if *protocol != UpstreamProtocol::default() {
            self.text(protocol.word());
        }
        if *error_format != ErrorFormat::default() {
            self.text(error_format.word());
        }
        if let Some(guards) = guards {
            self.guards(guards);
        }
    }

    fn guards(&mut self, guards: &Guards) {
        self.text("guards");
        self.list(guards.iter(), |canon, guard| {
            let Guard { name, when, mode, ask, about, .. } = &**guard;
            canon.text(name);
            canon.text(when);
            canon.text(mode.word());
            canon.list(&about.words(), |canon, word| canon.text(word));
            // Only where it asks, so that guards which refuse keep their digest. The tier is among the policy data.
            if let Some(Ask { tier, show }) = ask {
                canon.text("approval");
                canon.text(&tier.tier);
                canon.list(show, |canon, pointer| canon.text(pointer));
            }
        });
    }

    fn tls(&mut self, tls: &UpstreamTls) {
        let UpstreamTls { server_name, authorities, client, place: _ } = tls;
        self.text("tls");
        self.list(server_name, |canon, name| canon.text(name));
        self.list(authorities, |canon, name| canon.text(name));
        self.list(client, |canon, ClientCertificate { chain, key }| {
            canon.text(chain);
            canon.secret(key);
        });
    }

    fn upstream(&mut self, upstream: &Upstream) {
        // The URL holds every member.
        let Upstream { scheme: _, host: _, port: _, base_path: _, query: _ } = upstream;
        self.text(&upstream.to_string());
    }

    fn mcp(&mut self, mcp: &Mcp) {
        let Mcp { path, scope, tools, methods } = mcp;
        self.text(path);
        self.text(scope);
        for entries in [tools, methods] {
            self.list(entries, |canon, McpEntry { name, scope }| {
                canon.text(name);
                canon.text(scope);
            });
        }
    }

    fn operation(&mut self, operation: &Operation) {
        let Operation { method, path, scope, place: _ } = operation;
        self.text(&method.to_string());
        self.text(path);
        self.text(scope);
    }

    fn plugin(&mut self, plugin: &PluginSpec) {
        let PluginSpec { name, config, place: _ } = plugin;
        self.text(name);
        self.table(config);
    }

    fn table(&mut self, table: &toml::Table) {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| *key);
        self.size(entries.len());
        for (key, value) in entries {
            self.text(key);
            self.value(value);
        }
    }

    fn value(&mut self, value: &toml::Value) {
        self.text(value.type_str());
        match value {
            toml::Value::String(text) => self.text(text),
            toml::Value::Integer(number) => self.text(&number.to_string()),
            toml::Value::Float(number) => self.number(number.to_bits()),
            toml::Value::Boolean(flag) => self.flag(*flag),
            toml::Value::Datetime(time) => self.text(&time.to_string()),
            toml::Value::Array(items) => self.list(items, Self::value),
            toml::Value::Table(table) => self.table(table),
        }
    }

    fn limits(&mut self, limits: &ResourceLimits) {
        let ResourceLimits {
            max_request_bytes,
            connect_timeout,
            response_timeout,
            idle_timeout,
            max_stream,
            max_concurrent,
            max_waiting,
            max_wait,
        } = limits;
        self.number(*max_request_bytes);
        for time in [connect_timeout, response_timeout, idle_timeout, max_stream] {
            self.number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        }
        self.number(u64::from(*max_concurrent));
        // Only where somebody may wait, so that resources without a queue keep their digest.
        if *max_waiting > 0 {
            self.text("queue");
            self.number(u64::from(*max_waiting));
            self.number(u64::try_from(max_wait.as_millis()).unwrap_or(u64::MAX));
        }
    }

    fn policy(&mut self, data: &PolicyData) {
        let PolicyData { app_ids, grants, confinement, restrict, risk, tiers } = data;
        self.size(app_ids.len());
        for (key, id) in app_ids {
            self.text(key);
            self.text(id);
        }
        self.size(grants.len());
        for (resource, grant) in grants {
            self.text(resource);
            self.grant(grant);
        }
        self.list(confinement, |canon, rule| {
            let Confinement { label_prefix, scopes } = rule;
            canon.text(label_prefix);
            canon.list(scopes, |canon, scope| canon.text(scope));
        });
        self.list(restrict, |canon, text| canon.text(text));
        self.list(risk.rules(), |canon, rule| {
            let Risk { scope, tier } = rule;
            canon.text(scope);
            canon.text(tier);
        });
        self.list(tiers.rules(), |canon, declaration| {
            // As declared: a member that is left out is not the same as its default, since records show it as it is.
            let TierDeclaration { tier, approver, ttl_seconds, privacy, self_approval: _ } = declaration;
            canon.text(tier);
            canon.list(approver, |canon, approver| canon.text(approver.word()));
            canon.list(ttl_seconds, |canon, seconds| canon.number(*seconds));
            canon.list(privacy, |canon, privacy| canon.text(privacy.word()));
        });
    }

    fn grant(&mut self, grant: &GrantData) {
        let GrantData { application, roles } = grant;
        self.text(application);
        self.size(roles.len());
        for (role, scopes) in roles {
            self.text(role);
            self.list(scopes, |canon, scope| canon.text(scope));
        }
    }
}

fn secret(hash: &SecretHash) -> String {
    match hash {
        SecretHash::Sha256(digest) => format!("sha256${}", hex::encode(digest)),
        SecretHash::Argon2id { salt, hash } => {
            format!("argon2id${}${}", hex::encode(salt), hex::encode(hash))
        }
    }
}
