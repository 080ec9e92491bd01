//! Housekeeping. Nothing depends on it for being right: standing is judged by time wherever it is read.

use std::sync::Arc;

use super::State;
use super::error::StateError;
use super::records::KEPT_AFTER_EXPIRY_MS;
use super::store::Write;
use super::writer::Intent;

impl State {
    /// Applies what time brought about and forgets what is over. Call it every few seconds.
    ///
    /// # Errors
    /// [`StateError`] when the store does not commit; worth a log line, the next call makes up for it.
    pub async fn sweep(&self, now: i64) -> Result<(), StateError> {
        self.marks.sweep(now);
        self.shared.records.sweep(now);
        self.earlier_epochs.write().retain(|earlier| earlier.until > now);
        let mut writes = vec![
            Write::ForgetRecords { before: now.saturating_sub(KEPT_AFTER_EXPIRY_MS) },
            Write::ForgetReceipts { before: now },
        ];
        for zone in self.all_zones() {
            let mut desk = zone.desk.lock();
            desk.settle(now);
            desk.receipts.expire(now);
            writes.extend(desk.forget_ended(now));
            writes.extend(desk.forget_jobs(now));
            let name = Arc::clone(&zone.name);
            writes.extend(desk.holds.forget(&name, now));
        }
        // Not owed when it fails: what was not deleted is found to be over again at the next start.
        self.shared.queue.commit(writes, Intent::Note).done().await
    }
}
