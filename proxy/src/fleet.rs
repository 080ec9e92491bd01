//! What the nodes of a fleet share through Redis: marks of used mandates, the epoch those belong to, and the news
//! of everything that ended.
//!
//! Redis is believed only where it takes authority away. A mark is made, and the epoch checked, in one script on
//! one primary; a server that may have lost marks has another epoch, under which no earlier mandate counts. The
//! streams carry signed messages that can only narrow; every node reads all of them with its own cursor.
//!
//! While Redis is away, whatever needs a mark is refused and everything else goes on with what is known. Ends of
//! that time are told as soon as it is back.

mod announce;
mod ended;
mod follow;
mod link;
mod message;
mod run;
mod spend;
mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use aws_lc_rs::digest;
use caracal_mandates::{Claims, StreamKey};
use secrecy::ExposeSecret as _;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use self::announce::Outgoing;
use self::ended::EndedElsewhere;
use self::follow::Cursor;
use self::link::{Answer, Commands, Dialler, Found, Link};
use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::{Metrics, NO_LABELS};
use crate::state::{Narrowed, Origin, Session};

pub use link::FleetError;
pub(crate) use run::run;
pub(crate) use spend::NotSpent;
pub(crate) use store::{caught_up, shared_store};

/// How long a start waits for Redis.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// How long a stop waits for the last ends to be told.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// Milliseconds by which the clocks of two nodes may differ; mandates from further ahead are refused.
pub(crate) const CLOCKS_APART_MS: i64 = 5_000;
/// Milliseconds a mark outlives its mandate's last moment here: a node whose clock is behind sees that later.
const CLOCK_SKEW_MS: i64 = 60_000;
/// Narrowings that wait to be told. With more, what ended is looked up in the state instead.
const OUTBOX: usize = 65_536;

/// This node's part in the fleet; share it as an `Arc`.
pub struct Fleet {
    dialler: Dialler,
    key: StreamKey,
    /// Names this process in its messages, so that it does not obey itself.
    node: String,
    zones: Vec<Arc<str>>,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// The epoch as last heard; the server has the last word.
    epoch: ArcSwap<String>,
    commands: ArcSwapOption<Commands>,
    /// Wakes the supervisor: the link failed somebody.
    failed: Notify,
    elsewhere: EndedElsewhere,
    outbox: mpsc::Sender<Outgoing>,
    /// Something was not told and has to be looked up.
    owing: AtomicBool,
    /// The server lost what it had been told.
    forgotten: AtomicBool,
    wake_announcer: Notify,
    /// Unix milliseconds at which the streams were last read to their end.
    read_at: AtomicI64,
}

/// What only the tasks of a started fleet need; goes from [`Fleet::join`] to [`run`].
pub(crate) struct Joined {
    link: Link,
    cursor: Option<Cursor>,
    outbox: mpsc::Receiver<Outgoing>,
}

/// Why a mandate was not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MarkRefused {
    /// It was used before, here or elsewhere.
    #[error("the mandate was used before")]
    Replayed,
    /// It was minted under an epoch that is over.
    #[error("the mandate belongs to an epoch that is over")]
    EpochGone,
    /// Nobody can tell now.
    #[error("the marks cannot be reached")]
    Unavailable,
}

