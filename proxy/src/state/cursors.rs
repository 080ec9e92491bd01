//! How far each notification sink has come in the ledger: this node's own, like the ledger itself.

use super::State;
use super::error::StateError;
use super::store::{OwnWrite, Write};
use super::writer::Intent;

/// A row: zone, sink, and what is known of it (JSON).
pub type StoredCursor = (String, String, String);

impl State {
    /// What was stored of sinks when this process started; once.
    #[must_use]
    pub fn take_stored_cursors(&self) -> Vec<StoredCursor> {
        std::mem::take(&mut self.cursors.lock())
    }

    /// Commits how far sinks have come, and forgets those that are no more (zone, sink).
    ///
    /// # Errors
    /// [`StateError`] when it could not be committed.
    pub async fn store_cursors(
        &self,
        now: Vec<StoredCursor>,
        gone: Vec<(String, String)>,
    ) -> Result<(), StateError> {
        let mut writes: Vec<Write> = now.into_iter().map(|row| Write::Own(OwnWrite::Cursor(row))).collect();
        writes.extend(gone.into_iter().map(|(zone, sink)| Write::Own(OwnWrite::ForgetCursor(zone, sink))));
        self.local.commit(writes, Intent::Note).done().await
    }
}
