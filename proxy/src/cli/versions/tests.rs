use std::path::Path;
use std::sync::Arc;

use caracal_plugins::Registry;
use serde_json::Value;
use tempfile::TempDir;

use super::super::tests::{caracal, files};
use crate::clock::Clock;
use crate::config;
use crate::reload::{LogObserver, Reloader};

/// A folder whose files were in force once, as a process would have had them.
struct Site {
    folder: TempDir,
    reloader: Reloader,
    config: String,
}

impl Site {
    fn start() -> Self {
        let folder = files();
        let config = folder.path().join("caracal.toml");
        let checked = Arc::new(config::load(&config).unwrap());
        let (registry, observer) = (Arc::new(Registry::stock()), Arc::new(LogObserver));
        let clock = Clock::manual(1_700_000_000_000);
        let reloader = Reloader::load_initial(checked, registry, observer, clock).unwrap();
        Self { config: config.display().to_string(), folder, reloader }
    }

    fn edit(&self, from: &str, to: &str) {
        let bundle = self.folder.path().join("bundles/z.toml");
        let text = std::fs::read_to_string(&bundle).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(bundle, text.replace(from, to)).unwrap();
    }

    async fn versions(&self) -> Value {
        let (code, text, notes) = caracal(["versions", "--config", &self.config, "--json"]).await;
        assert_eq!(code, 0, "{notes}");
        serde_json::from_str(&text).unwrap()
    }
}

#[tokio::test]
async fn versions_are_listed_and_compared_in_words_of_authority() {
    let site = Site::start();
    let (code, text, _) = caracal(["diff", "--config", &site.config]).await;
    assert_eq!((code, text.lines().nth(1)), (0, Some("  the same authority")), "{text}");

    site.edit("roles = { agent = [\"r:read\"] }", "roles = { agent = [\"r:read\"], chief = [\"r:read\"] }");
    let (code, text, _) = caracal(["diff", "--config", &site.config]).await;
    let change = "  application `agent` gains scope `r:read` on `resource://r` as `chief`";
    assert_eq!((code, text.lines().nth(1)), (1, Some(change)), "{text}");
    assert!(text.starts_with("zone z: active ("), "{text}");

    site.reloader.reload().await;
    let listed = site.versions().await;
    let rows = listed["zones"][0]["versions"].as_array().unwrap();
    let numbers: Vec<_> = rows.iter().map(|row| (&row["number"], &row["in_force"], &row["by"])).collect();
    assert_eq!(serde_json::json!(numbers), serde_json::json!([[2, true, "files"], [1, false, "files"]]));
    assert_eq!(listed["running"], false);

    let old = rows[1]["digest"].as_str().unwrap().to_owned();
    let (code, text, _) = caracal(["diff", "active", &old, "--config", &site.config, "--json"]).await;
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &told["same"], &told["ok"]), (1, &Value::Bool(false), &Value::Bool(true)));
    assert_eq!(told["zones"][0]["changes"][0], change.trim().replace("gains", "loses"));
    let (code, text, _) = caracal(["diff", super::short(&old), &old, "--config", &site.config]).await;
    assert_eq!((code, text.contains("the same authority")), (0, true), "{text}");

    let (code, text, notes) = caracal(["versions", "z", "--config", &site.config]).await;
    assert_eq!(code, 0);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[1].starts_with("*    2  ") && lines[2].starts_with("     1  "), "{text}");
    assert!(lines[2].ends_with("2023-11-14T22:13:20.000Z  from the files"), "{text}");
    assert!(notes.contains("no edge is running"), "{notes}");
}

#[tokio::test]
async fn a_secret_that_is_another_is_a_difference() {
    let site = Site::start();
    site.edit("$AAAA", "$BAAA");
    let (code, text, _) = caracal(["diff", "--config", &site.config]).await;
    assert_eq!((code, text.contains("the secret of an application")), (1, true), "{text}");
}

#[tokio::test]
async fn what_cannot_be_compared_ends_with_2_and_why() {
    let site = Site::start();
    for (word, why) in [("ffff", "no kept version"), ("ff", "four hexadecimal digits")] {
        let (code, text, notes) = caracal(["diff", word, "--config", &site.config]).await;
        assert_eq!((code, text.as_str(), notes.contains(why)), (2, "", true), "{notes}");
    }
    let (code, _, notes) = caracal(["diff", "--zone", "y", "--config", &site.config]).await;
    assert_eq!((code, notes.as_str()), (2, "error: there is no zone `y`\n"));
    let version = site.versions().await["zones"][0]["versions"][0]["version"].as_str().unwrap().to_owned();
    let kept = site.folder.path().join("state/activated/z").join(&version).join("z.toml");
    std::fs::write(&kept, "schema = 1\n").unwrap();
    let (code, _, notes) = caracal(["diff", "--config", &site.config]).await;
    assert_eq!((code, notes.contains("is not kept whole any more")), (2, true), "{notes}");
    std::fs::write(Path::new(&site.folder.path().join("bundles/z.toml")), "schema = 2\n").unwrap();
    let (code, text, _) = caracal(["diff", "files", "--config", &site.config, "--json"]).await;
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &told["problems"][0]["place"]["file"]), (2, &Value::from("bundles/z.toml")));
}

#[tokio::test]
async fn without_a_version_there_is_nothing_to_list() {
    let folder = files();
    let config = folder.path().join("caracal.toml").display().to_string();
    let (code, text, _) = caracal(["versions", "--config", &config]).await;
    assert_eq!((code, text.as_str()), (0, "zone z\n  nothing was in force yet\n"));
    let (code, _, notes) = caracal(["diff", "--config", &config]).await;
    assert_eq!((code, notes.contains("was in force yet")), (2, true), "{notes}");
}
