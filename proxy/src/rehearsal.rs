//! A candidate bundle on live traffic, without effect: what it would answer to the decisions that are made anyway.
//!
//! The candidate sees what the ledger records of a decision and nothing else; no secret, no header, no body. It is
//! asked on a task of its own once the request has its answer, so that it can neither change nor delay one. A queue
//! that is full drops, and counts what it dropped.

mod queue;
mod tally;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caracal_policies::{BundleSource, Digest, RulePlaces, Zone};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::ledger::Event;
use crate::metrics::Metrics;
use crate::question::{Compared, Said};
use crate::reload::versions::name_of;
use crate::snapshot::LiveZone;

pub(crate) use queue::{Queue, Waiting};
pub(crate) use tally::Tally;

/// A bundle that waits beside the one in force.
#[derive(Debug)]
pub struct Candidate {
    /// What it says.
    pub(crate) zone: Arc<Zone>,
    /// The digest of its files, which names it.
    pub(crate) version: [u8; 32],
    /// Its revision, where a signature was checked.
    pub(crate) revision: Option<u64>,
    /// Its documents, to say where a rule stands.
    pub(crate) source: BundleSource,
}

/// What one candidate would change about one bundle in force. A change of either makes a new one, which has counted
/// nothing.
#[derive(Debug)]
pub struct Rehearsal {
    active: Arc<Zone>,
    active_version: [u8; 32],
    candidate: Arc<Candidate>,
    /// Unix milliseconds.
    since: i64,
    dropped: AtomicU64,
    tally: Mutex<Tally>,
}

/// The numbers that a promotion depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Decisions that were compared.
    pub compared: u64,
    /// Those that the candidate would allow, or allow without a person's yes, and the bundle in force did not.
    pub newly_allowed: u64,
    /// Those that it would refuse, or hold for a person, and the bundle in force did not.
    pub newly_denied: u64,
}

impl Rehearsal {
    /// Begins to count for `candidate` beside `live`.
    #[must_use]
    pub fn new(live: &LiveZone, candidate: Arc<Candidate>, since: i64) -> Self {
        Self {
            active: Arc::clone(&live.zone),
            active_version: live.version,
            candidate,
            since,
            dropped: AtomicU64::new(0),
            tally: Mutex::default(),
        }
    }

    /// Whether it is about this pair.
    #[must_use]
    pub fn is_of(&self, live: &LiveZone, candidate: &Arc<Candidate>) -> bool {
        // A pinned version also changes with the applications of the files.
        self.active_version == live.version
            && self.active.digest() == live.zone.digest()
            && Arc::ptr_eq(&self.candidate, candidate)
    }

    /// The candidate in a few words, for people and programs.
    #[must_use]
    pub fn summary(&self) -> Value {
        let Candidate { zone, version, revision, .. } = &*self.candidate;
        json!({
            "version": name_of(version), "digest": zone.digest().to_string(), "revision": revision,
            "compared": self.counts().compared,
        })
    }

    /// The numbers so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.tally.lock().counts()
    }

    /// Asks the candidate about a decision that was made under the bundle in force.
    fn hear(&self, event: &Event, metrics: &Metrics) {
        let zone = &**self.active.id();
        let judged = {
            let mut tally = self.tally.lock();
            tally.add(Some(&self.active), &self.candidate.zone, Said::from(event), &event.request_id)
        };
        match judged {
            None => return,
            Some(Compared::Not(why)) => {
                metrics.rehearsal_not_comparable.with_label_values(&[zone, why.word()]).inc();
                return;
            }
            Some(Compared::Same) => {}
            Some(Compared::Different { from, to }) => {
                let rule = to.code().or_else(|| from.code()).unwrap_or("approval");
                metrics.decision_diff.with_label_values(&[zone, from.word(), to.word(), rule]).inc();
            }
        }
        metrics.rehearsal_compared.with_label_values(&[zone]).inc();
    }

    fn drop_one(&self, metrics: &Metrics) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        metrics.rehearsal_dropped.with_label_values(&[&**self.active.id()]).inc();
    }

    /// All of it, with the rules that would decide differently.
    #[must_use]
    pub fn report(&self) -> Value {
        let candidate = &self.candidate;
        let places = RulePlaces::of(&candidate.source, self.active.id());
        let mut report = self.tally.lock().report(Some(&self.active), (&candidate.zone, Some(&places)));
        report.extend([
            ("since".to_owned(), json!(crate::state::iso(self.since))),
            ("dropped".to_owned(), json!(self.dropped.load(Ordering::Relaxed))),
            ("changes".to_owned(), json!(self.active.changes(&candidate.zone))),
        ]);
        Value::Object(report)
    }
}

impl Candidate {
    /// The digest of what it says.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        self.zone.digest()
    }

    /// Whether a word names it: its version or digest, or the beginning of one that nobody finds by trying.
    #[must_use]
    pub fn is_called(&self, word: &str) -> bool {
        const FEWEST_DIGITS: usize = 16;
        let digits = word.strip_prefix("sha256:").unwrap_or(word).to_ascii_lowercase();
        let digest = self.digest().to_string();
        let digest = digest.strip_prefix("sha256:").unwrap_or(&digest);
        digits.len() >= FEWEST_DIGITS
            && (name_of(&self.version).starts_with(&digits) || digest.starts_with(&digits))
    }
}
