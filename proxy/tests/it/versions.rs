//! Versions of a policy, by the command line against a running edge.

use std::process::Command;

use serde_json::Value;

use crate::edge::Edge;

/// Runs the real command line on the edge's files: exit code, standard output, standard error.
async fn caracal(edge: &Edge, line: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_caracal"));
    command.args(line).arg("--config").arg(edge.path("caracal.toml"));
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

async fn json(edge: &Edge, line: &[&str]) -> Value {
    let (_, text, notes) = caracal(edge, &[line, &["--json"]].concat()).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {notes}"))
}

/// Grants the role these scopes and takes the files up.
async fn grant(edge: &mut Edge, scopes: &[&'static str]) {
    edge.plan.granted = scopes.to_vec();
    edge.write_files();
    edge.running().app.reloader.reload().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_edge_says_which_version_is_in_force_and_what_its_files_would_change() {
    let mut edge = Edge::start().await;
    grant(&mut edge, &["echo:read", "echo:write"]).await;
    let listed = json(&edge, &["versions"]).await;
    assert_eq!(listed["running"], true);
    let rows = listed["zones"][0]["versions"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["in_force"], &rows[1]["in_force"]), (2, &true.into(), &false.into()));
    let status = json(&edge, &["status"]).await;
    assert_eq!(status["zones"][0]["digest"], rows[0]["digest"]);

    let (code, text, _) = caracal(&edge, &["diff", "active", rows[1]["digest"].as_str().unwrap()]).await;
    assert_eq!(code, 1);
    assert!(text.contains("`agent-1` loses scope `echo:write` on `resource://echo`"), "{text}");
    assert_eq!(caracal(&edge, &["diff"]).await.0, 0);

    // Files that are refused change nothing, and cannot be compared.
    std::fs::write(edge.bundle(), "schema = 1\n[zone").unwrap();
    edge.running().app.reloader.reload().await;
    assert_eq!(json(&edge, &["versions"]).await, listed);
    let (code, _, notes) = caracal(&edge, &["diff"]).await;
    assert_eq!(code, 2, "{notes}");
    assert!(notes.contains("z1.toml:2"), "{notes}");
}
