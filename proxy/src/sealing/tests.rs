use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use tempfile::TempDir;

use super::*;

const HEX: &str = "7f3a91c05be2d64418a7f0239cde5b6012f48ae97d35c1b86e04fa92d7bb1c5e";

struct Bench {
    folder: TempDir,
    sources: SealingSources,
}

impl Bench {
    /// `state` inside a folder of its own, no source but the automatic one.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("state");
        fs::create_dir(&state_dir).unwrap();
        let sources = SealingSources {
            configured: None,
            readers: Readers::OwnerOnly,
            credentials_dir: None,
            state_dir,
        };
        Self { folder, sources }
    }

    /// The same, with a configured file of this content and mode.
    fn configured(content: impl AsRef<[u8]>, mode: u32) -> Self {
        let mut bench = Self::new();
        let path = bench.folder.path().join("key");
        write(&path, content, mode);
        bench.sources.configured = Some(path);
        bench
    }

    fn load(&self) -> Result<LoadedSealingKey, SealingError> {
        SealingKey::load_or_create(&self.sources)
    }

    fn entries(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_configured_file_holds_hex_or_raw_bytes() {
    let raw = hex::decode(HEX).unwrap();
    let forms: [Vec<u8>; 5] = [
        HEX.into(),
        format!("{HEX}\n").into(),
        format!("{HEX} \r\n").into(),
        HEX.to_uppercase().into(),
        raw.clone(),
    ];
    for form in forms {
        let loaded = Bench::configured(&form, 0o600).load().unwrap();
        assert_eq!(loaded.key.0[..], raw[..]);
        assert!(matches!(loaded.origin, SealingOrigin::Configured(_)));
        assert_eq!(loaded.origin.warning(), None);
    }
}

#[test]
fn any_other_content_is_refused_and_not_repeated() {
    let half = HEX.split_at(32).0;
    let wrong: [Vec<u8>; 7] = [
        Vec::new(),
        half.into(),
        format!("{HEX}00").into(),
        format!(" {HEX}").into(),
        HEX.replace('7', "g").into(),
        vec![9; 33],
        vec![9; 500],
    ];
    for content in wrong {
        let bench = Bench::configured(&content, 0o600);
        let error = bench.load().unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(!told.contains(half), "{told}");
        assert_eq!(bench.entries(), ["key", "state"], "no key is made in its place");
    }
}

#[test]
fn a_pattern_is_no_key() {
    let patterns: [[u8; 32]; 7] = [
        [0; 32],
        [0xab; 32],
        std::array::from_fn(|at| u8::try_from(at).unwrap()),
        std::array::from_fn(|at| 240_u8.wrapping_add(u8::try_from(at).unwrap())),
        std::array::from_fn(|at| 255_u8.wrapping_sub(u8::try_from(at).unwrap())),
        std::array::from_fn(|at| 10_u8.wrapping_sub(u8::try_from(at).unwrap())),
        std::array::from_fn(|at| if at % 2 == 0 { 0x12 } else { 0x34 }),
    ];
    for pattern in patterns {
        SealingKey::from_bytes(pattern).unwrap_err();
        let error = Bench::configured(hex::encode(pattern), 0o600).load().unwrap_err();
        assert!(matches!(error, SealingError::Weak { .. }), "{error}");
    }
}

#[test]
fn a_file_others_can_read_or_change_is_refused() {
    for mode in [0o644, 0o604, 0o640, 0o660, 0o620, 0o602, 0o601, 0o610] {
        let error = Bench::configured(HEX, mode).load().unwrap_err();
        assert!(
            matches!(error, SealingError::File { problem: FileProblem::Exposed(_), .. }),
            "{mode:o}: {error}"
        );
    }
    for mode in [0o600, 0o400, 0o700] {
        Bench::configured(HEX, mode).load().unwrap();
    }
}

#[test]
fn a_mounted_file_may_be_read_by_our_own_group() {
    for (mode, passes) in [(0o440, true), (0o640, true), (0o660, false), (0o444, false)] {
        let mut bench = Bench::configured(HEX, mode);
        bench.sources.readers = Readers::OwnGroups;
        assert_eq!(bench.load().is_ok(), passes, "{mode:o}");
    }
}

#[test]
fn a_mounted_file_may_be_reached_through_a_link() {
    let mut bench = Bench::configured(HEX, 0o600);
    let link = bench.folder.path().join("link");
    symlink("key", &link).unwrap();
    bench.sources.configured = Some(link);
    bench.load().unwrap();
}

#[test]
fn only_a_regular_file_is_read() {
    let mut bench = Bench::new();
    let pipe = bench.folder.path().join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for path in [pipe, bench.sources.state_dir.with_file_name("missing"), bench.folder.path().to_owned()] {
        bench.sources.configured = Some(path);
        let error = bench.load().unwrap_err();
        assert!(matches!(error, SealingError::File { .. }), "{error}");
    }
}

#[test]
fn a_key_inside_the_state_folder_is_refused() {
    let mut bench = Bench::new();
    let inside = bench.sources.state_dir.join("key");
    write(&inside, HEX, 0o600);
    let link = bench.folder.path().join("link");
    symlink(&inside, &link).unwrap();
    for path in [inside, link, bench.folder.path().join("state/../state/key")] {
        bench.sources.configured = Some(path);
        let error = bench.load().unwrap_err();
        assert!(matches!(error, SealingError::InsideState { .. }), "{error}");
    }
}

#[test]
fn a_credential_is_taken_before_a_key_is_made() {
    let mut bench = Bench::new();
    let credentials = bench.folder.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    bench.sources.credentials_dir = Some(credentials.clone());
    let credential = credentials.join(CREDENTIAL_NAME);
    write(&credential, HEX, 0o400);
    let loaded = bench.load().unwrap();
    assert_eq!(loaded.origin, SealingOrigin::Credential(credential.clone()));
    assert_eq!(bench.entries(), ["credentials", "state"]);
    write(&credential, "not a key", 0o400);
    bench.load().unwrap_err();
    fs::remove_file(&credential).unwrap();
    assert!(matches!(bench.load().unwrap().origin, SealingOrigin::AutoMade { made_now: true, .. }));
}

#[test]
fn a_key_is_made_once_beside_the_state_folder_and_warned_of() {
    let bench = Bench::new();
    let first = bench.load().unwrap();
    let path = bench.folder.path().canonicalize().unwrap().join(".state.sealing-key");
    assert_eq!(first.origin, SealingOrigin::AutoMade { path: path.clone(), made_now: true });
    assert!(first.origin.warning().unwrap().contains("sealing_key"));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(bench.entries(), [".state.sealing-key", "state"], "nothing else is left behind");
    let second = bench.load().unwrap();
    assert_eq!(second.origin, SealingOrigin::AutoMade { path: path.clone(), made_now: false });
    assert_eq!(first.key.0, second.key.0);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    bench.load().unwrap_err();
}

#[test]
fn whoever_loses_the_race_to_make_a_key_takes_the_winners() {
    let bench = Bench::new();
    let path = bench.folder.path().join(".state.sealing-key");
    assert!(create(&path).unwrap());
    let winner = fs::read(&path).unwrap();
    assert!(!create(&path).unwrap());
    assert_eq!(fs::read(&path).unwrap(), winner);
    assert_eq!(bench.entries(), [".state.sealing-key", "state"]);
}

#[test]
fn a_state_folder_that_is_not_there_yet_has_a_place_beside_it() {
    let mut bench = Bench::new();
    bench.sources.state_dir = bench.folder.path().join("later");
    bench.load().unwrap();
    assert_eq!(bench.entries(), [".later.sealing-key", "state"]);
    bench.sources.state_dir = "/".into();
    assert!(matches!(bench.load().unwrap_err(), SealingError::NoPlace { .. }));
}

#[test]
fn a_sealing_key_seals_and_shows_nothing() {
    let key = SealingKey::from_bytes(hex::decode(HEX).unwrap().try_into().unwrap()).unwrap();
    let sealed = key.seal("here", b"value").unwrap();
    assert_eq!(key.open("here", &sealed).unwrap().as_slice(), b"value");
    key.open("there", &sealed).unwrap_err();
    let loaded = LoadedSealingKey { key, origin: SealingOrigin::Configured("x".into()) };
    assert_eq!(
        format!("{loaded:?}"),
        "LoadedSealingKey { key: SealingKey([redacted]), origin: Configured(\"x\") }"
    );
}
