//! A folder with a configuration, bundles and secrets, and an observer that remembers what it is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use parking_lot::Mutex as Plain;

use super::super::*;
use crate::config;

/// The secret value that must show up nowhere.
pub(super) const CANARY: &str = "sk-canary-5d1f0a77e2";

/// What a zone's folder holds.
const DOCUMENTS: [&str; 5] =
    ["zone.toml", "applications.toml", "providers.toml", "resources.toml", "policies/grants.toml"];

pub(super) struct Site {
    pub(super) dir: tempfile::TempDir,
    pub(super) config: Arc<Config>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) clock: Clock,
}

#[derive(Default)]
pub(super) struct Recorder {
    words: Plain<Vec<String>>,
    pub(super) everything: Plain<Vec<String>>,
}

impl Recorder {
    /// What was told since the last time, without swaps.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.words.lock())
    }
}

impl ReloadObserver for Recorder {
    fn observe(&self, event: &ReloadEvent<'_>) {
        LogObserver.observe(event);
        self.everything.lock().push(format!("{event:?}"));
        let words = match event {
            ReloadEvent::ZoneAccepted { zone, .. } => format!("accepted {zone}"),
            ReloadEvent::ZoneRejected { zone, .. } => format!("rejected {zone}"),
            ReloadEvent::ZoneStandsIn { zone, .. } => format!("stands in {zone}"),
            ReloadEvent::ZonePinned { zone, .. } => format!("pinned {zone}"),
            ReloadEvent::ZonePinEnded { zone, .. } => format!("pin ended {zone}"),
            ReloadEvent::ZonePinLost { zone, .. } => format!("pin lost {zone}"),
            ReloadEvent::CandidateRehearsed { zone, .. } => format!("rehearsed {zone}"),
            ReloadEvent::CandidateRefused { zone, .. } => format!("candidate refused {zone}"),
            ReloadEvent::CandidateGone { zone } => format!("candidate gone {zone}"),
            ReloadEvent::SecretsAccepted { .. } => "accepted secrets".to_owned(),
            ReloadEvent::SecretsRejected { .. } => "rejected secrets".to_owned(),
            ReloadEvent::Swapped { .. } | ReloadEvent::Took { .. } => return,
        };
        self.words.lock().push(words);
    }
}

impl Site {
    /// A site with these zones; each may use the prefix that is called like it. Zone `b`, if there, also has a
    /// place beneath the prefix of zone `a`.
    pub(super) fn of(zones: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let table = |zone: &&str| {
            let inner = if *zone == "b" { ", \"/a/of-b\"" } else { "" };
            format!("[zones.{zone}]\nprefixes = [\"/{zone}\"{inner}]\n")
        };
        let bundles = "[bundles]\nkeep_versions = 3\n";
        let text = format!("schema = 1\n{bundles}{}", zones.iter().map(table).collect::<String>());
        let config = config::parse("caracal.toml", &text, dir.path()).unwrap();
        let site =
            Self { dir, config: Arc::new(config), recorder: Arc::default(), clock: Clock::manual(1_000) };
        for zone in zones {
            for (name, text) in documents(zone, "echo:read") {
                site.put(&format!("{zone}/{name}"), &text);
            }
        }
        fs::write(site.secrets(), secrets()).unwrap();
        fs::set_permissions(site.secrets(), fs::Permissions::from_mode(0o600)).unwrap();
        site
    }

    pub(super) fn bundles(&self) -> PathBuf {
        self.dir.path().join("bundles")
    }

    pub(super) fn secrets(&self) -> PathBuf {
        self.dir.path().join("secrets.toml")
    }

    pub(super) fn put(&self, name: &str, text: &str) {
        let path = self.bundles().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Changes what the application of `zone` is granted.
    pub(super) fn grant(&self, zone: &str, scope: &str) {
        self.put(&format!("{zone}/policies/grants.toml"), &grants(scope));
    }

    pub(super) fn start(&self) -> Result<Reloader, StartError> {
        let observer: Arc<dyn ReloadObserver> = Arc::<Recorder>::clone(&self.recorder);
        Reloader::load_initial(
            Arc::clone(&self.config),
            Arc::new(Registry::stock()),
            observer,
            self.clock.clone(),
        )
    }
}

pub(super) fn documents(zone: &str, scope: &str) -> [(&'static str, String); 5] {
    let [zone_file, applications, providers, resources, policy] = DOCUMENTS;
    [
        (
            zone_file,
            format!(
                "schema = 1\n[zone]\nid = \"{zone}\"\nname = \"{zone}\"\n\
                 documents = [\"{applications}\", \"{providers}\", \"{resources}\", \"{policy}\"]\n"
            ),
        ),
        (applications, "schema = 1\n[[applications]]\nid = \"demo-agent\"\nname = \"Demo\"\n".to_owned()),
        (
            providers,
            "schema = 1\n[[providers]]\nidentifier = \"provider://echo-key\"\nkind = \"api_key\"\n\
             location = \"header\"\nheader_name = \"X-Api-Key\"\nsecret = \"secret://echo/api_key\"\n"
                .to_owned(),
        ),
        (
            resources,
            format!(
                "schema = 1\n[[resources]]\nidentifier = \"resource://echo\"\n\
                 upstream_url = \"http://127.0.0.1:9000\"\nscopes = [\"echo:read\", \"echo:write\"]\n\
                 credential_provider = \"provider://echo-key\"\noperation_enforcement = \"enforced\"\n\
                 operations = [{{ method = \"GET\", path = \"/read/**\", scope = \"echo:read\" }}]\n\
                 prefixes = [\"/{zone}\"]\nplugins = [{{ name = \"response_scrub\" }}]\n"
            ),
        ),
        (policy, grants(scope)),
    ]
}

fn grants(scope: &str) -> String {
    format!(
        "schema = 1\n[app_ids]\ndemo = \"demo-agent\"\n[grants.\"resource://echo\"]\n\
         application = \"demo\"\nroles = {{ demo-agent = [\"{scope}\"] }}\n"
    )
}

pub(super) fn secrets() -> String {
    let entry = |name: &str, zones: &str, value: &str| {
        format!(
            "[secrets.{name}]\nzones = [{zones}]\n\
             hosts = [\"127.0.0.1:9000\", \"api.example.com\"]\napi_key = \"{value}\"\n"
        )
    };
    let all = "\"a\", \"b\"";
    let (echo, others) = (entry("echo", all, CANARY), entry("others", "\"b\"", "another-value"));
    format!("schema = 1\n{echo}{others}{}", entry("short", all, "short"))
}

/// The report of a zone that was refused.
pub(super) fn rejected(outcome: &ReloadOutcome, zone: &str) -> Report {
    let found = outcome.zones.iter().find(|one| one.zone == zone).map(|one| &one.result);
    match found {
        Some(ZoneResult::Rejected(report)) => report.clone(),
        other => panic!("`{zone}` is not refused: {other:?}"),
    }
}

/// The first code of a refusal.
pub(super) fn code(outcome: &ReloadOutcome, zone: &str) -> &'static str {
    rejected(outcome, zone).problems[0].code
}

/// Waits until `condition` holds; a test whose condition never does fails.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let started = tokio::time::Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "never came: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
