//! What a retry gets after the request was made.

use super::*;

const ANY: &str = r#"{ name = "any", when = "true", operations = ["POST /write/**"], effect = "approval", tier = "large" }"#;

async fn approved(edge: &Edge, agent: &Agent, path: &str) -> String {
    let id = got(request(edge, agent, path, "x").await).await.id();
    answer(edge, &id, true).await;
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_outcome_is_repeated_as_it_was_for_two_minutes() {
    let clock = Clock::manual(Clock::system().now());
    let embedding = Embedding { clock: clock.clone(), ..Embedding::default() };
    let (edge, agent) = with(Plan { embedding, ..plan(ANY) }).await;
    let id = approved(&edge, &agent, "/write/cookie").await;
    let first = got(request(&edge, &agent, "/write/cookie", "x").await).await;
    assert_eq!((first.status, first.replayed()), (200, None), "{first:?}");
    clock.advance(Duration::from_secs(119));
    let again = got(request(&edge, &agent, "/write/cookie", "x").await).await;
    assert_eq!((again.status, again.replayed()), (200, Some(id.as_str())));
    assert_eq!(again.text, first.text);
    let fields = |got: &Got| {
        let own = ["x-caracal-replayed", "x-request-id", "x-caracal-token-expires-in", "date", "connection"];
        let mut fields: Vec<_> = got
            .headers
            .iter()
            .filter(|(name, _)| !own.contains(&name.as_str()))
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        fields.sort();
        fields
    };
    assert_eq!(fields(&first), fields(&again));
    let failed =
        got(request(&edge, &agent, "/write/cookie", "x").await.header("x-caracal-approval", &id)).await;
    assert_eq!(failed.replayed(), Some(id.as_str()), "also on the reference");
    assert_eq!(edge.upstream.count(), 1);
    clock.advance(Duration::from_secs(2));
    let late = got(request(&edge, &agent, "/write/cookie", "x").await).await;
    assert_eq!((late.error().as_str(), late.id() == id), ("interaction_required", false), "a new question");
    let named =
        got(request(&edge, &agent, "/write/cookie", "x").await.header("x-caracal-approval", &id)).await;
    assert_eq!((named.status, named.error().as_str()), (409, "approval_consumed"));
    assert_eq!(edge.upstream.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_upstream_is_an_outcome() {
    let (edge, agent) = with(plan(ANY)).await;
    approved(&edge, &agent, "/write/never").await;
    for replayed in [false, true] {
        let got = got(request(&edge, &agent, "/write/never", "x").await).await;
        assert_eq!((got.status, got.text.as_str(), got.replayed().is_some()), (401, "no", replayed));
    }
    assert_eq!(edge.upstream.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_repeated_is_a_conflict_and_is_not_sent_again() {
    let (edge, agent) = with(plan(ANY)).await;
    // Too long, broken off by the upstream, never answered because the caller went away, and a stream of events.
    for (path, begun) in
        [("/write/long", true), ("/write/reset", true), ("/write/slow", false), ("/write/sse", false)]
    {
        approved(&edge, &agent, path).await;
        let first = request(&edge, &agent, path, "x").await;
        if begun {
            let first = got(first).await;
            assert!(matches!(first.status, 200 | 502), "{path}: {first:?}");
        } else {
            let short = first.timeout(Duration::from_millis(500)).send().await;
            drop(short);
        }
        let before = edge.upstream.count();
        let again = got(request(&edge, &agent, path, "x").await).await;
        assert_eq!((again.status, again.error().as_str()), (409, "approval_consumed"), "{path}: {again:?}");
        assert_eq!(edge.upstream.count(), before, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_outcome_passes_every_gate_but_the_budget() {
    let mut asking = plan(ANY);
    asking.zone.push_str("\n[[budgets]]\nname = \"few\"\nper = \"session\"\ncalls = 1\n");
    let (edge, agent) = with(asking).await;
    approved(&edge, &agent, "/write/pay").await;
    assert_eq!(got(request(&edge, &agent, "/write/pay", "x").await).await.status, 200);
    let again = got(request(&edge, &agent, "/write/pay", "x").await).await;
    assert_eq!((again.status, again.replayed().is_some()), (200, true), "{again:?}");
    let used = agent.mint(&edge, &["echo:write"]).await;
    let send = async || {
        let request =
            edge.http.post(format!("{}/write/pay", edge.gateway())).header("x-caracal-resource", ECHO);
        let request = request.bearer_auth(&used).header("content-type", "application/json");
        got(request.body("x")).await
    };
    assert_eq!((send().await.status, send().await.status), (200, 401), "each takes a mandate");
    let narrower = edge.bundle_text().replace(r#"["echo:read", "echo:write"] }"#, r#"["echo:read"] }"#);
    let unused = agent.mint(&edge, &["echo:write"]).await;
    assert_ne!(narrower, edge.bundle_text());
    std::fs::write(edge.bundle(), narrower).unwrap();
    ask(&edge, Request::Reload).await.unwrap();
    let request = edge.http.post(format!("{}/write/pay", edge.gateway())).header("x-caracal-resource", ECHO);
    let request = request.bearer_auth(unused).header("content-type", "application/json").body("x");
    assert_eq!(got(request).await.status, 403, "what is not granted any more is not repeated either");
}
