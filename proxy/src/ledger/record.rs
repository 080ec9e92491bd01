//! One record: how an event becomes a chained line, and how a line is read back.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use uuid::{NoContext, Timestamp, Uuid};

use super::Event;
use super::canonical::{self, write_display, write_string};

/// `prev` of a chain's first record.
pub(super) const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Longest line written with its metadata; beyond it the record says how much was left out, in bytes.
pub(super) const MAX_RECORD: usize = 256 * 1024;

/// Signed statement about everything before it.
pub(super) const CHECKPOINT: &str = "checkpoint";
/// Introduces the key that signs from here on.
pub(super) const KEY: &str = "ledger_key";
/// Says that records may be missing before it.
pub(super) const GAP: &str = "gap";
/// Says that a torn last line was moved aside.
pub(super) const RECOVERED: &str = "recovered";
/// First record of a process, in the system chain.
pub(super) const OPENED: &str = "ledger_opened";
/// One or many requests refused before their caller was known.
pub(super) const EARLY: &str = "early_refusal";
/// `evaluation_status` of a result that nobody gave: the outcome is unknown.
pub(super) const ABORTED: &str = "aborted";

/// One record as it is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// UUIDv7; for a decision this is the decision id.
    pub id: String,
    /// The chain.
    pub zone_id: String,
    /// `token_exchange`, `gateway_resource_request`, `checkpoint`, ...
    pub event_type: String,
    /// The same in both records of a request.
    pub request_id: String,
    /// `allow`, `deny`, ...; empty for a record of the process itself.
    pub decision: String,
    /// `complete`, or why not.
    pub evaluation_status: String,
    /// Array of `{"policy": name}`.
    #[serde(rename = "determining_policies_json")]
    pub determining_policies: Value,
    /// Array.
    #[serde(rename = "diagnostics_json")]
    pub diagnostics: Value,
    /// Everything else.
    #[serde(rename = "metadata_json")]
    pub metadata: Map<String, Value>,
    /// RFC 3339, UTC, milliseconds.
    pub occurred_at: String,
    /// Place in the chain, from 1.
    pub seq: u64,
    /// `hash` of the record before, lower hex; zeros in the first.
    pub prev: String,
    /// SHA-256 of this record's canonical form without this member, lower hex.
    pub hash: String,
}

impl Event {
    /// A record of the ledger itself.
    pub(super) fn internal(
        event_type: &'static str,
        zone: &str,
        metadata: Map<String, Value>,
        now: i64,
    ) -> Self {
        Self {
            id: new_id(now),
            zone_id: zone.to_owned(),
            event_type,
            evaluation_status: "complete".into(),
            metadata,
            occurred_at: now,
            ..Self::default()
        }
    }
}

/// Appends the event's line, newline included, and answers its hash.
pub(super) fn write_line(out: &mut Vec<u8>, event: &Event, zone: &str, seq: u64, prev: &str) -> String {
    let start = out.len();
    let hash = write_with(
        out,
        event,
        zone,
        seq,
        prev,
        Extras { diagnostics: &event.diagnostics, metadata: &event.metadata },
    );
    let size = out.len().saturating_sub(start);
    if size <= MAX_RECORD {
        return hash;
    }
    out.truncate(start);
    let mut metadata = Map::new();
    metadata.insert("left_out_bytes".into(), json!(size));
    write_with(out, event, zone, seq, prev, Extras { diagnostics: &Value::Null, metadata: &metadata })
}

/// A new UUIDv7 for this moment.
pub(super) fn new_id(now: i64) -> String {
    let ms = u64::try_from(now).unwrap_or(0);
    let nanos = u32::try_from(ms % 1_000).unwrap_or(0).saturating_mul(1_000_000);
    Uuid::new_v7(Timestamp::from_unix(NoContext, ms / 1_000, nanos)).to_string()
}

/// RFC 3339 with milliseconds, UTC; times outside the years 0 to 9999 become the nearest one inside.
pub(super) fn timestamp(ms: i64) -> String {
    let nanos = i128::from(ms.clamp(-62_167_219_200_000, 253_402_300_799_999)).saturating_mul(1_000_000);
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.millisecond()
    )
}

pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

#[derive(Clone, Copy)]
struct Extras<'a> {
    diagnostics: &'a Value,
    metadata: &'a Map<String, Value>,
}

/// Writes members in canonical order by hand, which saves building and sorting a tree per record.
fn write_with(
    out: &mut Vec<u8>,
    event: &Event,
    zone: &str,
    seq: u64,
    prev: &str,
    extras: Extras<'_>,
) -> String {
    let start = out.len();
    out.extend_from_slice(b"{\"decision\":");
    write_string(out, event.decision);
    out.extend_from_slice(b",\"determining_policies_json\":[");
    for (position, policy) in event.determining_policies.iter().enumerate() {
        out.extend_from_slice(if position > 0 { b",{\"policy\":" } else { b"{\"policy\":" });
        write_string(out, policy);
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"diagnostics_json\":");
    write_diagnostics(out, extras.diagnostics);
    out.extend_from_slice(b",\"evaluation_status\":");
    write_string(out, &event.evaluation_status);
    out.extend_from_slice(b",\"event_type\":");
    write_string(out, event.event_type);
    out.push(b',');
    let place_of_hash = out.len();
    out.extend_from_slice(b"\"id\":");
    write_string(out, &event.id);
    out.extend_from_slice(b",\"metadata_json\":");
    let place = out.len();
    if canonical::write_map(out, extras.metadata).is_err() {
        out.truncate(place);
        // INVARIANT: what `tame` returns always has a canonical form.
        canonical::write(out, &canonical::tame(&Value::Object(extras.metadata.clone()))).ok();
    }
    write_display(
        out,
        format_args!(
            ",\"occurred_at\":\"{}\",\"prev\":\"{prev}\",\"request_id\":",
            timestamp(event.occurred_at)
        ),
    );
    write_string(out, &event.request_id);
    write_display(out, format_args!(",\"seq\":{seq},\"zone_id\":"));
    write_string(out, zone);
    out.push(b'}');
    let hash = sha256_hex(out.get(start..).unwrap_or_default());
    out.splice(place_of_hash..place_of_hash, format!("\"hash\":\"{hash}\",").into_bytes());
    out.push(b'\n');
    hash
}

