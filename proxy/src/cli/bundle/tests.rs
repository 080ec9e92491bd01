use serde_json::Value;

use super::super::tests::{caracal, files};

#[tokio::test]
async fn a_bundle_is_signed_checked_and_refused_after_a_change() {
    let folder = files();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (key, bundle, config) = (path("bundles.key"), path("bundles/z.toml"), path("caracal.toml"));
    let (code, text, notes) = caracal(["bundle", "keygen", &key]).await;
    assert_eq!(code, 0, "{notes}");
    let public = text.trim().strip_prefix("trusted_keys = [\"").unwrap().strip_suffix("\"]").unwrap();
    assert!(public.starts_with("ed25519:"), "{text}");
    let secret = std::fs::read_to_string(&key).unwrap();
    assert!(!text.contains(secret.lines().nth(1).unwrap()) && notes.contains("mode 0600"), "{notes}");
    assert_eq!(caracal(["bundle", "keygen", &key]).await.0, 1, "no key is written over");

    let (code, _, notes) = caracal(["bundle", "verify", &bundle, "--key", public]).await;
    assert_eq!((code, notes.contains("bundle_unsigned")), (1, true), "{notes}");
    for revision in 1..3 {
        let (code, text, notes) = caracal(["bundle", "sign", &bundle, "--key", &key, "--json"]).await;
        assert_eq!(code, 0, "{notes}");
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&told["zone"], &told["revision"]), (&"z".into(), &revision.into()));
    }
    let (code, text, notes) = caracal(["bundle", "verify", &bundle, "--key", public]).await;
    assert_eq!((code, text), (0, format!("zone z: good, revision 2, by {public}\n")), "{notes}");
    let (code, _, notes) = caracal(["bundle", "sign", &bundle, "--key", &key, "--revision", "9"]).await;
    assert_eq!(code, 0, "{notes}");

    // The configuration's keys, where none are named; without any there is nothing to say.
    let (code, _, notes) = caracal(["bundle", "verify", &bundle, "--config", &config]).await;
    assert_eq!((code, notes.contains("no key is trusted")), (1, true), "{notes}");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace(
        "[secrets]",
        &format!("[bundles]\nrequire_signature = true\ntrusted_keys = [\"{public}\"]\n[secrets]"),
    );
    std::fs::write(&config, text).unwrap();
    let (code, text, _) = caracal(["bundle", "verify", &bundle, "--config", &config, "--json"]).await;
    assert_eq!((code, serde_json::from_str::<Value>(&text).unwrap()["revision"].clone()), (0, 9.into()));
    assert_eq!(caracal(["check", "--config", &config]).await.0, 0);

    let edited = std::fs::read_to_string(&bundle).unwrap() + "# edited\n";
    std::fs::write(&bundle, edited).unwrap();
    let (code, text, _) = caracal(["bundle", "verify", &bundle, "--config", &config, "--json"]).await;
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &told["problems"][0]["code"]), (1, &"bundle_signature_wrong".into()));
    let (code, _, notes) = caracal(["check", "--config", &config]).await;
    assert_eq!((code, notes.contains("bundle_signature_wrong")), (64, true), "{notes}");
}

#[tokio::test]
async fn what_is_no_bundle_or_no_key_is_told() {
    let folder = files();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let key = path("bundles.key");
    assert_eq!(caracal(["bundle", "keygen", &key]).await.0, 0);
    for (bundle, code, why) in [
        (path("caracal.txt"), 1, "is no bundle"),
        (path("bundles/nothing.toml"), 64, "bundle_missing"),
        ("..".to_owned(), 1, "is no bundle"),
    ] {
        let (found, _, notes) = caracal(["bundle", "sign", &bundle, "--key", &key]).await;
        assert_eq!((found, notes.contains(why)), (code, true), "{bundle}: {notes}");
    }
    let (code, _, notes) =
        caracal(["bundle", "sign", &path("bundles/z.toml"), "--key", &path("secrets.toml")]).await;
    assert_eq!((code, notes.contains("no Ed25519 key")), (1, true), "{notes}");
    assert!(!folder.path().join("bundles/z.sig").exists());
}
