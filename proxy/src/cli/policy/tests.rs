use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::super::tests::{caracal, files};
use crate::clock::Clock;
use crate::ledger::{Event, Ledger, LedgerKey, LedgerOptions};
use crate::state::parse_iso;

const DAY_MS: i64 = 86_400_000;

/// A folder whose zone grants more than its ledger shows to be needed.
struct Site {
    folder: TempDir,
    config: String,
}

/// Days before now, event, decision, labels, method and path or the scopes asked for, scopes carried.
type Line = (i64, &'static str, &'static str, &'static str, &'static str, Value);

impl Site {
    async fn with(lines: &[Line]) -> Self {
        let folder = files();
        let config = folder.path().join("caracal.toml").display().to_string();
        let bundle = folder.path().join("bundles/z.toml");
        let text = std::fs::read_to_string(&bundle)
            .unwrap()
            .replace("scopes = [\"r:read\"]", "scopes = [\"r:read\", \"r:write\", \"r:end\"]")
            .replace(
                "operations = [{ method = \"GET\", path = \"/**\", scope = \"r:read\" }]",
                "operations = [{ method = \"GET\", path = \"/**\", scope = \"r:read\" }, \
                 { method = \"PUT\", path = \"/{id}\", scope = \"r:write\" }]",
            )
            .replace(
                "roles = { agent = [\"r:read\"] }",
                "roles = { agent = [\"r:read\", \"r:write\", \"r:end\"], idle = [\"r:read\"] }",
            );
        std::fs::write(&bundle, text).unwrap();
        let clock = Clock::manual(Clock::system().now());
        let key = LedgerKey::open(&folder.path().join("keys")).unwrap();
        let options = LedgerOptions { disk_reserve: 0, ..LedgerOptions::default() };
        let dir = folder.path().join("state/ledger");
        let ledger = Ledger::open(&dir, options, key, clock.clone()).unwrap();
        for (number, line) in lines.iter().enumerate() {
            ledger.event(event(number, line, clock.now())).unwrap();
        }
        ledger.close().await.unwrap();
        Self { folder, config }
    }

    async fn told(&self, command: &str) -> String {
        let (code, text, notes) = caracal(["policy", command, "z", "--config", &self.config]).await;
        assert_eq!(code, 0, "{notes}");
        text
    }
}

fn event(number: usize, line: &Line, now: i64) -> Event {
    let (days, event_type, decision, label, asked, scopes) = line.clone();
    let mut metadata = Map::new();
    let mut put = |name: &str, value: Value| drop(metadata.insert(name.to_owned(), value));
    put("application_id", json!("agent"));
    put("resource", json!("resource://r"));
    put("agent_labels", json!([label]));
    if event_type == "token_exchange" {
        put("resources", json!(["resource://r"]));
        put("requested_scopes", scopes);
    } else {
        let (method, path) = asked.split_once(' ').unwrap();
        put("method", json!(method));
        put("path", json!(path));
        put("scopes", scopes);
    }
    Event {
        id: format!("d{number}"),
        zone_id: "z".into(),
        event_type,
        request_id: format!("r{number}"),
        decision,
        evaluation_status: if decision == "allow" { "complete" } else { "role_scope_mismatch" }.to_owned(),
        metadata,
        occurred_at: now.saturating_sub(days.saturating_mul(DAY_MS)),
        ..Event::default()
    }
}

const USED: [Line; 0] = [];

fn lines() -> Vec<Line> {
    vec![
        (40, "gateway_decision", "allow", "idle", "GET /a", json!(["r:read"])),
        (2, "token_exchange", "allow", "agent", "", json!(["r:read", "r:write"])),
        (2, "gateway_decision", "allow", "agent", "GET /a/b", json!(["r:read", "r:write"])),
        (1, "gateway_decision", "deny", "agent", "DELETE /a", json!(["r:read"])),
        (1, "token_exchange", "deny", "idle", "", json!(["r:write"])),
        (1, "token_exchange", "deny", "idle", "", json!(["r:write"])),
    ]
}

#[tokio::test]
async fn what_no_request_needed_is_told_and_what_was_only_carried_is_told_apart() {
    let site = Site::with(&lines()).await;
    let told = site.told("unused").await;
    let (first, rest) = told.split_once('\n').unwrap();
    assert!(first.starts_with("zone z: 1 permitted requests since 2"), "{told}");
    let rest: Vec<_> = rest.lines().map(str::trim).collect();
    assert_eq!(
        rest,
        [
            "grant      agent as agent: r:end on resource://r (never asked for)",
            "grant      agent as agent: r:write on resource://r (carried, never needed)",
            "grant      agent as idle: r:read on resource://r (never asked for)",
            "operation  PUT /{id} on resource://r",
        ]
    );
    // A longer look sees what the idle role did.
    let line = ["policy", "unused", "--days", "60", "--config", &site.config, "--json"];
    let (code, text, notes) = caracal(line).await;
    assert_eq!(code, 0, "{notes}");
    let told: Value = serde_json::from_str(&text).unwrap();
    let zone = &told["zones"][0];
    assert_eq!((&zone["requests"], zone["unused_grants"].as_array().unwrap().len()), (&json!(2), 2));
    assert!(parse_iso(zone["since"].as_str().unwrap()).is_some());
    assert_eq!(zone["refused"][0]["count"], 2);
}

