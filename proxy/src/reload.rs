//! Files to snapshot: at start, and whenever they may have changed.
//!
//! A candidate is read, compiled, checked and put together away from the requests; then one pointer is swapped.
//! Zones are accepted or refused one by one, the secrets file is a unit of its own, and whatever is refused
//! leaves what was there before. Versions that were in force are kept in the state folder: a start with a bad
//! bundle stands on the last of them.

mod activate;
mod aside;
mod candidate;
mod events;
mod pass;
mod promote;
#[cfg(test)]
mod tests;
pub(crate) mod versions;

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use caracal_plugins::Registry;
use caracal_policies::{Digest, Place, Problem, Report, Zone};
use parking_lot::RwLock;
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::config::Config;
use crate::egress;
use crate::secrets::{FingerprintKey, FingerprintKeyError, SecretsTable, check_sinks};
use crate::snapshot::{Snapshot, SnapshotHandle};
use crate::watch::Watch;

pub use activate::{ActivateError, Activated, Wanted};
pub use events::{LogObserver, ReloadEvent, ReloadObserver};
pub use promote::{PromoteError, Promoted, Promotion};
pub use versions::Unfound;

/// File in the state folder with the key under which secrets get fingerprints.
pub(crate) const FINGERPRINT_KEY: &str = "fingerprint.key";

/// What one reload did.
#[derive(Clone, Debug)]
pub struct ReloadOutcome {
    /// Each configured zone, sorted by id.
    pub zones: Vec<ZoneOutcome>,
    /// The secrets file.
    pub secrets: SecretsOutcome,
    /// The generation that is current now.
    pub generation: u64,
}

/// What became of one zone.
#[derive(Clone, Debug)]
pub struct ZoneOutcome {
    /// The zone's id.
    pub zone: String,
    /// What became of it.
    pub result: ZoneResult,
}

/// What became of one zone's bundle.
#[derive(Clone, Debug)]
pub enum ZoneResult {
    /// The bundle is in force.
    Accepted {
        /// Its digest.
        digest: Digest,
        /// The difference to the one before, in words.
        changes: Vec<String>,
    },
    /// The files say what is in force already.
    Unchanged,
    /// The bundle was refused; the last good one stays in force.
    Rejected(Report),
}

/// What became of the secrets file.
#[derive(Clone, Debug)]
pub enum SecretsOutcome {
    /// The file is in force.
    Accepted {
        /// The difference to the one before, in words without values.
        changes: Vec<String>,
        /// References of bundles in force that the new file no longer serves. Requests that need them fail.
        unserved: Vec<Problem>,
    },
    /// The file says what is in force already.
    Unchanged,
    /// The file was refused; the last good one stays in force.
    Rejected(Report),
}

/// Why the process cannot start on these files.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A zone or the secrets file was refused and there is nothing to stand on. Exit code 64.
    #[error("the files were refused")]
    Refused(Report),
    /// The state folder cannot be used.
    #[error("the state folder cannot be used")]
    StateFolder(#[source] std::io::Error),
    /// There is no key for fingerprints.
    #[error("secrets cannot be given fingerprints")]
    Fingerprints(#[from] FingerprintKeyError),
}

/// What readiness should know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Zones whose files were refused, so that something older is in force. Answered as `bundle_rejected`.
    pub bundles_rejected: Vec<String>,
    /// Candidates that were refused, and why. They do not keep anything from being ready.
    pub candidates_refused: BTreeMap<String, String>,
    /// Whether the secrets file was refused. Answered as `secrets_rejected`.
    pub secrets_rejected: bool,
    /// Whether files were reported changed and the reload has not ended.
    pub reloading: bool,
}

/// Keeps the snapshot in step with the files. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reloader {
    inner: Arc<Inner>,
    loaded: Arc<Mutex<pass::Loaded>>,
}

struct Inner {
    config: Arc<Config>,
    registry: Arc<Registry>,
    observer: Arc<dyn ReloadObserver>,
    clock: Clock,
    fingerprints: FingerprintKey,
    snapshot: SnapshotHandle,
    standing: RwLock<Standing>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").field("standing", &self.standing).finish_non_exhaustive()
    }
}

