//! The rows of the state: authority records, sessions and delegations.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Seconds a task session lives when nothing else was asked for.
pub const DEFAULT_TASK_TTL_S: u32 = 3_600;

/// What kind of subject an authority record stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// An application acting for itself.
    Application,
    /// A person; sessions anchored on the record end with it.
    User,
}

/// What a mandate's `sid` names: the record that must be good for the mandate to be good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityRecord {
    /// The mandate's `sid`.
    pub id: Arc<str>,
    /// Zone of the record; ids are unique only inside it.
    pub zone: Arc<str>,
    /// The mandate's `sub`.
    pub subject: Arc<str>,
    /// The mandate's `client_id`.
    pub application: Arc<str>,
    /// The record the first mandate of this line was minted under; its own id for a first one.
    pub root: Arc<str>,
    /// The record this one was minted from.
    pub parent: Option<Arc<str>>,
    /// Application or person.
    pub kind: RecordKind,
    /// Unix milliseconds.
    pub issued_at: i64,
    /// Unix milliseconds; dead from this moment on.
    pub expires_at: i64,
    /// True once revoked; never turns false again.
    pub revoked: bool,
    /// Whether a person approved what the mandate carries.
    pub approved: bool,
}

/// How long a session means to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    /// Ends by itself after its time.
    Task,
    /// Lives as long as its holder renews the lease.
    Service,
}

impl Lifecycle {
    /// The wire word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Service => "service",
        }
    }

    /// The lifecycle a wire word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Task, Self::Service].into_iter().find(|known| known.as_str() == word)
    }
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionStatus {
    /// May act while it is in its time.
    Active,
    /// Stopped; may be resumed.
    Suspended,
    /// Ended by somebody.
    Terminated,
    /// Ended by its own clock.
    Expired,
}

impl SessionStatus {
    /// The wire word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Terminated => "terminated",
            Self::Expired => "expired",
        }
    }

    /// The status a wire word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Active, Self::Suspended, Self::Terminated, Self::Expired]
            .into_iter()
            .find(|known| known.as_str() == word)
    }

    /// True when nothing can bring the session back.
    #[must_use]
    pub const fn ended(self) -> bool {
        matches!(self, Self::Terminated | Self::Expired)
    }
}

/// One governed session of an application.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// UUIDv7, so ids sort by start.
    pub id: Arc<str>,
    /// Zone of the session.
    pub zone: Arc<str>,
    /// The application that owns it.
    pub application: Arc<str>,
    /// The session it was started under.
    pub parent: Option<Arc<str>>,
    /// The authority record it acts for.
    pub subject_record: Arc<str>,
    /// Kind of that record, kept because the record itself may be gone.
    pub subject_kind: RecordKind,
    /// Task or service.
    pub lifecycle: Lifecycle,
    /// At most 32 labels of 1 to 64 characters.
    pub labels: Vec<Arc<str>>,
    /// What the caller wanted to remember; an object.
    pub metadata: serde_json::Value,
    /// Where it stands; time is judged apart, see [`Session::in_time`].
    pub status: SessionStatus,
    /// Sessions above it.
    pub depth: u32,
    /// Lifetime of a task in seconds; none for a service.
    pub ttl_seconds: Option<u32>,
    /// Unix milliseconds.
    pub started_at: i64,
    /// Unix milliseconds of a service's last heartbeat or lease.
    pub last_heartbeat_at: Option<i64>,
    /// Unix milliseconds by which a service must be heard of.
    pub heartbeat_deadline_at: Option<i64>,
    /// Fencing number of a service's lease: 1 at start, one more with every take-over; 0 for a task.
    pub lease_generation: u64,
    /// Unix milliseconds of its end.
    pub terminated_at: Option<i64>,
    /// Why it ended.
    pub termination_reason: Option<String>,
}

impl Session {
    /// The moment, in unix milliseconds, from which the session is out of time unless renewed.
    #[must_use]
    pub fn deadline(&self) -> i64 {
        match self.lifecycle {
            Lifecycle::Service => self.heartbeat_deadline_at.unwrap_or(self.started_at),
            Lifecycle::Task => {
                let ttl = i64::from(self.ttl_seconds.unwrap_or(DEFAULT_TASK_TTL_S));
                self.started_at.saturating_add(ttl.saturating_mul(1_000))
            }
        }
    }

