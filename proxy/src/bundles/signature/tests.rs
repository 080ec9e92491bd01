use caracal_policies::SourceFile;
use tempfile::TempDir;

use super::super::signing::{SigningKey, SigningKeyError};
use super::*;

fn key() -> (TempDir, SigningKey) {
    let folder = tempfile::tempdir().unwrap();
    let key = SigningKey::create(&folder.path().join("bundles.key")).unwrap();
    (folder, key)
}

fn source(files: &[(&str, &str)]) -> BundleSource {
    let file = |(path, text): &(&str, &str)| SourceFile { path: (*path).into(), text: (*text).into() };
    BundleSource { root: "bundles/z".into(), files: files.iter().map(file).collect() }
}

const FILES: [(&str, &str); 2] = [("zone.toml", "schema = 1\n"), ("policies/grants.toml", "a = 1\n")];

fn signed(key: &SigningKey, revision: u64) -> BundleSource {
    let mut signed = source(&FILES);
    let text = key.sign(&signed, "z", revision);
    signed.files.push(SourceFile { path: FILE.into(), text });
    signed
}

fn rules(key: &SigningKey) -> BundlesConfig {
    BundlesConfig { keep_versions: 2, require_signature: true, trusted_keys: vec![key.public()] }
}

fn code(result: Result<Option<Signed>, Report>) -> &'static str {
    result.unwrap_err().problems[0].code
}

#[test]
fn a_good_signature_says_who_signed_what_and_which_revision() {
    let (_folder, key) = key();
    let signed_source = signed(&key, 7);
    let proven = check(&signed_source, "z", &rules(&key)).unwrap().unwrap();
    assert_eq!((proven.revision, proven.key), (7, key.public()));
    assert_eq!(proven.documents, documents(&source(&FILES)), "wherever the signature lies");
    assert_eq!(claimed_revision(&signed_source), Some(7));
    let mut turned = signed_source;
    turned.files.reverse();
    turned.root = "elsewhere/z".into();
    check(&turned, "z", &rules(&key)).unwrap().unwrap();
}

type Edit = fn(&mut BundleSource);

#[test]
fn nothing_that_is_signed_may_change() {
    let (_folder, key) = key();
    let edits: [(&str, Edit); 6] = [
        ("a document", |source| source.files[1].text.push(' ')),
        ("a name", |source| source.files[1].path = "policies/other.toml".into()),
        ("one more", |source| {
            source.files.push(SourceFile { path: "new.toml".into(), text: String::new() });
        }),
        ("one less", |source| drop(source.files.remove(1))),
        ("what moves from one file to the next", |source| {
            source.files[0].text = "schema = 1\na = 1\n".into();
            source.files[1].text = String::new();
        }),
        ("the revision", |source| {
            source.files[2].text = source.files[2].text.replace("revision = 7", "revision = 8");
        }),
    ];
    for (what, edit) in edits {
        let mut source = signed(&key, 7);
        edit(&mut source);
        assert_eq!(code(check(&source, "z", &rules(&key))), "bundle_signature_wrong", "{what}");
    }
    let report = check(&signed(&key, 7), "y", &rules(&key)).unwrap_err();
    assert_eq!(report.problems[0].code, "bundle_signature_wrong", "another zone");
    assert_eq!(&*report.problems[0].place.file, "bundles/z/bundle.sig");
    let mut renamed = signed(&key, 7);
    renamed.files[2].text = renamed.files[2].text.replace("zone = \"z\"", "zone = \"y\"");
    assert_eq!(code(check(&renamed, "y", &rules(&key))), "bundle_signature_wrong", "a zone put in by hand");
}

#[test]
fn a_signature_of_somebody_else_or_of_nobody_is_refused() {
    let ((_one, key), (_two, other)) = (key(), key());
    assert_eq!(code(check(&signed(&other, 7), "z", &rules(&key))), "bundle_key_unknown");
    let mut posing = signed(&other, 7);
    posing.files[2].text =
        posing.files[2].text.replace(&other.public().to_string(), &key.public().to_string());
    assert_eq!(code(check(&posing, "z", &rules(&key))), "bundle_signature_wrong");
    assert_eq!(code(check(&source(&FILES), "z", &rules(&key))), "bundle_unsigned");
}

