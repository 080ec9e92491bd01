//! What compiles, and what it compiles to.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use caracal_policies::{
    Action, Decision, DenyReason, Digest, EdgeFacts, Enforcement, Input, KeySlot, Principal, ProviderKind,
    Scheme,
};

use crate::bundles::{SINGLE, codes, compiled, folder, single, spread, zone};

const DOCUMENTS: [&str; 4] =
    ["applications.toml", "providers.toml", "resources.toml", "policies/grants.toml"];

#[test]
fn a_zone_holds_what_its_bundle_says() {
    let zone = zone(SINGLE);
    assert_eq!((&**zone.id(), zone.name()), ("demo", "Demo"));
    let ids: Vec<_> = zone.applications().map(|application| application.id.to_string()).collect();
    assert_eq!(ids, ["agent", "other"]);
    let agent = zone.application("agent").unwrap();
    assert_eq!((agent.name.as_str(), agent.secrets.len(), agent.max_concurrent), ("Agent", 1, 256));
    assert_eq!(zone.application("other").unwrap().name, "other");
    assert!(zone.application("nobody").is_none());
}

#[test]
fn a_resource_holds_what_its_bundle_says() {
    let zone = zone(SINGLE);
    let echo = zone.resource("resource://echo").unwrap();
    assert!(Arc::ptr_eq(echo, zone.resource("r-1").unwrap()));
    assert_eq!(
        (echo.upstream.scheme, &*echo.upstream.host, echo.upstream.port),
        (Scheme::Http, "127.0.0.1", 9000)
    );
    assert_eq!(echo.upstream.base_path, "/base");
    assert_eq!(echo.enforcement, Enforcement::Enforced);
    assert_eq!(echo.operations.iter().count(), 3);
    assert_eq!(echo.limits.idle_timeout, Duration::from_secs(60));
    assert_eq!(
        (echo.plugins[0].name.as_str(), echo.plugins[0].config["depth"].as_integer()),
        ("response_scrub", Some(3))
    );
    let open = zone.resource("resource://open").unwrap();
    assert_eq!((open.id.as_ref(), open.provider.is_none()), ("resource://open", true));
    assert_eq!(open.enforcement, Enforcement::TransportUniform);
}

#[test]
fn a_provider_holds_what_its_bundle_says() {
    let zone = zone(SINGLE);
    let provider = zone.resource("r-1").unwrap().provider.as_ref().unwrap();
    assert_eq!(zone.providers().count(), 1);
    assert_eq!(provider.kind, ProviderKind::ApiKeyHeader { name: "x-api-key".into(), scheme: None });
    assert_eq!(provider.key_slots, [KeySlot::Header("x-api-key".into())]);
    let secret = provider.secret.as_ref().unwrap();
    assert_eq!((secret.name.as_str(), secret.key.as_str(), secret.place.line), ("echo", "api_key", 22));
}

#[test]
fn only_the_owner_of_a_grant_is_granted_somewhere() {
    let zone = zone(SINGLE);
    assert!(zone.granted_somewhere("agent", "resource://echo"));
    assert!(zone.granted_somewhere("agent", "r-1"));
    assert!(!zone.granted_somewhere("other", "resource://echo"));
    assert!(!zone.granted_somewhere("agent", "resource://open"));
    assert!(!zone.granted_somewhere("agent", "resource://nowhere"));
}

