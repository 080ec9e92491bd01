//! What a yes is bound to.

use std::sync::Arc;

use caracal_policies::{Ask, Assigned, BundleSource, Fired, Resource, SourceFile, Zone, compile};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::json;

use super::{Asking, harmless};

/// A request on its own.
#[derive(Clone, Debug)]
struct Sent {
    application: String,
    session: Option<String>,
    delegation: Option<String>,
    method: String,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    when: &'static str,
    seconds: u32,
    mcp: bool,
}

impl Default for Sent {
    fn default() -> Self {
        Self {
            application: "app".into(),
            session: Some("s1".into()),
            delegation: Some("d1".into()),
            method: "POST".into(),
            target: "/pay/a?x=1".into(),
            headers: vec![("content-type", "application/json".into())],
            body: b"{\"amount\":1}".to_vec(),
            when: "true",
            seconds: 600,
            mcp: false,
        }
    }
}

fn zone(sent: &Sent) -> Zone {
    let rules = if sent.mcp {
        "mcp = { path = \"/mcp\", scope = \"p\", tools = [{ name = \"pay\", scope = \"p\" }] }"
    } else {
        "operation_enforcement = \"transport_uniform\""
    };
    let text = format!(
        "schema = 1\n[zone]\nid = \"z\"\nname = \"Z\"\n[[applications]]\nid = \"app\"\n[[resources]]\n\
         identifier = \"resource://pay\"\nupstream_url = \"https://pay.example/base\"\nscopes = [\"p\"]\n{rules}\n\
         guards = [{{ name = \"g\", when = '{}', effect = \"approval\", tier = \"t\", show = [\"/amount\", \"/no\"] }}]\n\
         [app_ids]\na = \"app\"\n[[approval_tiers]]\ntier = \"t\"\nttl_seconds = {}\n",
        sent.when, sent.seconds
    );
    let files = vec![SourceFile { path: "z.toml".into(), text }];
    compile(&BundleSource { root: "z.toml".into(), files }, "z", &Assigned::default())
        .map_err(|report| panic!("{report}"))
        .unwrap()
}

fn asked(resource: &Resource) -> Vec<Fired> {
    let guards = resource.guards.as_ref().unwrap();
    guards.iter().map(|guard| Fired { guard: Arc::clone(guard), fault: None }).collect()
}

