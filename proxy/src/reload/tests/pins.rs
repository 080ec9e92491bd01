//! Operators who go back to a kept version, and what ends that.

use std::fs;

use super::super::versions::{By, Versions};
use super::super::*;
use super::fixture::Site;

const OPERATOR: u32 = 1_000;

async fn activate(reloader: &Reloader, wanted: Wanted) -> Result<Activated, ActivateError> {
    reloader.activate("a".to_owned(), wanted, OPERATOR).await
}

async fn refusal(reloader: &Reloader, wanted: Wanted) -> &'static str {
    let before = reloader.snapshot().load();
    let code = activate(reloader, wanted).await.unwrap_err().code();
    assert!(Arc::ptr_eq(&before, &reloader.snapshot().load()), "{code}: nothing was changed");
    code
}

/// The scope the zone's application is granted.
fn granted(reloader: &Reloader) -> String {
    let snapshot = reloader.snapshot().load();
    let (_, _, scopes) = snapshot.zones["a"].zone.roles("demo-agent").next().unwrap();
    scopes.iter().next().unwrap().to_string()
}

fn is_pinned(reloader: &Reloader) -> bool {
    reloader.snapshot().load().zones["a"].pinned
}

/// A site whose zone said `echo:read` and says `echo:write` now.
async fn changed() -> (Site, Reloader) {
    let site = Site::of(&["a"]);
    let reloader = site.start().unwrap();
    site.grant("a", "echo:write");
    reloader.reload().await;
    site.recorder.take();
    (site, reloader)
}

#[tokio::test]
async fn a_rollback_is_in_force_at_once_and_survives_reloads_and_restarts() {
    let (site, reloader) = changed().await;
    site.clock.advance(std::time::Duration::from_secs(4));
    let done = activate(&reloader, Wanted::Earlier).await.unwrap();
    assert!(
        done.pinned && done.changes.iter().any(|one| one.contains("gains scope `echo:read`")),
        "{done:?}"
    );
    assert_eq!(
        (granted(&reloader), reloader.snapshot().load().generation),
        ("echo:read".into(), done.generation)
    );
    assert_eq!(site.recorder.take(), ["pinned a"]);
    reloader.reload().await;
    assert_eq!((granted(&reloader).as_str(), is_pinned(&reloader)), ("echo:read", true));

    let journal = Versions::of(&site.config.state_dir, "a").journal().unwrap();
    let last = journal.newest_first()[0].clone();
    assert_eq!((last.number, last.at, last.by), (3, 5_000, By::Operator(OPERATOR)));
    assert_eq!(journal.pinned(), Some(done.version.as_str()));

    drop(reloader);
    site.recorder.take();
    let again = site.start().unwrap();
    assert_eq!(site.recorder.take(), ["accepted a", "pinned a"]);
    assert_eq!((granted(&again).as_str(), is_pinned(&again)), ("echo:read", true));
    assert_eq!(Versions::of(&site.config.state_dir, "a").journal().unwrap(), journal, "no new activation");
}

#[tokio::test]
async fn files_that_say_something_new_end_a_pin_and_files_that_are_refused_do_not() {
    let (site, reloader) = changed().await;
    activate(&reloader, Wanted::Earlier).await.unwrap();
    let good = fs::read_to_string(site.bundles().join("a/resources.toml")).unwrap();
    site.put("a/resources.toml", "schema = 2\n");
    site.recorder.take();
    reloader.reload().await;
    assert_eq!((is_pinned(&reloader), reloader.standing().bundles_rejected), (true, vec!["a".to_owned()]));
    site.put("a/resources.toml", &good);
    reloader.reload().await;
    assert_eq!(site.recorder.take(), ["rejected a", "pinned a"], "back to what the pin stands over");
    site.put("a/resources.toml", &format!("{good}# right now\n"));
    reloader.reload().await;
    assert_eq!(site.recorder.take(), ["pin ended a", "accepted a"]);
    assert_eq!((granted(&reloader).as_str(), is_pinned(&reloader)), ("echo:write", false));
}

#[tokio::test]
async fn files_that_changed_while_nothing_ran_end_a_pin() {
    let (site, reloader) = changed().await;
    activate(&reloader, Wanted::Earlier).await.unwrap();
    drop(reloader);
    // Refused files leave the pin, and what is told stays told.
    site.put("a/resources.toml", "schema = 2\n");
    let reloader = site.start().unwrap();
    assert_eq!((granted(&reloader).as_str(), is_pinned(&reloader)), ("echo:read", true));
    assert_eq!(reloader.standing().bundles_rejected, ["a"]);
    drop(reloader);
    for (name, text) in super::fixture::documents("a", "echo:write") {
        site.put(&format!("a/{name}"), &format!("{text}# edited\n"));
    }
    site.recorder.take();
    let reloader = site.start().unwrap();
    assert_eq!(site.recorder.take(), ["accepted a", "pin ended a"]);
    assert_eq!((granted(&reloader).as_str(), is_pinned(&reloader)), ("echo:write", false));
    drop(reloader);
    assert!(!is_pinned(&site.start().unwrap()), "and it stays ended");
}

