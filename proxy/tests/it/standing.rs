//! What was signed must still stand: sessions, delegations, applications, zones.

use std::time::Duration;

use serde_json::Value;

use crate::edge::{APP, Agent, Edge, ZONE, eventually};

async fn status(edge: &Edge, mandate: &str) -> u16 {
    edge.get("/read/a", mandate).send().await.unwrap().status().as_u16()
}

async fn delete(edge: &Edge, bearer: &str, session: &str) -> u16 {
    let url = format!("{}/zones/{ZONE}/agents/{session}", edge.coordinator());
    edge.http.delete(url).bearer_auth(bearer).send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ending_a_session_refuses_the_next_request_and_the_next_mint() {
    let edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let minted = agent.mint(&edge, &["echo:read"]).await;
    assert_eq!(delete(&edge, &agent.bearer, &agent.target).await, 204);
    assert_eq!(status(&edge, &minted).await, 401);
    let (mint, body) = agent.try_mint(&edge, &["echo:read"], &[]).await;
    assert_eq!((mint, body["error"].as_str()), (403, Some("access_denied")));
    assert_eq!(delete(&edge, &agent.bearer, &agent.target).await, 404);
    assert_eq!(edge.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoking_a_delegation_refuses_the_next_request() {
    let edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let minted = agent.mint(&edge, &["echo:read"]).await;
    let url = format!("{}/zones/{ZONE}/delegations/{}/revoke", edge.coordinator(), agent.edge_id);
    let revoked = edge.http.patch(url).bearer_auth(&agent.bearer).send().await.unwrap();
    assert_eq!(revoked.status(), 200);
    assert_eq!(revoked.json::<Value>().await.unwrap()["revoked_edges"], 1);
    assert_eq!(status(&edge, &minted).await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_stream_is_cut_when_its_session_ends_and_the_record_says_so() {
    let edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let minted = agent.mint(&edge, &["echo:read"]).await;
    let mut stream = edge.get("/read/sse", &minted).send().await.unwrap();
    assert_eq!(stream.chunk().await.unwrap().unwrap(), "data: one\n\n");
    assert_eq!(delete(&edge, &agent.bearer, &agent.source).await, 204);
    let end = tokio::time::timeout(Duration::from_secs(5), stream.chunk()).await.expect("the stream ends");
    assert!(end.is_err(), "a cut stream does not look complete");
    let interrupted = || async {
        let lines = edge.ledger().await;
        lines.iter().any(|line| {
            line["event_type"] == "gateway_resource_request"
                && line["evaluation_status"] == "interrupted"
                && line["metadata_json"]["revocation_interrupted"] == true
        })
    };
    eventually("the result record", interrupted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_zone_mints_and_forwards_nothing_until_it_is_unfrozen_even_over_a_restart() {
    let mut edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let minted = agent.mint(&edge, &["echo:read"]).await;
    let stream_mandate = agent.mint(&edge, &["echo:read"]).await;
    let mut stream = edge.get("/read/sse", &stream_mandate).send().await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some());
    edge.running().app.state.freeze(ZONE).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), stream.chunk()).await.unwrap().unwrap_err();
    let frozen = edge.get("/read/a", &minted).send().await.unwrap();
    assert_eq!(frozen.status(), 403);
    let body: Value = frozen.json().await.unwrap();
    assert_eq!(body["error_description"], "policy denied (restriction_active)");
    assert_eq!(agent.try_mint(&edge, &["echo:read"], &[]).await.0, 403);
    edge.stop().await;
    edge.boot(Default::default()).await.unwrap();
    assert_eq!(agent.try_mint(&edge, &["echo:read"], &[]).await.0, 403);
    edge.running().app.state.unfreeze(ZONE).await.unwrap();
    let again = agent.mint(&edge, &["echo:read"]).await;
    assert_eq!(status(&edge, &again).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_left_the_bundle_has_no_authority() {
    let edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let minted = agent.mint(&edge, &["echo:read"]).await;
    let without = edge
        .bundle_text()
        .replace(&format!("id = \"{APP}\""), "id = \"agent-9\"")
        .replace(&format!("one = \"{APP}\""), "one = \"agent-9\"");
    std::fs::write(edge.bundle(), without).unwrap();
    edge.running().app.reloader.reload().await;
    assert_eq!(status(&edge, &minted).await, 401);
    assert_eq!(agent.try_mint(&edge, &["echo:read"], &[]).await.0, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_takes_a_grant_away_bites_on_the_next_request() {
    let edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let minted = agent.mint(&edge, &["echo:read"]).await;
    let mut edge = edge;
    edge.plan.granted = vec!["echo:write"];
    edge.write_files();
    edge.running().app.reloader.reload().await;
    let denied = edge.get("/read/a", &minted).send().await.unwrap();
    assert_eq!(denied.status(), 403);
    let body: Value = denied.json().await.unwrap();
    assert_eq!(body["error_description"], "policy denied (role_scope_mismatch)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_signing_key_is_refused_from_the_next_request() {
    let edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let minted = agent.mint(&edge, &["echo:read"]).await;
    let app = &edge.running().app;
    let kid = app.keyring.zone(ZONE).unwrap().keys.kid().to_owned();
    app.keyring.revoke(ZONE, &kid, app.clock.now()).unwrap();
    assert_eq!(status(&edge, &minted).await, 401);
    let again = agent.mint(&edge, &["echo:read"]).await;
    assert_eq!(status(&edge, &again).await, 200, "the new key signs at once");
}
