//! Decisions as records hold them, put to another zone.

use caracal_policies::{Assigned, SourceFile, compile};
use serde_json::json;

use super::*;
use crate::snapshot::LiveZone;

const OPERATIONS: &str = r#"operations = [
  { method = "GET", path = "/**", scope = "r:read" },
  { method = "POST", path = "/**", scope = "r:write" },
]
"#;

fn source(roles: &str, more: &str) -> BundleSource {
    let operations = if more.contains("mcp") { "" } else { OPERATIONS };
    let text = format!(
        r#"schema = 1
[zone]
id = "z"
[[applications]]
id = "agent"
name = "Agent"
secrets = ["sha256$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
[[providers]]
identifier = "provider://open"
kind = "none"
[[resources]]
identifier = "resource://r"
upstream_url = "http://127.0.0.1:9000/v1"
scopes = ["r:read", "r:write"]
credential_provider = "provider://open"
{operations}{more}
[app_ids]
one = "agent"
[grants."resource://r"]
application = "one"
roles = {{ worker = [{roles}] }}
"#
    );
    BundleSource { root: "z.next.toml".into(), files: vec![SourceFile { path: "z.next.toml".into(), text }] }
}

fn zone(source: &BundleSource) -> Arc<Zone> {
    Arc::new(compile(source, "z", &Assigned::default()).unwrap_or_else(|report| panic!("{report}")))
}

fn rehearsal(active: &str, candidate: &str, more: &str) -> Arc<Rehearsal> {
    let (active, candidate) = (source(active, ""), source(candidate, more));
    let candidate = Candidate { zone: zone(&candidate), version: [7; 32], revision: None, source: candidate };
    Arc::new(Rehearsal::new(&live(&active), Arc::new(candidate), 1_000))
}

fn live(source: &BundleSource) -> LiveZone {
    let registry = caracal_plugins::Registry::stock();
    LiveZone::build(zone(source), &registry, 1, [1; 32], None).unwrap()
}

/// A recorded use of a mandate with both scopes.
fn used(method: &str, answer: &str) -> Event {
    let metadata = json!({
        "application_id": "agent", "resource": "resource://r", "method": method, "path": "/a",
        "scopes": ["r:read"], "target": ["resource://r"], "agent_labels": ["worker"],
        "agent_session_id": "s", "delegation_edge_id": "d", "delegation_scopes": ["r:read"],
        "policy": { "answer": answer, "input": 1 },
    });
    Event {
        event_type: "gateway_decision",
        request_id: "request-1".into(),
        decision: if answer == "allow" { "allow" } else { "deny" },
        diagnostics: json!([{ "reason": answer }]),
        metadata: metadata.as_object().unwrap().clone(),
        ..Event::default()
    }
}

fn hear(rehearsal: &Rehearsal, event: &Event) -> Value {
    rehearsal.hear(event, &Metrics::new().unwrap());
    rehearsal.report()
}

const BOTH: &str = "\"r:read\", \"r:write\"";

#[test]
fn a_decision_that_a_candidate_would_refuse_is_told_with_the_rule_and_its_place() {
    let rehearsal = rehearsal(BOTH, "\"r:write\"", "");
    let told = hear(&rehearsal, &used("GET", "allow"));
    let group = &told["groups"][0];
    assert_eq!(
        (&group["application"], &group["kind"], &group["what"]),
        (&json!("agent"), &json!("use"), &json!("GET /**")),
        "{told}"
    );
    assert_eq!((&group["from"], &group["to"]), (&json!("allow"), &json!("deny (role_scope_mismatch)")));
    assert_eq!(group["requests"], json!(["request-1"]));
    assert_eq!((&group["grounds"]["rule"], &group["grounds"]["place"]["line"]), (&json!("role"), &json!(25)));
    let counts = Counts { compared: 1, newly_allowed: 0, newly_denied: 1 };
    assert_eq!(rehearsal.counts(), counts);
    assert_eq!(
        told["changes"],
        json!(["application `agent` loses scope `r:read` on `resource://r` as `worker`"])
    );
}

#[test]
fn a_decision_that_a_candidate_would_allow_is_told_with_the_rule_that_refused_it() {
    let rehearsal = rehearsal("\"r:write\"", BOTH, "");
    let told = hear(&rehearsal, &used("GET", "role_scope_mismatch"));
    let group = &told["groups"][0];
    assert_eq!((&group["from"], &group["to"]), (&json!("deny (role_scope_mismatch)"), &json!("allow")));
    assert_eq!((&told["newly_allowed"], &group["grounds"]["rule"]), (&json!(1), &json!("role")), "{told}");
}

#[test]
fn what_cannot_be_compared_is_counted_by_why_and_nothing_else() {
    let mcp = "[resources.mcp]\npath = \"/mcp\"\nscope = \"r:read\"\n";
    let plugins = "plugins = [{ name = \"response_scrub\" }]\n";
    let guards = "[[resources.guards]]\nname = \"late\"\nwhen = \"method == 'PUT'\"\n";
    let old = |decision: &'static str, reason: &str| {
        let mut event = used("GET", "allow");
        event.metadata.remove("policy");
        Event { decision, diagnostics: json!([{ "reason": reason }]), ..event }
    };
    let newer = {
        let mut event = used("GET", "allow");
        event.metadata.insert("policy".into(), json!({ "answer": "allow", "input": 2 }));
        event
    };
    let cases = [
        ("", old("allow", ""), "no_input"),
        ("", old("deny", "role_scope_mismatch"), "no_input"),
        ("", old("deny", "replayed"), "before_policy"),
        ("", old("deny", "plugin_refused"), "before_policy"),
        ("", newer, "no_input"),
        (mcp, used("POST", "operation_not_permitted"), "message_not_read"),
        (plugins, used("GET", "allow"), "plugins"),
        (guards, used("GET", "allow"), "guards"),
        // The record says what the bundle does not answer.
        ("", used("GET", "confinement_violation"), "inexact"),
    ];
    for (more, event, why) in cases {
        let told = hear(&rehearsal(BOTH, BOTH, more), &event);
        assert_eq!(told["not_comparable"], json!({ why: 1 }), "{event:?}");
        assert_eq!((&told["compared"], &told["groups"]), (&json!(0), &json!([])));
    }
    let mut other = used("GET", "allow");
    other.event_type = "gateway_resource_request";
    let told = hear(&rehearsal(BOTH, BOTH, ""), &other);
    assert_eq!((&told["compared"], &told["not_comparable"]), (&json!(0), &json!({})), "no decision");
}

