use std::os::unix::fs::PermissionsExt;
use std::str::FromStr;

use caracal_policies::Digest;

use super::*;

fn digest(letter: char) -> Digest {
    Digest::from_str(&format!("sha256:{}", letter.to_string().repeat(64))).unwrap()
}

fn read(text: &str) -> Read {
    let file = |path: &str, text: &str| SourceFile { path: path.to_owned(), text: text.to_owned() };
    let files = vec![file("zone.toml", text), file("policies/deep/grants.toml", "b")];
    candidate::of("z", BundleSource { root: "bundles/z".to_owned(), files })
}

fn activate(versions: &Versions, read: &Read, letter: char, at: i64) {
    let digest = digest(letter);
    versions.activate(read, Entry { digest: &digest, at, by: By::Files, signed: None }, 3).unwrap();
}

fn folders(state: &Path) -> usize {
    fs::read_dir(state.join("activated/z")).unwrap().flatten().filter(|one| one.path().is_dir()).count()
}

#[test]
fn what_was_in_force_is_listed_newest_first_and_read_back_as_it_was() {
    let state = tempfile::tempdir().unwrap();
    let versions = Versions::of(state.path(), "z");
    assert_eq!(versions.journal().unwrap(), Journal::default());
    for (at, (text, letter)) in [("1", 'a'), ("2", 'b'), ("1", 'a')].into_iter().enumerate() {
        activate(&versions, &read(text), letter, i64::try_from(at).unwrap());
    }
    // The same again, as a restart finds it, is no new activation.
    activate(&versions, &read("1"), 'a', 9);
    let journal = versions.journal().unwrap();
    let told: Vec<_> =
        journal.newest_first().into_iter().map(|one| (one.number, one.at, &*one.digest)).collect();
    assert_eq!(told, [(3, 2, &*digest('a').to_string()), (2, 1, &*digest('b').to_string())]);
    assert_eq!(journal.in_force(), Some(name_of(&read("1").digest).as_str()));
    let back = versions.load(&name_of(&read("2").digest)).unwrap();
    assert_eq!((back.source.root.as_str(), back.source.files.len()), ("bundles/z", 2));
    assert_eq!(back.digest, read("2").digest);
}

#[test]
fn only_so_many_versions_are_kept_and_only_for_us() {
    let state = tempfile::tempdir().unwrap();
    let versions = Versions::of(state.path(), "z");
    for text in ["1", "2", "3", "4", "5"] {
        activate(&versions, &read(text), 'a', 0);
    }
    assert_eq!((folders(state.path()), versions.journal().unwrap().newest_first().len()), (3, 3));
    assert!(versions.load(&name_of(&read("2").digest)).is_none());
    let kept = state.path().join("activated/z");
    let version = kept.join(name_of(&read("5").digest));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for (path, expected) in [
        (kept.clone(), 0o700),
        (kept.join(JOURNAL), 0o600),
        (version.join("policies/deep"), 0o700),
        (version.join("policies/deep/grants.toml"), 0o600),
    ] {
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
}

#[test]
fn a_version_that_is_half_there_or_was_changed_is_not_read_and_is_written_again() {
    let state = tempfile::tempdir().unwrap();
    let versions = Versions::of(state.path(), "z");
    activate(&versions, &read("1"), 'a', 0);
    let name = name_of(&read("1").digest);
    let grants = state.path().join("activated/z").join(&name).join("policies/deep/grants.toml");
    for text in [Some("more"), None] {
        match text {
            Some(text) => fs::write(&grants, text).unwrap(),
            None => fs::remove_file(&grants).unwrap(),
        }
        assert!(versions.load(&name).is_none());
        activate(&versions, &read("1"), 'a', 1);
        assert!(versions.load(&name).is_some());
    }
    for odd in ["..", "", "../../../etc", &"A".repeat(64), &"/".repeat(64)] {
        assert!(versions.load(odd).is_none(), "{odd}");
    }
}

#[test]
fn a_journal_that_cannot_be_read_says_so_and_begins_anew() {
    let state = tempfile::tempdir().unwrap();
    let versions = Versions::of(state.path(), "z");
    activate(&versions, &read("1"), 'a', 0);
    let journal = state.path().join("activated/z").join(JOURNAL);
    for text in ["", "{\"schema\":1,\"activations\":[", "{\"schema\":2,\"activations\":[]}"] {
        fs::write(&journal, text).unwrap();
        versions.journal().unwrap_err();
    }
    activate(&versions, &read("2"), 'b', 0);
    assert_eq!(versions.journal().unwrap().newest_first().len(), 1);
}

#[test]
fn a_version_is_named_by_the_beginning_of_its_digest() {
    let state = tempfile::tempdir().unwrap();
    let versions = Versions::of(state.path(), "z");
    // Two spellings of one zone, and another zone.
    activate(&versions, &read("1"), 'a', 0);
    activate(&versions, &read("1 # told"), 'a', 1);
    activate(&versions, &read("2"), 'b', 2);
    let journal = versions.journal().unwrap();
    let found = |word: &str| journal.find(word).map(|one| one.number);
    assert_eq!(found("aaaa"), Ok(2), "the newest of those that say the same");
    assert_eq!(found(&digest('b').to_string()), Ok(3));
    assert_eq!(found("BBBBBB"), Ok(3));
    let version = name_of(&read("1").digest);
    assert_eq!(found(&version), Ok(1), "the files have a name of their own");
    assert_eq!(found("cccc"), Err(Unfound::Unknown));
    for odd in ["aaa", "", "latest", "sha256:", "../aa"] {
        assert_eq!(found(odd), Err(Unfound::NoDigest), "{odd}");
    }
}
