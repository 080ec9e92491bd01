//! From the request to the candidate: bounded, and never waited for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::Rehearsal;
use crate::ledger::Event;
use crate::metrics::Metrics;
use crate::snapshot::LiveZone;

/// Decisions that wait for a candidate; each is about 2 KiB.
const LONGEST: usize = 4_096;
/// Decisions that are asked about before other tasks get a turn.
const AT_ONCE: usize = 32;

type Item = (Arc<Rehearsal>, Box<Event>);

/// What waits for candidates, of all zones.
#[derive(Debug)]
pub(crate) struct Queue {
    sender: mpsc::Sender<Item>,
    receiver: Mutex<Option<mpsc::Receiver<Item>>>,
    metrics: Arc<Metrics>,
}

/// A decision that a candidate is asked about when this is dropped: once its request is over.
#[derive(Debug)]
pub(crate) struct Waiting {
    item: Option<Item>,
    sender: mpsc::Sender<Item>,
    metrics: Arc<Metrics>,
}

impl Queue {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self::of(LONGEST, metrics)
    }

    pub(super) fn of(longest: usize, metrics: Arc<Metrics>) -> Self {
        let (sender, receiver) = mpsc::channel(longest);
        Self { sender, receiver: Mutex::new(Some(receiver)), metrics }
    }

    /// Keeps a decision for the candidate of its zone. Nothing where there is none, which is all that this costs then.
    pub(crate) fn after(&self, zone: &LiveZone, event: &Event) -> Option<Waiting> {
        let rehearsal = zone.rehearsal.as_ref()?;
        Some(Waiting {
            item: Some((Arc::clone(rehearsal), Box::new(event.clone()))),
            sender: self.sender.clone(),
            metrics: Arc::clone(&self.metrics),
        })
    }

    /// Asks the candidates until the process stops.
    pub(crate) async fn run(&self, mut stop: watch::Receiver<bool>) {
        let Some(mut receiver) = self.receiver.lock().take() else { return };
        let mut items = Vec::with_capacity(AT_ONCE);
        loop {
            let came = tokio::select! {
                came = receiver.recv_many(&mut items, AT_ONCE) => came,
                _ = stop.wait_for(|stop| *stop) => 0,
            };
            if came == 0 {
                return;
            }
            for (rehearsal, event) in items.drain(..) {
                let heard = catch_unwind(AssertUnwindSafe(|| rehearsal.hear(&event, &self.metrics)));
                if heard.is_err() {
                    tracing::error!(decision = event.id, "asking a candidate failed by a fault of ours");
                    rehearsal.drop_one(&self.metrics);
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(item) = self.item.take() else { return };
        if let Err(refused) = self.sender.try_send(item) {
            let (rehearsal, _) = refused.into_inner();
            rehearsal.drop_one(&self.metrics);
        }
    }
}