#[tokio::test]
async fn the_files_come_back_when_an_operator_says_so() {
    let (site, reloader) = changed().await;
    let newest = Versions::of(&site.config.state_dir, "a").journal().unwrap().in_force().unwrap().to_owned();
    for back in [Wanted::Files, Wanted::Version(newest.clone())] {
        activate(&reloader, Wanted::Earlier).await.unwrap();
        site.recorder.take();
        let done = activate(&reloader, back.clone()).await.unwrap();
        assert_eq!((done.pinned, done.version.as_str()), (false, newest.as_str()), "{back:?}");
        assert_eq!((granted(&reloader).as_str(), is_pinned(&reloader)), ("echo:write", false));
        assert_eq!(site.recorder.take(), ["accepted a"]);
        // Once more changes nothing.
        let again = activate(&reloader, back).await.unwrap();
        assert_eq!((again.generation, again.changes.len()), (done.generation, 0));
    }
    drop(reloader);
    assert!(!is_pinned(&site.start().unwrap()));
}

#[tokio::test]
async fn each_rollback_goes_one_further_and_the_files_version_is_never_lost() {
    let site = Site::of(&["a"]);
    let reloader = site.start().unwrap();
    let versions = Versions::of(&site.config.state_dir, "a");
    assert_eq!(refusal(&reloader, Wanted::Earlier).await, "no_earlier_version");
    site.grant("a", "echo:write");
    reloader.reload().await;
    // Says the same, so that going back to it would be no way out.
    let path = site.bundles().join("a/policies/grants.toml");
    fs::write(&path, format!("{}# a comment\n", fs::read_to_string(&path).unwrap())).unwrap();
    reloader.reload().await;
    activate(&reloader, Wanted::Earlier).await.unwrap();
    assert_eq!(granted(&reloader), "echo:read");
    assert_eq!(refusal(&reloader, Wanted::Earlier).await, "no_earlier_version");
    for cap in 2..6 {
        let text = format!("schema = 1\n[[applications]]\nid = \"demo-agent\"\nmax_concurrent = {cap}\n");
        site.put("a/applications.toml", &text);
        reloader.reload().await;
    }
    let files = versions.journal().unwrap().files().unwrap().to_owned();
    let caps = |reloader: &Reloader| {
        reloader.snapshot().load().zones["a"].zone.application("demo-agent").unwrap().max_concurrent
    };
    activate(&reloader, Wanted::Earlier).await.unwrap();
    activate(&reloader, Wanted::Earlier).await.unwrap();
    assert_eq!(caps(&reloader), 5, "applications stay those of the files");
    assert_eq!(refusal(&reloader, Wanted::Earlier).await, "no_earlier_version");
    assert_eq!(versions.journal().unwrap().files(), Some(files.as_str()));
    assert!(versions.load(&files).is_some());
}

#[tokio::test]
async fn what_cannot_be_in_force_is_refused_with_its_code_and_changes_nothing() {
    let (site, reloader) = changed().await;
    for (word, code) in [("ffff", "unknown_version"), ("../a", "not_a_version"), ("", "not_a_version")] {
        assert_eq!(refusal(&reloader, Wanted::Version(word.to_owned())).await, code, "{word}");
    }
    assert_eq!(reloader.activate("b".to_owned(), Wanted::Files, 0).await.unwrap_err().code(), "unknown_zone");
    let versions = Versions::of(&site.config.state_dir, "a");
    let old = versions.journal().unwrap().newest_first()[1].version.clone();
    let folder = site.config.state_dir.join("activated/a");

    // Nothing is acknowledged that a restart would not find.
    fs::create_dir(folder.join(".journal")).unwrap();
    assert_eq!(refusal(&reloader, Wanted::Earlier).await, "versions_unavailable");
    fs::remove_dir(folder.join(".journal")).unwrap();

    let providers = fs::read_to_string(site.bundles().join("a/providers.toml")).unwrap();
    site.put("a/providers.toml", &providers.replace("secret://echo/", "secret://short/"));
    reloader.reload().await;
    fs::write(site.secrets(), super::fixture::secrets().replace("[secrets.echo]", "[secrets.retired]"))
        .unwrap();
    reloader.reload().await;
    let refused = activate(&reloader, Wanted::Version(old.clone())).await.unwrap_err();
    assert!(refused.to_string().contains("secret_unknown"), "{refused}");
    assert_eq!(refusal(&reloader, Wanted::Version(old.clone())).await, "version_refused");

    fs::remove_file(folder.join(&old).join("policies/grants.toml")).unwrap();
    assert_eq!(refusal(&reloader, Wanted::Version(old)).await, "version_damaged");
    fs::write(folder.join("journal.json"), "{\"schema\":1").unwrap();
    assert_eq!(refusal(&reloader, Wanted::Earlier).await, "versions_unavailable");
}

#[tokio::test]
async fn a_pin_that_cannot_come_back_at_a_start_says_so_and_the_files_are_in_force() {
    let (site, reloader) = changed().await;
    let done = activate(&reloader, Wanted::Earlier).await.unwrap();
    drop(reloader);
    let kept = site.config.state_dir.join("activated/a").join(done.version);
    fs::write(kept.join("zone.toml"), "schema = 1\n").unwrap();
    site.recorder.take();
    let reloader = site.start().unwrap();
    assert_eq!(site.recorder.take(), ["accepted a", "pin lost a"]);
    assert_eq!((granted(&reloader).as_str(), is_pinned(&reloader)), ("echo:write", false));
}
