//! Resources: what may be reached, under which scopes, and how much of it.

use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::EndpointUrl;
use crate::mcp::Mcp;
use crate::operations::Operations;
use crate::path::Path;
use crate::provider::{Provider, SecretRef};
use crate::report::Place;
use crate::upstream::{Target, Upstream};

/// Something behind the edge that mandates are minted for.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Row id; the identifier when the bundle gives none.
    pub id: Arc<str>,
    /// The name callers use, such as `resource://echo`.
    pub identifier: Arc<str>,
    /// Where its calls go.
    pub upstream: Upstream,
    /// Where the upstream is served, if not where its own host leads.
    pub targets: Vec<Target>,
    /// Declared scopes, sorted.
    pub scopes: Vec<Arc<str>>,
    /// How its calls get their credential; `None` sends a resource mandate of ours.
    pub provider: Option<Arc<Provider>>,
    /// Whether its operations are enforced.
    pub enforcement: Enforcement,
    /// Its operations.
    pub operations: Operations,
    /// What it allows of the MCP server behind it, when it is one. Its operations are then those of the endpoint.
    pub mcp: Option<Mcp>,
    /// Host names that route to it; lower case, sorted.
    pub hosts: Vec<Arc<str>>,
    /// Path prefixes that route to it; no trailing slash, sorted.
    pub prefixes: Vec<Arc<str>>,
    /// Plugins in the order they run.
    pub plugins: Vec<PluginSpec>,
    /// Whether mandates for it may be minted reusable.
    pub reusable_mandates: bool,
    /// Whether a mandate may come in a query slot of the provider.
    pub query_key_slots: bool,
    /// Cookie names let through in both directions although a credential is injected; sorted.
    pub cookies: Vec<String>,
    /// Sizes and times.
    pub limits: ResourceLimits,
    /// How its upstream is spoken to over TLS, where that is said.
    pub tls: UpstreamTls,
    /// How the places of its upstream are looked at beside the calls, if they are.
    pub health_check: Option<HealthCheck>,
    /// The protocol its upstream is spoken to in.
    pub protocol: UpstreamProtocol,
    /// How its callers are told no.
    pub error_format: ErrorFormat,
    /// Where it is declared.
    pub place: Place,
}

impl Resource {
    /// Every host and port its calls may come to: the upstream's own, and the targets'.
    pub fn places(&self) -> impl Iterator<Item = (&Arc<str>, u16)> {
        let own = (&self.upstream.host, self.upstream.port);
        std::iter::once(own).chain(self.targets.iter().map(|target| (&target.host, target.port)))
    }

    /// Every host and port that a secret of it must be for: where it goes, and by which name.
    pub fn destinations(&self) -> impl Iterator<Item = (&Arc<str>, u16)> {
        self.places().chain(self.tls.server_name.iter().map(|name| (name, self.upstream.port)))
    }

    /// Whether a call to this resource could be one to this URL.
    pub fn reaches(&self, url: &EndpointUrl) -> bool {
        let upstream = &self.upstream;
        if !self.places().any(|(host, port)| (&**host, port) == (&**url.host(), url.port())) {
            return false;
        }
        let Some(rest) = url.target().strip_prefix(&upstream.base_path) else { return false };
        match (self.enforcement, Path::parse(if rest.is_empty() { "/" } else { rest })) {
            // The base path ended within a segment.
            (_, Err(_)) if !rest.starts_with('/') => false,
            (Enforcement::TransportUniform, _) | (_, Err(_)) => true,
            (Enforcement::Enforced, Ok(path)) => {
                ["POST", "GET"].iter().any(|method| self.operations.find(method, &path).is_some())
            }
        }
    }
}

/// How it is found out whether the places where an upstream is served are well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Path and query that are asked for, as they are sent.
    pub target: Arc<str>,
    /// Between two checks of a place.
    pub interval: Duration,
    /// Until an answer must be there, connection included.
    pub timeout: Duration,
    /// Passes in a row after which a place counts as well again.
    pub healthy_after: u32,
    /// Failures in a row after which it counts as unwell.
    pub unhealthy_after: u32,
}

/// TLS to an upstream. The upstream's certificate is always verified; there is no setting against it.
#[derive(Debug, Clone, Default)]
pub struct UpstreamTls {
    /// The name that is asked for and that the certificate must be for, instead of the upstream's host.
    pub server_name: Option<Arc<str>>,
    /// The operator's name for the certificate authorities that are believed instead of the system's.
    pub authorities: Option<String>,
    /// What the edge proves itself with.
    pub client: Option<ClientCertificate>,
    /// Where it is declared.
    pub place: Option<Place>,
}

/// A certificate of the edge's own, for an upstream that asks for one.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// The chain in PEM, the edge's own certificate first.
    pub chain: String,
    /// The private key, in PEM.
    pub key: SecretRef,
}

/// Whether the operations of a resource decide which requests it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Enforcement {
    /// The most specific matching operation must exist, and the mandate must carry its scope.
    #[default]
    Enforced,
    /// Every method and path counts the same; operations are not looked at.
    TransportUniform,
}

/// The protocol an upstream is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: asked for over TLS, without asking over plain TCP.
    Http2,
    /// Over TLS what the upstream takes, HTTP/2 first; HTTP/1.1 over plain TCP.
    Auto,
}

/// The shape of the edge's own refusals to callers of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ErrorFormat {
    /// `error` is a code, as the official clients read it.
    #[default]
    Caracal,
    /// `error` is an object with code, message and type, as the clients of many APIs read it.
    Object,
}

/// A plugin as the bundle names it. The proxy knows which plugins exist and reads their configuration.
#[derive(Debug, Clone)]
pub struct PluginSpec {
    /// Registered name.
    pub name: String,
    /// Everything beside the name.
    pub config: toml::Table,
    /// Where it is named.
    pub place: Place,
}

/// Sizes and times of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Bytes of a request body. 10 MiB unless the bundle says otherwise.
    pub max_request_bytes: u64,
    /// Until the upstream connection stands. 5 s.
    pub connect_timeout: Duration,
    /// Until the response head has come. 30 s.
    pub response_timeout: Duration,
    /// Between two pieces of a response body. 60 s.
    pub idle_timeout: Duration,
    /// A whole response, however lively. 1 h.
    pub max_stream: Duration,
    /// Requests in flight at once. 1,024.
    pub max_concurrent: u32,
    /// Requests that may wait for a place when all are taken. None.
    pub max_waiting: u32,
    /// How long one waits at most. 1 s.
    pub max_wait: Duration,
}

impl Default for ResourceLimits {
    fn default() -> Self {
        Self {
            max_request_bytes: 10 * 1024 * 1024,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            max_stream: Duration::from_secs(3600),
            max_concurrent: 1024,
            max_waiting: 0,
            max_wait: Duration::from_secs(1),
        }
    }
}

impl Enforcement {
    /// The word bundles use.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::TransportUniform => "transport_uniform",
        }
    }
}

impl UpstreamProtocol {
    /// The word bundles use.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Auto => "auto",
        }
    }
}

impl ErrorFormat {
    /// The word bundles use.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Caracal => "caracal",
            Self::Object => "object",
        }
    }
}
