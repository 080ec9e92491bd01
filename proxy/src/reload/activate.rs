//! What an operator may ask a running process to put into force, and what comes of it.

use std::io;
use std::sync::Arc;

use caracal_policies::{Digest, Report};

use super::versions::Unfound;
use super::{Reloader, aside, pass};

/// What an operator wants in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The kept version whose digest begins so.
    Version(String),
    /// The version that the files said before the one in force.
    Earlier,
    /// What the files say.
    Files,
}

/// What an operator put into force.
#[derive(Clone, Debug)]
pub struct Activated {
    /// The digest of its files.
    pub version: String,
    /// The digest of the zone as it is in force: its policy with the applications of the files.
    pub digest: Digest,
    /// The generation of the snapshot it is in.
    pub generation: u64,
    /// Whether it stands instead of what the files say.
    pub pinned: bool,
    /// The difference to what was in force, in words.
    pub changes: Vec<String>,
}

/// Why nothing was put into force. What was in force stays.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// There is no such zone.
    #[error("there is no such zone")]
    UnknownZone,
    /// The word names no version.
    #[error("{0}")]
    NoVersion(Unfound),
    /// Nothing before it is kept.
    #[error("no version that says something else is kept from before the one in force")]
    NothingEarlier,
    /// It has not the digest it is named after.
    #[error("the version is not kept whole any more")]
    Damaged,
    /// It does not load today.
    #[error("the version cannot be in force today\n{0}")]
    Refused(Report),
    /// It could not be written down.
    #[error("it could not be written down in the state folder: {0}")]
    NotKept(io::Error),
    /// The journal of versions cannot be read.
    #[error("the journal of versions cannot be read: {0}")]
    Journal(io::Error),
    /// A fault of ours.
    #[error("it failed by a fault of ours; nothing was changed")]
    Fault,
}

impl ActivateError {
    /// The stable word for it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownZone => "unknown_zone",
            Self::NoVersion(Unfound::NoDigest) => "not_a_version",
            Self::NoVersion(Unfound::Unknown) => "unknown_version",
            Self::NoVersion(Unfound::Ambiguous) => "ambiguous_version",
            Self::NothingEarlier => "no_earlier_version",
            Self::Damaged => "version_damaged",
            Self::Refused(_) => "version_refused",
            Self::NotKept(_) | Self::Journal(_) => "versions_unavailable",
            Self::Fault => "internal_error",
        }
    }
}

impl Reloader {
    /// Puts a kept version of a zone into force, or the files again, in the name of `uid`. In force and on disk when
    /// this returns.
    ///
    /// # Errors
    /// See [`ActivateError`].
    pub async fn activate(&self, zone: String, wanted: Wanted, uid: u32) -> Result<Activated, ActivateError> {
        let mut loaded = Arc::clone(&self.loaded).lock_owned().await;
        let inner = Arc::clone(&self.inner);
        let done = aside::run(move || pass::activate(&inner, &mut loaded, &zone, &wanted, uid)).await;
        done.unwrap_or(Err(ActivateError::Fault))
    }
}
