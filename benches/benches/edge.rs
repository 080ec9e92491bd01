//! Stages of the request path that need a running edge: the claims cache, the upstream head, the ledger, a reload.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use caracal::app::App;
use caracal::budgets::{Budgets, Item};
use caracal::clock::Clock;
use caracal::gate::authenticate::{Shown, Source, gateway_mandate};
use caracal::gate::credential::Credential;
use caracal::gate::forward::{self, Via};
use caracal::gate::head::{Head, HeadLimits};
use caracal::ledger::{Event, Ledger, LedgerKey, LedgerOptions};
use caracal::reload::ZoneResult;
use caracal::serve::{Running, ServeOptions, Sockets, start};
use caracal_benches::edge::{Agent, Folder, ZONE};
use caracal_benches::http1::Connection;
use caracal_benches::zones::{APPLICATION, LABEL, compiled, resource};
use caracal_mandates::{Claims, new_jti};
use caracal_policies::{
    Budget, BudgetPer, EdgeFacts, Measure, Path, Permit, Presented, Span, UseRequest, Zone,
};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use tokio::runtime::Runtime;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An edge in this process.
struct Edge {
    folder: Folder,
    running: Running,
    runtime: Runtime,
}

impl Edge {
    fn start(resources: usize) -> anyhow::Result<Self> {
        // A second install only says that the first one stands.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let folder = Folder::write(resources, SocketAddr::new(PEER, 9))?;
        let config = caracal::config::load(&folder.config()).map_err(|report| anyhow!("{report}"))?;
        let sockets = Sockets::bind(&config)?;
        let running = runtime.block_on(start(config, sockets, ServeOptions::default()))?;
        Ok(Self { folder, running, runtime })
    }

    fn mandate(&self) -> anyhow::Result<String> {
        self.runtime.block_on(async {
            let agent = Agent::provision(self.folder.ports).await?;
            agent.mint(&mut Connection::open(self.folder.ports.authority).await?, true).await
        })
    }
}

#[expect(clippy::panic, reason = "nothing is left to measure")]
fn usable<T>(made: anyhow::Result<T>) -> T {
    made.unwrap_or_else(|error| panic!("{error:#}"))
}

fn authenticate(criterion: &mut Criterion) {
    let edge = usable(Edge::start(1));
    let app: &App = &edge.running.app;
    let token = usable(edge.mandate());
    let now = app.clock.now_s();
    let prove = |token: &str| gateway_mandate(app, ZONE, &Shown::new(app, token.into()), PEER, now);
    let source = |token: &str| prove(token).map(|(_, source)| source);
    assert_eq!(source(&token), Ok(Source::Hit), "a mandate minted here is known");
    let keys = usable(app.keyring.zone(ZONE).context("no keys"));
    let claims = usable(prove(&token).map_err(|refusal| anyhow!("{refusal:?}")));
    let claims = claims.0.claims().as_ref().clone();
    // Signed with the zone's key, but not by the token endpoint: the cache has never seen it.
    let unseen = || {
        let copy = Claims { jti: new_jti(app.clock.now()), ..claims.clone() };
        keys.keys.mint(copy).map(|minted| minted.token).unwrap_or_default()
    };
    assert_eq!(source(&unseen()), Ok(Source::Miss), "a mandate from elsewhere is verified");
    let mut group = criterion.benchmark_group("authenticate");
    group.bench_function("cache_hit", |bencher| {
        bencher.iter(|| prove(black_box(&token)));
    });
    group.bench_function("cache_miss", |bencher| {
        bencher.iter_batched(unseen, |token| prove(&token), BatchSize::SmallInput);
    });
    group.finish();
}

/// What a call pays that counts for one budget, with an account that is open.
fn budget(criterion: &mut Criterion) {
    let hour = Budget {
        name: "hour".into(),
        per: BudgetPer::Application,
        application: None,
        resource: None,
        measure: Measure::Calls,
        limit: 1_000_000_000_000,
        span: Span::Window { seconds: 3_600 },
    };
    let subject = format!("application:{APPLICATION}").into();
    let items = [Item { budget: Arc::new(hour), subject, ends_at: None }];
    let (budgets, zone) = (Budgets::default(), Arc::from(ZONE));
    criterion.bench_function("budget/charge", |bencher| {
        bencher.iter(|| budgets.charge(&zone, black_box(&items), 0));
    });
}

/// A permit for one read.
fn permit(zone: &Zone) -> anyhow::Result<Permit> {
    let (labels, scopes) = ([Arc::from(LABEL)], [Arc::from("s0")]);
    let path = Path::parse("/read/item/1")?;
    let target = [resource(0)];
    let request = UseRequest {
        application: APPLICATION,
        labels: &labels,
        edge: Some(EdgeFacts { id: "edge", scopes: &scopes }),
        agent_session_id: Some("session"),
        presented: Presented { delegation_edge_id: Some("edge"), scope: "s0", target: &target },
        method: "GET",
        path: &path,
        target: "/read/item/1",
        call: None,
        approved: false,
    };
    let resource = zone.resource(&resource(0)).context("no resource")?;
    zone.authorize(resource, &request).map_err(|refused| anyhow!("{refused:?}"))
}

