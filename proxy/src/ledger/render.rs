//! One record on one line, for people.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::Record;

const RED: &str = "\u{1b}[31m";
const GREEN: &str = "\u{1b}[32m";
const YELLOW: &str = "\u{1b}[33m";
const DIM: &str = "\u{1b}[2m";
const PLAIN: &str = "\u{1b}[0m";

/// What people look for first, in this order.
const FIRST: [&str; 9] = [
    "application_id",
    "resource",
    "requested_scopes",
    "scopes",
    "method",
    "path",
    "gateway_status",
    "upstream_status",
    "latency_ms",
];

/// What a line leaves out: proofs, what another member says already, and detail for machines. `--json` has it all.
const LEFT_OUT: [&str; 28] = [
    "agent_depth",
    "agent_labels",
    "agent_lifecycle",
    "application_name",
    "application_registration_method",
    "auth_mode",
    "authority_record_id",
    "bundle",
    "bundle_generation",
    "decision_id",
    "delegation_graph_epoch",
    "delegation_hop_count",
    "delegation_path",
    "delegation_scopes",
    "generation",
    "head",
    "jti",
    "key",
    "manifest_sha",
    "public_key",
    "resources",
    "root_session_id",
    "secret_fingerprints",
    "secrets_generation",
    "session_id",
    "signature",
    "subject_kind",
    "target",
];

/// The record on one line: time, place, decision and reason, who did what, then ids and short facts.
///
/// Control characters are escaped, so that nothing a caller once sent can move the reader's cursor.
#[must_use]
pub fn render(record: &Record, colour: bool) -> String {
    let paint = |code: &'static str| if colour { code } else { "" };
    let decision = if record.decision.is_empty() { "-" } else { &record.decision };
    let tint = match decision {
        "allow" | "approved" | "consumed" => paint(GREEN),
        "deny" | "rejected" => paint(RED),
        "-" => paint(DIM),
        _ => paint(YELLOW),
    };
    let mut line = String::with_capacity(160);
    let (dim, plain) = (paint(DIM), paint(PLAIN));
    add(&mut line, format_args!("{dim}{}{plain} ", record.occurred_at));
    add(&mut line, format_args!("{}#{} ", clean(&record.zone_id), record.seq));
    add(&mut line, format_args!("{tint}{}{plain} {}", clean(decision), clean(&record.event_type)));
    if record.evaluation_status != "complete" {
        add(&mut line, format_args!(" {tint}{}{plain}", clean(&record.evaluation_status)));
    }
    let reasons = record.diagnostics.as_array().into_iter().flatten();
    for reason in reasons.filter_map(|diagnostic| diagnostic.get("reason").and_then(Value::as_str)) {
        if reason != record.evaluation_status {
            add(&mut line, format_args!(" {tint}{}{plain}", clean(reason)));
        }
    }
    for policy in record.determining_policies.as_array().into_iter().flatten() {
        add(
            &mut line,
            format_args!(" rule={}", clean(policy.get("policy").and_then(Value::as_str).unwrap_or("?"))),
        );
    }
    for (name, value) in in_order(&record.metadata) {
        if let Some(shown) = short(value) {
            add(&mut line, format_args!(" {dim}{}={plain}{shown}", clean(name)));
        }
    }
    if !record.request_id.is_empty() {
        add(&mut line, format_args!(" {dim}request={}{plain}", clean(&record.request_id)));
    }
    line
}

/// What [`FIRST`] names, then the rest but for what [`LEFT_OUT`] names.
fn in_order(metadata: &Map<String, Value>) -> impl Iterator<Item = (&str, &Value)> {
    let first = FIRST.iter().filter_map(|name| Some((*name, metadata.get(*name)?)));
    let rest = metadata.iter().map(|(name, value)| (name.as_str(), value));
    first.chain(rest.filter(|(name, _)| !FIRST.contains(name) && !LEFT_OUT.contains(name)))
}

/// A value that fits into a line: a scalar, or a list of words.
fn short(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(clean(text)),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(items) => {
            let words: Option<Vec<String>> = items.iter().map(|item| item.as_str().map(clean)).collect();
            words.filter(|words| !words.is_empty()).map(|words| words.join(","))
        }
        Value::Null | Value::Object(_) => None,
    }
}

/// Writing to a string cannot fail.
fn add(line: &mut String, text: std::fmt::Arguments<'_>) {
    line.write_fmt(text).ok();
}

fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() { out.extend(character.escape_default()) } else { out.push(character) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record() -> Record {
        Record {
            id: "d1".into(),
            zone_id: "quickstart".into(),
            event_type: "gateway_resource_request".into(),
            request_id: "r1".into(),
            decision: "deny".into(),
            evaluation_status: "role_scope_mismatch".into(),
            determining_policies: json!([{ "policy": "caracal-demo-use" }]),
            diagnostics: json!([]),
            metadata: json!({ "method": "GET", "status": 403, "signature": "ff" })
                .as_object()
                .unwrap()
                .clone(),
            occurred_at: "2026-01-01T00:00:00.000Z".into(),
            seq: 12,
            prev: String::new(),
            hash: String::new(),
        }
    }

    #[test]
    fn a_record_is_one_plain_line() {
        assert_eq!(
            render(&record(), false),
            "2026-01-01T00:00:00.000Z quickstart#12 deny gateway_resource_request role_scope_mismatch \
             rule=caracal-demo-use method=GET status=403 request=r1"
        );
    }

    #[test]
    fn a_denial_says_why_and_what_was_asked_before_everything_else() {
        let mut record = record();
        record.evaluation_status = "complete".into();
        record.diagnostics = json!([{ "reason": "role_scope_mismatch" }]);
        let metadata = json!({
            "agent_depth": 0, "application_id": "demo-agent", "caller": "demo-agent", "jti": "j",
            "requested_scopes": ["echo:read", "echo:write"], "resource": "resource://echo",
        });
        record.metadata = metadata.as_object().unwrap().clone();
        assert_eq!(
            render(&record, false),
            "2026-01-01T00:00:00.000Z quickstart#12 deny gateway_resource_request role_scope_mismatch \
             rule=caracal-demo-use application_id=demo-agent resource=resource://echo \
             requested_scopes=echo:read,echo:write caller=demo-agent request=r1"
        );
    }

    #[test]
    fn what_a_caller_sent_cannot_drive_the_terminal() {
        let mut record = record();
        record.request_id = "a\u{1b}[2J\nb\u{9b}".into();
        let line = render(&record, false);
        assert!(!line.chars().any(char::is_control), "{line}");
        assert!(render(&record, true).contains(RED));
    }
}
