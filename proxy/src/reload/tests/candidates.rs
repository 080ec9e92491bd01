//! Bundles that wait beside those in force, and what puts one into force.

use std::fs;

use super::super::versions::{By, Versions};
use super::super::*;
use super::fixture::{Site, documents, until};
use super::signed::Signing;
use crate::rehearsal::Rehearsal;

/// Puts a candidate beside zone `a`.
fn candidate(site: &Site, scope: &str) {
    for (name, text) in documents("a", scope) {
        site.put(&format!("a.next/{name}"), &text);
    }
}

fn rehearsal(reloader: &Reloader) -> Option<Arc<Rehearsal>> {
    reloader.snapshot().load().zones["a"].rehearsal.clone()
}

fn version(reloader: &Reloader) -> String {
    let rehearsal = rehearsal(reloader).unwrap();
    rehearsal.summary()["version"].as_str().unwrap().to_owned()
}

fn named(candidate: &str) -> Promotion {
    let candidate = candidate.to_owned();
    Promotion { candidate, accept: false, max_newly_denied: 0, max_newly_allowed: 0, min_compared: 0 }
}

async fn refusal(reloader: &Reloader, promotion: Promotion) -> &'static str {
    let before = reloader.snapshot().load();
    let code = reloader.promote("a".to_owned(), promotion).await.unwrap_err().code();
    assert!(Arc::ptr_eq(&before, &reloader.snapshot().load()), "{code}: nothing was changed");
    code
}

fn granted(reloader: &Reloader) -> String {
    let snapshot = reloader.snapshot().load();
    let (_, _, scopes) = snapshot.zones["a"].zone.roles("demo-agent").next().unwrap();
    scopes.iter().next().unwrap().to_string()
}

#[tokio::test]
async fn a_candidate_waits_beside_the_bundle_and_routes_nothing() {
    let site = Site::of(&["a", "b"]);
    let reloader = site.start().unwrap();
    assert!(rehearsal(&reloader).is_none());
    site.recorder.take();
    candidate(&site, "echo:write");
    let outcome = reloader.reload().await;
    assert_eq!(site.recorder.take(), ["rehearsed a"]);
    assert!(matches!(outcome.zones[0].result, ZoneResult::Unchanged));
    assert_eq!(granted(&reloader), "echo:read");
    let snapshot = reloader.snapshot().load();
    assert_eq!((snapshot.zones.len(), snapshot.zones["a"].bundle_generation), (2, 1));
    assert!(snapshot.zones["b"].rehearsal.is_none());
    let kept = Versions::of(&site.config.state_dir, "a").journal().unwrap();
    assert_eq!(kept.newest_first().len(), 1, "it was never in force");
    // A poll finds the same, and a start finds it again.
    reloader.reload().await;
    assert!(Arc::ptr_eq(&snapshot, &reloader.snapshot().load()));
    drop(reloader);
    let reloader = site.start().unwrap();
    assert!(rehearsal(&reloader).is_some());
    site.recorder.take();
    fs::remove_dir_all(site.bundles().join("a.next")).unwrap();
    reloader.reload().await;
    assert_eq!(
        (site.recorder.take(), rehearsal(&reloader).is_none()),
        (vec!["candidate gone a".to_owned()], true)
    );
}

#[tokio::test]
async fn a_change_of_either_side_begins_a_new_count_and_other_secrets_do_not() {
    let site = Site::of(&["a"]);
    candidate(&site, "echo:write");
    let reloader = site.start().unwrap();
    let first = rehearsal(&reloader).unwrap();
    let secrets = fs::read_to_string(site.secrets()).unwrap();
    fs::write(site.secrets(), format!("{secrets}# again\n")).unwrap();
    reloader.reload().await;
    assert!(Arc::ptr_eq(&first, &rehearsal(&reloader).unwrap()), "the secrets are no part of it");
    site.put("a.next/policies/grants.toml", &format!("{}# a word\n", documents("a", "echo:write")[4].1));
    reloader.reload().await;
    let second = rehearsal(&reloader).unwrap();
    assert!(!Arc::ptr_eq(&first, &second), "the candidate is another");
    site.put("a/zone.toml", &format!("{}# a word\n", documents("a", "echo:read")[0].1));
    reloader.reload().await;
    let third = rehearsal(&reloader).unwrap();
    assert!(!Arc::ptr_eq(&second, &third), "what is in force is another");
    reloader.activate("a".to_owned(), Wanted::Files, 0).await.unwrap();
    assert!(Arc::ptr_eq(&third, &rehearsal(&reloader).unwrap()), "nothing changed");
}

