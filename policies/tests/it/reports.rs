//! The exact text of reports. Each file in `tests/reports` holds a bundle and the report it must give; run with
//! `BLESS=1` to write the reports anew, and read the difference before committing it.

use std::fs;
use std::path::Path;

use caracal_policies::{BundleSource, SourceFile, compile};

use crate::bundles::assigned;

#[test]
fn reports_read_as_written_down() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reports");
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let (bundle, expected) = text.split_once("=== report\n").unwrap();
        let report = match compile(&source(bundle), "demo", &assigned()) {
            Ok(_) => panic!("{} is a good bundle", path.display()),
            Err(report) => format!("{report}\n"),
        };
        count += 1;
        if report == expected {
            continue;
        }
        if std::env::var_os("BLESS").is_some() {
            fs::write(&path, format!("{bundle}=== report\n{report}")).unwrap();
        }
        wrong.push(format!("{}:\n{report}", path.display()));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 12, "only {count} reports");
}

/// `=== <path>` starts each file. One alone is a single-file bundle unless it is `zone.toml`.
fn source(text: &str) -> BundleSource {
    let files: Vec<_> = text
        .split("=== ")
        .skip(1)
        .map(|part| {
            let (path, text) = part.split_once('\n').unwrap();
            SourceFile { path: path.into(), text: text.into() }
        })
        .collect();
    let single = matches!(files.as_slice(), [only] if only.path != "zone.toml");
    let root = if single { "bundles/demo.toml" } else { "bundles/demo" };
    BundleSource { root: root.into(), files }
}
