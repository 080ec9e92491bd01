//! Approvals of single requests outlive the process at every step, and are used up once.

use caracal::serve::ServeOptions;

use super::*;

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
