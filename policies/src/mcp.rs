//! MCP servers: which scope each message needs that is posted to one.
//!
//! A resource with an [`Mcp`] takes nothing but its endpoint: `POST` with one JSON-RPC message, `GET` for the server's
//! stream, `DELETE` for the end of a session. What is not named here is denied.

use std::sync::Arc;

use crate::engine::carried;

/// Methods that keep a connection going and reveal nothing but what the server is and which tools may be called.
const CONNECTION: [&str; 4] = ["initialize", "ping", "server/discover", "tools/list"];

/// Announcements of the client. They have no answer.
const NOTIFICATIONS: &str = "notifications/";

/// The method that calls a tool.
const TOOLS_CALL: &str = "tools/call";

/// What a resource allows of the MCP server behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mcp {
    /// Path of the endpoint, below the resource.
    pub path: Box<str>,
    /// The scope of the connection itself: its handshake, notifications, `tools/list`, the server's stream and its end.
    pub scope: Arc<str>,
    /// Tools that may be called; sorted by name.
    pub tools: Vec<McpEntry>,
    /// Other methods that may be used, such as `resources/read`; sorted by name.
    pub methods: Vec<McpEntry>,
}

/// A tool or a method, and what it needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct McpEntry {
    /// Its name, compared exactly.
    pub name: Box<str>,
    /// The scope a mandate must carry for it.
    pub scope: Arc<str>,
}

/// What one posted message does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum McpCall {
    /// It calls this tool.
    Tool(Box<str>),
    /// It uses a method other than `tools/call`, as a request or a notification.
    Method(Box<str>),
    /// It answers a request of the server.
    Response,
}

impl Mcp {
    /// The scope that a message needs; none when it is not allowed at all.
    pub fn scope_of(&self, call: &McpCall) -> Option<&Arc<str>> {
        match call {
            McpCall::Tool(name) => find(&self.tools, name),
            McpCall::Method(name) if is_connection(name) => Some(&self.scope),
            McpCall::Method(name) => find(&self.methods, name),
            McpCall::Response => Some(&self.scope),
        }
    }

    /// Whether a mandate that carries these scopes, separated by spaces, may call the tool.
    pub fn may_call(&self, tool: &str, scopes: &str) -> bool {
        find(&self.tools, tool).is_some_and(|needed| carried(scopes).any(|scope| *scope == **needed))
    }
}

impl McpCall {
    /// The method of the message; none for a response.
    pub fn method(&self) -> Option<&str> {
        match self {
            Self::Tool(_) => Some(TOOLS_CALL),
            Self::Method(name) => Some(name),
            Self::Response => None,
        }
    }

    /// The tool it calls, if it calls one.
    pub fn tool(&self) -> Option<&str> {
        match self {
            Self::Tool(name) => Some(name),
            Self::Method(_) | Self::Response => None,
        }
    }
}

fn find<'a>(entries: &'a [McpEntry], name: &str) -> Option<&'a Arc<str>> {
    let at = entries.binary_search_by(|entry| (*entry.name).cmp(name)).ok()?;
    entries.get(at).map(|entry| &entry.scope)
}

/// Whether the scope of the connection covers this method, so that it cannot be given another one.
pub(crate) fn is_connection(method: &str) -> bool {
    CONNECTION.contains(&method) || method.starts_with(NOTIFICATIONS)
}

/// Whether the method calls a tool, which only the list of tools can allow.
pub(crate) fn calls_a_tool(method: &str) -> bool {
    method == TOOLS_CALL
}

#[cfg(test)]
mod tests;
