mod candidates;
mod fixture;
mod follow;
mod pins;
mod signed;
mod start;

use std::fs;

use caracal_policies::Scheme;

use super::*;
use crate::secrets::{Dial, SecretRefused};
use fixture::{CANARY, Site, code, documents, rejected};

#[tokio::test]
async fn a_snapshot_holds_zones_routes_chains_and_secrets_of_one_generation() {
    let site = Site::of(&["a", "b"]);
    let reloader = site.start().unwrap();
    let snapshot = reloader.snapshot().load();
    assert_eq!((snapshot.generation, snapshot.secrets_generation, snapshot.zones.len()), (1, 1, 2));
    let (target, cut) = snapshot.routes.by_prefix("/a/read/1").unwrap();
    assert_eq!((&*target.zone, &*target.resource, cut), ("a", "resource://echo", 2));
    let live = &snapshot.zones["a"];
    assert!(live.chains["resource://echo"].scrubs());
    assert_eq!(live.bundle_generation, 1);
    let dial = Dial { scheme: Scheme::Http, host: "127.0.0.1", port: 9000, loopback: true };
    assert_eq!(snapshot.secrets.get("a", "echo", "api_key", &dial).unwrap().expose(), CANARY);
    assert_eq!(reloader.standing(), Standing::default());
    assert!(!reloader.files_newer_than_snapshot());
}

#[tokio::test]
async fn what_did_not_change_is_not_touched() {
    let site = Site::of(&["a", "b"]);
    let reloader = site.start().unwrap();
    let before = reloader.snapshot().load();
    let outcome = reloader.reload().await;
    assert!(matches!(outcome.secrets, SecretsOutcome::Unchanged));
    assert!(outcome.zones.iter().all(|zone| matches!(zone.result, ZoneResult::Unchanged)), "{outcome:?}");
    assert!(Arc::ptr_eq(&before, &reloader.snapshot().load()));
    site.grant("a", "echo:write");
    let outcome = reloader.reload().await;
    let after = reloader.snapshot().load();
    assert_eq!((outcome.generation, after.generation), (2, 2));
    assert!(Arc::ptr_eq(&before.zones["b"], &after.zones["b"]), "the other zone stays the same value");
    assert_eq!((after.zones["a"].bundle_generation, after.secrets_generation), (2, 1));
    let ZoneResult::Accepted { digest, changes } = &outcome.zones[0].result else { panic!("{outcome:?}") };
    assert_eq!(digest, after.zones["a"].zone.digest());
    assert!(changes.iter().any(|change| change.contains("echo:write")), "{changes:?}");
}

#[tokio::test]
async fn a_bad_zone_keeps_its_last_good_and_holds_up_nobody() {
    let site = Site::of(&["a", "b"]);
    let reloader = site.start().unwrap();
    let before = reloader.snapshot().load();
    site.put("a/policies/grants.toml", "schema = 1\n[grants\n");
    site.grant("b", "echo:write");
    let outcome = reloader.reload().await;
    let report = rejected(&outcome, "a");
    assert_eq!(&*report.problems[0].place.file, "bundles/a/policies/grants.toml");
    let after = reloader.snapshot().load();
    assert!(Arc::ptr_eq(&before.zones["a"], &after.zones["a"]));
    assert_eq!(after.zones["b"].bundle_generation, 2);
    assert_eq!(reloader.standing().bundles_rejected, ["a"]);
    assert!(reloader.files_newer_than_snapshot());
    site.grant("a", "echo:write");
    reloader.reload().await;
    assert_eq!(reloader.snapshot().load().zones["a"].bundle_generation, 2);
    assert!(!reloader.files_newer_than_snapshot());
}

#[tokio::test]
async fn a_refusal_is_told_once_and_going_back_clears_it() {
    let site = Site::of(&["a"]);
    let reloader = site.start().unwrap();
    site.recorder.take();
    let good = fs::read_to_string(site.bundles().join("a/resources.toml")).unwrap();
    site.put("a/resources.toml", "schema = 2\n");
    for _ in 0..3 {
        reloader.reload().await;
    }
    assert_eq!(site.recorder.take(), ["rejected a"]);
    site.put("a/resources.toml", &good);
    let outcome = reloader.reload().await;
    assert!(matches!(outcome.zones[0].result, ZoneResult::Unchanged));
    assert!(!reloader.files_newer_than_snapshot());
    assert_eq!((site.recorder.take(), outcome.generation), (vec!["accepted a".to_owned()], 1));
    let secrets = fs::read_to_string(site.secrets()).unwrap();
    for text in ["", "", &secrets, &secrets] {
        fs::write(site.secrets(), text).unwrap();
        reloader.reload().await;
    }
    assert_eq!(site.recorder.take(), ["rejected secrets", "accepted secrets"]);
}

