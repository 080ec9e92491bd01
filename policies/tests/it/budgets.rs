//! Budgets and rates: what they say, what is wrong with one, and that changing them is told.

use caracal_policies::{BudgetPer, Measure, Span, UnitsFrom};

use crate::bundles::{SINGLE, codes, zone};

const BUDGETS: &str = r#"
[[budgets]]
name = "tokens"
per = "session"
resource = "r-1"
units = 1000
units_pointer = "/usage/total_tokens"
max_per_call = 100

[[budgets]]
name = "calls-an-hour"
per = "application"
application = "agent"
calls = 60
window_seconds = 3600

[[rates]]
name = "steady"
per = "resource"
calls = 10
burst = 20
"#;

fn with(more: &str) -> String {
    format!("{SINGLE}\n{more}")
}

#[test]
fn budgets_and_rates_hold_what_the_bundle_says() {
    assert!(zone(SINGLE).budgets().is_none());
    let zone = zone(&with(BUDGETS));
    let [calls, steady, tokens] = zone.budgets().unwrap() else { panic!("three") };
    assert_eq!((calls.per, calls.limit), (BudgetPer::Application, 60));
    assert_eq!(calls.span, Span::Window { seconds: 3600 });
    assert!(calls.covers("agent", "resource://echo") && !calls.covers("other", "resource://echo"));
    assert_eq!(steady.span, Span::Rate { seconds: 1, burst: 20 });
    assert_eq!((steady.most(), steady.taken_before()), (20, 1));
    assert_eq!(tokens.span, Span::Life);
    assert_eq!(tokens.resource.as_deref(), Some("resource://echo"), "an id becomes the identifier");
    let from = UnitsFrom::Pointer("/usage/total_tokens".into());
    assert_eq!(tokens.measure, Measure::Units { max_per_call: 100, from });
}

#[test]
fn units_may_be_a_sum_of_what_an_upstream_tells_apart() {
    let pointers = |text: &str| with(&BUDGETS.replace("units_pointer = \"/usage/total_tokens\"", text));
    let one = zone(&pointers("units_pointers = [[\"/a/in\", \"/in\"], \"/out\"]"));
    let Measure::Units { from, .. } = &one.budgets().unwrap()[2].measure else { panic!("units") };
    assert_eq!(*from, UnitsFrom::Sum(vec![vec!["/a/in".into(), "/in".into()], vec!["/out".into()]]));
    assert_eq!(from.to_string(), "/a/in|/in + /out");
    let other = zone(&pointers("units_pointers = [\"/a/in\", \"/in\", \"/out\"]"));
    assert_ne!(one.digest(), other.digest());
    assert_eq!(one.changes(&other).len(), 1, "{:?}", one.changes(&other));
}

#[test]
fn what_is_wrong_with_a_budget_is_told_with_its_place() {
    let head = "[[budgets]]\nname = \"b\"\nper = \"session\"\n";
    for (text, code) in [
        (format!("{head}window_seconds = 5"), "budget_measure"),
        (format!("{head}calls = 5\nbytes = 5"), "budget_measure"),
        (format!("{head}calls = 5\nmax_per_call = 1"), "budget_shape"),
        (format!("{head}bytes = 5"), "key_missing"),
        (format!("{head}bytes = 5\nmax_per_call = 6"), "number_out_of_range"),
        (format!("{head}units = 5\nmax_per_call = 1"), "budget_shape"),
        (format!("{head}units = 5\nmax_per_call = 1\nunits_pointer = \"usage\""), "value_invalid"),
        (
            format!("{head}units = 5\nmax_per_call = 1\nunits_pointer = \"/a\"\nunits_pointers = [\"/b\"]"),
            "budget_shape",
        ),
        (format!("{head}units = 5\nmax_per_call = 1\nunits_pointers = [\"/a\", \"b\"]"), "value_invalid"),
        (format!("{head}units = 5\nmax_per_call = 1\nunits_pointers = []"), "budget_shape"),
        (format!("{head}units = 5\nmax_per_call = 1\nunits_pointers = [[]]"), "budget_shape"),
        (format!("{head}units = 5\nmax_per_call = 1\nunits_pointers = \"/a\""), "type_wrong"),
        (format!("{head}units = 5\nmax_per_call = 1\nunits_pointers = [7]"), "type_wrong"),
        (format!("{head}calls = 5\nunits_pointers = [\"/a\"]"), "budget_shape"),
        (format!("{head}calls = 5\nresource = \"resource://ecko\""), "reference_unknown"),
        (format!("{head}calls = 5\napplication = \"nobody\""), "reference_unknown"),
        (format!("{head}calls = 5\nwindow = \"1h\""), "key_unknown"),
        ("[[budgets]]\nname = \"b\"\nper = \"application\"\ncalls = 5".to_owned(), "budget_shape"),
        ("[[budgets]]\nname = \"b\"\nper = \"everybody\"\ncalls = 5".to_owned(), "word_unknown"),
        ("[[budgets]]\nname = \"a b\"\nper = \"session\"\ncalls = 5".to_owned(), "value_invalid"),
        (format!("{head}calls = 5\n[[rates]]\nname = \"b\"\nper = \"session\"\ncalls = 1"), "duplicate"),
        ("[[rates]]\nname = \"r\"\nper = \"session\"\nburst = 1".to_owned(), "key_missing"),
    ] {
        assert_eq!(codes(&with(&text)), [code], "{text}");
    }
}

#[test]
fn a_budget_is_part_of_the_digest_and_its_changes_are_told_in_words() {
    let (without, with_all) = (zone(SINGLE), zone(&with(BUDGETS)));
    assert_ne!(without.digest(), with_all.digest());
    let gained = without.changes(&with_all);
    assert!(
        gained.iter().any(|line| line
            == "budget `calls-an-hour` allows no more than 60 calls in 3600 s for each application, by application `agent`"),
        "{gained:?}"
    );
    let raised = zone(&with(&BUDGETS.replace("calls = 10", "calls = 11")));
    assert_ne!(raised.digest(), with_all.digest());
    assert_eq!(
        with_all.changes(&raised),
        [
            "rate `steady` allows 11 calls in 1 s, 20 at once, for each resource instead of 10 calls in 1 s, 20 at once, for each resource"
        ]
    );
    assert!(with_all.changes(&without).iter().any(|line| line.starts_with("rate `steady` is lifted")));
}
