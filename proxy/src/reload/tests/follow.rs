//! From a change on disk to the next snapshot, for every way files are changed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use super::super::*;
use super::fixture::{CANARY, Site, documents, secrets, until};
use crate::snapshot::Snapshot;
use crate::watch::{Targets, Watch};

/// A reloader that follows its files until it is dropped.
struct Following {
    reloader: Reloader,
    stop: tokio::sync::watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Following {
    fn start(site: &Site) -> Self {
        let reloader = site.start().unwrap();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        // No poll within a test: what arrives was reported.
        let watch = Watch::start(Targets::of(&site.config), Duration::from_secs(3_000));
        let follower = reloader.clone();
        let task = tokio::spawn(async move { follower.follow(watch, stopped).await });
        Self { reloader, stop, task }
    }

    fn now(&self) -> Arc<Snapshot> {
        self.reloader.snapshot().load()
    }

    async fn grants(&self, scope: &str) {
        let what = format!("the grant of {scope}");
        until(&what, || format!("{:?}", self.now().zones["a"].zone).contains(&marker(scope))).await;
    }

    async fn secret(&self, value: &str) {
        let dial = crate::secrets::Dial {
            scheme: caracal_policies::Scheme::Http,
            host: "127.0.0.1",
            port: 9000,
            loopback: true,
        };
        let what = format!("the secret {value}");
        until(&what, || {
            self.now().secrets.get("a", "echo", "api_key", &dial).is_ok_and(|secret| secret.expose() == value)
        })
        .await;
    }
}

/// The name of the application that [`zone`] writes beside a scope, so that a test can tell versions apart.
fn marker(scope: &str) -> String {
    format!("demo with {scope}")
}

/// The documents of a zone with a marker for `scope`.
fn zone(scope: &str) -> Vec<(&'static str, String)> {
    let mark = |text: String| text.replace("\"Demo\"", &format!("\"{}\"", marker(scope)));
    documents("a", scope).into_iter().map(|(name, text)| (name, mark(text))).collect()
}

fn write_zone(folder: &Path, scope: &str) {
    for (name, text) in zone(scope) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn write_secrets(path: &Path, value: &str) {
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, secrets().replace(CANARY, value)).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(fresh, path).unwrap();
}

/// Points `link` at `target` in one step.
fn relink(target: &Path, link: &Path) {
    let fresh = link.with_extension("fresh");
    symlink(target, &fresh).unwrap();
    fs::rename(fresh, link).unwrap();
}

#[tokio::test]
async fn edits_in_place_and_renames_over_arrive() {
    let site = Site::of(&["a"]);
    let following = Following::start(&site);
    for round in ["1", "2"] {
        write_zone(&site.bundles().join("a"), "echo:write");
        following.grants("echo:write").await;
        write_zone(&site.bundles().join("a"), "echo:read");
        following.grants("echo:read").await;
        let value = format!("renamed-over-{round}");
        write_secrets(&site.secrets(), &value);
        following.secret(&value).await;
        let value = format!("edited-in-place-{round}");
        fs::write(site.secrets(), secrets().replace(CANARY, &value)).unwrap();
        following.secret(&value).await;
    }
}

#[tokio::test]
async fn swapped_links_arrive() {
    let site = Site::of(&["a"]);
    let releases = site.bundles().join(".releases");
    let stores = site.dir.path().join("stores");
    fs::create_dir(&stores).unwrap();
    for (number, scope) in [("1", "echo:read"), ("2", "echo:write"), ("3", "echo:read")] {
        write_zone(&releases.join(number), scope);
        write_secrets(&stores.join(number), &format!("secret-of-store-{number}"));
    }
    fs::remove_dir_all(site.bundles().join("a")).unwrap();
    relink(&releases.join("1"), &site.bundles().join("a"));
    relink(&stores.join("1"), &site.secrets());
    let following = Following::start(&site);
    for (number, scope) in [("2", "echo:write"), ("3", "echo:read"), ("2", "echo:write")] {
        relink(&releases.join(number), &site.bundles().join("a"));
        following.grants(scope).await;
        relink(&stores.join(number), &site.secrets());
        following.secret(&format!("secret-of-store-{number}")).await;
    }
}

/// Makes version `number` of a Kubernetes mount current: a folder of its own, then one rename of `..data`.
fn mount(folder: &Path, number: &str, files: &[(&str, String)]) {
    let real = folder.join(format!("..2026_{number}"));
    for (name, text) in files {
        fs::create_dir_all(&real).unwrap();
        fs::write(real.join(name), text).unwrap();
        fs::set_permissions(real.join(name), fs::Permissions::from_mode(0o600)).unwrap();
        if fs::symlink_metadata(folder.join(name)).is_err() {
            symlink(format!("..data/{name}"), folder.join(name)).unwrap();
        }
    }
    let before = fs::canonicalize(folder.join("..data")).ok();
    symlink(format!("..2026_{number}"), folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    if let Some(before) = before {
        fs::remove_dir_all(before).unwrap();
    }
}

/// A zone as a ConfigMap holds it: no folders.
fn flat(scope: &str) -> Vec<(&'static str, String)> {
    let flatten = |text: String| text.replace("policies/grants.toml", "grants.toml");
    zone(scope)
        .into_iter()
        .map(|(name, text)| {
            (if name == "policies/grants.toml" { "grants.toml" } else { name }, flatten(text))
        })
        .collect()
}

#[tokio::test]
async fn swapped_mounts_arrive() {
    let mut site = Site::of(&["a"]);
    fs::remove_dir_all(site.bundles().join("a")).unwrap();
    fs::create_dir(site.bundles().join("a")).unwrap();
    let store = site.dir.path().join("mounted");
    fs::create_dir(&store).unwrap();
    let mut config = (*site.config).clone();
    config.secrets = crate::config::SecretsConfig {
        file: store.join("secrets.toml"),
        mounted: true,
        ..Default::default()
    };
    site.config = Arc::new(config);
    let secret =
        |number: &str| [("secrets.toml", secrets().replace(CANARY, &format!("secret-of-mount-{number}")))];
    mount(&site.bundles().join("a"), "0", &flat("echo:read"));
    mount(&store, "0", &secret("0"));
    let following = Following::start(&site);
    for (number, scope) in [("1", "echo:write"), ("2", "echo:read"), ("3", "echo:write")] {
        mount(&site.bundles().join("a"), number, &flat(scope));
        following.grants(scope).await;
        mount(&store, number, &secret(number));
        following.secret(&format!("secret-of-mount-{number}")).await;
    }
    assert_eq!(following.reloader.standing().bundles_rejected, Vec::<String>::new());
}

#[tokio::test]
async fn a_bad_file_is_survived_and_its_repair_arrives() {
    let site = Site::of(&["a"]);
    let following = Following::start(&site);
    let before = following.now();
    site.put("a/policies/grants.toml", "schema = 1\n[grants\n");
    fs::write(site.secrets(), "schema = 1\n[secr").unwrap();
    until("both refusals", || {
        let standing = following.reloader.standing();
        standing.secrets_rejected && standing.bundles_rejected == ["a"]
    })
    .await;
    assert!(Arc::ptr_eq(&before, &following.now()));
    write_zone(&site.bundles().join("a"), "echo:write");
    following.grants("echo:write").await;
    write_secrets(&site.secrets(), "the-repaired-value");
    following.secret("the-repaired-value").await;
    until("a clean standing", || !following.reloader.files_newer_than_snapshot()).await;
}

#[tokio::test]
async fn following_ends_when_told() {
    let site = Site::of(&["a"]);
    let following = Following::start(&site);
    following.stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(20), following.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn swapped_mounts_of_single_values_arrive() {
    let mut site = Site::of(&["a"]);
    let folder = site.dir.path().join("mounted");
    fs::create_dir(&folder).unwrap();
    let mut config = (*site.config).clone();
    config.secrets.files_dir = Some(folder.clone());
    site.config = Arc::new(config);
    let text = secrets().replacen(&format!("\"{CANARY}\""), "{ file = \"echo.key\" }", 1);
    fs::write(site.secrets(), text).unwrap();
    let value = |number: &str| [("echo.key", format!("value-of-mount-{number}\n"))];
    mount(&folder, "0", &value("0"));
    let following = Following::start(&site);
    following.secret("value-of-mount-0").await;
    for number in ["1", "2", "3"] {
        mount(&folder, number, &value(number));
        following.secret(&format!("value-of-mount-{number}")).await;
    }
    // An edit in place, without a swap.
    fs::write(folder.join("echo.key"), "value-edited-in-place").unwrap();
    following.secret("value-edited-in-place").await;
    fs::write(folder.join("echo.key"), "").unwrap();
    until("the refusal of an empty file", || following.reloader.standing().secrets_rejected).await;
    following.secret("value-edited-in-place").await;
    let told = site.recorder.everything.lock().join("\n");
    assert!(!told.contains("value-"), "an event shows a value");
}
