//! Mints that wait for a person, from the first request to the mandate.

use std::time::Duration;

use serde_json::{Value, json};

use crate::authority::testkit::{Kit, NOW, Provision, Reply, claims};
use crate::state::{HoldDecision, HoldState};

const BILLING: &str = "resource://billing";

async fn provision(kit: &Kit) -> Provision {
    kit.provision(&["invoice.read", "invoice.pay"], &json!({ "resources": [BILLING] })).await
}

async fn pay(kit: &Kit, held: &Provision, more: &[(&str, &str)]) -> Reply {
    kit.mint(&held.fields(BILLING, "invoice.pay", more)).await
}

async fn answer(kit: &Kit, id: &str, approved: bool) {
    let decision = HoldDecision { approved, at: kit.app.clock.now(), by: "operator:0".into(), reason: None };
    kit.app.state.decide_hold("z1", id, &decision).await.unwrap();
}

async fn state(kit: &Kit, id: &str) -> String {
    let reply = kit.get(&format!("/approvals/{id}")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.text("state")
}

#[tokio::test]
async fn a_tier_that_asks_holds_the_mint_until_a_person_said_yes_once() {
    let kit = Kit::new().await;
    let held = provision(&kit).await;
    let reply = pay(&kit, &held, &[]).await;
    assert_eq!(reply.told(), (401, "interaction_required"));
    assert_eq!(reply.headers["www-authenticate"], "Bearer error=\"interaction_required\"");
    let id = reply.text("approval_id");
    for (member, expected) in [("approval_type", "human_approval"), ("state", "pending"), ("tier", "high")] {
        assert_eq!(reply.text(member), expected);
    }
    assert_eq!(reply.text("binding").len(), 64);
    assert!(reply.text("approval_expires_at").ends_with('Z') && !reply.text("requestId").is_empty());
    assert_eq!(state(&kit, &id).await, "pending");
    let again = pay(&kit, &held, &[("approval_id", &id)]).await;
    assert_eq!((again.told(), again.text("approval_id")), ((401, "interaction_required"), id.clone()));
    let other = kit.mint(&held.fields(BILLING, "invoice.read", &[])).await;
    assert_eq!(other.status, 200, "what asks for nothing goes on: {other:?}");

    answer(&kit, &id, true).await;
    assert_eq!(state(&kit, &id).await, "approved");
    let minted = pay(&kit, &held, &[("approval_id", &id)]).await;
    assert_eq!(minted.status, 200, "{minted:?}");
    let first = claims(&minted.text("access_token"));
    let record = kit.app.state.live_record("z1", first["sid"].as_str().unwrap(), NOW).unwrap();
    assert!(record.approved);
    assert_eq!(state(&kit, &id).await, "consumed");

    let fresh = pay(&kit, &held, &[]).await;
    assert_eq!(fresh.told(), (401, "interaction_required"), "the next one is asked for anew");
    assert_ne!(fresh.text("approval_id"), id);

    let events = kit.ledger("z1").await;
    let of = |kind: &str| events.iter().filter(|event| event["event_type"] == kind).collect::<Vec<_>>();
    assert_eq!(of("step_up_issued").len(), 2);
    let consumed = of("step_up_consumed");
    assert_eq!(consumed.len(), 1);
    assert_eq!(consumed[0]["metadata_json"]["challenge_id"], json!(id));
    assert_eq!(consumed[0]["metadata_json"]["minted_sid"], first["sid"]);
}

#[tokio::test]
async fn a_caller_that_lost_its_answer_gets_a_token_for_the_same_record_for_two_minutes() {
    let kit = Kit::new().await;
    let held = provision(&kit).await;
    let id = pay(&kit, &held, &[]).await.text("approval_id");
    answer(&kit, &id, true).await;
    // Without naming it, too: the hold that stands is the one that was answered.
    let first = claims(&pay(&kit, &held, &[]).await.text("access_token"));
    kit.clock.advance(Duration::from_secs(119));
    let again = claims(&pay(&kit, &held, &[("approval_id", &id)]).await.text("access_token"));
    assert_eq!((&again["sid"], &again["root_sid"]), (&first["sid"], &first["root_sid"]));
    assert_ne!(again["jti"], first["jti"]);
    assert_eq!(again["exp"], first["exp"], "no longer than the record");
    kit.clock.advance(Duration::from_secs(2));
    assert_eq!(pay(&kit, &held, &[("approval_id", &id)]).await.told(), (409, "approval_consumed"));
}

#[tokio::test]
async fn a_no_holds_and_a_hold_that_is_over_is_worth_nothing() {
    let kit = Kit::new().await;
    let held = provision(&kit).await;
    let id = pay(&kit, &held, &[]).await.text("approval_id");
    answer(&kit, &id, false).await;
    for more in [vec![], vec![("approval_id", id.as_str())]] {
        let reply = pay(&kit, &held, &more).await;
        assert_eq!(reply.told(), (403, "access_denied"));
        assert_eq!(reply.text("error_description"), "the approval was rejected");
    }
    let held = provision(&kit).await;
    let id = pay(&kit, &held, &[]).await.text("approval_id");
    answer(&kit, &id, true).await;
    kit.clock.advance(Duration::from_secs(4 * 3_600));
    assert_eq!(state(&kit, &id).await, "expired", "a yes too");
}

#[tokio::test]
async fn an_approval_is_for_exactly_what_was_asked() {
    let kit = Kit::new().await;
    let (held, other) = (provision(&kit).await, provision(&kit).await);
    let id = pay(&kit, &held, &[]).await.text("approval_id");
    answer(&kit, &id, true).await;
    let wrong = "the approval is unknown or has expired";
    let more_scopes = held.fields(BILLING, "invoice.pay invoice.read", &[("approval_id", &id)]);
    let made_up = "8c9e6679-7425-40de-944b-e07fc1f90ae7";
    for reply in [
        kit.mint(&more_scopes).await,
        pay(&kit, &other, &[("approval_id", &id)]).await,
        pay(&kit, &held, &[("approval_id", made_up)]).await,
        pay(&kit, &held, &[("approval_id", "nonsense")]).await,
    ] {
        assert_eq!(
            (reply.told(), reply.text("error_description")),
            ((401, "access_denied"), wrong.to_owned())
        );
    }
    // Policy has the last word, whatever a person said.
    kit.rewrite(|text| {
        text.replace(
            "\"invoice.read\", \"invoice.write\", \"invoice.pay\"], reader",
            "\"invoice.read\"], reader",
        )
    })
    .await;
    let reply = pay(&kit, &held, &[("approval_id", &id)]).await;
    assert_eq!(reply.text("error_description"), "policy denied (role_scope_mismatch)");
    assert_eq!(
        kit.app.state.find_hold(&id).unwrap().state(NOW),
        HoldState::Approved,
        "and it is not used up"
    );
}

#[tokio::test]
async fn a_yes_survives_another_policy_and_not_another_tier() {
    let kit = Kit::new().await;
    let held = provision(&kit).await;
    let id = pay(&kit, &held, &[]).await.text("approval_id");
    answer(&kit, &id, true).await;
    kit.rewrite(|text| text.replace("reader = [\"invoice.read\"]", "reader = []")).await;
    assert_eq!(pay(&kit, &held, &[("approval_id", &id)]).await.status, 200, "that has nothing to do with it");
    let id = pay(&kit, &held, &[]).await.text("approval_id");
    answer(&kit, &id, true).await;
    kit.rewrite(|text| {
        text.replace(
            "[[approval_tiers]]\ntier = \"high\"",
            "[[approval_tiers]]\ntier = \"high\"\nttl_seconds = 61",
        )
    })
    .await;
    assert_eq!(pay(&kit, &held, &[("approval_id", &id)]).await.told(), (401, "access_denied"));
}

#[tokio::test]
async fn a_poll_ends_as_soon_as_there_is_an_answer() {
    let kit = Kit::new().await;
    let held = provision(&kit).await;
    let id = pay(&kit, &held, &[]).await.text("approval_id");
    for (path, status) in [
        ("/approvals/nonsense".to_owned(), 404),
        ("/approvals/8c9e6679-7425-40de-944b-e07fc1f90ae7".to_owned(), 404),
        (format!("/approvals/{id}?wait=soon"), 400),
        (format!("/approvals/{id}?wait=-1"), 400),
    ] {
        assert_eq!(kit.get(&path).await.status, status, "{path}");
    }
    assert_eq!(kit.get(&format!("/approvals/{id}?wait=1")).await.text("state"), "pending");
    let path = format!("/approvals/{id}?wait=25");
    let waiting = kit.get(&path);
    tokio::pin!(waiting);
    let first =
        std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await;
    assert!(first, "it waits");
    answer(&kit, &id, true).await;
    let reply = tokio::time::timeout(Duration::from_secs(4), waiting).await.expect("woken by the answer");
    assert_eq!(reply.json["state"], Value::from("approved"));
}
