//! Guards: what they see, and what they do with it.

use caracal_policies::{
    Fault, Fired, GuardFacts, Guarding, McpCall, Path, Permit, Presented, Refused, Stopped, UseRequest, Zone,
};
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use serde_json::{Value, json};

use crate::bundles::{compiled, single, zone};

/// One resource with these guards, as TOML.
pub(crate) fn guarded(guards: &str) -> Zone {
    zone(&bundle(guards))
}

pub(crate) fn bundle(guards: &str) -> String {
    format!(
        r#"
schema = 1
[zone]
id = "demo"
name = "Demo"
[[applications]]
id = "agent"
name = "Agent"
[[resources]]
identifier = "resource://pay"
upstream_url = "https://pay.example"
scopes = ["pay:write"]
operations = [
  {{ method = "POST", path = "/accounts/{{account}}/refunds", scope = "pay:write" }},
  {{ method = "GET", path = "/balance", scope = "pay:write" }},
]
guards = [{guards}]
[app_ids]
main = "agent"
[grants."resource://pay"]
application = "main"
roles = {{ agent = ["pay:write"] }}
"#
    )
}

fn one(when: &str) -> Zone {
    guarded(&format!("{{ name = \"it\", when = '''{when}''' }}"))
}

pub(crate) struct Sent {
    pub(crate) at: (&'static str, &'static str),
    pub(crate) headers: Vec<(&'static str, &'static [u8])>,
    pub(crate) query: Option<Vec<(String, String)>>,
    pub(crate) body: Option<Value>,
}

impl Default for Sent {
    fn default() -> Self {
        let headers: Vec<(&str, &[u8])> =
            vec![("x-tenant", b"acme"), ("x-twice", b"one"), ("x-twice", b"two"), ("x-binary", b"\xff")];
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Self {
            at: ("POST", "/accounts/a%20b/refunds"),
            headers,
            query: Some(vec![pair("limit", "20"), pair("to", "a"), pair("to", "b")]),
            body: Some(json!({
                "amount": 1500, "rate": 0.5, "to": "acct_1", "ok": true, "none": null,
                "items": [{ "sku": "a", "n": 1 }, { "sku": "b", "n": 2 }], "tags": ["x", "y"],
            })),
        }
    }
}

fn send(zone: &Zone, sent: &Sent) -> Result<Permit, Refused> {
    ask(zone, sent, false)
}

/// As [`send`]; with a person's yes to whatever the guards ask, if `answered`.
pub(crate) fn ask(zone: &Zone, sent: &Sent, answered: bool) -> Result<Permit, Refused> {
    let path = Path::parse(sent.at.1).unwrap();
    let facts = GuardFacts {
        headers: &sent.headers,
        query: sent.query.as_deref(),
        arguments: None,
        body: sent.body.as_ref(),
        subject: Some("user-1"),
        depth: 2,
        source: "10.1.2.3",
        // Tuesday, 29 February 2000, 23:59.
        now_s: 951_868_740,
    };
    zone.authorize(
        zone.resource("resource://pay").unwrap(),
        &UseRequest {
            application: "agent",
            labels: &["agent".into()],
            edge: None,
            agent_session_id: Some("session"),
            presented: Presented {
                delegation_edge_id: Some("edge"),
                scope: "pay:write",
                target: &["resource://pay".to_owned()],
            },
            method: sent.at.0,
            path: &path,
            target: sent.at.1,
            call: None::<&McpCall>,
            approved: false,
            guards: if answered { Guarding::Answered(&facts) } else { Guarding::On(&facts) },
        },
    )
}

fn fired(outcome: Result<Permit, Refused>) -> Option<Fired> {
    match outcome {
        Ok(_) => None,
        Err(Refused::Guarded(stopped)) => match *stopped {
            Stopped::Refused(fired, _) => Some(fired),
            asked @ Stopped::Asked(..) => panic!("{asked:?}"),
        },
        Err(other) => panic!("{other:?}"),
    }
}

/// What a condition comes to: whether it holds, or why there is no answer.
fn answer(when: &str, sent: &Sent) -> Result<bool, Fault> {
    match fired(send(&one(when), sent)) {
        None => Ok(false),
        Some(Fired { fault: None, .. }) => Ok(true),
        Some(Fired { fault: Some(fault), .. }) => Err(fault),
    }
}

