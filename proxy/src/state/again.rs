//! Judging an operation again after another node of the fleet was faster.

use super::error::CoordinatorError;

/// Times an operation is judged. The writer keeps its turn for the second one, so that more are rare.
pub(super) const TRIES: u32 = 16;

/// Counts how often an operation was judged.
#[derive(Debug, Default)]
pub(super) struct Again(u32);

impl Again {
    /// Whether the operation came to nothing only because this node did not know what another one had done.
    pub(super) fn should<T>(&mut self, outcome: &Result<T, CoordinatorError>) -> bool {
        self.0 = self.0.saturating_add(1);
        self.0 < TRIES && outcome.as_ref().is_err_and(CoordinatorError::behind)
    }
}