#[test]
fn a_decision_uses_the_compiled_policy() {
    let zone = zone(SINGLE);
    let labels = [Arc::from("ops")];
    let scopes = [Arc::from("echo:admin")];
    let decision = zone.decide(&Input {
        principal: Principal::Application("agent"),
        action: Action::TokenExchange,
        resource: "resource://echo",
        labels: &labels,
        requested: &["echo:admin"],
        edge: Some(EdgeFacts { id: "e", scopes: &scopes }),
        agent_session_id: Some("s"),
        presented: None,
    });
    let Decision::Allow(allowed) = decision else { panic!("{decision:?}") };
    assert_eq!(allowed.rule.to_string(), "caracal-demo-mint");
    assert_eq!(allowed.gate.len(), 1);
    assert_eq!(serde_json::to_string(&allowed.gate[0]).unwrap(), r#"{"tier":"high","approver":"operator"}"#);
}

#[test]
fn a_bundle_without_any_policy_denies() {
    let zone = zone("schema = 1\n[zone]\nid = \"demo\"\n");
    let decision = zone.decide(&Input {
        principal: Principal::Workload("w"),
        action: Action::CredentialInjection,
        resource: "r",
        labels: &[],
        requested: &["a"],
        edge: None,
        agent_session_id: None,
        presented: None,
    });
    assert_eq!(decision, Decision::Deny(DenyReason::NoActivePolicySet));
}

#[test]
fn anything_in_restrict_freezes() {
    let frozen = zone("schema = 1\nrestrict = [\"incident 12\"]\n[zone]\nid = \"demo\"\n");
    let decision = frozen.decide(&Input {
        principal: Principal::Workload("w"),
        action: Action::CredentialInjection,
        resource: "r",
        labels: &[],
        requested: &["a"],
        edge: None,
        agent_session_id: None,
        presented: None,
    });
    assert_eq!(decision, Decision::Deny(DenyReason::RestrictionActive));
}

#[test]
fn one_content_has_one_digest() {
    let digest = *zone(SINGLE).digest();
    assert_eq!(digest, *zone(SINGLE).digest());
    assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
    "sha256:00".parse::<Digest>().unwrap_err();

    let commented = SINGLE.replace("[app_ids]", "# a comment\n\n[app_ids]");
    assert_eq!(digest, *zone(&commented).digest(), "comments and places do not count");
    let reordered = SINGLE
        .replace(
            r#"["echo:read", "echo:write", "echo:admin"]"#,
            r#"["echo:write", "echo:admin", "echo:read"]"#,
        )
        .replace("demo = \"agent\"\nsecond = \"other\"", "second = \"other\"\ndemo = \"agent\"")
        .replace(
            r#"writer = ["echo:read", "echo:write"], ops = ["echo:admin"]"#,
            r#"ops = ["echo:admin"], writer = ["echo:write", "echo:read"]"#,
        );
    assert_ne!(reordered, SINGLE);
    assert_eq!(digest, *zone(&reordered).digest(), "order does not count");

    let spread_out = compiled(&spread(DOCUMENTS)).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(digest, *spread_out.digest(), "a folder and a file are the same");
    let mut backwards = DOCUMENTS;
    backwards.reverse();
    let backwards = compiled(&spread(backwards)).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(digest, *backwards.digest(), "the order of documents does not count");
}

#[test]
fn what_is_said_about_tls_is_in_the_digest() {
    let secured = SINGLE.replace("http://127.0.0.1:9000/base", "https://127.0.0.1:9000/base");
    let mut digests = vec![*zone(&secured).digest()];
    for tls in [
        "ca = \"internal\"",
        "ca = \"other\"",
        "server_name = \"internal\"",
        "client_certificate = '-----BEGIN CERTIFICATE----------END CERTIFICATE-----', client_key = \"secret://a/b\"",
        "client_certificate = '-----BEGIN CERTIFICATE----------END CERTIFICATE-----', client_key = \"secret://a/c\"",
        "client_certificate = '-----BEGIN CERTIFICATE-----A-----END CERTIFICATE-----', client_key = \"secret://a/b\"",
    ] {
        let text = secured.replacen(
            "prefixes = [\"/echo\"]",
            &format!("prefixes = [\"/echo\"]\ntls = {{ {tls} }}"),
            1,
        );
        assert_ne!(text, secured);
        digests.push(*zone(&text).digest());
    }
    let mut unique = digests.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), digests.len());
}