#[test]
fn conditions_see_what_was_sent() {
    for when in [
        r#"method == "POST""#,
        r#"params.account == "a b""#,
        r#"path == "/accounts/a b/refunds" && segments[1] == "a b" && size(segments) == 3"#,
        r#"headers["x-tenant"] == "acme""#,
        r#""x-tenant" in headers && !("x-other" in headers)"#,
        r#"headers["x-twice"].exists(value, value == "two")"#,
        r#""two" in headers["x-twice"]"#,
        "int(query.limit) == 20 && double(query.limit) > 19.5",
        "body.amount > 1000 && body.amount < 1500.5 && body.rate == 0.5",
        "body.amount * 2 == 3000 && -body.amount == -1500 && body.amount % 7 == 2",
        r#"body["to"].startsWith("acct_") && body.to.endsWith("1") && body.to.contains("ct")"#,
        r#"body.to.matches("^acct_[0-9]+$")"#,
        r#"body.ok && body.none == null && body.amount != null"#,
        "has(body.amount) && !has(body.missing) && !has(body.missing.deeper)",
        r#"body.items.exists(item, item.sku == "b" && item.n > 1)"#,
        "body.items.all(item, item.n > 0) && [1, 2].all(n, n > 0)",
        r#""x" in body.tags && body.tags[1] == "y" && "amount" in body"#,
        r#"body.to in ["acct_1", "acct_2"]"#,
        r#"caller.application == "agent" && caller.subject == "user-1" && caller.depth == 2"#,
        r#""agent" in caller.labels && caller.session == "session""#,
        r#"source.address.startsWith("10.")"#,
        "time.year == 2000 && time.month == 2 && time.day == 29 && time.weekday == 2",
        "time.hour == 23 && time.minute == 59 && time.seconds == 951868740",
        r#"body.amount > 1000 ? body.to == "acct_1" : false"#,
        r#"[body.amount].exists(amount, amount > 1)"#,
    ] {
        assert_eq!(answer(when, &Sent::default()), Ok(true), "{when}");
        assert_eq!(answer(&format!("!({when})"), &Sent::default()), Ok(false), "{when}");
    }
}