impl Reloader {
    /// Reads everything and makes the first snapshot. Blocks on files; meant for the start of the process.
    ///
    /// A zone whose bundle is refused starts on the version activated last, and readiness says so.
    ///
    /// # Errors
    /// [`StartError::Refused`] with every problem when the secrets file is refused, or a zone that never had a
    /// good bundle.
    pub fn load_initial(
        config: Arc<Config>,
        registry: Arc<Registry>,
        observer: Arc<dyn ReloadObserver>,
        clock: Clock,
    ) -> Result<Self, StartError> {
        make_folder(&config.state_dir).map_err(StartError::StateFolder)?;
        let fingerprints = FingerprintKey::load_or_create(&config.state_dir.join(FINGERPRINT_KEY))?;
        let inner = Inner {
            config,
            registry,
            observer,
            clock,
            fingerprints,
            snapshot: SnapshotHandle::new(Snapshot::empty()),
            standing: RwLock::new(Standing::default()),
        };
        let loaded = pass::start(&inner).map_err(StartError::Refused)?;
        Ok(Self { inner: Arc::new(inner), loaded: Arc::new(Mutex::new(loaded)) })
    }

    /// The handle that requests load the snapshot from.
    #[must_use]
    pub fn snapshot(&self) -> &SnapshotHandle {
        &self.inner.snapshot
    }

    /// Compares the files with what is in force and takes over what is good. Reloads never overlap; one that was
    /// begun is finished even when nobody waits for it any more.
    pub async fn reload(&self) -> ReloadOutcome {
        let mut loaded = Arc::clone(&self.loaded).lock_owned().await;
        let inner = Arc::clone(&self.inner);
        let done = aside::run(move || pass::run(&inner, &mut loaded)).await;
        done.unwrap_or_else(|| self.faulted())
    }

    /// Reloads each time the watch says so, until `stop` turns true or the watch ends.
    pub async fn follow(&self, mut watch: Watch, mut stop: tokio::sync::watch::Receiver<bool>) {
        loop {
            let trigger = tokio::select! {
                trigger = watch.changed() => trigger,
                _ = stop.wait_for(|stop| *stop) => None,
            };
            let Some(trigger) = trigger else { return };
            tracing::debug!(?trigger, "comparing files with what is in force");
            self.inner.standing.write().reloading = true;
            self.reload().await;
        }
    }

    /// What readiness should know.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.inner.standing.read().clone()
    }

    /// Whether the files say something else than the snapshot: a change that is being read, or one that was
    /// refused.
    #[must_use]
    pub fn files_newer_than_snapshot(&self) -> bool {
        let standing = self.inner.standing.read();
        standing.reloading || standing.secrets_rejected || !standing.bundles_rejected.is_empty()
    }

    /// A reload that panicked changed nothing: the snapshot is swapped in its last step.
    fn faulted(&self) -> ReloadOutcome {
        let report = Report {
            problems: vec![Problem {
                code: "reload_fault",
                place: Place {
                    file: self.inner.config.bundles_dir.display().to_string().into(),
                    line: 1,
                    column: 1,
                },
                message: "the reload failed by a fault of ours; nothing was changed".to_owned(),
                found: String::new(),
                expected: String::new(),
                hint: "the log has the details; please report it with the files".to_owned(),
            }],
        };
        tracing::error!("a reload panicked; the snapshot before it stays in force");
        let zones = self.inner.config.zones.keys();
        ReloadOutcome {
            zones: zones
                .map(|zone| ZoneOutcome { zone: zone.clone(), result: ZoneResult::Rejected(report.clone()) })
                .collect(),
            secrets: SecretsOutcome::Rejected(report),
            generation: self.inner.snapshot.load().generation,
        }
    }
}

/// Reads and checks everything exactly as a start would, and puts nothing into force.
///
/// # Errors
/// Every problem of the secrets file and of all zones.
pub fn check(config: &Config, registry: &Registry) -> Result<BTreeMap<String, Arc<Zone>>, Report> {
    let mut problems = Vec::new();
    let table = SecretsTable::load(&config.secrets, &FingerprintKey::unkept())
        .map_err(|report| problems.extend(report.problems))
        .ok();
    problems.extend(egress::check_authorities(config));
    problems.extend(table.iter().flat_map(|table| check_sinks(config, table)));
    let mut zones = BTreeMap::new();
    for id in config.zones.keys() {
        match candidate::read(config, id)
            .and_then(|read| candidate::build(config, registry, &read, None, table.as_ref(), 1, None))
        {
            Ok(live) => {
                zones.insert(id.clone(), Arc::clone(&live.zone));
            }
            Err(report) => problems.extend(report.problems),
        }
    }
    if problems.is_empty() { Ok(zones) } else { Err(Report { problems }) }
}

/// Makes a folder that only we may enter, and those above it that are missing.
fn make_folder(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
