//! Every answer a test can expect, and that it tells a right one from a wrong one.

use crate::compile::compile_and_test;
use crate::{Assigned, BundleSource, SourceFile, compile};

const ZONE: &str = r#"
schema = 1

[zone]
id = "demo"

[[applications]]
id = "agent"

[[applications]]
id = "other"

[[providers]]
identifier = "provider://none"
kind = "none"

[[resources]]
identifier = "R"
upstream_url = "http://127.0.0.1:9000"
credential_provider = "provider://none"
scopes = ["read", "write", "pay"]
operations = [
    { method = "GET", path = "/**", scope = "read" },
    { method = "POST", path = "/pay", scope = "pay" },
]

[app_ids]
key = "agent"

[grants.R]
application = "key"
roles = { reader = ["read"], cashier = ["read", "pay"] }

[[confinement]]
label_prefix = "box"
scopes = ["write"]

[[risk]]
scope = "pay"
tier = "high"

[[approval_tiers]]
tier = "high"
"#;

fn source(tests: &str) -> BundleSource {
    let file = SourceFile { path: "demo.toml".into(), text: format!("{ZONE}{tests}") };
    BundleSource { root: "bundles/demo.toml".into(), files: vec![file] }
}

/// One test with these facts.
fn case(facts: &str) -> String {
    format!("[[tests]]\nname = \"it\"\nresource = \"R\"\n{facts}\n")
}

/// What the policy answers to these facts, and what a test that expects just that comes to.
fn answered(facts: &str) -> (String, bool) {
    let of = |expect: &str| {
        compile_and_test(&source(&case(&format!("{facts}\n{expect}"))), "demo", &Assigned::default())
            .unwrap_or_else(|report| panic!("{report}"))
            .results
            .remove(0)
    };
    let answer = of("expect = \"approval\"").answered;
    let expect = match answer.split_once(" (") {
        Some((word, reason)) => {
            format!("expect = \"{word}\"\nreason = \"{}\"", reason.trim_end_matches(')'))
        }
        None => format!("expect = \"{answer}\""),
    };
    (answer, of(&expect).passed)
}

#[test]
fn every_answer_can_be_expected_and_met() {
    let agent = "application = \"agent\"\n";
    let mint = |rest: &str| format!("{agent}{rest}");
    let used = |rest: &str| {
        format!("{agent}action = \"use\"\nlabels = [\"cashier\"]\nscopes = [\"read\", \"pay\"]\n{rest}")
    };
    let rows = [
        (mint("scopes = [\"agent:lifecycle\"]"), "allow (caracal-bootstrap)"),
        (mint("labels = [\"reader\"]\nscopes = [\"read\"]"), "allow (caracal-key-mint)"),
        (
            mint("labels = [\"reader\"]\nscopes = [\"read\"]\ndelegation = [\"pay\"]"),
            "deny (delegation_scope_exceeded)",
        ),
        (mint("labels = [\"reader\"]\nscopes = [\"pay\"]"), "deny (role_scope_mismatch)"),
        (mint("labels = [\"box:1\"]\nscopes = [\"read\"]"), "deny (confinement_violation)"),
        (mint("labels = [\"cashier\"]\nscopes = [\"pay\"]"), "approval"),
        (mint("scopes = []"), "deny (no_rule_matched)"),
        ("application = \"other\"\nscopes = [\"read\"]".to_owned(), "deny (resource_not_granted)"),
        ("workload = \"w\"\nscopes = [\"read\"]".to_owned(), "allow (caracal-workload-mint)"),
        ("workload = \"w\"\nscopes = [\"pay\"]".to_owned(), "approval"),
        (
            "workload = \"w\"\naction = \"mint\"\nscopes = [\"read\"]".to_owned(),
            "deny (resource_not_granted)",
        ),
        (used("method = \"GET\"\npath = \"/x\""), "approval"),
        (used("method = \"GET\"\npath = \"/x\"\napproved = true"), "allow (caracal-key-use)"),
        (used("method = \"DELETE\"\npath = \"/x\"\napproved = true"), "deny (operation_not_permitted)"),
        (
            used("method = \"GET\"\npath = \"/x\"\napproved = true\ntargets = [\"S\"]"),
            "deny (mandate_target_mismatch)",
        ),
    ];
    for (facts, expected) in rows {
        assert_eq!(answered(&facts), (expected.to_owned(), true), "{facts}");
    }
}

