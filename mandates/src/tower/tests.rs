use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use ::tower::{Layer as _, Service as _, ServiceExt as _, service_fn};
use http::{Request, Response};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::*;
use crate::claims::{Claims, Use};
use crate::keys::{SigningKey, ZoneKeys};
use crate::resource_server::{MemoryRevocations, Need};
use crate::testing::{ISSUER, KID, NOW, ZONE, full_claims, good_header, signed};

const RESOURCE: &str = "resource://echo";
const OTHER_KID: &str = "01999a5b-0000-7000-8000-000000000002";

/// An authority whose key set can change, be away, or keep one waiting.
#[derive(Debug, Default)]
struct Authority {
    document: Mutex<Option<String>>,
    fetches: AtomicUsize,
    /// `None`: answers at once.
    hold: Mutex<Option<Arc<Semaphore>>>,
}

#[derive(Debug)]
struct Source(Arc<Authority>);

impl JwksSource for Source {
    fn fetch(&self, url: &str) -> Fetching {
        assert_eq!(url, "http://127.0.0.1:8080/.well-known/jwks.json?zone_id=quickstart");
        let authority = Arc::clone(&self.0);
        authority.fetches.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let hold = authority.hold.lock().clone();
            if let Some(hold) = hold {
                hold.acquire().await.unwrap().forget();
            }
            let document = authority.document.lock().clone();
            document.map(String::into_bytes).ok_or_else(|| FetchFailed::new("away"))
        })
    }
}

struct Bench {
    key: Arc<SigningKey>,
    authority: Arc<Authority>,
    store: Arc<MemoryRevocations>,
    now: Arc<AtomicI64>,
    protection: Protection,
}

impl Bench {
    fn new() -> Self {
        Self::with(Settings::new(ISSUER, RESOURCE, ZONE))
    }

    fn with(settings: Settings) -> Self {
        let key = Arc::new(SigningKey::generate(KID).unwrap());
        let authority = Arc::new(Authority::default());
        let store = Arc::new(MemoryRevocations::default());
        let now = Arc::new(AtomicI64::new(NOW + 10));
        let clock = Arc::clone(&now);
        let revocations: Arc<dyn Revocations> = Arc::<MemoryRevocations>::clone(&store);
        let protection = Protection::new(settings, Source(Arc::clone(&authority)), revocations, move || {
            clock.load(Ordering::Relaxed)
        })
        .unwrap();
        let bench = Self { key, authority, store, now, protection };
        bench.publish(&[&bench.key]);
        bench
    }

    fn publish(&self, keys: &[&Arc<SigningKey>]) {
        let others = keys[1..].iter().map(|key| key.public().clone());
        let set = ZoneKeys::new(Arc::clone(keys[0]), others).unwrap();
        *self.authority.document.lock() = Some(set.jwks().to_owned());
    }

    fn away(&self) {
        *self.authority.document.lock() = None;
    }

    fn hold(&self) -> Arc<Semaphore> {
        let hold = Arc::new(Semaphore::new(0));
        *self.authority.hold.lock() = Some(Arc::clone(&hold));
        hold
    }

    fn later(&self, seconds: i64) {
        self.now.fetch_add(seconds, Ordering::Relaxed);
    }

    fn fetches(&self) -> usize {
        self.authority.fetches.load(Ordering::Relaxed)
    }

    fn token(&self, changes: &[(&str, Value)]) -> String {
        sign(&self.key, &good_header(), changes)
    }

    /// Status and `error` of a request to a service that answers 200 with the proven application.
    async fn ask(&self, authorization: &[&str]) -> (u16, String) {
        answered(&self.protection.layer(), authorization).await
    }

    async fn ask_with(&self, token: &str) -> (u16, String) {
        self.ask(&[&format!("Bearer {token}")]).await
    }
}

fn sign(key: &SigningKey, header: &str, changes: &[(&str, Value)]) -> String {
    let claims =
        Claims { use_: Use::Resource, aud: vec![RESOURCE.into()], exp: NOW + 86_400, ..full_claims() };
    let mut payload = serde_json::to_value(claims).unwrap();
    for (name, value) in changes {
        payload[*name] = value.clone();
    }
    signed(key, header, &payload.to_string())
}

