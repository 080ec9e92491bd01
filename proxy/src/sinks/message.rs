//! What a sink is told, and what proves that it comes from this edge.

use aws_lc_rs::hmac;
use serde::Serialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::ledger::Record;
use crate::question::{POLICY, REACH};
use crate::state::iso;

/// The type of an event that an operator asked for.
const TEST: &str = "step_up_test";
/// What the ledger says of the request and its decision, and not of the approval.
const UNTOLD: [&str; 5] = ["client_ip", "client_request_id", "request", POLICY, REACH];

/// An event as a sink gets it. The order of the members is the one of the specification.
#[derive(Debug, Serialize)]
pub(super) struct Notice {
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) event_type: String,
    zone_id: String,
    decision: String,
    occurred_at: String,
    data: Map<String, Value>,
}

impl Notice {
    /// What the ledger says of an approval.
    pub(super) fn of(record: Record) -> Self {
        let mut data = record.metadata;
        data.retain(|name, _| !UNTOLD.contains(&&**name));
        if let Some(id) = data.get("challenge_id").cloned() {
            data.insert("approval_id".into(), id);
        }
        Self {
            id: record.id,
            event_type: record.event_type,
            zone_id: record.zone_id,
            decision: record.decision,
            occurred_at: record.occurred_at,
            data,
        }
    }

    /// An event of no approval.
    pub(super) fn test(zone: &str, sink: &str, now: i64) -> Self {
        Self {
            id: Uuid::now_v7().to_string(),
            event_type: TEST.to_owned(),
            zone_id: zone.to_owned(),
            decision: String::new(),
            occurred_at: iso(now),
            data: crate::state::object(json!({ "sink": sink })),
        }
    }
}

/// `v1=` and the HMAC-SHA256 over the unix seconds, a dot and the body, in hex. Source: spec 6.7.
pub(super) fn signature(secret: &str, seconds: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{seconds}.").as_bytes());
    context.update(body);
    format!("v1={}", hex::encode(context.sign()))
}
