use super::beside::Beside;
use super::*;

fn service(application: &str, url: &str) -> RegisterService {
    RegisterService {
        zone: ZONE.into(),
        caller: caller(application),
        application: application.into(),
        application_known: true,
        endpoint_url: url.into(),
        protocol_versions: vec!["1".into()],
        framework_name: Some("own".into()),
        framework_version: None,
        capabilities: vec!["summarise".into()],
        metadata: json!({}),
    }
}

fn ask(service: &AgentService, key: &str) -> CreateInvocation {
    CreateInvocation {
        zone: ZONE.into(),
        caller: caller("app"),
        service: Arc::clone(&service.id),
        source_session: None,
        target_session: None,
        method: "run".into(),
        params: json!({ "text": "hello" }),
        metadata: json!({ "trace": 1 }),
        timeout_ms: 30_000,
        max_attempts: 2,
        backoff_ms: 0,
        idempotency: super::key(key, 1, KeyKind::Chosen).unwrap(),
    }
}

async fn registered(bench: &Bench) -> Arc<AgentService> {
    bench.state.register_service(service("other", "http://127.0.0.1:9/a")).await.unwrap()
}

async fn asked(bench: &Bench, request: CreateInvocation) -> String {
    bench.state.create_invocation(request).await.unwrap().response["id"].as_str().unwrap().to_owned()
}

async fn not_asked(bench: &Bench, request: CreateInvocation) -> (u16, &'static str) {
    code(&bench.state.create_invocation(request).await.unwrap_err())
}

#[tokio::test]
async fn a_service_is_named_by_application_and_endpoint() {
    let bench = Bench::new().await;
    let first = registered(&bench).await;
    let health = bench.state.service_heard(ZONE, &first.id, "other", ServiceHealth::Degraded).await.unwrap();
    assert_eq!((health.health, health.last_heartbeat_at), (ServiceHealth::Degraded, Some(START)));
    let described = RegisterService { capabilities: Vec::new(), ..service("other", "http://127.0.0.1:9/a") };
    let again = bench.state.register_service(described).await.unwrap();
    assert_eq!((&again.id, again.health), (&first.id, ServiceHealth::Degraded), "the same one");
    assert!(again.capabilities.is_empty());
    let elsewhere = bench.state.register_service(service("app", "http://127.0.0.1:9/a")).await.unwrap();
    assert_ne!(elsewhere.id, first.id);
    let foreign = RegisterService { caller: caller("app"), ..service("other", "http://127.0.0.1:9/b") };
    assert_eq!(
        code(&bench.state.register_service(foreign).await.unwrap_err()).1,
        "application_ownership_required"
    );
    let refused =
        bench.state.service_heard(ZONE, &first.id, "app", ServiceHealth::Healthy).await.unwrap_err();
    assert_eq!(code(&refused), (404, "agent_service_not_found"));
    let bench = bench.crash().await;
    assert_eq!(bench.state.service(ZONE, &first.id).unwrap(), again);
    bench.pass(31 * DAY);
    bench.state.sweep(bench.now()).await.unwrap();
    assert!(bench.state.service(ZONE, &first.id).is_none(), "not heard of for a month");
}

#[tokio::test]
async fn an_invocation_goes_through_its_life_and_over_a_crash() {
    let bench = Bench::new().await;
    let asked_of = registered(&bench).await;
    let id = asked(&bench, ask(&asked_of, "one")).await;
    let (state, other) = (Arc::clone(&bench.state), caller("other"));
    let refused = state.start_invocation(ZONE, &id, &caller("app")).await.unwrap_err();
    assert_eq!(code(&refused), (403, "application_ownership_required"), "who serves starts");
    let running = state.start_invocation(ZONE, &id, &other).await.unwrap();
    assert_eq!((running.status, running.deadline_at), (InvocationStatus::Running, Some(START + 30_000)));
    let refused = state.start_invocation(ZONE, &id, &other).await.unwrap_err();
    assert_eq!(code(&refused), (409, "invocation_not_startable"));
    let outcome = json!({ "error": "no luck" });
    let failed = state.complete_invocation(ZONE, &id, &other, Completion::Failed, &outcome).await.unwrap();
    assert_eq!(failed.status, InvocationStatus::Failed);
    drop(state);

    let bench = bench.crash().await;
    let canceled = bench.state.cancel_invocation(ZONE, &id, &caller("app"), Some("enough")).await.unwrap();
    assert_eq!(canceled.status, InvocationStatus::Canceled, "failed, with an attempt left");
    let refused = bench.state.start_invocation(ZONE, &id, &other).await.unwrap_err();
    assert_eq!(code(&refused), (409, "invocation_not_startable"));
    let refused = bench.state.cancel_invocation(ZONE, &id, &other, None).await.unwrap_err();
    assert_eq!(code(&refused), (409, "invocation_not_cancelable"));
    let done = bench.state.complete_invocation(ZONE, &id, &other, Completion::Succeeded, &outcome).await;
    assert_eq!(code(&done.unwrap_err()), (409, "invocation_not_completable"));

    let bench = bench.restart().await;
    let shown = bench.state.invocation_detail(ZONE, &id, &caller("app")).await.unwrap();
    assert_eq!((&shown["status"], &shown["attempts"]), (&json!("canceled"), &json!(1)));
    assert_eq!(shown["params"], json!({ "text": "hello" }));
    assert_eq!((&shown["outcome"]["error"], &shown["cancel_reason"]), (&json!("no luck"), &json!("enough")));
    bench.pass(2 * DAY);
    bench.state.sweep(bench.now()).await.unwrap();
    assert_eq!(code(&bench.state.read_invocation(ZONE, &id, &caller("app")).unwrap_err()).0, 404);
}