#[tokio::test]
async fn a_zone_never_ends_or_widens_because_files_are_missing() {
    let site = Site::of(&["a"]);
    let reloader = site.start().unwrap();
    let aside = site.dir.path().join("aside");
    fs::rename(site.bundles().join("a"), &aside).unwrap();
    assert_eq!(code(&reloader.reload().await, "a"), "bundle_missing");
    fs::create_dir(site.bundles().join("a")).unwrap();
    assert!(!rejected(&reloader.reload().await, "a").problems.is_empty(), "an empty folder");
    fs::remove_dir(site.bundles().join("a")).unwrap();
    fs::rename(&aside, site.bundles().join("a")).unwrap();
    assert!(matches!(reloader.reload().await.zones[0].result, ZoneResult::Unchanged));
    for name in ["zone.toml", "applications.toml", "providers.toml", "policies/grants.toml"] {
        let path = site.bundles().join("a").join(name);
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        rejected(&reloader.reload().await, "a");
        fs::write(&path, text).unwrap();
    }
    site.put("a/policies/more.toml", "schema = 1\n");
    rejected(&reloader.reload().await, "a");
    assert_eq!(reloader.snapshot().load().generation, 1);
}

#[tokio::test]
async fn routes_secrets_and_plugins_of_a_bundle_are_judged_too() {
    let site = Site::of(&["a", "b"]);
    let reloader = site.start().unwrap();
    let good = fs::read_to_string(site.bundles().join("a/resources.toml")).unwrap();
    let cases = [
        ("prefixes = [\"/a\"]", "prefixes = [\"/b\"]", "route_unassigned"),
        ("prefixes = [\"/a\"]", "prefixes = [\"/a/of-b/x\"]", "route_of_another_zone"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9001", "secret_host"),
        ("http://127.0.0.1:9000", "https://evil.example", "secret_host"),
        ("http://127.0.0.1:9000", "http://api.example.com", "secret_insecure"),
        ("response_scrub", "no_such_plugin", "plugin"),
    ];
    for (from, to, expected) in cases {
        assert!(good.contains(from), "{from}");
        site.put("a/resources.toml", &good.replace(from, to));
        assert_eq!(code(&reloader.reload().await, "a"), expected, "{to}");
    }
    site.put("a/resources.toml", &good);
    let providers = fs::read_to_string(site.bundles().join("a/providers.toml")).unwrap();
    for (to, expected) in [
        ("secret://echo/none", "secret_key_unknown"),
        ("secret://none/api_key", "secret_unknown"),
        ("secret://others/api_key", "secret_zone"),
        ("secret://short/api_key", "secret_too_short"),
    ] {
        site.put("a/providers.toml", &providers.replace("secret://echo/api_key", to));
        assert_eq!(code(&reloader.reload().await, "a"), expected, "{to}");
    }
}

#[tokio::test]
async fn the_secrets_file_is_a_unit_of_its_own() {
    let site = Site::of(&["a"]);
    let reloader = site.start().unwrap();
    let good = fs::read_to_string(site.secrets()).unwrap();
    fs::write(site.secrets(), "schema = 1\n[secrets.echo\n").unwrap();
    site.grant("a", "echo:write");
    let outcome = reloader.reload().await;
    assert!(matches!(outcome.secrets, SecretsOutcome::Rejected(_)), "{outcome:?}");
    assert!(matches!(outcome.zones[0].result, ZoneResult::Accepted { .. }), "{outcome:?}");
    assert!(reloader.standing().secrets_rejected && reloader.files_newer_than_snapshot());
    let snapshot = reloader.snapshot().load();
    assert_eq!((snapshot.generation, snapshot.secrets_generation), (2, 1));
    fs::write(site.secrets(), good.replace(CANARY, "another-canary-value")).unwrap();
    let outcome = reloader.reload().await;
    let SecretsOutcome::Accepted { changes, unserved } = &outcome.secrets else { panic!("{outcome:?}") };
    assert!(changes.iter().any(|change| change == "secret `echo` key `api_key` changes"), "{changes:?}");
    assert_eq!(unserved, &[]);
    let snapshot = reloader.snapshot().load();
    assert_eq!((snapshot.generation, snapshot.secrets_generation), (3, 2));
}

#[tokio::test]
async fn a_secret_that_is_taken_away_is_gone_at_once_and_one_that_comes_lets_a_bundle_in() {
    let site = Site::of(&["a"]);
    let reloader = site.start().unwrap();
    let good = fs::read_to_string(site.secrets()).unwrap();
    fs::write(site.secrets(), good.replace("[secrets.echo]", "[secrets.renamed]")).unwrap();
    let outcome = reloader.reload().await;
    let SecretsOutcome::Accepted { unserved, .. } = &outcome.secrets else { panic!("{outcome:?}") };
    assert_eq!(unserved[0].code, "secret_unknown");
    assert!(matches!(outcome.zones[0].result, ZoneResult::Unchanged), "the zone itself stays in force");
    let dial = Dial { scheme: Scheme::Http, host: "127.0.0.1", port: 9000, loopback: true };
    let refused = reloader.snapshot().load().secrets.get("a", "echo", "api_key", &dial).err();
    assert_eq!(refused, Some(SecretRefused::Unknown));
    site.grant("a", "echo:write");
    assert_eq!(code(&reloader.reload().await, "a"), "secret_unknown");
    fs::write(site.secrets(), &good).unwrap();
    let outcome = reloader.reload().await;
    assert!(matches!(outcome.zones[0].result, ZoneResult::Accepted { .. }), "judged again: {outcome:?}");
}

#[tokio::test]
async fn a_secrets_file_that_others_may_read_is_refused_while_running() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::of(&["a"]);
    let reloader = site.start().unwrap();
    for (mode, fine) in [(0o644, false), (0o640, false), (0o600, true)] {
        fs::set_permissions(site.secrets(), fs::Permissions::from_mode(mode)).unwrap();
        let outcome = reloader.reload().await;
        assert_eq!(matches!(outcome.secrets, SecretsOutcome::Unchanged), fine, "{mode:o} {outcome:?}");
        assert_eq!(reloader.standing().secrets_rejected, !fine);
    }
}