#[tokio::test]
async fn a_suggestion_loads_narrows_and_grants_nothing_that_was_refused() {
    let site = Site::with(&lines()).await;
    let told = site.told("suggest").await;
    assert!(
        told.contains("# carried, never needed: r:write\n\"agent\" = [\"r:read\", \"r:write\"]"),
        "{told}"
    );
    assert!(
        told.contains("#     2x agent as `idle`: r:write on resource://r (role_scope_mismatch)"),
        "{told}"
    );
    assert!(told.contains("#     1x agent as `agent`: DELETE /a on resource://r"), "{told}");
    let bundle = site.folder.path().join("bundles/z.toml");
    let text = std::fs::read_to_string(&bundle).unwrap();
    let before = text.split("[app_ids]").next().unwrap();
    let suggested = told.replace("schema = 1\n", "");
    std::fs::write(&bundle, format!("{before}{suggested}")).unwrap();
    let (code, text, notes) = caracal(["check", "--config", &site.config]).await;
    assert_eq!(code, 0, "{text} {notes}");
    let again = site.told("unused").await;
    assert!(!again.contains("never asked for") && again.contains("carried, never needed"), "{again}");
}

#[tokio::test]
async fn without_records_everything_is_unused_and_nothing_is_suggested() {
    let site = Site::with(&USED).await;
    assert_eq!(site.told("unused").await.matches("never asked for").count(), 4);
    let told = site.told("suggest").await;
    assert!(
        told.starts_with("# Zone z, from 0 permitted requests.\n") && !told.contains("[grants"),
        "{told}"
    );
    std::fs::remove_dir_all(site.folder.path().join("state")).unwrap();
    assert!(site.told("unused").await.contains("0 permitted requests"), "a zone without a chain");
    let (code, _, notes) = caracal(["policy", "unused", "y", "--config", &site.config]).await;
    assert_eq!((code, notes.contains("there is no zone `y`")), (1, true), "{notes}");
}

#[tokio::test]
async fn policy_data_is_converted_from_files_folders_and_zones() {
    let site = Site::with(&USED).await;
    let convert = async |what: &str, form: &str, to: Option<&str>| {
        let line =
            ["policy", "convert", "--config", &site.config, "--to", form, what, "--out", to.unwrap_or("-")];
        match to {
            Some(_) => caracal(line).await,
            None => caracal(["policy", "convert", "--config", &site.config, "--to", form, what]).await,
        }
    };
    let (code, rego, notes) = convert("z", "rego", None).await;
    assert_eq!(code, 0, "{notes}");
    assert!(rego.starts_with("package caracal.authz\n\n# caracal:data-document\n"), "{rego}");
    assert!(rego.contains("\"idle\": [\"r:read\"]"), "{rego}");
    // The bundle in one file holds more than policy data.
    let bundle = site.folder.path().join("bundles/z.toml").display().to_string();
    let (code, _, notes) = convert(&bundle, "rego", None).await;
    assert_eq!((code, notes.contains("convert_not_policy")), (64, true), "{notes}");
    // A file that is there stays as it is.
    let beside = site.folder.path().join("authz.rego").display().to_string();
    assert_eq!(convert("z", "rego", Some(&beside)).await.0, 0);
    let (code, _, notes) = convert("z", "rego", Some(&beside)).await;
    assert_eq!((code, notes.contains("could not be written")), (1, true), "{notes}");
    // As a folder with the document in Rego it loads, answers the same, and converts back.
    let folder = site.folder.path().join("bundles/z");
    std::fs::create_dir(&folder).unwrap();
    let text = std::fs::read_to_string(&bundle).unwrap();
    let rest = text.split("[app_ids]").next().unwrap();
    let rest = rest.replace("[zone]\n", "[zone]\ndocuments = [\"authz.rego\"]\n");
    std::fs::write(folder.join("zone.toml"), rest).unwrap();
    let document = folder.join("authz.rego").display().to_string();
    std::fs::rename(&beside, &document).unwrap();
    std::fs::remove_file(&bundle).unwrap();
    let (code, text, notes) = caracal(["check", "--config", &site.config]).await;
    assert_eq!(code, 0, "{text} {notes}");
    let toml = convert(&document, "toml", None).await.1;
    assert!(toml.starts_with("schema = 1\n\n[app_ids]\n"), "{toml}");
    assert_eq!(convert(&folder.display().to_string(), "toml", None).await.1, toml);
    std::fs::write(&document, "package caracal.authz\n").unwrap();
    let (code, _, notes) = convert(&document, "toml", None).await;
    assert_eq!((code, notes.contains("must_be_data_document")), (64, true), "{notes}");
    let (code, _, notes) = convert("nothing", "toml", None).await;
    assert_eq!((code, notes.contains("no zone of")), (1, true), "{notes}");
}