#[tokio::test]
async fn a_candidate_passes_every_check_of_a_bundle_or_is_not_asked() {
    let site = Site::of(&["a"]);
    let reloader = site.start().unwrap();
    let why = async |what: &str| {
        site.recorder.take();
        reloader.reload().await;
        assert_eq!(site.recorder.take(), ["candidate refused a"], "{what}");
        reloader.reload().await;
        assert_eq!(site.recorder.take(), [""; 0], "{what}: told once");
        let standing = reloader.standing();
        assert!(standing.bundles_rejected.is_empty() && !reloader.files_newer_than_snapshot(), "{what}");
        assert!(rehearsal(&reloader).is_none(), "{what}");
        assert_eq!(refusal(&reloader, named(&"0".repeat(64))).await, "candidate_refused");
        standing.candidates_refused["a"].clone()
    };
    candidate(&site, "echo:write");
    let providers = documents("a", "echo:write")[2].1.clone();
    site.put("a.next/providers.toml", &providers.replace("secret://echo/api_key", "secret://others/api_key"));
    assert!(why("a secret that is another zone's").await.contains("others"));
    site.put("a.next/providers.toml", &providers);
    let zone = documents("a", "echo:write")[0].1.clone();
    site.put("a.next/zone.toml", &format!("{zone}tests = [\"tests.toml\"]\n"));
    site.put(
        "a.next/tests.toml",
        "schema = 1\n[[tests]]\nname = \"a reader reads\"\napplication = \"demo-agent\"\n\
         resource = \"resource://echo\"\nlabels = [\"demo-agent\"]\nscopes = [\"echo:read\"]\nexpect = \"allow\"\n",
    );
    assert!(why("a failing test").await.contains("bundle_tests_failed"));
    fs::remove_file(site.bundles().join("a.next/zone.toml")).unwrap();
    why("a partial folder").await;
}

#[tokio::test]
async fn a_candidate_needs_the_signature_that_its_bundle_needs() {
    let (signing, reloader) = Signing::start();
    let site = &signing.site;
    candidate(site, "echo:write");
    reloader.reload().await;
    assert!(reloader.standing().candidates_refused["a"].contains("bundle_unsigned"));
    let sign = |revision| {
        let source = crate::bundles::read(&site.bundles(), site.dir.path(), "a.next").unwrap();
        site.put("a.next/bundle.sig", &signing.key.sign(&source, "a", revision));
    };
    sign(1);
    reloader.reload().await;
    assert!(reloader.standing().candidates_refused["a"].contains("bundle_revision_old"));
    sign(2);
    reloader.reload().await;
    assert_eq!(reloader.standing().candidates_refused.len(), 0);
    // While it waits, the files move on to its revision.
    signing.release("echo:read", 2);
    site.put("a/zone.toml", &format!("{}# moved on\n", documents("a", "echo:read")[0].1));
    signing.sign(2);
    reloader.reload().await;
    assert!(reloader.standing().candidates_refused["a"].contains("bundle_revision_old"));
    sign(3);
    reloader.reload().await;
    let done = reloader.promote("a".to_owned(), named(&version(&reloader))).await.unwrap();
    assert_eq!(reloader.snapshot().load().zones["a"].signed.as_ref().unwrap().revision, 3);
    assert!(done.replaced.is_some());
}

#[tokio::test]
async fn a_promotion_replaces_the_files_and_is_a_version_like_any_other() {
    let site = Site::of(&["a"]);
    candidate(&site, "echo:write");
    let reloader = site.start().unwrap();
    site.recorder.take();
    let named = named(&version(&reloader));
    let done = reloader.promote("a".to_owned(), named.clone()).await.unwrap();
    assert_eq!((granted(&reloader).as_str(), done.generation), ("echo:write", 2));
    assert!(done.changes.iter().any(|one| one.contains("gains scope `echo:write`")), "{done:?}");
    assert_eq!(site.recorder.take(), ["candidate gone a", "accepted a"]);
    let text =
        |place: &str| fs::read_to_string(site.bundles().join(place).join("policies/grants.toml")).unwrap();
    assert!(text("a").contains("echo:write") && text("a.previous").contains("echo:read"));
    assert!(!site.bundles().join("a.next").exists());
    let journal = Versions::of(&site.config.state_dir, "a").journal().unwrap();
    let last = journal.newest_first()[0].clone();
    assert_eq!((last.version, last.by, journal.pinned()), (named.candidate, By::Files, None));
    reloader.reload().await;
    assert_eq!(site.recorder.take(), [""; 0], "the files say what is in force");
    reloader.activate("a".to_owned(), Wanted::Earlier, 0).await.unwrap();
    assert_eq!(granted(&reloader), "echo:read");
    // The next one takes the place of what the one before replaced.
    candidate(&site, "echo:read");
    reloader.reload().await;
    reloader.promote("a".to_owned(), self::named(&version(&reloader))).await.unwrap();
    assert!(text("a.previous").contains("echo:write"));
}

