//! Places of an upstream that are looked at beside the calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use caracal::serve::ServeOptions;
use parking_lot::Mutex;

use crate::edge::{Agent, CANARY, ECHO, Edge, Plan, ZONE, eventually, write_private};
use crate::scripted::Scripted;

/// One place of an upstream: says whether it is well, and remembers every head.
struct Place {
    server: Scripted,
    well: Arc<AtomicBool>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Place {
    async fn start() -> Self {
        let (well, heads) = (Arc::new(AtomicBool::new(true)), Arc::<Mutex<Vec<String>>>::default());
        let (says, seen) = (Arc::clone(&well), Arc::clone(&heads));
        let server = Scripted::start(move |_, head| {
            seen.lock().push(head.to_owned());
            let well = says.load(Ordering::SeqCst) || !head.starts_with("GET /healthz");
            let status = if well { "204 No Content" } else { "503 Service Unavailable" };
            Some(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes())
        });
        Self { server: server.await, well, heads }
    }

    fn address(&self) -> String {
        self.server.address.to_string()
    }

    fn set(&self, well: bool) {
        self.well.store(well, Ordering::SeqCst);
    }

    fn calls(&self) -> usize {
        self.heads.lock().iter().filter(|head| head.starts_with("GET /read/")).count()
    }

    fn checks(&self) -> Vec<String> {
        self.heads.lock().iter().filter(|head| head.starts_with("GET /healthz?from=edge ")).cloned().collect()
    }
}

/// What the metrics say of a place; `None` before its first check.
async fn healthy(edge: &Edge, place: &str) -> Option<u8> {
    let metrics = edge.http.get(format!("{}/metrics", edge.ops())).send().await.unwrap();
    let text = metrics.text().await.unwrap();
    let name =
        format!("caracal_upstream_healthy{{address=\"{place}\",resource=\"{ECHO}\",zone=\"{ZONE}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_that_fails_its_check_is_left_alone_until_it_passes_again() {
    let (one, two) = (Place::start().await, Place::start().await);
    one.set(false);
    let resource = format!(
        "targets = {:?}\nhealth_check = {{ path = \"/healthz?from=edge\", interval_ms = 100 }}",
        [one.address(), two.address()]
    );
    let mut edge = Edge::prepared(Plan { resource, ..Plan::default() }).await;
    let secrets = format!(
        "schema = 1\n[secrets.echo]\nzones = [\"{ZONE}\"]\nhosts = [\"127.0.0.1\"]\napi_key = \"{CANARY}\"\n"
    );
    write_private(&edge.path("secrets.toml"), &secrets);
    edge.boot(ServeOptions::default()).await.unwrap();
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let call = async || {
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        edge.get("/read/a", &mandate).send().await.unwrap().status().as_u16()
    };
    let at = one.address();
    eventually("one fails", async || healthy(&edge, &at).await == Some(0)).await;
    assert_eq!(healthy(&edge, &two.address()).await, Some(1));
    for _ in 0..20 {
        assert_eq!(call().await, 204);
    }
    assert_eq!((one.calls(), two.calls()), (0, 20));

    // With all of them unwell, trying is better than not.
    two.set(false);
    let other = two.address();
    eventually("both fail", async || healthy(&edge, &other).await == Some(0)).await;
    assert_eq!(call().await, 204);

    one.set(true);
    eventually("one passes", async || healthy(&edge, &at).await == Some(1)).await;
    let before = two.calls();
    for _ in 0..20 {
        assert_eq!(call().await, 204);
    }
    assert_eq!(two.calls(), before);

    for head in one.checks() {
        let head = head.to_ascii_lowercase();
        assert!(head.contains(&format!("\r\nhost: {}\r\n", edge.upstream.address)), "{head}");
        assert!(!head.contains(CANARY) && !head.contains("authorization"), "{head}");
    }

    // A bundle that no longer asks for checks has none.
    let text = edge.bundle_text();
    let without: String = text
        .lines()
        .filter(|line| !line.starts_with("health_check"))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(edge.bundle(), without).unwrap();
    edge.running().app.reloader.reload().await;
    eventually("nothing is checked", async || healthy(&edge, &at).await.is_none()).await;
    for _ in 0..40 {
        assert_eq!(call().await, 204);
    }
    assert!(two.calls() > before, "no place is left alone any more");
}
