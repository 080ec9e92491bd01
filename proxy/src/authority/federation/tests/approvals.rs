//! The person an agent works for answers what is held for that person.

use serde_json::{Value, json};

use super::issuer::{Issuer, Key};
use super::{claims, federate, kit};
use crate::authority::testkit::{self, Kit, Reply, SECRET, delegation};
use crate::state::{ExactRequest, Hold};

struct Scene {
    kit: Kit,
    issuer: Issuer,
    key: Key,
    bearer: String,
}

/// A held mint: its id, its binding, and the session it is for.
struct Held {
    id: String,
    binding: String,
    fields: Vec<(String, String)>,
}

impl Scene {
    /// With a tier that asks `approver`, and says this much of who answered.
    async fn new(approver: &str, privacy: &str) -> Self {
        let (issuer, key) = (Issuer::start().await, Key::new("k1", "ES256"));
        issuer.publish(&[&key]);
        let kit = kit(&issuer).await;
        let tier = format!(
            "[[approval_tiers]]\ntier = \"high\"\napprover = \"{approver}\"\nprivacy = \"{privacy}\""
        );
        kit.rewrite(|text| text.replace("[[approval_tiers]]\ntier = \"high\"", &tier)).await;
        let bearer = kit.lifecycle("billing-agent", SECRET, "resource://billing").await;
        Self { kit, issuer, key, bearer }
    }

    /// A new session mandate of a person.
    async fn person(&self, name: &str) -> String {
        let mut told = claims(&self.issuer, &self.kit);
        told["sub"] = json!(name);
        federate(&self.kit, &self.key.token(&told)).await.text("access_token")
    }

    async fn session(&self, person: Option<&str>) -> String {
        let mut body = json!({ "labels": ["billing-agent"] });
        if let Some(mandate) = person {
            body["subject_session_id"] = testkit::claims(mandate)["sid"].clone();
            body["subject_token"] = json!(mandate);
        }
        self.kit.session(&self.bearer, &body).await
    }

    /// Asks for a payment in a session that acts for `person`, or for the application itself.
    async fn held(&self, person: Option<&str>) -> Held {
        self.held_for(person, person).await
    }

    /// As [`Scene::held`], in a session that acts for `person` with what one that acts for `giver` handed to it.
    async fn held_for(&self, giver: Option<&str>, person: Option<&str>) -> Held {
        let (source, target) = (self.session(giver).await, self.session(person).await);
        let body =
            delegation(&source, &target, &["invoice.pay"], &json!({ "resources": ["resource://billing"] }));
        let edge = self.kit.call("POST", "/zones/z1/delegations", &self.bearer, &body).await;
        let edge = edge.text("delegation_edge_id");
        let fields = [
            ("resource", "resource://billing"),
            ("scope", "invoice.pay"),
            ("agent_session_id", &target),
            ("delegation_edge_id", &edge),
        ];
        let fields: Vec<_> = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let reply = self.mint(&fields).await;
        assert_eq!(reply.told(), (401, "interaction_required"), "{reply:?}");
        Held { id: reply.text("approval_id"), binding: reply.text("binding"), fields }
    }

    async fn mint(&self, fields: &[(String, String)]) -> Reply {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        self.kit.mint(&fields).await
    }

    async fn answer(&self, id: &str, bearer: &str, body: &Value) -> Reply {
        self.kit.post(&format!("/approvals/{id}/decision"), bearer, &body.to_string()).await
    }

    async fn yes(&self, held: &Held, bearer: &str) -> Reply {
        self.answer(&held.id, bearer, &json!({ "decision": "approved", "binding": held.binding })).await
    }
}

