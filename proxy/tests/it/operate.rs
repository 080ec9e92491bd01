//! Operators at work on a running edge, through its real control socket.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use caracal::control::{ControlError, Request, Which, call, socket_path};
use caracal::state::{Extent, SessionStatus, Target};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::edge::{APP, Agent, ECHO, Edge, Plan, ZONE, eventually};

/// Generous: what is counted is streams, not milliseconds.
const SOON: Duration = Duration::from_secs(5);

async fn try_ask(edge: &Edge, request: Request) -> Result<Value, ControlError> {
    call(&socket_path(&edge.path("state")), &request).await
}

async fn ask(edge: &Edge, request: Request) -> Value {
    try_ask(edge, request).await.unwrap()
}

fn revocation(target: Target, dry_run: bool) -> Request {
    Request::Revoke { zone: None, target, reason: None, dry_run }
}

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn claim(token: &str, name: &str) -> std::sync::Arc<str> {
    claims(token)[name].as_str().unwrap().into()
}

async fn stream(edge: &Edge, mandate: &str) -> reqwest::Response {
    let mut stream = edge.get("/read/sse", mandate).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    assert_eq!(stream.chunk().await.unwrap().unwrap(), "data: one\n\n");
    stream
}

async fn is_cut(mut stream: reqwest::Response) -> bool {
    tokio::time::timeout(SOON, stream.chunk()).await.is_ok_and(|chunk| chunk.is_err())
}