#[test]
fn every_kind_of_change_has_another_digest() {
    let mut digests = vec![*zone(SINGLE).digest()];
    for (from, to) in [
        ("name = \"Demo\"", "name = \"Other\""),
        ("name = \"Agent\"", "name = \"Agents\""),
        ("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE", "AgEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"),
        ("team:demo", "team:other"),
        ("traits =", "max_concurrent = 7\ntraits ="),
        ("header_name = \"X-Api-Key\"", "header_name = \"X-Key\""),
        ("header_name = \"X-Api-Key\"", "header_name = \"X-Api-Key\"\nauth_scheme = \"Token\""),
        ("header_name = \"X-Api-Key\"", "header_name = \"X-Api-Key\"\nforward_caracal_identity = true"),
        ("header_name = \"X-Api-Key\"", "header_name = \"X-Api-Key\"\nkey_slots = [{ query = \"key\" }]"),
        ("secret://echo/api_key", "secret://echo/other_key"),
        ("id = \"r-1\"", "id = \"r-2\""),
        ("127.0.0.1:9000/base", "127.0.0.1:9001/base"),
        ("prefixes = [\"/echo\"]", "prefixes = [\"/echo\"]\ntargets = [\"a:1\"]"),
        ("prefixes = [\"/echo\"]", "prefixes = [\"/echo\"]\ntargets = [\"a:2\"]"),
        ("127.0.0.1:9000/base", "127.0.0.1:9000/base?tenant=a"),
        ("\"echo:admin\"]\ncredential", "\"echo:admin\", \"echo:more\"]\ncredential"),
        ("credential_provider = \"provider://echo-key\"\n", ""),
        ("operation_enforcement = \"transport_uniform\"\n", ""),
        ("method = \"GET\"", "method = \"HEAD\""),
        ("/read/**", "/read/{x}"),
        ("path = \"/write/{id}\", scope = \"echo:write\"", "path = \"/write/{id}\", scope = \"echo:read\""),
        ("prefixes = [\"/echo\"]", "prefixes = [\"/echo/v1\"]"),
        ("hosts = [\"open.example\"]\n", ""),
        ("depth = 3", "depth = 4"),
        ("prefixes = [\"/echo\"]", "prefixes = [\"/echo\"]\nreusable_mandates = true"),
        ("prefixes = [\"/echo\"]", "prefixes = [\"/echo\"]\nquery_key_slots = true"),
        ("prefixes = [\"/echo\"]", "prefixes = [\"/echo\"]\ncookies = [\"theme\"]"),
        ("prefixes = [\"/echo\"]", "prefixes = [\"/echo\"]\nerror_format = \"object\""),
        ("prefixes = [\"/echo\"]", "prefixes = [\"/echo\"]\nupstream_protocol = \"http2\""),
        ("prefixes = [\"/echo\"]", "prefixes = [\"/echo\"]\nupstream_protocol = \"auto\""),
        ("prefixes = [\"/echo\"]", "prefixes = [\"/echo\"]\nlimits = { idle_timeout_ms = 1 }"),
        ("prefixes = [\"/echo\"]", "prefixes = [\"/echo\"]\nlimits = { max_waiting = 1 }"),
        ("prefixes = [\"/echo\"]", "prefixes = [\"/echo\"]\nlimits = { max_waiting = 1, max_wait_ms = 7 }"),
        ("second = \"other\"", "second = \"agent\""),
        ("reader = [\"open:any\"]", "reader = []"),
        ("reader = [\"open:any\"]", "writer = [\"open:any\"]"),
        ("label_prefix = \"sandbox\"", "label_prefix = \"sand\""),
        ("tier = \"high\"\n\n", "tier = \"low\"\n\n"),
        ("approver = \"operator\"", "approver = \"any\""),
        ("approver = \"operator\"", ""),
        ("approver = \"operator\"", "ttl_seconds = 60"),
        ("approver = \"operator\"", "privacy = \"anonymous\""),
        ("approver = \"operator\"", "approver = \"operator\"\nself_approval = \"forbidden\""),
        ("approver = \"operator\"", "approver = \"operator\"\nself_approval = \"allowed\""),
        ("schema = 1", "schema = 1\nrestrict = [\"x\"]"),
        ("[app_ids]", &issuer("https://id.example", "https://id.example/keys", "caracal")),
        ("[app_ids]", &issuer("https://id2.example", "https://id.example/keys", "caracal")),
        ("[app_ids]", &issuer("https://id.example", "https://id.example/keys2", "caracal")),
        ("[app_ids]", &issuer("https://id.example", "https://id.example/keys", "caracal2")),
        (
            "[app_ids]",
            &issuer("https://id.example", "https://id.example/keys", "caracal\"\nsingle_use = true #"),
        ),
    ] {
        let changed = SINGLE.replacen(from, to, 1);
        assert_ne!(changed, SINGLE, "{from}");
        digests.push(*zone(&changed).digest());
    }
    let token = "kind = \"oauth2_client_credentials\"\ntoken_endpoint = \"https://id.example/t\"\nclient_id = \"c\"\n";
    let by_secret = "client_secret = \"secret://a/b\"";
    let by_key = "client_auth_method = \"private_key_jwt\"\nprivate_key = \"secret://a/b\"";
    let assertion =
        "client_auth_method = \"none\"\ngrant_type = \"jwt_bearer\"\nprivate_key = \"secret://a/b\"";
    for (more, from, to) in [
        (by_secret, "", ""),
        (by_secret, "token_endpoint", "issuer"),
        (by_secret, "id.example/t", "id.example/u"),
        (by_secret, "\"c\"", "\"d\""),
        (by_secret, "a/b", "a/c"),
        (by_secret, "client_secret", "client_auth_method = \"client_secret_post\"\nclient_secret"),
        (by_secret, "client_secret", "scopes = [\"s\"]\nclient_secret"),
        (by_secret, "client_secret", "audience = \"s\"\nclient_secret"),
        (by_secret, "client_secret", "resource = \"s\"\nclient_secret"),
        (by_secret, "client_secret", "token_params = { s = \"t\" }\nclient_secret"),
        (by_secret, "client_secret", "auth_header = \"x-token\"\nclient_secret"),
        (by_secret, "client_secret", "auth_scheme = \"Token\"\nclient_secret"),
        (by_key, "", ""),
        (by_key, "a/b", "a/c"),
        (by_key, "private_key =", "key_id = \"k\"\nprivate_key ="),
        (assertion, "", ""),
        (assertion, "grant_type", "assertion_subject = \"s\"\ngrant_type"),
        (assertion, "grant_type", "assertion_audience = \"s\"\ngrant_type"),
    ] {
        let provider = format!("[[providers]]\nidentifier = \"provider://token\"\n{token}{more}\n")
            .replacen(from, to, 1);
        digests.push(*zone(&SINGLE.replacen("[app_ids]", &format!("{provider}[app_ids]"), 1)).digest());
    }
    let count = digests.len();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), count);
}

