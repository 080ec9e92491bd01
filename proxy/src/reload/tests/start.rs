//! Starts on good files, on bad ones with something to stand on, and on bad ones without.

use std::fs;

use super::super::versions::Versions;
use super::super::*;
use super::fixture::{Site, code};

fn refusal(site: &Site) -> Vec<&'static str> {
    match site.start() {
        Err(StartError::Refused(report)) => report.problems.iter().map(|problem| problem.code).collect(),
        other => panic!("the start is not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_bad_bundle_starts_on_the_version_activated_last_and_says_so() {
    let site = Site::of(&["a", "b"]);
    let first = site.start().unwrap();
    site.grant("a", "echo:write");
    first.reload().await;
    let digest = *first.snapshot().load().zones["a"].zone.digest();
    drop(first);
    site.put("a/policies/grants.toml", "schema = 1\n[grants\n");
    site.recorder.take();
    let second = site.start().unwrap();
    assert_eq!(second.snapshot().load().zones["a"].zone.digest(), &digest, "the version after the reload");
    assert_eq!(second.standing().bundles_rejected, ["a"]);
    assert!(second.files_newer_than_snapshot());
    assert_eq!(site.recorder.take(), ["rejected a", "stands in a", "accepted b"]);
    second.reload().await;
    assert_eq!(site.recorder.take(), Vec::<String>::new(), "the refusal is not told again");
    site.grant("a", "echo:read");
    let outcome = second.reload().await;
    assert!(matches!(outcome.zones[0].result, ZoneResult::Accepted { .. }), "{outcome:?}");
    assert_eq!(second.standing(), Standing::default());
}

#[tokio::test]
async fn a_bundle_that_is_gone_or_back_to_what_stands_in_is_recognised() {
    let site = Site::of(&["a"]);
    drop(site.start().unwrap());
    let aside = site.dir.path().join("aside");
    fs::rename(site.bundles().join("a"), &aside).unwrap();
    let reloader = site.start().unwrap();
    assert_eq!(code(&reloader.reload().await, "a"), "bundle_missing");
    fs::rename(&aside, site.bundles().join("a")).unwrap();
    let outcome = reloader.reload().await;
    assert!(matches!(outcome.zones[0].result, ZoneResult::Unchanged), "{outcome:?}");
    assert_eq!((reloader.standing(), outcome.generation), (Standing::default(), 1));
}

#[tokio::test]
async fn without_anything_to_stand_on_every_problem_is_reported() {
    let site = Site::of(&["a", "b"]);
    site.put("a/policies/grants.toml", "schema = 1\n[grants\n");
    fs::remove_dir_all(site.bundles().join("b")).unwrap();
    fs::remove_file(site.secrets()).unwrap();
    let codes = refusal(&site);
    assert!(codes.contains(&"secrets_missing") && codes.contains(&"bundle_missing"), "{codes:?}");
    assert!(codes.len() >= 3, "{codes:?}");
}

#[tokio::test]
async fn a_failed_start_activates_nothing() {
    let site = Site::of(&["a", "b"]);
    fs::remove_dir_all(site.bundles().join("b")).unwrap();
    refusal(&site);
    site.put("a/policies/grants.toml", "schema = 1\n[grants\n");
    assert!(refusal(&site).len() >= 2, "zone `a` was never in force");
}

#[tokio::test]
async fn an_activated_version_that_was_tampered_with_is_not_used() {
    let site = Site::of(&["a"]);
    drop(site.start().unwrap());
    let kept = Versions::of(&site.config.state_dir, "a");
    let folder = site.config.state_dir.join("activated/a");
    let grants = folder.join(kept.journal().unwrap().in_force().unwrap()).join("policies/grants.toml");
    let widened = fs::read_to_string(&grants).unwrap().replace("echo:read", "echo:write");
    fs::write(&grants, widened).unwrap();
    fs::remove_dir_all(site.bundles().join("a")).unwrap();
    assert_eq!(refusal(&site), ["bundle_missing"]);
    fs::write(folder.join("journal.json"), "{").unwrap();
    assert_eq!(refusal(&site), ["bundle_missing"]);
}

#[tokio::test]
async fn each_version_that_was_in_force_is_kept_with_its_time_up_to_the_limit() {
    let site = Site::of(&["a"]);
    let reloader = site.start().unwrap();
    let kept = Versions::of(&site.config.state_dir, "a");
    let numbers =
        || kept.journal().unwrap().newest_first().iter().map(|one| (one.number, one.at)).collect::<Vec<_>>();
    assert_eq!(numbers(), [(1, 1_000)]);
    for scope in ["echo:write", "echo:read", "echo:write"] {
        site.clock.advance(std::time::Duration::from_secs(1));
        site.grant("a", scope);
        reloader.reload().await;
    }
    assert_eq!(numbers(), [(4, 4_000), (3, 3_000)], "two versions, by when each was in force last");
    drop(reloader);
    drop(site.start().unwrap());
    assert_eq!(numbers(), [(4, 4_000), (3, 3_000)], "a restart on the same files activates nothing");
    let reloader = site.start().unwrap();
    for cap in 2..6 {
        let text = format!("schema = 1\n[[applications]]\nid = \"demo-agent\"\nmax_concurrent = {cap}\n");
        site.put("a/applications.toml", &text);
        reloader.reload().await;
    }
    assert_eq!(numbers().len(), 3);
}

#[tokio::test]
async fn a_check_is_a_start_that_leaves_no_trace() {
    let site = Site::of(&["a", "b"]);
    let registry = Registry::stock();
    let zones = check(&site.config, &registry).unwrap();
    assert!(!site.config.state_dir.exists());
    let reloader = site.start().unwrap();
    for (id, zone) in &zones {
        assert_eq!(zone.digest(), reloader.snapshot().load().zones[id.as_str()].zone.digest());
    }
    site.put("a/policies/grants.toml", "schema = 1\n[grants\n");
    fs::write(site.secrets(), "").unwrap();
    let report = check(&site.config, &registry).unwrap_err();
    let codes: Vec<&str> = report.problems.iter().map(|problem| problem.code).collect();
    assert!(codes.contains(&"secrets_empty") && codes.len() >= 2, "{codes:?}");
}

#[tokio::test]
async fn a_bundle_whose_tests_fail_does_not_start() {
    let site = Site::of(&["a"]);
    let head = fs::read_to_string(site.bundles().join("a/zone.toml")).unwrap();
    site.put("a/zone.toml", &format!("{head}tests = [\"tests/grants.toml\"]\n"));
    site.put(
        "a/tests/grants.toml",
        "schema = 1\n[[tests]]\nname = \"it reads\"\napplication = \"demo-agent\"\n\
         resource = \"resource://echo\"\nlabels = [\"demo-agent\"]\nscopes = [\"echo:read\"]\nexpect = \"deny\"\n",
    );
    assert_eq!(refusal(&site), ["bundle_tests_failed"]);
}
