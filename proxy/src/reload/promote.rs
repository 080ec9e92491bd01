//! What an operator may ask about a candidate, and what comes of it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use caracal_policies::{Digest, Report};
use serde::{Deserialize, Serialize};

use super::{Reloader, aside, pass};
use crate::rehearsal::Counts;

/// Which candidate an operator wants in force, and what it may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    /// Its version or digest, or at least sixteen digits of one, as the operator saw it.
    pub candidate: String,
    /// Take whatever it changes.
    pub accept: bool,
    /// Most decisions that it would newly deny.
    pub max_newly_denied: u64,
    /// Most decisions that it would newly allow.
    pub max_newly_allowed: u64,
    /// Fewest decisions that it must have been asked about.
    pub min_compared: u64,
}

/// A candidate that is in force.
#[derive(Clone, Debug)]
pub struct Promoted {
    /// The digest of its files.
    pub version: String,
    /// The digest of the zone.
    pub digest: Digest,
    /// The generation of the snapshot it is in.
    pub generation: u64,
    /// The difference to what was in force, in words.
    pub changes: Vec<String>,
    /// What was counted until then.
    pub counts: Counts,
    /// Where the files lie that it replaced, if they could be moved there.
    pub replaced: Option<PathBuf>,
}

/// Why a candidate was not put into force. What was in force stays.
#[derive(Debug, thiserror::Error)]
pub enum PromoteError {
    /// There is no such zone.
    #[error("there is no such zone")]
    UnknownZone,
    /// No candidate waits.
    #[error("no candidate waits; put one into `<zone>.next` beside the bundle")]
    NoCandidate,
    /// Another one waits.
    #[error(
        "another candidate waits, {0}; look at what it would change with `caracal shadow`, and name it with at least 16 digits"
    )]
    OtherCandidate(String),
    /// It has not been asked often enough.
    #[error(
        "it was asked about {compared} decisions, and {fewest} are wanted; wait, or lower --min-compared"
    )]
    TooFew {
        /// How often it was asked.
        compared: u64,
        /// How often it must have been.
        fewest: u64,
    },
    /// It changes more than may be.
    #[error(
        "it would newly deny {denied} decisions and newly allow {allowed}, and {most_denied} and {most_allowed} may be; look at them with `caracal shadow`, then --accept or raise the limits"
    )]
    TooMuch {
        /// Newly denied.
        denied: u64,
        /// Newly allowed.
        allowed: u64,
        /// Most that may be newly denied.
        most_denied: u64,
        /// Most that may be newly allowed.
        most_allowed: u64,
    },
    /// Its files are those that are in place.
    #[error("the files in place say the same, byte for byte")]
    SameFiles,
    /// Files are not what was rehearsed.
    #[error(
        "the files of the bundle or of the candidate are not those that were rehearsed; see `caracal reload`"
    )]
    FilesChanged,
    /// It does not load.
    #[error("the candidate cannot be in force\n{0}")]
    Refused(Report),
    /// A folder and a file.
    #[error("one of bundle and candidate is a folder and the other a file; give both one shape")]
    OtherShape,
    /// A bundle and a signature beside it.
    #[error(
        "a bundle of one file and its signature cannot be replaced in one step; make both bundle and candidate a folder"
    )]
    TwoFiles,
    /// The file system does not do it.
    #[error(
        "the files cannot be exchanged in place: {0}; put the candidate's files where the bundle's are, by whatever writes them"
    )]
    Unmovable(#[source] io::Error),
    /// A fault of ours.
    #[error("it failed by a fault of ours; `caracal status` shows what is in force")]
    Fault,
}

impl PromoteError {
    /// The stable word for it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownZone => "unknown_zone",
            Self::NoCandidate => "no_candidate",
            Self::OtherCandidate(_) => "other_candidate",
            Self::TooFew { .. } => "too_few_compared",
            Self::TooMuch { .. } => "too_much_changed",
            Self::SameFiles => "nothing_to_promote",
            Self::FilesChanged => "files_changed",
            Self::Refused(_) => "candidate_refused",
            Self::OtherShape | Self::TwoFiles => "candidate_shape",
            Self::Unmovable(_) => "files_unmovable",
            Self::Fault => "internal_error",
        }
    }
}

impl Promotion {
    /// Whether a candidate with these counts may go on.
    ///
    /// # Errors
    /// [`PromoteError::TooFew`], [`PromoteError::TooMuch`].
    pub(super) fn allows(&self, counts: Counts) -> Result<(), PromoteError> {
        let Counts { compared, newly_allowed: allowed, newly_denied: denied } = counts;
        if compared < self.min_compared {
            return Err(PromoteError::TooFew { compared, fewest: self.min_compared });
        }
        let (most_denied, most_allowed) = (self.max_newly_denied, self.max_newly_allowed);
        if !self.accept && (denied > most_denied || allowed > most_allowed) {
            return Err(PromoteError::TooMuch { denied, allowed, most_denied, most_allowed });
        }
        Ok(())
    }
}

impl Reloader {
    /// Puts the candidate of a zone into force in place of its files. In force when this returns.
    ///
    /// # Errors
    /// See [`PromoteError`].
    pub async fn promote(&self, zone: String, asked: Promotion) -> Result<Promoted, PromoteError> {
        let mut loaded = Arc::clone(&self.loaded).lock_owned().await;
        let inner = Arc::clone(&self.inner);
        let done = aside::run(move || pass::promote(&inner, &mut loaded, &zone, &asked)).await;
        done.unwrap_or(Err(PromoteError::Fault))
    }
}
