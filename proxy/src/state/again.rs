//! Judging an operation again after another node of the fleet was faster.

use super::error::{CoordinatorError, StateError};

/// Times an operation is judged. The writer keeps its turn for the second one, so that more are rare; on a busy machine
/// sixteen were once too few.
const TRIES: u32 = 64;

/// Counts how often an operation was judged.
#[derive(Debug, Default)]
pub(super) struct Again(u32);

impl Again {
    /// Whether the operation came to nothing only because this node did not know what another one had done.
    pub(super) fn should<T>(&mut self, outcome: &Result<T, CoordinatorError>) -> bool {
        self.after(outcome.as_ref().err().is_some_and(CoordinatorError::behind))
    }

    /// As [`Again::should`], for what has no code of the coordinator.
    pub(super) fn should_store<T>(&mut self, outcome: &Result<T, StateError>) -> bool {
        self.after(matches!(outcome, Err(StateError::Behind)))
    }

    fn after(&mut self, behind: bool) -> bool {
        self.0 = self.0.saturating_add(1);
        behind && self.0 < TRIES
    }
}
