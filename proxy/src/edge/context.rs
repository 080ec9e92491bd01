//! What a request carries from hook to hook, and how its way through the gates ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use caracal_plugins::{Chain, ScrubStream, Scrubber};
use caracal_policies::{ErrorFormat, Resource};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::live::Counted;
use super::posted::Posted;
use super::secured::Secured;
use super::slot::{SLOT, Slot};
use super::targets::Ride;
use super::{mcp, meter};
use crate::broker::Held;
use crate::budgets::Limited;
use crate::gate::exact::kept::{Keeping, Kept};
use crate::gate::forward::UpstreamHead;
use crate::gate::refusal::Refusal;
use crate::gate::{budgets, exact};
use crate::refusal::Particulars;
use crate::snapshot::Snapshot;
use crate::state::Hold;

/// What one request carries from hook to hook.
pub(super) struct Ctx {
    pub slot: Arc<Slot>,
    /// Our own id, which the ledger knows the request by.
    pub own_id: String,
    /// The id in headers and bodies: the caller's, where it sent a usable one.
    pub request_id: String,
    pub client_request_id: Option<String>,
    pub started: Instant,
    pub forward: Option<Forward>,
    /// The body, where it had to be read and was.
    pub posted: Option<Posted>,
    /// The refusal that was answered, if any.
    pub refused: Option<Refusal>,
    /// The upstream did not take the access token, and the request is sent once more with a fresh one.
    pub replay: Replay,
    /// Addresses that could not be reached.
    pub unreached: usize,
    /// It was sent again over a fresh connection, because a pooled one had been closed.
    pub resent: bool,
    /// Counts the request as in flight for as long as it has a context, however it ends.
    pub counted: Option<Counted>,
}

impl Ctx {
    pub(super) fn new() -> Self {
        Self {
            // Every request comes through the wrapper; one that did not could not be ended or recorded.
            slot: SLOT.try_with(Arc::clone).unwrap_or_default(),
            own_id: Uuid::new_v4().to_string(),
            request_id: String::new(),
            client_request_id: None,
            started: Instant::now(),
            forward: None,
            posted: None,
            refused: None,
            replay: Replay::default(),
            unreached: 0,
            resent: false,
            counted: None,
        }
    }
}

/// Whether a request is sent a second time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Replay {
    /// It was sent once.
    #[default]
    Not,
    /// It is about to be sent again.
    Due,
    /// It was sent twice; there is no third time.
    Done,
}

/// A permitted request on its way to the upstream.
pub(super) struct Forward {
    pub head: UpstreamHead,
    /// Where it may be sent, in the order in which that is tried. Never empty.
    pub addresses: Vec<SocketAddr>,
    /// Counts it where it is, for an upstream with several addresses.
    pub ride: Option<Ride>,
    /// What the connection is secured with, where the usual will not do.
    pub secured: Option<Arc<Secured>>,
    pub resource: Arc<Resource>,
    pub chain: Option<Arc<Chain>>,
    /// Looks for what was injected; nothing when nothing was.
    pub scrubber: Option<Arc<Scrubber>>,
    /// The body of the response while it is searched, for a resource that asks for it.
    pub searching: Option<ScrubStream>,
    /// The answer of an MCP server that may list tools.
    pub watched: Option<mcp::Watched>,
    /// Reads what the upstream says the call cost.
    pub meter: Option<meter::Meter>,
    /// What the scrubber looks for.
    pub searched: Vec<Zeroizing<String>>,
    pub injected: bool,
    /// The access token that is injected, where one was fetched.
    pub held: Option<Held>,
    /// What the token came from; a fresh one comes from the same.
    pub snapshot: Arc<Snapshot>,
    pub zone: Arc<str>,
    /// Seconds the presented mandate had left.
    pub expires_in: i64,
    /// How its answer will come.
    pub pace: Pace,
    /// The caller wants another protocol on this connection.
    pub upgrade: bool,
    /// Keeps the outcome of a request that a person has approved.
    pub keeping: Option<Keeping>,
}

/// How a request goes on that was let through.
pub(super) enum Governed {
    /// To its upstream.
    Forward(Box<Forward>),
    /// Nowhere: it has what came of it a moment ago.
    Settled(Settled),
}

/// What came of a request a moment ago.
pub(super) struct Settled {
    /// The approval that it used up.
    pub hold: Arc<Hold>,
    /// The answer it got.
    pub kept: Arc<Kept>,
    /// Seconds the presented mandate had left.
    pub expires_in: i64,
}

/// How an answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Its pieces follow each other.
    Steady,
    /// The caller asked for an event stream: silence between events is normal.
    Events,
    /// As for events; how long a call may take is between caller and upstream.
    Grpc,
}

/// A refusal with what its caller may be told.
#[derive(Debug)]
pub(super) struct Refused {
    pub refusal: Refusal,
    pub decision_id: Option<String>,
    pub missing: Vec<Arc<str>>,
    pub limited: Option<Box<Limited>>,
    /// The approval that is waited for, or was given for another request.
    pub held: Option<Arc<Hold>>,
    pub format: ErrorFormat,
}

impl Refused {
    /// What its caller is told at `now`, unix milliseconds.
    pub(super) fn particulars(self, request_id: &str, now: i64) -> Particulars {
        let held = || self.held.as_deref().map(|hold| exact::told(hold, now)).unwrap_or_default();
        let (limits, members) = match self.limited.as_deref().map(budgets::told) {
            Some((limits, members)) => (Some(limits), members),
            None => (None, held()),
        };
        Particulars {
            request_id: request_id.to_owned(),
            decision_id: self.decision_id,
            reason: self.refusal.reason(),
            missing: self.missing,
            members,
            limits,
            format: self.format,
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            decision_id: None,
            missing: Vec::new(),
            limited: None,
            held: None,
            format: ErrorFormat::default(),
        }
    }
}