fn forward_plan(criterion: &mut Criterion) {
    let zone = usable(compiled(1));
    let token = "e".repeat(1_300);
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "edge.bench"),
        ("user-agent", "bench"),
        ("accept", "*/*"),
        ("x-caracal-resource", "resource://r0"),
        ("authorization", &format!("Bearer {token}")),
    ] {
        headers
            .insert(HeaderName::from_static(name), usable(HeaderValue::from_str(value).map_err(Into::into)));
    }
    let credential = Credential {
        header: Some((HeaderName::from_static("x-api-key"), HeaderValue::from_static("sk-bench"))),
        ..Credential::default()
    };
    let head = Head {
        method: "GET",
        target: "/read/item/1",
        authority: None,
        headers: &headers,
        peer: PEER,
        tls: false,
    };
    let limits = HeadLimits { bytes: 65_536, lines: 100 };
    let host = usable(head.frame(limits).map_err(|refusal| anyhow!("{refusal:?}")));
    let via = Via { peer: PEER, tls: false, host: &host, request_id: "5f0c7e9e-62d2-4b5e-8d26-3f6f1c1f0a11" };
    let plan = |permit| forward::plan(permit, &credential, &head, None, &token, &via);
    let planned =
        usable(permit(&zone).and_then(|permit| plan(permit).map_err(|refusal| anyhow!("{refusal:?}"))));
    assert_eq!(planned.remove.len(), 2, "the mandate and the resource are taken out");
    let mut group = criterion.benchmark_group("forward");
    group.bench_function("plan", |bencher| {
        bencher.iter_batched(|| usable(permit(&zone)), plan, BatchSize::SmallInput);
    });
    group.finish();
}

/// The size and shape of a decision's record.
fn event(event_type: &'static str) -> Event {
    let metadata = json!({
        "application_id": "agent", "resource": "resource://r0", "subject_fingerprint": "0123456789abcdef",
        "subject_kind": "application", "method": "GET", "path": "/read/item/1", "peer": "127.0.0.1",
        "jti": new_jti(1), "session_id": new_jti(1), "root_session_id": new_jti(1), "scopes": ["s0"],
        "target": ["resource://r0"], "agent_labels": ["agent"], "generation": 1,
        "delegation_edge_id": new_jti(1), "agent_session_id": new_jti(1),
    });
    Event {
        id: new_jti(1),
        zone_id: ZONE.into(),
        event_type,
        request_id: new_jti(1),
        decision: "allow",
        evaluation_status: "complete".into(),
        determining_policies: vec!["caracal-one-use".into()],
        diagnostics: json!([]),
        metadata: metadata.as_object().cloned().unwrap_or_default(),
        occurred_at: 1_790_000_000_000,
    }
}

fn ledger(criterion: &mut Criterion) {
    let runtime = usable(Runtime::new().map_err(Into::into));
    let dir = usable(tempfile::tempdir().map_err(Into::into));
    let key = usable(LedgerKey::open(&dir.path().join("key")).map_err(Into::into));
    let options = LedgerOptions { queue: 1 << 20, ..LedgerOptions::default() };
    let ledger =
        usable(Ledger::open(&dir.path().join("ledger"), options, key, Clock::system()).map_err(Into::into));
    let events = (event("gateway_decision"), event("gateway_resource_request"));
    // What the request thread does; building the two events is not part of it.
    let request = |(decision, result): (Event, Event)| {
        let admission = ledger.admit(ZONE);
        let Ok(mut admission) = admission else { return false };
        let decided = runtime.block_on(admission.decide(decision)).is_ok();
        admission.result(result);
        decided
    };
    assert!(request(events.clone()), "there is room");
    let mut group = criterion.benchmark_group("ledger");
    group.bench_function("admit_decide_result", |bencher| {
        bencher.iter_custom(|count| {
            let mut spent = Duration::ZERO;
            for number in 0..count {
                let events = events.clone();
                let started = Instant::now();
                let recorded = request(black_box(events));
                spent = spent.saturating_add(started.elapsed());
                assert!(recorded, "there is room");
                if number % 4_096 == 4_095 {
                    usable(runtime.block_on(ledger.flush()).map_err(Into::into));
                }
            }
            spent
        });
    });
    group.finish();
    usable(runtime.block_on(ledger.close()).map_err(Into::into));
}

fn reload(criterion: &mut Criterion) {
    const LARGE: usize = 10_000;
    let edge = usable(Edge::start(LARGE));
    let mut size = LARGE;
    // The edge also watches the folder and now and then is first: then there is nothing to time, and the bundle
    // changes once more.
    let mut once = || {
        for _ in 0..10 {
            size = if size == LARGE { LARGE.saturating_sub(1) } else { LARGE };
            edge.folder.write_bundle(size)?;
            let started = Instant::now();
            let outcome = edge.runtime.block_on(edge.running.app.reloader.reload());
            let spent = started.elapsed();
            match outcome.zones.as_slice() {
                [zone] if matches!(zone.result, ZoneResult::Accepted { .. }) => return Ok(spent),
                [zone] if matches!(zone.result, ZoneResult::Unchanged) => {}
                zones => bail!("the bundle was not accepted: {zones:?}"),
            }
        }
        bail!("the watcher was first ten times")
    };
    usable(once());
    let mut group = criterion.benchmark_group("reload");
    group.sample_size(10);
    group.bench_function("10000_resources", |bencher| {
        bencher.iter_custom(|count| (0..count).map(|_| usable(once())).sum());
    });
    group.finish();
}

criterion_group!(benches, authenticate, budget, forward_plan, ledger, reload);
criterion_main!(benches);
