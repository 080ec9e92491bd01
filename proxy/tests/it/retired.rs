//! What left a bundle does not come back with a file: secrets that were rotated, applications that were removed.

use caracal::control::{Request, call, socket_path};
use caracal::serve::ServeOptions;
use serde_json::{Value, json};

use crate::crash;
use crate::edge::{APP, Agent, ECHO, Edge, SECRET, ZONE, eventually};
use crate::versions::caracal;

const NEW: &str = "cs_dGhlLXNlY3JldC1hZnRlci10aGUtcm90YXRpb24tMTI";

fn hash(secret: &str) -> String {
    use base64::Engine as _;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret.as_bytes());
    format!("\"sha256${}\"", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest))
}

/// The bundle in which the first application has these secrets, and the other one a secret of its own.
fn bundle(edge: &Edge, secrets: &[&str]) -> String {
    let listed: Vec<String> = secrets.iter().map(|secret| hash(secret)).collect();
    let line = format!("secrets = [{}]", hash(SECRET));
    let text = edge.bundle_text().replace(&line, "LISTED");
    text.replacen("LISTED", &format!("secrets = [{}]", listed.join(", ")), 1)
        .replace("LISTED", &format!("secrets = [{}]", hash("the other application's")))
}

async fn ask(edge: &Edge, request: Request) -> Value {
    call(&socket_path(&edge.path("state")), &request).await.unwrap()
}

/// Writes the bundle and takes it up as an operator would.
async fn put(edge: &Edge, text: &str) -> Value {
    std::fs::write(edge.bundle(), text).unwrap();
    let done = ask(edge, Request::Reload).await;
    assert!(done["zones"][0]["result"] != "rejected", "{done}");
    done
}

/// Whether the application may ask with the secret.
async fn may(edge: &Edge, secret: &str) -> bool {
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("zone_id", ZONE),
        ("application_id", APP),
        ("client_secret", secret),
        ("resource", ECHO),
        ("scope", "agent:lifecycle"),
    ];
    let url = format!("{}/oauth/2/token", edge.authority());
    let answer = edge.http.post(url).form(&form).send().await.unwrap();
    let status = answer.status().as_u16();
    assert!([200, 401].contains(&status), "{status} {}", answer.text().await.unwrap());
    status == 200
}

async fn ready(edge: &Edge) -> Value {
    edge.http.get(format!("{}/ready", edge.ops())).send().await.unwrap().json().await.unwrap()
}

