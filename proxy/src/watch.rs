//! Noticing that files may have changed.
//!
//! A report is only a hint: what it says happened is ignored, and whoever is told compares contents. Reports get
//! lost (queue overflow, network file systems, bind mounts of single files), so there is a poll as well, and an
//! operator can ask.

mod points;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::config::Config;

/// How long files must be quiet before they are read. A Kubernetes swap reports seven events within 55 ms; an
/// editor's save about as many.
const QUIET: Duration = Duration::from_millis(150);

/// After this long they are read even though changes go on.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is watched.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// Single files; they need not exist yet.
    pub files: Vec<PathBuf>,
    /// Folders, watched with everything beneath them; they need not exist yet.
    pub folders: Vec<PathBuf>,
}

impl Targets {
    /// The secrets file, what opens it, the folder of files it may name, and the bundles of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let folders = std::iter::once(&config.bundles_dir).chain(&config.secrets.files_dir);
        let key = config.secrets.key.as_ref().map(|key| key.path().to_owned());
        let files = std::iter::once(config.secrets.file.clone()).chain(key);
        Self { files: files.collect(), folders: folders.cloned().collect() }
    }
}

/// Why files should be compared now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The watch has begun; what changed before it did is not missed.
    Started,
    /// Something happened to a file.
    Files,
    /// It was time.
    Poll,
    /// The process got a SIGHUP.
    Hangup,
    /// An operator asked.
    Asked,
}

/// A running watch. It ends when it is dropped.
#[derive(Debug)]
pub struct Watch {
    triggers: mpsc::Receiver<Trigger>,
    asked: Arc<Notify>,
    task: JoinHandle<()>,
}

/// Asks a running watch to report.
#[derive(Clone, Debug)]
pub struct Asker(Arc<Notify>);

impl Asker {
    /// Makes the watch report [`Trigger::Asked`] soon.
    pub fn ask(&self) {
        self.0.notify_one();
    }
}

impl Watch {
    /// Starts watching. Must be called inside a tokio runtime.
    ///
    /// Shape: `poll` is how often [`Trigger::Poll`] comes at least. When the system gives no watches, which is
    /// logged, the poll is all there is.
    #[must_use]
    pub fn start(targets: Targets, poll: Duration) -> Self {
        let (sender, triggers) = mpsc::channel(1);
        let asked = Arc::new(Notify::new());
        let task = tokio::spawn(run(targets, poll, Arc::clone(&asked), sender));
        Self { triggers, asked, task }
    }

    /// Waits until files should be compared; `None` when the watch has ended.
    pub async fn changed(&mut self) -> Option<Trigger> {
        self.triggers.recv().await
    }

    /// A handle for operators' requests.
    #[must_use]
    pub fn asker(&self) -> Asker {
        Asker(Arc::clone(&self.asked))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(targets: Targets, poll: Duration, asked: Arc<Notify>, sender: mpsc::Sender<Trigger>) {
    let happened = Arc::new(Notify::new());
    let mut armed = Armed::new(targets, Arc::clone(&happened));
    let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok();
    let mut timer = interval_at(Instant::now().checked_add(poll).unwrap_or_else(Instant::now), poll);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut trigger = Trigger::Started;
    loop {
        // Before the report: what changes after this line is reported again.
        armed.renew();
        if sender.send(trigger).await.is_err() {
            return;
        }
        trigger = tokio::select! {
            () = happened.notified() => {
                settle(&happened).await;
                Trigger::Files
            }
            _ = timer.tick() => Trigger::Poll,
            () = asked.notified() => Trigger::Asked,
            () = next_hangup(&mut hangup) => Trigger::Hangup,
        };
    }
}

/// Waits until nothing has happened for [`QUIET`], at most [`PATIENCE`].
async fn settle(happened: &Notify) {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if timeout(QUIET, happened.notified()).await.is_err() {
            return;
        }
    }
}

async fn next_hangup(signal: &mut Option<tokio::signal::unix::Signal>) {
    if let Some(signal) = signal
        && signal.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}

/// The folders that are watched now.
struct Armed {
    targets: Targets,
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
}

impl Armed {
    fn new(targets: Targets, happened: Arc<Notify>) -> Self {
        let report = move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| means_change(event.kind)) {
                happened.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(report)
            .map_err(|error| {
                tracing::warn!(%error, "files cannot be watched, changes are only seen by polling");
            })
            .ok();
        Self { targets, watcher, folders: BTreeSet::new() }
    }

    /// Watches what has to be watched now. A folder that was replaced keeps its path but not its watch, so every
    /// one is asked for again; for those already there the kernel has nothing to do.
    fn renew(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted = points::folders(&self.targets);
        for gone in self.folders.difference(&wanted) {
            // A folder that is gone took its watch with it.
            watcher.unwatch(gone).unwrap_or_default();
        }
        let refused = wanted
            .iter()
            .filter_map(|folder| watcher.watch(folder, RecursiveMode::NonRecursive).err())
            .collect::<Vec<_>>();
        if !refused.is_empty() {
            tracing::warn!(?refused, "some folders are not watched, their changes are only seen by polling");
        }
        self.folders = wanted;
    }
}

/// Everything but reading: our own reads must not wake us.
const fn means_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}
