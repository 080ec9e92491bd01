//! Policy documents in Rego: read as data, merged with TOML, converted, and never more work than their size.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use caracal_policies::{PolicyForm, SourceFile, convert_bundle, convert_document};
use proptest::prelude::*;

use crate::bundles::{SINGLE, compiled, folder};

const HEAD: &str = "schema = 1\n[zone]\nid = \"demo\"\nname = \"Demo\"\ndocuments = [\"base.toml\", ";

/// The bundle of [`SINGLE`] with these documents in the place of its policy data.
fn bundle(documents: &[(&str, &str)]) -> caracal_policies::BundleSource {
    let base =
        SINGLE.split("[app_ids]").next().unwrap().replace("[zone]\nid = \"demo\"\nname = \"Demo\"\n", "");
    let mut head = HEAD.to_owned();
    documents.iter().for_each(|(path, _)| write!(head, "\"{path}\", ").unwrap());
    let documents = documents.iter().map(|(path, text)| (*path, (*text).to_owned()));
    folder([("zone.toml", head + "]\n"), ("base.toml", base)].into_iter().chain(documents))
}

/// The policy data of [`SINGLE`] as a document of its own.
fn policy() -> SourceFile {
    let (_, policy) = SINGLE.split_once("[app_ids]").unwrap();
    SourceFile { path: "policy.toml".into(), text: format!("schema = 1\n[app_ids]{policy}") }
}

fn digest(path: &str, text: &str) -> String {
    let zone = compiled(&bundle(&[(path, text)])).unwrap_or_else(|report| panic!("{report}\n{text}"));
    zone.digest().to_string()
}

fn code_of(text: &str) -> &'static str {
    compiled(&bundle(&[("policy.rego", text)])).unwrap_err().problems.first().unwrap().code
}

fn document(rules: &str) -> String {
    format!("package caracal.authz\n# caracal:data-document\n{rules}\n")
}

#[test]
fn a_zone_has_one_digest_in_both_forms_and_there_and_back() {
    let toml = policy();
    let wanted = digest("policy.toml", &toml.text);
    let rego = convert_document(&toml, PolicyForm::Rego).unwrap();
    assert_eq!(digest("policy.rego", &rego), wanted);
    let back = SourceFile { path: "policy.rego".into(), text: rego.clone() };
    let back = convert_document(&back, PolicyForm::Toml).unwrap();
    assert_eq!(digest("policy.toml", &back), wanted);
    // A whole bundle gives the same document as the one that holds all its policy data.
    let whole = bundle(&[("policy.toml", &toml.text)]);
    assert_eq!(convert_bundle(&whole, "demo", PolicyForm::Rego).unwrap(), rego);
}

#[test]
fn what_rego_can_say_in_several_ways_is_the_same_data() {
    let toml = "schema = 1\nrestrict = [\"stop\"]\n[app_ids]\nk = \"agent\"\n\"two words\" = \"other\"\n"
        .replace("two words", "two-words");
    let toml = format!(
        "{toml}[grants.\"resource://echo\"]\napplication = \"k\"\nroles = {{ \"é \\\"q\\\"\" = [\"echo:read\"] }}\n"
    );
    let wanted = digest("policy.toml", &toml);
    for rules in [
        "import rego.v1\napp_ids := {\"k\": \"agent\", `two-words`: \"other\",}\nrestrict := {\"stop\"}\n\
         grants = {\"resource://echo\": {\"application\": \"k\", \"roles\": {\"é \\\"q\\\"\": {\"echo:read\"}}}}",
        "import future.keywords.contains\napp_ids[\"k\"] := \"agent\" # by key\napp_ids[\"two-words\"] := \"other\"\n\
         restrict contains \"stop\"\n\
         grants[\"resource:\\/\\/echo\"] := {\"roles\": {\"\\u00e9 \\\"q\\\"\": [\"echo:read\"]}, \"application\": `k`}",
        "restrict := {\"stop\": {\"since\": 1}}\n\n\tapp_ids := {\n# a bracket { in a comment\n\"k\": \"agent\", \
         \"two-words\": \"other\"}\r\n\
         grants := {\"resource://echo\": {\"application\": \"k\", \"roles\": {\"é \\\"q\\\"\": [\"echo:read\"]}}}",
    ] {
        assert_eq!(digest("policy.rego", &document(rules)), wanted, "{rules}");
    }
}

