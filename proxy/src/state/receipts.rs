//! Idempotency receipts: the same key and request get the same answer, another request under the key a conflict.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use aws_lc_rs::hmac;
use tokio::sync::watch;

use super::error::CoordinatorError;
use super::store::{ReceiptId, Write};

const DAY_MS: i64 = 24 * 3_600 * 1_000;
/// A generated key protects one call's own retries, which are over within a minute: ten seconds per try, three
/// tries, pauses of at most ten seconds.
const RETRIES_OVER_MS: i64 = 60_000;

/// An operation that takes an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Starting a session.
    SessionStart,
    /// Creating a delegation.
    DelegationCreate,
    /// Creating an invocation.
    InvocationCreate,
}

impl Operation {
    /// The name receipts are stored under; it changes when the meaning of a stored answer does.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SessionStart => "session.start.v2",
            Self::DelegationCreate => "delegation.create.v2",
            Self::InvocationCreate => "invocation.create.v2",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Self::SessionStart, Self::DelegationCreate, Self::InvocationCreate]
            .into_iter()
            .find(|known| known.as_str() == word)
    }
}

/// Who made a key up; decides how long its answer is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// The program, to name an operation of its own: 7 days.
    Chosen,
    /// The client library, for the retries of one call: 24 hours.
    Generated,
}

impl KeyKind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::Generated => "generated",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Self::Chosen, Self::Generated].into_iter().find(|known| known.as_str() == word)
    }

    const fn kept_for(self) -> i64 {
        match self {
            Self::Chosen => DAY_MS.saturating_mul(7),
            Self::Generated => DAY_MS,
        }
    }
}

/// An idempotency key as the caller sent it, and what it was sent with.
#[derive(Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The header's value, already checked; only a keyed digest of it is stored.
    pub key: String,
    /// From the `Idempotency-Key-Kind` header.
    pub kind: KeyKind,
    /// SHA-256 of the canonical request, without anything that changes when a mandate is renewed.
    pub request_digest: [u8; 32],
}

impl std::fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdempotencyKey").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// A receipt without its answer, which stays in the store until somebody asks for it.
#[derive(Clone, Debug)]
pub(super) struct StoredReceipt {
    pub(super) request: [u8; 32],
    pub(super) result: Arc<str>,
    pub(super) kind: KeyKind,
    pub(super) created_at: i64,
    pub(super) expires_at: i64,
}

/// What is known about a key.
#[derive(Debug)]
pub(super) enum Known {
    /// Never seen, and there is room for it.
    New { id: ReceiptId, forgotten: Vec<ReceiptId> },
    /// The first request is being committed; look again when this changes.
    Underway(watch::Receiver<()>),
    /// Answered before; the answer is good while `result` is.
    Answered { id: ReceiptId, result: Arc<str> },
}

/// The receipts of one zone.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    answered: HashMap<ReceiptId, StoredReceipt>,
    underway: HashMap<ReceiptId, ([u8; 32], watch::Receiver<()>)>,
    scopes: HashMap<(Operation, Arc<str>), Scope>,
    due: BTreeSet<(i64, ReceiptId)>,
}

#[derive(Debug, Default)]
struct Scope {
    live: usize,
    generated: VecDeque<ReceiptId>,
}

/// Held by the operation that goes first; letting it go wakes the ones that wait for its answer.
#[derive(Debug)]
pub(super) struct Underway {
    pub(super) id: ReceiptId,
    pub(super) stored: StoredReceipt,
    _wake: watch::Sender<()>,
}

impl Underway {
    pub(super) fn write(&self, response: &serde_json::Value) -> Write {
        Write::Receipt(self.id.clone(), self.stored.clone(), response.to_string())
    }
}

impl Receipts {
    /// Looks a key up. `gone` says whether a result is over, for making room among generated keys.
    ///
    /// Errors: 409 when the key was used for another request, 429 when the scope has no room.
    pub(super) fn look_up(
        &mut self,
        id: ReceiptId,
        request: &[u8; 32],
        now: i64,
        most: usize,
        gone: impl Fn(&str) -> bool,
    ) -> Result<Known, CoordinatorError> {
        if let Some((first, done)) = self.underway.get(&id) {
            same(first, request)?;
            return Ok(Known::Underway(done.clone()));
        }
        if let Some(stored) = self.answered.get(&id).filter(|stored| stored.expires_at > now) {
            same(&stored.request, request)?;
            return Ok(Known::Answered { result: Arc::clone(&stored.result), id });
        }
        let mut forgotten = self.expire(now);
        let place = (id.operation, Arc::clone(&id.scope));
        while self.scopes.get(&place).is_some_and(|scope| scope.live >= most) {
            let oldest = self.scopes.get(&place).and_then(|scope| scope.generated.front()).cloned();
            let spent = oldest.filter(|oldest| self.spent(oldest, now, &gone));
            let Some(spent) = spent else {
                return Err(CoordinatorError::new(429, "idempotency_receipt_limit_exceeded")
                    .with_message("too many idempotency keys are remembered for this application"));
            };
            self.forget(&spent);
            forgotten.push(spent);
        }
        Ok(Known::New { id, forgotten })
    }

