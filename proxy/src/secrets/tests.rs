use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

/// A value no report, log line or debug print may show.
const VALUE: &str = "sk-canary-8f3a1c5e7d";

const GOOD: &str = r#"schema = 1
[secrets.echo]
zones = ["quickstart", "other"]
hosts = ["127.0.0.1:9000", "api.example.com"]
api_key = "sk-canary-8f3a1c5e7d"
"pass.word" = "sk-canary-8f3a1c5e7d-2"
[secrets.toy]
zones = ["quickstart"]
hosts = ["localhost"]
demo = true
token = "toy"
"#;

fn key() -> FingerprintKey {
    FingerprintKey::unkept()
}

fn table(text: &str) -> SecretsTable {
    SecretsTable::parse("secrets.toml", text, &key()).unwrap()
}

fn codes(text: &str) -> Vec<(&'static str, u32)> {
    let report = SecretsTable::parse("secrets.toml", text, &key()).unwrap_err();
    assert!(!format!("{report:?} {report}").contains("canary"), "a report shows a value: {report:?}");
    report.problems.iter().map(|p| (p.code, p.place.line)).collect()
}

fn write(text: &str, mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secrets.toml");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    (folder, path)
}

fn code_of(path: &Path, mounted: bool) -> &'static str {
    let config = SecretsConfig { file: path.to_owned(), mounted, ..SecretsConfig::default() };
    match SecretsTable::load(&config, &key()) {
        Ok(_) => "ok",
        Err(report) => {
            assert!(!format!("{report:?} {report}").contains("canary"), "a report shows a value: {report:?}");
            report.problems[0].code
        }
    }
}

#[test]
fn a_secret_goes_where_its_entry_says_and_nowhere_else() {
    let table = table(GOOD);
    let local = |port| Dial { scheme: Scheme::Http, host: "127.0.0.1", port, loopback: true };
    let api = |scheme| Dial { scheme, host: "api.example.com", port: 443, loopback: false };
    let evil = Dial { scheme: Scheme::Https, host: "evil.example", port: 443, loopback: false };
    let named = Dial { scheme: Scheme::Http, host: "localhost", port: 9000, loopback: true };
    let cases = [
        ("quickstart", "echo", "api_key", local(9000), None),
        ("other", "echo", "api_key", local(9000), None),
        ("quickstart", "echo", "pass.word", api(Scheme::Https), None),
        ("quickstart", "echo", "api_key", local(9001), Some(SecretRefused::HostNotAllowed)),
        ("quickstart", "echo", "api_key", named, Some(SecretRefused::HostNotAllowed)),
        ("quickstart", "echo", "api_key", evil, Some(SecretRefused::HostNotAllowed)),
        ("quickstart", "echo", "api_key", api(Scheme::Http), Some(SecretRefused::InsecureScheme)),
        ("quickstart", "echo", "zones", local(9000), Some(SecretRefused::Unknown)),
        ("quickstart", "echo", "none", local(9000), Some(SecretRefused::Unknown)),
        ("quickstart", "none", "api_key", local(9000), Some(SecretRefused::Unknown)),
        ("stranger", "echo", "api_key", local(9000), Some(SecretRefused::ZoneNotAllowed)),
        ("Quickstart", "echo", "api_key", local(9000), Some(SecretRefused::ZoneNotAllowed)),
        ("quickstart", "toy", "token", named, None),
    ];
    for (zone, name, key, dial, refused) in cases {
        let got = table.get(zone, name, key, &dial).err();
        assert_eq!(got, refused, "{zone} {name}/{key} to {dial:?}");
    }
    assert_eq!(table.get("quickstart", "echo", "api_key", &local(9000)).unwrap().expose(), VALUE);
    assert!(table.is_demo("toy") && !table.is_demo("echo") && !table.is_demo("none"));
}

#[test]
fn nothing_prints_a_value() {
    let table = table(GOOD);
    let dial = Dial { scheme: Scheme::Http, host: "127.0.0.1", port: 9000, loopback: true };
    let secret = table.get("quickstart", "echo", "api_key", &dial).unwrap();
    for text in [format!("{table:?}"), format!("{table:#?}"), format!("{secret:?}"), format!("{:?}", key())] {
        assert!(!text.contains("canary"), "{text}");
    }
}

#[test]
fn fingerprints_tell_values_apart_under_one_key_and_nothing_under_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fingerprint.key");
    let first = FingerprintKey::load_or_create(&path).unwrap();
    let again = FingerprintKey::load_or_create(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let prints = |key: &FingerprintKey| -> Vec<String> {
        let table = SecretsTable::parse("s", GOOD, key).unwrap();
        table.fingerprints().map(|(_, _, print)| print).collect()
    };
    assert_eq!(prints(&first), prints(&again));
    assert_ne!(prints(&first), prints(&key()));
    assert_eq!(prints(&first).len(), 3);
    assert_ne!(prints(&first)[0], prints(&first)[1]);
    assert!(prints(&first).iter().all(|p| p.len() == 16 && p.bytes().all(|b| b.is_ascii_hexdigit())));
    std::fs::write(&path, "short").unwrap();
    assert!(matches!(FingerprintKey::load_or_create(&path), Err(FingerprintKeyError::Length)));
}

