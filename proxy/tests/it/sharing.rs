//! Two states on one Postgres: what one does is found on the other, and what both do at once is done once.

mod agree;
mod connections;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caracal::clock::Clock;
use caracal::state::{
    ApplicationCaller, AuthorityRecord, Caller, Constraints, CoordinatorError, CreateDelegation,
    CreateInvocation, Delegation, Extent, Hold, HoldDecision, HoldState, IdempotencyKey, KeyKind, Lifecycle,
    Narrowed, PageRequest, ParentAuthority, RecordKind, RegisterService, ResourceCatalog, ResourceInfo,
    Session, SessionFilter, SessionStatus, StartSession, Started, State, StateLimits, Target, TombstoneKind,
};
use caracal_policies::{Approver, Privacy, SelfApproval};
use parking_lot::Mutex;
use serde_json::json;

use crate::edge::{eventually, install_crypto};
use crate::postgres::Postgres;

const ZONE: &str = "z";

/// A server and two nodes on it, on one clock.
struct Pair {
    postgres: Postgres,
    clock: Clock,
    folder: tempfile::TempDir,
    nodes: [Arc<State>; 2],
}

impl Pair {
    async fn new() -> Self {
        install_crypto();
        let postgres = Postgres::start().await;
        let (clock, folder) = (Clock::manual(1_790_000_000_000), tempfile::TempDir::new().unwrap());
        let open = |name| open(&postgres, folder.path().join(name), clock.clone());
        let nodes = [open("a").await, open("b").await];
        for application in ["app", "other"] {
            nodes[0].insert_record(record(application, clock.now())).await.unwrap();
        }
        caught_up(&nodes[1]).await;
        Self { postgres, clock, folder, nodes }
    }

    async fn both(&self) {
        for node in &self.nodes {
            caught_up(node).await;
        }
    }

    /// What a node that starts now finds.
    async fn fresh(&self, name: &str) -> Arc<State> {
        open(&self.postgres, self.folder.path().join(name), self.clock.clone()).await
    }
}

/// A look at the store is given up after a second, which a busy machine may take.
async fn caught_up(node: &State) {
    for _ in 0..10 {
        let started = Instant::now();
        node.catch_up().await;
        if started.elapsed() < Duration::from_millis(900) {
            return;
        }
    }
}

async fn open(postgres: &Postgres, folder: PathBuf, clock: Clock) -> Arc<State> {
    let store = Some(postgres.store());
    Arc::new(State::open_with(&folder, store, clock, StateLimits::default()).await.unwrap())
}

fn record(application: &str, now: i64) -> AuthorityRecord {
    let id: Arc<str> = format!("rec-{application}").into();
    AuthorityRecord {
        zone: ZONE.into(),
        subject: application.into(),
        application: application.into(),
        root: Arc::clone(&id),
        parent: None,
        kind: RecordKind::Application,
        issued_at: now,
        expires_at: now + 86_400_000,
        revoked: false,
        approved: false,
        id,
    }
}

fn caller(application: &str) -> Caller {
    Caller::Application(ApplicationCaller {
        id: application.into(),
        subject: application.into(),
        record: Some(format!("rec-{application}").into()),
        scopes: vec!["agent:lifecycle".into()],
    })
}

fn start(application: &str) -> StartSession {
    StartSession {
        zone: ZONE.into(),
        caller: caller(application),
        application: application.into(),
        application_known: true,
        subject_record: None,
        parent: None,
        lifecycle: Lifecycle::Task,
        labels: Vec::new(),
        ttl_seconds: None,
        parent_authority: ParentAuthority::None,
        inherit_edge: None,
        metadata: json!({}),
        idempotency: None,
    }
}

fn under(parent: &Session) -> StartSession {
    StartSession { parent: Some(Arc::clone(&parent.id)), ..start(&parent.application) }
}

struct Catalog;

impl ResourceCatalog for Catalog {
    fn find(&self, name: &str) -> Option<ResourceInfo> {
        (name == "resource://a").then(|| ResourceInfo {
            id: "row-a".into(),
            identifier: "resource://a".into(),
            scopes: vec!["a:read".into()],
        })
    }
}

fn delegate(source: &Session, target: &Session) -> CreateDelegation {
    CreateDelegation {
        zone: ZONE.into(),
        caller: caller(&source.application),
        source_session: Arc::clone(&source.id),
        target_session: Arc::clone(&target.id),
        issuer_application: Arc::clone(&source.application),
        receiver_application: Arc::clone(&target.application),
        parent: None,
        resource: Some("resource://a".into()),
        scopes: vec!["a:read".into()],
        constraints: Constraints { max_hops: Some(3), ..Constraints::default() },
        expires_at: None,
        ttl_seconds: Some(600),
        idempotency: None,
    }
}

