//! One admitted request: two reserved slots, so that its decision and its result always have a place.

use std::sync::Arc;

use serde_json::{Map, json};
use thiserror::Error;
use tokio::sync::oneshot;

use super::record::{ABORTED, new_id};
use super::shared::Shared;
use super::{Durability, Event, LedgerError};

/// Why no request can be admitted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LedgerFull {
    /// Every slot is reserved or waits to be written.
    #[error("no ledger slots are left")]
    NoSlots,
    /// Records cannot be written.
    #[error("the ledger cannot write")]
    Failed,
    /// The ledger is closed.
    #[error("the ledger is closed")]
    Closed,
}

/// The two reserved slots of one request.
///
/// Dropped before a decision, it frees both. Dropped after one without a result, it records an aborted result:
/// the outcome is unknown.
#[derive(Debug)]
pub struct Admission {
    shared: Arc<Shared>,
    zone: String,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Admitted,
    Decided(Decided),
    Finished,
}

/// What the result of an abandoned request has to say.
#[derive(Debug)]
struct Decided {
    id: String,
    zone: String,
    request_id: String,
    event_type: &'static str,
    decision: &'static str,
}

impl Admission {
    pub(super) fn new(shared: Arc<Shared>, zone: &str) -> Self {
        Self { shared, zone: zone.to_owned(), stage: Stage::Admitted }
    }

    /// Records the decision. Strict: it is on disk when this returns. Buffered: it is queued.
    ///
    /// Cost when buffered: one short lock and two copied ids. A further decision of the same request needs a
    /// slot of its own and is recorded as a separate event.
    ///
    /// # Errors
    /// The record cannot be written now. It is kept and written later, but the request must be refused.
    pub async fn decide(&mut self, event: Event) -> Result<(), LedgerError> {
        if let Some(durable) = self.queue_decision(event)? {
            return durable.await.unwrap_or(Err(LedgerError::Closed));
        }
        if self.shared.healthy() { Ok(()) } else { Err(self.shared.failure()) }
    }

    /// Records what came of it, in the slot reserved for that: never waits, never fails for want of room.
    ///
    /// Without a decision before it, this is the request's only record and the other slot is freed.
    pub fn result(mut self, event: Event) {
        let event = self.named(event);
        if matches!(self.stage, Stage::Admitted) {
            self.shared.release(1);
        }
        self.stage = Stage::Finished;
        self.push_last(event);
    }

    /// The synchronous half: from here on the request has decided, even if nobody waits for the rest.
    fn queue_decision(
        &mut self,
        event: Event,
    ) -> Result<Option<oneshot::Receiver<Result<(), LedgerError>>>, LedgerError> {
        let event = self.named(event);
        match self.stage {
            Stage::Admitted => {}
            Stage::Decided(_) | Stage::Finished => {
                self.shared.reserve(1)?;
            }
        }
        self.stage = Stage::Decided(Decided {
            id: event.id.clone(),
            zone: event.zone_id.clone(),
            request_id: event.request_id.clone(),
            event_type: event.event_type,
            decision: event.decision,
        });
        let (waiter, durable) = match self.shared.durability {
            Durability::Strict => Some(oneshot::channel()).unzip(),
            Durability::Buffered => (None, None),
        };
        if self.shared.push(event, waiter) { Ok(durable) } else { Err(LedgerError::Closed) }
    }

    fn named(&mut self, mut event: Event) -> Event {
        if event.zone_id.is_empty() {
            event.zone_id.clone_from(&self.zone);
        }
        event
    }

    fn push_last(&self, event: Event) {
        let request_id = event.request_id.clone();
        if !self.shared.push(event, None) {
            tracing::error!(request_id, "a result came after the ledger was closed and is not recorded");
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::Finished) {
            Stage::Admitted => self.shared.release(2),
            Stage::Finished => {}
            Stage::Decided(decided) => {
                let now = self.shared.clock.now();
                let mut metadata = Map::new();
                metadata.insert("decision_id".into(), json!(decided.id));
                metadata.insert("outcome".into(), json!("unknown"));
                self.push_last(Event {
                    id: new_id(now),
                    zone_id: decided.zone,
                    event_type: decided.event_type,
                    request_id: decided.request_id,
                    decision: decided.decision,
                    evaluation_status: ABORTED.into(),
                    metadata,
                    occurred_at: now,
                    ..Event::default()
                });
            }
        }
    }
}
