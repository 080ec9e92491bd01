use std::path::PathBuf;

use tempfile::TempDir;

use crate::cli::tests::caracal;
use crate::clock::Clock;
use crate::ledger::{Event, Ledger, LedgerKey, LedgerOptions};

/// A closed ledger with one denied decision, and the key that signed it.
struct Closed {
    root: TempDir,
    key: String,
    fingerprint: String,
}

impl Closed {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let clock = Clock::manual(1_700_000_000_000);
        let key = LedgerKey::open(&root.path().join("keys")).unwrap();
        let (public, fingerprint) = (key.public().to_string(), key.fingerprint().to_string());
        let options = LedgerOptions { disk_reserve: 0, ..LedgerOptions::default() };
        let ledger = Ledger::open(&root.path().join("ledger"), options, key, clock).unwrap();
        let event = Event {
            id: "d1".into(),
            zone_id: "quickstart".into(),
            event_type: "token_exchange",
            request_id: "r1".into(),
            decision: "deny",
            evaluation_status: "role_scope_mismatch".into(),
            occurred_at: 1_700_000_000_000,
            ..Event::default()
        };
        ledger.event(event).unwrap();
        ledger.close().await.unwrap();
        Self { root, key: public, fingerprint }
    }

    fn ledger(&self) -> String {
        self.root.path().join("ledger").display().to_string()
    }

    fn segment(&self) -> PathBuf {
        self.root.path().join("ledger/quickstart/000001.jsonl")
    }

    fn key_file(&self, text: &str) -> String {
        let path = self.root.path().join("edge-ledger.pub");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

#[tokio::test]
async fn the_tail_shows_records_for_people_and_for_machines() {
    let closed = Closed::new().await;
    let ledger = closed.ledger();
    let (code, text, notes) = caracal(["audit", "tail", "--zone", "quickstart", "--ledger", &ledger]).await;
    assert_eq!(code, 0, "{notes}");
    assert!(text.contains("deny token_exchange role_scope_mismatch"), "{text}");
    let (_, text, _) =
        caracal(["audit", "tail", "--zone", "quickstart", "--ledger", &ledger, "--json"]).await;
    let on_disk = std::fs::read_to_string(closed.segment()).unwrap();
    let shown: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kept: Vec<serde_json::Value> =
        on_disk.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(shown, kept);
}

#[tokio::test]
async fn a_whole_ledger_verifies_with_the_key_or_its_fingerprint() {
    let closed = Closed::new().await;
    let (ledger, key) = (closed.ledger(), closed.key_file(&format!("{}\n", closed.key)));
    let (code, text, notes) = caracal(["audit", "verify", "--ledger", &ledger, "--key", &key]).await;
    assert_eq!(code, 0, "{text}{notes}");
    assert!(text.contains("quickstart: whole"), "{text}");
    let line = ["audit", "verify", "--ledger", &ledger, "--fingerprint", &closed.fingerprint, "--json"];
    let (code, text, _) = caracal(line).await;
    assert_eq!(code, 0);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["good"], true);
}

#[tokio::test]
async fn an_altered_ledger_ends_with_65_and_the_line() {
    let closed = Closed::new().await;
    let altered = std::fs::read_to_string(closed.segment()).unwrap().replace("\"deny\"", "\"allow\"");
    let line = altered.lines().position(|line| line.contains("\"allow\"")).unwrap() + 1;
    std::fs::write(closed.segment(), altered).unwrap();
    let ledger = closed.ledger();
    let (code, text, _) =
        caracal(["audit", "verify", "--ledger", &ledger, "--fingerprint", &closed.fingerprint]).await;
    assert_eq!(code, 65);
    assert!(text.contains("BROKEN") && text.contains(&format!("000001.jsonl:{line}:")), "{text}");
}

#[tokio::test]
async fn another_key_or_no_ledger_proves_nothing() {
    let closed = Closed::new().await;
    let ledger = closed.ledger();
    let other = format!("sha256:{}", "0".repeat(64));
    let (code, text, _) = caracal(["audit", "verify", "--ledger", &ledger, "--fingerprint", &other]).await;
    assert_eq!(code, 65, "{text}");

    let nowhere = closed.root.path().join("nowhere").display().to_string();
    let (code, text, notes) =
        caracal(["audit", "verify", "--ledger", &nowhere, "--fingerprint", &other]).await;
    assert_eq!((code, text.as_str()), (1, ""), "{notes}");

    let odd = closed.key_file("not a key");
    let (code, _, notes) = caracal(["audit", "verify", "--ledger", &ledger, "--key", &odd]).await;
    assert_eq!(code, 1);
    assert!(notes.contains("ed25519:"), "{notes}");
}
