use serde_json::json;

use super::message::{Notice, signature};
use super::work::pause;
use crate::ledger::Record;

/// Source: spec, known vectors.
#[test]
fn the_signature_is_the_one_that_receivers_know() {
    let secret = format!("nsk_{}", "ab".repeat(24));
    let body = br#"{"id":"e1","type":"step_up_issued"}"#;
    assert_eq!(
        signature(&secret, 1_790_000_000, body),
        "v1=5e040a86bced6a8346a314267d7fdfacb1368deab5fa8706a88fce6b217af4e2"
    );
}

#[test]
fn a_pause_doubles_up_to_a_quarter_of_an_hour() {
    let pauses: Vec<i64> = (1..=8).map(|attempts| pause(attempts) / 1_000).collect();
    assert_eq!(pauses, [30, 60, 120, 240, 480, 900, 900, 900]);
}

#[test]
fn a_sink_gets_whatever_the_ledger_says_of_an_approval_and_nothing_of_the_request() {
    let record: Record = serde_json::from_value(json!({
        "id": "e1", "zone_id": "z", "event_type": "step_up_whatever_comes", "request_id": "r", "decision": "pending",
        "evaluation_status": "complete", "determining_policies_json": [], "diagnostics_json": [],
        "metadata_json": {
            "challenge_id": "c", "tier": "high", "new_field": [1], "client_ip": "10.0.0.1", "policy": {}, "request": {},
        },
        "occurred_at": "2026-11-24T15:30:00.000Z", "seq": 3, "prev": "", "hash": "",
    }))
    .unwrap();
    assert_eq!(
        serde_json::to_string(&Notice::of(record)).unwrap(),
        r#"{"id":"e1","type":"step_up_whatever_comes","zone_id":"z","decision":"pending","occurred_at":"2026-11-24T15:30:00.000Z","data":{"approval_id":"c","challenge_id":"c","new_field":[1],"tier":"high"}}"#
    );
}
