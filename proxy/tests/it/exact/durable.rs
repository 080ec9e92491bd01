//! Approvals of single requests outlive the process at every step, and are used up once.

use std::process::Child;

use caracal::serve::ServeOptions;

use super::*;
use crate::crash::{outside, ready, spawn};

async fn kill(edge: &mut Edge) {
    edge.crash().await;
    edge.boot(ServeOptions::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_after_any_step_loses_no_question_no_answer_and_no_use() {
    let (mut edge, agent) = bench().await;
    let held = pay(&edge, &agent, LARGE).await;
    let id = held.id();
    kill(&mut edge).await;
    assert_eq!(pay(&edge, &agent, LARGE).await.id(), id, "after it was asked");
    answer(&edge, &id, true).await;
    kill(&mut edge).await;
    assert_eq!(pay(&edge, &agent, LARGE).await.status, 200, "after the yes");
    assert_eq!(edge.upstream.count(), 1);
    kill(&mut edge).await;
    // What came of it is lost with the process, and the use is not.
    let again = pay(&edge, &agent, LARGE).await;
    assert_eq!((again.status, again.error().as_str()), (409, "approval_consumed"), "{again:?}");
    assert_eq!(pay_on(&edge, &agent, LARGE, &id).await.error(), "approval_consumed");
    assert_eq!(edge.upstream.count(), 1);
    let issued = events(&edge, "step_up_issued").await;
    assert_eq!(issued[0]["metadata_json"]["decision_id"], held.json()["decision_id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_it_is_made_does_not_make_it_twice() {
    let any = r#"{ name = "any", when = "true", operations = ["POST /write/**"], effect = "approval", tier = "large" }"#;
    let (mut edge, agent) = with(plan(any)).await;
    let id = got(request(&edge, &agent, "/write/slow", "x").await).await.id();
    answer(&edge, &id, true).await;
    let underway = tokio::spawn(request(&edge, &agent, "/write/slow", "x").await.send());
    crate::edge::eventually("it reached the upstream", async || edge.upstream.count() == 1).await;
    let meanwhile = got(request(&edge, &agent, "/write/slow", "x").await).await;
    assert_eq!((meanwhile.status, meanwhile.error().as_str()), (409, "approval_consumed"));
    kill(&mut edge).await;
    underway.await.unwrap().unwrap_err();
    let again = got(request(&edge, &agent, "/write/slow", "x").await).await;
    assert_eq!((again.status, again.error().as_str()), (409, "approval_consumed"));
    assert_eq!(edge.upstream.count(), 1);
}

/// The binary as a process of its own, and another one after it.
async fn kill_9(edge: &Edge, process: &mut Child) {
    process.kill().unwrap();
    process.wait().unwrap();
    *process = spawn(&edge.path("caracal.toml"));
    ready(edge).await;
    crate::edge::eventually("its socket is open", async || ask(edge, Request::Status).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_the_binary_after_any_step_neither_loses_a_yes_nor_uses_it_twice() {
    let mut edge = outside().await;
    let guarded = plan(GUARD);
    (edge.plan.resource, edge.plan.zone, edge.plan.granted) =
        (guarded.resource, guarded.zone, guarded.granted);
    edge.write_files();
    let mut process = spawn(&edge.path("caracal.toml"));
    ready(&edge).await;
    let agent = Agent::provision(&edge, &BOTH).await;
    for round in 1..=5 {
        let body = LARGE.replace("acme", &format!("acme-{round}"));
        let id = pay(&edge, &agent, &body).await.id();
        kill_9(&edge, &mut process).await;
        answer(&edge, &id, true).await;
        kill_9(&edge, &mut process).await;
        assert_eq!(pay_on(&edge, &agent, &body, &id).await.status, 200);
        kill_9(&edge, &mut process).await;
        assert_eq!(pay_on(&edge, &agent, &body, &id).await.error(), "approval_consumed");
        assert_eq!(edge.upstream.count(), round);
    }
    process.kill().unwrap();
    process.wait().unwrap();
}