#[tokio::test]
async fn generations_only_grow_and_each_swap_is_one() {
    let site = Site::of(&["a", "b"]);
    let reloader = site.start().unwrap();
    let secrets = fs::read_to_string(site.secrets()).unwrap();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut last = reloader.snapshot().load();
    for round in 0..200 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let zone = if random & 8 == 0 { "a" } else { "b" };
        match random % 6 {
            0 => site.grant(zone, "echo:read"),
            1 => site.grant(zone, "echo:write"),
            2 => site.put(&format!("{zone}/policies/grants.toml"), "schema = 1\nrestrict = 7\n"),
            3 => fs::write(site.secrets(), secrets.replace(CANARY, &format!("canary-in-round-{round}")))
                .unwrap(),
            4 => fs::write(site.secrets(), "").unwrap(),
            _ => {}
        }
        let outcome = reloader.reload().await;
        let now = reloader.snapshot().load();
        let accepted = outcome.zones.iter().any(|zone| matches!(zone.result, ZoneResult::Accepted { .. }))
            || matches!(outcome.secrets, SecretsOutcome::Accepted { .. });
        assert_eq!(now.generation, last.generation + u64::from(accepted), "round {round}: {outcome:?}");
        assert_eq!(outcome.generation, now.generation);
        assert!(now.secrets_generation >= last.secrets_generation);
        for (id, zone) in &now.zones {
            assert!(zone.bundle_generation >= last.zones[id].bundle_generation);
        }
        last = now;
    }
    assert!(last.generation > 50, "{}", last.generation);
}

#[tokio::test]
async fn nothing_a_reload_tells_or_holds_shows_a_secret() {
    let site = Site::of(&["a"]);
    let reloader = site.start().unwrap();
    site.put("a/resources.toml", "schema = 2\n");
    fs::write(site.secrets(), format!("schema = 1\n[secrets.echo]\nk = {CANARY}\n")).unwrap();
    let outcome = reloader.reload().await;
    let snapshot = reloader.snapshot().load();
    let told = site.recorder.everything.lock().join("\n");
    for text in [format!("{outcome:?}"), format!("{snapshot:?}"), format!("{reloader:?}"), told] {
        assert!(!text.contains(CANARY), "{text}");
    }
}

/// Gives zone `a` one test of its own.
fn expecting(site: &Site, expect: &str) {
    let head = format!("{}tests = [\"tests/grants.toml\"]\n", documents("a", "echo:read")[0].1);
    site.put("a/zone.toml", &head);
    site.put(
        "a/tests/grants.toml",
        &format!(
            "schema = 1\n[[tests]]\nname = \"it reads\"\napplication = \"demo-agent\"\n\
             resource = \"resource://echo\"\nlabels = [\"demo-agent\"]\nscopes = [\"echo:read\"]\n\
             expect = \"{expect}\"\n"
        ),
    );
}

#[tokio::test]
async fn a_bundle_whose_tests_fail_changes_nothing() {
    let site = Site::of(&["a"]);
    expecting(&site, "allow");
    let reloader = site.start().unwrap();
    let before = *reloader.snapshot().load().zones["a"].zone.digest();
    site.grant("a", "echo:write");
    site.recorder.take();
    let outcome = reloader.reload().await;
    assert_eq!(code(&outcome, "a"), "bundle_tests_failed");
    assert_eq!(reloader.snapshot().load().zones["a"].zone.digest(), &before);
    assert_eq!(reloader.standing().bundles_rejected, ["a"]);
    assert_eq!(site.recorder.take(), ["rejected a"], "log and metrics hear of it");
    expecting(&site, "deny");
    assert!(matches!(reloader.reload().await.zones[0].result, ZoneResult::Accepted { .. }));
    assert_eq!(reloader.standing(), Standing::default());
}
