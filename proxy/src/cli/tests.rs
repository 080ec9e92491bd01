use std::ffi::OsString;
use std::io::{self, Write};
use std::sync::Arc;

use async_trait::async_trait;
use clap::CommandFactory;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use super::out::{Colour, Style};
use super::*;
use crate::control::{ControlHandler, ControlSocket, Failure, Operator, Request};

/// Installs the process's crypto provider, whichever test comes first.
pub(super) fn crypto() {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

#[derive(Clone, Default)]
pub(super) struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs a command line and gives its exit code, standard output and standard error.
pub(super) async fn caracal<const N: usize>(arguments: [&str; N]) -> (u8, String, String) {
    let line = std::iter::once("caracal").chain(arguments).map(OsString::from);
    let (answers, notes) = (Page::default(), Page::default());
    let mut out = Out::into_writers(Box::new(answers.clone()), Box::new(notes.clone()), Colour::Plain);
    let exit = Box::pin(run(Cli::try_parse_from(line).unwrap(), &mut out)).await;
    (exit.code(), answers.text(), notes.text())
}

/// A control socket that refuses a reload, and answers everything else with the request it got.
#[derive(Debug)]
struct Mirror;

#[async_trait]
impl ControlHandler for Mirror {
    async fn handle(&self, request: Request, _operator: Operator) -> Result<Value, Failure> {
        if request == (Request::Freeze { zone: "nowhere".into() }) {
            return Err(Failure::new("unknown_zone", "there is no zone `nowhere`"));
        }
        if request == Request::Reload {
            return Ok(json!({
                "zones": [{ "zone": "a", "result": "rejected", "report": "error[x]: wrong\n  --> a.toml:3:1\n" }],
                "secrets": { "result": "unchanged" },
            }));
        }
        Ok(json!({ "asked": request }))
    }
}

struct Edge {
    folder: TempDir,
    _stop: watch::Sender<bool>,
}

impl Edge {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = ControlSocket::bind(&crate::control::socket_path(folder.path())).unwrap();
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(socket.serve(Arc::new(Mirror), stopped));
        Self { folder, _stop: stop }
    }

    fn state_dir(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_says_its_exit_codes() {
    let mut root = Cli::command();
    let help = root.render_long_help().to_string();
    for code in ["0 ", "1 ", "2 ", "3 ", "64 ", "65 ", "66 ", "69 "] {
        assert!(help.contains(&format!("\n  {code}")), "exit code {code} is not explained");
    }
    for name in [
        "serve", "init", "check", "test", "versions", "diff", "activate", "rollback", "env", "call",
        "schema", "echo", "freeze", "revoke", "what-can", "who-can", "explain", "reload",
    ] {
        let help = root.find_subcommand_mut(name).unwrap().render_help().to_string();
        assert!(help.contains("Exit codes:"), "{name}");
    }
}

#[test]
fn every_command_and_argument_is_explained() {
    fn visit(command: &clap::Command, path: &str) {
        for argument in command.get_arguments().filter(|argument| argument.get_id() != "version") {
            assert!(argument.get_help().is_some(), "{path} {}", argument.get_id());
        }
        for inner in command.get_subcommands() {
            let path = format!("{path} {}", inner.get_name());
            assert!(inner.get_about().is_some(), "{path}");
            visit(inner, &path);
        }
    }
    visit(&Cli::command(), "caracal");
}

#[test]
fn colour_needs_a_terminal_and_no_objection() {
    assert_eq!(Colour::of(true, true), Colour::Ansi);
    for (terminal, wanted) in [(true, false), (false, true), (false, false)] {
        assert_eq!(Colour::of(terminal, wanted), Colour::Plain);
    }
    let out = |colour| Out::into_writers(Box::new(io::sink()), Box::new(io::sink()), colour);
    assert_eq!(out(Colour::Plain).paint(Style::Bad, "no"), "no");
    assert_ne!(out(Colour::Ansi).paint(Style::Bad, "no"), "no");
}

#[test]
fn a_value_is_readable_without_json() {
    let page = Page::default();
    let mut out = Out::into_writers(Box::new(page.clone()), Box::new(io::sink()), Colour::Plain);
    let value = json!({
        "ready": true,
        "zones": [{ "id": "a", "frozen": false }, { "id": "b\u{1b}[2J", "frozen": true }],
        "listeners": { "gateway": "127.0.0.1:8081" },
        "problems": [],
        "created_at": 1_700_000_000_000_i64,
    });
    out.value(&value, false).unwrap();
    let mut lines: Vec<_> = page.text().lines().map(str::to_owned).collect();
    lines.sort();
    let text = lines.join("\n");
    assert!(text.contains("problems:   none"), "{text}");
    assert!(text.contains("ready:      yes"), "{text}");
    assert!(text.contains("created_at: 2023-11-14T22:13:20.000Z"), "{text}");
    assert!(text.contains("  gateway: 127.0.0.1:8081"), "{text}");
    assert!(text.contains("    id:     a") || text.contains("  - id:     a"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[tokio::test]
async fn output_nobody_reads_is_no_error() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut out = Out::into_writers(Box::new(Closed), Box::new(io::sink()), Colour::Plain);
    let cli = Cli::try_parse_from(["caracal", "schema", "secrets"]).unwrap();
    assert_eq!(Box::pin(run(cli, &mut out)).await, Exit::Done);
}

#[tokio::test]
async fn acts_reach_the_running_edge_as_they_were_meant() {
    let edge = Edge::start();
    let dir = edge.state_dir();
    let asked = async |answer: (u8, String, String)| {
        let (code, text, notes) = answer;
        assert_eq!(code, 0, "{notes}");
        serde_json::from_str::<Value>(&text).unwrap()["asked"].clone()
    };
    let status = asked(caracal(["status", "--state-dir", dir, "--json"]).await).await;
    assert_eq!(status, json!({ "op": "status" }));
    let freeze = asked(caracal(["freeze", "a", "--state-dir", dir, "--json"]).await).await;
    assert_eq!(freeze, json!({ "op": "freeze", "zone": "a" }));
    let revoke = asked(caracal(["keys", "revoke", "a", "k1", "--state-dir", dir, "--json"]).await).await;
    assert_eq!(revoke, json!({ "op": "keys_revoke", "zone": "a", "kid": "k1" }));
    let line = ["revoke", "--zone", "a", "--app", "b", "--cut", "--state-dir", dir, "--json"];
    let cut = asked(caracal(line).await).await;
    let target = json!({ "application": { "id": "b", "extent": "cut" } });
    assert_eq!(
        cut,
        json!({ "op": "revoke", "zone": "a", "target": target, "reason": null, "dry_run": false })
    );
    for kind in ["record", "root", "session", "delegation", "subject"] {
        let option = format!("--{kind}");
        let line = ["revoke", &option, "x", "--reason", "left", "--dry-run", "--state-dir", dir, "--json"];
        let asked = asked(caracal(line).await).await;
        let target = json!({ kind: "x" });
        assert_eq!(
            asked,
            json!({ "op": "revoke", "zone": null, "target": target, "reason": "left", "dry_run": true })
        );
    }
    let line = ["sessions", "list", "--status", "suspended", "--limit", "7", "--state-dir", dir, "--json"];
    let listed = asked(caracal(line).await).await;
    assert_eq!(
        listed,
        json!({ "op": "sessions", "zone": null, "which": { "only": "suspended" }, "limit": 7 })
    );
    let tree = asked(caracal(["sessions", "tree", "--all", "--state-dir", dir, "--json"]).await).await;
    assert_eq!((&tree["which"], &tree["limit"]), (&json!("all"), &json!(10_000)));
    let shown = asked(caracal(["sessions", "show", "s", "--state-dir", dir, "--json"]).await).await;
    assert_eq!(shown, json!({ "op": "session", "zone": null, "id": "s" }));
    let activate = asked(caracal(["activate", "3f2a", "--state-dir", dir, "--json"]).await).await;
    assert_eq!(activate, json!({ "op": "activate", "zone": null, "version": "3f2a" }));
    let line = ["activate", "--files", "--zone", "a", "--state-dir", dir, "--json"];
    assert_eq!(asked(caracal(line).await).await, json!({ "op": "activate", "zone": "a", "version": null }));
    let back = asked(caracal(["rollback", "--state-dir", dir, "--json"]).await).await;
    assert_eq!(back, json!({ "op": "rollback", "zone": null }));
    let can = asked(caracal(["what-can", "s", "--zone", "a", "--state-dir", dir, "--json"]).await).await;
    assert_eq!(can, json!({ "op": "what_can", "zone": "a", "id": "s" }));
    let who = asked(caracal(["who-can", "GET", "/a", "--state-dir", dir, "--json"]).await).await;
    assert_eq!(who, json!({ "op": "who_can", "zone": null, "method": "GET", "url": "/a" }));
}

#[test]
fn exactly_one_thing_is_meant_at_a_time() {
    for line in [
        &["caracal", "revoke"][..],
        &["caracal", "revoke", "--session", "a", "--record", "b"],
        &["caracal", "revoke", "--session", "a", "--cut"],
        &["caracal", "revoke", "--zone", "z", "--dry-run"],
        &["caracal", "activate"],
        &["caracal", "activate", "3f2a", "--files"],
    ] {
        assert!(Cli::try_parse_from(line).is_err(), "{line:?}");
    }
}

#[tokio::test]
async fn a_declined_act_ends_with_its_reason() {
    let edge = Edge::start();
    let (code, text, notes) = caracal(["freeze", "nowhere", "--state-dir", edge.state_dir()]).await;
    assert_eq!((code, text.as_str()), (1, ""));
    assert_eq!(notes, "error: there is no zone `nowhere`\n");
}

#[tokio::test]
async fn a_reload_that_was_refused_ends_with_64_and_the_report() {
    let edge = Edge::start();
    let (code, text, _) = caracal(["reload", "--state-dir", edge.state_dir()]).await;
    assert_eq!(code, 64);
    assert!(text.lines().any(|line| line.trim_start() == "--> a.toml:3:1"), "{text}");
}

#[tokio::test]
async fn without_a_running_edge_the_exit_code_is_69() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, notes) = caracal(["status", "--state-dir", folder.path().to_str().unwrap()]).await;
    assert_eq!(code, 69);
    assert!(notes.contains("no caracal is running on"), "{notes}");
}

#[tokio::test]
async fn a_stop_works_with_a_configuration_that_does_not_check() {
    let edge = Edge::start();
    let config = edge.folder.path().join("caracal.toml");
    std::fs::write(&config, "schema = 1\nstate_dir = \".\"\nlisteners = \"typo\"\n").unwrap();
    let config = config.to_str().unwrap();
    let (code, text, notes) = caracal(["freeze", "quickstart", "--config", config]).await;
    assert_eq!(code, 0, "{notes}");
    assert!(text.starts_with("`quickstart` is frozen"), "{text}");

    let (code, _, notes) = caracal(["check", "--config", config]).await;
    assert_eq!(code, 64);
    assert!(notes.contains("caracal.toml"), "{notes}");
}

#[tokio::test]
async fn a_configuration_that_is_not_there_names_the_way_out() {
    let (code, _, notes) = caracal(["status", "--config", "/nonexistent/caracal.toml"]).await;
    assert_eq!(code, 64);
    assert!(notes.contains("--state-dir"), "{notes}");
}

#[tokio::test]
async fn a_ledger_is_verified_only_with_a_key_from_the_caller() {
    let bare = Cli::try_parse_from(["caracal", "audit", "verify", "--ledger", "/tmp"]);
    assert_eq!(bare.unwrap_err().kind(), clap::error::ErrorKind::MissingRequiredArgument);
    let odd = Cli::try_parse_from(["caracal", "audit", "verify", "--fingerprint", "sha256:12"]);
    assert_eq!(odd.unwrap_err().kind(), clap::error::ErrorKind::ValueValidation);
}

#[tokio::test]
async fn a_secret_is_printed_alone_so_that_a_script_can_keep_it() {
    let (code, text, _) = caracal(["secret", "new"]).await;
    assert_eq!(code, 0);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("cs_"), "{}", lines.len());
    assert!(lines[1].starts_with("secrets = [\"sha256$"), "{}", lines[1]);
}

#[tokio::test]
async fn a_secret_can_go_straight_into_a_private_file_and_replaces_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.secret");
    let name = path.display().to_string();
    let (code, text, notes) = caracal(["secret", "new", "--secret-file", &name]).await;
    assert_eq!(code, 0, "{notes}");
    let secret = std::fs::read_to_string(&path).unwrap();
    assert!(secret.starts_with("cs_") && !text.contains(secret.trim()) && !notes.contains(secret.trim()));
    assert!(text.starts_with("secrets = [\"sha256$") && text.lines().count() == 1, "{text}");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
    assert_eq!(mode & 0o777, 0o600);

    let (code, _, notes) = caracal(["secret", "new", "--secret-file", &name]).await;
    assert_eq!(code, 1, "{notes}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), secret);
}

#[tokio::test]
async fn a_report_stands_for_itself_and_other_errors_say_that_they_are_some() {
    let folder = files();
    let config = folder.path().join("caracal.toml").display().to_string();
    std::fs::write(folder.path().join("bundles/z.toml"), "schema = 2\n").unwrap();
    let (code, _, notes) = caracal(["check", "--config", &config]).await;
    assert_eq!(code, 64);
    assert!(notes.starts_with("error["), "{notes}");
    let (_, _, notes) =
        caracal(["env", "--config", &config, "--app", "agent", "--secret-file", "/nowhere"]).await;
    assert!(notes.starts_with("error"), "{notes}");
}

/// A folder with a complete configuration: one zone, one application, one resource.
pub(super) fn files() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "caracal.toml",
        "schema = 1\nissuer = \"http://127.0.0.1:8080\"\nstate_dir = \"state\"\nbundles_dir = \"bundles\"\n\
         [secrets]\nfile = \"secrets.toml\"\n[zones.z]\nprefixes = []\nhosts = []\n",
    );
    write("secrets.toml", "schema = 1\n");
    let secrets = folder.path().join("secrets.toml");
    std::fs::set_permissions(secrets, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::create_dir(folder.path().join("bundles")).unwrap();
    write(
        "bundles/z.toml",
        "schema = 1\n[zone]\nid = \"z\"\nname = \"Z\"\n[[applications]]\nid = \"agent\"\nname = \"Agent\"\n\
         secrets = [\"sha256$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"]\n\
         [[providers]]\nidentifier = \"provider://open\"\nkind = \"none\"\n\
         [[resources]]\nidentifier = \"resource://r\"\nupstream_url = \"http://127.0.0.1:9000/v1\"\n\
         scopes = [\"r:read\"]\ncredential_provider = \"provider://open\"\n\
         operations = [{ method = \"GET\", path = \"/**\", scope = \"r:read\" }]\n\
         [app_ids]\nagent = \"agent\"\n[grants.\"resource://r\"]\napplication = \"agent\"\nroles = { agent = [\"r:read\"] }\n",
    );
    folder
}