impl Fleet {
    /// Reads the files of the configuration and joins the fleet; none when the configuration names no fleet.
    ///
    /// # Errors
    /// [`FleetError`]; Redis is tried for five seconds.
    pub(crate) async fn join(
        config: &Config,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Option<(Arc<Self>, Joined)>, FleetError> {
        let Some(settings) = &config.fleet else { return Ok(None) };
        let text = link::private_text("stream_key_file", &settings.stream_key_file)?;
        let key = StreamKey::parse(text.expose_secret()).ok_or_else(|| FleetError::File {
            setting: "stream_key_file",
            path: settings.stream_key_file.clone(),
            problem: "does not hold at least 64 hexadecimal digits".to_owned(),
        })?;
        let loopback = settings.redis.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if !settings.redis.tls && !loopback && settings.redis.host != "localhost" {
            tracing::warn!("Redis is reached without TLS: whoever is on the way can read and change marks");
        }
        let dialler = Dialler::new(settings)?;
        let (mut link, answer) = first_link(&dialler).await?;
        // A second look with the link in hand: from here on a failure is the supervisor's.
        link.commands.keeps_everything().await?;
        let (outbox, waiting) = mpsc::channel(OUTBOX);
        let fleet = Self {
            dialler,
            key,
            node: Uuid::new_v4().to_string(),
            zones: config.zones.keys().map(|zone| zone.as_str().into()).collect(),
            read_at: AtomicI64::new(clock.now()),
            clock,
            metrics,
            epoch: ArcSwap::from_pointee(answer.epoch),
            commands: ArcSwapOption::empty(),
            failed: Notify::new(),
            elsewhere: EndedElsewhere::default(),
            outbox,
            owing: AtomicBool::new(true),
            forgotten: AtomicBool::new(answer.begun),
            wake_announcer: Notify::new(),
        };
        Ok(Some((Arc::new(fleet), Joined { link, cursor: None, outbox: waiting })))
    }

    /// The epoch new mandates carry.
    #[must_use]
    pub fn epoch(&self) -> Arc<String> {
        self.epoch.load_full()
    }

    /// Whether marks can be made and the streams are being read.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.commands.load().is_some()
    }

    /// Milliseconds since the streams were last read to their end.
    #[must_use]
    pub fn lag_ms(&self) -> u64 {
        let lag = self.clock.now().saturating_sub(self.read_at.load(Ordering::Relaxed));
        u64::try_from(lag).unwrap_or(0)
    }

    /// Uses a single-use mandate of epoch `claimed` up in the whole fleet. `keep_until` is its expiry with
    /// leeway, in unix milliseconds.
    ///
    /// # Errors
    /// [`MarkRefused`]. After `Unavailable` it may or may not be used up.
    pub async fn use_once(
        &self,
        zone: &str,
        jti: &str,
        claimed: &str,
        keep_until: i64,
    ) -> Result<(), MarkRefused> {
        let keep_ms = keep_until.saturating_sub(self.clock.now()).max(0).saturating_add(CLOCK_SKEW_MS);
        let asked = Instant::now();
        let link = self.commands()?;
        let mut commands = Commands::clone(&link);
        let outcome = commands.mark(&fresh_epoch(), &mark_key(zone, jti), claimed, keep_ms).await;
        self.metrics.mark_seconds.with_label_values(&NO_LABELS).observe(asked.elapsed().as_secs_f64());
        match self.heard(&link, outcome)?.found {
            Found::Marked => Ok(()),
            Found::Used => Err(MarkRefused::Replayed),
            Found::PastEpoch => Err(MarkRefused::EpochGone),
            Found::Seen => Err(MarkRefused::Unavailable),
        }
    }

    /// Checks the epoch of a mandate that may be used again. Redis is asked only about an epoch that is not the
    /// one last heard of.
    ///
    /// # Errors
    /// [`MarkRefused::EpochGone`], or [`MarkRefused::Unavailable`] when that cannot be told.
    pub async fn accepts(&self, claimed: &str) -> Result<(), MarkRefused> {
        if **self.epoch.load() == *claimed {
            return Ok(());
        }
        let link = self.commands()?;
        let outcome = Commands::clone(&link).epoch(&fresh_epoch()).await;
        if self.heard(&link, outcome)?.epoch == claimed { Ok(()) } else { Err(MarkRefused::EpochGone) }
    }

    /// Whether something these claims stand on ended on another node.
    #[must_use]
    pub fn ended_elsewhere(&self, claims: &Claims) -> bool {
        let sessions = [&claims.agent_session_id, &claims.source_session_id, &claims.delegation_edge_id];
        let ids = [claims.sid.as_str(), claims.root_sid.as_str()].into_iter();
        let ids = ids.chain(sessions.into_iter().flatten().map(String::as_str));
        self.elsewhere.any(ids.chain(claims.delegation_path.iter().map(String::as_str)))
    }

    /// Tells the fleet what ended here. Never waits, so it may be called under the state's locks.
    pub(crate) fn narrowed(&self, narrowed: &Narrowed) {
        if narrowed.origin == Origin::Here {
            self.tell(Outgoing::Narrowed(narrowed.clone()));
        }
    }

    /// Takes back what later nodes would otherwise find: a zone goes on.
    pub(crate) fn unfrozen(&self, zone: &str) {
        self.tell(Outgoing::Unfrozen(zone.into()));
    }