#[test]
fn documents_of_both_forms_merge_by_whole_keys() {
    let toml = "schema = 1\n[app_ids]\nk = \"agent\"\n[grants.\"resource://echo\"]\napplication = \"k\"\n\
                roles = { a = [\"echo:read\"] }\n";
    let same = "grants := {\"resource://echo\": {\"application\": \"k\", \"roles\": {\"a\": [\"echo:read\"]}},\n\
                \"resource://open\": {\"application\": \"k\", \"roles\": {\"a\": [\"open:any\"]}}}";
    let both = bundle(&[("one.toml", toml), ("two.rego", &document(same))]);
    let zone = compiled(&both).unwrap();
    assert_eq!(zone.roles("agent").count(), 2);
    let more = same.replace("\"echo:read\"]", "\"echo:read\", \"echo:write\"]");
    let report = compiled(&bundle(&[("one.toml", toml), ("two.rego", &document(&more))])).unwrap_err();
    let [problem] = report.problems.as_slice() else { panic!("{report}") };
    assert_eq!(problem.code, "merge_conflict");
    assert_eq!(problem.place.to_string(), "bundles/demo/two.rego:3:12");
    assert!(problem.found.contains("also at bundles/demo/one.toml:4:9"), "{}", problem.found);
}

#[test]
fn a_text_that_would_keep_or_end_the_parser_is_refused_before_it_is_parsed() {
    let started = Instant::now();
    let many = 1_000_000;
    for (rules, code) in [
        ("[".repeat(many), "content_too_complex"),
        (format!("restrict := {}1{}", "[".repeat(40), "]".repeat(40)), "content_too_complex"),
        (format!("restrict := {}", "set(".repeat(many)), "content_too_complex"),
        (format!("restrict := [1{}]", "+1".repeat(many)), "data_document_not_ground"),
        (format!("restrict := [{}1]", "-".repeat(many)), "data_document_not_ground"),
        (format!("restrict := [{}]", " in a".repeat(many / 2)), "data_document_not_ground"),
        (format!("restrict := [{}]", "{\"a\":".repeat(many / 2)), "content_too_complex"),
        (format!("restrict := [[[[[[{}]]]]]]", "\"a\",\n".repeat(400_000)), "content_too_complex"),
        (format!("restrict := [\"{}\"]", "a".repeat(40_000)), "syntax"),
        (format!("restrict := a{}", ".a".repeat(10_000)), "data_document_not_ground"),
        ("x".repeat(4 * 1024 * 1024), "content_too_large"),
    ] {
        assert_eq!(code_of(&document(&rules)), code, "{}", rules.get(..40).unwrap());
    }
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

#[test]
fn what_cannot_be_converted_is_refused() {
    let refused = |path: &str, text: &str| {
        let file = SourceFile { path: path.into(), text: text.into() };
        convert_document(&file, PolicyForm::Rego).unwrap_err().problems.first().unwrap().code
    };
    assert_eq!(
        refused("a.toml", "schema = 1\n[[applications]]\nid = \"a\"\n[app_ids]\n"),
        "convert_not_policy"
    );
    assert_eq!(refused("a.toml", "schema = 1\n"), "convert_nothing");
    assert_eq!(refused("a.toml", "schema = 2\n[app_ids]\n"), "schema_unknown");
    assert_eq!(refused("a.rego", "package caracal.authz\napp_ids := {}\n"), "must_be_data_document");
    let mut large = "schema = 1\n".to_owned();
    for number in 0..40_000 {
        writeln!(large, "[grants.\"{number:0100}\"]\napplication = \"k\"\nroles = {{}}").unwrap();
    }
    assert_eq!(refused("a.toml", &large), "content_too_large");
    let empty = SourceFile { path: "a.toml".into(), text: "schema = 1\n[grants]\n".into() };
    let text = convert_document(&empty, PolicyForm::Rego).unwrap();
    let back = SourceFile { path: "a.rego".into(), text };
    assert_eq!(convert_document(&back, PolicyForm::Toml).unwrap(), "schema = 1\n\n[grants]\n");
}

proptest! {
    /// Nothing a document says makes the loader do anything but answer.
    #[test]
    fn any_text_gets_an_answer(rules in "[a-z\\[\\]{}()\":=,.#` \n\\\\0-9|-]{0,80}", cut in 0_usize..60) {
        let text = document(&rules);
        let text: String = text.chars().skip(cut).collect();
        drop(compiled(&bundle(&[("policy.rego", &text)])));
        drop(compiled(&bundle(&[("policy.rego", &document(&rules))])));
    }
}
