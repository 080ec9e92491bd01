//! Bundles that have to be signed.

use std::fs;

use super::super::versions::Versions;
use super::super::*;
use super::fixture::{Site, code};
use crate::bundles;
use crate::bundles::signing::SigningKey;

pub(super) struct Signing {
    pub(super) site: Site,
    pub(super) key: SigningKey,
}

impl Signing {
    /// A site that requires signatures, with a bundle that is signed as revision 1.
    pub(super) fn start() -> (Self, Reloader) {
        let signing = Self::of(Site::of(&["a"]));
        signing.sign(1);
        let reloader = signing.site.start().unwrap();
        (signing, reloader)
    }

    fn of(mut site: Site) -> Self {
        let key = SigningKey::create(&site.dir.path().join("bundles.key")).unwrap();
        let mut config = Config::clone(&site.config);
        config.bundles.trusted_keys = vec![key.public()];
        config.bundles.require_signature = true;
        site.config = Arc::new(config);
        Self { site, key }
    }

    pub(super) fn sign(&self, revision: u64) {
        let source = bundles::read(&self.site.bundles(), self.site.dir.path(), "a").unwrap();
        self.site.put("a/bundle.sig", &self.key.sign(&source, "a", revision));
    }

    fn signature(&self) -> std::path::PathBuf {
        self.site.bundles().join("a/bundle.sig")
    }

    /// Changes the policy and signs it.
    pub(super) fn release(&self, scope: &str, revision: u64) {
        self.site.grant("a", scope);
        self.sign(revision);
    }
}

fn revision(reloader: &Reloader) -> Option<u64> {
    reloader.snapshot().load().zones["a"].signed.as_ref().map(|signed| signed.revision)
}

fn refusal(site: &Site) -> &'static str {
    match site.start() {
        Err(StartError::Refused(report)) => report.problems[0].code,
        other => panic!("the start is not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_bundle_without_a_good_signature_leaves_in_force_what_was() {
    let (signing, reloader) = Signing::start();
    let before = reloader.snapshot().load();
    let whole = fs::read_to_string(signing.signature()).unwrap();
    signing.site.grant("a", "echo:write");
    assert_eq!(code(&reloader.reload().await, "a"), "bundle_signature_wrong");
    let other = SigningKey::create(&signing.site.dir.path().join("other.key")).unwrap();
    let source = bundles::read(&signing.site.bundles(), signing.site.dir.path(), "a").unwrap();
    signing.site.put("a/bundle.sig", &other.sign(&source, "a", 2));
    assert_eq!(code(&reloader.reload().await, "a"), "bundle_key_unknown");
    signing.site.put("a/bundle.sig", whole.get(..whole.len() / 2).unwrap());
    assert_eq!(code(&reloader.reload().await, "a"), "bundle_signature_malformed");
    fs::remove_file(signing.signature()).unwrap();
    assert_eq!(code(&reloader.reload().await, "a"), "bundle_unsigned");
    assert!(Arc::ptr_eq(&before, &reloader.snapshot().load()));
    assert_eq!(reloader.standing().bundles_rejected, ["a"]);
    signing.sign(2);
    reloader.reload().await;
    assert_eq!((revision(&reloader), reloader.standing()), (Some(2), Standing::default()));
    let report = {
        fs::remove_file(signing.signature()).unwrap();
        check(&signing.site.config, &Registry::stock()).unwrap_err()
    };
    assert_eq!(report.problems[0].code, "bundle_unsigned", "a check says it too");
}

#[tokio::test]
async fn files_never_go_back_to_an_earlier_revision_and_operators_may() {
    let (signing, reloader) = Signing::start();
    let first = fs::read_to_string(signing.signature()).unwrap();
    signing.release("echo:write", 5);
    reloader.reload().await;
    assert_eq!(revision(&reloader), Some(5));
    let replay = || {
        signing.site.grant("a", "echo:read");
        signing.site.put("a/bundle.sig", &first);
    };
    replay();
    assert_eq!(code(&reloader.reload().await, "a"), "bundle_revision_old");
    signing.release("echo:read", 5);
    assert_eq!(code(&reloader.reload().await, "a"), "bundle_revision_old", "5 was something else");
    assert_eq!(revision(&reloader), Some(5));

    let done = reloader.activate("a".to_owned(), Wanted::Earlier, 0).await.unwrap();
    assert_eq!((done.pinned, revision(&reloader)), (true, Some(1)));
    replay();
    assert_eq!(code(&reloader.reload().await, "a"), "bundle_revision_old", "a rollback lowers nothing");
    drop(reloader);

    // After a restart the floor is as it was, and the pin stands.
    let reloader = signing.site.start().unwrap();
    assert_eq!((revision(&reloader), reloader.standing().bundles_rejected), (Some(1), vec!["a".to_owned()]));
    signing.release("echo:read", 6);
    reloader.reload().await;
    assert_eq!((revision(&reloader), reloader.snapshot().load().zones["a"].pinned), (Some(6), false));
    let journal = Versions::of(&signing.site.config.state_dir, "a").journal().unwrap();
    let told: Vec<_> = journal.newest_first().iter().map(|one| one.revision).collect();
    assert_eq!((told, journal.floor().unwrap().revision), (vec![Some(6), Some(1), Some(5)], 6));
    drop(reloader);
    signing.sign(6);
    assert_eq!(revision(&signing.site.start().unwrap()), Some(6), "the same again is no step back");
}

#[tokio::test]
async fn what_was_kept_before_signatures_were_required_cannot_stand_in_nor_come_back() {
    let site = Site::of(&["a"]);
    drop(site.start().unwrap());
    let signing = Signing::of(site);
    assert_eq!(refusal(&signing.site), "bundle_unsigned");
    signing.release("echo:write", 1);
    let reloader = signing.site.start().unwrap();
    let refused = reloader.activate("a".to_owned(), Wanted::Earlier, 0).await.unwrap_err();
    assert_eq!(refused.code(), "version_refused");
    assert!(refused.to_string().contains("bundle_unsigned"), "{refused}");
    assert_eq!(revision(&reloader), Some(1));
    drop(reloader);
    // A signed one can: its signature is kept with it.
    fs::remove_file(signing.signature()).unwrap();
    let reloader = signing.site.start().unwrap();
    assert_eq!((revision(&reloader), reloader.standing().bundles_rejected), (Some(1), vec!["a".to_owned()]));
}
