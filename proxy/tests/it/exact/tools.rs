//! Calls of an MCP server's tools that a person has to approve.

use crate::mcp::{Server, guarded_by, post};

use super::*;

const CALLS: &str = r#"{ name = "deletes", when = "mcp.arguments.path != \"/tmp\"", tools = ["delete"], effect = "approval", tier = "large", show = ["/path"] }"#;

fn to_delete(id: &Value, path: &str) -> String {
    let params = json!({ "name": "delete", "arguments": { "path": path, "why": "canary" }, "_meta": { "progressToken": id } });
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }).to_string()
}

async fn send(edge: &Edge, agent: &Agent, id: &Value, path: &str) -> Value {
    let response = post(edge, agent, &BOTH).await.body(to_delete(id, path)).send().await.unwrap();
    response.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_the_same_one_whatever_its_id_and_its_outcome_has_the_new_one() {
    let (edge, server, agent): (Edge, Server, Agent) = guarded_by(CALLS, &plan("").zone).await;
    server.answers(r#"{"jsonrpc":"2.0","id":2,"result":{"content":[]}}"#);
    let held = send(&edge, &agent, &json!(1), "/home").await;
    assert_eq!(
        (&held["id"], &held["error"]["data"]["error"]),
        (&json!(1), &json!("interaction_required")),
        "{held}"
    );
    let id = held["error"]["data"]["approval_id"].as_str().unwrap().to_owned();
    let listed = ask(&edge, Request::Approvals { zone: None, all: false }).await.unwrap();
    let shown = &listed["approvals"][0]["request"];
    assert_eq!((&shown["tool"], &shown["shown"]), (&json!("delete"), &json!({ "/path": "\"/home\"" })));
    assert!(!listed.to_string().contains("canary"));
    answer(&edge, &id, true).await;
    let other = send(&edge, &agent, &json!(2), "/").await;
    assert_ne!(other["error"]["data"]["approval_id"], json!(id), "{other}");
    assert_eq!(server.count(), 0);
    let done = send(&edge, &agent, &json!(2), "/home").await;
    assert_eq!(done["result"], json!({ "content": [] }), "{done}");
    let again = send(&edge, &agent, &json!("three"), "/home").await;
    assert_eq!((&again["id"], &again["result"]), (&json!("three"), &json!({ "content": [] })), "{again}");
    assert_eq!(server.count(), 1);
    assert!(
        send(&edge, &agent, &json!(4), "/tmp").await["result"].is_object(),
        "nobody is asked about these"
    );
}
