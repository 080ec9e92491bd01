//! A zone as large as promised compiles.

use std::fmt::Write;
use std::sync::Arc;

use caracal_policies::{Action, Decision, EdgeFacts, Input, Principal};

use crate::bundles::zone;

#[test]
fn ten_thousand_resources_with_a_hundred_thousand_grants_compile() {
    let mut text = "schema = 1\n[zone]\nid = \"demo\"\n[[applications]]\nid = \"agent\"\n".to_owned();
    let mut grants = "[app_ids]\nk = \"agent\"\n".to_owned();
    for resource in 0..10_000 {
        let scopes: Vec<_> = (0..10).map(|scope| format!("\"s{scope}\"")).collect();
        let scopes = scopes.join(", ");
        writeln!(
            text,
            "[[resources]]\nidentifier = \"resource://r{resource}\"\nupstream_url = \"http://127.0.0.1\"\n\
             scopes = [{scopes}]\noperations = [{{ method = \"GET\", path = \"/**\", scope = \"s0\" }}]"
        )
        .unwrap();
        writeln!(
            grants,
            "[grants.\"resource://r{resource}\"]\napplication = \"k\"\nroles = {{ worker = [{scopes}] }}"
        )
        .unwrap();
    }
    let zone = zone(&(text + &grants));
    assert_eq!(zone.resources().count(), 10_000);
    let (labels, scopes) = ([Arc::from("worker")], [Arc::from("s9")]);
    let decision = zone.decide(&Input {
        principal: Principal::Application("agent"),
        action: Action::TokenExchange,
        resource: "resource://r9999",
        labels: &labels,
        requested: &["s9"],
        edge: Some(EdgeFacts { id: "e", scopes: &scopes }),
        agent_session_id: Some("s"),
        presented: None,
    });
    assert!(matches!(decision, Decision::Allow(_)), "{decision:?}");
}
