use super::*;

fn codes(text: &str) -> Vec<(&'static str, u32)> {
    match parse("caracal.toml", text, Path::new("/etc/caracal")) {
        Ok(_) => Vec::new(),
        Err(report) => report.problems.iter().map(|p| (p.code, p.place.line)).collect(),
    }
}

const MINIMAL: &str = "schema = 1\n[zones.a]\nprefixes = [\"/a\"]\n";

fn with(extra: &str) -> String {
    format!("{MINIMAL}{extra}")
}

#[test]
fn the_embedded_file_says_what_the_defaults_are() {
    let embedded = Config::embedded().unwrap();
    let defaults =
        parse("x", "schema = 1\n[zones.quickstart]\nprefixes = [\"/echo\"]\n", Path::new(".")).unwrap();
    assert_eq!(format!("{embedded:?}"), format!("{defaults:?}"));
    assert_eq!(embedded.listeners.gateway.address.to_string(), "127.0.0.1:8081");
    assert_eq!(embedded.limits.max_header_bytes, 16_384);
    assert_eq!(embedded.watch.poll, Duration::from_secs(30));
}

#[test]
fn every_problem_is_reported_at_its_place_at_once() {
    let text = "schema = 2\nissuer = 7\nstate_dri = \"x\"\n\n[zones.a]\nprefixes = \"/a\"\n[ledger]\nmode = \"fast\"\nqueue = -1\n";
    let mut found = codes(text);
    found.sort_unstable();
    assert_eq!(
        found,
        [
            ("out_of_range", 1),
            ("out_of_range", 9),
            ("unknown_key", 3),
            ("unknown_word", 8),
            ("wrong_type", 2),
            ("wrong_type", 6)
        ]
    );
    let report = parse("caracal.toml", text, Path::new("/")).unwrap_err();
    let unknown = report.problems.iter().find(|p| p.code == "unknown_key").unwrap();
    assert_eq!((unknown.found.as_str(), unknown.place.column), ("`state_dri`", 1));
    assert!(unknown.expected.contains("state_dir"), "{}", unknown.expected);
}

#[test]
fn syntax_errors_and_missing_keys_are_named() {
    assert_eq!(codes("schema = 1\n[zones.a\n")[0], ("toml_syntax", 2));
    assert_eq!(codes("issuer = \"http://x\"\n"), [("missing_key", 1), ("missing_key", 1)]);
    assert_eq!(codes("schema = 1\n[zones]\n"), [("no_zones", 2)]);
}

#[test]
fn a_listener_off_loopback_needs_tls_or_the_exact_words() {
    let cases: [(&str, &[&str]); 9] = [
        ("[listeners.gateway]\naddress = \"0.0.0.0:8081\"\n", &["plaintext_listener"]),
        ("[listeners.gateway]\naddress = \"0.0.0.0:8081\"\nplaintext = \"I have TLS in front\"\n", &[]),
        ("[listeners.gateway]\naddress = \"0.0.0.0:8081\"\nplaintext = \"yes\"\n", &["plaintext_words"]),
        ("[listeners.gateway]\naddress = \"0.0.0.0:8081\"\ntls = { cert = \"c\", key = \"k\" }\n", &[]),
        ("[listeners.gateway]\naddress = \"[::ffff:127.0.0.1]:8081\"\n", &[]),
        ("[listeners.ops]\naddress = \"0.0.0.0:9090\"\n", &["plaintext_listener"]),
        (
            "[listeners.ops]\naddress = \"0.0.0.0:9090\"\nplaintext = \"I have TLS in front\"\n",
            &["plaintext_ops"],
        ),
        (
            "[metrics]\nbearer_file = \"m\"\n[listeners.ops]\naddress = \"0.0.0.0:9090\"\nplaintext = \"I have TLS in front\"\n",
            &[],
        ),
        ("[listeners.authority]\naddress = \"localhost:8080\"\n", &["listener_address"]),
    ];
    for (extra, expected) in cases {
        let found: Vec<&str> = codes(&with(extra)).into_iter().map(|(code, _)| code).collect();
        assert_eq!(found, expected, "{extra}");
    }
    assert_eq!(
        codes(&with("[listeners.ops]\naddress = \"127.0.0.1:8080\"\n")),
        [("address_taken", 5)],
        "the place is the later listener"
    );
}

