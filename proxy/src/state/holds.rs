//! Holds: mints and single requests that wait for a person's yes. The rows, and how those of a zone are kept.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use caracal_policies::{Approver, Privacy, SelfApproval};
use serde::{Deserialize, Serialize};

use super::store::Write;

/// Milliseconds a hold is remembered after it was used, rejected or over.
const KEPT_MS: i64 = 24 * 3_600 * 1_000;

/// Where a hold stands. What comes first here counts before what comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldState {
    /// A mandate was minted on it, or the request let through.
    Consumed,
    /// Somebody said no.
    Rejected,
    /// Its time is over.
    Expired,
    /// Somebody said yes.
    Approved,
    /// Nobody has answered yet.
    Pending,
}

impl HoldState {
    /// The wire word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consumed => "consumed",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Approved => "approved",
            Self::Pending => "pending",
        }
    }
}

/// What somebody answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldDecision {
    /// Yes or no.
    pub approved: bool,
    /// Unix milliseconds.
    pub at: i64,
    /// Who answered, as far as the hold's privacy lets it be known.
    pub by: String,
    /// In the words of whoever answered.
    pub reason: Option<String>,
}

/// The one use of a yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldUse {
    /// Unix milliseconds.
    pub at: i64,
    /// The authority record that was made, or the decision that let the request through.
    pub record: Arc<str>,
}

/// The one request that a hold is for. Nothing of its body but what the guard shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExactRequest {
    /// Id of the decision that found the request to need a yes.
    pub decision: String,
    /// Names of the guards that ask, sorted.
    pub guards: Vec<Arc<str>>,
    /// Its method.
    pub method: String,
    /// Its path, without the query.
    pub path: String,
    /// Its content type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The tool that it calls, at an MCP server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// Bytes of its body.
    pub body_bytes: u64,
    /// SHA-256 of its body, in hex.
    pub body_sha256: String,
    /// What is shown of the body: JSON pointer and value, none where there is none. For a terminal: short, and without
    /// characters that drive one.
    pub shown: Vec<(String, Option<String>)>,
}

/// A mint or a request that waits for a person's yes, or got an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Random UUID (v4): who knows it may ask where the hold stands.
    pub id: Arc<str>,
    /// Zone of the hold.
    pub zone: Arc<str>,
    /// The application that asks.
    pub application: Arc<str>,
    /// The authority record its session acts for; none without a session.
    pub record: Option<Arc<str>>,
    /// The session it asks for.
    pub session: Option<Arc<str>>,
    /// The delegation it asks through.
    pub delegation: Option<Arc<str>>,
    /// The session's labels.
    pub labels: Vec<Arc<str>>,
    /// Identifiers of the resources, sorted.
    pub resources: Vec<Arc<str>>,
    /// Scopes, sorted.
    pub scopes: Vec<Arc<str>>,
    /// The tiers that ask, joined with commas.
    pub tier: String,
    /// Who may answer.
    pub approver: Approver,
    /// What is recorded of who answered.
    pub privacy: Privacy,
    /// Whether the person the session acts for may answer.
    #[serde(default)]
    pub self_approval: SelfApproval,
    /// The person the session acts for.
    pub subject: Option<Arc<str>>,
    /// SHA-256 in hex of everything the yes is for.
    pub binding: Arc<str>,
    /// The request, where it is for exactly one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<Box<ExactRequest>>,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds; without an answer, or unused, it is over then.
    pub expires_at: i64,
    /// The answer.
    #[serde(skip)]
    pub decision: Option<HoldDecision>,
    /// What came of a yes.
    #[serde(skip)]
    pub used: Option<HoldUse>,
    /// When it was written down that nobody answered in time; unix milliseconds.
    #[serde(skip)]
    pub lapsed: Option<i64>,
}