#[test]
fn a_frozen_zone_and_one_without_policy_are_told_apart() {
    let test = case("application = \"agent\"\nscopes = [\"agent:lifecycle\"]\nexpect = \"allow\"");
    let frozen = ZONE.replace("schema = 1\n", "schema = 1\nrestrict = [\"incident\"]\n");
    let without = ZONE.split("[app_ids]").next().unwrap().to_owned();
    for (text, answer) in [(frozen, "deny (restriction_active)"), (without, "deny (no_active_policy_set)")] {
        let file = SourceFile { path: "demo.toml".into(), text: format!("{text}{test}") };
        let source = BundleSource { root: "bundles/demo.toml".into(), files: vec![file] };
        let tested = compile_and_test(&source, "demo", &Assigned::default())
            .unwrap_or_else(|report| panic!("{report}"));
        assert_eq!(tested.results[0].answered, answer);
    }
}

#[test]
fn an_answer_for_another_reason_does_not_pass() {
    let facts = "application = \"agent\"\nlabels = [\"reader\"]\nscopes = [\"pay\"]\nexpect = \"deny\"";
    for (reason, passes) in [
        ("", true),
        ("reason = \"role_scope_mismatch\"", true),
        ("reason = \"confinement_violation\"", false),
    ] {
        let source = source(&case(&format!("{facts}\n{reason}")));
        let tested = compile_and_test(&source, "demo", &Assigned::default()).unwrap();
        assert_eq!(tested.results[0].passed, passes, "{reason}");
        let codes: Vec<_> = match compile(&source, "demo", &Assigned::default()) {
            Ok(_) => Vec::new(),
            Err(report) => report.problems.iter().map(|problem| problem.code).collect(),
        };
        assert_eq!(codes.is_empty(), passes, "a zone comes of it only when its tests pass: {codes:?}");
    }
}

#[test]
fn tests_are_no_part_of_the_zone() {
    let facts = "application = \"agent\"\nscopes = [\"agent:lifecycle\"]\nexpect = \"allow\"";
    let with = compile(&source(&case(facts)), "demo", &Assigned::default()).unwrap();
    let without = compile(&source(""), "demo", &Assigned::default()).unwrap();
    assert_eq!(with.digest(), without.digest());
    assert!(without.changes(&with).is_empty());
}

#[test]
fn a_freeze_does_not_wait_for_tests() {
    let facts = "application = \"agent\"\nscopes = [\"agent:lifecycle\"]\nexpect = \"allow\"";
    let mut source = source(&case(facts));
    source.files[0].text =
        source.files[0].text.replace("schema = 1\n", "schema = 1\nrestrict = [\"incident\"]\n");
    assert!(!compile_and_test(&source, "demo", &Assigned::default()).unwrap().results[0].passed);
    let zone = compile(&source, "demo", &Assigned::default()).unwrap();
    assert!(zone.is_frozen_by_policy());
}

#[test]
fn what_was_used_of_budgets_and_rates_decides_once_everything_else_said_yes() {
    let budgets = "[[budgets]]\nname = \"cents\"\nper = \"session\"\nresource = \"R\"\nbytes = 100\nmax_per_call = 10\n\
                   [[budgets]]\nname = \"others\"\nper = \"session\"\napplication = \"other\"\ncalls = 1\n\
                   [[rates]]\nname = \"fast\"\nper = \"application\"\ncalls = 2\nburst = 3\n";
    let on = |path: &str, used: &str, expect: &str| {
        let facts = format!(
            "application = \"agent\"\naction = \"use\"\nlabels = [\"reader\"]\nscopes = [\"read\"]\n\
             method = \"GET\"\npath = \"{path}\"\nused = {{ {used} }}\n{expect}"
        );
        compile_and_test(&source(&format!("{budgets}{}", case(&facts))), "demo", &Assigned::default())
    };
    let exhausted = "expect = \"deny\"\nreason = \"budget_exhausted\"";
    let limited = "expect = \"deny\"\nreason = \"rate_limited\"";
    for (used, expect) in [
        ("", "expect = \"allow\""),
        ("cents = 90", "expect = \"allow\""),
        ("cents = 91", exhausted),
        ("cents = 500, fast = 3", exhausted),
        ("fast = 2", "expect = \"allow\""),
        ("fast = 3", limited),
    ] {
        let result = on("/a", used, expect).unwrap_or_else(|report| panic!("{report}")).results.remove(0);
        assert!(result.passed, "{used}: {}", result.answered);
    }
    let result = on("/a", "cents = 91", "expect = \"allow\"").unwrap().results.remove(0);
    assert_eq!((result.passed, &*result.answered), (false, "deny (budget_exhausted)"));
    for (used, code) in [
        ("others = 1", "reference_unknown"),
        ("cent = 1", "reference_unknown"),
        ("cents = -1", "number_out_of_range"),
    ] {
        let report = on("/a", used, exhausted).unwrap_err();
        assert_eq!(report.problems[0].code, code, "{used}");
    }
}