async fn metrics(edge: &Edge) -> String {
    edge.http.get(format!("{}/metrics", edge.ops())).send().await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_secret_stays_out_whatever_brings_it_back_until_it_is_readmitted() {
    let mut edge = Edge::prepared(Default::default()).await;
    let before = bundle(&edge, &[SECRET]);
    std::fs::write(edge.bundle(), &before).unwrap();
    edge.boot(ServeOptions::default()).await.unwrap();
    // The usual rotation: both for a while, then the new one alone.
    put(&edge, &bundle(&edge, &[SECRET, NEW])).await;
    assert!(may(&edge, SECRET).await && may(&edge, NEW).await);
    let after = bundle(&edge, &[NEW]);
    let done = put(&edge, &after).await;
    assert!(done["warnings"].is_null(), "{done}");
    assert!(!may(&edge, SECRET).await && may(&edge, NEW).await);
    let retired = edge.ledger_with("application_secret_retired", 1).await;
    let retired = retired.iter().find(|event| event["event_type"] == "application_secret_retired").unwrap();
    assert_eq!(retired["metadata_json"]["application_id"], APP);
    // The edge may have seen the files before the operator's word; then it is nobody's act.
    let by = &retired["metadata_json"]["operator_uid"];
    assert!(by.is_null() || *by == rustix::process::geteuid().as_raw(), "{by}");

    // An operator goes back: policy only, and nothing is said of secrets that nobody lists.
    let (_, text, _) = caracal(&edge, &["rollback"]).await;
    assert!(!may(&edge, SECRET).await && !text.contains("warning"), "{text}");

    // The file from before, as a restored copy or a mistake would bring it.
    let done = put(&edge, &before).await;
    let warning = done["warnings"][0].as_str().unwrap();
    assert!(warning.contains("`caracal secret readmit --zone z1 --app agent-1`"), "{warning}");
    assert!(!may(&edge, SECRET).await, "it is refused as a wrong one is");
    assert_eq!(ready(&edge).await["retired_secrets_listed"], json!([ZONE]));
    assert!(metrics(&edge).await.contains("caracal_retired_secrets_listed{zone=\"z1\"} 1"));
    let (code, text, _) = caracal(&edge, &["activate", "--files"]).await;
    assert!(code == 0 && text.contains("warning: zone z1: application `agent-1` lists a secret"), "{text}");
    let (code, text, _) = caracal(&edge, &["versions"]).await;
    assert!(code == 0 && text.contains("warning: zone z1: application `agent-1` lists a secret"), "{text}");
    let (code, text, _) = caracal(&edge, &["check"]).await;
    assert!(code == 0 && text.contains("all good") && text.contains("secret readmit"), "{text}");
    edge.stop().await;
    edge.boot(ServeOptions::default()).await.unwrap();
    assert!(!may(&edge, SECRET).await, "a restart changes nothing");
    edge.crash().await;
    edge.boot(ServeOptions::default()).await.unwrap();
    assert!(!may(&edge, SECRET).await, "nor does a crash");

    let (code, text, _) = caracal(&edge, &["secret", "retired"]).await;
    assert!(code == 0 && text.contains(APP), "{text}");
    let line = ["secret", "readmit", "--zone", ZONE, "--app", APP];
    assert_eq!(caracal(&edge, &[&line[..], &["--hash", "0000000000000000"]].concat()).await.0, 1);
    assert!(!may(&edge, SECRET).await);
    let (code, text, notes) = caracal(&edge, &line).await;
    assert!(code == 0 && text.starts_with("let in again"), "{text} {notes}");
    assert!(may(&edge, SECRET).await);
    assert!(ready(&edge).await["retired_secrets_listed"].is_null());
    assert!(metrics(&edge).await.contains("caracal_retired_secrets_listed{zone=\"z1\"} 0"));
    let acts = edge.ledger_with("operator_secret_readmit", 2).await;
    let acts: Vec<_> = acts.iter().filter(|act| act["event_type"] == "operator_secret_readmit").collect();
    assert_eq!((&acts[0]["decision"], &acts[1]["decision"]), (&json!("deny"), &json!("allow")));
    assert_eq!(acts[1]["metadata_json"]["readmitted"].as_array().unwrap().len(), 1);
    assert_eq!(acts[1]["metadata_json"]["operator_uid"], rustix::process::geteuid().as_raw());
    assert_eq!(caracal(&edge, &line).await.0, 1, "there is nothing left to let in");
    // And out again, the same way.
    put(&edge, &after).await;
    put(&edge, &before).await;
    assert!(!may(&edge, SECRET).await);
    let ledger = format!("{:?}", edge.ledger().await);
    assert!(!ledger.contains(SECRET) && !ledger.contains(hash(SECRET).trim_matches('"')));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_dropped_while_nothing_ran_is_retired_and_one_that_another_application_has_is_not() {
    let mut edge = Edge::start().await;
    // Both applications have it: what one of them drops the other still has.
    let line = format!("secrets = [{}]", hash(SECRET));
    let shared = edge.bundle_text().replacen(&line, &format!("secrets = [{}]", hash(NEW)), 1);
    put(&edge, &shared).await;
    put(&edge, &edge.bundle_text()).await;
    assert!(may(&edge, SECRET).await);
    edge.stop().await;
    std::fs::write(edge.bundle(), bundle(&edge, &[NEW])).unwrap();
    edge.boot(ServeOptions::default()).await.unwrap();
    assert!(!may(&edge, NEW).await, "it was dropped above");
    edge.stop().await;
    std::fs::write(edge.bundle(), edge.bundle_text()).unwrap();
    edge.boot(ServeOptions::default()).await.unwrap();
    assert!(!may(&edge, SECRET).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_retired_even_if_the_edge_is_killed_as_soon_as_the_bundle_is_in_force() {
    let edge = crash::outside().await;
    let before = bundle(&edge, &[SECRET, NEW]);
    std::fs::write(edge.bundle(), &before).unwrap();
    let mut process = crash::spawn(&edge.path("caracal.toml"));
    crash::ready(&edge).await;
    assert!(may(&edge, SECRET).await);
    std::fs::write(edge.bundle(), bundle(&edge, &[NEW])).unwrap();
    eventually("the bundle is in force", async || !may(&edge, SECRET).await).await;
    process.kill().unwrap();
    process.wait().unwrap();
    let mut process = crash::spawn(&edge.path("caracal.toml"));
    crash::ready(&edge).await;
    std::fs::write(edge.bundle(), &before).unwrap();
    let done = ask(&edge, Request::Reload).await;
    assert!(done["warnings"][0].is_string(), "{done}");
    assert!(!may(&edge, SECRET).await && may(&edge, NEW).await);
    process.kill().unwrap();
    process.wait().unwrap();
}

/// The bundle without the application that the tests act as.
fn without(text: &str) -> String {
    let application = text.split_inclusive("\n\n").find(|part| part.contains("id = \"agent-1\"")).unwrap();
    text.replace(application, "")
        .replace("one = \"agent-1\"\n", "")
        .replace("application = \"one\"", "application = \"two\"")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_left_and_came_back_holds_nothing_from_before() {
    let edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let (used, later) = (agent.mint(&edge, &["echo:read"]).await, agent.mint(&edge, &["echo:read"]).await);
    let there = edge.bundle_text();
    put(&edge, &without(&there)).await;
    assert_eq!(
        edge.get("/read/a", &used).send().await.unwrap().status(),
        401,
        "its mandates are worth nothing"
    );
    assert!(!may(&edge, SECRET).await);
    let events = edge.ledger_with("application_removed", 1).await;
    let removed = events.iter().find(|event| event["event_type"] == "application_removed").unwrap();
    assert_eq!(removed["metadata_json"]["application_id"], APP);
    assert_eq!(removed["metadata_json"]["sessions"], 2);
    put(&edge, &there).await;
    let again = edge.get("/read/a", &later).send().await.unwrap().status().as_u16();
    assert!([401, 403].contains(&again), "{again}");
    let (status, refused) = agent.try_mint(&edge, &["echo:read"], &[]).await;
    assert!([401, 403].contains(&status), "{refused}");
    // It may begin anew; its other secret is the same, which the second application never dropped.
    assert_eq!(edge.get("/read/a", &edge.mandate().await).send().await.unwrap().status(), 200);
    assert_eq!(edge.upstream.count(), 1);
}
