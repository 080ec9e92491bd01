//! A zone compiled with what is kept of the one before is the zone compiled afresh, and so is its report.

use std::fmt::Write;
use std::sync::Arc;

use caracal_policies::{Assigned, BundleSource, Report, SourceFile, Zone, compile, recompile};
use proptest::prelude::*;

const DOCUMENTS: usize = 4;

/// What one document holds.
#[derive(Debug, Clone)]
struct Document {
    /// Lines before everything, so that places move.
    above: usize,
    pieces: Vec<Piece>,
    listed: bool,
}

#[derive(Debug, Clone)]
enum Piece {
    Resource { number: u8, scopes: u8, provider: Option<u8>, operation: &'static str, more: &'static str },
    Grant { number: u8, scopes: u8, key: &'static str },
    Provider { number: u8, header: &'static str },
    Other(&'static str),
}

/// The head, and what all documents hold.
#[derive(Debug, Clone)]
struct Bundle {
    head: Document,
    documents: Vec<Document>,
}

impl Piece {
    fn write(&self, text: &mut String) {
        let scopes = |count: u8| (0..count).map(|n| format!("\"s{n}\"")).collect::<Vec<_>>().join(", ");
        match self {
            Self::Resource { number, scopes: count, provider, operation, more } => {
                let provider = provider
                    .map(|number| format!("credential_provider = \"provider://p{number}\"\n"))
                    .unwrap_or_default();
                writeln!(
                    text,
                    "[[resources]]\nidentifier = \"resource://r{number}\"\nupstream_url = \"https://u.example\"\n\
                     scopes = [{}]\n{provider}operations = [{operation}]\n{more}",
                    scopes(*count)
                )
                .unwrap();
            }
            Self::Grant { number, scopes: count, key } => writeln!(
                text,
                "[grants.\"resource://r{number}\"]\napplication = \"{key}\"\nroles = {{ reader = [{}] }}",
                scopes(*count)
            )
            .unwrap(),
            Self::Provider { number, header } => writeln!(
                text,
                "[[providers]]\nidentifier = \"provider://p{number}\"\nkind = \"api_key\"\n\
                 header_name = \"{header}\"\nsecret = \"secret://s/k\""
            )
            .unwrap(),
            Self::Other(toml) => writeln!(text, "{toml}").unwrap(),
        }
    }
}

impl Document {
    fn text(&self) -> String {
        // Keys of the document itself come before its tables.
        let (keys, tables): (Vec<_>, Vec<_>) = self
            .pieces
            .iter()
            .partition(|piece| matches!(piece, Piece::Other(toml) if !toml.starts_with('[')));
        let mut text = "\n".repeat(self.above) + "schema = 1\n";
        keys.into_iter().chain(tables).for_each(|piece| piece.write(&mut text));
        text
    }
}

impl Bundle {
    fn source(&self) -> BundleSource {
        let listed = self.documents.iter().enumerate().filter(|(_, document)| document.listed);
        let names: Vec<_> = listed.map(|(number, _)| format!("\"d{number}.toml\"")).collect();
        let head = format!(
            "{}[zone]\nid = \"z\"\ndocuments = [{}]\n[[applications]]\nid = \"agent\"\n[app_ids]\nk = \"agent\"\n\
             [[approval_tiers]]\ntier = \"u\"\nttl_seconds = {}\n",
            self.head.text(),
            names.join(", "),
            self.head.above.saturating_add(60)
        );
        let files = self
            .documents
            .iter()
            .enumerate()
            .map(|(number, document)| SourceFile { path: format!("d{number}.toml"), text: document.text() });
        let head = SourceFile { path: "zone.toml".into(), text: head };
        BundleSource { root: "bundles/z".into(), files: std::iter::once(head).chain(files).collect() }
    }
}

/// A resource, mostly the document's own, and what is granted of it, mostly as much as it declares.
fn resource(slot: u8) -> impl Strategy<Value = Vec<Piece>> {
    const OPERATIONS: [&str; 2] = ["", "{ method = \"GET\", path = \"/a/{id}\", scope = \"s0\" }"];
    const MORE: [&str; 5] = [
        "",
        "hosts = [\"a.example\"]",
        "guards = [{ name = \"g\", when = \"depth > 3\" }]",
        "guards = [{ name = \"g\", when = \"depth > 3\", effect = \"approval\", tier = \"u\" }]",
        "plugins = [{ name = \"response_scrub\" }]",
    ];
    let number = prop_oneof![20 => Just(slot), 1 => 0..4_u8];
    let provider = prop::option::of(prop_oneof![10 => 0..2_u8, 1 => Just(2)]);
    let operation = prop::sample::select(&OPERATIONS[..]);
    let more = prop::sample::select(&MORE[..]);
    let granted = prop::option::of(prop_oneof![10 => 0..3_u8, 1 => Just(3)]);
    let key = prop_oneof![20 => Just("k"), 1 => Just("other")];
    (number, 2..4_u8, provider, operation, more, granted, key).prop_map(
        |(number, scopes, provider, operation, more, granted, key)| {
            let resource = Piece::Resource { number, scopes, provider, operation, more };
            let grant = granted.map(|scopes| Piece::Grant { number, scopes, key });
            std::iter::once(resource).chain(grant).collect()
        },
    )
}

fn other() -> impl Strategy<Value = Piece> {
    let provider = prop::sample::select(&["x-a", "x-b"][..]);
    prop_oneof![
        1 => provider.prop_map(|header| Piece::Provider { number: 2, header }),
        4 => prop::sample::select(
            &[
                "[[risk]]\nscope = \"s0\"\ntier = \"t\"",
                "[[approval_tiers]]\ntier = \"t\"\nttl_seconds = 60",
                "[[confinement]]\nlabel_prefix = \"r\"\nscopes = [\"s0\"]",
                "[[budgets]]\nname = \"b\"\nper = \"application\"\ncalls = 5\nwindow_seconds = 60\n\
                 resource = \"resource://r0\"",
                "[[subject_issuers]]\nissuer = \"i\"\njwks_url = \"https://i.example/k\"\naudience = \"a\"",
                "restrict = [\"stop\"]",
                "[[applications]]\nid = \"second\"",
            ][..]
        )
        .prop_map(Piece::Other),
    ]
}

fn bad() -> impl Strategy<Value = Piece> {
    prop::sample::select(
        &[
            "[[resources]]\nidentifier = \"resource://bad\"\nscopes = [\"s0\"]",
            "[[resources]]\nidentifier = \"resource://bad\"\nupstream_url = \"https://u.example\"\n\
             scopes = [\"s0\", \"s0\"]\nguards = [{ name = \"g\", when = \"nothing\" }]",
            "[[resources]]\nidentifier = \"resource://bad\"\nupstream_url = \"https://u.example\"\nscopes = []\n\
             operations = [{ method = \"GET\", path = \"/a\", scope = \"s9\" }]",
            "[grants.\"resource://none\"]\napplication = \"none\"\nroles = { reader = [\"s0\"] }",
            "[surprise]",
            "[[",
        ][..],
    )
    .prop_map(Piece::Other)
}

fn document(slot: u8) -> impl Strategy<Value = Document> {
    let more = prop_oneof![60 => Just(None), 20 => other().prop_map(Some), 1 => bad().prop_map(Some)];
    (0..3_usize, prop::option::weighted(0.9, resource(slot)), more, prop::bool::weighted(0.99)).prop_map(
        |(above, resource, more, listed)| {
            let pieces = resource.into_iter().flatten().chain(more).collect();
            Document { above, pieces, listed }
        },
    )
}

fn documents() -> impl Strategy<Value = Vec<Document>> {
    (document(0), document(1), document(2), document(3)).prop_map(|(a, b, c, d)| vec![a, b, c, d])
}

fn head() -> impl Strategy<Value = Document> {
    let providers = |header| (0..2).map(move |number| Piece::Provider { number, header }).collect();
    (0..2_usize, prop::sample::select(&["x-a", "x-b"][..])).prop_map(move |(above, header)| Document {
        above,
        pieces: providers(header),
        listed: true,
    })
}

/// One change of one file.
#[derive(Debug, Clone)]
enum Edit {
    Head(Document),
    Document(usize, Document),
    /// Its lines move, and nothing else does.
    Shift(usize, usize),
}

impl Edit {
    fn apply(self, bundle: &mut Bundle) {
        match self {
            Self::Head(head) => bundle.head = head,
            Self::Document(number, document) => *bundle.documents.get_mut(number).unwrap() = document,
            Self::Shift(number, above) => bundle.documents.get_mut(number).unwrap().above = above,
        }
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        1 => head().prop_map(Edit::Head),
        4 => (0..DOCUMENTS).prop_flat_map(|slot| {
            document(u8::try_from(slot).unwrap()).prop_map(move |document| Edit::Document(slot, document))
        }),
        1 => (0..DOCUMENTS, 0..3_usize).prop_map(|(number, above)| Edit::Shift(number, above)),
    ]
}

/// Everything in a zone that is not in its digest.
fn places(zone: &Zone) -> String {
    let mut text = String::new();
    for resource in zone.resources() {
        let operations: Vec<_> = resource.operations.iter().collect();
        let guards: Vec<_> =
            resource.guards.iter().flat_map(|guards| guards.iter()).map(|g| &g.place).collect();
        let plugins = &resource.plugins;
        let (place, provider) = (&resource.place, &resource.provider);
        writeln!(text, "{place} {operations:?} {guards:?} {plugins:?} {provider:?}").unwrap();
    }
    let (providers, issuers): (Vec<_>, Vec<_>) =
        (zone.providers().collect(), zone.subject_issuers().collect());
    text + &format!("{providers:?} {issuers:?} {:?}", zone.budgets())
}

fn assigned() -> Assigned {
    Assigned { hosts: vec!["a.example".into()], prefixes: Vec::new() }
}

fn compare(afresh: &Result<Zone, Report>, again: &Result<Zone, Report>) {
    match (afresh, again) {
        (Ok(afresh), Ok(again)) => {
            assert_eq!(afresh.digest(), again.digest());
            assert_eq!(places(afresh), places(again));
            assert_eq!(afresh.changes(again), Vec::<String>::new());
        }
        (Err(afresh), Err(again)) => assert_eq!(afresh, again),
        (Ok(_), Err(report)) | (Err(report), Ok(_)) => panic!("only one of two is refused:\n{report}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(512)))]

    #[test]
    fn a_zone_compiled_again_is_the_one_compiled_afresh(
        head in head(),
        documents in documents(),
        edits in prop::collection::vec(edit(), 1..12),
    ) {
        let mut bundle = Bundle { head, documents };
        let mut last: Option<Zone> = compile(&bundle.source(), "z", &assigned()).ok();
        for edit in edits {
            edit.apply(&mut bundle);
            let source = bundle.source();
            let afresh = compile(&source, "z", &assigned());
            let Some(before) = &last else {
                last = afresh.ok();
                continue;
            };
            let again = recompile(&source, "z", &assigned(), before);
            compare(&afresh, &again);
            if let (Ok(afresh), Ok(again)) = (&afresh, again) {
                // What changed is told alike, however much of the two is shared.
                assert_eq!(before.changes(afresh), before.changes(&again));
                last = Some(again);
            }
        }
    }
}

fn plain(above: usize) -> Bundle {
    let resource = |number| Piece::Resource { number, scopes: 2, provider: Some(0), operation: "", more: "" };
    let document = |number| Document {
        above: 0,
        pieces: vec![resource(number), Piece::Grant { number, scopes: 1, key: "k" }],
        listed: true,
    };
    let head = Document { above, pieces: vec![Piece::Provider { number: 0, header: "x-a" }], listed: true };
    Bundle { head, documents: vec![document(0), document(1)] }
}

fn shared(one: &Zone, other: &Zone, resource: &str) -> bool {
    Arc::ptr_eq(one.resource(resource).unwrap(), other.resource(resource).unwrap())
}

#[test]
fn a_document_that_did_not_change_is_not_read_again() {
    let mut bundle = plain(0);
    let before = compile(&bundle.source(), "z", &assigned()).unwrap();
    Edit::Shift(1, 2).apply(&mut bundle);
    let again = recompile(&bundle.source(), "z", &assigned(), &before).unwrap();
    assert!(shared(&before, &again, "resource://r0"));
    assert!(!shared(&before, &again, "resource://r1"));
    // The head was read again, and its provider is the same one in the same place.
    Edit::Document(1, Document { above: 1, ..bundle.documents[1].clone() }).apply(&mut bundle);
    let third = recompile(&bundle.source(), "z", &assigned(), &again).unwrap();
    assert!(shared(&again, &third, "resource://r0"));
}

#[test]
fn a_provider_that_changes_reaches_resources_of_documents_that_did_not() {
    let before = compile(&plain(0).source(), "z", &assigned()).unwrap();
    let again = recompile(&plain(2).source(), "z", &assigned(), &before).unwrap();
    let place = |zone: &Zone| {
        let resource = zone.resource("resource://r0").unwrap();
        resource.provider.as_ref().unwrap().place.line
    };
    assert_eq!(place(&again), place(&before) + 2);
    assert!(again.resources().all(|resource| {
        let provider = resource.provider.as_ref().unwrap();
        again.providers().any(|known| Arc::ptr_eq(known, provider))
    }));
}

#[test]
fn a_tier_that_changes_reaches_guards_of_documents_that_did_not() {
    let guard = "[[resources.guards]]\nname = \"g\"\nwhen = \"method == 'GET'\"\neffect = \"approval\"\ntier = \"high\"\n";
    let with = |tier: &str| {
        let mut source = plain(0).source();
        let document = source.files.iter_mut().find(|file| file.text.contains("[[resources]]")).unwrap();
        let (first, rest) = document.text.split_once("[[resources]]").unwrap();
        let end = rest.find("\n[").map_or(rest.len(), |at| at.saturating_add(1));
        let (table, rest) = rest.split_at(end);
        document.text = format!("{first}[[resources]]{table}{guard}{rest}");
        let holds = document.path.clone();
        let other =
            source.files.iter_mut().find(|file| file.path != holds && file.path != "zone.toml").unwrap();
        other.text += tier;
        source
    };
    let tier = |approver: &str| format!("[[approval_tiers]]\ntier = \"high\"\napprover = \"{approver}\"\n");
    let before = compile(&with(&tier("subject")), "z", &assigned()).unwrap();
    let again = recompile(&with(&tier("operator")), "z", &assigned(), &before).unwrap();
    let fresh = compile(&with(&tier("operator")), "z", &assigned()).unwrap();
    let asked = |zone: &Zone| {
        let guards = zone.resources().filter_map(|resource| resource.guards.as_ref());
        guards
            .flat_map(|guards| guards.iter())
            .map(|guard| guard.ask.clone().unwrap().tier)
            .collect::<Vec<_>>()
    };
    assert_eq!((asked(&again), again.digest()), (asked(&fresh), fresh.digest()));
    assert_ne!(asked(&again), asked(&before));
    assert_eq!(asked(&again).len(), 1);
    let gone = recompile(&with(""), "z", &assigned(), &before).unwrap_err();
    assert_eq!(gone, compile(&with(""), "z", &assigned()).unwrap_err());
    assert_eq!(gone.problems[0].code, "reference_unknown", "{gone}");
}

#[test]
fn a_kept_document_counts_towards_what_a_zone_may_hold() {
    let issuers = |from: usize, count: usize| {
        let one = |number| {
            format!(
                "[[subject_issuers]]\nissuer = \"i{number}\"\njwks_url = \"https://i.example/k\"\naudience = \"a\"\n"
            )
        };
        (from..from + count).map(one).collect::<String>()
    };
    let mut source = plain(0).source();
    source.files[1].text += &issuers(0, 20);
    let before = compile(&source, "z", &assigned()).unwrap();
    source.files[2].text += &issuers(20, 1);
    let again = recompile(&source, "z", &assigned(), &before).unwrap_err();
    assert_eq!(again, compile(&source, "z", &assigned()).unwrap_err());
    let problem = &again.problems[0];
    assert_eq!((problem.code, &*problem.place.file), ("too_many", "bundles/z/d1.toml"), "{again}");
}
