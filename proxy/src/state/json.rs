//! The wire shape of rows, and the one timestamp form clients read: ISO 8601 with milliseconds and `Z`.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use super::model::{Constraints, Delegation, Session};

/// `2026-01-02T03:04:05.678Z` for unix milliseconds.
#[must_use]
pub fn iso(ms: i64) -> String {
    let shape = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms).saturating_mul(1_000_000))
        .ok()
        .and_then(|at| at.format(shape).ok())
        .unwrap_or_default()
}

/// Unix milliseconds of an RFC 3339 timestamp.
#[must_use]
pub fn parse_iso(text: &str) -> Option<i64> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}

impl Session {
    /// One item of a list, and the answer to a single read.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut row = self.facts();
        row.insert("metadata".into(), self.metadata.clone());
        row.insert("terminated_at".into(), json!(self.terminated_at.map(iso)));
        row.insert("termination_reason".into(), json!(self.termination_reason));
        Value::Object(row)
    }

    /// One item of a children list: a row without the members about its end.
    #[must_use]
    pub fn to_child_json(&self) -> Value {
        let mut row = self.facts();
        row.insert("metadata".into(), self.metadata.clone());
        Value::Object(row)
    }

    /// The answer to a start.
    #[must_use]
    pub fn to_started_json(&self, delegation: Option<&Delegation>) -> Value {
        let mut row = self.facts();
        row.insert("delegation_edge_id".into(), json!(delegation.map(|edge| &*edge.id)));
        Value::Object(row)
    }

    /// The answer to a heartbeat; `active_invocations` is what the holder reported.
    #[must_use]
    pub fn to_heartbeat_json(&self, active_invocations: u32) -> Value {
        let heard = self.last_heartbeat_at.map(iso);
        json!({
            "agent": {
                "id": self.id,
                "zone_id": self.zone,
                "application_id": self.application,
                "status": self.status.as_str(),
                "last_active_at": heard,
                "last_heartbeat_at": heard,
                "heartbeat_deadline_at": self.heartbeat_deadline_at.map(iso),
                "lease_generation": self.lease_generation,
            },
            "service": null,
            "active_invocations": active_invocations,
        })
    }

    /// The answer to a lease.
    #[must_use]
    pub fn to_lease_json(&self) -> Value {
        json!({
            "status": self.status.as_str(),
            "heartbeat_deadline_at": self.heartbeat_deadline_at.map(iso),
            "lease_generation": self.lease_generation,
        })
    }

    fn facts(&self) -> Map<String, Value> {
        let facts = json!({
            "agent_session_id": self.id,
            "zone_id": self.zone,
            "application_id": self.application,
            "parent_id": self.parent,
            "subject_authority_record_id": self.subject_record,
            "lifecycle": self.lifecycle.as_str(),
            "labels": self.labels,
            "status": self.status.as_str(),
            "depth": self.depth,
            "ttl_seconds": self.ttl_seconds,
            "started_at": iso(self.started_at),
            "last_heartbeat_at": self.last_heartbeat_at.map(iso),
            "heartbeat_deadline_at": self.heartbeat_deadline_at.map(iso),
            "lease_generation": self.lease_generation,
        });
        object(facts)
    }
}

impl Delegation {
    /// One item of a list. `id` is what list readers look for, `delegation_edge_id` the name everywhere else.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "delegation_edge_id": self.id,
            "zone_id": self.zone,
            "source_session_id": self.source_session,
            "target_session_id": self.target_session,
            "issuer_application_id": self.issuer_application,
            "receiver_application_id": self.receiver_application,
            "parent_edge_id": self.parent,
            "resource_id": self.resource_id,
            "scopes": self.scopes,
            "constraints_json": self.constraints.to_json(),
            "status": self.status.as_str(),
            "expires_at": iso(self.expires_at),
            "edge_version": self.version,
            "revoked_at": self.revoked_at.map(iso),
            "created_at": iso(self.created_at),
        })
    }

    /// One item of the active list: a row with its `broad_reason` beside it.
    #[must_use]
    pub fn to_active_json(&self) -> Value {
        let mut row = object(self.to_json());
        row.insert("broad_reason".into(), json!(self.constraints.broad_reason));
        Value::Object(row)
    }
}

impl Constraints {
    /// Only the members that are set.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let all = json!({
            "resources": (!self.resources.is_empty()).then_some(&self.resources),
            "max_hops": self.max_hops,
            "ttl_seconds": self.ttl_seconds,
            "budget": self.budget,
            "expires_at": self.expires_at.map(iso),
            "policy_approved": self.policy_approved,
            "broad_reason": self.broad_reason,
        });
        Value::Object(object(all).into_iter().filter(|(_, value)| !value.is_null()).collect())
    }
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(map) = value { map } else { Map::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_have_milliseconds_and_zulu_and_read_back() {
        assert_eq!(iso(1_790_000_000_007), "2026-09-21T14:13:20.007Z");
        assert_eq!(parse_iso("2026-09-21T14:13:20.007Z"), Some(1_790_000_000_007));
        assert_eq!(parse_iso("2026-09-21T16:13:20.007+02:00"), Some(1_790_000_000_007));
        assert_eq!(parse_iso("tomorrow"), None);
    }

    #[test]
    fn unset_constraints_are_left_out() {
        let constraints = Constraints { max_hops: Some(0), ..Constraints::default() };
        assert_eq!(constraints.to_json(), json!({ "max_hops": 0 }));
    }
}