#[test]
fn paths_are_taken_from_the_files_folder_and_the_sealing_key_stays_out_of_the_state_folder() {
    let config = parse("x", &with("[keys]\nsealing_key = \"/run/k\"\n"), Path::new("/etc/caracal")).unwrap();
    assert_eq!(config.state_dir, Path::new("/etc/caracal/state"));
    assert_eq!(config.secrets.file, Path::new("/etc/caracal/secrets.toml"));
    assert_eq!(config.secrets.files_dir, None);
    assert_eq!(config.sealing_key.as_deref(), Some(Path::new("/run/k")));
    let config = parse("x", &with("[secrets]\nfiles_dir = \"keys\"\n"), Path::new("/etc/caracal")).unwrap();
    assert_eq!(config.secrets.files_dir.as_deref(), Some(Path::new("/etc/caracal/keys")));
    assert_eq!(codes(&with("[secrets]\nfiles_dir = \"\"\n")), [("empty_path", 5)]);
    let config = parse("x", &with("[secrets]\nidentity_file = \"id\"\n"), Path::new("/etc/caracal")).unwrap();
    let Some(SecretsKey::Identity(path)) = config.secrets.key else { panic!("no identity") };
    assert_eq!(path, Path::new("/etc/caracal/id"));
    assert_eq!(
        codes(&with("[secrets]\nidentity_file = \"i\"\npassphrase_file = \"p\"\n")),
        [("secrets_two_keys", 6)]
    );
    assert_eq!(codes(&with("[keys]\nsealing_key = \"./state/k\"\n")), [("sealing_key_in_state", 5)]);
}

#[test]
fn a_route_belongs_to_one_zone_and_has_one_spelling() {
    let twice = "schema = 1\n[zones.a]\nhosts = [\"API.example.\"]\n[zones.b]\nhosts = [\"api.example\"]\n";
    assert_eq!(codes(twice), [("route_claimed_twice", 5)]);
    for bad in ["echo", "/echo/", "/a//b", "/a/../b", "/a%62", "/a;x", ""] {
        let text = format!("schema = 1\n[zones.a]\nprefixes = [\"{bad}\"]\n");
        assert_eq!(codes(&text), [("route_claim", 3)], "{bad}");
    }
    for bad in ["*.example", "a:80", "a b", "", "-a.example"] {
        let text = format!("schema = 1\n[zones.a]\nhosts = [\"{bad}\"]\n");
        assert_eq!(codes(&text), [("route_claim", 3)], "{bad}");
    }
    let config = parse("x", "schema = 1\n[zones.a]\nhosts = [\"API.example.\"]\n", Path::new(".")).unwrap();
    assert_eq!(config.zones["a"].hosts, ["api.example"]);
}

#[test]
fn ids_issuers_and_networks_are_checked() {
    assert_eq!(codes("schema = 1\n[zones.\"../x\"]\n"), [("zone_id", 2)]);
    for issuer in ["caracal", "ftp://x", "https://", "https://a?b", "https://u:p@a", "https://a#f"] {
        assert_eq!(codes(&format!("issuer = \"{issuer}\"\n{MINIMAL}")), [("issuer", 1)], "{issuer}");
    }
    let config = parse("x", &format!("issuer = \"https://a/b/\"\n{MINIMAL}"), Path::new(".")).unwrap();
    assert_eq!(config.issuer, "https://a/b");
    let text = format!("trusted_proxies = [\"10.0.0.0/8\", \"10.0.0.0/64\"]\n{MINIMAL}");
    assert_eq!(codes(&text), [("trusted_proxy", 1)]);
}

#[test]
fn a_missing_file_is_one_problem() {
    let report = load(Path::new("/nonexistent/caracal.toml")).unwrap_err();
    assert_eq!(report.problems[0].code, "config_unreadable");
}

#[test]
fn the_schema_refuses_unknown_keys_everywhere() {
    let schema = json_schema();
    assert_eq!(schema["additionalProperties"], false);
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        if definition["type"] == "object" {
            assert_eq!(definition["additionalProperties"], false, "{name}");
        }
    }
}

#[test]
fn who_may_sign_bundles_is_checked() {
    let key = format!("ed25519:{}", "ab".repeat(32));
    let good = with(&format!("[bundles]\nrequire_signature = true\ntrusted_keys = [\"{key}\"]\n"));
    let config = parse("x", &good, Path::new(".")).unwrap();
    assert_eq!((config.bundles.require_signature, config.bundles.trusted_keys[0].to_string()), (true, key));
    assert_eq!(codes(&with("[bundles]\nrequire_signature = true\n")), [("no_trusted_keys", 5)]);
    assert_eq!(codes(&with("[bundles]\ntrusted_keys = [\"ed25519:12\"]\n")), [("trusted_key", 5)]);
    assert_eq!(codes(&with("[bundles]\nkeep_versions = 1\n")), [("out_of_range", 5)]);
}
