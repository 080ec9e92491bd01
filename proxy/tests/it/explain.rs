//! Why decisions came out as they did: told from the ledger of an edge that made them.

use serde_json::{Value, json};

use crate::edge::{Agent, ECHO, Edge, Plan, SECRET, ZONE, write_private};
use crate::versions::caracal;

async fn explained(edge: &Edge, id: &str) -> Value {
    edge.running().app.ledger.flush().await.unwrap();
    let (code, text, notes) = caracal(edge, &["explain", id, "--json"]).await;
    assert_eq!(code, 0, "{notes}");
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told["decisions"].as_array().unwrap().len(), 1, "{told}");
    told["decisions"][0].clone()
}

/// Explains a refusal, and checks that it ends where the reason says and that asking again gives the same.
async fn refused(edge: &Edge, body: &Value, reason: &str, rule: &str) -> Value {
    let told = explained(edge, body["decision_id"].as_str().unwrap_or_else(|| panic!("{body}"))).await;
    assert_eq!((&told["reason"], &told["bundle"]["in_force"]), (&json!(reason), &json!(true)), "{told}");
    let path = told["path"].as_array().unwrap();
    let (last, before) = path.split_last().unwrap();
    assert_eq!((&last["rule"], &last["holds"]), (&json!(rule), &json!(false)), "{told}");
    assert!(before.iter().all(|step| step["holds"] == true), "{told}");
    if rule != "standing" {
        assert_eq!(told["now"]["differs"], false, "{told}");
    }
    told
}

async fn body(request: reqwest::RequestBuilder, status: u16) -> Value {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), status);
    response.json().await.unwrap()
}

fn post(edge: &Edge, mandate: &str) -> reqwest::RequestBuilder {
    let url = format!("{}/write/a", edge.gateway());
    edge.http.post(url).header("x-caracal-resource", ECHO).bearer_auth(mandate)
}

async fn reload(edge: &Edge) {
    edge.write_files();
    edge.running().app.reloader.reload().await;
}

