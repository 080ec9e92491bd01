//! What can go wrong: with the store as a whole, and with one operation of the coordinator.

use std::path::PathBuf;
use std::sync::Arc;

/// A failure of the state itself. Callers that face a client answer it with 503.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another process holds the folder.
    #[error("the state folder `{0}` is in use by another process")]
    Locked(PathBuf),
    /// The folder belongs to somebody else or lets others in.
    #[error("the state folder `{path}` must belong to this user with mode 0700: found {found}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Owner and mode as found.
        found: String,
    },
    /// The store was written by a later version of this program.
    #[error("the store has version {found}, this program knows versions up to {known}")]
    NewerStore {
        /// Version in the file.
        found: i64,
        /// Latest version this program reads.
        known: i64,
    },
    /// A file of the folder could not be used.
    #[error("cannot {doing} `{path}`")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Arc<std::io::Error>,
    },
    /// The database refused, or cannot be reached.
    #[error("cannot {doing}")]
    Store {
        /// What was tried.
        doing: &'static str,
        /// The cause.
        source: Arc<sqlx::Error>,
    },
    /// The store could not be brought to this program's version.
    #[error("cannot bring the store to this version")]
    Migrate(#[source] Arc<sqlx::migrate::MigrateError>),
    /// A row this program cannot read.
    #[error("table `{table}` has a row that cannot be read: `{id}`")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// Id of the row.
        id: String,
    },
    /// Another node of the fleet changed the shared store since this one looked; the change is judged again.
    #[error("another node was faster")]
    Behind,
    /// No randomness from the operating system.
    #[error("the operating system gave no random bytes")]
    Random,
    /// The state was closed; nothing is written any more.
    #[error("the state is closed")]
    Closed,
}

impl StateError {
    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { doing, path: path.into(), source: Arc::new(source) }
    }

    /// Whether a statement failed and nothing else: the connection is as good as before.
    pub(super) fn server_goes_on(&self) -> bool {
        let Self::Store { source, .. } = self else { return true };
        source.as_database_error().is_some_and(|error| {
            // 08 and 57P are the classes of lost connections and of an operator's intervention.
            !error.code().is_some_and(|code| code.starts_with("08") || code.starts_with("57P"))
        })
    }

    pub(super) fn store(doing: &'static str, source: sqlx::Error) -> Self {
        Self::Store { doing, source: Arc::new(source) }
    }
}

/// Why a single-use mandate was not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MarkError {
    /// It was used before.
    #[error("the mandate was used before")]
    Replayed,
    /// There is no room to remember one more; other applications keep their share.
    #[error("no room to remember another single-use mandate")]
    Capacity,
    /// The state was closed: a mark made now would be forgotten.
    #[error("the process is stopping")]
    Stopping,
}

/// A refused operation of the coordinator: status, stable code, and members the body carries beside the code.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{status} {code}")]
pub struct CoordinatorError {
    /// HTTP status.
    pub status: u16,
    /// The body's `error`.
    pub code: &'static str,
    /// The body's `message`, where the operation has one.
    pub message: Option<&'static str>,
    /// The body's `detail`, where the operation has one.
    pub detail: Option<&'static str>,
    /// The failure of the store behind a 503; for the log only.
    #[source]
    pub source: Option<Box<StateError>>,
}

impl CoordinatorError {
    /// A refusal that is only a code.
    #[must_use]
    pub const fn new(status: u16, code: &'static str) -> Self {
        Self { status, code, message: None, detail: None, source: None }
    }

    /// Whether another node was faster and the operation must be judged again.
    pub(super) fn behind(&self) -> bool {
        self.source.as_deref().is_some_and(|source| matches!(source, StateError::Behind))
    }

    pub(super) const fn with_message(mut self, message: &'static str) -> Self {
        self.message = Some(message);
        self
    }

    pub(super) const fn with_detail(mut self, detail: &'static str) -> Self {
        self.detail = Some(detail);
        self
    }

    pub(super) const fn session_not_found() -> Self {
        Self::new(404, "session_not_found")
    }

    pub(super) const fn delegation_not_found() -> Self {
        Self::new(404, "delegation_not_found")
    }

    pub(super) const fn ownership() -> Self {
        Self::new(403, "application_ownership_required")
    }
}

impl PartialEq for CoordinatorError {
    fn eq(&self, other: &Self) -> bool {
        (self.status, self.code) == (other.status, other.code)
    }
}

impl From<StateError> for CoordinatorError {
    fn from(source: StateError) -> Self {
        Self { source: Some(Box::new(source)), ..Self::new(503, "state_unavailable") }
    }
}
