use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

/// Longer than any machine needs; a test that gets here fails.
const LONG: Duration = Duration::from_secs(20);

/// No poll comes within a test: what is seen was reported.
const NEVER: Duration = Duration::from_secs(3_000);

async fn next(watch: &mut Watch) -> Trigger {
    timeout(LONG, watch.changed()).await.expect("the change is reported").expect("the watch runs")
}

async fn started(targets: Targets, poll: Duration) -> Watch {
    let mut watch = Watch::start(targets, poll);
    assert_eq!(next(&mut watch).await, Trigger::Started);
    watch
}

fn one_file(path: &Path) -> Targets {
    Targets { files: vec![path.to_path_buf()], folders: Vec::new() }
}

fn one_folder(path: &Path) -> Targets {
    Targets { files: Vec::new(), folders: vec![path.to_path_buf()] }
}

/// A folder as Kubernetes mounts it: `name` leads through `..data` to a folder with a time in its name.
fn mount(folder: &Path, version: &str, name: &str, text: &str) {
    let real = folder.join(format!("..{version}"));
    fs::create_dir_all(&real).unwrap();
    fs::write(real.join(name), text).unwrap();
    symlink(format!("..{version}"), folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    if !folder.join(name).exists() {
        symlink(format!("..data/{name}"), folder.join(name)).unwrap();
    }
}

#[tokio::test]
async fn every_way_to_change_a_file_is_seen_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secrets.toml");
    fs::write(&path, "0").unwrap();
    let mut watch = started(one_file(&path), NEVER).await;
    for round in 0..3 {
        fs::write(&path, format!("in place {round}")).unwrap();
        assert_eq!(next(&mut watch).await, Trigger::Files, "in place, round {round}");
        fs::write(folder.path().join("fresh"), format!("renamed {round}")).unwrap();
        fs::rename(folder.path().join("fresh"), &path).unwrap();
        assert_eq!(next(&mut watch).await, Trigger::Files, "renamed over, round {round}");
        fs::remove_file(&path).unwrap();
        assert_eq!(next(&mut watch).await, Trigger::Files, "removed, round {round}");
        fs::write(&path, format!("made again {round}")).unwrap();
        assert_eq!(next(&mut watch).await, Trigger::Files, "made again, round {round}");
    }
}

#[tokio::test]
async fn a_mounted_file_is_seen_at_every_swap() {
    let folder = tempfile::tempdir().unwrap();
    mount(folder.path(), "1", "secrets.toml", "1");
    let mut watch = started(one_file(&folder.path().join("secrets.toml")), NEVER).await;
    for version in ["2", "3", "4"] {
        mount(folder.path(), version, "secrets.toml", version);
        assert_eq!(next(&mut watch).await, Trigger::Files, "version {version}");
    }
}

#[tokio::test]
async fn a_link_anywhere_on_the_way_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    for release in ["1", "2", "3"] {
        fs::create_dir_all(folder.path().join(format!("releases/{release}/conf"))).unwrap();
        fs::write(folder.path().join(format!("releases/{release}/conf/secrets.toml")), release).unwrap();
    }
    let current = folder.path().join("current");
    symlink(folder.path().join("releases/1"), &current).unwrap();
    let mut watch = started(one_file(&current.join("conf/secrets.toml")), NEVER).await;
    for release in ["2", "3"] {
        symlink(folder.path().join(format!("releases/{release}")), folder.path().join("fresh")).unwrap();
        fs::rename(folder.path().join("fresh"), &current).unwrap();
        assert_eq!(next(&mut watch).await, Trigger::Files, "release {release}");
    }
    fs::write(folder.path().join("releases/3/conf/secrets.toml"), "3 again").unwrap();
    assert_eq!(next(&mut watch).await, Trigger::Files, "the file behind the newest link");
}

#[tokio::test]
async fn folders_are_watched_with_what_is_made_in_them_later() {
    let folder = tempfile::tempdir().unwrap();
    let bundles = folder.path().join("bundles");
    let mut watch = started(one_folder(&bundles), NEVER).await;
    fs::create_dir_all(bundles.join("a/policies")).unwrap();
    assert_eq!(next(&mut watch).await, Trigger::Files, "a folder that was not there");
    fs::write(bundles.join("a/policies/grants.toml"), "1").unwrap();
    assert_eq!(next(&mut watch).await, Trigger::Files, "a file two folders down");
    fs::rename(bundles.join("a"), bundles.join("b")).unwrap();
    assert_eq!(next(&mut watch).await, Trigger::Files, "a renamed folder");
    fs::write(bundles.join("b/policies/grants.toml"), "2").unwrap();
    assert_eq!(next(&mut watch).await, Trigger::Files, "a file in a renamed folder");
    fs::remove_dir_all(bundles.join("b")).unwrap();
    assert_eq!(next(&mut watch).await, Trigger::Files, "a removed folder");
    mount(&bundles, "1", "a.toml", "1");
    assert_eq!(next(&mut watch).await, Trigger::Files, "a mounted bundle");
    mount(&bundles, "2", "a.toml", "2");
    assert_eq!(next(&mut watch).await, Trigger::Files, "a swapped bundle");
}

/// A folder whose parent is ours too. A folder's parent is watched with it, and the system's folder for
/// temporary files is never quiet.
struct PrivateFolder {
    watched: PathBuf,
    _parent: tempfile::TempDir,
}

fn private_folder() -> PrivateFolder {
    let parent = tempfile::tempdir().unwrap();
    let watched = parent.path().join("watched");
    fs::create_dir(&watched).unwrap();
    PrivateFolder { watched, _parent: parent }
}

#[tokio::test]
async fn reading_a_file_reports_nothing() {
    let folder = private_folder();
    let path = folder.watched.join("a");
    fs::write(&path, "0").unwrap();
    let mut watch = started(one_folder(&folder.watched), NEVER).await;
    for _ in 0..20 {
        fs::read(&path).unwrap();
    }
    // The question comes back before any report of the reads would: they caused none.
    let quiet = timeout(QUIET.saturating_mul(3), watch.changed()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    fs::write(&path, "1").unwrap();
    assert_eq!(next(&mut watch).await, Trigger::Files);
}

#[tokio::test]
async fn polls_and_operators_are_heard_without_any_change() {
    let folder = private_folder();
    let mut watch = started(one_folder(&folder.watched), Duration::from_millis(20)).await;
    assert_eq!(next(&mut watch).await, Trigger::Poll);
    drop(watch);
    let mut watch = started(one_folder(&folder.watched), NEVER).await;
    watch.asker().ask();
    assert_eq!(next(&mut watch).await, Trigger::Asked);
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).unwrap();
    assert_eq!(next(&mut watch).await, Trigger::Hangup);
}

#[test]
fn a_link_out_of_a_folder_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside/deep");
    let bundles = folder.path().join("bundles");
    fs::create_dir_all(&outside).unwrap();
    fs::create_dir_all(&bundles).unwrap();
    symlink(folder.path().join("outside"), bundles.join("a")).unwrap();
    symlink("..", bundles.join("cycle")).unwrap();
    symlink("loop", bundles.join("loop")).unwrap();
    let found = points::folders(&one_folder(&bundles));
    assert!(found.contains(&bundles) && found.contains(folder.path()), "{found:?}");
    assert!(!found.contains(&outside), "{found:?}");
}
