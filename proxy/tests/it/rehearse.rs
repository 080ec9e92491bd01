//! A candidate beside a running edge: looked at, put into force, and the ledger decided again by it.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::crash::{outside, ready, spawn};
use crate::edge::{Agent, ECHO, Edge, Plan, ZONE, eventually};
use crate::versions::caracal;

const BOTH: [&str; 2] = ["echo:read", "echo:write"];

async fn told(edge: &Edge, line: &[&str]) -> Value {
    let (_, text, notes) = caracal(edge, &[line, &["--json"]].concat()).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {notes}"))
}

/// The bundle as it would be with other grants.
fn granting(edge: &mut Edge, scopes: &[&'static str]) -> String {
    let before = std::mem::replace(&mut edge.plan.granted, scopes.to_vec());
    let text = edge.bundle_text();
    edge.plan.granted = before;
    text
}

async fn write(edge: &Edge, agent: &Agent) -> u16 {
    let mandate = agent.mint(edge, &["echo:write"]).await;
    let url = format!("{}/write/a", edge.gateway());
    let sent = edge.http.post(url).header("x-caracal-resource", ECHO).bearer_auth(mandate).send().await;
    sent.unwrap().status().as_u16()
}

async fn compared(edge: &Edge, wanted: u64) -> Value {
    let enough = async || told(edge, &["shadow"]).await["zones"][0]["rehearsal"]["compared"] == wanted;
    eventually("the candidate was asked about everything", enough).await;
    told(edge, &["shadow"]).await["zones"][0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_is_rehearsed_on_live_traffic_without_effect_then_promoted() {
    let mut edge = Edge::with(Plan { granted: BOTH.to_vec(), ..Plan::default() }).await;
    let narrow = granting(&mut edge, &["echo:read"]);
    std::fs::write(edge.path("bundles/z1.next.toml"), &narrow).unwrap();
    edge.running().app.reloader.reload().await;
    let status = told(&edge, &["status"]).await;
    assert_eq!(status["zones"][0]["candidate"]["compared"], 0, "{status}");

    let agent = Agent::provision(&edge, &BOTH).await;
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200);
    assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 401, "it was used up");
    assert_eq!(write(&edge, &agent).await, 200, "a candidate denies nothing");
    // One mint for sessions, two for calls, two calls.
    let zone = compared(&edge, 5).await;
    let report = &zone["rehearsal"];
    assert_eq!(
        (&report["same"], &report["newly_denied"], &report["newly_allowed"], &report["not_comparable"]),
        (&json!(3), &json!(2), &json!(0), &json!({ "before_policy": 1 })),
        "{zone}"
    );
    let groups = report["groups"].as_array().unwrap();
    let what: Vec<_> = groups.iter().map(|group| (group["kind"].as_str(), group["what"].as_str())).collect();
    assert_eq!(what, [(Some("mint"), Some("echo:write")), (Some("use"), Some("POST /write/**"))], "{zone}");
    assert!(groups[1]["grounds"]["place"]["file"].as_str().unwrap().ends_with("z1.next.toml"), "{zone}");
    let request = groups[1]["requests"][0].as_str().unwrap();
    edge.running().app.ledger.flush().await.unwrap();
    assert_eq!(caracal(&edge, &["explain", request]).await.0, 0);
    let metrics =
        edge.http.get(format!("{}/metrics", edge.ops())).send().await.unwrap().text().await.unwrap();
    for line in [
        r#"caracal_decision_diff_total{from="allow",rule="role_scope_mismatch",to="deny",zone="z1"} 2"#,
        r#"caracal_rehearsal_compared_total{zone="z1"} 5"#,
        r#"caracal_rehearsal_not_comparable_total{why="before_policy",zone="z1"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }

    let version = zone["candidate"]["version"].as_str().unwrap();
    let promote = ["promote", ZONE, "--candidate", version, "--min-compared"];
    let (code, _, notes) = caracal(&edge, &[&promote[..], &["6"]].concat()).await;
    assert_eq!((code, notes.contains("asked about 5 decisions, and 6 are wanted")), (1, true), "{notes}");
    let (code, _, notes) = caracal(&edge, &[&promote[..], &["5"]].concat()).await;
    assert_eq!((code, notes.contains("newly deny 2 decisions")), (1, true), "{notes}");
    assert_eq!(write(&edge, &agent).await, 200, "what is refused changes nothing");
    let (_, text, _) = caracal(&edge, &["shadow"]).await;
    let line = format!("caracal promote z1 --candidate {version}");
    assert!(text.contains(&line) && text.contains("-> deny (role_scope_mismatch)"), "{text}");
    let (code, text, notes) = caracal(&edge, &[&promote[..], &["5", "--accept"]].concat()).await;
    assert_eq!((code, text.contains("as the files say")), (0, true), "{notes}");
    assert_eq!(agent.try_mint(&edge, &["echo:write"], &[]).await.0, 403);
    assert_eq!(std::fs::read_to_string(edge.bundle()).unwrap(), narrow);
    assert!(edge.path("bundles/z1.previous.toml").exists());
    assert_eq!(told(&edge, &["shadow"]).await["zones"][0]["candidate"], Value::Null);
    let acts = edge.ledger_with("operator_promote", 3).await;
    let acts: Vec<_> = acts.iter().filter(|line| line["event_type"] == "operator_promote").collect();
    let decisions: Vec<_> = acts.iter().map(|line| line["decision"].as_str().unwrap()).collect();
    assert_eq!(decisions, ["deny", "deny", "allow"]);
    let metadata = &acts[2]["metadata_json"];
    assert_eq!((&metadata["version"], &metadata["newly_denied"]), (&json!(version), &json!(4)));
    assert_eq!(metadata["operator_uid"], rustix::process::geteuid().as_raw());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_replayed_with_its_own_bundle_answers_the_same_and_with_another_says_what_differs() {
    let mut edge = Edge::with(Plan { granted: BOTH.to_vec(), ..Plan::default() }).await;
    let agent = Agent::provision(&edge, &BOTH).await;
    assert_eq!(write(&edge, &agent).await, 200);
    let read = agent.mint(&edge, &["echo:read"]).await;
    assert_eq!(edge.get("/write/a", &read).send().await.unwrap().status(), 403);
    for (scopes, more) in [
        (&["echo:none"][..], &[][..]),
        (&["echo:read"], &[("reusable", "true")]),
        (&["echo:read"], &[("resource", "resource://none")]),
        (&["echo:read"], &[("ttl_seconds", "5000")]),
    ] {
        assert_ne!(agent.try_mint(&edge, scopes, more).await.0, 200, "{scopes:?} {more:?}");
    }
    edge.running().app.ledger.flush().await.unwrap();
    let narrow = granting(&mut edge, &["echo:read"]);
    std::fs::create_dir(edge.path("review")).unwrap();
    std::fs::write(edge.path("review/z1.toml"), narrow).unwrap();
    let (own, other) = (edge.bundle(), edge.path("review/z1.toml"));
    let (own, other) = (own.to_str().unwrap(), other.to_str().unwrap());
    let (code, text, notes) = caracal(&edge, &["replay", "--bundle", own]).await;
    assert_eq!(code, 0, "{text}{notes}");
    let replayed = told(&edge, &["replay", "--bundle", own]).await;
    assert_eq!((&replayed["same_answers"], &replayed["groups"]), (&json!(true), &json!([])), "{replayed}");
    assert!(replayed["compared"].as_u64().unwrap() >= 6, "{replayed}");
    assert!(replayed["not_comparable"].get("no_input").is_none(), "{replayed}");
    let (code, text, _) = caracal(&edge, &["replay", "--bundle", other]).await;
    assert_eq!(
        (code, text.contains("POST /write/** on resource://echo: allow -> deny")),
        (1, true),
        "{text}"
    );
    let late = ["replay", "--bundle", other, "--since", "2999-01-01T00:00:00Z"];
    assert_eq!(caracal(&edge, &late).await.0, 0, "nothing is that new");

    // A ledger from before the input was recorded.
    let ledger = edge.path("state/ledger");
    let old = edge.path("old");
    let copied = Command::new("cp").arg("-r").args([&ledger, &old]).status().unwrap();
    assert!(copied.success());
    for segment in std::fs::read_dir(old.join(ZONE)).unwrap() {
        let path = segment.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"policy\":{\"answer\"", "\"was\":{\"answer\"")).unwrap();
    }
    let from = ["replay", "--bundle", other, "--ledger", old.to_str().unwrap()];
    let replayed = told(&edge, &from).await;
    assert_eq!((&replayed["compared"], &replayed["same_answers"]), (&json!(0), &json!(true)), "{replayed}");
    assert!(replayed["not_comparable"]["no_input"].as_u64().unwrap() >= 6, "{replayed}");

    let broken = edge.path("review/z2.toml");
    std::fs::write(&broken, "schema = 1\n[zone").unwrap();
    assert_eq!(caracal(&edge, &["replay", "--bundle", broken.to_str().unwrap()]).await.0, 2);
    assert_eq!(caracal(&edge, &["replay", "--bundle", other, "--zone", "nowhere"]).await.0, 2);
    assert_eq!(caracal(&edge, &["replay", "--bundle", other, "--since", "noon"]).await.0, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_during_a_promotion_leaves_one_whole_bundle_in_place() {
    let mut edge = outside().await;
    let (read, both) = (granting(&mut edge, &["echo:read"]), granting(&mut edge, &BOTH));
    let in_place = |edge: &Edge| std::fs::read_to_string(edge.bundle()).unwrap();
    let mut promoted = 0;
    for delay in [0, 2, 4, 6, 8, 10, 12, 15, 20, 30, 50, 10_000] {
        let before = in_place(&edge);
        let next = if before == read { &both } else { &read };
        std::fs::write(edge.path("bundles/z1.next.toml"), next).unwrap();
        let mut process = spawn(&edge.path("caracal.toml"));
        ready(&edge).await;
        let shadow = told(&edge, &["shadow"]).await;
        let version = shadow["zones"][0]["candidate"]["version"].as_str().unwrap().to_owned();
        let mut promote = Command::new(env!("CARGO_BIN_EXE_caracal"))
            .args(["promote", ZONE, "--min-compared", "0", "--candidate", &version, "--config"])
            .arg(edge.path("caracal.toml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ended = tokio::task::spawn_blocking(move || promote.wait().unwrap());
        let done = tokio::time::timeout(Duration::from_millis(delay), ended).await;
        process.kill().unwrap();
        process.wait().unwrap();
        let after = in_place(&edge);
        assert!(after == read || after == both, "a bundle is whole: {after}");
        if let Ok(status) = done {
            assert_eq!((status.unwrap().success(), &after), (true, next), "what was acknowledged stays");
        }
        promoted += u32::from(after == *next);
    }
    assert!(promoted > 0, "the last one had the time");
    let mut process = spawn(&edge.path("caracal.toml"));
    ready(&edge).await;
    process.kill().unwrap();
    process.wait().unwrap();
}
