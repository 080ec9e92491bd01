//! From the files of a bundle to one draft: which files belong, and what each says.

use std::sync::Arc;

use foldhash::HashMap;

use crate::case::Case;
use crate::digest::Digest;
use crate::draft::{self, DOCUMENT_KEYS, Draft, Drafts};
use crate::kept::Kept;
use crate::limits;
use crate::names;
use crate::read::{Document, Placed, Section};
use crate::report::{Place, Problem, Problems, shortened};
use crate::source::{BundleSource, SourceFile};

/// The bundle's own head.
const ZONE_FILE: &str = "zone.toml";
/// The one version of the file format.
const SCHEMA: i128 = 1;
/// Keys of `[zone]`.
pub(crate) const ZONE_KEYS: [&str; 4] = ["id", "name", "documents", "tests"];

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Bundle {
    pub(crate) name: Option<String>,
    /// The head first.
    pub(crate) documents: Vec<Said>,
    /// The bundle's own tests. No part of the zone.
    pub(crate) cases: Vec<Case>,
    /// Whether every document could be read. Otherwise missing references prove nothing.
    pub(crate) complete: bool,
}

/// What a document says.
#[derive(Debug)]
pub(crate) enum Said {
    /// It was read.
    Anew { file: Arc<str>, text: Option<Digest>, draft: Box<Draft> },
    /// It says what it said in the zone before.
    AsBefore(Kept),
}

/// Reads every file of the bundle and reports everything that is wrong with one of them. What is in `kept` and still
/// has the same text is not read again: nothing was wrong with it.
pub(crate) fn read(source: &BundleSource, zone_id: &str, kept: &[Kept], problems: &Problems) -> Bundle {
    let mut bundle = Bundle { complete: true, ..Bundle::default() };
    let files: Vec<&SourceFile> = source.files.iter().filter(|file| is_document(&file.path)).collect();
    if !within_limits(source, &files, problems) {
        bundle.complete = false;
        return bundle;
    }
    let folder = files.iter().any(|file| file.path == ZONE_FILE);
    let head = match files.as_slice() {
        [single] if !is_rego(&single.path) => Some(*single),
        _ => files.iter().copied().find(|file| file.path == ZONE_FILE),
    };
    let Some(head) = head else {
        problems.push(
            Problem::new("zone_file_missing", &start(shown(source, ZONE_FILE)), "the bundle has no head")
                .found(format!("{} files", files.len()))
                .expected("a `zone.toml` that lists the documents, or one single file")
                .hint("add `zone.toml` with a `[zone]` table"),
        );
        bundle.complete = false;
        return bundle;
    };
    let kept: HashMap<&str, &Kept> = kept.iter().map(|kept| (&*kept.file, kept)).collect();
    let listed = bundle.read_head(source, head, folder, zone_id, problems);
    for name in listed.iter().filter(|name| name.usable) {
        match files.iter().find(|file| file.path == name.path) {
            Some(file) => match name.holds {
                Holds::Document => bundle.read_document(source, file, &kept, problems),
                Holds::Tests => bundle.read_tests(source, file, problems),
            },
            None => bundle.missing(name, problems),
        }
    }
    for file in files.iter().filter(|file| file.path != head.path) {
        if !listed.iter().any(|name| name.path == file.path) {
            bundle.unlisted(source, file, problems);
        }
    }
    bundle
}

impl Bundle {
    /// What each document says, whenever it was read.
    pub(crate) fn into_drafts(self) -> Drafts {
        let drafts = self.documents.into_iter().map(|said| match said {
            Said::Anew { draft, .. } => Arc::from(draft),
            Said::AsBefore(kept) => kept.draft,
        });
        Drafts(drafts.collect())
    }