    /// Takes back what later nodes would otherwise find: an application was restored.
    pub(crate) fn restored(&self, zone: &str, application: &str) {
        self.tell(Outgoing::Restored(zone.into(), application.into()));
    }

    /// Takes back what resource servers would otherwise find: sessions go on.
    pub(crate) fn resumed(&self, sessions: &[Arc<Session>]) {
        for session in sessions {
            self.elsewhere.remove(&session.id);
        }
        self.tell(Outgoing::Resumed(sessions.iter().map(|session| Arc::clone(&session.id)).collect()));
    }

    /// Waits until everything that ended here so far has been told, but not for a Redis that is away: what it
    /// misses is told at the next start.
    pub(crate) async fn told(&self) {
        let (sender, told) = oneshot::channel();
        if !self.connected() || self.outbox.try_send(Outgoing::Told(sender)).is_err() {
            return;
        }
        if tokio::time::timeout(STOP_PATIENCE, told).await.is_err() {
            tracing::warn!("the last ends could not be told to the fleet; they are told at the next start");
        }
    }

    fn tell(&self, outgoing: Outgoing) {
        if self.outbox.try_send(outgoing).is_err() {
            self.owing.store(true, Ordering::Release);
            self.wake_announcer.notify_one();
        }
    }

    fn commands(&self) -> Result<Arc<Commands>, MarkRefused> {
        self.commands.load_full().ok_or(MarkRefused::Unavailable)
    }

    /// A link that failed once is not used again: the others fail at once instead of after a timeout each. One
    /// that was replaced meanwhile is left alone.
    fn lost(&self, link: &Arc<Commands>) {
        let previous = self.commands.compare_and_swap(&Some(Arc::clone(link)), None);
        if previous.as_ref().is_some_and(|previous| Arc::ptr_eq(previous, link)) {
            self.failed.notify_one();
        }
    }

    /// Takes note of the epoch in an answer, and of a link that gave none.
    fn heard(
        &self,
        link: &Arc<Commands>,
        outcome: Result<Answer, FleetError>,
    ) -> Result<Answer, MarkRefused> {
        match outcome {
            Ok(answer) => {
                self.note(&answer);
                Ok(answer)
            }
            Err(error) => {
                tracing::debug!(%error, "a mark could not be made");
                if link_is_lost(&error) {
                    self.lost(link);
                }
                Err(MarkRefused::Unavailable)
            }
        }
    }

    fn note(&self, answer: &Answer) {
        if **self.epoch.load() != answer.epoch {
            tracing::warn!("Redis may have lost marks: mandates minted before now are refused");
            self.epoch.store(Arc::new(answer.epoch.clone()));
            self.forgotten.store(true, Ordering::Release);
            self.owing.store(true, Ordering::Release);
            self.wake_announcer.notify_one();
        }
    }
}

/// An answer such as "out of memory" leaves the connection as good as it was.
fn link_is_lost(error: &FleetError) -> bool {
    match error {
        FleetError::Redis(error) => {
            error.is_io_error() || error.is_unrecoverable_error() || error.code() == Some("READONLY")
        }
        FleetError::File { .. } | FleetError::Evicts(_) | FleetError::Answer(_) => true,
    }
}

/// Waits for Redis, but not for a server that has to be configured first.
async fn first_link(dialler: &Dialler) -> Result<(Link, Answer), FleetError> {
    let begun = Instant::now();
    loop {
        let outcome = match dialler.connect().await {
            Ok(mut link) => link.commands.epoch(&fresh_epoch()).await.map(|answer| (link, answer)),
            Err(error) => Err(error),
        };
        match outcome {
            Err(FleetError::Redis(error)) if error.is_io_error() && begun.elapsed() < START_PATIENCE => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            outcome => return outcome,
        }
    }
}

/// 122 random bits: nobody can have minted under it before.
fn fresh_epoch() -> String {
    Uuid::new_v4().simple().to_string()
}

fn mark_key(zone: &str, jti: &str) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in [zone.as_bytes(), &[0], jti.as_bytes()] {
        hash.update(part);
    }
    format!("caracal:edge:mark:{}", hex::encode(hash.finish()))
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet")
            .field("node", &self.node)
            .field("connected", &self.connected())
            .finish_non_exhaustive()
    }
}
