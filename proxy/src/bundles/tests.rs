use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn root() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let bundles = folder.path().join("bundles");
    fs::create_dir(&bundles).unwrap();
    (folder, bundles)
}

fn put(bundles: &Path, name: &str, text: &str) {
    let path = bundles.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn codes(bundles: &Path, zone: &str) -> Vec<(&'static str, String)> {
    let report = read(bundles, bundles.parent().unwrap(), zone).unwrap_err();
    report.problems.iter().map(|p| (p.code, p.place.file.to_string())).collect()
}

#[test]
fn a_folder_is_its_documents_and_nothing_else() {
    let (folder, bundles) = root();
    put(&bundles, "a/zone.toml", "z");
    put(&bundles, "a/policies/grants.rego", "g");
    put(&bundles, "a/README.md", "r");
    put(&bundles, "a/.hidden.toml", "h");
    put(&bundles, "a/.git/config.toml", "h");
    put(&bundles, "a/zone.toml~", "h");
    let source = read(&bundles, folder.path(), "a").unwrap();
    assert_eq!(source.root, "bundles/a");
    let names: Vec<(&str, &str)> = source.files.iter().map(|f| (f.path.as_str(), f.text.as_str())).collect();
    assert_eq!(names, [("policies/grants.rego", "g"), ("zone.toml", "z")]);
}

#[test]
fn one_file_is_a_bundle_too_but_not_beside_a_folder() {
    let (folder, bundles) = root();
    put(&bundles, "a.toml", "z");
    let source = read(&bundles, folder.path(), "a").unwrap();
    assert_eq!((source.root.as_str(), source.files[0].path.as_str()), ("bundles/a.toml", "a.toml"));
    put(&bundles, "a/zone.toml", "z");
    assert_eq!(codes(&bundles, "a"), [("bundle_ambiguous", "bundles/a.toml".to_owned())]);
}

#[test]
fn a_bundle_that_is_not_there_is_an_error() {
    let (_folder, bundles) = root();
    assert_eq!(codes(&bundles, "a"), [("bundle_missing", "bundles/a".to_owned())]);
    assert_eq!(codes(&bundles.join("none"), "a")[0].0, "bundle_missing");
}

#[test]
fn no_link_leads_out_of_the_bundle() {
    let (folder, bundles) = root();
    put(&bundles, "a/zone.toml", "z");
    put(&bundles, "b/zone.toml", "z");
    fs::write(folder.path().join("secret.toml"), "s").unwrap();
    symlink(folder.path().join("secret.toml"), bundles.join("a/x.toml")).unwrap();
    symlink("../b", bundles.join("a/other")).unwrap();
    symlink("none.toml", bundles.join("a/dangling.toml")).unwrap();
    let mut found = codes(&bundles, "a");
    found.sort();
    assert_eq!(
        found,
        [
            ("bundle_link_outside", "bundles/a/other".to_owned()),
            ("bundle_link_outside", "bundles/a/x.toml".to_owned()),
            ("bundle_unreadable", "bundles/a/dangling.toml".to_owned()),
        ]
    );
    fs::create_dir(folder.path().join("outside")).unwrap();
    symlink(folder.path().join("outside"), bundles.join("c")).unwrap();
    assert_eq!(codes(&bundles, "c"), [("bundle_link_outside", "bundles/c".to_owned())]);
    symlink("b", bundles.join("d")).unwrap();
    assert!(read(&bundles, folder.path(), "d").is_ok(), "a link beside the bundles is an operator's choice");
    symlink(folder.path().join("secret.toml"), bundles.join("e.toml")).unwrap();
    assert_eq!(codes(&bundles, "e"), [("bundle_link_outside", "bundles/e.toml".to_owned())]);
}

#[test]
fn files_that_are_no_text_are_refused_together() {
    let (_folder, bundles) = root();
    put(&bundles, "a/zone.toml", "z");
    fs::write(bundles.join("a/bad.toml"), b"\xff").unwrap();
    let huge = fs::File::create(bundles.join("a/huge.toml")).unwrap();
    huge.set_len(17 * 1_048_576).unwrap();
    assert_eq!(
        codes(&bundles, "a"),
        [
            ("bundle_encoding", "bundles/a/bad.toml".to_owned()),
            ("bundle_size", "bundles/a/huge.toml".to_owned())
        ]
    );
    fs::create_dir_all(bundles.join("b/x.toml")).unwrap();
    put(&bundles, "b/x.toml/y.toml", "y");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        bundles.join("b/pipe.toml"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    assert_eq!(codes(&bundles, "b"), [("bundle_kind", "bundles/b/pipe.toml".to_owned())]);
    put(&bundles, "c/1/2/3/4/5/6/7/8/9/x.toml", "x");
    assert_eq!(codes(&bundles, "c")[0].0, "bundle_depth");
    for number in 0..1_025 {
        put(&bundles, &format!("d/{number}.toml"), "");
    }
    assert_eq!(codes(&bundles, "d"), [("bundle_files", "bundles/d".to_owned())]);
}

#[test]
fn a_digest_covers_names_and_contents() {
    let source = |files: &[(&str, &str)]| BundleSource {
        root: "x".to_owned(),
        files: files
            .iter()
            .map(|(path, text)| SourceFile { path: (*path).to_owned(), text: (*text).to_owned() })
            .collect(),
    };
    let base = digest(&source(&[("a", "1"), ("b", "2")]));
    assert_eq!(base, digest(&source(&[("b", "2"), ("a", "1")])), "order does not count");
    for other in [
        source(&[("a", "1"), ("b", "3")]),
        source(&[("a", "1"), ("c", "2")]),
        source(&[("a", "1")]),
        source(&[("a", "1b"), ("", "2")]),
        source(&[("a1", ""), ("b", "2")]),
    ] {
        assert_ne!(base, digest(&other), "{other:?}");
    }
}

#[test]
fn a_folder_that_is_swapped_while_it_is_read_is_never_mixed() {
    let (folder, bundles) = root();
    let mount = bundles.join("a");
    let names: Vec<String> = (10..40).map(|number| format!("{number}.toml")).collect();
    let swap = |version: u32| {
        for name in &names {
            put(&mount, &format!("..{version}/{name}"), &version.to_string());
        }
        symlink(format!("..{version}"), mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    };
    swap(0);
    for name in &names {
        symlink(format!("..data/{name}"), mount.join(name)).unwrap();
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for version in 1..2_000 {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                swap(version);
                // The versions just before are left readable: only so can a careless reader mix them.
                if let Some(old) = version.checked_sub(5) {
                    fs::remove_dir_all(mount.join(format!("..{old}"))).unwrap();
                }
            }
        });
        for _ in 0..300 {
            match read(&bundles, folder.path(), "a") {
                Ok(source) => {
                    assert_eq!(source.files.len(), names.len());
                    assert!(source.files.iter().all(|file| file.text == source.files[0].text), "{source:?}");
                }
                Err(report) => {
                    let code = report.problems[0].code;
                    assert!(["bundle_changing", "bundle_unreadable"].contains(&code), "{report}");
                }
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert!(read(&bundles, folder.path(), "a").is_ok(), "it holds still now");
}

#[test]
fn a_signature_is_read_along_in_both_shapes() {
    let (folder, bundles) = root();
    put(&bundles, "a/zone.toml", "z");
    put(&bundles, "a/bundle.sig", "s");
    put(&bundles, "a/policies/bundle.sig", "no");
    put(&bundles, "b.toml", "z");
    put(&bundles, "b.sig", "s");
    put(&bundles, "c.sig", "of another zone");
    let names = |zone: &str| {
        let source = read(&bundles, folder.path(), zone).unwrap();
        source.files.into_iter().map(|file| (file.path, file.text)).collect::<Vec<_>>()
    };
    let pair = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    assert_eq!(names("a"), [pair("bundle.sig", "s"), pair("zone.toml", "z")]);
    assert_eq!(names("b"), [pair("b.toml", "z"), pair("bundle.sig", "s")]);
    let signed = digest(&read(&bundles, folder.path(), "b").unwrap());
    put(&bundles, "b.sig", "another");
    assert_ne!(digest(&read(&bundles, folder.path(), "b").unwrap()), signed, "a new signature is a change");
    symlink("/etc/hostname", bundles.join("d.sig")).unwrap();
    put(&bundles, "d.toml", "z");
    assert_eq!(codes(&bundles, "d"), [("bundle_link_outside", "bundles/d.sig".to_owned())]);
}
