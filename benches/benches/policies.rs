//! The decision at three sizes of a zone, the operation floor, and reading a path.

use std::hint::black_box;
use std::sync::Arc;

use caracal_benches::zones::{APPLICATION, LABEL, SCOPES, assigned, compiled, folder_source, resource};
use caracal_policies::{
    Action, Assigned, BundleSource, Decision, EdgeFacts, GuardFacts, Guarding, Input, Path, Presented,
    Principal, SourceFile, UseRequest, Zone, compile, recompile,
};
use criterion::{Criterion, criterion_group, criterion_main};

/// What one request brings along.
struct Caller {
    resource: String,
    target: Vec<String>,
    labels: Vec<Arc<str>>,
    scopes: Vec<Arc<str>>,
}

impl Caller {
    fn of(number: usize) -> Self {
        let resource = resource(number);
        Self {
            target: vec![resource.clone()],
            resource,
            labels: vec![LABEL.into()],
            scopes: vec!["s0".into(), "s1".into()],
        }
    }

    fn edge(&self) -> EdgeFacts<'_> {
        EdgeFacts { id: "edge", scopes: &self.scopes }
    }

    fn presented(&self) -> Presented<'_> {
        Presented { delegation_edge_id: Some("edge"), scope: "s0 s1", target: &self.target }
    }

    fn mints<'a>(&'a self, requested: &'a [&'a str]) -> Input<'a> {
        Input { requested, presented: None, ..self.uses() }
    }

    fn uses(&self) -> Input<'_> {
        Input {
            principal: Principal::Application(APPLICATION),
            action: Action::TokenExchange,
            resource: &self.resource,
            labels: &self.labels,
            requested: &[],
            edge: Some(self.edge()),
            agent_session_id: Some("session"),
            presented: Some(self.presented()),
        }
    }
}

fn zone(resources: usize) -> Zone {
    compiled(resources).unwrap_or_else(|error| unusable(&error.to_string()))
}

/// A bench without its subject measures nothing.
#[expect(clippy::panic, reason = "nothing is left to measure")]
fn unusable(why: &str) -> ! {
    panic!("{why}")
}

fn decide(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    for resources in [1, 100, 10_000] {
        let zone = zone(resources);
        let grants = resources.saturating_mul(SCOPES);
        let caller = Caller::of(resources / 2);
        let mint = caller.mints(&["s0", "s1"]);
        assert!(matches!(zone.decide(&mint), Decision::Allow(_)), "the mint is allowed");
        group.bench_function(format!("mint_{grants}"), |bencher| {
            bencher.iter(|| zone.decide(black_box(&mint)))
        });
        let uses = caller.uses();
        assert!(matches!(zone.decide(&uses), Decision::Allow(_)), "the use is allowed");
        group.bench_function(format!("use_{grants}"), |bencher| {
            bencher.iter(|| zone.decide(black_box(&uses)))
        });
    }
    let zone = zone(10_000);
    let callers: Vec<Caller> = scattered(10_000).map(Caller::of).collect();
    let mut all = callers.iter().cycle();
    // The part of the next case that is the bench's own: its callers are not in the cache either.
    group.bench_function("use_100000_anywhere_inputs_only", |bencher| {
        bencher.iter(|| all.next().map(|caller| touch(&caller.uses())));
    });
    group.bench_function("use_100000_anywhere", |bencher| {
        bencher.iter(|| {
            let caller = all.next()?;
            touch(&caller.uses());
            Some(zone.decide(&caller.uses()))
        });
    });
    group.finish();
}

/// Every number below `count`, in an order no prefetcher guesses.
fn scattered(count: usize) -> impl Iterator<Item = usize> {
    // 7919 is prime and divides no size used here, so this visits every number once.
    (0..count).map(move |number| number.wrapping_mul(7_919).checked_rem(count).unwrap_or_default())
}

/// Reads everything a decision reads of its input.
fn touch(input: &Input<'_>) -> usize {
    let text = |text: &str| text.bytes().fold(0_usize, |sum, byte| sum.wrapping_add(usize::from(byte)));
    let labels: usize = input.labels.iter().map(|label| text(label)).sum();
    let target: usize =
        input.presented.iter().flat_map(|shown| shown.target).map(|target| text(target)).sum();
    black_box(text(input.resource).wrapping_add(labels).wrapping_add(target))
}

fn authorize(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("authorize");
    for resources in [1, 10_000] {
        let zone = zone(resources);
        let caller = Caller::of(resources / 2);
        let Some(resource) = zone.resource(&caller.resource).cloned() else { unusable("no such resource") };
        for (case, raw) in [("tail", "/read/item/1"), ("template", "/users/42")] {
            let Ok(path) = Path::parse(raw) else { unusable("not a path") };
            let request = UseRequest {
                application: APPLICATION,
                labels: &caller.labels,
                edge: Some(caller.edge()),
                agent_session_id: Some("session"),
                presented: caller.presented(),
                method: "GET",
                path: &path,
                target: raw,
                call: None,
                approved: false,
                guards: Guarding::Elsewhere,
            };
            assert!(zone.authorize(&resource, &request).is_ok(), "the request is permitted");
            let grants = resources.saturating_mul(SCOPES);
            group.bench_function(format!("{case}_{grants}"), |bencher| {
                bencher.iter(|| zone.authorize(&resource, black_box(&request)));
            });
        }
    }
    group.finish();
}