#[test]
fn a_signature_that_is_half_there_is_refused_at_every_length() {
    let (_folder, key) = key();
    let whole = signed(&key, 7);
    let text = whole.files[2].text.clone();
    for length in 0..text.len() {
        let mut cut = whole.clone();
        cut.files[2].text.truncate(length);
        // The last line break alone means nothing.
        let result = check(&cut, "z", &rules(&key));
        if length + 1 == text.len() {
            assert!(result.is_ok());
            continue;
        }
        let code = code(result);
        assert!(code == "bundle_signature_malformed" || code == "bundle_signature_wrong", "{length}: {code}");
    }
    for odd in ["revision = 0", "revision = -1", "revision = 7\nmore = 1", "revision = \"7\""] {
        let mut source = whole.clone();
        source.files[2].text = text.replace("revision = 7", odd);
        assert_eq!(code(check(&source, "z", &rules(&key))), "bundle_signature_malformed", "{odd}");
    }
}

#[test]
fn signatures_are_asked_for_only_where_the_configuration_says_so() {
    let ((_one, key), (_two, other)) = (key(), key());
    let none = BundlesConfig { keep_versions: 2, require_signature: false, trusted_keys: Vec::new() };
    assert_eq!(check(&signed(&other, 7), "z", &none), Ok(None));
    let optional = BundlesConfig { require_signature: false, ..rules(&key) };
    assert_eq!(check(&source(&FILES), "z", &optional), Ok(None));
    assert_eq!(code(check(&signed(&other, 7), "z", &optional)), "bundle_key_unknown");
}

#[test]
fn a_revision_goes_up_and_stands_for_one_content() {
    let (_folder, key) = key();
    let proven = |source: &BundleSource| check(source, "z", &rules(&key)).unwrap().unwrap();
    let seven = signed(&key, 7);
    let floor = proven(&seven).floor();
    for (revision, good) in [(6, false), (7, true), (8, true)] {
        let source = signed(&key, revision);
        assert_eq!(check_revision(&source, &proven(&source), &floor).is_ok(), good, "{revision}");
    }
    let mut other = source(&[("zone.toml", "schema = 1 # other\n")]);
    let text = key.sign(&other, "z", 7);
    other.files.push(SourceFile { path: FILE.into(), text });
    let report = check_revision(&other, &proven(&other), &floor).unwrap_err();
    assert_eq!(report.problems[0].code, "bundle_revision_old", "one revision is one content");
}

#[test]
fn a_key_file_is_private_new_and_readable_by_others_tools() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, key) = key();
    let path = folder.path().join("bundles.key");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert!(matches!(SigningKey::create(&path), Err(SigningKeyError::Io(_))), "no key is written over");
    let again = SigningKey::read(&path).unwrap();
    assert_eq!(again.public(), key.public());
    assert_eq!(again.sign(&source(&FILES), "z", 1), key.sign(&source(&FILES), "z", 1));
    assert!(!format!("{again:?}").contains("PRIVATE") && format!("{again:?}").contains("ed25519:"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(SigningKey::read(&path), Err(SigningKeyError::Open(0o640))));
    // As `openssl genpkey -algorithm ed25519` writes it (RFC 8410, 10.3).
    let openssl = "-----BEGIN PRIVATE KEY-----\n\
                   MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                   -----END PRIVATE KEY-----\n";
    std::fs::write(&path, openssl).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let public = SigningKey::read(&path).unwrap().public().to_string();
    assert_eq!(public, "ed25519:19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1");
    for odd in ["", "ed25519", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        std::fs::write(&path, odd).unwrap();
        assert!(matches!(SigningKey::read(&path), Err(SigningKeyError::NoKey)), "{odd}");
    }
}
