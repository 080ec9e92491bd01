//! One request and a person's yes for exactly it: what the yes is bound to, and what is shown of the request.
//!
//! The same request later means the same to everybody: method, target, content type and every byte of the body, by the
//! same application for the same session and delegation. The mandate is not part of it, because it is a new one each
//! time.

pub mod kept;
mod refusal;

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use caracal_policies::{Ask, Fired, Resource, TierDeclaration};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use serde_json::{Map, Value, json};

pub use self::refusal::ExactRefusal;
use super::forward;
use super::guards;
use super::mcp::McpRefusal;
use super::refusal::Refusal;
use crate::state::{ExactRequest, Hold, iso};

/// Carries the id of the approval that a request is made on.
pub const APPROVAL: &str = "x-caracal-approval";

/// Characters of a value that whoever answers is shown, and of a path.
const MOST_SHOWN: usize = 256;
const LONGEST_PATH: usize = 1_024;

/// A request that the guards of its resource hold.
#[derive(Debug)]
pub struct Asking<'a> {
    /// Its zone.
    pub zone: &'a Arc<str>,
    /// What it is for.
    pub resource: &'a Arc<Resource>,
    /// The application that sends it.
    pub application: &'a str,
    /// The session that it sends it for.
    pub session: Option<&'a str>,
    /// The delegation that it sends it through.
    pub delegation: Option<&'a str>,
    /// Its method.
    pub method: &'a str,
    /// Path and query as they were decided on.
    pub target: &'a str,
    /// Header fields as they are forwarded.
    pub headers: &'a HeaderMap,
    /// The tool that it calls, at an MCP server.
    pub tool: Option<&'a str>,
    /// Its body; empty without one.
    pub body: &'a [u8],
    /// The guards that ask, sorted by name.
    pub asked: &'a [Fired],
}

impl Asking<'_> {
    /// The declarations of the tiers that ask, each once.
    #[must_use]
    pub fn gate(&self) -> Vec<TierDeclaration> {
        let mut gate: Vec<_> = self.asks().map(|(_, ask)| ask.tier.clone()).collect();
        gate.sort_unstable();
        gate.dedup();
        gate
    }

    fn asks(&self) -> impl Iterator<Item = (&Fired, &Ask)> {
        self.asked.iter().filter_map(|fired| Some((fired, fired.guard.ask.as_ref()?)))
    }

    /// SHA-256 in hex over everything the yes is for: labelled sections, separated by NUL, none of which can hold one.
    ///
    /// # Errors
    /// [`Refusal::PathMalformed`], or [`McpRefusal::Malformed`] for a message that two readers could take for two.
    pub fn binding(&self) -> Result<String, Refusal> {
        let target = forward::target_without_key(self.resource, self.target)?;
        let body = if self.resource.mcp.is_some() && !self.body.is_empty() {
            message(self.body)?
        } else {
            hex::encode(digest(&SHA256, self.body))
        };
        let fields = |name: HeaderName| -> String {
            let values = self.headers.get_all(name).iter().map(|value| hex::encode(value.as_bytes()));
            values.collect::<Vec<_>>().join(",")
        };
        let guards = self.asks().map(|(fired, Ask { tier, show })| {
            json!({ "name": fired.guard.name, "when": fired.guard.when, "tier": tier, "show": show })
        });
        let guards = Value::from(guards.collect::<Vec<_>>()).to_string();
        let upstream = self.resource.upstream.to_string();
        let sections: [(&str, &str); 14] = [
            ("contract", "exact-request 1"),
            ("zone", self.zone),
            ("application", self.application),
            ("session", self.session.unwrap_or_default()),
            ("delegation", self.delegation.unwrap_or_default()),
            ("resource", &self.resource.identifier),
            ("upstream", &upstream),
            ("method", self.method),
            ("target", &target),
            ("content_type", &fields(CONTENT_TYPE)),
            ("content_encoding", &fields(CONTENT_ENCODING)),
            ("tool", self.tool.unwrap_or_default()),
            ("body", &body),
            ("guards", &guards),
        ];
        let text: Vec<String> = sections.iter().map(|(label, value)| format!("{label}\0{value}")).collect();
        Ok(hex::encode(digest(&SHA256, text.join("\0").as_bytes())))
    }

    /// What whoever answers is shown. `value` is the body, or the arguments of the tool, where the guards show some of it.
    #[must_use]
    pub fn shown(&self, value: Option<&Value>, decision: &str) -> ExactRequest {
        let path = self.target.split_once('?').map_or(self.target, |(path, _)| path);
        let kind = self.headers.get(CONTENT_TYPE).map(|kind| String::from_utf8_lossy(kind.as_bytes()));
        let mut pointers: Vec<&str> =
            self.asks().flat_map(|(_, ask)| ask.show.iter().map(|pointer| &**pointer)).collect();
        pointers.sort_unstable();
        pointers.dedup();
        let found = |pointer: &str| {
            let value = value.and_then(|value| value.pointer(pointer))?;
            Some(harmless(&value.to_string(), MOST_SHOWN))
        };
        ExactRequest {
            decision: decision.to_owned(),
            guards: self.asked.iter().map(|fired| Arc::clone(&fired.guard.name)).collect(),
            method: self.method.to_owned(),
            path: harmless(path, LONGEST_PATH),
            content_type: kind.map(|kind| harmless(&kind, MOST_SHOWN)),
            tool: self.tool.map(str::to_owned),
            body_bytes: u64::try_from(self.body.len()).unwrap_or(u64::MAX),
            body_sha256: hex::encode(digest(&SHA256, self.body)),
            shown: pointers
                .into_iter()
                .map(|pointer| (harmless(pointer, MOST_SHOWN), found(pointer)))
                .collect(),
        }
    }
}

/// The digest of a message to an MCP server without what differs each time it is sent: its id, and the token that its
/// progress is told by. Members are sorted and blanks are gone; numbers stay as they are written.
fn message(body: &[u8]) -> Result<String, Refusal> {
    let malformed = || Refusal::from(McpRefusal::Malformed);
    let mut members = caracal_mandates::json_object(body).ok_or_else(malformed)?;
    members.remove("id");
    if let Some(Value::Object(params)) = members.get_mut("params")
        && let Some(Value::Object(meta)) = params.get_mut("_meta")
    {
        meta.remove("progressToken");
        if meta.is_empty() {
            params.remove("_meta");
        }
    }
    let value = Value::Object(members);
    // What was read may be less than what was sent: a number that no double keeps would be another one.
    if !guards::is_plain(&value, body) {
        return Err(malformed());
    }
    Ok(hex::encode(digest(&SHA256, value.to_string().as_bytes())))
}

/// A text for a terminal: at most so many characters, and none that drives one or turns its lines around.
fn harmless(text: &str, most: usize) -> String {
    let drives = |character: char| {
        character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let mut shown = String::new();
    for character in text.chars().take(most) {
        if drives(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    if text.chars().nth(most).is_some() {
        shown.push('\u{2026}');
    }
    shown
}

/// What a held caller is told beside the error.
#[must_use]
pub fn told(hold: &Hold, now: i64) -> Map<String, Value> {
    let members = [
        ("approval_id", json!(hold.id)),
        ("approval_type", json!("exact_request")),
        ("state", json!(hold.state(now).as_str())),
        ("tier", json!(hold.tier)),
        ("binding", json!(hold.binding)),
        ("approval_expires_at", json!(iso(hold.expires_at))),
    ];
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests;