#[tokio::test]
async fn a_promotion_is_of_what_was_seen_or_of_nothing() {
    let site = Site::of(&["a"]);
    let reloader = site.start().unwrap();
    assert_eq!(refusal(&reloader, named(&"0".repeat(64))).await, "no_candidate");
    candidate(&site, "echo:read");
    reloader.reload().await;
    assert_eq!(refusal(&reloader, named(&version(&reloader))).await, "nothing_to_promote");
    candidate(&site, "echo:write");
    reloader.reload().await;
    let seen = version(&reloader);
    assert_eq!(refusal(&reloader, named(&"0".repeat(64))).await, "other_candidate");
    assert_eq!(refusal(&reloader, named(seen.get(..15).unwrap())).await, "other_candidate", "too few digits");
    let few = Promotion { min_compared: 1, ..named(&seen) };
    assert_eq!(refusal(&reloader, few).await, "too_few_compared");
    let zone = documents("a", "echo:write")[0].1.clone();
    site.put("a.next/zone.toml", &format!("{zone}# not seen\n"));
    assert_eq!(refusal(&reloader, named(&seen)).await, "files_changed", "before a reload finds it");
    reloader.reload().await;
    assert_eq!(refusal(&reloader, named(&seen)).await, "other_candidate", "and after");
    site.put("a.next/zone.toml", &zone);
    reloader.reload().await;
    site.put("a/zone.toml", &format!("{}# new\n", documents("a", "echo:read")[0].1));
    assert_eq!(refusal(&reloader, named(&seen)).await, "files_changed", "the bundle itself");
    reloader.reload().await;
    assert_eq!(reloader.promote("nowhere".into(), named(&seen)).await.unwrap_err().code(), "unknown_zone");
    // Two at once: the second finds no candidate any more.
    let (one, two) = tokio::join!(
        reloader.promote("a".into(), named(seen.get(..16).unwrap())),
        reloader.promote("a".into(), named(&seen))
    );
    let codes: Vec<_> = [one, two].into_iter().filter_map(|done| Some(done.err()?.code())).collect();
    assert_eq!((codes, granted(&reloader).as_str()), (vec!["no_candidate"], "echo:write"));
}

#[test]
fn a_candidate_that_changes_too_much_needs_a_yes() {
    use crate::rehearsal::Counts;
    let counts = Counts { compared: 10, newly_allowed: 1, newly_denied: 2 };
    let code = |change: &dyn Fn(&mut Promotion)| {
        let mut promotion = named("x");
        change(&mut promotion);
        promotion.allows(counts).err().map(|error| error.code())
    };
    assert_eq!(code(&|_| {}), Some("too_much_changed"));
    assert_eq!(code(&|one| one.max_newly_denied = 2), Some("too_much_changed"));
    assert_eq!(code(&|one| one.max_newly_allowed = 1), Some("too_much_changed"));
    assert_eq!(code(&|one| (one.max_newly_allowed, one.max_newly_denied) = (1, 2)), None);
    assert_eq!(code(&|one| one.accept = true), None);
    assert_eq!(code(&|one| (one.accept, one.min_compared) = (true, 11)), Some("too_few_compared"));
}

#[tokio::test]
async fn a_bundle_of_one_file_is_promoted_too_but_not_with_a_signature_beside_it() {
    let site = Site::of(&["a"]);
    fs::remove_dir_all(site.bundles().join("a")).unwrap();
    let text = |scope: &str| {
        let documents = documents("a", scope);
        let one = |text: &String| text.replace("schema = 1\n", "");
        let zone = "schema = 1\n[zone]\nid = \"a\"\nname = \"a\"\n";
        format!("{zone}{}", documents[1..].iter().map(|(_, text)| one(text)).collect::<String>())
    };
    site.put("a.toml", &text("echo:read"));
    candidate(&site, "echo:write");
    let reloader = site.start().unwrap();
    assert_eq!(
        refusal(&reloader, named(&version(&reloader))).await,
        "candidate_shape",
        "a folder for a file"
    );
    fs::remove_dir_all(site.bundles().join("a.next")).unwrap();
    site.put("a.next.toml", &text("echo:write"));
    site.put("a.next.sig", "");
    reloader.reload().await;
    assert_eq!(refusal(&reloader, named(&version(&reloader))).await, "candidate_shape", "two files");
    fs::remove_file(site.bundles().join("a.next.sig")).unwrap();
    reloader.reload().await;
    reloader.promote("a".into(), named(&version(&reloader))).await.unwrap();
    assert_eq!(granted(&reloader), "echo:write");
    assert!(fs::read_to_string(site.bundles().join("a.previous.toml")).unwrap().contains("echo:read"));
    until("the files are in force", || !reloader.files_newer_than_snapshot()).await;
}
