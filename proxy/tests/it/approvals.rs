//! A call that a person has to approve first: asked, answered on the command line's socket, made once, and with the
//! edge killed between any two steps.

use std::time::Duration;

use caracal::control::{Request, call, socket_path};
use caracal::serve::ServeOptions;
use serde_json::{Value, json};

use crate::edge::{APP, Agent, ECHO, Edge, Plan, ZONE};

fn plan() -> Plan {
    let zone = "[[risk]]\nscope = \"echo:write\"\ntier = \"high\"\n\n\
                [[approval_tiers]]\ntier = \"high\"\nttl_seconds = 900\n";
    Plan { zone: zone.to_owned(), granted: vec!["echo:read", "echo:write"], ..Plan::default() }
}

async fn ask(edge: &Edge, request: Request) -> Result<Value, String> {
    call(&socket_path(&edge.path("state")), &request).await.map_err(|error| error.to_string())
}

async fn answer(edge: &Edge, id: &str, approved: bool) -> Result<Value, String> {
    let reason = Some("checked".to_owned());
    ask(edge, Request::DecideApproval { id: id.to_owned(), approved, reason }).await
}

async fn write(edge: &Edge, mandate: &str) -> u16 {
    let request = edge
        .http
        .post(format!("{}/write/a", edge.gateway()))
        .header("x-caracal-resource", ECHO)
        .bearer_auth(mandate)
        .body("x");
    request.send().await.unwrap().status().as_u16()
}

async fn kill(edge: &mut Edge) {
    edge.crash().await;
    edge.boot(ServeOptions::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_yes_is_good_for_one_call_through_crashes_at_every_step() {
    let mut edge = Edge::with(plan()).await;
    let agent = Agent::provision(&edge, &["echo:read", "echo:write"]).await;
    let (status, held) = agent.try_mint(&edge, &["echo:write"], &[]).await;
    assert_eq!((status, held["error"].as_str()), (401, Some("interaction_required")), "{held}");
    let id = held["approval_id"].as_str().unwrap().to_owned();
    kill(&mut edge).await;
    let listed = ask(&edge, Request::Approvals { zone: None, all: false }).await.unwrap();
    let row = &listed["approvals"][0];
    assert_eq!(
        (&row["id"], &row["application"], &row["scopes"]),
        (&json!(id), &json!(APP), &json!(["echo:write"]))
    );
    assert_eq!((&row["state"], &row["binding"]), (&json!("pending"), &held["binding"]));
    let done = answer(&edge, &id, true).await.unwrap();
    assert_eq!(done["state"], "approved");
    let events = edge.ledger().await;
    let decided: Vec<_> = events.iter().filter(|event| event["event_type"] == "step_up_decided").collect();
    assert_eq!(decided[0]["decision"], "approved");
    assert_eq!(decided[0]["zone_id"], ZONE);
    assert_eq!(decided[0]["metadata_json"]["challenge_id"], json!(id));
    assert_eq!(decided[0]["metadata_json"]["approver_plane"], "operator");
    assert_eq!(decided[0]["metadata_json"]["reason"], "checked");
    kill(&mut edge).await;
    let url = format!("{}/approvals/{id}?wait=5", edge.authority());
    let told: Value = edge.http.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(told["state"], "approved");
    let (status, minted) = agent.try_mint(&edge, &["echo:write"], &[("approval_id", &id)]).await;
    assert_eq!(status, 200, "{minted}");
    let mandate = minted["access_token"].as_str().unwrap();
    assert_eq!(
        write(&edge, mandate).await,
        200,
        "the approval stands in the record, which the call looks up"
    );
    assert_eq!(write(&edge, mandate).await, 401, "once");
    kill(&mut edge).await;
    let refused = answer(&edge, &id, true).await.unwrap_err();
    assert!(refused.contains("it is consumed"), "{refused}");
    let (status, held) = agent.try_mint(&edge, &["echo:write"], &[]).await;
    assert_eq!(
        (status, held["error"].as_str()),
        (401, Some("interaction_required")),
        "the next one is asked anew"
    );
    assert_ne!(held["approval_id"], json!(id));
    assert!(answer(&edge, "nothing", true).await.unwrap_err().contains("caracal approvals list"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_no_and_a_revocation_end_what_waits() {
    let edge = Edge::with(plan()).await;
    let agent = Agent::provision(&edge, &["echo:read", "echo:write"]).await;
    let (_, held) = agent.try_mint(&edge, &["echo:write"], &[]).await;
    answer(&edge, held["approval_id"].as_str().unwrap(), false).await.unwrap();
    let (status, refused) = agent.try_mint(&edge, &["echo:write"], &[]).await;
    assert_eq!((status, refused["error_description"].as_str()), (403, Some("the approval was rejected")));
    // What was approved is worth nothing once the session it was for has ended.
    let agent = Agent::provision(&edge, &["echo:read", "echo:write"]).await;
    let (_, held) = agent.try_mint(&edge, &["echo:write"], &[]).await;
    let id = held["approval_id"].as_str().unwrap();
    answer(&edge, id, true).await.unwrap();
    let url = format!("{}/zones/{ZONE}/agents/{}", edge.coordinator(), agent.target);
    assert_eq!(edge.http.delete(url).bearer_auth(&agent.bearer).send().await.unwrap().status(), 204);
    assert_eq!(agent.try_mint(&edge, &["echo:write"], &[("approval_id", id)]).await.0, 403);
    assert_eq!(edge.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mandate_from_before_the_tier_was_declared_is_not_good_for_the_scope_any_more() {
    let edge = Edge::with(Plan { granted: vec!["echo:read", "echo:write"], ..Plan::default() }).await;
    let agent = Agent::provision(&edge, &["echo:read", "echo:write"]).await;
    let before = agent.mint(&edge, &["echo:write"]).await;
    let text = format!("{}{}", edge.bundle_text(), plan().zone);
    std::fs::write(edge.bundle(), text).unwrap();
    ask(&edge, Request::Reload).await.unwrap();
    assert_eq!(write(&edge, &before).await, 403);
    let (status, held) = agent.try_mint(&edge, &["echo:write"], &[]).await;
    assert_eq!((status, held["error"].as_str()), (401, Some("interaction_required")));
    let waiting = edge.http.get(format!(
        "{}/approvals/{}?wait=25",
        edge.authority(),
        held["approval_id"].as_str().unwrap()
    ));
    let waiting = tokio::spawn(waiting.send());
    answer(&edge, held["approval_id"].as_str().unwrap(), true).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("woken by the answer");
    let told: Value = told.unwrap().unwrap().json().await.unwrap();
    assert_eq!(told["state"], "approved");
}
