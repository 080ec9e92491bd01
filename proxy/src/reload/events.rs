//! What a reload tells: to the log in words, to metrics in numbers.

use std::fmt;
use std::time::Duration;

use caracal_policies::{Digest, Problem, Report};

use crate::snapshot::Snapshot;

/// One thing a reload did. A refusal is told once, not again at each poll that finds the same files. When refused
/// files are put back to what is in force, that is told as accepted, with the generation as it was and no changes.
#[derive(Debug)]
pub enum ReloadEvent<'a> {
    /// A bundle is about to be in force.
    ZoneAccepted {
        /// The zone's id.
        zone: &'a str,
        /// The zone's bundle generation.
        generation: u64,
        /// The bundle's digest.
        digest: &'a Digest,
        /// The difference to the one before, in words.
        changes: &'a [String],
    },
    /// A bundle was refused.
    ZoneRejected {
        /// The zone's id.
        zone: &'a str,
        /// Why.
        report: &'a Report,
    },
    /// At start the version activated last stands in for a refused bundle.
    ZoneStandsIn {
        /// The zone's id.
        zone: &'a str,
        /// The digest of what is in force instead.
        digest: &'a Digest,
    },
    /// A version that an operator activated is in force instead of what the files say.
    ZonePinned {
        /// The zone's id.
        zone: &'a str,
        /// The digest of the version's files.
        version: &'a str,
        /// The digest of what is in force.
        digest: &'a Digest,
        /// The difference to what was in force, in words.
        changes: &'a [String],
    },
    /// The files say something new, which ends what an operator pinned.
    ZonePinEnded {
        /// The zone's id.
        zone: &'a str,
        /// The version that was pinned.
        version: &'a str,
    },
    /// At start a pinned version cannot be in force any more; the files are instead.
    ZonePinLost {
        /// The zone's id.
        zone: &'a str,
        /// The version that was pinned.
        version: &'a str,
        /// Why.
        why: &'a str,
    },
    /// A candidate is asked from now on what it would have answered.
    CandidateRehearsed {
        /// The zone's id.
        zone: &'a str,
        /// The digest of its files.
        version: &'a str,
        /// The difference to what is in force, in words.
        changes: &'a [String],
    },
    /// A candidate was refused, and is not asked.
    CandidateRefused {
        /// The zone's id.
        zone: &'a str,
        /// Why.
        report: &'a Report,
    },
    /// A candidate is gone.
    CandidateGone {
        /// The zone's id.
        zone: &'a str,
    },
    /// A secrets file is about to be in force.
    SecretsAccepted {
        /// Counts accepted versions.
        generation: u64,
        /// The difference to the one before, in words without values.
        changes: &'a [String],
        /// References of bundles in force that it does not serve.
        unserved: &'a [Problem],
    },
    /// The secrets file was refused.
    SecretsRejected {
        /// Why.
        report: &'a Report,
    },
    /// A new snapshot is in force.
    Swapped {
        /// The snapshot.
        snapshot: &'a Snapshot,
    },
    /// A comparison of the files that changed something is over.
    Took {
        /// Until the new snapshot was in force.
        in_force: Duration,
        /// Until its changes were told and its files kept.
        whole: Duration,
    },
}

/// Is told what reloads do.
pub trait ReloadObserver: Send + Sync {
    /// Called from the reload, away from requests; must not block for long.
    fn observe(&self, event: &ReloadEvent<'_>);
}

impl ReloadEvent<'_> {
    /// Whether an operator should look at it.
    #[must_use]
    pub const fn is_trouble(&self) -> bool {
        match self {
            Self::ZoneRejected { .. }
            | Self::ZoneStandsIn { .. }
            | Self::ZonePinLost { .. }
            | Self::CandidateRefused { .. }
            | Self::SecretsRejected { .. } => true,
            Self::SecretsAccepted { unserved, .. } => !unserved.is_empty(),
            Self::ZoneAccepted { .. }
            | Self::ZonePinned { .. }
            | Self::ZonePinEnded { .. }
            | Self::CandidateRehearsed { .. }
            | Self::CandidateGone { .. }
            | Self::Swapped { .. }
            | Self::Took { .. } => false,
        }
    }
}

/// The event in words, one line for what happened and one for each change or problem.
impl fmt::Display for ReloadEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZoneAccepted { zone, generation, digest, changes } => {
                write!(f, "zone `{zone}`: bundle {digest} accepted as generation {generation}")?;
                lines(f, changes)
            }
            Self::ZoneRejected { zone, report } => {
                write!(f, "zone `{zone}`: bundle refused, the last good one stays in force\n{report}")
            }
            Self::ZoneStandsIn { zone, digest } => {
                write!(f, "zone `{zone}`: running on bundle {digest}, which was activated last")
            }
            Self::ZonePinned { zone, version, digest, changes } => {
                write!(f, "zone `{zone}`: an operator's version {version} is in force as {digest}")?;
                lines(f, changes)
            }
            Self::ZonePinEnded { zone, version } => {
                write!(f, "zone `{zone}`: the files say something new, the pinned version {version} ends")
            }
            Self::ZonePinLost { zone, version, why } => {
                write!(f, "zone `{zone}`: the pinned version {version} cannot be in force again: {why}")
            }
            Self::CandidateRehearsed { zone, version, changes } => {
                write!(f, "zone `{zone}`: candidate {version} is rehearsed; in force it would change")?;
                lines(f, changes)
            }
            Self::CandidateRefused { zone, report } => {
                write!(f, "zone `{zone}`: candidate refused; it is not rehearsed\n{report}")
            }
            Self::CandidateGone { zone } => write!(f, "zone `{zone}`: the candidate is gone"),
            Self::SecretsAccepted { generation, changes, unserved } => {
                write!(f, "secrets file accepted as generation {generation}")?;
                lines(f, changes)?;
                lines(f, unserved)
            }
            Self::SecretsRejected { report } => {
                write!(f, "secrets file refused, the last good one stays in force\n{report}")
            }
            Self::Swapped { snapshot } => {
                write!(f, "snapshot {} in force with {} zones", snapshot.generation, snapshot.zones.len())
            }
            Self::Took { in_force, whole } => {
                let (in_force, whole) = (in_force.as_millis(), whole.as_millis());
                write!(f, "the reload was in force after {in_force} ms and over after {whole} ms")
            }
        }
    }
}

fn lines(f: &mut fmt::Formatter<'_>, items: &[impl fmt::Display]) -> fmt::Result {
    items.iter().try_for_each(|item| write!(f, "\n  {item}"))
}

/// Writes events to the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogObserver;

impl ReloadObserver for LogObserver {
    fn observe(&self, event: &ReloadEvent<'_>) {
        if event.is_trouble() { complain(event) } else { note(event) }
    }
}

fn complain(event: &ReloadEvent<'_>) {
    tracing::error!("{event}");
}

fn note(event: &ReloadEvent<'_>) {
    tracing::info!("{event}");
}