fn request(authorization: &[&str]) -> Request<String> {
    let mut request = Request::builder().uri("/things");
    for value in authorization {
        request = request.header("authorization", *value);
    }
    request.body(String::new()).unwrap()
}

async fn answered(layer: &ProtectLayer, authorization: &[&str]) -> (u16, String) {
    let service = layer.layer(service_fn(async |request: Request<String>| {
        let principal = request.extensions().get::<Principal>().unwrap();
        Ok::<_, std::convert::Infallible>(Response::new(principal.application().to_owned()))
    }));
    let response = service.oneshot(request(authorization)).await.unwrap();
    let status = response.status().as_u16();
    if status == 200 {
        return (status, response.into_body());
    }
    assert_eq!(response.headers()["content-type"], "application/json");
    assert!(!response.headers().contains_key("www-authenticate"));
    let body: Value = serde_json::from_str(response.body()).unwrap();
    assert!(body["error_description"].is_string() && body["error_hint"].is_string(), "{body}");
    (status, body["error"].as_str().unwrap().to_owned())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn passed() -> (u16, String) {
    (200, "demo-agent".to_owned())
}

#[tokio::test]
async fn the_service_sees_who_was_proven() {
    let bench = Bench::new();
    let layer = bench.protection.requiring(Requirements::default().scope("echo:read").session().delegation());
    let service = layer.layer(service_fn(async |request: Request<String>| {
        let principal = request.extensions().get::<Principal>().unwrap().clone();
        Ok::<_, std::convert::Infallible>(Response::new(json!({
            "application": principal.application(), "subject": principal.subject(), "zone": principal.zone(),
            "session": principal.session(), "delegation": principal.delegation(),
            "write": principal.has_scope("echo:write"), "pay": principal.has_scope("echo"),
            "use": principal.claims().use_, "type": principal.subject_type(),
        }).to_string()))
    }));
    let response = service.oneshot(request(&[&format!("bearer  {}", bench.token(&[]))])).await.unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(response.body()).unwrap(),
        json!({
            "application": "demo-agent", "subject": "demo-agent", "zone": ZONE, "session": "s2",
            "delegation": "e1", "write": true, "pay": false, "use": "resource", "type": "application",
        })
    );
}

#[tokio::test]
async fn each_refusal_has_the_status_and_code_of_the_official_adapters() {
    let bench = Bench::new();
    bench.store.revoke("r1", NOW * 1_000).unwrap();
    let fine = [("root_sid", json!("r2"))];
    for (changes, expected) in [
        (&[][..], refused(401, "session_revoked")),
        (&fine[..], passed()),
        (&[("zone_id", json!("other"))], refused(401, "invalid_zone")),
        (&[("aud", json!(["resource://other"]))], refused(401, "invalid_token")),
        (&[("iss", json!("http://127.0.0.1:1"))], refused(401, "invalid_token")),
        (&[("exp", json!(NOW - 60))], refused(401, "invalid_token")),
        (&[("use", json!("gateway"))], refused(401, "invalid_token")),
    ] {
        assert_eq!(bench.ask_with(&bench.token(changes)).await, expected, "{changes:?}");
    }
    bench.store.raise_epoch(ZONE, 8);
    assert_eq!(bench.ask_with(&bench.token(&fine)).await, refused(401, "delegation_stale"));
    let good = format!("Bearer {}", bench.token(&[]));
    for headers in [&[][..], &["Basic YTpi"], &["Bearer"], &["Bearer "]] {
        assert_eq!(bench.ask(headers).await, refused(401, "missing_token"), "{headers:?}");
    }
    assert_eq!(bench.ask(&[&good, &good]).await, refused(401, "invalid_token"), "two tokens");
}

