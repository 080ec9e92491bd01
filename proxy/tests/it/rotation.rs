//! Changing a secret: mounted files of single values, and when the old value may be deleted.

use std::process::Command;

use caracal::control::{ControlError, Request, call, socket_path};
use serde_json::Value;

use crate::edge::{CANARY, Edge, Plan, ZONE, eventually, write_private};

const SECRET: &str = "echo/api_key";
const NEW: &str = "sk-canary-after-the-rotation";

/// An edge whose API key stands in a mounted file.
async fn mounted() -> Edge {
    let plan = Plan { config: "[secrets]\nfiles_dir = \"mounted\"\n".to_owned(), ..Plan::default() };
    let mut edge = Edge::prepared(plan).await;
    std::fs::create_dir(edge.path("mounted")).unwrap();
    write_private(&edge.path("mounted/echo"), &format!("{CANARY}\n"));
    let text = format!(
        "schema = 1\n[secrets.echo]\nzones = [\"{ZONE}\"]\nhosts = [\"{}\"]\napi_key = {{ file = \"echo\" }}\n",
        edge.upstream.address
    );
    write_private(&edge.path("secrets.toml"), &text);
    edge.boot(Default::default()).await.unwrap();
    edge
}

async fn called_with(edge: &Edge, key: &str) -> bool {
    let mandate = edge.mandate().await;
    assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200);
    edge.upstream.last().header("x-api-key") == [key]
}

async fn ask(edge: &Edge, request: Request) -> Result<Value, ControlError> {
    call(&socket_path(&edge.path("state")), &request).await
}

async fn check(edge: &Edge, old: Option<&str>, grace_ms: i64) -> Value {
    let old = old.map(str::to_owned);
    ask(edge, Request::RotateCheck { secret: SECRET.to_owned(), old, grace_ms }).await.unwrap()
}

async fn listed(edge: &Edge) -> Value {
    ask(edge, Request::SecretsList).await.unwrap()["secrets"][0].clone()
}

/// What the command prints, and its exit code.
async fn command(edge: &Edge, more: &[&str]) -> (String, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_caracal"));
    command.args(["secrets", "rotate-check", SECRET, "--state-dir"]).arg(edge.path("state")).args(more);
    let done = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    (String::from_utf8(done.stdout).unwrap(), done.status.code())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_file_is_used_and_the_ledger_says_when_the_old_value_may_go() {
    let edge = mounted().await;
    assert!(called_with(&edge, CANARY).await);
    edge.ledger_with("gateway_resource_request", 1).await;
    let before = listed(&edge).await;
    let old = before["fingerprint"].as_str().unwrap();
    assert_eq!(before["file"], "echo");
    assert!(before["last_used_at"].as_i64().unwrap() >= before["in_force_since_at"].as_i64().unwrap());

    // The file was not changed yet, or the change has not arrived.
    let (said, code) = command(&edge, &["--old", old, "--grace", "0"]).await;
    assert!(said.contains("keep the old value") && said.contains("no newer one has arrived"), "{said}");
    assert_eq!(code, Some(1));
    assert_eq!(check(&edge, None, 0).await["may_delete"], false);

    write_private(&edge.path("mounted/echo"), NEW);
    eventually("the new value is in force", async || listed(&edge).await["fingerprint"] != old).await;
    assert!(called_with(&edge, NEW).await);
    eventually("the call is recorded", async || listed(&edge).await["last_used_at"].is_i64()).await;
    let after = listed(&edge).await;
    assert_ne!(after["fingerprint"], before["fingerprint"]);
    assert!(after["in_force_since_at"].as_i64() > before["in_force_since_at"].as_i64());

    let early = check(&edge, Some(old), 3_600_000).await;
    assert!(early["why"].as_str().unwrap().contains("ask again in"), "{early}");
    let answer = check(&edge, None, 0).await;
    assert_eq!(answer["may_delete"], true, "{answer}");
    assert_eq!(answer["in_force"], after["fingerprint"]);
    let seen = answer["seen"].as_array().unwrap();
    assert_eq!(seen.len(), 2, "{answer}");
    assert!(
        seen.iter().all(|one| one["in_force"] == (one["fingerprint"] == after["fingerprint"])),
        "{answer}"
    );
    let (said, code) = command(&edge, &["--old", old, "--grace", "0"]).await;
    assert!(said.contains("may be deleted"), "{said}");
    assert_eq!(code, Some(0));

    // A change that was refused is no change.
    write_private(&edge.path("mounted/echo"), "");
    edge.running().app.reloader.reload().await;
    assert!(check(&edge, Some(old), 0).await["why"].as_str().unwrap().contains("refused"));
    assert!(called_with(&edge, NEW).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_that_is_meant_must_be_there_and_be_one() {
    let edge = mounted().await;
    for (secret, code) in
        [("none", "unknown_secret"), ("echo/none", "unknown_secret"), ("echo", "secret_key_needed")]
    {
        if code == "secret_key_needed" {
            let file = edge.path("secrets.toml");
            let text = std::fs::read_to_string(&file).unwrap() + "more = \"another-value\"\n";
            write_private(&file, &text);
            edge.running().app.reloader.reload().await;
        }
        let request = Request::RotateCheck { secret: secret.to_owned(), old: None, grace_ms: 0 };
        let error = ask(&edge, request).await.unwrap_err();
        assert!(format!("{error:?}").contains(code), "{secret}: {error:?}");
    }
}