/// What to revoke, from a mandate and the agent that has it.
type Aim = Box<dyn Fn(&str, &Agent) -> Target>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_revocation_cuts_the_streams_that_stand_on_it_and_no_other() {
    let edge = Edge::start().await;
    let application = |extent| move |_: &str, _: &Agent| Target::Application { id: APP.into(), extent };
    let kinds: [(&str, Aim); 7] = [
        ("record", Box::new(|token, _| Target::Record(claim(token, "sid")))),
        ("root", Box::new(|token, _| Target::Root(claim(token, "root_sid")))),
        ("session", Box::new(|_, agent| Target::Session(agent.source.as_str().into()))),
        ("delegation", Box::new(|_, agent| Target::Delegation(agent.edge_id.as_str().into()))),
        ("subject", Box::new(|token, _| Target::Subject(claim(token, "sub")))),
        ("cut", Box::new(application(Extent::Cut))),
        ("application", Box::new(application(Extent::Block))),
    ];
    for (kind, target) in kinds {
        let (agent, other) =
            (Agent::provision(&edge, &["echo:read"]).await, Agent::provision(&edge, &["echo:read"]).await);
        let token = agent.mint(&edge, &["echo:read"]).await;
        let unused = agent.mint(&edge, &["echo:read"]).await;
        let doomed = stream(&edge, &token).await;
        let apart = stream(&edge, &other.mint(&edge, &["echo:read"]).await).await;
        let everything = ["subject", "cut", "application"].contains(&kind);

        let plan = ask(&edge, revocation(target(&token, &agent), true)).await;
        assert_eq!(plan["counts"]["requests"], if everything { 2 } else { 1 }, "{kind}: {plan}");
        assert_eq!(edge.running().app.live.count(), 2, "{kind}: a plan ends nothing");
        assert!(
            edge.running()
                .app
                .state
                .live_session(ZONE, &agent.source, edge.running().app.clock.now())
                .is_some()
        );

        let done = ask(&edge, revocation(target(&token, &agent), false)).await;
        for part in ["counts", "records", "sessions", "delegations"] {
            assert_eq!(plan[part], done[part], "{kind}");
        }
        assert!(is_cut(doomed).await, "{kind}");
        let gone = edge.get("/read/a", &unused).send().await.unwrap().status();
        assert_eq!(gone, if ["record", "root"].contains(&kind) { 200 } else { 401 }, "{kind}");
        if everything {
            assert!(is_cut(apart).await, "{kind}");
        } else {
            eventually("the cut request is gone", async || edge.running().app.live.count() <= 1).await;
            assert_eq!(edge.running().app.live.count(), 1, "{kind}: the other stream goes on");
            drop(apart);
        }
        eventually("no request is in flight", async || edge.running().app.live.count() == 0).await;
        if kind == "application" {
            assert_eq!(
                edge.try_token(&[("resource", ECHO), ("scope", "agent:lifecycle")]).await.unwrap().0,
                403
            );
            ask(&edge, Request::RestoreApplication { zone: ZONE.into(), application: APP.into() }).await;
        }
    }
    let acts = edge.ledger_with("operator_revoke", 7).await;
    let acts: Vec<&Value> = acts.iter().filter(|line| line["event_type"] == "operator_revoke").collect();
    assert_eq!(acts.len(), 7, "plans are no acts");
    let uid = rustix::process::geteuid().as_raw();
    for act in &acts {
        let about = &act["metadata_json"];
        assert_eq!(about["operator_uid"], uid);
        assert!(about["counts"]["requests"].as_u64().unwrap() >= 1, "{about}");
    }
    assert_eq!(acts[2]["metadata_json"]["reason"], "session_revoked");
    assert_eq!(acts[2]["metadata_json"]["sessions"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_idle_streams_are_all_cut_by_one_revocation() {
    const STREAMS: usize = 500;
    let mut edge = Edge::with(Plan::default()).await;
    edge.http = reqwest::Client::builder().timeout(Duration::from_secs(120)).build().unwrap();
    let roomy =
        edge.bundle_text().replace("name = \"Agent one\"", "name = \"Agent one\"\nmax_concurrent = 1000");
    std::fs::write(edge.bundle(), roomy).unwrap();
    ask(&edge, Request::Reload).await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS / 25 {
        let opened = join_all((0..25).map(|_| async {
            let mandate = agent.mint(&edge, &["echo:read"]).await;
            stream(&edge, &mandate).await
        }));
        streams.extend(opened.await);
    }
    assert_eq!(edge.running().app.live.count(), STREAMS);
    let done = ask(&edge, revocation(Target::Session(agent.source.as_str().into()), false)).await;
    assert_eq!(done["counts"]["requests"], STREAMS);
    let cut = join_all(streams.into_iter().map(is_cut)).await;
    assert_eq!(cut.iter().filter(|cut| **cut).count(), STREAMS);
    eventually("no request is in flight", async || edge.running().app.live.count() == 0).await;
    let lines = edge.ledger_with("gateway_resource_request", STREAMS).await;
    let interrupted = lines.iter().filter(|line| line["metadata_json"]["revocation_interrupted"] == true);
    assert_eq!(interrupted.count(), STREAMS, "each says so in the ledger");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_outlives_a_restart_and_says_why() {
    let mut edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let target = Target::Session(agent.target.as_str().into());
    let reason = Some("left the company".to_owned());
    ask(&edge, Request::Revoke { zone: Some(ZONE.into()), target: target.clone(), reason, dry_run: false })
        .await;
    edge.stop().await;
    edge.boot(caracal::serve::ServeOptions::default()).await.unwrap();
    let shown = ask(&edge, Request::Session { zone: None, id: agent.target.clone() }).await;
    assert_eq!((&shown["status"], &shown["end_reason"]), (&json!("terminated"), &json!("left the company")));
    assert_eq!(shown["received"][0]["status"], "revoked");
    assert_eq!(agent.try_mint(&edge, &["echo:read"], &[]).await.0, 403);
    let again = try_ask(&edge, revocation(target, false)).await.unwrap_err();
    assert_eq!(again.to_string(), "there is no such session, or it has ended");
    let reason = Some("two\nlines".to_owned());
    let target = Target::Session(agent.source.as_str().into());
    let refused = try_ask(&edge, Request::Revoke { zone: None, target, reason, dry_run: false }).await;
    refused.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_listed_filtered_and_shown_with_what_they_hold() {
    let edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let state = &edge.running().app.state;
    let list = |which| Request::Sessions { zone: Some(ZONE.into()), which, limit: 100 };
    let listed = ask(&edge, list(Which::Standing)).await;
    let rows = listed["sessions"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().any(|row| row["id"] == json!(agent.source)));
    let row = rows.iter().find(|row| row["id"] == json!(agent.target)).unwrap();
    assert_eq!(
        (&row["labels"], &row["received_live"], &row["hops_left"]),
        (&json!([APP]), &json!(1), &json!(0))
    );
    state.suspend_session(ZONE, &agent.source, &caracal::state::Caller::Operator).await.unwrap();
    let suspended = ask(&edge, list(Which::Only(SessionStatus::Suspended))).await;
    assert_eq!(suspended["sessions"][0]["id"], json!(agent.source));
    let few = ask(&edge, Request::Sessions { zone: None, which: Which::All, limit: 1 }).await;
    assert_eq!((few["sessions"].as_array().unwrap().len(), &few["more"]), (1, &json!(true)));
    let shown = ask(&edge, Request::Session { zone: None, id: agent.source.clone() }).await;
    assert_eq!(shown["given"][0]["id"], json!(agent.edge_id));
    assert_eq!(shown["given"][0]["usable"], false, "its giver is suspended");
    assert_eq!(shown["acts_for"]["subject"], APP);
    try_ask(&edge, Request::Session { zone: None, id: "nobody".into() }).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_session_can_is_what_a_mint_gives_it() {
    let mut edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read", "echo:write"]).await;
    let told = async |edge: &Edge| ask(edge, Request::WhatCan { zone: None, id: agent.target.clone() }).await;
    let agree = async |edge: &Edge, answer: &Value| {
        let resource = &answer["delegations"][0]["authority"][0];
        for scope in ["echo:read", "echo:write"] {
            let granted = resource["granted"].as_array().is_some_and(|list| list.contains(&json!(scope)));
            assert_eq!(agent.try_mint(edge, &[scope], &[]).await.0 == 200, granted, "{scope}: {answer}");
        }
    };
    let before = told(&edge).await;
    agree(&edge, &before).await;
    let resource = &before["delegations"][0]["authority"][0];
    assert_eq!(
        (&resource["granted"], &resource["rule"]),
        (&json!(["echo:read"]), &json!("caracal-one-mint"))
    );
    assert_eq!(resource["refused"], json!([{ "code": "role_scope_mismatch", "scopes": ["echo:write"] }]));
    assert_eq!(before["session_mandates"], json!([ECHO]));

    edge.plan.granted = vec!["echo:write", "echo:read"];
    edge.write_files();
    ask(&edge, Request::Reload).await;
    let after = told(&edge).await;
    agree(&edge, &after).await;
    assert_eq!(after["delegations"][0]["authority"][0]["granted_together"], true);

    let giver = ask(&edge, Request::WhatCan { zone: None, id: agent.source.clone() }).await;
    assert_eq!(giver["delegations"], json!([]));
    let application = ask(&edge, Request::WhatCan { zone: None, id: APP.into() }).await;
    assert_eq!(application["roles"][0]["label"], APP);
    assert_eq!(application["roles"][0]["authority"][0]["granted"], json!(["echo:read", "echo:write"]));
    let other = ask(&edge, Request::WhatCan { zone: None, id: "agent-2".into() }).await;
    assert_eq!((&other["roles"], &other["session_mandates"]), (&json!([]), &json!([])));

    ask(&edge, Request::Freeze { zone: ZONE.into() }).await;
    let frozen = told(&edge).await;
    assert_eq!(frozen["refused"], "restriction_active");
    agree(&edge, &frozen).await;
    ask(&edge, Request::Unfreeze { zone: ZONE.into() }).await;
    edge.running()
        .app
        .state
        .suspend_session(ZONE, &agent.source, &caracal::state::Caller::Operator)
        .await
        .unwrap();
    let broken = told(&edge).await;
    assert_eq!(
        (&broken["refused"], &broken["delegations"][0]["refused"]),
        (&Value::Null, &json!("delegation_inactive"))
    );
    agree(&edge, &broken).await;
    try_ask(&edge, Request::WhatCan { zone: None, id: "nobody".into() }).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_names_the_guards_of_what_is_granted_and_no_others() {
    let guard = |name: &str, more: &str| {
        format!("[[resources.guards]]\nname = \"{name}\"\nwhen = 'path.endsWith(\"x\")'\n{more}\n")
    };
    let resource = [
        guard("reads", "operations = [\"GET /read/**\"]"),
        guard("writes", "operations = [\"POST /write/**\"]"),
        guard("tried", "mode = \"shadow\""),
        guard("all", ""),
    ];
    let edge = Edge::with(Plan { resource: resource.concat(), ..Plan::default() }).await;
    let told = ask(&edge, Request::WhatCan { zone: None, id: APP.into() }).await;
    let guards = told["roles"][0]["authority"][0]["guards"].as_array().unwrap();
    let names: Vec<_> = guards.iter().map(|guard| guard["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["all", "reads"], "{told}");
    assert!(guards[0]["place"].as_str().unwrap().contains(".toml:"), "{told}");
}
