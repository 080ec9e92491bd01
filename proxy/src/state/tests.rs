//! The state as its callers see it, over a store of its own.

mod approving;
mod beside;
mod connecting;
mod delegating;
mod ending;
mod following;
mod idempotency;
mod jobs;
mod leasing;
mod listing;
mod operators;
mod properties;
mod restart;
mod revoking;
mod starting;
mod storing;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::clock::Clock;

const START: i64 = 1_790_000_000_000;
const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;
const ZONE: &str = "z";

/// A state, its clock, and everything it ever said had died.
struct Bench {
    dir: tempfile::TempDir,
    clock: Clock,
    /// The store it shares with others, where the tests run on one.
    shared: Option<SharedStore>,
    state: Arc<State>,
    told: Arc<Mutex<Vec<Narrowed>>>,
}

impl Bench {
    async fn new() -> Self {
        Self::with(StateLimits::default()).await
    }

    async fn with(limits: StateLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(START);
        let shared = beside::schema().await;
        let path = dir.path().join("state");
        let state = State::open_with(&path, shared.clone(), clock.clone(), limits).await.unwrap();
        let state = Arc::new(state);
        let bench = Self { dir, clock, shared, state, told: Arc::default() };
        let told = Arc::clone(&bench.told);
        bench.state.on_narrow(Arc::new(move |narrowed: &Narrowed| told.lock().push(narrowed.clone())));
        for application in ["app", "other"] {
            bench.record(application, application, RecordKind::Application).await;
        }
        bench
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn now(&self) -> i64 {
        self.clock.now()
    }

    fn pass(&self, ms: i64) {
        self.clock.advance(Duration::from_millis(u64::try_from(ms).unwrap()));
    }

    /// A record `rec-<name>` that lives a day.
    async fn record(&self, name: &str, application: &str, kind: RecordKind) -> Arc<str> {
        let record = record(name, application, kind, self.now());
        let id = Arc::clone(&record.id);
        self.state.insert_record(record).await.unwrap();
        id
    }

    async fn start(&self, request: StartSession) -> Started {
        self.state.start_session(request).await.unwrap()
    }

    async fn session(&self, application: &str) -> Arc<Session> {
        self.start(start(application)).await.session
    }

    async fn service(&self, application: &str) -> Arc<Session> {
        self.start(StartSession { lifecycle: Lifecycle::Service, ..start(application) }).await.session
    }

    async fn child(&self, parent: &Session) -> Started {
        self.start(under(parent)).await
    }

    async fn refused(&self, request: StartSession) -> CoordinatorError {
        self.state.start_session(request).await.unwrap_err()
    }

    async fn delegate(&self, request: CreateDelegation) -> Arc<Delegation> {
        self.state.create_delegation(request, &Catalog).await.unwrap().delegation
    }

    async fn not_delegated(&self, request: CreateDelegation) -> CoordinatorError {
        self.state.create_delegation(request, &Catalog).await.unwrap_err()
    }

    async fn revoke(&self, target: Target) -> Doomed {
        self.state.revoke(ZONE, &target, target.reason()).await.unwrap()
    }

    fn status(&self, session: &Session) -> SessionStatus {
        self.state.session(ZONE, &session.id).unwrap().status
    }

    fn last_told(&self) -> Narrowed {
        self.told.lock().last().cloned().unwrap()
    }

    /// Stops without a clean stop and starts again, as after a crash.
    async fn crash(self) -> Self {
        let Self { dir, clock, shared, state, .. } = self;
        let weak = Arc::downgrade(&state);
        drop(state);
        assert!(weak.upgrade().is_none(), "somebody still holds the state");
        Self::open_again(dir, clock, shared).await
    }

    /// Stops cleanly and starts again.
    async fn restart(self) -> Self {
        self.state.close().await.unwrap();
        let Self { dir, clock, shared, .. } = self;
        Self::open_again(dir, clock, shared).await
    }

    /// The writer lets go of the folder a moment after the last handle on the state is gone.
    async fn open_again(dir: tempfile::TempDir, clock: Clock, shared: Option<SharedStore>) -> Self {
        let path = dir.path().join("state");
        for _ in 0..10_000 {
            match State::open_with(&path, shared.clone(), clock.clone(), StateLimits::default()).await {
                Ok(state) => {
                    return Self { dir, clock, shared, state: Arc::new(state), told: Arc::default() };
                }
                Err(StateError::Locked(_)) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        }
        panic!("the folder stayed locked");
    }
}

fn application(id: &str, extent: Extent) -> Target {
    Target::Application { id: id.into(), extent }
}

struct Catalog;

impl ResourceCatalog for Catalog {
    fn find(&self, identifier_or_id: &str) -> Option<ResourceInfo> {
        let known: [(&str, &str, &[&str]); 2] = [
            ("row-a", "resource://a", &["a:read", "a:write", "shared"]),
            ("row-b", "resource://b", &["b:read", "shared"]),
        ];
        known.into_iter().find(|(id, name, _)| [*id, *name].contains(&identifier_or_id)).map(
            |(id, name, scopes)| ResourceInfo {
                id: id.into(),
                identifier: name.into(),
                scopes: scopes.iter().map(|scope| Arc::from(*scope)).collect(),
            },
        )
    }
}

fn record(name: &str, application: &str, kind: RecordKind, now: i64) -> AuthorityRecord {
    let id: Arc<str> = format!("rec-{name}").into();
    AuthorityRecord {
        zone: ZONE.into(),
        subject: name.into(),
        application: application.into(),
        root: Arc::clone(&id),
        parent: None,
        kind,
        issued_at: now,
        expires_at: now.saturating_add(DAY),
        revoked: false,
        approved: false,
        id,
    }
}

fn caller(application: &str) -> Caller {
    caller_with(application, &["agent:lifecycle"])
}

fn caller_with(application: &str, scopes: &[&str]) -> Caller {
    Caller::Application(ApplicationCaller {
        id: application.into(),
        subject: application.into(),
        record: Some(format!("rec-{application}").into()),
        scopes: scopes.iter().map(|scope| Arc::from(*scope)).collect(),
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
        parent_authority: ParentAuthority::Inherit,
        inherit_edge: None,
        metadata: json!({}),
        idempotency: None,
    }
}

fn under(parent: &Session) -> StartSession {
    StartSession { parent: Some(Arc::clone(&parent.id)), ..start(&parent.application) }
}

/// `a:read` on resource a, for ten minutes, three hops.
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

fn hops(request: CreateDelegation, hops: u32) -> CreateDelegation {
    let constraints = Constraints { max_hops: Some(hops), ..request.constraints };
    CreateDelegation { constraints, ..request }
}

fn seconds(request: CreateDelegation, ttl: u32) -> CreateDelegation {
    CreateDelegation { ttl_seconds: Some(ttl), ..request }
}

fn key(text: &str, request: u8, kind: KeyKind) -> Option<IdempotencyKey> {
    Some(IdempotencyKey { key: text.into(), kind, request_digest: [request; 32] })
}

fn scopes(list: &[&str]) -> Vec<Arc<str>> {
    list.iter().map(|scope| Arc::from(*scope)).collect()
}

fn code(error: &CoordinatorError) -> (u16, &'static str) {
    (error.status, error.code)
}