    /// Reads the head; the names it lists.
    fn read_head(
        &mut self,
        source: &BundleSource,
        head: &SourceFile,
        folder: bool,
        zone_id: &str,
        problems: &Problems,
    ) -> Vec<Listed> {
        let file = shown(source, &head.path);
        let document = Document::new(Arc::clone(&file), &head.text, problems);
        let Some(table) = document.parse() else {
            self.complete = false;
            return Vec::new();
        };
        let root = document.root(&table);
        let mut keys = vec!["schema", "zone"];
        keys.extend(DOCUMENT_KEYS);
        if !folder {
            keys.push(TESTS);
        }
        root.only(&keys);
        check_schema(&root);
        let mut draft = Box::<Draft>::default();
        draft.read(&root);
        self.documents.push(Said::Anew { file, text: None, draft });
        if !folder {
            draft::read_cases(&mut self.cases, &root);
        }
        let zone = root.needed("zone").and_then(|entry| entry.section("zone", "`zone`".into()));
        let Some(zone) = zone else { return Vec::new() };
        zone.only(&ZONE_KEYS);
        if let Some(id) = zone.needed_text("id") {
            check_zone_id(&zone, &id, zone_id);
        }
        self.name = zone.text("name").map(|name| name.value.to_owned());
        if let Some(list) = LISTS.iter().find(|(list, _)| !folder && zone.has(list)).map(|(list, _)| list) {
            root.report(
                Problem::new("documents_in_single_file", zone.place(), "a single file lists no documents")
                    .found(format!("`{list}`"))
                    .expected("everything in this file")
                    .hint(format!("remove `{list}`, or make the bundle a folder with a `zone.toml`")),
            );
            return Vec::new();
        }
        read_names(&zone)
    }

    fn read_document(
        &mut self,
        source: &BundleSource,
        file: &SourceFile,
        kept: &HashMap<&str, &Kept>,
        problems: &Problems,
    ) {
        let (name, text) = (shown(source, &file.path), Digest::of_text(&file.text));
        if let Some(kept) = kept.get(&*name).filter(|kept| kept.text == Some(text)) {
            self.documents.push(Said::AsBefore(Kept::clone(kept)));
            return;
        }
        let document = Document::new(Arc::clone(&name), &file.text, problems);
        let rego = is_rego(&file.path);
        let table = if rego { document.parse_rego() } else { document.parse() };
        let Some(table) = table else {
            self.complete = false;
            return;
        };
        let root = document.root(&table);
        let mut draft = Box::<Draft>::default();
        if rego {
            draft.read_policy(&root);
        } else {
            let mut keys = vec!["schema"];
            keys.extend(DOCUMENT_KEYS);
            root.only(&keys);
            check_schema(&root);
            draft.read(&root);
        }
        self.documents.push(Said::Anew { file: name, text: Some(text), draft });
    }

    fn read_tests(&mut self, source: &BundleSource, file: &SourceFile, problems: &Problems) {
        let document = Document::new(shown(source, &file.path), &file.text, problems);
        let Some(table) = document.parse() else {
            self.complete = false;
            return;
        };
        let root = document.root(&table);
        root.only(&["schema", TESTS]);
        check_schema(&root);
        draft::read_cases(&mut self.cases, &root);
    }

    fn missing(&mut self, name: &Listed, problems: &Problems) {
        self.complete = false;
        problems.push(
            Problem::new("document_missing", &name.place, "a listed document is not there")
                .found(format!("no file `{}`", shortened(&name.path)))
                .expected("every listed document")
                .hint("add the file, or take it off the list"),
        );
    }

    fn unlisted(&mut self, source: &BundleSource, file: &SourceFile, problems: &Problems) {
        self.complete = false;
        problems.push(
            Problem::new("document_unlisted", &start(shown(source, &file.path)), "this file is not listed")
                .found(format!("`{}`", shortened(&file.path)))
                .expected("only files that `zone.toml` lists")
                .hint(format!(
                    "add `{}` to `documents` or `tests` in `zone.toml`, or remove the file",
                    file.path
                )),
        );
    }
}

fn is_document(path: &str) -> bool {
    path.ends_with(".toml") || is_rego(path)
}

/// Whether a document has the form of Rego.
pub(crate) fn is_rego(path: &str) -> bool {
    path.ends_with(".rego")
}

/// The name of a file in reports. A single file is the root itself.
fn shown(source: &BundleSource, path: &str) -> Arc<str> {
    let root = source.root.trim_end_matches('/');
    let single = root.strip_suffix(path).is_some_and(|before| before.is_empty() || before.ends_with('/'));
    if single || root.is_empty() {
        if single { root.into() } else { path.into() }
    } else {
        format!("{root}/{path}").into()
    }
}

fn start(file: Arc<str>) -> Place {
    Place { file, line: 1, column: 1 }
}