#[test]
fn a_mint_is_one_decision_over_all_of_its_resources_and_the_reach_of_its_delegation() {
    let mint = |answer: &str, more: Value| {
        let mut metadata = json!({
            "application_id": "agent", "resource": "resource://r", "resources": ["resource://r"],
            "requested_scopes": ["r:read"], "agent_labels": ["worker"], "agent_session_id": "s",
            "delegation_edge_id": "d", "delegation_scopes": ["r:read", "r:write"],
            "policy": { "answer": answer, "input": 1 },
        });
        metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Event {
            event_type: "token_exchange",
            metadata: metadata.as_object().unwrap().clone(),
            ..used("GET", answer)
        }
    };
    let same = rehearsal(BOTH, BOTH, "");
    let confined = |to: &str| json!({ "delegation_reach": [{ "named": [to] }] });
    for event in [
        mint("allow", json!({})),
        mint("allow", confined("resource://r")),
        mint("resource_outside_delegation", confined("resource://other")),
        mint("resource_outside_delegation", json!({ "delegation_reach": [{ "row": "another" }] })),
        mint("resource_not_granted", json!({ "resources": ["resource://r", "resource://none"] })),
        mint("reusable_mandate_not_allowed", json!({ "reusable": true })),
        mint("scope_mismatch", json!({ "requested_scopes": ["r:none"], "delegation_scopes": ["r:none"] })),
    ] {
        let (before, told) = (same.counts().compared, hear(&same, &event));
        assert_eq!(same.counts().compared, before + 1, "{told} {event:?}");
        assert_eq!(told["groups"], json!([]), "{event:?}");
    }
    let held = "[[risk]]\nscope = \"r:read\"\ntier = \"high\"\n[[approval_tiers]]\ntier = \"high\"\nttl_seconds = 900\n";
    let held = rehearsal(BOTH, BOTH, held);
    let told = hear(&held, &mint("allow", json!({})));
    assert_eq!((&told["newly_denied"], &told["groups"][0]["to"]), (&json!(1), &json!("approval")), "{told}");
    assert_eq!(told["groups"][0]["grounds"]["rule"], "tiers");
}

#[test]
fn differences_of_ever_new_kinds_do_not_fill_the_memory() {
    let rehearsal = rehearsal(BOTH, "\"r:write\"", "");
    let metrics = Metrics::new().unwrap();
    for number in 0..300 {
        let mut event = used("GET", "allow");
        // What a caller chooses.
        event.metadata.insert("mcp_tool".into(), json!(format!("tool-{number}")));
        rehearsal.hear(&event, &metrics);
        rehearsal.hear(&event, &metrics);
    }
    let told = rehearsal.report();
    assert_eq!(told["groups"].as_array().unwrap().len(), 256);
    assert_eq!((&told["ungrouped"], &told["newly_denied"]), (&json!(88), &json!(600)));
    let text = String::from_utf8(metrics.render().unwrap()).unwrap();
    let lines: Vec<&str> =
        text.lines().filter(|line| line.starts_with("caracal_decision_diff_total{")).collect();
    assert_eq!(
        lines,
        [
            "caracal_decision_diff_total{from=\"allow\",rule=\"role_scope_mismatch\",to=\"deny\",zone=\"z\"} 600"
        ]
    );
}

#[tokio::test]
async fn a_full_queue_drops_counts_and_never_waits() {
    let metrics = Arc::new(Metrics::new().unwrap());
    let queue = Arc::new(Queue::of(2, Arc::clone(&metrics)));
    let rehearsal = rehearsal(BOTH, BOTH, "");
    let plain = live(&source(BOTH, ""));
    assert!(queue.after(&plain, &used("GET", "allow")).is_none(), "no candidate, nothing is kept");
    let with = LiveZone { rehearsal: Some(Arc::clone(&rehearsal)), ..plain };
    for _ in 0..5 {
        drop(queue.after(&with, &used("GET", "allow")));
    }
    assert_eq!(rehearsal.report()["dropped"], 3);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move { queue.run(stopped).await }
    });
    let waiting = queue.after(&with, &used("GET", "allow"));
    let started = tokio::time::Instant::now();
    while rehearsal.counts().compared < 2 {
        assert!(started.elapsed().as_secs() < 20, "what waited is not asked");
        tokio::task::yield_now().await;
    }
    assert_eq!(rehearsal.counts().compared, 2, "a request that is under way is not asked about");
    drop(waiting);
    while rehearsal.counts().compared < 3 {
        assert!(started.elapsed().as_secs() < 20, "what came later is not asked");
        tokio::task::yield_now().await;
    }
    stop.send_replace(true);
    running.await.unwrap();
    let text = String::from_utf8(metrics.render().unwrap()).unwrap();
    assert!(text.contains("caracal_rehearsal_dropped_total{zone=\"z\"} 3"), "{text}");
    assert!(text.contains("caracal_rehearsal_compared_total{zone=\"z\"} 3"), "{text}");
}