/// A subject issuer in front of the table it takes the place of.
fn issuer(name: &str, jwks_url: &str, audience: &str) -> String {
    format!(
        "[[subject_issuers]]\nissuer = \"{name}\"\njwks_url = \"{jwks_url}\"\naudience = \"{audience}\"\n\n[app_ids]"
    )
}

#[test]
fn a_subject_issuer_is_found_by_exactly_its_name() {
    let text =
        SINGLE.replace("[app_ids]", &issuer("https://id.example/", "http://127.0.0.1:9/keys", "caracal"));
    let federated = zone(&text);
    let issuer = federated.subject_issuer("https://id.example/").unwrap();
    assert_eq!((issuer.audience.as_str(), issuer.single_use), ("caracal", false));
    assert_eq!((issuer.jwks_url.port(), issuer.jwks_url.target()), (9, "/keys"));
    assert_eq!(federated.subject_issuers().count(), 1);
    for other in ["https://id.example", "HTTPS://id.example/", ""] {
        assert!(federated.subject_issuer(other).is_none(), "{other}");
    }
    let words = zone(SINGLE).changes(&federated);
    assert_eq!(
        words,
        [
            "subject issuer `https://id.example/` is added (tokens for `caracal`, keys from http://127.0.0.1:9/keys)"
        ]
    );
    let once = zone(&text.replace("audience = ", "single_use = true\naudience = "));
    assert_eq!(federated.changes(&once).len(), 1);
    assert_eq!(once.changes(&zone(SINGLE)), ["subject issuer `https://id.example/` is removed"]);
}