/// Sizes are checked before anything is parsed.
fn within_limits(source: &BundleSource, files: &[&SourceFile], problems: &Problems) -> bool {
    let mut good = true;
    let mut too_large = |file: Arc<str>, found: usize, most: usize, what: &str| {
        good = false;
        problems.push(
            Problem::new("too_large", &start(file), format!("{what} is too large"))
                .found(found.to_string())
                .expected(format!("at most {most}"))
                .hint("split the zone"),
        );
    };
    for file in files.iter().filter(|file| file.text.len() > limits::FILE_BYTES) {
        too_large(
            shown(source, &file.path),
            file.text.len(),
            limits::FILE_BYTES,
            "the size of the file in bytes",
        );
    }
    let bytes = files.iter().fold(0_usize, |sum, file| sum.saturating_add(file.text.len()));
    if bytes > limits::BUNDLE_BYTES {
        too_large(
            source.root.as_str().into(),
            bytes,
            limits::BUNDLE_BYTES,
            "the size of the bundle in bytes",
        );
    }
    let most = limits::DOCUMENTS.saturating_add(1);
    if files.len() > most {
        too_large(source.root.as_str().into(), files.len(), most, "the number of files");
    }
    good
}

/// Reports a document of another version of the format.
pub(crate) fn check_schema(root: &Section<'_>) {
    let Some(entry) = root.needed("schema") else { return };
    let version = entry.integer();
    if version != Some(SCHEMA) {
        root.report(
            Problem::new(
                "schema_unknown",
                &entry.place(),
                "this version of the file format is not known here",
            )
            .found(version.map_or_else(|| entry.kind().to_owned(), |version| format!("`{version}`")))
            .expected(format!("`{SCHEMA}`"))
            .hint("write `schema = 1`, or use a release of caracal that knows this version"),
        );
    }
}

fn check_zone_id(zone: &Section<'_>, id: &Placed<&str>, zone_id: &str) {
    if id.value != zone_id {
        zone.report(
            Problem::new("zone_id_mismatch", &id.place, "the bundle is for another zone")
                .found(format!("`{}`", shortened(id.value)))
                .expected(format!("`{zone_id}`"))
                .hint("the folder or file, the table in caracal.toml and `zone.id` carry one name"),
        );
    }
    if !names::is_name(id.value) {
        zone.report(
            Problem::new("value_invalid", &id.place, "`id` of `zone` is not valid")
                .found(format!("`{}`", shortened(id.value)))
                .expected("1 to 256 visible ASCII characters without blanks")
                .hint("correct it"),
        );
    }
}

/// What a listed file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// A part of the zone.
    Document,
    /// Tests of the bundle.
    Tests,
}

/// The key that holds tests, and the list of the files that do.
const TESTS: &str = "tests";
/// The lists of a head.
const LISTS: [(&str, Holds); 2] = [("documents", Holds::Document), (TESTS, Holds::Tests)];

/// A document a head lists.
struct Listed {
    path: String,
    place: Place,
    holds: Holds,
    /// Whether its name can be one; otherwise that is what was reported.
    usable: bool,
}

/// The files a head lists: files inside the bundle, each once.
fn read_names(zone: &Section<'_>) -> Vec<Listed> {
    let mut names: Vec<Listed> = Vec::new();
    let texts =
        LISTS.iter().flat_map(|(list, holds)| zone.texts(list).into_iter().map(|text| (text, *holds)));
    for (text, holds) in texts {
        let format = text.value.ends_with(".toml") || (holds == Holds::Document && is_rego(text.value));
        let twice = names.iter().any(|name| name.path == text.value);
        let inside =
            text.value.split('/').all(|part| !["", ".", ".."].contains(&part)) && !text.value.contains('\\');
        let problem = if twice || text.value == ZONE_FILE {
            Some(("duplicate", "each document once, and not `zone.toml` itself", "remove it from the list"))
        } else if !inside {
            Some((
                "document_name",
                "a path below the folder of `zone.toml`",
                "keep documents inside the bundle",
            ))
        } else if !format {
            Some((
                "document_format",
                "a name ending in `.toml`, or in `.rego` for policy data",
                "write the document in one of these forms; tests are TOML",
            ))
        } else {
            None
        };
        if let Some((code, expected, hint)) = problem {
            zone.report(
                Problem::new(code, &text.place, "this cannot be listed as a document")
                    .found(format!("`{}`", shortened(text.value)))
                    .expected(expected)
                    .hint(hint),
            );
        }
        names.push(Listed {
            path: text.value.to_owned(),
            place: text.place,
            holds,
            usable: problem.is_none(),
        });
    }
    names
}
