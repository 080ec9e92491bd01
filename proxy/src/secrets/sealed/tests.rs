use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use secrecy::SecretString;

use super::super::{SecretsTable, envelope};
use super::*;

const PLAIN: &str =
    "schema = 1\n[secrets.s]\nzones = [\"z\"]\nhosts = [\"h.example\"]\nk = \"sk-canary-sealed\"\n";
const WORDS: &str = "four words canary";

/// A folder with a sealed secrets file and both kinds of keys.
struct Site {
    dir: tempfile::TempDir,
    recipient: String,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (identity, recipient) = envelope::new_identity();
        let site = Self { dir, recipient };
        site.put("identity", identity.as_bytes(), 0o600);
        site.put("words", WORDS.as_bytes(), 0o600);
        site.seal(PLAIN);
        site
    }

    fn put(&self, name: &str, bytes: &[u8], mode: u32) {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn seal(&self, plain: &str) {
        let sealed = envelope::seal_for(plain.as_bytes(), &[self.recipient.parse().unwrap()]).unwrap();
        self.put("secrets.toml.age", &sealed, 0o600);
    }

    fn seal_with_words(&self) {
        let sealed = envelope::seal_with(PLAIN.as_bytes(), &SecretString::from(WORDS), 4).unwrap();
        self.put("secrets.toml.age", &sealed, 0o600);
    }

    fn config(&self, key: Option<SecretsKey>) -> SecretsConfig {
        SecretsConfig { file: self.dir.path().join("secrets.toml.age"), key, ..SecretsConfig::default() }
    }

    fn identity(&self) -> Option<SecretsKey> {
        Some(SecretsKey::Identity(self.dir.path().join("identity")))
    }

    fn words(&self) -> Option<SecretsKey> {
        Some(SecretsKey::Passphrase(self.dir.path().join("words")))
    }

    /// The code with which the file is refused, or `ok`.
    fn code(&self, key: Option<SecretsKey>, credentials: Option<&Path>) -> &'static str {
        let read = SecretsTable::read(&self.config(key), credentials, &FingerprintKey::unkept(), None);
        match read {
            Ok(table) => {
                assert_eq!(table.listed().count(), 1);
                assert!(!format!("{table:?}").contains("canary"));
                "ok"
            }
            Err(report) => {
                let shown = format!("{report:?} {report}");
                // The form of an identity may be told, its letters may not.
                let mut after = shown.split("AGE-SECRET-KEY-1").skip(1);
                let leaks =
                    shown.contains("canary") || after.any(|rest| rest.starts_with(char::is_alphanumeric));
                assert!(!leaks, "a report shows a secret: {shown}");
                assert!(report.problems.iter().all(|problem| !problem.hint.is_empty()), "{shown}");
                report.problems[0].code
            }
        }
    }
}

#[test]
fn a_sealed_file_opens_with_its_key_and_says_why_it_does_not_with_another() {
    let site = Site::new();
    assert_eq!(site.code(site.identity(), None), "ok");
    assert_eq!(site.code(None, None), "secrets_sealed");
    assert_eq!(site.code(site.words(), None), "secrets_key_wrong");
    site.put("identity", envelope::new_identity().0.as_bytes(), 0o600);
    assert_eq!(site.code(site.identity(), None), "secrets_key_wrong");
    site.seal_with_words();
    assert_eq!(site.code(site.words(), None), "ok");
    assert_eq!(site.code(site.identity(), None), "secrets_key_wrong");
    site.put("words", b"other words", 0o600);
    assert_eq!(site.code(site.words(), None), "secrets_key_wrong");
}

#[test]
fn a_key_file_is_as_private_as_the_secrets_file() {
    let site = Site::new();
    let identity = fs::read(site.dir.path().join("identity")).unwrap();
    for mode in [0o644, 0o640, 0o660, 0o601] {
        site.put("identity", &identity, mode);
        assert_eq!(site.code(site.identity(), None), "secrets_key_file", "{mode:o}");
    }
    site.put("identity", &[b'#'; 20_000], 0o600);
    assert_eq!(site.code(site.identity(), None), "secrets_key_file");
    site.put("identity", b"# no key\n", 0o600);
    assert_eq!(site.code(site.identity(), None), "secrets_key");
    fs::remove_file(site.dir.path().join("identity")).unwrap();
    assert_eq!(site.code(site.identity(), None), "secrets_key_file");
    site.put("words", b"", 0o600);
    assert_eq!(site.code(site.words(), None), "secrets_key");
}

#[test]
fn a_plain_or_broken_file_is_refused_where_a_sealed_one_is_expected() {
    let site = Site::new();
    let sealed = fs::read(site.dir.path().join("secrets.toml.age")).unwrap();
    site.put("secrets.toml.age", &sealed[..sealed.len() - 60], 0o600);
    assert_eq!(site.code(site.identity(), None), "secrets_broken");
    site.put("secrets.toml.age", &sealed, 0o644);
    assert_eq!(site.code(site.identity(), None), "secrets_mode");
    site.put("secrets.toml.age", PLAIN.as_bytes(), 0o600);
    assert_eq!(site.code(site.identity(), None), "secrets_not_sealed");
    assert_eq!(site.code(None, None), "ok");
    site.seal("schema = 1\n[secrets.s]\nk = 1\n");
    assert_ne!(site.code(site.identity(), None), "ok");
}

#[test]
fn a_systemd_credential_opens_it_where_no_key_is_configured() {
    let site = Site::new();
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(site.code(None, Some(folder.path())), "secrets_sealed");
    let credential = |from: &str, name: &str| {
        fs::copy(site.dir.path().join(from), folder.path().join(name)).unwrap();
    };
    credential("words", PASSPHRASE_CREDENTIAL);
    assert_eq!(site.code(None, Some(folder.path())), "secrets_key_wrong");
    credential("identity", IDENTITY_CREDENTIAL);
    assert_eq!(site.code(None, Some(folder.path())), "ok");
    site.put("words", b"unused", 0o600);
    assert_eq!(
        site.code(site.words(), Some(folder.path())),
        "secrets_key_wrong",
        "what is configured counts"
    );
}

#[test]
fn what_was_opened_is_opened_again_only_when_file_or_key_changed() {
    let site = Site::new();
    let config = site.config(site.identity());
    let first = SecretsTable::load(&config, &FingerprintKey::unkept()).unwrap();
    let same = |table: &SecretsTable| {
        let [before, now] = [&first, table].map(|table| Arc::clone(&table.opened.as_ref().unwrap().text));
        Arc::ptr_eq(&before, &now)
    };
    let again = first.load_again(&config).unwrap();
    assert!(same(&again) && again.same_text(&first));

    // Sealed again, with the same text in it.
    site.seal(PLAIN);
    let sealed = first.load_again(&config).unwrap();
    assert!(!same(&sealed) && sealed.same_text(&first));

    // A key that does not open it any more must not be passed over.
    site.put("identity", envelope::new_identity().0.as_bytes(), 0o600);
    assert_eq!(first.load_again(&config).unwrap_err().problems[0].code, "secrets_key_wrong");
}
