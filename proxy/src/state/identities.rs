//! Who could ask for mandates here: this node's own, like the files it reads them from.

use std::sync::Arc;

use super::State;
use super::error::StateError;
use super::standing::TombstoneKind;
use super::store::{OwnWrite, Write};
use super::writer::Intent;

/// An application that was in force, or a secret of one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The zone.
    pub zone: Arc<str>,
    /// The application's id.
    pub application: Arc<str>,
    /// What names a secret of it, and cannot be used to ask; empty for the application itself.
    pub secret: Arc<str>,
}

impl State {
    /// What was stored of who could ask when this process started; once.
    #[must_use]
    pub fn take_stored_identities(&self) -> Vec<Identity> {
        std::mem::take(&mut self.identities.lock())
    }

    /// Commits who can ask now, and who cannot any more.
    ///
    /// # Errors
    /// [`StateError`] when it could not be committed.
    pub async fn store_identities(&self, new: Vec<Identity>, gone: Vec<Identity>) -> Result<(), StateError> {
        let gone = gone.into_iter().map(OwnWrite::ForgetIdentity);
        let writes = gone.chain(new.into_iter().map(OwnWrite::Identity)).map(Write::Own).collect();
        self.local.commit(writes, Intent::Note).done().await
    }

    /// Everything of a kind that is buried in a zone, sorted.
    #[must_use]
    pub fn graves(&self, kind: TombstoneKind, zone: &str) -> Vec<Arc<str>> {
        self.shared.standing.graves(kind, zone)
    }
}
