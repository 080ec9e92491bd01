//! Guards that have a person asked about the very request.

use caracal_policies::{Permit, Refused, Stopped, Zone, compile, compile_and_test};
use serde_json::json;

use crate::bundles::{assigned, compiled, single, zone};
use crate::guards::{Sent, ask, bundle};

const TIERS: &str =
    "[[approval_tiers]]\ntier = \"large\"\nttl_seconds = 600\n\n[[approval_tiers]]\ntier = \"other\"\n";

const LARGE: &str = r#"{ name = "large", when = "body.amount > 1000", effect = "approval", tier = "large", show = ["/to", "/amount"] }"#;

fn text(guards: &str) -> String {
    format!("{}{TIERS}", bundle(guards))
}

fn asking(guards: &str) -> Zone {
    zone(&text(guards))
}

/// The guards that ask, or in brackets the one that refuses.
fn stopped(outcome: Result<Permit, Refused>) -> String {
    match outcome {
        Ok(permit) => panic!("{permit:?}"),
        Err(Refused::Guarded(stopped)) => match *stopped {
            Stopped::Asked(asked, _) => {
                asked.iter().map(|fired| &*fired.guard.name).collect::<Vec<_>>().join(" ")
            }
            Stopped::Refused(fired, _) => format!("({})", fired.guard.name),
        },
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn a_request_is_held_until_somebody_has_answered() {
    let zone = asking(LARGE);
    assert_eq!(stopped(ask(&zone, &Sent::default(), false)), "large");
    let permit = ask(&zone, &Sent::default(), true).unwrap();
    assert_eq!(permit.answered()[0].guard.ask.as_ref().unwrap().tier.ttl_seconds(), 600);
    let small = Sent { body: Some(json!({ "amount": 1 })), ..Sent::default() };
    assert!(ask(&zone, &small, false).unwrap().answered().is_empty());
}

#[test]
fn a_guard_that_refuses_or_has_no_answer_is_not_outweighed_by_one_that_asks() {
    let also = |other: &str| asking(&format!("{LARGE}, {other}"));
    let refuses = also(r#"{ name = "zz", when = "true" }"#);
    let faults = also(r#"{ name = "zz", when = "body.missing == 1" }"#);
    let asks_and_faults =
        also(r#"{ name = "zz", when = "body.missing == 1", effect = "approval", tier = "other" }"#);
    for zone in [refuses, faults, asks_and_faults] {
        for answered in [false, true] {
            assert_eq!(stopped(ask(&zone, &Sent::default(), answered)), "(zz)");
        }
    }
    let both = also(r#"{ name = "also", when = "true", effect = "approval", tier = "other" }"#);
    assert_eq!(stopped(ask(&both, &Sent::default(), false)), "also large");
    let shadow =
        asking(r#"{ name = "s", when = "true", effect = "approval", tier = "other", mode = "shadow" }"#);
    assert_eq!(&*ask(&shadow, &Sent::default(), false).unwrap().shadowed()[0].guard.name, "s");
}

#[test]
fn bodies_are_read_for_the_binding_and_for_what_is_shown() {
    let reads = |guards: &str| {
        let zone = asking(guards);
        let resource = zone.resource("resource://pay").unwrap();
        let operation = resource.operations.iter().find(|one| one.path.contains("refunds"));
        let guards = resource.guards.as_ref().unwrap();
        (guards.asks_of(operation), guards.reads_body_of(operation))
    };
    let on = |effect: &str| format!(r#"{{ name = "g", when = "true", {effect} }}"#);
    assert_eq!(reads(&on("mode = \"enforce\"")), (false, false));
    let asks = "effect = \"approval\", tier = \"large\"";
    assert_eq!(reads(&on(asks)), (true, false));
    assert_eq!(reads(&on(&format!("{asks}, show = [\"/a\"]"))), (true, true));
    assert_eq!(reads(&on(&format!("{asks}, show = [\"/a\"], mode = \"shadow\""))), (false, false));
    assert_eq!(reads(&on(&format!("{asks}, operations = [\"GET /balance\"]"))), (false, false));
}

#[test]
fn what_asks_is_part_of_the_digest_and_its_changes_are_told_in_words() {
    let (before, now) = (asking(r#"{ name = "large", when = "body.amount > 1000" }"#), asking(LARGE));
    assert_ne!(before.digest(), now.digest());
    assert_ne!(now.digest(), asking(&LARGE.replace("\"/to\", ", "")).digest());
    assert_ne!(now.digest(), asking(&LARGE.replace("tier = \"large\"", "tier = \"other\"")).digest());
    let words = before.changes(&now).join("\n");
    for told in [
        "guard `large` on `resource://pay` no longer refuses requests where `body.amount > 1000`",
        "guard `large` on `resource://pay` asks for approval in tier `large` of requests where \
         `body.amount > 1000`, showing `/amount`, `/to` now",
    ] {
        assert!(words.contains(told), "{words}");
    }
}

#[test]
fn what_cannot_ask_is_refused_with_its_place() {
    let codes = |guards: &str| -> Vec<String> {
        let report = compiled(&single(&text(guards))).unwrap_err();
        report.problems.iter().map(|problem| problem.code.to_owned()).collect()
    };
    let with = |more: &str| codes(&format!(r#"{{ name = "g", when = "true", {more} }}"#));
    assert_eq!(with("effect = \"approval\", tier = \"larg\""), ["reference_unknown"]);
    assert_eq!(with("effect = \"approval\""), ["key_missing"]);
    assert_eq!(with("effect = \"Approval\", tier = \"large\""), ["word_unknown"]);
    assert_eq!(with("tier = \"large\""), ["guard_effect"]);
    assert_eq!(with("show = [\"/a\"]"), ["guard_effect"]);
    let show =
        |pointers: &str| with(&format!("effect = \"approval\", tier = \"large\", show = [{pointers}]"));
    assert_eq!(show("\"\""), ["value_invalid"]);
    assert_eq!(show("\"amount\""), ["value_invalid"]);
    assert_eq!(show("\"/a~2\""), ["value_invalid"]);
    let many: Vec<String> = (0..17).map(|at| format!("\"/f{at}\"")).collect();
    assert_eq!(show(&many.join(", ")), ["too_many"]);
}

#[test]
fn a_test_of_the_bundle_can_expect_that_a_guard_asks() {
    let test = |expect: &str| {
        format!(
            "[[tests]]\nname = \"t\"\napplication = \"agent\"\naction = \"use\"\nresource = \"resource://pay\"\n\
             labels = [\"agent\"]\nscopes = [\"pay:write\"]\nmethod = \"POST\"\npath = \"/accounts/7/refunds\"\n\
             request = {{ body = {{ amount = 2000 }} }}\n{expect}\n"
        )
    };
    let run = |expect: &str| {
        let source = single(&format!("{}\n{}", text(LARGE), test(expect)));
        let tested = compile_and_test(&source, "demo", &assigned()).unwrap();
        (tested.results[0].passed, tested.results[0].answered.clone())
    };
    let answered = "approval (asked by `large`)".to_owned();
    assert_eq!(run("expect = \"approval\""), (true, answered.clone()));
    assert_eq!(run("expect = \"approval\"\nguard = \"large\""), (true, answered.clone()));
    assert_eq!(run("expect = \"deny\""), (false, answered.clone()));
    assert_eq!(run("expect = \"allow\""), (false, answered));
}

#[test]
fn the_example_answers_as_its_tests_say() {
    let text = include_str!("../../../examples/approval/bundles/payments.toml");
    let mut assigned = assigned();
    assigned.prefixes.push("/payments".into());
    let zone = compile(&single(text), "payments", &assigned).unwrap();
    assert!(zone.resource("resource://payments").unwrap().guards.as_ref().unwrap().asks());
}
