//! What a person's session mandate is good for: a session that acts for that person.

use std::time::Duration;

use serde_json::{Value, json};

use super::issuer::{Issuer, Key};
use super::{claims, federate, kit, recorded};
use crate::authority::testkit::{self, Kit, OTHER_SECRET, Reply, SECRET};
use crate::state::Target;

/// A kit, the billing application's own mandate, and the mandates of two people.
struct Scene {
    kit: Kit,
    bearer: String,
    alice: String,
    bob: String,
    _issuer: Issuer,
}

impl Scene {
    async fn new() -> Self {
        let (issuer, key) = (Issuer::start().await, Key::new("k1", "ES256"));
        issuer.publish(&[&key]);
        let kit = kit(&issuer).await;
        let bearer = kit.lifecycle("billing-agent", SECRET, "resource://billing").await;
        let alice = federate(&kit, &key.token(&claims(&issuer, &kit))).await.text("access_token");
        let mut bobs = claims(&issuer, &kit);
        bobs["sub"] = json!("bob");
        let bob = federate(&kit, &key.token(&bobs)).await.text("access_token");
        Self { kit, bearer, alice, bob, _issuer: issuer }
    }

    async fn start(&self, more: Value) -> Reply {
        let mut body = json!({ "application_id": "billing-agent" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.kit.call("POST", "/zones/z1/agents", &self.bearer, &body).await
    }
}

fn sid(mandate: &str) -> String {
    testkit::claims(mandate)["sid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_acts_for_a_person_only_with_that_persons_mandate() {
    let scene = Scene::new().await;
    let alice = sid(&scene.alice);
    let own = sid(&scene.bearer);
    for (proof, status) in [
        (json!({}), 403),
        (json!({ "subject_token": "nonsense" }), 403),
        (json!({ "subject_token": scene.bob }), 403),
        (json!({ "subject_token": scene.bearer }), 403),
        (json!({ "subject_token": format!("{}x", scene.alice) }), 403),
        (json!({ "subject_token": scene.alice }), 201),
    ] {
        let mut body = proof;
        body["subject_session_id"] = json!(alice);
        let reply = scene.start(body).await;
        assert_eq!(reply.status, status, "{reply:?}");
        match status {
            201 => assert_eq!(reply.text("subject_authority_record_id"), alice),
            _ => assert_eq!(reply.told(), (403, "subject_proof_required")),
        }
    }
    let event = recorded(&scene.kit).await;
    assert_eq!((&event["event_type"], &event["decision"]), (&json!("session_start"), &json!("allow")));
    assert_eq!(event["metadata_json"]["subject_authority_record_id"], alice);
    let mine = scene.start(json!({ "subject_session_id": own })).await;
    assert_eq!(mine.status, 201, "an application needs no proof for its own record: {mine:?}");
    let nobody = scene.start(json!({ "subject_session_id": "nobody", "subject_token": scene.alice })).await;
    assert_eq!(nobody.told(), (404, "session_not_found"));
}

#[tokio::test]
async fn a_proof_that_has_expired_is_none() {
    let scene = Scene::new().await;
    scene.kit.clock.advance(Duration::from_secs(890));
    let body = json!({ "subject_session_id": sid(&scene.alice), "subject_token": scene.alice });
    assert_eq!(scene.start(body.clone()).await.status, 201);
    scene.kit.clock.advance(Duration::from_secs(10));
    let bearer = scene.kit.lifecycle("billing-agent", SECRET, "resource://billing").await;
    let late = Scene { bearer, ..scene };
    assert_eq!(late.start(body).await.told(), (403, "subject_proof_required"));
}

#[tokio::test]
async fn a_session_dies_with_the_authority_of_the_person_it_acts_for() {
    let scene = Scene::new().await;
    let alice = sid(&scene.alice);
    let body = json!({ "subject_session_id": alice, "subject_token": scene.alice });
    let started = scene.start(body.clone()).await.text("agent_session_id");
    let (state, now) = (&scene.kit.app.state, scene.kit.clock.now());
    assert!(state.live_session("z1", &started, now).is_some());
    state.revoke("z1", &Target::Record(alice.as_str().into()), "test").await.unwrap();
    assert!(state.live_session("z1", &started, now).is_none());
    let again = scene.start(body).await;
    assert_eq!(again.told(), (404, "session_not_found"), "{again:?}");
}

#[tokio::test]
async fn a_persons_mandate_opens_nothing_by_itself() {
    let scene = Scene::new().await;
    let listed = scene.kit.call("GET", "/zones/z1/agents", &scene.alice, &Value::Null).await;
    assert_eq!(listed.told(), (403, "missing_scope"));
    let access = ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token");
    let fields = [("subject_token", &*scene.alice), access, ("resource", "resource://billing")];
    assert_eq!(scene.kit.mint(&fields).await.told(), (403, "access_denied"));
    let record = sid(&scene.alice);
    let fields = [("resource", "resource://billing"), ("scope", "agent:lifecycle"), ("session_id", &*record)];
    assert_eq!(scene.kit.mint(&fields).await.told(), (403, "access_denied"));
    let other = [("application_id", "other-agent"), ("client_secret", OTHER_SECRET)];
    assert_eq!(scene.kit.mint(&[&other[..], &fields].concat()).await.told(), (403, "access_denied"));
}
