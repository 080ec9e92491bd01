//! Which requests get a permit.

use std::sync::Arc;

use caracal_policies::{
    DenyReason, EdgeFacts, Failure, Guarding, Path, Permit, Presented, Refused, UseRequest, Zone,
};

use crate::bundles::{SINGLE, zone};

/// A request of `agent` that carries `scope`.
struct Call<'a> {
    application: &'a str,
    labels: &'a [&'a str],
    scope: &'a str,
    target: &'a str,
    method: &'a str,
    path: &'a str,
    approved: bool,
}

const READ: Call<'static> = Call {
    application: "agent",
    labels: &["reader"],
    scope: "echo:read",
    target: "resource://echo",
    method: "GET",
    path: "/read/a",
    approved: false,
};

fn authorize(zone: &Zone, resource: &str, call: &Call<'_>) -> Result<Permit, Refused> {
    let labels: Vec<Arc<str>> = call.labels.iter().map(|label| Arc::from(*label)).collect();
    let path = Path::parse(call.path).unwrap();
    let target = [call.target.to_owned()];
    let forwarded = format!("/base{}?q=1", call.path);
    zone.authorize(
        zone.resource(resource).unwrap(),
        &UseRequest {
            application: call.application,
            labels: &labels,
            edge: Some(EdgeFacts { id: "edge", scopes: &[] }),
            agent_session_id: Some("session"),
            presented: Presented { delegation_edge_id: Some("edge"), scope: call.scope, target: &target },
            method: call.method,
            path: &path,
            target: &forwarded,
            call: None,
            approved: call.approved,
            guards: Guarding::Elsewhere,
        },
    )
}

fn refused(zone: &Zone, resource: &str, call: &Call<'_>) -> Refused {
    match authorize(zone, resource, call) {
        Ok(permit) => panic!("{permit:?}"),
        Err(refused) => refused,
    }
}

#[test]
fn a_permit_holds_what_was_decided() {
    let permit = authorize(&zone(SINGLE), "r-1", &READ).unwrap();
    assert_eq!(permit.resource().identifier.as_ref(), "resource://echo");
    assert_eq!((permit.method(), permit.target()), ("GET", "/base/read/a?q=1"));
    assert_eq!(permit.rule().to_string(), "caracal-demo-use");
    assert_eq!(permit.scope().map(AsRef::as_ref), Some("echo:read"));
    assert!(!format!("{permit:?}").contains("q=1"), "no query in a debug text");
}

#[test]
fn without_an_operation_nothing_is_forwarded() {
    let zone = zone(SINGLE);
    for (method, path) in
        [("GET", "/"), ("GET", "/read"), ("GET", "/read/"), ("PUT", "/read/a"), ("get", "/read/a")]
    {
        let call = Call { method, path, ..READ };
        assert_eq!(
            refused(&zone, "r-1", &call),
            Refused::OperationNotPermitted { needs: None },
            "{method} {path}"
        );
    }
}

#[test]
fn the_most_specific_operation_names_the_scope() {
    let zone = zone(SINGLE);
    let call = Call { labels: &["writer"], scope: "echo:write", method: "POST", path: "/write/7", ..READ };
    let permit = authorize(&zone, "r-1", &call).unwrap();
    assert_eq!(permit.scope().map(AsRef::as_ref), Some("echo:write"));
    let call = Call { path: "/write/all", ..call };
    let needs = Some(Arc::from("echo:admin"));
    assert_eq!(refused(&zone, "r-1", &call), Refused::OperationNotPermitted { needs });
}

#[test]
fn the_operation_floor_comes_before_the_policy() {
    let call = Call { application: "other", path: "/nowhere", ..READ };
    assert_eq!(refused(&zone(SINGLE), "r-1", &call), Refused::OperationNotPermitted { needs: None });
}

#[test]
fn a_uniform_resource_looks_at_no_operation() {
    let call = Call {
        application: "other",
        scope: "open:any",
        target: "resource://open",
        method: "PATCH",
        path: "/any//thing",
        ..READ
    };
    let permit = authorize(&zone(SINGLE), "resource://open", &call).unwrap();
    assert_eq!((permit.rule().to_string().as_str(), permit.scope()), ("caracal-second-use", None));
}

#[test]
fn the_policy_refuses_with_its_reason() {
    let zone = zone(SINGLE);
    for (call, reason) in [
        (Call { application: "other", ..READ }, DenyReason::ResourceNotGranted),
        (Call { labels: &[], ..READ }, DenyReason::RoleScopeMismatch),
        (Call { target: "resource://open", ..READ }, DenyReason::MandateTargetMismatch),
    ] {
        assert_eq!(refused(&zone, "r-1", &call), Refused::Denied(reason));
    }
}

#[test]
fn confinement_of_today_holds_for_scopes_minted_before() {
    let zone = zone(SINGLE);
    let call = Call { labels: &["writer", "sandbox-1"], scope: "echo:read echo:write", ..READ };
    assert_eq!(refused(&zone, "r-1", &call), Refused::Denied(DenyReason::ConfinementViolation));
    let permit = authorize(&zone, "r-1", &Call { scope: "echo:read", ..call }).unwrap();
    assert_eq!(permit.rule().to_string(), "caracal-demo-use");
}

#[test]
fn a_tier_of_today_is_met_by_the_recorded_approval_alone() {
    let zone = zone(SINGLE);
    let call = Call { labels: &["ops"], scope: "echo:admin", method: "POST", path: "/write/all", ..READ };
    assert_eq!(refused(&zone, "r-1", &call), Refused::ApprovalRequired);
    let permit = authorize(&zone, "r-1", &Call { approved: true, ..call }).unwrap();
    assert_eq!(permit.scope().map(AsRef::as_ref), Some("echo:admin"));
}

#[test]
fn a_frozen_zone_forwards_nothing() {
    let frozen = zone(&SINGLE.replace("schema = 1", "schema = 1\nrestrict = [\"x\"]"));
    assert_eq!(refused(&frozen, "r-1", &READ), Refused::Denied(DenyReason::RestrictionActive));
}

#[test]
fn a_resource_of_another_generation_is_refused() {
    let (older, newer) = (zone(SINGLE), zone(SINGLE));
    let path = Path::parse("/read/a").unwrap();
    let labels = [Arc::from("reader")];
    let target = ["resource://echo".to_owned()];
    let answer = newer.authorize(
        older.resource("r-1").unwrap(),
        &UseRequest {
            application: "agent",
            labels: &labels,
            edge: None,
            agent_session_id: None,
            presented: Presented { delegation_edge_id: Some("e"), scope: "echo:read", target: &target },
            method: "GET",
            path: &path,
            target: "/read/a",
            call: None,
            approved: false,
            guards: Guarding::Elsewhere,
        },
    );
    let resource = Arc::from("resource://echo");
    assert_eq!(answer.unwrap_err(), Refused::Failed(Failure::ForeignResource { resource }));
}