#[tokio::test]
async fn a_route_asks_for_more_than_the_application() {
    let bench = Bench::new();
    let good = format!("Bearer {}", bench.token(&[]));
    let needs = Requirements::default;
    for (requirements, expected) in [
        (needs().scope("echo:read").scope("echo:write"), passed()),
        (needs().scope("echo:admin"), refused(403, "insufficient_scope")),
        (needs().target(RESOURCE), passed()),
        (needs().target("resource://other"), refused(401, "invalid_token")),
        (needs().through("demo-agent").max_hops(1), passed()),
        (needs().through("somebody"), refused(403, "chain_mismatch")),
    ] {
        let layer = bench.protection.requiring(requirements.clone());
        assert_eq!(answered(&layer, &[&good]).await, expected, "{requirements:?}");
    }
    let plain = bench.token(&[("agent_session_id", json!(null)), ("delegation_edge_id", json!(null))]);
    let long = bench.token(&[("hop_count", json!(2))]);
    for (requirements, token, code) in [
        (needs().session(), &plain, "session_required"),
        (needs().delegation(), &plain, "delegation_required"),
        (needs().max_hops(1), &long, "hop_count_exceeded"),
    ] {
        let layer = bench.protection.requiring(requirements);
        assert_eq!(answered(&layer, &[&format!("Bearer {token}")]).await, refused(403, code));
    }
}

#[test]
fn a_route_cannot_ask_for_less_than_the_application() {
    let base = Settings {
        session: Need::Required,
        max_hop_count: 2,
        required_scopes: vec!["a".into()],
        ..Settings::new(ISSUER, RESOURCE, ZONE)
    };
    let settings = Requirements::default().scope("b").max_hops(7).added_to(base);
    assert_eq!((settings.session, settings.max_hop_count), (Need::Required, 2));
    assert_eq!(settings.required_scopes, ["a", "b"]);
    let unlimited = Settings { max_hop_count: 0, ..Settings::new(ISSUER, RESOURCE, ZONE) };
    assert_eq!(Requirements::default().max_hops(40).added_to(unlimited).max_hop_count, 10);
}

#[test]
fn protection_without_a_zone_or_a_safe_issuer_is_not_made() {
    let make = |issuer, zone| {
        let store = Arc::new(MemoryRevocations::default());
        Protection::new(Settings::new(issuer, RESOURCE, zone), Source(Arc::default()), store, || NOW).err()
    };
    assert_eq!(make(ISSUER, ""), Some(Refused::ZoneInvalid));
    assert_eq!(make("http://authority.example", ZONE), Some(Refused::InvalidToken("issuer URL")));
    assert_eq!(make("https://authority.example", ZONE), None);
}

#[tokio::test]
async fn the_key_set_is_fetched_once_and_again_after_five_minutes() {
    let bench = Bench::new();
    assert_eq!(bench.ask(&["Bearer junk"]).await, refused(401, "invalid_token"));
    assert_eq!(bench.fetches(), 0, "junk makes nobody fetch");
    let token = bench.token(&[]);
    for (wait, fetches) in [(0, 1), (299, 1), (1, 2), (299, 2)] {
        bench.later(wait);
        assert_eq!(bench.ask_with(&token).await, passed());
        assert_eq!(bench.fetches(), fetches);
    }
}

#[tokio::test]
async fn an_unknown_key_refetches_but_not_more_often_than_the_cooldown() {
    let bench = Bench::new();
    assert_eq!(bench.ask_with(&bench.token(&[])).await, passed());
    let next = Arc::new(SigningKey::generate(OTHER_KID).unwrap());
    let header = json!({"alg": "ES256", "typ": "JWT", "kid": OTHER_KID}).to_string();
    let token = sign(&next, &header, &[]);
    bench.publish(&[&next, &bench.key]);
    assert_eq!(bench.ask_with(&token).await, refused(401, "invalid_token"), "within the cooldown");
    bench.later(10);
    assert_eq!(bench.ask_with(&token).await, passed());
    assert_eq!(bench.fetches(), 2);
    let stranger = sign(&next, &json!({"alg": "ES256", "typ": "JWT", "kid": "stranger"}).to_string(), &[]);
    for _ in 0..100 {
        assert_eq!(bench.ask_with(&stranger).await, refused(401, "invalid_token"));
    }
    assert_eq!(bench.fetches(), 2);
    bench.later(10);
    for _ in 0..100 {
        assert_eq!(bench.ask_with(&stranger).await, refused(401, "invalid_token"));
    }
    assert_eq!(bench.fetches(), 3);
}

