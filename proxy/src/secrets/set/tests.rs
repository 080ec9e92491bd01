use std::fs;
use std::os::unix::fs::symlink;

use secrecy::SecretString;

use super::*;
use crate::config::SecretsKey;

const OLD: &str =
    "# ours\nschema = 1\n[secrets.s]\nzones = [\"z\"]\nhosts = [\"h.example\"]\nk = \"old\" # live\n";
const VALUE: &str = "sk-canary-set";

struct Site {
    dir: tempfile::TempDir,
    config: SecretsConfig,
}

impl Site {
    fn new(text: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = SecretsConfig { file: dir.path().join("secrets.toml"), ..SecretsConfig::default() };
        let site = Self { dir, config };
        site.put("secrets.toml", text, 0o600);
        site
    }

    /// A file sealed for these, and opened with the identity of the first.
    fn sealed(others: &[&str]) -> (Self, String) {
        let (identity, recipient) = envelope::new_identity();
        let all: Vec<Recipient> =
            others.iter().copied().chain([&*recipient]).map(|one| one.parse().unwrap()).collect();
        let mut site = Self::new(&envelope::seal_for(OLD.as_bytes(), &all).unwrap());
        site.put("identity", identity.as_bytes(), 0o600);
        site.config.key = Some(SecretsKey::Identity(site.dir.path().join("identity")));
        (site, recipient)
    }

    fn put(&self, name: &str, bytes: &[u8], mode: u32) {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.config.file).unwrap()
    }

    fn set(&self, value: &str, recipients: &[Recipient]) -> Result<Set, NotSet> {
        let setting =
            Setting { name: "s", key: "k", value, zones: &[], hosts: &[], recipients, folder: None };
        set(&self.config, &setting, &FingerprintKey::unkept(), &[])
    }

    /// What is said when nothing is set; nothing has changed then, and nothing is left behind.
    fn refused(&self, value: &str, recipients: &[Recipient]) -> String {
        let before = (self.bytes(), fs::read_dir(&self.dir).unwrap().count());
        let said = match self.set(value, recipients) {
            Ok(_) => panic!("set"),
            Err(why) => format!("{why:?}"),
        };
        assert_eq!((self.bytes(), fs::read_dir(&self.dir).unwrap().count()), before, "{said}");
        assert!(!said.contains("canary"), "a value is shown: {said}");
        said
    }

    fn opened(&self) -> String {
        super::super::unseal(&self.config).unwrap().to_string()
    }
}

fn recipients(set: &Set) -> Vec<String> {
    match set.sealed.as_ref().unwrap() {
        Sealing::Recipients(all) => all.clone(),
        Sealing::Passphrase => panic!("a passphrase"),
    }
}

#[test]
fn the_file_behind_a_link_is_replaced_and_keeps_owner_and_mode() {
    let mut site = Site::new(OLD.as_bytes());
    fs::set_permissions(&site.config.file, Permissions::from_mode(0o400)).unwrap();
    let real = site.config.file.clone();
    site.config.file = site.dir.path().join("link");
    symlink("secrets.toml", &site.config.file).unwrap();
    let done = site.set(VALUE, &[]).unwrap();
    assert!(!done.added && done.sealed.is_none());
    assert_ne!(done.fingerprints.0.as_ref(), Some(&done.fingerprints.1));
    assert!(fs::symlink_metadata(&site.config.file).unwrap().is_symlink());
    assert_eq!(fs::metadata(&real).unwrap().mode() & 0o7777, 0o400);
    assert_eq!(fs::read_to_string(&real).unwrap(), OLD.replace("old", VALUE));
    assert_eq!(fs::read_dir(&site.dir).unwrap().count(), 2, "no draft is left");
}

