//! A secrets file that is sealed at rest: sealed with the command, opened by the edge, and nowhere in the clear.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use caracal::control::{Request, call, socket_path};
use serde_json::Value;

use crate::edge::{CANARY, Edge, Plan, eventually, write_private};

const NEW: &str = "sk-canary-sealed-anew";
const CONFIG: &str = "[secrets]\nfile = \"secrets.toml.age\"\nidentity_file = \"secrets.identity\"\n";

/// Runs `caracal secrets ...` in the edge's folder.
pub fn secrets(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_caracal"));
    command.arg("secrets").args(arguments).current_dir(folder);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// What `caracal secrets ...` prints when it works.
fn done(folder: &Path, arguments: &[&str], input: &str) -> String {
    let output = secrets(folder, arguments, input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Makes an identity and seals the plain secrets file for it; the plain one is gone afterwards. Gives the recipient.
pub fn seal(folder: &Path) -> String {
    let recipient = done(folder, &["keygen", "secrets.identity"], "").trim().to_owned();
    let arguments = ["seal", "--in", "secrets.toml", "--out", "secrets.toml.age", "--recipient", &recipient];
    done(folder, &arguments, "");
    fs::remove_file(folder.join("secrets.toml")).unwrap();
    recipient
}

async fn called_with(edge: &Edge, key: &str) -> bool {
    let mandate = edge.mandate().await;
    assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200);
    edge.upstream.last().header("x-api-key") == [key]
}

async fn reloaded(edge: &Edge) -> Value {
    call(&socket_path(&edge.path("state")), &Request::Reload).await.unwrap()["secrets"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_governed_call_gets_the_credential_of_a_sealed_file_and_a_changed_or_broken_one_is_followed() {
    let mut edge = Edge::prepared(Plan { config: CONFIG.to_owned(), ..Plan::default() }).await;
    let recipient = seal(edge.dir.path());
    edge.boot(Default::default()).await.unwrap();
    assert!(called_with(&edge, CANARY).await);

    // Changed without a plain file on the disk.
    let text = done(edge.dir.path(), &["unseal"], "");
    assert!(text.contains(CANARY));
    let again = ["seal", "--in", "-", "--out", "secrets.toml.age", "--recipient", &recipient];
    done(edge.dir.path(), &again, &text.replace(CANARY, NEW));
    eventually("the new value is used", async || called_with(&edge, NEW).await).await;

    // A byte in the middle: refused, and the last good one stays.
    let path = edge.path("secrets.toml.age");
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    let at = bad.len() * 3 / 4;
    bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
    fs::write(&path, &bad).unwrap();
    let told = reloaded(&edge).await.to_string();
    assert!(told.contains("secrets_broken") && !told.contains(NEW), "{told}");
    assert!(called_with(&edge, NEW).await);

    // A plain file in its place is refused too.
    write_private(&path, &text);
    assert!(reloaded(&edge).await.to_string().contains("secrets_not_sealed"));
    fs::write(&path, &good).unwrap();
    assert!(!reloaded(&edge).await.to_string().contains("secrets_"), "back to what is in force");

    edge.stop().await;
    fs::write(&path, &bad).unwrap();
    let refused = edge.boot(Default::default()).await.unwrap_err().to_string();
    assert!(refused.contains("secrets_broken"), "{refused}");
}

#[test]
fn a_passphrase_seals_and_opens_and_nothing_else_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    write_private(&folder.join("words"), "four words of mine\n");
    write_private(&folder.join("others"), "four words of others\n");
    write_private(&folder.join("secrets.toml"), "schema = 1\n");
    let sealing = ["seal", "--in", "secrets.toml", "--out", "s.age", "--passphrase-file", "words"];
    assert!(done(folder, &sealing, "").contains("s.age"));
    let opening = ["unseal", "--in", "s.age", "--passphrase-file"];
    assert_eq!(done(folder, &[&opening[..], &["words"]].concat(), ""), "schema = 1\n");
    let refused = secrets(folder, &[&opening[..], &["others"]].concat(), "");
    assert_eq!(refused.status.code(), Some(64));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("secrets_key_wrong") && !said.contains("four"), "{said}");

    // The plain file is no place to write to, and a sealed one nothing to seal.
    let over = ["seal", "--in", "words", "--out", "secrets.toml", "--passphrase-file", "words"];
    assert_eq!(secrets(folder, &over, "").status.code(), Some(1));
    assert_eq!(fs::read_to_string(folder.join("secrets.toml")).unwrap(), "schema = 1\n");
    let twice = ["seal", "--in", "s.age", "--out", "t.age", "--passphrase-file", "words"];
    assert_eq!(secrets(folder, &twice, "").status.code(), Some(1));
    assert_eq!(secrets(folder, &["keygen", "words"], "").status.code(), Some(1));
}