#[tokio::test]
async fn an_authority_that_is_away_is_done_without_for_a_bounded_time() {
    let bench = Bench::new();
    bench.away();
    let token = bench.token(&[]);
    assert_eq!(bench.ask_with(&token).await, refused(401, "invalid_token"), "no keys, no entry");
    assert_eq!(bench.ask_with(&token).await, refused(401, "invalid_token"));
    assert_eq!(bench.fetches(), 1, "not asked again at once");
    bench.publish(&[&bench.key]);
    bench.later(10);
    assert_eq!(bench.ask_with(&token).await, passed());
    bench.away();
    bench.later(899);
    assert_eq!(bench.ask_with(&token).await, passed(), "a stale set is used");
    bench.later(1);
    assert_eq!(bench.ask_with(&token).await, refused(401, "invalid_token"), "but not for ever");
    *bench.authority.document.lock() = Some(r#"{"keys":[]}"#.into());
    bench.later(10);
    assert_eq!(bench.ask_with(&token).await, refused(401, "invalid_token"), "an empty set is none");
}

#[tokio::test]
async fn many_requests_share_one_fetch() {
    let bench = Arc::new(Bench::new());
    let hold = bench.hold();
    let token = bench.token(&[]);
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let (bench, token) = (Arc::clone(&bench), token.clone());
            tokio::spawn(async move { bench.ask_with(&token).await })
        })
        .collect();
    tokio::task::yield_now().await;
    hold.add_permits(20);
    for asked in asking {
        assert_eq!(asked.await.unwrap(), passed());
    }
    assert_eq!(bench.fetches(), 1);
}

#[tokio::test]
async fn a_refresh_keeps_waiting_only_the_request_that_began_it() {
    let bench = Arc::new(Bench::new());
    let token = bench.token(&[]);
    assert_eq!(bench.ask_with(&token).await, passed());
    bench.later(300);
    let hold = bench.hold();
    let first = tokio::spawn({
        let (bench, token) = (Arc::clone(&bench), token.clone());
        async move { bench.ask_with(&token).await }
    });
    while bench.fetches() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.ask_with(&token).await, passed(), "served with the set at hand");
    assert!(!first.is_finished());
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    // Whoever comes next takes the abandoned fetch on; no second one is begun.
    hold.add_permits(1);
    bench.publish(&[&Arc::new(SigningKey::generate(OTHER_KID).unwrap())]);
    assert_eq!(bench.ask_with(&token).await, refused(401, "invalid_token"), "the key was withdrawn");
    assert_eq!(bench.fetches(), 2);
}

#[tokio::test]
async fn long_work_learns_that_its_mandate_ended() {
    let bench = Bench::new();
    let revocations: Arc<dyn Revocations> = Arc::<MemoryRevocations>::clone(&bench.store);
    let verifier = Verifier::new(Settings::new(ISSUER, RESOURCE, ZONE), revocations);
    let gate = Gate { protection: bench.protection.clone(), verifier: Arc::new(verifier) };
    let principal = gate.admit(&bench.token(&[("exp", json!(NOW + 100))])).await.unwrap();
    assert_eq!(principal.recheck(), Ok(()));
    bench.store.revoke("e1", NOW * 1_000).unwrap();
    assert_eq!(principal.recheck(), Err(Refused::SessionRevoked));
    bench.later(100);
    assert_eq!(principal.recheck(), Err(Refused::InvalidToken("exp")));
}

/// Panics when it is called without having been polled ready.
#[derive(Clone, Default)]
struct Strict {
    ready: bool,
}

impl ::tower::Service<Request<String>> for Strict {
    type Response = Response<String>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        self.ready = true;
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<String>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        std::future::ready(Ok(Response::new(String::new())))
    }
}

#[tokio::test]
async fn the_instance_that_was_ready_serves_the_request() {
    let bench = Bench::new();
    let mut service = bench.protection.layer().layer(Strict::default());
    for _ in 0..3 {
        let ready = service.ready().await.unwrap();
        let answer = ready.call(request(&[&format!("Bearer {}", bench.token(&[]))])).await.unwrap();
        assert_eq!(answer.status(), 200);
    }
}

#[test]
fn nothing_secret_is_printed() {
    let shown = format!("{:?}", Bench::new().protection);
    assert!(shown.contains(RESOURCE) && !shown.contains("Bearer"), "{shown}");
}
