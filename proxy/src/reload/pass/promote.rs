//! A rehearsed candidate takes the place of the bundle's files.
//!
//! The two places change names in one step of the file system, so that whenever the machine stops one whole bundle is
//! in the active place: the one before, or the candidate, which has passed every check.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{Inner, Judged, Loaded, candidate, judge, put_into_force, rehearse, settle, tell};
use crate::bundles;
use crate::config::Config;
use crate::reload::versions::name_of;
use crate::reload::{PromoteError, Promoted, Promotion, ZoneResult};

/// Puts a candidate into force if it is the one that is meant and changes no more than is allowed.
pub(in crate::reload) fn promote(
    inner: &Inner,
    loaded: &mut Loaded,
    id: &str,
    asked: &Promotion,
) -> Result<Promoted, PromoteError> {
    let zone = loaded.zones.get(id).ok_or(PromoteError::UnknownZone)?;
    let candidacy = loaded.candidates.get(id).ok_or(PromoteError::NoCandidate)?;
    let candidate = candidacy.found.as_ref().map_err(|report| PromoteError::Refused(report.clone()))?;
    let rehearsal = candidacy.rehearsal.as_ref().ok_or(PromoteError::Fault)?;
    let version = candidate.version;
    if !candidate.is_called(&asked.candidate) {
        return Err(PromoteError::OtherCandidate(name_of(&version)));
    }
    let counts = rehearsal.counts();
    asked.allows(counts)?;
    if version == zone.source {
        return Err(PromoteError::SameFiles);
    }
    // What lies there now must be what was counted, on both sides.
    let next = candidate::read_next(&inner.config, id).map_err(PromoteError::Refused)?;
    let files = candidate::read(&inner.config, id).ok();
    if next.digest != version || files.is_none_or(|files| files.digest != zone.source) {
        return Err(PromoteError::FilesChanged);
    }
    let (table, floor) = (Some(&*loaded.secrets), zone.floor.as_ref());
    candidate::build(&inner.config, &inner.registry, &next, None, table, 0, floor)
        .map_err(PromoteError::Refused)?;
    let places = Places::of(&inner.config, id)?;
    places.exchange().map_err(PromoteError::Unmovable)?;
    // It is read again where it lies now: whoever wrote in between has not been rehearsed.
    let judged = judge(inner, id, zone, &loaded.secrets, loaded.secrets_generation);
    let accepted = match judged {
        Judged::Accepted(accepted) if accepted.0.digest == version => accepted,
        Judged::Accepted(_) | Judged::Unchanged | Judged::Rejected(_) => {
            places.exchange().map_err(PromoteError::Unmovable)?;
            return Err(PromoteError::FilesChanged);
        }
    };
    let replaced = places.put_aside();
    let settled = settle(loaded, id.to_owned(), Judged::Accepted(accepted));
    rehearse::look(inner, loaded);
    loaded.generation = loaded.generation.saturating_add(1);
    put_into_force(inner, loaded);
    let outcome = settled.and_then(|(id, settled)| tell(inner, loaded, id, settled));
    match outcome.map(|outcome| outcome.result) {
        Some(ZoneResult::Accepted { digest, changes }) => Ok(Promoted {
            version: name_of(&version),
            digest,
            generation: loaded.generation,
            changes,
            counts,
            replaced,
        }),
        Some(ZoneResult::Unchanged | ZoneResult::Rejected(_)) | None => Err(PromoteError::Fault),
    }
}

/// Where the bundle of a zone and its candidate lie.
struct Places {
    folder: PathBuf,
    active: PathBuf,
    next: PathBuf,
    /// Where what was replaced goes.
    previous: PathBuf,
}

impl Places {
    fn of(config: &Config, id: &str) -> Result<Self, PromoteError> {
        let folder = &config.bundles_dir;
        let next = bundles::candidate_of(id);
        let place = |name: &str, ending: &str| folder.join(format!("{name}{ending}"));
        let both =
            |ending: &str| [id, &next].iter().all(|name| place(name, ending).symlink_metadata().is_ok());
        let ending = match (both(""), both(".toml")) {
            (true, _) => "",
            (false, true) => ".toml",
            (false, false) => return Err(PromoteError::OtherShape),
        };
        let signed = [id, &next].iter().any(|name| place(name, ".sig").symlink_metadata().is_ok());
        if ending == ".toml" && signed {
            return Err(PromoteError::TwoFiles);
        }
        Ok(Self {
            folder: folder.clone(),
            active: place(id, ending),
            next: place(&next, ending),
            previous: place(&format!("{id}.previous"), ending),
        })
    }

    fn exchange(&self) -> io::Result<()> {
        renameat_with(CWD, &self.active, CWD, &self.next, RenameFlags::EXCHANGE)?;
        File::open(&self.folder)?.sync_all()
    }

    /// Moves what was replaced out of the candidate's place. The promotion stands without it.
    fn put_aside(&self) -> Option<PathBuf> {
        let moved = remove(&self.previous).and_then(|()| fs::rename(&self.next, &self.previous));
        match moved {
            Ok(()) => Some(self.previous.clone()),
            Err(error) => {
                let place = self.next.display();
                tracing::warn!(%place, %error, "what was replaced stays there, and is the candidate now");
                None
            }
        }
    }
}

/// Removes what an earlier promotion put aside, if anything.
fn remove(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
