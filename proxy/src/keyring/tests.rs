use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use caracal_mandates::{Claims, Expect, Invalid, SubjectType, Use, verify};
use tempfile::TempDir;

use super::*;

const START: i64 = 1_790_000_000_000;
const DAY: i64 = 24 * 60 * 60 * 1_000;

struct Bench {
    folder: TempDir,
    sealing: SealingKey,
    keyring: Keyring,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sealing = sealing_key(1);
        let keyring =
            Keyring::open(&folder.path().join("keys"), &sealing, &names(&["a", "b"]), START).unwrap();
        Self { folder, sealing, keyring }
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    fn file(&self, zone: &str) -> PathBuf {
        self.dir().join(format!("{zone}.json"))
    }

    fn restarted(&self, now: i64) -> Keyring {
        Keyring::open(&self.dir(), &self.sealing, &names(&["a", "b"]), now).unwrap()
    }

    fn kid(&self, zone: &str) -> String {
        self.keyring.zone(zone).unwrap().keys.kid().to_owned()
    }

    fn generation(&self, zone: &str) -> u64 {
        self.keyring.zone(zone).unwrap().generation
    }

    fn token(&self, zone: &str) -> String {
        self.keyring.zone(zone).unwrap().keys.mint(claims(zone)).unwrap().token
    }
}

fn names(zones: &[&str]) -> Vec<String> {
    zones.iter().map(|zone| (*zone).to_owned()).collect()
}

/// A key that is no pattern, another one for each seed.
fn sealing_key(seed: u8) -> SealingKey {
    let bytes = std::array::from_fn(|at| {
        let at = u8::try_from(at).unwrap();
        at.wrapping_mul(at).wrapping_mul(seed).wrapping_add(seed)
    });
    SealingKey::from_bytes(bytes).unwrap()
}

fn claims(zone: &str) -> Claims {
    Claims {
        iss: "i".into(),
        sub: "app".into(),
        aud: vec!["i".into()],
        exp: START / 1_000 + 900,
        iat: START / 1_000,
        jti: new_jti(START),
        zone_id: zone.into(),
        client_id: "app".into(),
        sid: "r".into(),
        root_sid: "r".into(),
        ..Claims::empty(Use::Gateway, SubjectType::Application)
    }
}

fn check(keyring: &Keyring, zone: &str, token: &str) -> Result<(), Invalid> {
    let expect =
        Expect { issuer: "i", audience: "i", zone, uses: &[Use::Gateway], now: START / 1_000, leeway: 0 };
    verify(keyring.zone(zone).unwrap().keys.public(), token, &expect).map(|_| ())
}

/// Names and states, without the times.
fn states(keyring: &Keyring, zone: &str) -> Vec<(String, &'static str)> {
    let word = |state| match state {
        KeyState::Next { .. } => "next",
        KeyState::Signing => "signing",
        KeyState::Previous { .. } => "previous",
        KeyState::Revoked { .. } => "revoked",
    };
    let of_zone = keyring.list().into_iter().filter(|key| &*key.zone == zone);
    of_zone.map(|key| (key.kid.to_string(), word(key.state))).collect()
}