#[test]
fn what_has_no_answer_denies_and_says_why() {
    for (when, why) in [
        ("body.missing > 1", Fault::Missing),
        (r#"headers["x-other"] == "a""#, Fault::Missing),
        ("query.other == \"a\"", Fault::Missing),
        ("segments[7] == \"a\"", Fault::Missing),
        ("body.items[-1].n == 1", Fault::Missing),
        // A field that comes twice is a list, and a list is not one value: not even an unequal one.
        (r#"headers["x-twice"] == "three""#, Fault::Kind),
        (r#"query.to != "a""#, Fault::Kind),
        (r#"headers["x-twice"] == "three" || false"#, Fault::Kind),
        (r#"body.amount == "1500""#, Fault::Kind),
        ("body.to > 5", Fault::Kind),
        ("body.to.deeper == 1", Fault::Kind),
        ("has(body.to.deeper)", Fault::Kind),
        ("body.amount", Fault::Kind),
        ("body.amount && true", Fault::Kind),
        ("body.amount in body.tags", Fault::Kind),
        (r#"int(body.to) == 1"#, Fault::Kind),
        (r#"headers["x-binary"] == "a""#, Fault::Unreadable),
        ("body.amount / 0 == 1", Fault::Arithmetic),
        ("body.amount * 9223372036854775807 > 1", Fault::Arithmetic),
    ] {
        assert_eq!(answer(when, &Sent::default()), Err(why), "{when}");
    }
}

#[test]
fn an_empty_body_is_missing_and_an_ambiguous_path_unreadable() {
    let empty = Sent { body: None, ..Sent::default() };
    assert_eq!(answer("body.amount > 1", &empty), Err(Fault::Missing));
    assert_eq!(answer("body == null", &empty), Err(Fault::Missing));
    assert_eq!(answer("has(body.amount) && body.amount > 1", &empty), Ok(false));
    let unread = Sent { query: None, ..Sent::default() };
    assert_eq!(answer(r#""to" in query"#, &unread), Err(Fault::Unreadable));
    let twice = Sent { at: ("POST", "/accounts/a%2520b/refunds"), ..Sent::default() };
    assert_eq!(answer(r#"params.account == "x""#, &twice), Err(Fault::Unreadable));
}

#[test]
fn what_is_too_long_denies() {
    let with = |body: Value| Sent { body: Some(body), ..Sent::default() };
    let list: Vec<u32> = (0..1_001).collect();
    assert_eq!(answer("body.list.exists(n, n == 5)", &with(json!({ "list": list }))), Err(Fault::TooLong));
    assert_eq!(answer("5 in body.list", &with(json!({ "list": list[..1_000] }))), Ok(true));
    let text = "a".repeat(64 * 1024 + 1);
    assert_eq!(answer(r#"body.text == "a""#, &with(json!({ "text": text }))), Err(Fault::TooLong));
    let map: serde_json::Map<_, _> = (0..1_001).map(|n| (n.to_string(), json!(n))).collect();
    assert_eq!(answer(r#"has(body.x)"#, &with(Value::Object(map))), Err(Fault::TooLong));
}

#[test]
fn a_guard_looks_only_at_what_it_is_about() {
    let zone = guarded(
        r#"{ name = "big", when = "body.amount > 1000", operations = ["POST /accounts/{account}/refunds"] }"#,
    );
    assert_eq!(fired(send(&zone, &Sent::default())).unwrap().guard.name.as_ref(), "big");
    let balance = Sent { at: ("GET", "/balance"), body: None, ..Sent::default() };
    assert_eq!(fired(send(&zone, &balance)).map(|fired| fired.fault), None);
    let resource = zone.resource("resource://pay").unwrap();
    let reads = |method: &str, path: &str| {
        let operation = resource.operations.find(method, &Path::parse(path).unwrap());
        resource.guards.as_ref().unwrap().reads_body_of(operation)
    };
    assert!(reads("POST", "/accounts/1/refunds"));
    assert!(!reads("GET", "/balance"));
}

#[test]
fn a_condition_that_holds_comes_before_one_without_an_answer() {
    let zone = guarded(
        r#"{ name = "a-broken", when = "body.missing > 1" }, { name = "b-holds", when = "true" },
           { name = "c-broken", when = "body.missing > 1" }"#,
    );
    let fired = fired(send(&zone, &Sent::default())).unwrap();
    assert_eq!((&*fired.guard.name, fired.fault), ("b-holds", None));
}

#[test]
fn a_guard_in_shadow_refuses_nothing_and_is_told() {
    let zone = guarded(
        r#"{ name = "held", when = "true", mode = "shadow" },
           { name = "broken", when = "body.missing > 1", mode = "shadow" },
           { name = "quiet", when = "false", mode = "shadow" }"#,
    );
    let permit = send(&zone, &Sent::default()).unwrap();
    let told: Vec<_> = permit.shadowed().iter().map(|fired| (&*fired.guard.name, fired.outcome())).collect();
    assert_eq!(told, [("broken", "fact_missing"), ("held", "held")]);
    let both =
        guarded(r#"{ name = "held", when = "true", mode = "shadow" }, { name = "no", when = "true" }"#);
    match send(&both, &Sent::default()) {
        Err(Refused::Guarded(stopped)) => match &*stopped {
            Stopped::Refused(fired, shadowed) => {
                assert_eq!((&*fired.guard.name, &*shadowed[0].guard.name), ("no", "held"));
            }
            asked @ Stopped::Asked(..) => panic!("{asked:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_guard_can_allow_nothing() {
    let zone = guarded(r#"{ name = "no", when = "false" }"#);
    let outside = Sent { at: ("DELETE", "/balance"), ..Sent::default() };
    assert!(matches!(send(&zone, &outside), Err(Refused::OperationNotPermitted { .. })));
}

#[test]
fn a_change_of_a_guard_is_a_change_of_the_zone_and_told() {
    let older = guarded(r#"{ name = "big", when = "body.amount > 1000" }"#);
    let newer = guarded(r#"{ name = "big", when = "body.amount > 9000" }"#);
    assert_ne!(older.digest(), newer.digest());
    assert_eq!(
        older.changes(&newer),
        ["guard `big` on `resource://pay` refuses requests where `body.amount > 9000` instead of requests \
          where `body.amount > 1000`"]
    );
    let none = guarded("");
    assert_eq!(
        older.changes(&none),
        ["guard `big` on `resource://pay` no longer refuses requests where `body.amount > 1000`"]
    );
}

/// Expressions that compile, over every fact and operator.
fn expressions() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("body.a"),
        Just("body.b[0]"),
        Just("body.c.d"),
        Just("query.q"),
        Just("headers.h"),
        Just("params.account"),
        Just("segments[1]"),
        Just("caller.depth"),
        Just("time.weekday"),
        Just("1"),
        Just("-9223372036854775807"),
        Just("0.5"),
        Just("1e308"),
        Just("\"text\""),
        Just("true"),
        Just("null"),
        Just("size(body.b)"),
        Just("int(body.a)"),
        Just("double(body.a)"),
    ]
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 3, |inner| {
        let operators =
            prop::sample::select(vec!["==", "!=", "<", ">=", "+", "-", "*", "/", "%", "&&", "||", "in"]);
        prop_oneof![
            (inner.clone(), operators, inner.clone())
                .prop_map(|(one, by, two)| format!("({one} {by} {two})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            inner.clone().prop_map(|of| format!("!({of})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}).contains({b})")),
            inner.prop_map(|of| format!("body.b.exists(x, x == {of})")),
        ]
    })
}

fn json_values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-d]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever is asked of whatever was sent: an answer or a fault, and the same one again.
    #[test]
    fn conditions_never_panic(when in expressions(), body in json_values(), twice in any::<bool>()) {
        let text = bundle(&format!("{{ name = \"it\", when = '''{when}''' }}"));
        let Ok(zone) = compiled(&single(&text)) else { return Ok(()) };
        let mut sent = Sent { body: Some(body), ..Sent::default() };
        sent.headers.push(("h", b"v"));
        if twice {
            sent.headers.push(("h", b"w"));
        }
        let outcome = |permit: Result<Permit, Refused>| fired(permit).map(|fired| fired.fault);
        let first = outcome(send(&zone, &sent));
        assert_eq!(first, outcome(send(&zone, &sent)), "{when}");
    }

    /// Whatever is written as a condition: a report or a guard.
    #[test]
    fn any_text_is_refused_or_compiled(when in "[ -~]{0,40}") {
        let quoted = serde_json::to_string(&when).unwrap();
        let text = bundle(&format!("{{ name = \"it\", when = {quoted} }}"));
        if let Err(report) = compiled(&single(&text)) {
            assert!(report.problems.iter().all(|problem| problem.code == "guard_condition"), "{report}");
        }
    }
}
