//! Versions of a policy, by the command line against a running edge.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use caracal::reload::Wanted;
use caracal::serve::ServeOptions;
use serde_json::Value;

use crate::edge::{Agent, ECHO, Edge, Plan, SECRET, ZONE};
use crate::reload::load;

/// Runs the real command line on the edge's files: exit code, standard output, standard error.
pub async fn caracal(edge: &Edge, line: &[&str]) -> (i32, String, String) {
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

/// A bundle in which `agent-2` is no longer known.
fn without_agent_two(text: &str) -> String {
    let application = text.split_inclusive("\n\n").find(|part| part.contains("id = \"agent-2\"")).unwrap();
    text.replace(application, "").replace("two = \"agent-2\"\n", "")
}

async fn ready(edge: &Edge) -> (u16, Value) {
    let answer = edge.http.get(format!("{}/ready", edge.ops())).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn metrics(edge: &Edge) -> String {
    edge.http.get(format!("{}/metrics", edge.ops())).send().await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_decides_the_next_request_and_says_everywhere_that_it_stands() {
    let mut edge = Edge::start().await;
    grant(&mut edge, &["echo:read", "echo:write"]).await;
    let agent = Agent::provision(&edge, &["echo:read", "echo:write"]).await;
    assert_eq!(agent.try_mint(&edge, &["echo:write"], &[]).await.0, 200);
    let held = agent.mint(&edge, &["echo:write"]).await;
    assert!(metrics(&edge).await.contains("caracal_bundle_pinned{zone=\"z1\"} 0"));

    let (code, text, notes) = caracal(&edge, &["rollback"]).await;
    assert_eq!(code, 0, "{notes}");
    assert!(text.contains("pinned until") && text.contains("`agent-1` loses scope `echo:write`"), "{text}");
    assert_eq!(agent.try_mint(&edge, &["echo:write"], &[]).await.0, 403);
    let url = format!("{}/write/a", edge.gateway());
    let used = edge.http.post(url).header("x-caracal-resource", ECHO).bearer_auth(held).send().await.unwrap();
    assert_eq!(used.status(), 403, "what was minted before is decided by what is in force");
    assert_eq!(edge.get("/read/a", &edge.mandate().await).send().await.unwrap().status(), 200);

    let pinned = serde_json::json!({ "ok": true, "ready": true, "pinned": ["z1"] });
    assert_eq!(ready(&edge).await, (200, pinned.clone()));
    let told = metrics(&edge).await;
    assert!(told.contains("caracal_bundle_pinned{zone=\"z1\"} 1"), "{told}");
    assert!(told.contains("caracal_files_newer_than_snapshot{what=\"z1\"} 1"), "{told}");
    assert_eq!(json(&edge, &["status"]).await["zones"][0]["pinned"], true);
    let listed = &json(&edge, &["versions"]).await["zones"][0];
    assert_eq!((&listed["pinned"], &listed["versions"][0]["number"]), (&true.into(), &3.into()));
    assert_eq!(listed["versions"][0]["by"]["operator"], rustix::process::geteuid().as_raw());
    let (_, text, _) = caracal(&edge, &["versions"]).await;
    assert!(text.contains("is pinned; the files say"), "{text}");
    let (code, text, _) = caracal(&edge, &["reload"]).await;
    assert_eq!((code, text.contains("where no version is pinned")), (0, true), "{text}");
    let (code, text, _) = caracal(&edge, &["diff"]).await;
    assert_eq!((code, text.contains("`agent-1` gains scope `echo:write`")), (1, true), "{text}");

    // Records of the last moment may be lost with the process; what was acknowledged is not.
    edge.ledger_with("operator_rollback", 1).await;
    edge.crash().await;
    edge.boot(ServeOptions::default()).await.unwrap();
    assert_eq!(ready(&edge).await, (200, pinned));
    let agent = Agent::provision(&edge, &["echo:read", "echo:write"]).await;
    assert_eq!(agent.try_mint(&edge, &["echo:write"], &[]).await.0, 403, "a crash undoes nothing");

    let (code, text, _) = caracal(&edge, &["activate", "--files"]).await;
    assert_eq!((code, text.contains("as the files say")), (0, true), "{text}");
    assert_eq!(agent.try_mint(&edge, &["echo:write"], &[]).await.0, 200);
    assert_eq!(ready(&edge).await.1, serde_json::json!({ "ok": true, "ready": true }));

    let (code, _, notes) = caracal(&edge, &["activate", "ffff", "--zone", ZONE]).await;
    assert_eq!((code, notes.contains("no kept version is called so")), (1, true), "{notes}");
    let acts = edge.ledger_with("operator_activate", 2).await;
    let act = |kind: &str, at: usize| acts.iter().filter(|line| line["event_type"] == kind).nth(at).unwrap();
    let back = act("operator_rollback", 0);
    assert_eq!((&back["decision"], &back["metadata_json"]["pinned"]), (&"allow".into(), &true.into()));
    assert_eq!(back["metadata_json"]["version"].as_str().unwrap().len(), 64);
    assert_eq!(act("operator_activate", 0)["metadata_json"]["pinned"], false);
    assert_eq!(act("operator_activate", 1)["decision"], "deny");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_brings_no_removed_application_and_no_retired_secret_back() {
    let edge = Edge::start().await;
    let token = async |application: &str, secret: &str| {
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("zone_id", ZONE),
            ("application_id", application),
            ("client_secret", secret),
            ("resource", ECHO),
            ("scope", "agent:lifecycle"),
        ];
        let url = format!("{}/oauth/2/token", edge.authority());
        edge.http.post(url).form(&form).send().await.unwrap().status().as_u16()
    };
    assert_eq!(token("agent-1", SECRET).await, 200);
    let first = edge.bundle_text();
    let (_, made, _) = caracal(&edge, &["secret", "new"]).await;
    let (fresh, hash) = made.trim().split_once('\n').unwrap();
    let old = first.lines().find(|line| line.starts_with("secrets = ")).unwrap();
    let rotated = without_agent_two(&first).replace(old, hash);
    std::fs::write(edge.bundle(), rotated.replace("[\"echo:read\"]", "[\"echo:write\"]")).unwrap();
    edge.running().app.reloader.reload().await;
    assert_eq!((token("agent-1", SECRET).await, token("agent-1", fresh).await), (401, 200));

    let back = json(&edge, &["rollback"]).await;
    assert_eq!(back["pinned"], true, "{back}");
    assert_eq!(back["changes"].as_array().unwrap().len(), 2, "{back}");
    assert_eq!((token("agent-1", SECRET).await, token("agent-1", fresh).await), (401, 200));
    assert_eq!(token("agent-2", SECRET).await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_edge_takes_signed_bundles_only_and_never_an_older_one() {
    let mut edge = Edge::prepared(Plan::default()).await;
    let (key, bundle) = (edge.path("bundles.key"), edge.bundle());
    let (key, bundle) = (key.to_str().unwrap(), bundle.to_str().unwrap());
    let (code, trusted, notes) = caracal(&edge, &["bundle", "keygen", key]).await;
    assert_eq!(code, 0, "{notes}");
    edge.plan.config = format!("[bundles]\nrequire_signature = true\n{trusted}");
    let refused = edge.boot(ServeOptions::default()).await.unwrap_err();
    assert!(refused.exit_code() == 64 && refused.to_string().contains("bundle_unsigned"), "{refused}");

    assert_eq!(caracal(&edge, &["bundle", "sign", bundle, "--key", key]).await.0, 0);
    let older = (edge.bundle_text(), std::fs::read_to_string(edge.path("bundles/z1.sig")).unwrap());
    edge.boot(ServeOptions::default()).await.unwrap();
    edge.plan.granted = vec!["echo:read", "echo:write"];
    std::fs::write(edge.bundle(), edge.bundle_text()).unwrap();
    let (code, text, _) = caracal(&edge, &["reload"]).await;
    assert_eq!((code, text.contains("bundle_signature_wrong")), (64, true), "{text}");
    let agent = Agent::provision(&edge, &["echo:read", "echo:write"]).await;
    assert_eq!(agent.try_mint(&edge, &["echo:write"], &[]).await.0, 403, "what was in force stays");
    assert_eq!(ready(&edge).await.1["reason"], "bundle_rejected");

    assert_eq!(caracal(&edge, &["bundle", "sign", bundle, "--key", key]).await.0, 0);
    assert_eq!(caracal(&edge, &["reload"]).await.0, 0);
    assert_eq!(agent.try_mint(&edge, &["echo:write"], &[]).await.0, 200);
    assert_eq!(json(&edge, &["status"]).await["zones"][0]["revision"], 2);

    std::fs::write(edge.bundle(), &older.0).unwrap();
    std::fs::write(edge.path("bundles/z1.sig"), &older.1).unwrap();
    let (code, text, _) = caracal(&edge, &["reload"]).await;
    assert_eq!((code, text.contains("bundle_revision_old")), (64, true), "{text}");
    assert_eq!(agent.try_mint(&edge, &["echo:write"], &[]).await.0, 200, "what was in force stays");
    assert_eq!(caracal(&edge, &["rollback"]).await.0, 0);
    assert_eq!(agent.try_mint(&edge, &["echo:write"], &[]).await.0, 403);
    let (_, text, _) = caracal(&edge, &["versions"]).await;
    assert!(text.lines().nth(1).is_some_and(|line| line.ends_with(", revision 1")), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_rollbacks_and_returns_under_load_fail_no_request_and_each_bites_at_once() {
    let mut edge = Edge::start().await;
    grant(&mut edge, &["echo:read", "echo:write"]).await;
    let edge = Arc::new(edge);
    let stop = Arc::new(AtomicBool::new(false));
    let (tasks, calls) = load(&edge, &stop).await;
    let agent = Agent::provision(&edge, &["echo:read", "echo:write"]).await;
    for round in 0..100 {
        let (wanted, expected) = if round % 2 == 0 { (Wanted::Earlier, 403) } else { (Wanted::Files, 200) };
        edge.running().app.reloader.activate(ZONE.to_owned(), wanted, 0).await.unwrap();
        assert_eq!(agent.try_mint(&edge, &["echo:write"], &[]).await.0, expected, "round {round}");
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    assert!(calls.load(Ordering::Relaxed) > 0);
}