#[test]
fn what_would_not_load_is_not_written() {
    let site = Site::new(OLD.as_bytes());
    assert!(site.refused("canary\u{7}", &[]).contains("secret_unprintable"));
    assert!(site.refused("", &[]).contains("secret_empty"));
    site.put("secrets.toml", OLD.replace("[\"z\"]", "[]").as_bytes(), 0o600);
    assert!(site.refused(VALUE, &[]).contains("secret_destination"));
    site.put("secrets.toml", OLD.as_bytes(), 0o644);
    assert!(site.refused(VALUE, &[]).contains("secrets_mode"));
    let dotted = "schema = 1\nsecrets.s.zones = [\"z\"]\nsecrets.s.hosts = [\"h\"]\n";
    site.put("secrets.toml", dotted.as_bytes(), 0o600);
    let said = site.refused(VALUE, &[]);
    assert!(said.contains("unknown_key") || said.contains("only a hand"), "{said}");
}

#[test]
fn a_file_that_somebody_else_changed_stays_as_it_is_now() {
    let site = Site::new(OLD.as_bytes());
    let error = replace(&site.config.file, false, b"what it was", VALUE.as_bytes()).unwrap_err();
    assert!(format!("{error:?}").contains("changed in between"), "{error:?}");
    assert_eq!(site.bytes(), OLD.as_bytes());
    let alone = alone_in(site.dir.path()).unwrap();
    assert!(site.refused(VALUE, &[]).contains("another `caracal secrets set`"));
    drop(alone);
    site.set(VALUE, &[]).unwrap();
}

#[test]
fn until_the_last_step_the_file_is_what_it_was() {
    let site = Site::new(OLD.as_bytes());
    // As far as a process gets that is killed before the last step.
    let draft = site.dir.path().join(".draft");
    written(&draft, &site.config.file, VALUE.as_bytes()).unwrap();
    assert_eq!(site.bytes(), OLD.as_bytes());
    assert_eq!(fs::metadata(&draft).unwrap().mode() & 0o7777, 0o600);
    SecretsTable::load(&site.config, &FingerprintKey::unkept()).unwrap();
    site.set(VALUE, &[]).unwrap();

    // A target that cannot be replaced.
    let folder = site.dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    assert!(replace(&folder, false, b"", b"new").is_err());
    assert!(folder.is_dir() && fs::read_dir(&site.dir).unwrap().count() == 3);
}

#[test]
fn a_sealed_file_is_sealed_again_for_who_opens_it() {
    let (site, ours) = Site::sealed(&[]);
    assert_eq!(recipients(&site.set(VALUE, &[]).unwrap()), [&*ours]);
    assert!(envelope::is_sealed(&site.bytes()));
    assert_eq!(site.opened(), OLD.replace("old", VALUE));
    let other = envelope::new_identity().1;
    let more = [other.parse().unwrap(), ours.parse().unwrap()];
    assert_eq!(recipients(&site.set(VALUE, &more).unwrap()), [&*ours, &other]);
    assert_eq!(envelope::recipients(&site.bytes()), 2);

    // Two can open it now, and we know of one.
    let said = site.refused(VALUE, &[]);
    assert!(said.contains("sealed for 2") && said.contains("--recipient"), "{said}");
    site.set(VALUE, &more[..1]).unwrap();
    site.put("identity", envelope::new_identity().0.as_bytes(), 0o600);
    assert!(site.refused(VALUE, &[]).contains("secrets_key_wrong"));
}

#[test]
fn whom_to_seal_for_is_asked_only_where_somebody_is_sealed_for() {
    let other: Recipient = envelope::new_identity().1.parse().unwrap();
    let mut site = Site::new(OLD.as_bytes());
    assert!(site.refused(VALUE, std::slice::from_ref(&other)).contains("not sealed"));
    let sealed = envelope::seal_with(OLD.as_bytes(), &SecretString::from("four words"), 4).unwrap();
    site.put("secrets.toml", &sealed, 0o600);
    site.put("words", b"four words\n", 0o600);
    site.config.key = Some(SecretsKey::Passphrase(site.dir.path().join("words")));
    assert!(site.refused(VALUE, &[other]).contains("with a passphrase"));
}
