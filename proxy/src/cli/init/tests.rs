use std::os::unix::fs::PermissionsExt;

use aws_lc_rs::digest::{SHA256, digest};
use caracal_policies::SecretHash;
use clap::ValueEnum as _;

use super::super::tests::caracal;
use super::*;

fn names() -> Vec<String> {
    Case::value_variants()
        .iter()
        .map(|case| case.to_possible_value().unwrap().get_name().to_owned())
        .collect()
}

#[tokio::test]
async fn every_template_is_valid_at_once_and_tests_what_it_says() {
    for name in names() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("edge");
        let shown = folder.display().to_string();
        let (code, text, notes) = caracal(["init", "--template", &name, &shown]).await;
        assert_eq!(code, 0, "{name}: {notes}");
        assert!(text.contains("caracal call --config") && text.contains("secrets.toml"), "{text}");
        let config = folder.join("caracal.toml").display().to_string();
        let (code, text, notes) = caracal(["check", "--config", &config]).await;
        assert_eq!(code, 0, "{name}: {text} {notes}");
        let (code, text, _) = caracal(["test", "--config", &config, "--json"]).await;
        assert_eq!(code, 0, "{name}: {text}");
        let told: Value = serde_json::from_str(&text).unwrap();
        for zone in told["zones"].as_array().unwrap() {
            let tests = zone["tests"].as_array().unwrap();
            let denied = tests.iter().filter(|test| test["expected"].as_str().unwrap().starts_with("deny"));
            assert!(tests.len() >= 3 && denied.count() >= 1, "{name}: {zone}");
        }
    }
}

#[tokio::test]
async fn each_application_has_a_secret_of_its_own_that_only_its_owner_reads() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("edge");
    let shown = folder.display().to_string();
    let (code, text, notes) = caracal(["init", "--template", "customers", &shown, "--json"]).await;
    assert_eq!(code, 0, "{notes}");
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told["files"].as_array().unwrap().len(), 6);
    let mut seen = Vec::new();
    for zone in ["acme", "globex"] {
        let path = folder.join(format!("agent-{zone}.secret"));
        let secret = std::fs::read_to_string(&path).unwrap();
        let bundle = std::fs::read_to_string(folder.join(format!("bundles/{zone}.toml"))).unwrap();
        let line = bundle.lines().find_map(|line| line.strip_prefix("secrets = [\"")).unwrap();
        let hash = SecretHash::parse(line.strip_suffix("\"]").unwrap()).unwrap();
        let expected: [u8; 32] = digest(&SHA256, secret.trim().as_bytes()).as_ref().try_into().unwrap();
        assert_eq!(hash, SecretHash::Sha256(expected));
        assert!(!bundle.contains('@') && !text.contains(secret.trim()), "{bundle}");
        seen.push(secret);
    }
    assert_ne!(seen[0], seen[1]);
    for private in ["agent-acme.secret", "secrets.toml"] {
        assert_eq!(std::fs::metadata(folder.join(private)).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn what_is_there_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    let shown = dir.path().display().to_string();
    let (code, text, notes) = caracal(["init", "--template", "api", &shown]).await;
    assert_eq!((code, text.as_str(), notes.contains("the folder is not empty")), (1, "", true), "{notes}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn the_guide_names_every_template() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guides/author-policy.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    for name in names() {
        assert!(guide.contains(&format!("| `{name}` |")), "{name}");
    }
}