fn keyed(key: &str) -> Option<IdempotencyKey> {
    Some(IdempotencyKey { key: key.into(), kind: KeyKind::Chosen, request_digest: [1; 32] })
}

async fn session(node: &State, application: &str) -> Arc<Session> {
    node.start_session(start(application)).await.unwrap().session
}

async fn end(node: &State, session: &Session) -> Result<(), CoordinatorError> {
    node.end_session(ZONE, &session.id, &Caller::Operator, None, "done").await.map(drop)
}

fn code<T: std::fmt::Debug>(outcome: Result<T, CoordinatorError>) -> &'static str {
    outcome.unwrap_err().code
}

const ALL: PageRequest = PageRequest { limit: 200, cursor: None };

/// Everything of the zone that somebody could ask a node for.
#[derive(Debug, PartialEq)]
struct Seen {
    sessions: Vec<(Arc<str>, SessionStatus, u64)>,
    active: Vec<Arc<str>>,
    graph_epoch: u64,
    frozen: bool,
    blocked: bool,
}

fn seen(node: &State) -> Seen {
    let mut sessions = Vec::new();
    let mut page = ALL;
    loop {
        let found = node.list_sessions(ZONE, &Caller::Operator, &SessionFilter::default(), &page).unwrap();
        sessions
            .extend(found.items.iter().map(|row| (Arc::clone(&row.id), row.status, row.lease_generation)));
        let Some(next) = found.next_cursor else { break };
        page.cursor = Some(next.to_string());
    }
    sessions.sort_by(|a, b| a.0.cmp(&b.0));
    let active = node.list_active_delegations(ZONE, &Caller::Operator, &ALL).unwrap();
    let mut active: Vec<_> = active.items.iter().map(|row: &Arc<Delegation>| Arc::clone(&row.id)).collect();
    active.sort();
    let blocked = node.application_blocked(ZONE, "other");
    Seen { sessions, active, graph_epoch: node.graph_epoch(ZONE), frozen: node.frozen(ZONE), blocked }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_does_is_found_on_the_other_and_ends_there() {
    let pair = Pair::new().await;
    let [a, b] = &pair.nodes;
    let told = Arc::new(Mutex::new(Vec::new()));
    let hook = Arc::clone(&told);
    a.on_narrow(Arc::new(move |narrowed: &Narrowed| hook.lock().push(narrowed.clone())));
    let (one, two) = (session(a, "app").await, session(a, "other").await);
    let edge = a.create_delegation(delegate(&one, &two), &Catalog).await.unwrap().delegation;
    caught_up(b).await;
    assert!(b.live_session(ZONE, &one.id, pair.clock.now()).is_some());
    assert!(b.lineage(ZONE, &edge.id, pair.clock.now()).is_some());
    let child = b.start_session(under(&one)).await.unwrap().session;
    end(b, &one).await.unwrap();
    caught_up(a).await;
    for ended in [&one, &child] {
        assert!(a.live_session(ZONE, &ended.id, pair.clock.now()).is_none());
    }
    assert!(a.lineage(ZONE, &edge.id, pair.clock.now()).is_none());
    let heard: Vec<_> = told.lock().iter().flat_map(|narrowed| narrowed.anchors.clone()).collect();
    assert!(heard.contains(&caracal::state::Anchor::Session(Arc::clone(&one.id))), "{heard:?}");
    assert_eq!(seen(a), seen(b));
    assert_eq!(seen(a), seen(&*pair.fresh("c").await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_on_two_nodes_at_once_starts_one_session() {
    let pair = Pair::new().await;
    let [a, b] = &pair.nodes;
    for round in 0..20 {
        let request = StartSession { idempotency: keyed(&format!("key-{round}")), ..start("app") };
        let (one, two) = tokio::join!(a.start_session(request.clone()), b.start_session(request));
        let (one, two): (Started, Started) = (one.unwrap(), two.unwrap());
        assert_eq!(one.session.id, two.session.id);
        assert_eq!(one.response, two.response);
        assert!(one.replayed ^ two.replayed, "exactly one of them started it");
    }
    pair.both().await;
    assert_eq!(seen(a).sessions.len(), 20);
    assert_eq!(seen(a), seen(b));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_starts_while_its_parent_ends_elsewhere_is_never_alive_afterwards() {
    let pair = Pair::new().await;
    let [a, b] = &pair.nodes;
    for _ in 0..40 {
        let parent = session(a, "app").await;
        caught_up(b).await;
        let (ended, _) = tokio::join!(end(a, &parent), b.start_session(under(&parent)));
        ended.unwrap();
    }
    // What the second learns from the first may have to be ended and told back.
    pair.both().await;
    pair.both().await;
    for node in [a, b, &pair.fresh("c").await] {
        let alive = seen(node).sessions.into_iter().filter(|(_, status, _)| *status == SessionStatus::Active);
        assert_eq!(alive.count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_delegations_that_would_make_a_circle_are_not_both_made() {
    let pair = Pair::new().await;
    let [a, b] = &pair.nodes;
    for _ in 0..20 {
        let (one, two) = (session(a, "app").await, session(a, "other").await);
        caught_up(b).await;
        let (there, back) = tokio::join!(
            a.create_delegation(delegate(&one, &two), &Catalog),
            b.create_delegation(delegate(&two, &one), &Catalog)
        );
        assert!(there.is_ok() ^ back.is_ok(), "{there:?} {back:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_taken_over_on_two_nodes_gets_two_generations_and_fences_on_both() {
    let pair = Pair::new().await;
    let [a, b] = &pair.nodes;
    let request = StartSession { lifecycle: Lifecycle::Service, ..start("app") };
    let service = a.start_session(request).await.unwrap().session;
    caught_up(b).await;
    let holder = caller("app");
    let (one, two) = tokio::join!(
        a.lease_session(ZONE, &service.id, &holder),
        b.lease_session(ZONE, &service.id, &holder)
    );
    let (one, two) = (one.unwrap().lease_generation, two.unwrap().lease_generation);
    assert_ne!(one, two);
    pair.both().await;
    for node in [a, b] {
        let beat = |generation| node.heartbeat_session(ZONE, &service.id, &holder, generation);
        assert_eq!(code(beat(one.min(two)).await), "session_lease_fenced");
        beat(one.max(two)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_started_by_one_of_two_nodes_and_what_came_of_it_is_read_on_the_other() {
    let pair = Pair::new().await;
    let [a, b] = &pair.nodes;
    let service = a
        .register_service(RegisterService {
            zone: ZONE.into(),
            caller: caller("app"),
            application: "app".into(),
            application_known: true,
            endpoint_url: "https://agent.test/".into(),
            protocol_versions: vec!["1".into()],
            framework_name: None,
            framework_version: None,
            capabilities: Vec::new(),
            metadata: json!({}),
        })
        .await
        .unwrap();
    caught_up(b).await;
    for round in 0..10 {
        let made = b
            .create_invocation(CreateInvocation {
                zone: ZONE.into(),
                caller: caller("app"),
                service: Arc::clone(&service.id),
                source_session: None,
                target_session: None,
                method: "run".into(),
                params: json!({ "round": round }),
                metadata: json!({}),
                timeout_ms: 60_000,
                max_attempts: 1,
                backoff_ms: 0,
                idempotency: keyed(&format!("job-{round}")).unwrap(),
            })
            .await
            .unwrap();
        let id = made.response["id"].as_str().unwrap();
        caught_up(a).await;
        let worker = caller("app");
        let (one, two) =
            tokio::join!(a.start_invocation(ZONE, id, &worker), b.start_invocation(ZONE, id, &worker));
        assert!(one.is_ok() ^ two.is_ok(), "{one:?} {two:?}");
        let (winner, other) = if one.is_ok() { (a, b) } else { (b, a) };
        let how = caracal::state::Completion::Succeeded;
        winner.complete_invocation(ZONE, id, &worker, how, &json!({ "said": round })).await.unwrap();
        caught_up(other).await;
        let detail = other.invocation_detail(ZONE, id, &worker).await.unwrap();
        assert_eq!(
            (detail["status"].as_str(), &detail["outcome"]["said"]),
            (Some("succeeded"), &json!(round))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_operators_stop_and_let_go_on_reaches_the_other_node() {
    let pair = Pair::new().await;
    let [a, b] = &pair.nodes;
    a.freeze(ZONE).await.unwrap();
    caught_up(b).await;
    assert!(b.frozen(ZONE));
    b.unfreeze(ZONE).await.unwrap();
    caught_up(a).await;
    assert!(!a.frozen(ZONE));

    let held = session(a, "other").await;
    let target = Target::Application { id: "other".into(), extent: Extent::Block };
    b.revoke(ZONE, &target, "leaked").await.unwrap();
    caught_up(a).await;
    assert!(a.application_blocked(ZONE, "other"));
    assert!(a.live_session(ZONE, &held.id, pair.clock.now()).is_none());
    a.restore_application(ZONE, "other").await.unwrap();
    caught_up(b).await;
    assert!(!b.application_blocked(ZONE, "other") && b.application_cut(ZONE, "other").is_some());

    a.bury(TombstoneKind::SecretHash, ZONE, "hash").await.unwrap();
    caught_up(b).await;
    assert!(b.buried(TombstoneKind::SecretHash, ZONE, "hash"));
    b.readmit(TombstoneKind::SecretHash, ZONE, "hash").await.unwrap();
    caught_up(a).await;
    assert!(!a.buried(TombstoneKind::SecretHash, ZONE, "hash"));
    let fresh = pair.fresh("c").await;
    assert!(!fresh.frozen(ZONE) && !fresh.buried(TombstoneKind::SecretHash, ZONE, "hash"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_gets_its_turn_while_another_one_is_busy() {
    let pair = Pair::new().await;
    let [a, b] = &pair.nodes;
    let busy = (0..8).map(|_| {
        let a = Arc::clone(a);
        tokio::spawn(async move {
            for _ in 0..40 {
                let session = session(&a, "app").await;
                end(&a, &session).await.unwrap();
            }
        })
    });
    let busy: Vec<_> = busy.collect();
    for _ in 0..40 {
        session(b, "other").await;
    }
    for task in busy {
        task.await.unwrap();
    }
    pair.both().await;
    assert_eq!(seen(a), seen(b));
    assert_eq!(seen(a).sessions.len(), 8 * 40 + 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_is_away_what_takes_is_in_force_what_gives_is_refused_and_both_recover() {
    let mut pair = Pair::new().await;
    let [a, b] = pair.nodes.clone();
    let (kept, ended) = (session(&a, "app").await, session(&a, "app").await);
    caught_up(&b).await;
    pair.postgres.kill();
    assert_eq!(code(end(&a, &ended).await), "state_unavailable");
    assert!(a.live_session(ZONE, &ended.id, pair.clock.now()).is_none(), "in force all the same");
    assert_eq!(code(a.start_session(start("app")).await), "state_unavailable");
    assert!(!a.store_up());
    assert!(b.live_session(ZONE, &kept.id, pair.clock.now()).is_some(), "what is known goes on");
    pair.postgres.run().await;
    eventually("the first is back", async || a.start_session(start("app")).await.is_ok()).await;
    eventually("the end is committed and learned", async || {
        caught_up(&b).await;
        b.live_session(ZONE, &ended.id, pair.clock.now()).is_none()
    })
    .await;
    assert!(a.store_up() && b.store_up());
    pair.both().await;
    assert_eq!(seen(&a), seen(&b));
    assert_eq!(seen(&a), seen(&*pair.fresh("c").await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_is_answered_on_one_node_and_used_on_one_of_two() {
    let pair = Pair::new().await;
    let [a, b] = &pair.nodes;
    for round in 0..10 {
        let binding = format!("{round}");
        let (one, two) = tokio::join!(a.hold(asked(&binding)), b.hold(asked(&binding)));
        let (one, two) = (one.unwrap().0, two.unwrap().0);
        assert_eq!(one.id, two.id, "both ask for the same");
        let answer =
            HoldDecision { approved: true, at: pair.clock.now(), by: "operator:0".into(), reason: None };
        let no = HoldDecision { approved: false, ..answer.clone() };
        let waiting = a.hold_answered();
        let (yes, no) =
            tokio::join!(b.decide_hold(ZONE, &one.id, &answer), a.decide_hold(ZONE, &one.id, &no));
        assert!(yes.is_ok() ^ no.is_ok(), "{yes:?} {no:?}");
        pair.both().await;
        drop(waiting);
        let state = a.find_hold(&one.id).unwrap().state(pair.clock.now());
        assert_eq!(state, b.find_hold(&one.id).unwrap().state(pair.clock.now()));
        if state != HoldState::Approved {
            continue;
        }
        let made = |name: &str| record(&format!("{name}-{round}"), pair.clock.now());
        let (one_use, two_use) =
            tokio::join!(a.use_hold(ZONE, &one.id, made("a")), b.use_hold(ZONE, &one.id, made("b")));
        assert!(one_use.is_ok() ^ two_use.is_ok(), "{one_use:?} {two_use:?}");
    }
}

fn asked(binding: &str) -> Hold {
    Hold {
        id: uuid::Uuid::new_v4().to_string().into(),
        zone: ZONE.into(),
        application: "app".into(),
        record: None,
        session: None,
        delegation: None,
        labels: Vec::new(),
        resources: vec!["resource://a".into()],
        scopes: vec!["a:read".into()],
        tier: "high".into(),
        approver: Approver::Operator,
        privacy: Privacy::Identified,
        self_approval: SelfApproval::Allowed,
        subject: None,
        binding: binding.into(),
        created_at: 1_790_000_000_000,
        expires_at: 1_790_000_900_000,
        decision: None,
        used: None,
        lapsed: None,
        exact: None,
    }
}