    /// Whether `now` is before the [`Session::deadline`].
    #[must_use]
    pub fn in_time(&self, now: i64) -> bool {
        self.deadline() > now
    }
}

/// Where a delegation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DelegationStatus {
    /// Good until it expires.
    Active,
    /// Taken back, or one of its sessions ended.
    Revoked,
    /// Its time is over.
    Expired,
}

impl DelegationStatus {
    /// The wire word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Self::Active, Self::Revoked, Self::Expired].into_iter().find(|known| known.as_str() == word)
    }
}

/// What narrows a delegation beyond its scopes; absent members do not narrow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraints {
    /// Resource identifiers it is good for; empty means not narrowed by resource.
    pub resources: Vec<Arc<str>>,
    /// Edges a chain may have from this one down, this one included; 1 when absent. A 0 appears only on an
    /// inherited edge: it can be held, but nothing can be minted through it.
    pub max_hops: Option<u32>,
    /// Longest lifetime of a mandate minted through it, in seconds.
    pub ttl_seconds: Option<u32>,
    /// Most scopes a delegation made from it may carry.
    pub budget: Option<u32>,
    /// Unix milliseconds.
    pub expires_at: Option<i64>,
    /// Set when somebody with the right to do so allowed a delegation without a resource.
    pub policy_approved: Option<bool>,
    /// Why it names no resource.
    pub broad_reason: Option<String>,
}

impl Constraints {
    /// The hops this edge counts for: what it says, or 1.
    #[must_use]
    pub fn hops(&self) -> u32 {
        self.max_hops.unwrap_or(1)
    }
}

/// One edge of the delegation graph: a session hands part of its authority to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegation {
    /// UUIDv7.
    pub id: Arc<str>,
    /// Zone of the delegation and of both sessions.
    pub zone: Arc<str>,
    /// The session that gives.
    pub source_session: Arc<str>,
    /// The session that receives.
    pub target_session: Arc<str>,
    /// Application of the source session.
    pub issuer_application: Arc<str>,
    /// Application of the target session.
    pub receiver_application: Arc<str>,
    /// The delegation this one was cut from; none for a root.
    pub parent: Option<Arc<str>>,
    /// Row id of the one resource it is good for.
    pub resource_id: Option<Arc<str>>,
    /// What it hands over.
    pub scopes: Vec<Arc<str>>,
    /// What narrows it further.
    pub constraints: Constraints,
    /// Where it stands; expiry is judged apart, see [`Delegation::live`].
    pub status: DelegationStatus,
    /// Unix milliseconds; dead from this moment on.
    pub expires_at: i64,
    /// 1 at creation, one more with every change.
    pub version: u64,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub revoked_at: Option<i64>,
}

impl Delegation {
    /// Active and not expired at `now`; says nothing about its sessions or ancestors.
    #[must_use]
    pub fn live(&self, now: i64) -> bool {
        self.status == DelegationStatus::Active && self.expires_at > now
    }
}

/// Something whose end kills what was built on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Anchor {
    /// An authority record, by id.
    Record(Arc<str>),
    /// A session, by id.
    Session(Arc<str>),
    /// A delegation, by id.
    Delegation(Arc<str>),
    /// Everything issued to an application so far.
    Application(Arc<str>),
    /// The whole zone.
    Zone,
}

/// One narrowing, told to every hook before it is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Narrowed {
    /// Zone of every anchor.
    pub zone: Arc<str>,
    /// What is dead from now on, all of it.
    pub anchors: Vec<Anchor>,
    /// The zone's delegation epoch, where this raised it.
    pub graph_epoch: Option<u64>,
    /// Why, as a stable word.
    pub reason: Arc<str>,
    /// Where it was decided.
    pub origin: Origin,
}

/// Where a narrowing was decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// On this node.
    #[default]
    Here,
    /// On another node of the fleet.
    Elsewhere,
}
