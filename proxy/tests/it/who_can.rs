//! Who may send a request: the answers of the edge against what it then does.

use caracal::control::{ControlError, Request, call, socket_path};
use serde_json::{Value, json};

use crate::edge::{APP, Agent, ECHO, Edge, Plan, ZONE};

async fn who(edge: &Edge, method: &str, url: &str) -> Result<Value, ControlError> {
    let request = Request::WhoCan { zone: None, method: method.to_owned(), url: url.to_owned() };
    call(&socket_path(&edge.path("state")), &request).await
}

async fn roles(edge: &Edge, method: &str, url: &str) -> Value {
    let told = who(edge, method, url).await.unwrap();
    assert_eq!(told["ways"].as_array().unwrap().len(), 1, "{told}");
    told["ways"][0]["applications"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_can_is_what_a_mint_and_a_request_get() {
    let mut edge = Edge::with(Plan { granted: vec!["echo:read"], ..Plan::default() }).await;
    let agent = Agent::provision(&edge, &["echo:read", "echo:write"]).await;
    let upstream = edge.upstream.url();
    let (read, write) = (format!("{upstream}/read/a"), format!("{upstream}/write/a?x=1"));
    let told = who(&edge, "GET", &read).await.unwrap();
    let way = &told["ways"][0];
    assert_eq!((&way["zone"], &way["resource"]), (&json!(ZONE), &json!(ECHO)));
    assert_eq!((&way["operation"], &way["scopes"]), (&json!("GET /read/**"), &json!(["echo:read"])));
    let may = |scope: &str| json!([{ "application": APP, "roles": [{ "label": APP, "scopes": [scope], "rule": "caracal-one-use" }] }]);
    assert_eq!(way["applications"], may("echo:read"));
    assert_eq!(
        edge.get("/read/a", &agent.mint(&edge, &["echo:read"]).await).send().await.unwrap().status(),
        200
    );
    assert_eq!(roles(&edge, "POST", &write).await, json!([]), "granted to nobody");
    assert_eq!(agent.try_mint(&edge, &["echo:write"], &[]).await.0, 403);

    // The same by prefix and by host, as the gateway routes.
    for url in ["/echo/read/a", "http://echo.test/read/a"] {
        assert_eq!(roles(&edge, "GET", url).await, may("echo:read"), "{url}");
    }
    let none = who(&edge, "DELETE", &read).await.unwrap();
    assert_eq!((&none["ways"][0]["operation"], &none["ways"][0]["scopes"]), (&Value::Null, &json!([])));

    edge.plan.granted = vec!["echo:read", "echo:write"];
    edge.plan.zone = format!("[[confinement]]\nlabel_prefix = \"{APP}\"\nscopes = [\"echo:write\"]\n");
    edge.write_files();
    edge.running().app.reloader.reload().await;
    assert_eq!(roles(&edge, "POST", &write).await, may("echo:write"));
    let confined =
        json!([{ "application": APP, "roles": [{ "label": APP, "refused": "confinement_violation" }] }]);
    assert_eq!(roles(&edge, "GET", &read).await, confined);
    assert_eq!(agent.try_mint(&edge, &["echo:read"], &[]).await.0, 403);

    call(&socket_path(&edge.path("state")), &Request::Freeze { zone: ZONE.into() }).await.unwrap();
    assert_eq!(roles(&edge, "POST", &write).await[0]["roles"][0]["refused"], "restriction_active");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_resource_takes_is_told_with_a_code() {
    let edge = Edge::start().await;
    let upstream = edge.upstream.url();
    let port = edge.upstream.address.port();
    for (url, code) in [
        ("/elsewhere", "no_resource"),
        ("http://other.example/read/a", "no_resource"),
        (&*format!("https://127.0.0.1:{port}/read/a"), "no_resource"),
        ("read/a", "malformed_url"),
        ("ftp://echo.test/read/a", "malformed_url"),
        ("http://user@echo.test/read/a", "malformed_url"),
        (&*format!("{upstream}/read/%2e%2e/a"), "path_refused"),
    ] {
        match who(&edge, "GET", url).await {
            Err(ControlError::Failed(failure)) => assert_eq!(failure.code, code, "{url}"),
            other => panic!("{url}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_requests_needed_is_read_back_from_the_ledger() {
    let edge = Edge::with(Plan { granted: vec!["echo:read", "echo:write"], ..Plan::default() }).await;
    let agent = Agent::provision(&edge, &["echo:read", "echo:write"]).await;
    let mandate = agent.mint(&edge, &["echo:read", "echo:write"]).await;
    assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200);
    // By prefix the path of the record is the one below it.
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let url = format!("{}/echo/read", edge.gateway());
    assert_eq!(edge.http.get(url).bearer_auth(mandate).send().await.unwrap().status(), 200);
    edge.ledger_with("gateway_resource_request", 2).await;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_caracal"));
    command.args(["policy", "unused", ZONE, "--json", "--config"]).arg(edge.path("caracal.toml"));
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let zone = &told["zones"][0];
    let carried = json!([{
        "application": APP, "carried": true, "label": APP, "resource": ECHO, "scope": "echo:write",
    }]);
    assert_eq!((&zone["requests"], &zone["unused_grants"]), (&json!(2), &carried));
    let operations: Vec<_> =
        zone["unused_operations"].as_array().unwrap().iter().map(|one| &one["operation"]).collect();
    assert_eq!(operations, ["POST /write/**", "POST /read/**"]);
}