fn with<T>(sent: &Sent, ask: impl FnOnce(&Asking<'_>) -> T) -> T {
    let zone = zone(sent);
    let resource = zone.resource("resource://pay").unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in &sent.headers {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    ask(&Asking {
        zone: zone.id(),
        resource,
        application: &sent.application,
        session: sent.session.as_deref(),
        delegation: sent.delegation.as_deref(),
        method: &sent.method,
        target: &sent.target,
        headers: &headers,
        tool: None,
        body: &sent.body,
        asked: &asked(resource),
    })
}

fn binding(sent: &Sent) -> String {
    with(sent, |asking| asking.binding().unwrap())
}

#[test]
fn whatever_the_yes_is_for_changes_the_binding() {
    let first = binding(&Sent::default());
    assert_eq!(first, binding(&Sent::default()));
    let one = Sent::default();
    let others = [
        Sent { application: "other".into(), ..one.clone() },
        Sent { session: Some("s2".into()), ..one.clone() },
        Sent { session: None, ..one.clone() },
        Sent { delegation: Some("d2".into()), ..one.clone() },
        Sent { method: "PUT".into(), ..one.clone() },
        Sent { target: "/pay/a?x=1&".into(), ..one.clone() },
        Sent { target: "/pay/%61?x=1".into(), ..one.clone() },
        Sent { target: "/pay/a".into(), ..one.clone() },
        Sent { headers: vec![("content-type", "text/plain".into())], ..one.clone() },
        Sent { headers: Vec::new(), ..one.clone() },
        Sent {
            headers: vec![("content-type", "application/json".into()), ("content-encoding", "gzip".into())],
            ..one.clone()
        },
        Sent { body: b"{\"amount\": 1}".to_vec(), ..one.clone() },
        Sent { body: Vec::new(), ..one.clone() },
        Sent { when: "1 == 1", ..one.clone() },
        Sent { seconds: 601, ..one.clone() },
        // What ends one section does not begin the next one.
        Sent { session: Some("s1d1".into()), delegation: None, ..one },
    ];
    for other in &others {
        assert_ne!(first, binding(other), "{other:?}");
    }
    let apart: std::collections::BTreeSet<String> = others.iter().map(binding).collect();
    assert_eq!(apart.len(), others.len());
}

#[test]
fn what_else_is_sent_does_not() {
    let mut other = Sent::default();
    for (name, value) in [("authorization", "Bearer x"), ("x-request-id", "r2"), ("traceparent", "00-1")] {
        other.headers.push((name, value.to_owned()));
    }
    assert_eq!(binding(&Sent::default()), binding(&other));
}

proptest! {
    #[test]
    fn one_byte_of_the_body_is_another_request(body in proptest::collection::vec(any::<u8>(), 1..64), at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let one = Sent { body, ..Sent::default() };
        let mut other = one.clone();
        *at.get_mut(&mut other.body[..]) ^= flip;
        prop_assert_ne!(binding(&one), binding(&other));
    }

    #[test]
    fn one_byte_of_the_target_is_another_request(path in "[a-z0-9]{1,20}", at in any::<prop::sample::Index>()) {
        let one = Sent { target: format!("/{path}"), ..Sent::default() };
        let mut bytes = path.into_bytes();
        let byte = at.get_mut(&mut bytes[..]);
        *byte = if *byte == b'a' { b'b' } else { b'a' };
        let other = Sent { target: format!("/{}", String::from_utf8(bytes).unwrap()), ..Sent::default() };
        prop_assert_ne!(binding(&one), binding(&other));
    }
}

#[test]
fn a_message_is_the_same_whatever_its_id_and_the_order_of_its_members() {
    let sent = |body: &str| Sent { mcp: true, target: "/mcp".into(), body: body.into(), ..Sent::default() };
    let call = |id: &str, rest: &str| {
        sent(&format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"pay",{rest}}}}}"#
        ))
    };
    let first = binding(&call("1", r#""arguments":{"a":1,"b":[2,3]}"#));
    for same in [
        call("\"x\"", r#""arguments":{"a":1,"b":[2,3]}"#),
        call("2", r#" "arguments" : { "b":[2, 3], "a":1 } "#),
        call("3", r#""_meta":{"progressToken":7},"arguments":{"a":1,"b":[2,3]}"#),
    ] {
        assert_eq!(first, binding(&same), "{same:?}");
    }
    for other in [
        call("1", r#""arguments":{"a":1,"b":[3,2]}"#),
        call("1", r#""arguments":{"a":1.0,"b":[2,3]}"#),
        call("1", r#""arguments":{"a":"1","b":[2,3]}"#),
        call("1", r#""_meta":{"other":7},"arguments":{"a":1,"b":[2,3]}"#),
        call("1", r#""arguments":{"A":1,"b":[2,3]}"#),
    ] {
        assert_ne!(first, binding(&other), "{other:?}");
    }
    // A reader that keeps less of a number than another one takes two messages for one.
    for unreadable in [r#""arguments":{"a":0.12345678901234567891}"#, r#""arguments":{"a":1,"a":2}"#] {
        assert!(with(&call("1", unreadable), |asking| asking.binding().is_err()), "{unreadable}");
    }
}

#[test]
fn whoever_answers_sees_what_the_guard_shows_and_nothing_else_of_the_body() {
    let body = json!({ "amount": "\u{1b}[31m\u{202e}9", "secret": "canary" });
    let sent = Sent { target: "/pay/\u{7f}?token=canary".into(), ..Sent::default() };
    let shown = with(&sent, |asking| asking.shown(Some(&body), "d-1"));
    assert!(!format!("{shown:?}").contains("canary"), "{shown:?}");
    assert_eq!(shown.path, "/pay/\\u{7f}");
    assert_eq!(shown.shown[0], ("/amount".into(), Some("\"\\u001b[31m\\u{202e}9\"".into())));
    assert_eq!(shown.shown[1], ("/no".into(), None));
    assert_eq!((shown.body_bytes, shown.decision.as_str()), (12, "d-1"));
    let gate = with(&sent, |asking| asking.gate());
    assert_eq!(gate[0].ttl_seconds(), 600);
    assert!(with(&sent, |asking| asking
        .asked
        .iter()
        .all(|fired| matches!(fired.guard.ask, Some(Ask { .. })))));
}

#[test]
fn a_text_for_a_terminal_is_short_and_drives_nothing() {
    assert_eq!(harmless("a\u{9b}b\n", 10), "a\\u{9b}b\\u{a}");
    assert_eq!(harmless("abc", 3), "abc");
    assert_eq!(harmless("abcd", 3), "abc\u{2026}");
    assert_eq!(harmless("\u{feff}\u{200f}", 9), "\\u{feff}\\u{200f}");
}
