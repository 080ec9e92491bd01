//! `caracal secrets set`: a value changed in its file and taken up by the edge, and shown nowhere.

use std::fs;

use serde_json::Value;

use crate::edge::{CANARY, Edge, Plan, ZONE};
use crate::sealed::{seal, secrets};

const NEW: &str = "sk-canary-set-6b2e";
const SEALED: &str = "[secrets]\nfile = \"secrets.toml.age\"\nidentity_file = \"secrets.identity\"\n";

/// What the command prints, and its exit code. Nothing of it is a value.
async fn set(edge: &Edge, arguments: &[&str], value: &str) -> (String, Option<i32>) {
    let (folder, value) = (edge.dir.path().to_owned(), value.to_owned());
    let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
    let done = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = ["set"].into_iter().chain(arguments.iter().map(|word| &**word)).collect();
        secrets(&folder, &arguments, &value)
    });
    let done = done.await.unwrap();
    let said = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
    assert!(!said.contains("canary"), "a value is shown: {said}");
    (said, done.status.code())
}

async fn called_with(edge: &Edge, key: &str) -> bool {
    let mandate = edge.mandate().await;
    assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200);
    edge.upstream.last().header("x-api-key") == [key]
}

/// Everything that the edge has written, and what it says of itself.
async fn traces(edge: &Edge) -> String {
    // Only the last call's record is written after the values are known.
    edge.ledger_with("gateway_resource_request", 2).await;
    let mut traces =
        edge.http.get(format!("{}/metrics", edge.ops())).send().await.unwrap().text().await.unwrap();
    let mut open = vec![edge.path("state")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            traces += &String::from_utf8_lossy(&fs::read(path).unwrap_or_default());
        }
    }
    assert!(traces.contains("operator_reload"));
    traces
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_call_carries_the_value_that_was_set_and_nothing_shows_it() {
    let edge = Edge::start().await;
    assert!(called_with(&edge, CANARY).await);
    let before = fs::read_to_string(edge.path("secrets.toml")).unwrap();
    let (said, code) = set(&edge, &["echo/api_key"], &format!("{NEW}\n")).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("set: echo/api_key in") && said.contains("fingerprint: "), "{said}");
    assert!(called_with(&edge, NEW).await);
    assert_eq!(fs::read_to_string(edge.path("secrets.toml")).unwrap(), before.replace(CANARY, NEW));

    // What it says is what `rotate-check` takes: the earlier value, which is not the one in force.
    let old = said.split_once("--old ").unwrap().1.trim();
    assert!(!said.contains(&format!("fingerprint: {old}")), "{said}");
    let arguments = ["echo/fresh", "--json"];
    let (said, code) = set(&edge, &arguments, "another-canary-value").await;
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &told["added"]), (Some(0), &true.into()));
    assert_eq!(told["edge"]["in_force"]["key"], "fresh");
    assert_eq!(told["edge"]["generation"], edge.running().app.snapshot.load().secrets_generation);
    let traces = traces(&edge).await;
    assert!(!traces.contains("canary"), "a value was left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_entry_says_where_it_may_go_and_what_does_not_fit_changes_nothing() {
    let edge = Edge::start().await;
    let before = fs::read(edge.path("secrets.toml")).unwrap();
    // Arguments, the value, the exit code and words of the answer.
    for (arguments, value, code, words) in [
        (&["new/key"][..], NEW, 2, "--zone and --host"),
        (&["echo/api_key", "--zone", ZONE], NEW, 2, "edit the file"),
        (&["echo/api_key"], "\n", 2, "empty"),
        (&["echo/api_key"], "canary\u{1b}", 64, "secret_unprintable"),
        (&["new/key", "--zone", ZONE, "--host", "https://canary.example/"], NEW, 64, "secret_hosts"),
        (&["echo"], NEW, 2, "name/key"),
    ] {
        let (said, exit) = set(&edge, arguments, value).await;
        assert!(exit == Some(code) && said.contains(words), "{arguments:?}: {exit:?} {said}");
        assert_eq!(fs::read(edge.path("secrets.toml")).unwrap(), before, "{arguments:?}");
    }
    let new = ["new/key", "--zone", ZONE, "--host", "127.0.0.1:9"];
    let (said, code) = set(&edge, &new, NEW).await;
    assert!(code == Some(0) && said.contains("added: new/key"), "{said}");

    // A file that the edge would not read is not changed either.
    edge.write_secrets_mode(CANARY, 0o644);
    let (said, code) = set(&edge, &["echo/api_key"], NEW).await;
    assert!(code == Some(64) && said.contains("secrets_mode"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_a_bundle_cannot_use_is_not_written() {
    let provider = "kind = \"oauth2_client_credentials\"\nclient_id = \"c\"\ngrant_type = \"jwt_bearer\"\n\
                    client_auth_method = \"none\"\ntoken_endpoint = \"http://127.0.0.1:9/token\"\n\
                    private_key = \"secret://echo/key\"";
    let edge = Edge::prepared(Plan { provider: provider.to_owned(), ..Plan::default() }).await;
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    edge.write_secrets("unused");
    let file = edge.path("secrets.toml");
    let text = fs::read_to_string(&file).unwrap().replace("hosts = [", "hosts = [\"127.0.0.1:9\", ");
    crate::edge::write_private(&file, &format!("{text}key = '''\n{key}'''\n"));
    fs::write(edge.path("caracal.toml"), edge.config_text("http://127.0.0.1:1")).unwrap();
    let before = fs::read(&file).unwrap();
    let (said, code) = set(&edge, &["echo/key"], "no key").await;
    assert!(code == Some(64) && said.contains("a private key that can sign"), "{said}");
    assert_eq!(fs::read(&file).unwrap(), before);
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let (said, code) = set(&edge, &["echo/key"], &other).await;
    assert!(code == Some(0) && said.contains("no edge is running"), "{said}");
    assert!(fs::read_to_string(&file).unwrap().contains(other.trim()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_file_is_changed_without_a_plain_one_and_says_whom_it_is_sealed_for() {
    let mut edge = Edge::prepared(Plan { config: SEALED.to_owned(), ..Plan::default() }).await;
    let recipient = seal(edge.dir.path());
    edge.boot(Default::default()).await.unwrap();
    let (said, code) = set(&edge, &["echo/api_key"], NEW).await;
    assert!(code == Some(0) && said.contains(&format!("sealed for: {recipient}")), "{said}");
    assert!(called_with(&edge, NEW).await);
    for entry in fs::read_dir(edge.dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
        assert!(!text.contains("canary"), "a value is in {}", path.display());
    }
}