fn published(keyring: &Keyring, zone: &str) -> Vec<String> {
    let state = keyring.zone(zone).unwrap();
    let document: serde_json::Value = serde_json::from_str(state.keys.jwks()).unwrap();
    let keys = document["keys"].as_array().unwrap();
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_zone_has_its_own_key_from_the_start() {
    let bench = Bench::new();
    assert_ne!(bench.kid("a"), bench.kid("b"));
    assert!(bench.keyring.zone("c").is_none());
    assert_eq!(check(&bench.keyring, "a", &bench.token("a")), Ok(()));
    assert_eq!(check(&bench.keyring, "b", &bench.token("a")), Err(Invalid::UnknownKey));
    assert_eq!(bench.generation("a"), 1);
}

#[test]
fn a_restart_keeps_the_keys() {
    let bench = Bench::new();
    let rotation = bench.keyring.rotate("a", START).unwrap();
    let token = bench.token("a");
    let again = bench.restarted(START + 1_000);
    assert_eq!(again.list(), bench.keyring.list());
    assert_eq!(check(&again, "a", &token), Ok(()));
    again.tick(rotation.signs_at).unwrap();
    assert_eq!(again.zone("a").unwrap().keys.kid(), &*rotation.kid);
}

#[test]
fn what_fell_due_while_stopped_happens_at_the_start() {
    let bench = Bench::new();
    let old = bench.kid("a");
    let rotation = bench.keyring.rotate("a", START).unwrap();
    let again = bench.restarted(rotation.signs_at + 1);
    assert_eq!(states(&again, "a"), [(rotation.kid.to_string(), "signing"), (old, "previous")]);
}

#[test]
fn files_are_private_whole_and_sealed() {
    let bench = Bench::new();
    assert_eq!(fs::metadata(bench.dir()).unwrap().mode() & 0o777, 0o700);
    let text = fs::read_to_string(bench.file("a")).unwrap();
    assert_eq!(fs::metadata(bench.file("a")).unwrap().mode() & 0o777, 0o600);
    let held: Vec<_> = fs::read_dir(bench.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(held.len(), 2, "no draft is left behind: {held:?}");
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((record["schema"].as_i64(), record["zone"].as_str()), (Some(1), Some("a")));
    let sealed = record["signing"]["sealed"].as_str().unwrap();
    assert!(sealed.starts_with("Q1NTM"), "a CSS1 envelope: {sealed}");
    assert!(!format!("{:?}", bench.keyring).contains(sealed));
}

#[test]
fn another_sealing_key_is_a_clear_error_and_changes_nothing() {
    let bench = Bench::new();
    let before = fs::read(bench.file("a")).unwrap();
    let error = Keyring::open(&bench.dir(), &sealing_key(2), &names(&["a"]), START).unwrap_err();
    assert!(matches!(error, KeyringError::OtherSealingKey { .. }));
    assert!(error.to_string().contains("another sealing key") && error.to_string().contains("a.json"));
    assert_eq!(fs::read(bench.file("a")).unwrap(), before);
}

#[test]
fn a_file_that_was_touched_is_not_believed() {
    let change = |from: &str, to: &str| {
        let bench = Bench::new();
        let text = fs::read_to_string(bench.file("a")).unwrap();
        let changed = text.replacen(from, to, 1);
        assert_ne!(text, changed, "{from}");
        fs::write(bench.file("a"), changed).unwrap();
        Keyring::open(&bench.dir(), &bench.sealing, &names(&["a"]), START).unwrap_err()
    };
    for (from, to) in [
        ("\"schema\": 1", "\"schema\": 2"),
        ("\"zone\": \"a\"", "\"zone\": \"b\""),
        ("\"sealed\": \"Q1NTM", "\"sealed\": \"Q1NTN"),
        ("\"previous\"", "\"precious\""),
        ("\"x\": \"", "\"x\": \"A"),
        ("{", "["),
    ] {
        assert!(matches!(change(from, to), KeyringError::Damaged { .. }), "{from}");
    }
    let bench = Bench::new();
    fs::copy(bench.file("b"), bench.file("a")).unwrap();
    let error = Keyring::open(&bench.dir(), &bench.sealing, &names(&["a"]), START).unwrap_err();
    assert!(matches!(error, KeyringError::Damaged { .. }), "another zone's file");
}

#[test]
fn a_file_or_folder_open_to_others_is_refused() {
    let bench = Bench::new();
    let open = || Keyring::open(&bench.dir(), &bench.sealing, &names(&["a"]), START);
    fs::set_permissions(bench.file("a"), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(open().unwrap_err(), KeyringError::Exposed { .. }));
    fs::set_permissions(bench.file("a"), fs::Permissions::from_mode(0o600)).unwrap();
    open().unwrap();
    fs::set_permissions(bench.dir(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(open().unwrap_err(), KeyringError::Exposed { .. }));
}

#[test]
fn a_zone_name_stays_in_the_folder() {
    let bench = Bench::new();
    for zone in ["", ".", "..", "../x", "a/b", ".hidden", "a b", "zoné", &"z".repeat(129)] {
        let error = bench.keyring.ensure(zone, START).unwrap_err();
        assert!(matches!(error, KeyringError::ZoneName), "{zone}");
    }
}

#[test]
fn a_zone_can_be_added_while_running() {
    let bench = Bench::new();
    bench.keyring.ensure("c", START).unwrap();
    let kid = bench.kid("c");
    bench.keyring.ensure("c", START + 1).unwrap();
    assert_eq!(bench.kid("c"), kid);
    let again = bench.restarted(START);
    assert!(again.zone("c").is_none(), "a zone nobody names is not loaded");
    again.ensure("c", START).unwrap();
    assert_eq!(again.zone("c").unwrap().keys.kid(), kid);
}

#[test]
fn a_rotation_publishes_waits_signs_and_keeps_the_old_key_a_day() {
    let bench = Bench::new();
    let keyring = &bench.keyring;
    let (old, old_token) = (bench.kid("a"), bench.token("a"));
    let rotation = keyring.rotate("a", START).unwrap();
    let new = rotation.kid.to_string();
    assert_eq!((rotation.signs_at, rotation.begun), (START + 300_000, Begun::Now));
    assert_eq!(published(keyring, "a"), [old.clone(), new.clone()], "published before it signs");
    assert_eq!((bench.kid("a"), bench.generation("a")), (old.clone(), 2));

    let again = keyring.rotate("a", START + 1).unwrap();
    assert_eq!((&again.kid, again.signs_at, again.begun), (&rotation.kid, rotation.signs_at, Begun::Earlier));

    keyring.tick(START + 299_999).unwrap();
    assert_eq!((bench.kid("a"), bench.generation("a")), (old.clone(), 2), "nothing is due");
    keyring.tick(START + 300_000).unwrap();
    assert_eq!((bench.kid("a"), bench.generation("a")), (new.clone(), 3));
    assert_eq!(published(keyring, "a"), [new.clone(), old]);
    assert_eq!(check(keyring, "a", &old_token), Ok(()), "its mandates live on");
    let text = fs::read_to_string(bench.file("a")).unwrap();
    assert_eq!(text.matches("sealed").count(), 1, "the old private key is gone");

    keyring.tick(START + 300_000 + DAY - 1).unwrap();
    assert_eq!(check(keyring, "a", &old_token), Ok(()));
    keyring.tick(START + 300_000 + DAY).unwrap();
    assert_eq!(published(keyring, "a"), [new]);
    assert_eq!(check(keyring, "a", &old_token), Err(Invalid::UnknownKey));
    assert_eq!(bench.generation("a"), 4);
    assert_eq!(bench.generation("b"), 1, "the other zone is not touched");
}

#[test]
fn revoking_the_signing_key_refuses_its_mandates_and_signs_with_a_new_one_at_once() {
    let bench = Bench::new();
    let (old, old_token) = (bench.kid("a"), bench.token("a"));
    bench.keyring.revoke("a", &old, START + 5).unwrap();
    assert_eq!(check(&bench.keyring, "a", &old_token), Err(Invalid::UnknownKey));
    assert_eq!(check(&bench.keyring, "a", &bench.token("a")), Ok(()));
    assert_eq!(published(&bench.keyring, "a"), [bench.kid("a")]);
    assert_eq!(bench.generation("a"), 2);
    let again = bench.restarted(START + 6);
    assert_eq!(check(&again, "a", &old_token), Err(Invalid::UnknownKey), "a restart does not bring it back");
    assert_eq!(states(&again, "a"), [(bench.kid("a"), "signing"), (old.clone(), "revoked")]);
    bench.keyring.revoke("a", &old, START + 7).unwrap();
    assert_eq!(bench.generation("a"), 2, "twice is once");
    bench.keyring.tick(START + 5 + DAY).unwrap();
    assert_eq!(states(&bench.keyring, "a"), [(bench.kid("a"), "signing")]);
}

#[test]
fn a_published_key_takes_over_when_the_signing_one_is_revoked() {
    let bench = Bench::new();
    let old = bench.kid("a");
    let rotation = bench.keyring.rotate("a", START).unwrap();
    bench.keyring.revoke("a", &old, START + 1).unwrap();
    assert_eq!(bench.kid("a"), *rotation.kid);
    bench.keyring.tick(rotation.signs_at).unwrap();
    assert_eq!(bench.kid("a"), *rotation.kid);
}

#[test]
fn a_next_or_previous_key_can_be_revoked_too() {
    let bench = Bench::new();
    let first = bench.kid("a");
    let next = bench.keyring.rotate("a", START).unwrap().kid;
    bench.keyring.revoke("a", &next, START).unwrap();
    bench.keyring.tick(START + DAY / 2).unwrap();
    assert_eq!(bench.kid("a"), first, "a revoked key never signs");

    let token = bench.token("a");
    let rotation = bench.keyring.rotate("a", START).unwrap();
    bench.keyring.tick(rotation.signs_at).unwrap();
    assert_eq!(check(&bench.keyring, "a", &token), Ok(()));
    bench.keyring.revoke("a", &first, START).unwrap();
    assert_eq!(check(&bench.keyring, "a", &token), Err(Invalid::UnknownKey));
    assert_eq!(bench.kid("a"), *rotation.kid);
}

#[test]
fn unknown_zones_and_keys_are_errors() {
    let bench = Bench::new();
    let (a, b) = (bench.kid("a"), bench.kid("b"));
    assert!(matches!(bench.keyring.rotate("c", START), Err(KeyringError::UnknownZone)));
    assert!(matches!(bench.keyring.revoke("c", &a, START), Err(KeyringError::UnknownZone)));
    assert!(matches!(bench.keyring.revoke("a", &b, START), Err(KeyringError::UnknownKey)));
    assert_eq!((bench.kid("a"), bench.generation("a")), (a, 1));
}

#[test]
fn retiring_all_refuses_everything_signed_before() {
    let bench = Bench::new();
    let tokens = [("a", bench.token("a")), ("b", bench.token("b"))];
    bench.keyring.rotate("a", START).unwrap();
    bench.keyring.retire_all(START + 1).unwrap();
    for keyring in [&bench.keyring, &bench.restarted(START + 2)] {
        for (zone, token) in &tokens {
            assert_eq!(check(keyring, zone, token), Err(Invalid::UnknownKey), "{zone}");
            assert_eq!(published(keyring, zone), [bench.kid(zone)], "{zone}");
        }
    }
    let words: Vec<_> = states(&bench.keyring, "a").into_iter().map(|(_, word)| word).collect();
    assert_eq!(words, ["signing", "revoked", "revoked"]);
    assert_eq!(check(&bench.keyring, "a", &bench.token("a")), Ok(()));
}

/// Puts a folder where the draft is written, which no user can write over, root included.
fn break_disk(bench: &Bench, zone: &str) -> PathBuf {
    let draft = bench.dir().join(format!(".{zone}.json.draft"));
    fs::create_dir(&draft).unwrap();
    draft
}

#[test]
fn a_failing_disk_stops_a_rotation_and_not_a_revocation() {
    let bench = Bench::new();
    let (old, token) = (bench.kid("a"), bench.token("a"));
    let draft = break_disk(&bench, "a");
    assert!(matches!(bench.keyring.rotate("a", START), Err(KeyringError::Io { .. })));
    assert_eq!((published(&bench.keyring, "a"), bench.generation("a")), (vec![old.clone()], 1));

    let failed = bench.keyring.revoke("a", &old, START);
    assert!(matches!(failed, Err(KeyringError::Io { .. })));
    assert_eq!(check(&bench.keyring, "a", &token), Err(Invalid::UnknownKey), "refused all the same");
    assert_eq!(check(&bench.restarted(START), "a", &token), Ok(()), "the disk does not know yet");

    fs::remove_dir(draft).unwrap();
    bench.keyring.revoke("a", &old, START).unwrap();
    assert_eq!(
        check(&bench.restarted(START), "a", &token),
        Err(Invalid::UnknownKey),
        "repeating it saves it"
    );
}

#[test]
fn one_zones_failing_disk_does_not_hold_up_another() {
    let bench = Bench::new();
    let due = [bench.keyring.rotate("a", START).unwrap(), bench.keyring.rotate("b", START).unwrap()];
    let draft = break_disk(&bench, "a");
    let old = bench.kid("a");
    bench.keyring.tick(START + 300_000).unwrap_err();
    assert_eq!((bench.kid("a"), bench.kid("b")), (old, due[1].kid.to_string()));
    fs::remove_dir(draft).unwrap();
    bench.keyring.tick(START + 300_001).unwrap();
    assert_eq!(bench.kid("a"), *due[0].kid);
}

#[test]
fn an_interrupted_write_leaves_the_file_as_it_was() {
    let bench = Bench::new();
    let kid = bench.kid("a");
    fs::write(bench.dir().join(".a.json.draft"), "half").unwrap();
    let again = bench.restarted(START);
    assert_eq!(again.zone("a").unwrap().keys.kid(), kid);
    again.rotate("a", START).unwrap();
    assert!(!bench.dir().join(".a.json.draft").exists());
}

#[test]
fn a_key_is_listed_for_an_operator_without_its_secret() {
    let bench = Bench::new();
    let rotation = bench.keyring.rotate("a", START).unwrap();
    let listed = serde_json::to_value(bench.keyring.list()).unwrap();
    let expected = serde_json::json!([
        {"zone": "a", "kid": &*rotation.kid, "created_at": START, "state": "next", "signs_at": START + 300_000},
        {"zone": "a", "kid": bench.kid("a"), "created_at": START, "state": "signing"},
        {"zone": "b", "kid": bench.kid("b"), "created_at": START, "state": "signing"},
    ]);
    assert_eq!(listed, expected);
}