#[tokio::test]
async fn the_person_the_session_acts_for_says_yes_and_nobody_else_does() {
    let scene = Scene::new("subject", "identified").await;
    let alice = scene.person("alice").await;
    let held = scene.held(Some(&alice)).await;
    for (bearer, expected) in [
        (String::new(), (401, "invalid_token")),
        ("nonsense".to_owned(), (401, "invalid_token")),
        (scene.bearer.clone(), (403, "access_denied")),
        (scene.person("bob").await, (403, "access_denied")),
        // The very authority that asks: an agent that holds it must not answer itself.
        (alice, (403, "access_denied")),
    ] {
        assert_eq!(scene.yes(&held, &bearer).await.told(), expected);
    }
    let alice = scene.person("alice").await;
    let reply = scene.yes(&held, &alice).await;
    assert_eq!((reply.status, reply.text("state")), (200, "approved".to_owned()), "{reply:?}");
    assert_eq!(scene.yes(&held, &alice).await.told(), (409, "approval_consumed"), "once");
    assert_eq!(scene.mint(&held.fields).await.status, 200);
    let events = scene.kit.ledger("z1").await;
    let decided = events.iter().find(|event| event["event_type"] == "step_up_decided").unwrap();
    assert_eq!(decided["decision"], "approved");
    assert_eq!(decided["metadata_json"]["approver_plane"], "subject");
    assert_eq!(decided["metadata_json"]["approver_id"], "subject:alice");
    assert_eq!(decided["metadata_json"]["subject_anchor"], "alice");
}

/// The person's own agents ask through another session of the same person, and that person may not answer either.
#[tokio::test]
async fn where_self_approval_is_forbidden_another_person_of_the_application_answers_and_never_the_own() {
    let scene = Scene::new("subject", "identified").await;
    let ban = |text: String| {
        text.replace("approver = \"subject\"", "approver = \"subject\"\nself_approval = \"forbidden\"")
    };
    let alice = scene.person("alice").await;
    let before = scene.held(Some(&alice)).await;
    scene.kit.rewrite(ban).await;
    let held = scene.held(Some(&alice)).await;
    assert_ne!(held.binding, before.binding);
    let own = scene.person("alice").await;
    for (bearer, expected) in [
        (&own, "another person than the one the agent works for has to answer this"),
        (&alice, "another person than the one the agent works for has to answer this"),
        (&scene.bearer, "only a person may answer here"),
    ] {
        let refused = scene.yes(&held, bearer).await;
        assert_eq!(refused.told(), (403, "access_denied"));
        assert_eq!(refused.text("error_description"), expected);
    }
    let bob = scene.person("bob").await;
    assert_eq!(scene.yes(&held, &bob).await.text("state"), "approved");
    assert_eq!(scene.mint(&held.fields).await.status, 200);
    // What was asked before is answered as it was asked.
    assert_eq!(scene.yes(&before, &bob).await.told(), (403, "access_denied"));
    assert_eq!(scene.yes(&before, &own).await.text("state"), "approved");
    // A session that acts for the application, with what one of hers handed to it, asks for her.
    let held = scene.held_for(Some(&own), None).await;
    assert_eq!(scene.yes(&held, &scene.person("alice").await).await.told(), (403, "access_denied"));
    assert_eq!(scene.yes(&held, &bob).await.text("state"), "approved");
    // Where nobody stands behind the session there is nobody to forbid it to, but the authority that asks.
    let held = scene.held(None).await;
    assert_eq!(scene.yes(&held, &bob).await.text("state"), "approved");
    let events = scene.kit.ledger("z1").await;
    let decided = events.iter().find(|event| event["event_type"] == "step_up_decided").unwrap();
    assert_eq!(decided["metadata_json"]["self_approval"], "forbidden");
    assert_eq!(decided["metadata_json"]["approver_id"], "subject:bob");
}