impl Hold {
    /// Where it stands at `now`, unix milliseconds.
    #[must_use]
    pub fn state(&self, now: i64) -> HoldState {
        match &self.decision {
            _ if self.used.is_some() => HoldState::Consumed,
            Some(decision) if !decision.approved => HoldState::Rejected,
            _ if self.expires_at <= now => HoldState::Expired,
            Some(_) => HoldState::Approved,
            None => HoldState::Pending,
        }
    }

    /// Whether its time is over without an answer, and that was not written down.
    pub(super) fn lapses(&self, now: i64) -> bool {
        self.decision.is_none() && self.used.is_none() && self.lapsed.is_none() && self.expires_at <= now
    }

    /// Whether a mint that asks for the same meets this hold: it was not used, and its time is not over.
    fn stands(&self, now: i64) -> bool {
        self.used.is_none() && self.expires_at > now
    }

    fn over_at(&self) -> i64 {
        let decided = self.decision.as_ref().map_or(0, |decision| decision.at);
        self.used.as_ref().map_or(0, |used| used.at).max(decided).max(self.expires_at)
    }

    pub(super) fn key(&self) -> HoldKey {
        (Arc::clone(&self.application), self.record.clone(), Arc::clone(&self.binding))
    }
}

/// Application, authority record, binding: a mint that asks for the same again meets the same hold.
pub(super) type HoldKey = (Arc<str>, Option<Arc<str>>, Arc<str>);

/// The holds of one zone.
#[derive(Debug, Default)]
pub(super) struct Holds {
    rows: HashMap<Arc<str>, Arc<Hold>>,
    latest: HashMap<HoldKey, Arc<str>>,
    /// With an answer, or a use, on its way to the store.
    underway: HashSet<Arc<str>>,
}

impl Holds {
    pub(super) fn get(&self, id: &str) -> Option<&Arc<Hold>> {
        self.rows.get(id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Hold>> {
        self.rows.values()
    }

    /// The hold that a mint with this key meets.
    pub(super) fn standing(&self, key: &HoldKey, now: i64) -> Option<&Arc<Hold>> {
        self.latest(key).filter(|hold| hold.stands(now))
    }

    /// The newest hold with this key, wherever it stands.
    pub(super) fn latest(&self, key: &HoldKey) -> Option<&Arc<Hold>> {
        self.latest.get(key).and_then(|id| self.rows.get(id))
    }

    /// Holds of an application that nobody has answered.
    pub(super) fn pending(&self, application: &str, now: i64) -> usize {
        let pending =
            |hold: &&Arc<Hold>| *hold.application == *application && hold.state(now) == HoldState::Pending;
        self.rows.values().filter(pending).count()
    }

    pub(super) fn put(&mut self, hold: Arc<Hold>) {
        let older = self.latest.get(&hold.key()).and_then(|id| self.rows.get(id));
        if older.is_none_or(|older| older.created_at <= hold.created_at) {
            self.latest.insert(hold.key(), Arc::clone(&hold.id));
        }
        self.rows.insert(Arc::clone(&hold.id), hold);
    }

    pub(super) fn remove(&mut self, id: &str) {
        if let Some(hold) = self.rows.remove(id)
            && self.latest.get(&hold.key()).is_some_and(|latest| **latest == *id)
        {
            self.latest.remove(&hold.key());
        }
    }

    /// Reserves a hold for a change that is about to be committed; false while another one is.
    pub(super) fn reserve(&mut self, id: &Arc<str>) -> bool {
        self.underway.insert(Arc::clone(id))
    }

    pub(super) fn release(&mut self, id: &str) {
        self.underway.remove(id);
    }

    /// Forgets what has been over for a day, and tells what to delete.
    pub(super) fn forget(&mut self, zone: &Arc<str>, now: i64) -> Vec<Write> {
        let oldest = now.saturating_sub(KEPT_MS);
        let over: Vec<Arc<str>> = self
            .rows
            .values()
            .filter(|hold| hold.over_at() <= oldest)
            .map(|hold| Arc::clone(&hold.id))
            .collect();
        for id in &over {
            self.remove(id);
        }
        over.into_iter().map(|id| Write::ForgetHold { zone: Arc::clone(zone), id }).collect()
    }
}
