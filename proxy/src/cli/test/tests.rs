use serde_json::Value;
use tempfile::TempDir;

use crate::cli::tests::{caracal, files};

const TEST: &str = "[[tests]]\nname = \"the agent reads\"\napplication = \"agent\"\nresource = \"resource://r\"\n\
                    labels = [\"agent\"]\nscopes = [\"r:read\"]\nexpect = \"allow\"\n";

/// The site of `files` with a test added to its one bundle, and its configuration.
fn site(test: &str) -> (TempDir, String) {
    let folder = files();
    let bundle = folder.path().join("bundles/z.toml");
    let text = std::fs::read_to_string(&bundle).unwrap();
    std::fs::write(&bundle, format!("{text}{test}")).unwrap();
    let config = folder.path().join("caracal.toml").display().to_string();
    (folder, config)
}

#[tokio::test]
async fn tests_that_pass_are_listed_and_end_with_0() {
    let (_folder, config) = site(TEST);
    let (code, text, notes) = caracal(["test", "--config", &config]).await;
    assert_eq!((code, notes.as_str()), (0, ""));
    assert_eq!(text, "zone z: 1 test\n  ok      the agent reads\nall good: 1 passed\n");
}

#[tokio::test]
async fn a_test_that_fails_is_placed_told_and_ends_with_1() {
    let (_folder, config) = site(&TEST.replace("\"allow\"", "\"deny\"\nreason = \"role_scope_mismatch\""));
    let (code, text, _) = caracal(["test", "z", "--config", &config]).await;
    assert_eq!(code, 1);
    assert!(text.contains("  FAILED  the agent reads\n            --> bundles/z.toml:"), "{text}");
    assert!(text.contains("answered: allow (caracal-agent-mint)\n"), "{text}");
    assert!(text.contains("expected: deny (role_scope_mismatch)\n"), "{text}");
    assert!(text.ends_with("not good: 1 failed, 0 passed\n"), "{text}");

    let (code, text, _) = caracal(["test", "--config", &config, "--json"]).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &answer["ok"], &answer["zones"][0]["failed"]), (1, &Value::Bool(false), &1.into()));
    assert_eq!(answer["zones"][0]["tests"][0]["place"]["file"], "bundles/z.toml");
}

#[tokio::test]
async fn a_bundle_without_tests_says_so() {
    let (_folder, config) = site("");
    let (code, text, _) = caracal(["test", "--config", &config]).await;
    assert_eq!(code, 0);
    assert!(text.starts_with("zone z: no tests\nnothing was tested"), "{text}");
}

#[tokio::test]
async fn wrong_files_and_unknown_zones_end_with_2() {
    let (folder, config) = site(&TEST.replace("r:read", "r:reed"));
    let (code, text, notes) = caracal(["test", "--config", &config]).await;
    assert_eq!((code, text.as_str()), (2, ""));
    assert!(
        notes.contains("error[reference_unknown]") && notes.contains("did you mean `r:read`?"),
        "{notes}"
    );

    let (code, text, _) = caracal(["test", "--config", &config, "--json"]).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &answer["problems"][0]["code"]), (2, &Value::from("reference_unknown")));

    let (code, _, notes) = caracal(["test", "elsewhere", "--config", &config]).await;
    assert_eq!(code, 2);
    assert!(notes.contains("there is no zone `elsewhere`"), "{notes}");

    let nowhere = folder.path().join("nothing.toml").display().to_string();
    assert_eq!(caracal(["test", "--config", &nowhere]).await.0, 2);
}

#[tokio::test]
async fn a_check_refuses_a_bundle_whose_tests_fail() {
    let (_folder, config) = site(&TEST.replace("\"allow\"", "\"deny\""));
    let (code, _, notes) = caracal(["check", "--config", &config]).await;
    assert_eq!(code, 64);
    assert!(notes.contains("error[bundle_tests_failed]: the test `the agent reads` fails"), "{notes}");
}