#[tokio::test]
async fn what_runs_past_its_deadline_is_timed_out_by_a_read_and_by_the_sweep() {
    let bench = Bench::new().await;
    let asked_of = registered(&bench).await;
    let (one, two) = (asked(&bench, ask(&asked_of, "1")).await, asked(&bench, ask(&asked_of, "2")).await);
    for id in [&one, &two] {
        bench.state.start_invocation(ZONE, id, &caller("other")).await.unwrap();
    }
    bench.state.cancel_invocation(ZONE, &two, &caller("app"), None).await.unwrap();
    bench.pass(30_000);
    let read = bench.state.read_invocation(ZONE, &one, &caller("app")).unwrap();
    assert_eq!((read.status, read.completed_at), (InvocationStatus::TimedOut, Some(bench.now())));
    let (server, nothing) = (caller("other"), json!({}));
    let late = bench.state.complete_invocation(ZONE, &one, &server, Completion::Succeeded, &nothing).await;
    assert_eq!(code(&late.unwrap_err()), (409, "invocation_not_completable"));
    bench.state.sweep(bench.now()).await.unwrap();
    let bench = bench.crash().await;
    for id in [&one, &two] {
        let row = bench.state.read_invocation(ZONE, id, &caller("app")).unwrap();
        assert_eq!(row.status, InvocationStatus::TimedOut, "also when it was asked to stop");
    }
}

#[tokio::test]
async fn a_key_names_one_invocation_whatever_became_of_it() {
    let bench = Bench::new().await;
    let asked_of = registered(&bench).await;
    let first = bench.state.create_invocation(ask(&asked_of, "k")).await.unwrap();
    let id = first.response["id"].as_str().unwrap();
    bench.state.cancel_invocation(ZONE, id, &caller("app"), None).await.unwrap();
    let again = bench.state.create_invocation(ask(&asked_of, "k")).await.unwrap();
    assert!(again.replayed && !first.replayed);
    assert_eq!(again.response, first.response);
    let differs =
        CreateInvocation { idempotency: key("k", 2, KeyKind::Chosen).unwrap(), ..ask(&asked_of, "k") };
    assert_eq!(not_asked(&bench, differs).await, (409, "idempotency_key_conflict"));
    let (left, right) = tokio::join!(
        bench.state.create_invocation(ask(&asked_of, "both")),
        bench.state.create_invocation(ask(&asked_of, "both"))
    );
    assert_eq!(left.unwrap().response, right.unwrap().response);
    let theirs = CreateInvocation { caller: caller("other"), ..ask(&asked_of, "k") };
    assert!(!bench.state.create_invocation(theirs).await.unwrap().replayed, "another application's key");
    let bench = bench.crash().await;
    assert!(bench.state.create_invocation(ask(&asked_of, "k")).await.unwrap().replayed);
}