#[test]
fn a_folder_is_what_its_head_lists() {
    let good = spread(DOCUMENTS);
    for left_out in DOCUMENTS {
        let mut partial = good.clone();
        partial.files.retain(|file| file.path != left_out);
        let report = compiled(&partial).unwrap_err();
        let codes: Vec<_> = report.problems.iter().map(|problem| problem.code).collect();
        assert_eq!(codes, ["document_missing"], "{left_out}");
    }
    let mut headless = good;
    headless.files.retain(|file| file.path != "zone.toml");
    assert_eq!(compiled(&headless).unwrap_err().problems[0].code, "zone_file_missing");
}

#[test]
fn an_empty_bundle_is_no_zone() {
    assert_eq!(compiled(&folder([])).unwrap_err().problems[0].code, "zone_file_missing");
    assert_eq!(codes(""), ["key_missing", "key_missing"]);
}

#[test]
fn the_same_key_twice_is_fine_only_with_the_same_content() {
    let head = "schema = 1\n[zone]\nid = \"demo\"\ndocuments = [\"a.toml\", \"b.toml\", \"c.toml\"]\n";
    let base = "schema = 1\n[[applications]]\nid = \"agent\"\n[[resources]]\nidentifier = \"r\"\n\
                upstream_url = \"http://a\"\nscopes = [\"x\", \"y\"]\n";
    let grant = |scopes: &str| {
        format!(
            "schema = 1\n[app_ids]\nk = \"agent\"\n[grants.r]\napplication = \"k\"\nroles = {{ l = [{scopes}] }}\n"
        )
    };
    let bundle = |second: &str| {
        folder([
            ("zone.toml", head.to_owned()),
            ("a.toml", base.to_owned()),
            ("b.toml", grant("\"x\", \"y\"")),
            ("c.toml", grant(second)),
        ])
    };
    compiled(&bundle("\"y\", \"x\"")).unwrap();
    let report = compiled(&bundle("\"x\"")).unwrap_err();
    assert_eq!(report.problems[0].code, "merge_conflict");
    assert_eq!(report.problems[0].place.file.as_ref(), "bundles/demo/c.toml");
}

#[test]
fn text_beyond_the_limits_is_not_parsed() {
    let huge = format!("schema = 1\n# {}", "x".repeat(16 * 1024 * 1024));
    assert_eq!(compiled(&single(&huge)).unwrap_err().problems[0].code, "too_large");
}

#[test]
fn a_report_stops_listing_but_counts_on() {
    let mut text = "schema = 1\n[zone]\nid = \"demo\"\n".to_owned();
    for index in 0..600 {
        writeln!(text, "key{index} = 1").unwrap();
    }
    let report = compiled(&single(&text)).unwrap_err();
    assert_eq!(report.problems.len(), 501);
    assert_eq!(report.problems[500].message, "100 more problems are not listed");
}

#[test]
fn changed_settings_are_told_in_words() {
    let newer = SINGLE
        .replace("header_name = \"X-Api-Key\"", "header_name = \"X-Key\"\nauth_scheme = \"Token\"")
        .replace("prefixes =", "limits = { idle_timeout_ms = 1500 }\nprefixes =")
        .replace(
            "approver = \"operator\"",
            "approver = \"any\"\nttl_seconds = 60\nprivacy = \"anonymous\"\nself_approval = \"forbidden\"",
        )
        .replace("depth = 3", "depth = 4");
    assert_eq!(
        zone(SINGLE).changes(&zone(&newer)),
        [
            "risk tier `high` needs another approval: by any, within 60 s, requester anonymous, never by the person the session acts for \
             instead of by operator, within 1800 s, requester identified",
            "provider `provider://echo-key` is changed (api_key in header `x-key` after `Token` from secret://echo/api_key), \
             before (api_key in header `x-api-key` from secret://echo/api_key)",
            "idle timeout of `resource://echo`: 1.5s instead of 60s",
            "key slots of `provider://echo-key`: nothing instead of `header x-api-key`",
            "plugins of `resource://echo`: response_scrub depth = 4 instead of response_scrub depth = 3",
        ]
    );
}