    /// Reserves a key for the operation that is about to be committed.
    pub(super) fn reserve(
        &mut self,
        id: ReceiptId,
        key: &IdempotencyKey,
        result: Arc<str>,
        now: i64,
    ) -> Underway {
        let (wake, done) = watch::channel(());
        self.underway.insert(id.clone(), (key.request_digest, done));
        self.scope(&id).live = self.scope(&id).live.saturating_add(1);
        let stored = StoredReceipt {
            request: key.request_digest,
            result,
            kind: key.kind,
            created_at: now,
            expires_at: now.saturating_add(key.kind.kept_for()),
        };
        Underway { id, stored, _wake: wake }
    }

    /// The operation is committed: from now on its answer is given again.
    pub(super) fn answered(&mut self, done: &Underway) {
        self.underway.remove(&done.id);
        self.remember(done.id.clone(), done.stored.clone());
    }

    /// The operation came to nothing: the key is free again.
    pub(super) fn abandoned(&mut self, done: &Underway) {
        self.underway.remove(&done.id);
        self.scope(&done.id).live = self.scope(&done.id).live.saturating_sub(1);
    }

    /// Whether the key was answered or is about to be.
    pub(super) fn knows(&self, id: &ReceiptId) -> bool {
        self.answered.contains_key(id)
    }

    /// Takes a receipt from the store; oldest first.
    pub(super) fn load(&mut self, id: ReceiptId, stored: StoredReceipt) {
        self.scope(&id).live = self.scope(&id).live.saturating_add(1);
        self.remember(id, stored);
    }

    /// Forgets what is kept long enough and tells which.
    pub(super) fn expire(&mut self, now: i64) -> Vec<ReceiptId> {
        let mut over = Vec::new();
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, id)) = self.due.pop_first() else { break };
            self.forget(&id);
            over.push(id);
        }
        over
    }

    fn spent(&self, id: &ReceiptId, now: i64, gone: impl Fn(&str) -> bool) -> bool {
        self.answered.get(id).is_none_or(|stored| {
            stored.created_at.saturating_add(RETRIES_OVER_MS) <= now && gone(&stored.result)
        })
    }

    fn remember(&mut self, id: ReceiptId, stored: StoredReceipt) {
        self.due.insert((stored.expires_at, id.clone()));
        if stored.kind == KeyKind::Generated {
            self.scope(&id).generated.push_back(id.clone());
        }
        self.answered.insert(id, stored);
    }

    fn forget(&mut self, id: &ReceiptId) {
        let known = self.answered.remove(id);
        if let Some(stored) = &known {
            self.due.remove(&(stored.expires_at, id.clone()));
        }
        let scope = self.scope(id);
        if known.is_some() {
            scope.live = scope.live.saturating_sub(1);
        }
        if scope.generated.front() == Some(id) {
            scope.generated.pop_front();
        }
    }

    fn scope(&mut self, id: &ReceiptId) -> &mut Scope {
        self.scopes.entry((id.operation, Arc::clone(&id.scope))).or_default()
    }
}

/// The keyed digest a receipt is stored under.
pub(super) fn key_digest(secret: &hmac::Key, key: &str) -> [u8; 32] {
    let tag = hmac::sign(secret, key.as_bytes());
    let mut digest = [0; 32];
    for (to, from) in digest.iter_mut().zip(tag.as_ref()) {
        *to = *from;
    }
    digest
}

pub(super) const fn inactive() -> CoordinatorError {
    CoordinatorError::new(409, "idempotency_result_inactive")
        .with_message("what this idempotency key started is no longer active")
}

fn same(first: &[u8; 32], request: &[u8; 32]) -> Result<(), CoordinatorError> {
    if first == request {
        return Ok(());
    }
    Err(CoordinatorError::new(409, "idempotency_key_conflict")
        .with_message("this idempotency key was used for a different request"))
}