fn write_diagnostics(out: &mut Vec<u8>, diagnostics: &Value) {
    let place = out.len();
    let written = match diagnostics {
        Value::Null => {
            out.extend_from_slice(b"[]");
            Ok(())
        }
        Value::Array(_) => canonical::write(out, diagnostics),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            canonical::write(out, &Value::Array(vec![diagnostics.clone()]))
        }
    };
    if written.is_err() {
        out.truncate(place);
        let tamed = canonical::tame(diagnostics);
        let list = if tamed.is_array() { tamed } else { Value::Array(vec![tamed]) };
        // INVARIANT: what `tame` returns has a canonical form also as the element of an array.
        canonical::write(out, &list).ok();
    }
}

/// What is wrong with a line by itself, without its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineProblem {
    NotARecord,
    NotCanonical,
    WrongHash,
}

impl LineProblem {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::NotARecord => "it is not a record",
            Self::NotCanonical => "it is not in canonical form",
            Self::WrongHash => "its hash does not match its content",
        }
    }
}

/// Reads a line and checks that it is exactly what a writer would have written for its content.
pub(super) fn check_line(line: &[u8]) -> Result<Record, LineProblem> {
    let Ok(Value::Object(mut members)) = serde_json::from_slice::<Value>(line) else {
        return Err(LineProblem::NotARecord);
    };
    let mut canonical = Vec::with_capacity(line.len());
    if canonical::write_record(&mut canonical, &members).is_err() || canonical != line {
        return Err(LineProblem::NotCanonical);
    }
    let Ok(record) = serde_json::from_slice::<Record>(line) else {
        return Err(LineProblem::NotARecord);
    };
    members.remove("hash");
    canonical.clear();
    match canonical::write_record(&mut canonical, &members) {
        Ok(()) if sha256_hex(&canonical) == record.hash => Ok(record),
        Ok(()) => Err(LineProblem::WrongHash),
        Err(_) => Err(LineProblem::NotCanonical),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            id: "0190".into(),
            zone_id: "z".into(),
            event_type: "token_exchange",
            request_id: "r\"1".into(),
            decision: "allow",
            evaluation_status: "complete".into(),
            determining_policies: vec!["a".into(), "b".into()],
            diagnostics: json!([{ "z": 1, "a": null }]),
            metadata: json!({ "b": 1, "a": { "y": "\n", "x": [true] } }).as_object().unwrap().clone(),
            occurred_at: 1_700_000_000_123,
        }
    }

    #[test]
    fn a_written_line_is_canonical_and_hashes_to_its_hash() {
        let mut out = Vec::new();
        let hash = write_line(&mut out, &event(), "z", 7, NO_HASH);
        assert_eq!(out.pop(), Some(b'\n'));
        let record = check_line(&out).unwrap();
        assert_eq!((record.seq, record.hash.as_str(), record.prev.as_str()), (7, hash.as_str(), NO_HASH));
        assert_eq!(record.occurred_at, "2023-11-14T22:13:20.123Z");
        assert_eq!(record.determining_policies, json!([{ "policy": "a" }, { "policy": "b" }]));
    }

    #[test]
    fn the_deepest_metadata_still_reads_back() {
        let mut deep = json!("bottom");
        for _ in 0..100 {
            deep = json!({ "d": deep });
        }
        let mut event = event();
        event.diagnostics = deep.clone();
        event.metadata.insert("deep".into(), deep);
        let mut out = Vec::new();
        write_line(&mut out, &event, "z", 1, NO_HASH);
        out.pop();
        check_line(&out).unwrap();
    }

    #[test]
    fn numbers_without_a_canonical_form_are_kept_as_text() {
        let mut event = event();
        event.metadata.insert("share".into(), json!(0.5));
        event.diagnostics = json!({ "big": u64::MAX });
        let mut out = Vec::new();
        write_line(&mut out, &event, "z", 1, NO_HASH);
        out.pop();
        let record = check_line(&out).unwrap();
        assert_eq!(record.metadata["share"], "0.5");
        assert_eq!(record.diagnostics, json!([{ "big": u64::MAX.to_string() }]));
    }

    #[test]
    fn an_oversized_record_says_how_much_was_left_out() {
        let mut event = event();
        event.metadata.insert("long".into(), json!("x".repeat(MAX_RECORD)));
        let mut out = Vec::new();
        write_line(&mut out, &event, "z", 1, NO_HASH);
        out.pop();
        let record = check_line(&out).unwrap();
        assert!(record.metadata["left_out_bytes"].as_u64().unwrap() > 262_144);
        assert_eq!(record.request_id, "r\"1");
    }

    #[test]
    fn times_outside_the_calendar_are_clamped() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp(i64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(timestamp(i64::MIN), "0000-01-01T00:00:00.000Z");
    }
}
