//! Messages to MCP servers: one posted body to the [`Message`] that is decided on, and refusals as MCP clients show them.
//!
//! What is decided on must be what the server understands. A body that two readers could take for two messages is
//! refused: several messages, repeated names, names that differ in case only, other encodings, and head fields that
//! say something else than the body.

pub mod answers;
pub mod discovery;
mod refusal;

use caracal_policies::McpCall;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};

pub use self::refusal::McpRefusal;
use crate::refusal::{Answer, Particulars};

/// Bytes of a posted message.
pub const MAX_MESSAGE: usize = 1024 * 1024;
/// Bytes of a posted message whose head does not say how long it is.
pub const MAX_UNDECLARED: usize = 64 * 1024;
/// Bytes of a method, a tool's name or a message's id: they come into records and answers.
const MAX_WORD: usize = 128;

/// The members of a message, a request's and a response's together.
const MEMBERS: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

/// One posted message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it does.
    pub call: McpCall,
    /// Its id; null for a notification.
    pub id: Value,
    /// The arguments of a tool call.
    pub arguments: Option<Value>,
}

/// Checks the head of a posted message and gives the length that it declares.
///
/// # Errors
/// [`McpRefusal::MediaType`] for anything but plain JSON, [`McpRefusal::TooLarge`] when it declares more than `most`.
pub fn declared_length(headers: &HeaderMap, most: usize) -> Result<Option<usize>, McpRefusal> {
    let mut kinds = headers.get_all(CONTENT_TYPE).iter();
    let json = kinds.next().is_some_and(is_json) && kinds.next().is_none();
    if !json || headers.contains_key(CONTENT_ENCODING) {
        return Err(McpRefusal::MediaType);
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        return Ok(None);
    }
    let Some(length) = headers.get(CONTENT_LENGTH) else { return Ok(None) };
    let length = length.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
    if length > most { Err(McpRefusal::TooLarge) } else { Ok(Some(length)) }
}

/// Whether a request other than `POST` brings a body: nothing would have read it.
#[must_use]
pub fn brings_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
}

/// Whether a media type is JSON in UTF-8.
fn is_json(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    let mut parts = text.split(';').map(str::trim);
    let json = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    json && parts.all(|parameter| {
        let charset = parameter.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("charset"));
        charset.is_none_or(|(_, set)| set.trim_matches('"').eq_ignore_ascii_case("utf-8"))
    })
}

/// Reads one posted message.
///
/// # Errors
/// [`McpRefusal::Batch`], [`McpRefusal::Malformed`], or [`McpRefusal::HeaderMismatch`] when `Mcp-Method` or `Mcp-Name`
/// say something else than the body.
pub fn read(body: &[u8], headers: &HeaderMap) -> Result<Message, McpRefusal> {
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(McpRefusal::Batch);
    }
    let mut members = caracal_mandates::json_object(body).ok_or(McpRefusal::Malformed)?;
    let mut message = understood(&members).ok_or(McpRefusal::Malformed)?;
    if let (Some(_), Some(Value::Object(params))) = (message.call.tool(), members.get_mut("params")) {
        message.arguments = params.remove("arguments");
    }
    let agrees = |name: &str, said: Option<&str>| {
        headers.get_all(name).iter().all(|value| Some(value.as_bytes()) == said.map(str::as_bytes))
    };
    let named = message.call.tool().is_none() || agrees("mcp-name", message.call.tool());
    if named && agrees("mcp-method", message.call.method()) {
        Ok(message)
    } else {
        Err(McpRefusal::HeaderMismatch)
    }
}

fn understood(members: &Map<String, Value>) -> Option<Message> {
    // No other names, so that a reader who overlooks case finds nothing else than this one.
    let known = members.keys().all(|name| MEMBERS.contains(&name.as_str()));
    if !known || members.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return None;
    }
    let id = match members.get("id") {
        None => Value::Null,
        Some(Value::String(id)) if id.len() <= MAX_WORD => json!(id),
        Some(Value::Number(id)) if id.is_i64() || id.is_u64() => json!(id),
        Some(_) => return None,
    };
    let answers = members.contains_key("result") || members.contains_key("error");
    let Some(method) = members.get("method") else {
        let one = members.contains_key("result") != members.contains_key("error");
        let whole = one && !members.contains_key("params") && !id.is_null();
        return whole.then_some(Message { call: McpCall::Response, id, arguments: None });
    };
    let method = method.as_str().filter(|method| is_word(method))?;
    let params = match members.get("params") {
        None => None,
        Some(Value::Object(params)) => Some(params),
        Some(_) => return None,
    };
    let notification = method.starts_with("notifications/");
    if answers || notification != id.is_null() {
        return None;
    }
    if method != "tools/call" {
        return Some(Message { call: McpCall::Method(method.into()), id, arguments: None });
    }
    let params = params?;
    let twice = params.keys().any(|name| name != "name" && name.eq_ignore_ascii_case("name"));
    let tool = params.get("name").and_then(Value::as_str).filter(|name| is_word(name))?;
    (!twice).then(|| Message { call: McpCall::Tool(tool.into()), id, arguments: None })
}

/// What methods and tools are called: bounded, and nothing that has to be escaped anywhere.
fn is_word(text: &str) -> bool {
    (1..=MAX_WORD).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte))
}

/// A refusal as an error of JSON-RPC, which MCP clients show to their users. `data` holds what other callers get.
#[must_use]
pub fn error(id: &Value, answer: &Answer, particulars: &Particulars) -> Value {
    let told: Value = serde_json::from_slice(&answer.body(particulars)).unwrap_or_default();
    let reason = told.get("error_description").and_then(Value::as_str).unwrap_or(answer.description);
    let message = format!("{reason} ({}): {}", answer.code, answer.next_step);
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code(answer), "message": message, "data": told } })
}

/// The number JSON-RPC wants beside our own code.
fn code(answer: &Answer) -> i32 {
    match answer.code {
        "mcp_message_invalid" | "mcp_batch" => -32600,
        // The number MCP gives to it.
        "mcp_header_mismatch" => -32020,
        _ if answer.status >= 500 => -32603,
        // Of the range that is left to implementations, and not one that MCP or its clients use.
        _ => -32050,
    }
}

/// The `WWW-Authenticate` value for a client that could find out where to get another token (RFC 9728 section 5.1).
///
/// A 403 for want of scopes names them (RFC 6750 section 3.1): the client may then ask for more.
#[must_use]
pub fn challenge(answer: &Answer, particulars: &Particulars, metadata: &str) -> Option<String> {
    let error = match answer.status {
        401 => answer.code.to_owned(),
        403 if !particulars.missing.is_empty() => {
            format!("insufficient_scope\", scope=\"{}", particulars.missing.join(" "))
        }
        _ => return None,
    };
    Some(format!("Bearer error=\"{error}\", resource_metadata=\"{metadata}\""))
}

#[cfg(test)]
mod tests;