#[test]
fn changes_are_told_in_words() {
    let older = zone(SINGLE);
    assert!(older.changes(&zone(SINGLE)).is_empty());
    let newer = SINGLE
        .replace("reader = [\"echo:read\"], writer", "reader = [\"echo:read\", \"echo:admin\"], writer")
        .replace("writer = [\"echo:read\", \"echo:write\"]", "writer = [\"echo:read\"]")
        .replace("127.0.0.1:9000", "127.0.0.1:9001")
        .replace(
            "path = \"/write/all\", scope = \"echo:admin\"",
            "path = \"/write/all\", scope = \"echo:write\"",
        )
        .replace("{ method = \"GET\", path = \"/read/**\", scope = \"echo:read\" },", "")
        .replace("[[confinement]]\nlabel_prefix = \"sandbox\"\nscopes = [\"echo:read\"]\n", "")
        .replace("[[risk]]\nscope = \"echo:admin\"", "[[risk]]\nscope = \"echo:write\"")
        .replace("schema = 1", "schema = 1\nrestrict = [\"x\"]")
        .replace("hosts = [\"open.example\"]", "")
        .replace(
            "[[applications]]\nid = \"other\"",
            "[[applications]]\nid = \"other\"\n[[applications]]\nid = \"new\"",
        );
    assert_eq!(
        older.changes(&zone(&newer)),
        [
            "the zone is frozen",
            "application `new` is added",
            "application `agent` gains scope `echo:admin` on `resource://echo` as `reader`",
            "application `agent` loses scope `echo:write` on `resource://echo` as `writer`",
            "labels that start with `sandbox` are no longer confined to `echo:read`",
            "scope `echo:admin` is no longer in risk tier `high`",
            "scope `echo:write` is in risk tier `high` now",
            "resource `resource://echo` is changed at http://127.0.0.1:9001/base, before at http://127.0.0.1:9000/base",
            "`GET /read/**` on `resource://echo` is no longer open to holders of `echo:read`",
            "`POST /write/all` on `resource://echo` is open to holders of `echo:write` instead of holders of `echo:admin`",
            "host `open.example` no longer leads to `resource://open`",
        ]
    );
}

#[test]
fn a_policy_that_comes_back_finds_the_applications_and_issuers_of_today() {
    let gone = issuer("https://gone.example", "http://127.0.0.1:9/keys", "caracal");
    let old =
        zone(&SINGLE.replace("[app_ids]", &gone).replace("id = \"other\"", "id = \"other\"\nsecrets = []"));
    let kept = issuer("https://kept.example", "http://127.0.0.1:9/keys", "caracal");
    let today = SINGLE
        .replace("[app_ids]", &kept)
        .replace("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE", "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI")
        .replace("[[applications]]\nid = \"other\"\n", "")
        .replace("second = \"other\"\n", "")
        .replace(
            "[grants.\"resource://open\"]\napplication = \"second\"\nroles = { reader = [\"open:any\"] }\n",
            "",
        )
        .replace("ops = [\"echo:admin\"]", "ops = [\"echo:read\"]");
    let today = zone(&today);
    let back = old.for_identities_of(&today);
    assert_eq!(back.applications().collect::<Vec<_>>(), today.applications().collect::<Vec<_>>());
    assert!(back.application("other").is_none(), "a removed application stays removed");
    let issuers: Vec<_> = back.subject_issuers().map(|issuer| &*issuer.issuer).collect();
    assert_eq!(issuers, ["https://kept.example"]);
    assert_eq!(today.changes(&back), old_words(&old, &today), "the policy and nothing else comes back");
    assert_ne!((back.digest(), back.digest()), (old.digest(), today.digest()));

    let frozen = zone("schema = 1\nrestrict = [\"incident 12\"]\n[zone]\nid = \"demo\"\n");
    assert!(
        old.for_identities_of(&frozen).changes(&old).contains(&"the zone is no longer frozen".to_owned())
    );
    assert_eq!(old.for_identities_of(&old).digest(), old.digest());
}

/// What going from `today` to `old` changes beside applications and issuers.
fn old_words(old: &caracal_policies::Zone, today: &caracal_policies::Zone) -> Vec<String> {
    let about_who =
        |word: &String| word.starts_with("subject issuer") || word.starts_with("application `other` is");
    today.changes(old).into_iter().filter(|word| !about_who(word)).collect()
}