fn advice(told: &Value) -> &str {
    told["advice"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_explained_and_the_grant_it_proposes_is_enough() {
    let mut edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read", "echo:write"]).await;
    let (status, mint) = agent.try_mint(&edge, &["echo:write"], &[]).await;
    assert_eq!(status, 403);
    let told = refused(&edge, &mint, "role_scope_mismatch", "role").await;
    let toml = told["grant"]["toml"].as_str().unwrap();
    assert_eq!(toml.lines().last(), Some(r#""agent-1" = ["echo:read", "echo:write"]"#));
    let (file, line) = (told["grant"]["place"]["file"].as_str().unwrap(), &told["grant"]["place"]["line"]);
    assert!(file.ends_with("z1.toml"), "{file}");
    let at = edge.bundle_text().lines().position(|line| line.starts_with("roles = ")).unwrap() + 1;
    assert_eq!(*line, json!(at));
    let asked = told["now"]["answer"].clone();
    assert_eq!(asked, "deny (role_scope_mismatch)");

    // The mandate for reading is not good for writing, and a grant would be needed for another.
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let operation = body(post(&edge, &mandate), 403).await;
    let told = refused(&edge, &operation, "operation_not_permitted", "operation").await;
    assert_eq!(told["missing"], json!(["echo:write in the mandate"]));
    assert_eq!(told["grant"]["toml"], toml);

    let secret = edge.path("secret");
    write_private(&secret, SECRET);
    let line = ["call", "--app", "agent-1", "--zone", ZONE, "--resource", ECHO, "--scope", "echo:write"];
    let more = ["--secret-file", secret.to_str().unwrap(), "POST", "/write/a"];
    let (code, text, notes) = caracal(&edge, &[&line[..], &more[..]].concat()).await;
    assert_eq!(code, 3, "{text}{notes}");
    let id =
        text.split("caracal explain ").nth(1).unwrap_or_else(|| panic!("{text}")).lines().next().unwrap();
    assert_eq!(explained(&edge, id).await["reason"], "role_scope_mismatch");

    // What it proposes is what it takes, and the older decision is told apart from the answer of now.
    edge.plan.granted = vec!["echo:read", "echo:write"];
    reload(&edge).await;
    let told = explained(&edge, mint["decision_id"].as_str().unwrap()).await;
    assert_eq!(told["now"], json!({ "answer": "allow (caracal-one-mint)", "differs": true }));
    assert_eq!(told["bundle"]["in_force"], false);
    assert_eq!((&told["again"], &told["grant"]["toml"]), (&asked, &json!(toml)));
    agent.mint(&edge, &["echo:write"]).await;
    let told = explained(&edge, operation["decision_id"].as_str().unwrap()).await;
    assert_eq!(told["now"]["differs"], false, "that mandate is not good for it under any grant");

    let (code, _, notes) = caracal(&edge, &["explain", "nothing"]).await;
    assert_eq!(code, 1);
    assert!(notes.contains("no record with the id `nothing`"), "{notes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_grant_could_have_changed_is_told_as_such() {
    let other = "[[resources]]\nidentifier = \"resource://other\"\nupstream_url = \"http://127.0.0.1:9/x\"\n\
                 scopes = [\"echo:read\"]\ncredential_provider = \"provider://open\"\n\
                 operations = [{ method = \"GET\", path = \"/**\", scope = \"echo:read\" }]\n\
                 [[providers]]\nidentifier = \"provider://open\"\nkind = \"none\"\n";
    let granted = vec!["echo:read", "echo:write"];
    let mut edge = Edge::with(Plan { granted, zone: other.to_owned(), ..Plan::default() }).await;
    let agent = Agent::provision(&edge, &["echo:read", "echo:write"]).await;

    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let response = edge.get("/read/a", &mandate).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    response.bytes().await.unwrap();
    edge.ledger_with("gateway_resource_request", 1).await;
    let told = explained(&edge, &id).await;
    assert_eq!(
        (&told["outcome"], &told["reason"], &told["grant"]),
        (&json!("allow"), &Value::Null, &Value::Null)
    );
    assert!(told["path"].as_array().unwrap().iter().all(|step| step["holds"] == true), "{told}");
    assert_eq!(told["now"], json!({ "answer": "allow (caracal-one-use)", "differs": false }));
    let result = edge.ledger().await;
    let result = result.iter().find(|line| line["event_type"] == "gateway_resource_request").unwrap();
    assert_eq!(explained(&edge, result["id"].as_str().unwrap()).await["decision_id"], told["decision_id"]);

    let again = body(edge.get("/read/a", &mandate), 401).await;
    let told = refused(&edge, &again, "replayed", "standing").await;
    assert_eq!(advice(&told), "no grant can: mint a new mandate for each call");
    let (code, text, _) = caracal(&edge, &["explain", again["decision_id"].as_str().unwrap()]).await;
    assert_eq!(code, 0);
    assert!(text.starts_with("denied: agent-1, GET /read/a on resource://echo"), "{text}");
    assert!(text.contains("\n  NO  standing: the mandate had been used before"), "{text}");

    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let delete = edge.http.delete(format!("{}/read/a", edge.gateway())).header("x-caracal-resource", ECHO);
    let told = body(delete.bearer_auth(mandate), 403).await;
    let told = refused(&edge, &told, "operation_not_permitted", "operation").await;
    assert!(advice(&told).starts_with("no grant can: the resource has no operation"), "{told}");

    let reader = Agent::provision(&edge, &["echo:read"]).await;
    let (_, thin) = reader.try_mint(&edge, &["echo:write"], &[]).await;
    let told = refused(&edge, &thin, "delegation_scope_exceeded", "delegation").await;
    assert_eq!(advice(&told), "no grant is needed: hand it down in the delegation, and mint with echo:write");

    let fields = |resource| {
        [
            ("resource", resource),
            ("scope", "echo:read"),
            ("agent_session_id", agent.target.as_str()),
            ("delegation_edge_id", agent.edge_id.as_str()),
        ]
    };
    let (_, other) = edge.try_token(&fields("resource://other")).await.unwrap();
    let told = refused(&edge, &other, "resource_not_granted", "ownership").await;
    let toml = told["grant"]["toml"].as_str().unwrap();
    let expected = "[grants.\"resource://other\"]\napplication = \"one\"\n\n\
                    [grants.\"resource://other\".roles]\n\"agent-1\" = [\"echo:read\"]";
    assert_eq!(toml, expected);
    let (_, nowhere) = edge.try_token(&fields("resource://nowhere")).await.unwrap();
    let told = refused(&edge, &nowhere, "resource_not_granted", "ownership").await;
    assert_eq!(advice(&told), "no grant can: the bundle has no resource resource://nowhere");

    let mandate = reader.mint(&edge, &["echo:read"]).await;
    let url = format!("{}/zones/{ZONE}/agents/{}", edge.coordinator(), reader.target);
    assert_eq!(edge.http.delete(url).bearer_auth(&reader.bearer).send().await.unwrap().status(), 204);
    let ended = body(edge.get("/read/a", &mandate), 401).await;
    let told = refused(&edge, &ended, "revoked", "standing").await;
    assert!(advice(&told).starts_with("no grant can: what was revoked stays so"), "{told}");

    edge.plan.zone = "[[confinement]]\nlabel_prefix = \"agent-1\"\nscopes = [\"echo:write\"]\n\
                      [[risk]]\nscope = \"echo:write\"\ntier = \"high\"\n[[approval_tiers]]\ntier = \"high\"\n"
        .to_owned();
    reload(&edge).await;
    let (_, confined) = agent.try_mint(&edge, &["echo:read"], &[]).await;
    let told = refused(&edge, &confined, "confinement_violation", "confinement").await;
    assert_eq!(told["missing"], json!(["echo:read in the confinement of labels from `agent-1`"]));
    assert_eq!(told["grant"], Value::Null);
    let (status, _) = agent.try_mint(&edge, &["echo:write"], &[]).await;
    assert_eq!(status, 401);
    let held = edge.ledger_with("step_up_issued", 1).await;
    let held = held.iter().find(|line| line["event_type"] == "step_up_issued").unwrap();
    let told = refused(&edge, &json!({ "decision_id": held["id"] }), "approval_pending", "tiers").await;
    assert_eq!((&told["outcome"], &told["now"]["answer"]), (&json!("approval"), &json!("approval")));
    assert!(advice(&told).contains("a person has to approve"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_that_had_not_enough_left_is_told_as_it_stood() {
    for (table, name, code) in [
        ("rates", "fast", "rate_limited"),
        ("budgets", "hour", "budget_exhausted"),
        ("budgets", "life", "budget_exhausted"),
    ] {
        let window = if name == "life" { "" } else { "window_seconds = 3600\n" };
        let zone = format!("[[{table}]]\nname = \"{name}\"\nper = \"session\"\ncalls = 1\n{window}");
        let edge = Edge::with(Plan { zone, ..Plan::default() }).await;
        let agent = Agent::provision(&edge, &["echo:read"]).await;
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200);
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        let answer = body(edge.get("/read/a", &mandate), 429).await;
        let told = explained(&edge, answer["decision_id"].as_str().unwrap()).await;
        let last = told["path"].as_array().unwrap().last().unwrap();
        assert_eq!((&told["reason"], &last["rule"]), (&json!(code), &json!("budgets")), "{told}");
        let compared = last["compared"].as_str().unwrap();
        assert!(compared.starts_with(&format!("`{name}` (1 calls in ")), "{compared}");
        let back = if name == "life" { "it does not come back" } else { " s after the decision" };
        assert!(
            compared.contains("had 1 of 1 used, and a call takes 1;") && compared.ends_with(back),
            "{compared}"
        );
        assert!(advice(&told).starts_with("no grant can: "), "{told}");
    }
}
