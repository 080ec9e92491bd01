//! Where MCP clients learn which authority gives out tokens for a server (RFC 9728).

use http::HeaderMap;
use serde_json::{Value, json};

use crate::gate::head::{Head, Host};
use crate::snapshot::{RouteTarget, Snapshot};

/// Where the document about a path is, in front of that path.
pub const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// An MCP endpoint as its clients address it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Scheme and authority.
    origin: String,
    /// Path of the endpoint; empty for the root.
    path: String,
    /// The scope of the connection.
    scope: String,
}

impl Endpoint {
    /// The endpoint of the resource that a request for `path` is routed to, if that has MCP rules.
    #[must_use]
    pub fn find(snapshot: &Snapshot, host: &Host, scheme: &str, path: &str) -> Option<Self> {
        if !host.is_plain() {
            return None;
        }
        let (target, prefix) = match snapshot.routes.by_host(&host.name) {
            Some(target) => (target, ""),
            None => {
                let (target, cut) = snapshot.routes.by_prefix(path)?;
                (target, path.get(..cut)?)
            }
        };
        let RouteTarget { zone, resource } = target;
        let mcp = snapshot.zones.get(zone)?.zone.resource(resource)?.mcp.as_ref()?;
        let path = format!("{prefix}{}", mcp.path.trim_end_matches('/'));
        let origin = format!("{scheme}://{}", host.authority);
        Some(Self { origin, path, scope: mcp.scope.to_string() })
    }

    /// Where its document is.
    #[must_use]
    pub fn metadata_url(&self) -> String {
        format!("{}{WELL_KNOWN}{}", self.origin, self.path)
    }

    /// The document (RFC 9728 section 2). Scopes of tools are not told to whom nobody knows.
    #[must_use]
    pub fn metadata(&self, issuer: &str) -> Value {
        json!({
            "resource": format!("{}{}", self.origin, self.path),
            "authorization_servers": [issuer],
            "scopes_supported": [self.scope],
            "bearer_methods_supported": ["header"],
        })
    }
}

/// The document that a request asks for; none when it asks for something else.
#[must_use]
pub fn document(
    snapshot: &Snapshot,
    head: &Head<'_>,
    host: &Host,
    scheme: &str,
    issuer: &str,
) -> Option<Value> {
    let about = head.path().strip_prefix(WELL_KNOWN)?;
    if !matches!(head.method, "GET" | "HEAD") || names_resource(head.headers) {
        return None;
    }
    let path = if about.is_empty() { "/" } else { about };
    let endpoint = Endpoint::find(snapshot, host, scheme, path)?;
    let asked = about.is_empty() || about.trim_end_matches('/') == endpoint.path;
    asked.then(|| endpoint.metadata(issuer))
}

/// Whether a client names the resource itself, and so knows where it gets its mandates.
#[must_use]
pub fn names_resource(headers: &HeaderMap) -> bool {
    headers.contains_key("x-caracal-resource")
}