#[tokio::test]
async fn the_person_answers_about_one_request_and_the_yes_is_good_for_no_mint() {
    let scene = Scene::new("subject", "identified").await;
    let held = scene.held(Some(&scene.person("alice").await)).await;
    let state = &scene.kit.app.state;
    let request = ExactRequest {
        decision: "d-1".into(),
        guards: vec!["large".into()],
        method: "POST".into(),
        path: "/pay".into(),
        content_type: None,
        tool: None,
        body_bytes: 0,
        body_sha256: "00".into(),
        shown: Vec::new(),
    };
    let mint = state.find_hold(&held.id).unwrap();
    let exact = Hold {
        id: "8c9e6679-7425-40de-944b-e07fc1f90ae7".into(),
        binding: "exact".into(),
        exact: Some(Box::new(request)),
        ..Hold::clone(&mint)
    };
    let exact = state.hold(exact).await.unwrap().0;
    let alice = scene.person("alice").await;
    let yes = |binding: &str| json!({ "decision": "approved", "binding": binding });
    assert_eq!(scene.answer(&exact.id, &alice, &yes(&held.binding)).await.told(), (409, "approval_consumed"));
    let bob = scene.person("bob").await;
    assert_eq!(scene.answer(&exact.id, &bob, &yes("exact")).await.told(), (403, "access_denied"));
    let reply = scene.answer(&exact.id, &alice, &yes("exact")).await;
    assert_eq!((reply.status, reply.text("state")), (200, "approved".to_owned()), "{reply:?}");
    let events = scene.kit.ledger("z1").await;
    let decided = events.iter().find(|event| event["event_type"] == "step_up_decided").unwrap();
    assert_eq!(decided["metadata_json"]["decision_id"], "d-1");
    let mut fields = held.fields.clone();
    fields.push(("approval_id".to_owned(), exact.id.to_string()));
    assert_eq!(scene.mint(&fields).await.told(), (401, "access_denied"));
}

#[tokio::test]
async fn a_decision_is_read_strictly_and_for_one_binding() {
    let scene = Scene::new("any", "identified").await;
    let held = scene.held(None).await;
    let person = scene.person("carol").await;
    let binding = &held.binding;
    for (body, expected) in [
        (json!({ "decision": "maybe", "binding": binding }), (400, "invalid_token")),
        (json!({ "decision": "approved" }), (400, "invalid_token")),
        (json!({ "decision": "approved", "binding": binding, "more": 1 }), (400, "invalid_token")),
        (
            json!({ "decision": "approved", "binding": binding, "reason": "x".repeat(501) }),
            (400, "invalid_token"),
        ),
        (json!({ "decision": "approved", "binding": "00" }), (409, "approval_consumed")),
    ] {
        assert_eq!(scene.answer(&held.id, &person, &body).await.told(), expected, "{body}");
    }
    let body = json!({ "decision": "approved", "binding": binding });
    for id in ["nonsense", "8c9e6679-7425-40de-944b-e07fc1f90ae7"] {
        assert_eq!(scene.answer(id, &person, &body).await.told(), (404, "resource_not_found"));
    }
    let no = json!({ "decision": "rejected", "binding": binding, "reason": "not today" });
    assert_eq!(scene.answer(&held.id, &person, &no).await.text("state"), "rejected");
    assert_eq!(scene.mint(&held.fields).await.told(), (403, "access_denied"));
}

#[tokio::test]
async fn an_operators_tier_is_not_a_persons_and_privacy_hides_who_answered() {
    let scene = Scene::new("operator", "identified").await;
    let held = scene.held(None).await;
    let refused = scene.yes(&held, &scene.person("carol").await).await;
    assert_eq!(refused.told(), (403, "access_denied"));
    for (privacy, shown) in [("pseudonymous", "subject:pseudonym:"), ("anonymous", "subject:redacted")] {
        let scene = Scene::new("any", privacy).await;
        let held = scene.held(None).await;
        assert_eq!(scene.yes(&held, &scene.person("carol").await).await.status, 200);
        let by = scene.kit.app.state.find_hold(&held.id).unwrap().decision.clone().unwrap().by;
        assert!(by.starts_with(shown) && !by.contains("carol"), "{by}");
    }
}