/// A request of a resource without guards, and with three of them that look at fields of its body, a header, its query
/// and the time.
fn guards(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("guards");
    let body = serde_json::json!({
        "amount": 900, "currency": "EUR", "to": { "account": "acct_1", "country": "DE" },
        "items": (0..20).map(|n| serde_json::json!({ "sku": format!("sku-{n}"), "n": n })).collect::<Vec<_>>(),
    });
    let query = [("limit".to_owned(), "20".to_owned())];
    let headers: Vec<(&str, &[u8])> =
        ["accept", "content-type", "user-agent", "x-tenant"].map(|name| (name, b"acme".as_slice())).to_vec();
    let facts = GuardFacts {
        headers: &headers,
        query: Some(&query),
        arguments: None,
        body: Some(&body),
        subject: None,
        depth: 1,
        source: "10.1.2.3",
        now_s: 1_700_000_000,
    };
    let path = Path::parse("/accounts/7/refunds").unwrap_or_else(|error| unusable(&error.to_string()));
    let (target, labels) = (["resource://pay".to_owned()], [Arc::from("agent")]);
    for (case, when) in [
        ("none", None),
        ("typical", Some("body.amount > 1000 || body.currency != \"EUR\"")),
        (
            "several_facts",
            Some("headers[\"x-tenant\"] != \"acme\" || int(query.limit) > 100 || time.hour > 23"),
        ),
        ("loop_over_20", Some("body.items.exists(item, item.n > 100)")),
        ("regex", Some("!body.to.account.matches(\"^acct_[0-9]+$\")")),
    ] {
        let zone = guarded(when);
        let Some(resource) = zone.resource("resource://pay").cloned() else { unusable("no such resource") };
        let request = UseRequest {
            application: APPLICATION,
            labels: &labels,
            edge: None,
            agent_session_id: Some("session"),
            presented: Presented { delegation_edge_id: Some("edge"), scope: "pay", target: &target },
            method: "POST",
            path: &path,
            target: path.raw(),
            call: None,
            approved: false,
            guards: Guarding::On(&facts),
        };
        if let Err(refused) = zone.authorize(&resource, &request) {
            unusable(&format!("{case}: {refused:?}"));
        }
        group.bench_function(case, |bencher| bencher.iter(|| zone.authorize(&resource, black_box(&request))));
    }
    group.finish();
}

fn guarded(when: Option<&str>) -> Zone {
    let guard = when.map_or(String::new(), |when| format!("guards = [{{ name = \"it\", when = '{when}' }}]"));
    let text = format!(
        "schema = 1\n[zone]\nid = \"z\"\n[[applications]]\nid = \"{APPLICATION}\"\n[[resources]]\n\
         identifier = \"resource://pay\"\nupstream_url = \"https://pay.example\"\nscopes = [\"pay\"]\n\
         operations = [{{ method = \"POST\", path = \"/accounts/{{account}}/refunds\", scope = \"pay\" }}]\n\
         {guard}\n[app_ids]\nmain = \"{APPLICATION}\"\n[grants.\"resource://pay\"]\n\
         application = \"main\"\nroles = {{ agent = [\"pay\"] }}\n"
    );
    let file = SourceFile { path: "z.toml".into(), text };
    let source = BundleSource { root: "z.toml".into(), files: vec![file] };
    compile(&source, "z", &Assigned::default()).unwrap_or_else(|report| unusable(&report.to_string()))
}

fn path(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("path");
    for (case, raw) in [
        ("short", "/read/item/1"),
        ("long", "/v1/projects/alpha-0123/locations/europe-west1/repositories/main/files/src/lib.rs"),
        ("encoded", "/files/a%2Fb/c%20d%25e"),
    ] {
        assert!(Path::parse(raw).is_ok(), "{raw} is a path");
        group.bench_function(case, |bencher| bencher.iter(|| Path::parse(black_box(raw))));
    }
    group.finish();
}

/// The two parts of a reload that grow with the zone.
fn large(criterion: &mut Criterion) {
    const LARGE: usize = 10_000;
    let (before, after) = (zone(LARGE), zone(LARGE.saturating_sub(1)));
    assert!(!before.changes(&after).is_empty(), "a resource is gone");
    let mut group = criterion.benchmark_group("zone");
    group.sample_size(10);
    group.bench_function("compile_10000_resources", |bencher| bencher.iter(|| zone(black_box(LARGE))));
    group.bench_function("changes_10000_resources", |bencher| {
        bencher.iter(|| before.changes(black_box(&after)))
    });
    let edits = [folder_source(LARGE, 100, 0), folder_source(LARGE, 100, 1)];
    let [first, second] = &edits;
    let kept = compile(first, "bench", &assigned()).unwrap_or_else(|report| unusable(&report.to_string()));
    let again = || recompile(black_box(second), "bench", &assigned(), &kept);
    assert!(again().is_ok_and(|again| again.digest() == kept.digest()), "a comment says nothing");
    group.bench_function("recompile_one_document_of_100", |bencher| bencher.iter(again));
    group.finish();
}

criterion_group!(benches, decide, authorize, guards, path, large);
criterion_main!(benches);
