use serde_json::{Value, json};

use super::*;
use crate::testing::{bare_claims, full_claims};

#[test]
fn claims_have_their_wire_names_and_types() {
    let written = serde_json::to_value(full_claims()).unwrap();
    let claims = full_claims();
    assert_eq!(
        written,
        json!({
            "iss": claims.iss, "sub": "demo-agent", "aud": [claims.iss], "exp": claims.exp, "iat": claims.iat,
            "jti": claims.jti, "zone_id": "quickstart", "client_id": "demo-agent",
            "scope": "echo:read echo:write", "sid": "r2", "root_sid": "r1", "use": "gateway",
            "sub_type": "application", "target": ["resource://echo"], "agent_session_id": "s2",
            "delegation_edge_id": "e1", "source_session_id": "s1", "target_session_id": "s2",
            "delegation_path": ["e1"],
            "delegation_chain": [
                {"application_id": "demo-agent", "agent_session_id": "s1", "delegation_edge_id": "e1"},
                {"application_id": "demo-agent", "agent_session_id": "s2"},
            ],
            "hop_count": 1, "delegation_graph_epoch": 7, "caracal_epoch": "epoch-1", "caracal_reusable": true,
        })
    );
}

#[test]
fn empty_claims_are_left_out() {
    let mut claims = bare_claims(Use::Session);
    claims.scope = Some(String::new());
    claims.agent_session_id = Some(String::new());
    let written = serde_json::to_value(&claims).unwrap();
    let names: Vec<&str> = written.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "aud",
            "client_id",
            "exp",
            "iat",
            "iss",
            "jti",
            "root_sid",
            "sid",
            "sub",
            "sub_type",
            "use",
            "zone_id"
        ]
    );
}

#[test]
fn an_audience_is_read_from_a_string_or_a_list() {
    let with = |aud: Value| {
        let mut claims = serde_json::to_value(bare_claims(Use::Session)).unwrap();
        claims["aud"] = aud;
        serde_json::from_value::<Claims>(claims).ok().map(|claims| claims.aud)
    };
    assert_eq!(with(json!("a")), Some(vec!["a".to_owned()]));
    assert_eq!(with(json!(["a", "b"])), Some(vec!["a".to_owned(), "b".to_owned()]));
    for wrong in [json!(1), json!(null), json!({"a": 1}), json!(["a", 1]), json!([["a"]])] {
        assert_eq!(with(wrong.clone()), None, "{wrong}");
    }
}

#[test]
fn an_optional_claim_may_be_null_and_nothing_else_of_another_type() {
    let with = |name: &str, value: Value| {
        let mut claims = serde_json::to_value(full_claims()).unwrap();
        claims[name] = value;
        serde_json::from_value::<Claims>(claims)
    };
    let texts = [
        "scope",
        "agent_session_id",
        "delegation_edge_id",
        "source_session_id",
        "target_session_id",
        "caracal_epoch",
    ];
    let lists = ["target", "delegation_path", "delegation_chain"];
    let counts = ["hop_count", "delegation_graph_epoch"];
    let wrong_for_text = [json!(1), json!([]), json!({}), json!(true)];
    let wrong_for_list = [json!("x"), json!(1), json!({}), json!([1]), json!([null]), json!([[]])];
    let wrong_for_count = [json!(-1), json!(1.0), json!("1"), json!([]), json!(true)];
    for (names, wrong) in
        [(&texts[..], &wrong_for_text[..]), (&lists, &wrong_for_list), (&counts, &wrong_for_count)]
    {
        for name in names {
            with(name, json!(null)).unwrap();
            for value in wrong {
                assert!(with(name, value.clone()).is_err(), "{name}: {value}");
            }
        }
    }
    with("caracal_reusable", json!("true")).unwrap_err();
    with("delegation_chain", json!([{"agent_session_id": "s"}])).unwrap_err();
    for (name, wrong) in [("use", json!("Gateway")), ("use", json!("admin")), ("sub_type", json!("robot"))] {
        assert!(with(name, wrong.clone()).is_err(), "{name}: {wrong}");
    }
    for wrong in [json!(1.5), json!("1"), json!(u64::MAX), json!(null)] {
        assert!(with("exp", wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn scopes_are_whole_words() {
    let mut claims = full_claims();
    assert_eq!(claims.scopes().collect::<Vec<_>>(), ["echo:read", "echo:write"]);
    claims.scope = Some("  a  b ".into());
    assert_eq!(claims.scopes().collect::<Vec<_>>(), ["a", "b"]);
    claims.scope = None;
    assert_eq!(claims.scopes().count(), 0);
}