#[tokio::test]
async fn sessions_that_are_named_must_be_live_tasks_of_the_right_party() {
    let bench = Bench::new().await;
    let asked_of = registered(&bench).await;
    let (task, service) = (bench.session("app").await, bench.service("app").await);
    let theirs = bench.session("other").await;
    let from = |session: &Session, key: &str| CreateInvocation {
        source_session: Some(Arc::clone(&session.id)),
        ..ask(&asked_of, key)
    };
    assert_eq!(not_asked(&bench, from(&service, "1")).await, (404, "session_not_found"));
    assert_eq!(not_asked(&bench, from(&theirs, "2")).await, (403, "invoker_ownership_required"));
    let helper = caller_with("app", &["coordinator.invoke_from:other"]);
    let id = asked(&bench, CreateInvocation { caller: helper, ..from(&theirs, "3") }).await;
    assert_eq!(*bench.state.read_invocation(ZONE, &id, &caller("other")).unwrap().invoker, *"other");
    let target = CreateInvocation { target_session: Some(Arc::clone(&theirs.id)), ..from(&task, "4") };
    let both = asked(&bench, target).await;
    bench.state.end_session(ZONE, &task.id, &caller("app"), None, "done").await.unwrap();
    assert_eq!(not_asked(&bench, from(&task, "5")).await, (404, "session_not_found"));
    let lost = CreateInvocation { service: "nobody".into(), ..ask(&asked_of, "6") };
    assert_eq!(not_asked(&bench, lost).await, (404, "agent_service_not_found"));

    bench.record("third", "third", RecordKind::Application).await;
    let page = PageRequest { limit: 10, cursor: None };
    let listed = |caller: &Caller, filter: &InvocationFilter| {
        let page = bench.state.list_invocations(ZONE, caller, filter, &page).unwrap();
        page.items.iter().map(|row| row.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(listed(&caller("third"), &InvocationFilter::default()), Vec::<String>::new());
    assert_eq!(listed(&Caller::Operator, &InvocationFilter::default()).len(), 2);
    let of = InvocationFilter { session: Some(theirs.id.to_string()), ..InvocationFilter::default() };
    assert_eq!(listed(&caller("app"), &of), [both]);
    let over = InvocationFilter { status: Some(InvocationStatus::Dead), ..InvocationFilter::default() };
    assert!(listed(&caller("app"), &over).is_empty());
    assert_eq!(code(&bench.state.read_invocation(ZONE, &id, &caller("third")).unwrap_err()).0, 404);
}

#[tokio::test]
async fn services_and_open_invocations_have_a_limit() {
    let limits = StateLimits { services_per_zone: 1, invocations_per_zone: 1, ..StateLimits::default() };
    let bench = Bench::with(limits).await;
    let asked_of = registered(&bench).await;
    let more = bench.state.register_service(service("app", "http://127.0.0.1:9/b")).await.unwrap_err();
    assert_eq!(code(&more), (429, "agent_service_limit_exceeded"));
    let id = asked(&bench, ask(&asked_of, "1")).await;
    assert_eq!(not_asked(&bench, ask(&asked_of, "2")).await, (429, "invocation_limit_exceeded"));
    bench.state.cancel_invocation(ZONE, &id, &caller("app"), None).await.unwrap();
    asked(&bench, ask(&asked_of, "2")).await;
}

#[tokio::test]
async fn a_step_or_a_word_of_a_service_that_is_not_committed_is_taken_back() {
    let bench = Bench::new().await;
    let asked_of = registered(&bench).await;
    let id = asked(&bench, ask(&asked_of, "1")).await;
    let mut store = Beside::connect(&bench).await;
    store.run("ALTER TABLE invocations RENAME TO invocations_away").await;
    store.run("ALTER TABLE agent_services RENAME TO services_away").await;
    let worker = caller("other");
    let refused = bench.state.start_invocation(ZONE, &id, &worker).await.unwrap_err();
    assert_eq!(code(&refused), (503, "state_unavailable"));
    let refused = bench.state.cancel_invocation(ZONE, &id, &caller("app"), None).await.unwrap_err();
    assert_eq!(code(&refused), (503, "state_unavailable"));
    let row = bench.state.read_invocation(ZONE, &id, &worker).unwrap();
    assert_eq!((row.status, row.attempts, row.deadline_at), (InvocationStatus::Pending, 0, None));
    let heard = bench.state.service_heard(ZONE, &asked_of.id, "other", ServiceHealth::Healthy).await;
    assert_eq!(code(&heard.unwrap_err()), (503, "state_unavailable"));
    assert_eq!(bench.state.service(ZONE, &asked_of.id), Some(Arc::clone(&asked_of)));
    let another = bench.state.register_service(service("other", "http://127.0.0.1:9/b")).await;
    assert_eq!(code(&another.unwrap_err()), (503, "state_unavailable"));
    let page = PageRequest { limit: 10, cursor: None };
    assert_eq!(bench.state.list_services(ZONE, &page).unwrap().items.len(), 1);
    store.run("ALTER TABLE invocations_away RENAME TO invocations").await;
    store.run("ALTER TABLE services_away RENAME TO agent_services").await;
    assert_eq!(bench.state.start_invocation(ZONE, &id, &worker).await.unwrap().attempts, 1);
    let done = bench.state.complete_invocation(ZONE, &id, &worker, Completion::Succeeded, &json!(1)).await;
    assert_eq!(done.unwrap().status, InvocationStatus::Succeeded);
}