#[tokio::test]
async fn the_environment_of_an_application_comes_from_the_files_while_nothing_runs() {
    let folder = files();
    let config = folder.path().join("caracal.toml").display().to_string();
    let (code, text, notes) = caracal(["env", "--config", &config, "--app", "agent", "--zone", "z"]).await;
    assert_eq!(code, 0, "{notes}");
    assert!(text.contains("export CARACAL_GATEWAY_URL='http://127.0.0.1:8081'\n"), "{text}");
    assert!(text.contains("export CARACAL_RESOURCES='resource://r=http://127.0.0.1:9000/v1'\n"), "{text}");

    let (code, _, notes) = caracal(["env", "--config", &config, "--app", "nobody", "--zone", "z"]).await;
    assert_eq!(code, 1);
    assert!(notes.contains("no application `nobody` in zone `z`"), "{notes}");
}

#[tokio::test]
async fn a_check_counts_what_is_good_and_places_what_is_not() {
    let folder = files();
    let config = folder.path().join("caracal.toml").display().to_string();
    let (code, text, notes) = caracal(["check", "--config", &config]).await;
    assert_eq!(code, 0, "{notes}");
    assert!(text.contains("zone z: applications 1, resources 1, sha256:"), "{text}");

    let bundle = folder.path().join("bundles/z.toml");
    let wrong = std::fs::read_to_string(&bundle).unwrap().replace("kind = \"none\"", "kind = \"nome\"");
    std::fs::write(&bundle, wrong).unwrap();
    let (code, text, _) = caracal(["check", "--config", &config, "--json"]).await;
    assert_eq!(code, 64);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(report["problems"][0]["place"]["file"], "bundles/z.toml");
}
