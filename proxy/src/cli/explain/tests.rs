use std::sync::Arc;

use caracal_policies::{Assigned, BundleSource, McpCall, RulePlaces, SourceFile, Zone, compile};

use super::question::{Answer, Kind, Question};
use super::{remedy, steps};

const BUNDLE: &str = r#"schema = 1
[zone]
id = "z"
[[applications]]
id = "agent"
name = "Agent"
secrets = ["sha256$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
[[applications]]
id = "other"
name = "Other"
secrets = ["sha256$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
[[providers]]
identifier = "provider://open"
kind = "none"
[[resources]]
identifier = "resource://r"
upstream_url = "http://127.0.0.1:9000/v1"
scopes = ["r:read", "r:write", "r:end"]
credential_provider = "provider://open"
operations = [
  { method = "GET", path = "/**", scope = "r:read" },
  { method = "PUT", path = "/{id}", scope = "r:write" },
]
[[resources]]
identifier = "resource://new"
upstream_url = "http://127.0.0.1:9000/v2"
scopes = ["n:read"]
credential_provider = "provider://open"
operations = [{ method = "GET", path = "/**", scope = "n:read" }]
[[resources]]
identifier = "resource://m"
upstream_url = "http://127.0.0.1:9001"
scopes = ["m:connect", "m:read", "m:write"]
credential_provider = "provider://open"
[resources.mcp]
path = "/mcp"
scope = "m:connect"
tools = [{ name = "search", scope = "m:read" }, { name = "delete", scope = "m:write" }]
[app_ids]
one = "agent"
[grants."resource://m"]
application = "one"
roles = { reader = ["m:connect", "m:read"] }
[grants."resource://r"]
application = "one"
[grants."resource://r".roles]
reader = ["r:read"]
writer = ["r:read", "r:write"]
confined-x = ["r:read", "r:write"]
[[confinement]]
label_prefix = "confined-"
scopes = ["r:read"]
[[risk]]
scope = "r:end"
tier = "high"
[[approval_tiers]]
tier = "high"
"#;

fn source(text: &str) -> BundleSource {
    BundleSource {
        root: "bundles/z.toml".into(),
        files: vec![SourceFile { path: "z.toml".into(), text: text.into() }],
    }
}

fn zone(text: &str) -> Zone {
    compile(&source(text), "z", &Assigned::default()).unwrap_or_else(|report| panic!("{report}"))
}

/// A mint of these scopes by a session with these labels, through a delegation that carries them.
fn mint(labels: &[&str], scopes: &[&str]) -> Question {
    let shared = |words: &[&str]| words.iter().map(|word| Arc::from(*word)).collect::<Vec<Arc<str>>>();
    Question {
        kind: Kind::Mint,
        application: "agent".into(),
        resource: "resource://r".into(),
        labels: shared(labels),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        session: Some("session".into()),
        delegation: Some("delegation".into()),
        delegation_scopes: shared(scopes),
        method: String::new(),
        path: String::new(),
        target: vec!["resource://r".into()],
        call: None,
        approved: false,
        guard: None,
        budget: None,
    }
}

fn send(labels: &[&str], scopes: &[&str], method: &str, path: &str) -> Question {
    Question { kind: Kind::Use, method: method.into(), path: path.into(), ..mint(labels, scopes) }
}

fn code(answer: &Answer) -> String {
    match answer {
        Answer::Deny(code) => code.clone(),
        Answer::Allow(_) | Answer::Approval => panic!("{answer}"),
    }
}

/// The deciding rule with the line it stands on, what was missing, the advice, and the proposed grant.
fn told(question: &Question) -> (&'static str, u32, Vec<String>, String, String) {
    let zone = zone(BUNDLE);
    let places = RulePlaces::of(&source(BUNDLE), "z");
    let reason = code(&question.ask(&zone));
    let path = steps::path(question, Some(&reason), &zone, Some(&places));
    let (last, before) = path.split_last().unwrap();
    assert!(!last.holds && before.iter().all(|step| step.holds), "{path:?}");
    let remedy = remedy::find(question, &reason, &zone, Some(&places));
    let grant = remedy.grant.map(|grant| grant.toml).unwrap_or_default();
    (last.rule, last.place.as_ref().map_or(0, |place| place.line), remedy.missing, remedy.advice, grant)
}

/// The line of the bundle that holds this, from 1.
fn line(text: &str) -> u32 {
    let (at, _) = (1_u32..).zip(BUNDLE.lines()).find(|(_, line)| line.starts_with(text)).unwrap();
    at
}

#[test]
fn the_rule_that_decided_is_the_last_of_the_path_and_has_its_line() {
    let role = told(&mint(&["reader"], &["r:write"]));
    assert_eq!((role.0, role.1), ("role", line("reader = ")));
    assert_eq!(role.2, ["r:write in the role `reader`"]);
    let confined = told(&mint(&["confined-x"], &["r:write"]));
    assert_eq!((confined.0, confined.1), ("confinement", line("scopes = [\"r:read\"]")));
    assert_eq!(confined.2, ["r:write in the confinement of labels from `confined-`"]);
    assert!(confined.3.contains("with it the answer would be confinement_violation"), "{}", confined.3);
    assert_eq!(confined.4, "", "a cap is not what a grant can lift");
    let operation = told(&send(&["reader"], &["r:read"], "PUT", "/a"));
    assert_eq!((operation.0, operation.1), ("operation", line("  { method = \"PUT\"")));
    assert_eq!(operation.2, ["r:write in the mandate"]);
    let none = told(&send(&["reader"], &["r:read"], "DELETE", "/a"));
    assert_eq!(none.2, ["an operation of resource://r for DELETE /a"]);
    assert!(none.3.starts_with("no grant can: the resource has no operation"), "{}", none.3);
}

#[test]
fn a_message_to_an_mcp_server_is_explained_by_its_tool() {
    let asked = |call| Question {
        resource: "resource://m".into(),
        target: vec!["resource://m".into()],
        call: Some(call),
        ..send(&["reader"], &["m:connect", "m:read"], "POST", "/mcp")
    };
    let zone = zone(BUNDLE);
    for call in [McpCall::Tool("search".into()), McpCall::Method("tools/list".into())] {
        let answer = asked(call).ask(&zone);
        assert!(matches!(answer, Answer::Allow(_)), "{answer}");
    }
    let (rule, _, missing, _, grant) = told(&asked(McpCall::Tool("delete".into())));
    assert_eq!((rule, missing), ("operation", vec!["m:write in the mandate".to_owned()]));
    assert!(grant.contains("m:write"), "{grant}");
    let (rule, _, _, advice, _) = told(&asked(McpCall::Tool("unknown".into())));
    assert_eq!(rule, "operation");
    assert!(advice.starts_with("no grant can"), "{advice}");
}

#[test]
fn what_the_caller_did_is_told_from_what_the_policy_lacks() {
    let elsewhere =
        Question { target: vec!["resource://new".into()], ..send(&["reader"], &["r:read"], "GET", "/a") };
    assert_eq!(told(&elsewhere).0, "target");
    let undeclared = told(&mint(&["reader"], &["r:none"]));
    assert_eq!(
        (undeclared.0, undeclared.3.as_str()),
        ("declared scopes", "no grant can: resource://r declares no r:none")
    );
    let thin = Question { delegation_scopes: vec!["r:read".into()], ..mint(&["writer"], &["r:write"]) };
    let thin = told(&thin);
    assert_eq!((thin.0, thin.2), ("delegation", vec!["r:write in the delegation".to_owned()]));
    assert_eq!(thin.3, "no grant is needed: hand it down in the delegation, and mint with r:write");
    let labelless = told(&mint(&[], &["r:read"]));
    assert_eq!(labelless.0, "role");
    assert!(labelless.3.contains("the session has no label"), "{}", labelless.3);
}

#[test]
fn a_proposed_grant_is_enough_and_none_of_it_can_be_left_out() {
    // Of two labels, the one that needs less.
    let two = mint(&["reader", "writer"], &["r:write", "r:read", "r:end"]);
    let (.., grant) = told(&two);
    assert_eq!(grant, "[grants.\"resource://r\".roles]\n\"writer\" = [\"r:end\", \"r:read\", \"r:write\"]");
    let with = |line: &str| zone(&BUNDLE.replace("writer = [\"r:read\", \"r:write\"]", line));
    assert_eq!(two.ask(&with(grant.lines().last().unwrap())), Answer::Approval, "the tier still asks");
    for scope in ["r:end", "r:read", "r:write"] {
        let less = ["r:end", "r:read", "r:write"].into_iter().filter(|one| *one != scope);
        let less = with(&format!("writer = {:?}", less.collect::<Vec<_>>()));
        assert_eq!(code(&two.ask(&less)), "role_scope_mismatch", "without {scope}");
    }

    let new = Question { resource: "resource://new".into(), ..mint(&["reader"], &["n:read"]) };
    let (rule, at, missing, _, grant) = told(&new);
    assert_eq!((rule, at), ("ownership", line("identifier = \"resource://new\"")));
    assert_eq!(missing, ["a grant of resource://new to agent"]);
    assert!(!grant.contains("app_ids"), "the binding key is there: {grant}");
    assert!(matches!(new.ask(&zone(&format!("{BUNDLE}\n{grant}\n"))), Answer::Allow(_)));
    let unbound = Question { application: "other".into(), ..new };
    let (.., grant) = told(&unbound);
    let bound = BUNDLE.replace("one = \"agent\"", "one = \"agent\"\n\"other\" = \"other\"");
    let rest = grant.strip_prefix("[app_ids]\n\"other\" = \"other\"\n").unwrap();
    assert!(matches!(unbound.ask(&zone(&format!("{bound}\n{rest}\n"))), Answer::Allow(_)));

    let theirs = told(&Question { application: "other".into(), ..mint(&["reader"], &["r:read"]) });
    assert_eq!(theirs.0, "ownership");
    assert!(theirs.3.contains("is granted to agent, and a resource is granted to one"), "{}", theirs.3);
}

#[test]
fn an_allow_goes_through_every_rule_and_what_no_policy_ended_has_no_grant() {
    let zone = zone(BUNDLE);
    let read = send(&["reader"], &["r:read"], "GET", "/a");
    assert_eq!(read.ask(&zone), Answer::Allow("caracal-one-use".into()));
    let path = steps::path(&read, None, &zone, None);
    let rules: Vec<_> = path.iter().map(|step| step.rule).collect();
    let all = ["standing", "ownership", "operation", "freeze", "target", "role", "confinement", "tiers"];
    assert_eq!(rules, all);
    assert!(path.iter().all(|step| step.holds && step.place.is_none()));
    for reason in ["replayed", "revoked", "not_standing", "restriction_active", "application_revoked"] {
        let path = steps::path(&read, Some(reason), &zone, None);
        assert_eq!((path.len(), path[0].rule, path[0].holds), (1, "standing", false), "{reason}");
        let remedy = remedy::find(&read, reason, &zone, None);
        assert!(remedy.grant.is_none() && remedy.advice.starts_with("no grant can: "), "{reason}");
    }
    let plugin = steps::path(&read, Some("plugin_refused"), &zone, None);
    assert_eq!(plugin.iter().map(|step| step.rule).collect::<Vec<_>>(), ["standing", "ownership", "plugins"]);
    let frozen = super::tests::zone(&BUNDLE.replace("[zone]", "restrict = [\"drill\"]\n[zone]"));
    assert_eq!(steps::path(&read, Some("restriction_active"), &frozen, None).last().unwrap().rule, "freeze");
}