#[test]
fn every_unknown_shape_is_a_problem_at_its_place() {
    let entry = |body: &str| format!("schema = 1\n[secrets.a]\nzones = [\"z\"]\nhosts = [\"h\"]\n{body}\n");
    let cases: [(String, &[(&str, u32)]); 18] = [
        ("[secrets]\n".to_owned(), &[("missing_key", 1)]),
        ("schema = 2\n".to_owned(), &[("schema_version", 1)]),
        ("schema = \"1\"\n".to_owned(), &[("schema_version", 1)]),
        ("schema = 1\nsecret = \"sk-canary\"\n".to_owned(), &[("unknown_key", 2)]),
        ("schema = 1\nsecrets = \"sk-canary\"\n".to_owned(), &[("wrong_type", 2)]),
        ("schema = 1\n[secrets]\na = \"sk-canary\"\n".to_owned(), &[("wrong_type", 3)]),
        (entry("k = 7"), &[("wrong_type", 5)]),
        (entry("k = [\"sk-canary\"]"), &[("wrong_type", 5)]),
        (entry("k = { v = \"sk-canary\" }"), &[("wrong_type", 5)]),
        (entry("k = \"\""), &[("secret_empty", 5)]),
        (entry("k = \"sk-canary\\n\""), &[("secret_unprintable", 5)]),
        (entry("k = \"sk-canary\\u0000\""), &[("secret_unprintable", 5)]),
        (entry("\"a/b\" = \"sk-canary\""), &[("secret_name", 5)]),
        (entry("demo = \"sk-canary\""), &[("wrong_type", 5)]),
        (
            "schema = 1\n[secrets.a]\nk = \"sk-canary\"\n".to_owned(),
            &[("secret_destination", 2), ("secret_destination", 2)],
        ),
        (
            "schema = 1\n[secrets.a]\nzones = []\nhosts = [7]\n".to_owned(),
            &[("secret_destination", 3), ("secret_destination", 4)],
        ),
        (
            "schema = 1\n[secrets.a]\nzones = [\"z\"]\nhosts = [\"*\", \"https://x\"]\n".to_owned(),
            &[("secret_hosts", 4), ("secret_hosts", 4)],
        ),
        (entry("k = \"sk-canary"), &[("toml_syntax", 5)]),
    ];
    for (text, expected) in cases {
        assert_eq!(codes(&text), expected, "{text}");
    }
    assert_eq!(codes("schema = 1\n[secrets.a]\nk = \"x\"\nk = \"sk-canary\"\n")[0].0, "toml_syntax");
    assert!(table("schema = 1\n").fingerprints().next().is_none(), "a file without secrets is complete");
}

#[test]
fn the_file_must_be_the_owners_alone() {
    for (mode, code) in [
        (0o600, "ok"),
        (0o400, "ok"),
        (0o644, "secrets_mode"),
        (0o604, "secrets_mode"),
        (0o601, "secrets_mode"),
        (0o620, "secrets_mode"),
        (0o640, "secrets_mode"),
        (0o440, "secrets_mode"),
    ] {
        let (_folder, path) = write(GOOD, mode);
        assert_eq!(code_of(&path, false), code, "{mode:o}");
    }
}

#[test]
fn a_mounted_file_may_be_read_by_one_of_our_groups() {
    for (mode, code) in
        [(0o640, "ok"), (0o440, "ok"), (0o660, "secrets_mode"), (0o644, "secrets_mode"), (0o600, "ok")]
    {
        let (_folder, path) = write(GOOD, mode);
        assert_eq!(code_of(&path, true), code, "{mode:o}");
    }
    let (_folder, path) = write(GOOD, 0o640);
    let foreign = 54_321;
    // Only root can give a file to a group it is not in; elsewhere there is nothing to try.
    if std::os::unix::fs::chown(&path, None, Some(foreign)).is_ok() {
        assert_eq!(code_of(&path, true), "secrets_group");
    }
}

#[test]
fn a_file_of_somebody_else_is_refused() {
    let (_folder, path) = write(GOOD, 0o600);
    // Only root can give a file away.
    if std::os::unix::fs::chown(&path, Some(54_321), None).is_ok() {
        assert_eq!(code_of(&path, false), "secrets_owner");
    }
}

#[test]
fn each_kind_of_broken_file_has_its_own_code() {
    let (folder, path) = write("", 0o600);
    assert_eq!(code_of(&path, false), "secrets_empty");
    assert_eq!(code_of(&folder.path().join("none.toml"), false), "secrets_missing");
    assert_eq!(code_of(folder.path(), false), "secrets_kind");
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(code_of(&pipe, false), "secrets_kind", "a named pipe does not hold up the reader");
    std::fs::write(&path, b"schema = 1\n# \xff\n").unwrap();
    assert_eq!(code_of(&path, false), "secrets_encoding");
    std::fs::write(&path, format!("schema = 1\n#{}", "x".repeat(1_048_576))).unwrap();
    assert_eq!(code_of(&path, false), "secrets_too_large");
    std::fs::write(&path, GOOD.get(..120).unwrap()).unwrap();
    assert_eq!(code_of(&path, false), "toml_syntax", "half a file");
}

#[test]
fn a_folder_everybody_may_write_to_is_refused_unless_sticky() {
    let (folder, path) = write(GOOD, 0o600);
    for (mode, code) in [(0o700, "ok"), (0o755, "ok"), (0o777, "secrets_folder_open"), (0o1777, "ok")] {
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(code_of(&path, false), code, "{mode:o}");
    }
}

#[test]
fn changes_are_told_in_words_without_values() {
    let key = key();
    let before = SecretsTable::parse("s", GOOD, &key).unwrap();
    let newer = GOOD
        .replace("\"sk-canary-8f3a1c5e7d\"", "\"sk-canary-new\"")
        .replace("token = \"toy\"", "other = \"toy\"")
        .replace("\"localhost\"", "\"localhost:1\"");
    let after = SecretsTable::parse("s", &newer, &key).unwrap();
    assert!(!before.same_text(&after));
    assert_eq!(
        before.changes(&after),
        [
            "secret `echo` key `api_key` changes",
            "secret `toy` gains key `other`",
            "secret `toy` loses key `token`",
            "secret `toy` changes where it may go",
        ]
    );
}
