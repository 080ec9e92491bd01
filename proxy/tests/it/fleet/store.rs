//! Two nodes on one Redis and one Postgres: an agent may be sent from one to the other at any step.

use super::*;
use crate::edge::{bootstrap, post, session};
use crate::postgres::{PASSWORD, Postgres};

/// As [`pair`], with one store for both.
async fn sharing(redis: &Redis, postgres: &Postgres) -> (Edge, Edge) {
    sharing_with(redis, postgres, Plan::default()).await
}

/// As [`sharing`], with the bundle of a plan.
async fn sharing_with(redis: &Redis, postgres: &Postgres, plan: Plan) -> (Edge, Edge) {
    let mut first = node(Upstream::start().await, redis);
    (first.plan.resource, first.plan.zone, first.plan.granted) = (
        format!("{}\n{}", first.plan.resource, plan.resource),
        format!("{}\n{}", first.plan.zone, plan.zone),
        if plan.granted.is_empty() { first.plan.granted.clone() } else { plan.granted },
    );
    first.write_files();
    first.plan.config.push_str(&postgres.lines());
    write_private(&first.path("pg.password"), PASSWORD);
    first.boot(ServeOptions::default()).await.unwrap();
    first.stop().await;
    // The copy is of the zones' keys; nothing else of the folder is shared.
    let mut second = node(first.upstream.clone(), redis);
    second.plan.clone_from(&first.plan);
    second.dir = tempfile::TempDir::new().unwrap();
    let from = format!("{}/.", first.dir.path().display());
    let copied =
        std::process::Command::new("cp").args(["-a", &from]).arg(second.dir.path()).status().unwrap();
    assert!(copied.success());
    for edge in [&mut first, &mut second] {
        edge.boot(ServeOptions::default()).await.unwrap();
    }
    (first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_of_an_agent_may_be_taken_on_another_node() {
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let (first, second) = sharing(&redis, &postgres).await;
    for (one, two) in [(&first, &second), (&second, &first)] {
        let bearer = bootstrap(one).await;
        let source = session(two, &bearer, serde_json::json!({})).await.unwrap();
        let target = session(one, &bearer, serde_json::json!({ "parent_id": source })).await.unwrap();
        let (status_code, body) = post(
            two,
            &bearer,
            "/delegations",
            serde_json::json!({
                "issuer_application_id": APP, "receiver_application_id": APP,
                "source_session_id": source, "target_session_id": target,
                "constraints": { "resources": [crate::edge::ECHO] }, "scopes": ["echo:read"], "ttl_seconds": 600,
            }),
        )
        .await
        .unwrap();
        assert_eq!(status_code, 201, "{body}");
        let edge_id = body["delegation_edge_id"].as_str().unwrap().to_owned();
        let agent = Agent { bearer, source, target, edge_id };
        let mandate = agent.mint(one, &["echo:read"]).await;
        assert_eq!(status(two, &mandate).await, 200, "minted there a moment ago, used here");
        assert_eq!(status(one, &mandate).await, 401, "and only once");
        let again = reusable(two, &agent).await;
        assert_eq!((status(one, &again).await, status(two, &again).await), (200, 200));
        end_session(one, &agent).await;
        eventually("the end bites on the other", async || status(two, &again).await == 401).await;
        assert_eq!(agent.try_mint(two, &["echo:read"], &[]).await.0, 403);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_acknowledged_before_it_was_killed_is_there_on_the_other() {
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let (mut first, second) = sharing(&redis, &postgres).await;
    let agent = Agent::provision(&first, &["echo:read"]).await;
    let unused = agent.mint(&first, &["echo:read"]).await;
    let mut started = Vec::new();
    for _ in 0..20 {
        started.push(session(&first, &agent.bearer, serde_json::json!({})).await.unwrap());
    }
    first.crash().await;
    for id in &started {
        let url = format!("{}/zones/{ZONE}/agents/{id}", second.coordinator());
        let found = second.http.get(url).bearer_auth(&agent.bearer).send().await.unwrap();
        assert_eq!(found.status(), 200);
    }
    assert_eq!(status(&second, &unused).await, 200, "even a mandate that was not used yet");
    let mandate = agent.mint(&second, &["echo:read"]).await;
    assert_eq!(status(&second, &mandate).await, 200);
    // The killed one comes back, and knows what happened meanwhile.
    let later = session(&second, &agent.bearer, serde_json::json!({})).await.unwrap();
    first.boot(ServeOptions::default()).await.unwrap();
    let url = format!("{}/zones/{ZONE}/agents/{later}", first.coordinator());
    assert_eq!(first.http.get(url).bearer_auth(&agent.bearer).send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_postgres_is_restarted_calls_go_on_what_needs_it_is_refused_and_it_recovers_by_itself() {
    let (redis, mut postgres) = (Redis::start().await, Postgres::start().await);
    let (first, second) = sharing(&redis, &postgres).await;
    let agent = Agent::provision(&first, &["echo:read"]).await;
    let again = reusable(&first, &agent).await;
    assert_eq!((status(&first, &again).await, status(&second, &again).await), (200, 200));
    let metric = async |wanted: &str| {
        let text = first.http.get(format!("{}/metrics", first.ops())).send().await.unwrap().text().await;
        text.unwrap().contains(wanted)
    };
    eventually("shown as up", async || metric("caracal_store_up 1").await).await;
    postgres.kill();
    for edge in [&first, &second] {
        let (code, body) = agent.try_mint(edge, &["echo:read"], &[]).await;
        assert_eq!((code, body["error"].as_str()), (503, Some("sts_unavailable")), "{body}");
        let asked = serde_json::json!({ "application_id": APP });
        let (code, body) = post(edge, &agent.bearer, "/agents", asked).await.unwrap();
        assert_eq!((code, body["error"].as_str()), (503, Some("state_unavailable")), "{body}");
        assert_eq!(status(edge, &again).await, 200, "what is known goes on");
        assert_eq!(ready(edge).await.0, 200);
    }
    eventually("shown as away", async || metric("caracal_store_up 0").await).await;
    // A revocation of that time bites at once on both, and is in the store when it is back.
    end_or_unavailable(&first, &agent).await;
    eventually("it bites on the other", async || status(&second, &again).await == 401).await;
    postgres.run().await;
    for edge in [&first, &second] {
        let bearer = &agent.bearer;
        let back = async || session_status(edge, bearer).await == 201;
        eventually("it recovers by itself", back).await;
    }
    eventually("shown as up again", async || metric("caracal_store_up 1").await).await;
    let fresh = Agent::provision(&second, &["echo:read"]).await;
    assert_eq!(status(&first, &fresh.mint(&second, &["echo:read"]).await).await, 200);
}

async fn session_status(edge: &Edge, bearer: &str) -> u16 {
    post(edge, bearer, "/agents", serde_json::json!({ "application_id": APP })).await.unwrap().0
}

async fn end_or_unavailable(edge: &Edge, agent: &Agent) {
    let url = format!("{}/zones/{ZONE}/agents/{}", edge.coordinator(), agent.target);
    let ended = edge.http.delete(url).bearer_auth(&agent.bearer).send().await.unwrap();
    assert_eq!(ended.status(), 503, "told that it is not committed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_use_the_store_does_not_start_and_says_why_without_the_password() {
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let mut edge = node(Upstream::start().await, &redis);
    edge.plan.config.push_str(&postgres.lines());
    write_private(&edge.path("pg.password"), PASSWORD);
    edge.boot(ServeOptions::default()).await.unwrap();
    edge.stop().await;
    std::fs::remove_file(edge.path("pg.password")).unwrap();
    let refused = edge.boot(ServeOptions::default()).await.unwrap_err().to_string();
    assert!(refused.contains("url_password_file") && refused.contains("pg.password"), "{refused}");
    write_private(&edge.path("pg.password"), "canary-wrong-1f7e");
    let refused = edge.boot(ServeOptions::default()).await.unwrap_err().to_string();
    assert!(refused.contains("connect to the shared store"), "{refused}");
    assert!(refused.contains("password authentication failed"), "{refused}");
    assert!(!refused.contains("canary-wrong-1f7e"), "{refused}");
    write_private(&edge.path("pg.password"), PASSWORD);
    edge.boot(ServeOptions::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_a_person_approved_is_made_once_by_two_nodes() {
    use crate::exact::{GUARD, answer, pay, plan};
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let (first, second) = sharing_with(&redis, &postgres, plan(GUARD)).await;
    let agent = Agent::provision(&first, &["echo:write"]).await;
    for round in 1..=3 {
        let body = format!("{{\"amount\":{}}}", 5_000 + round);
        let id = pay(&first, &agent, &body).await.id();
        assert_eq!(pay(&second, &agent, &body).await.id(), id, "asked once");
        answer(&second, &id, true).await;
        let (one, two) = tokio::join!(pay(&first, &agent, &body), pay(&second, &agent, &body));
        let mut both = [one.status, two.status];
        both.sort_unstable();
        assert_eq!(both, [200, 409], "{one:?} {two:?}");
        assert_eq!(first.upstream.count(), round, "both nodes send there");
    }
}
