//! What no lint can see: reads the tree and holds it to the rules of `ARCHITECTURE.md`.
#![expect(clippy::unwrap_used, reason = "a tree that cannot be read is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Long files hide things. Split by what a reader looks for.
const MAX_LINES: usize = 500;

/// Crates that decide and prove, and so must give the same answer for the same input.
const PURE: [&str; 3] = ["policies", "mandates", "plugins"];

/// What a pure crate may not name: I/O, other processes, the environment, and every way to read a clock.
const IMPURE: [&str; 16] = [
    "tokio",
    "pingora",
    "axum",
    "reqwest",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "ToSocketAddrs",
    "SystemTime",
    "Instant::now",
    "now_v7",
];

struct Source {
    /// Relative to the root of the repository, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// The lines before the tests begin, without comments.
    fn code(&self) -> impl Iterator<Item = &str> {
        self.text
            .lines()
            .take_while(|line| line.trim() != "#[cfg(test)]")
            .map(|line| line.split("//").next().unwrap_or(line))
    }

    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs") || self.path.contains("/benches/")
    }
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    let long: Vec<_> = rust_sources()
        .into_iter()
        .map(|source| (source.text.lines().count(), source.path))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .collect();
    assert!(long.is_empty(), "more than {MAX_LINES} lines: {long:?}");
}

#[test]
fn only_the_edge_and_the_benches_name_pingora() {
    let named: Vec<_> = rust_sources()
        .into_iter()
        .filter(|source| !source.path.starts_with("proxy/src/edge") && !source.path.starts_with("benches/"))
        .filter(|source| source.path != "proxy/tests/tidy.rs")
        .filter(|source| source.code().any(|line| line.contains("pingora::") || line.contains("use pingora")))
        .map(|source| source.path)
        .collect();
    assert!(named.is_empty(), "these name Pingora: {named:?}");
}

/// What resolves names for itself is not held to `[egress]`. The command line is told where to go by its user.
#[test]
fn names_are_resolved_in_one_place() {
    let resolving: Vec<_> = rust_sources()
        .into_iter()
        .filter(|source| source.path.starts_with("proxy/src/") && !source.path.starts_with("proxy/src/cli/"))
        .filter(|source| source.path != "proxy/src/egress.rs" && !source.is_test())
        .filter(|source| {
            source.code().any(|line| line.contains("lookup_host") || line.contains("to_socket_addrs"))
        })
        .map(|source| source.path)
        .collect();
    assert!(resolving.is_empty(), "these resolve names: {resolving:?}");
}

#[test]
fn the_pure_crates_do_no_io_and_read_no_clock() {
    let mut found = Vec::new();
    for source in rust_sources() {
        let pure = PURE.iter().any(|name| source.path.starts_with(&format!("{name}/src/")));
        if !pure || source.is_test() {
            continue;
        }
        for line in source.code() {
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                found.push(format!("{}: {word}", source.path));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    for name in PURE {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for word in ["tokio", "pingora", "axum", "sqlx", "notify", "rustix"] {
            assert!(!dependencies.contains(&format!("\n{word}")), "{name} depends on {word}");
        }
    }
}

#[test]
fn dependencies_point_one_way() {
    for (name, may_not) in [
        ("policies", &["caracal-mandates", "caracal-plugins", "caracal.workspace"][..]),
        ("mandates", &["caracal-policies", "caracal-plugins", "caracal.workspace"][..]),
        ("plugins", &["caracal-mandates", "caracal.workspace"][..]),
    ] {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        for other in may_not {
            assert!(!manifest.contains(&format!("\n{other}")), "{name} depends on {other}");
        }
    }
}

#[test]
fn modules_are_named_by_their_file() {
    let mods: Vec<_> = rust_sources()
        .into_iter()
        .map(|source| source.path)
        .filter(|path| path.ends_with("/mod.rs"))
        .collect();
    assert!(mods.is_empty(), "write `foo.rs` beside `foo/`: {mods:?}");
}

#[test]
fn every_deviation_in_the_compatibility_page_has_a_test_that_exists() {
    let page = fs::read_to_string(root().join("docs/compat.md")).unwrap();
    let mut tests: Vec<Source> = rust_sources();
    tests.extend(sources(&["interop"], "py"));
    let mut missing = Vec::new();
    // The first two rows are the heading.
    for row in page.lines().filter(|line| line.starts_with("| ")).skip(2) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        let names: Vec<_> = cells.last().unwrap().split('`').skip(1).step_by(2).collect();
        let exists = |name: &&str| {
            let (rust, python) = (format!("fn {name}("), format!("def {name}("));
            tests.iter().any(|source| source.text.contains(&rust) || source.text.contains(&python))
        };
        if names.is_empty() || !names.iter().all(exists) {
            missing.push(row.to_owned());
        }
    }
    assert!(missing.is_empty(), "no such test: {missing:#?}");
}

#[test]
fn every_make_target_is_documented() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let phony = makefile.lines().find_map(|line| line.strip_prefix(".PHONY: ")).unwrap();
    for target in phony.split_whitespace().filter(|target| *target != "setup-build") {
        let documented =
            makefile.lines().any(|line| line.starts_with(&format!("{target}:")) && line.contains(" ## "));
        assert!(documented, "`make help` does not show `{target}`");
    }
}

fn rust_sources() -> Vec<Source> {
    sources(&["policies", "mandates", "plugins", "proxy", "benches", "examples"], "rs")
}

fn sources(folders: &[&str], extension: &str) -> Vec<Source> {
    let root = root();
    let mut open: Vec<_> = folders.iter().map(|folder| root.join(folder)).collect();
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
                found.push(Source { path, text });
            }
        }
    }
    assert!(!found.is_empty(), "nothing to read below {}", root.display());
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
