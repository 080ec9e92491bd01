//! What an operator puts into force: a kept version instead of what the files say, or the files again.
//!
//! Files say what should be. An operator may point to an earlier answer, and that is all: the version stays pinned
//! until the operator ends that or the files say something new. Who may ask, and with what they prove it, always
//! comes from the files, so that nothing an operator goes back to brings a retired secret, a removed application or
//! a removed issuer back; nor does it lift a `restrict`.

use std::sync::Arc;

use super::{Inner, Loaded, LoadedZone, candidate, put_into_force};
use crate::reload::versions::{By, Entry, Versions, name_of};
use crate::reload::{ActivateError, Activated, ReloadEvent, Wanted};
use crate::snapshot::LiveZone;

/// Puts what is wanted into force, after it was written down: a restart must not undo what was acknowledged.
pub(in crate::reload) fn activate(
    inner: &Inner,
    loaded: &mut Loaded,
    id: &str,
    wanted: &Wanted,
    uid: u32,
) -> Result<Activated, ActivateError> {
    let versions = Versions::of(&inner.config.state_dir, id);
    let zone = loaded.zones.get(id).ok_or(ActivateError::UnknownZone)?;
    let version = meant(&versions, zone, wanted)?;
    // What the files say may be too new to have been kept, as on a full disk.
    let from_files =
        || candidate::read(&inner.config, id).ok().filter(|read| name_of(&read.digest) == version);
    let read = versions.load(&version).or_else(from_files).ok_or(ActivateError::Damaged)?;
    let generation = zone.live.bundle_generation.saturating_add(1);
    let table = &loaded.secrets;
    let (digest, live) = if read.digest == zone.source {
        let base = LiveZone::clone(&zone.base);
        (*base.zone.digest(), LiveZone { bundle_generation: generation, ..base })
    } else {
        let base = &zone.base.zone;
        candidate::pinned(&inner.config, &inner.registry, &read, base, table, generation)
            .map_err(ActivateError::Refused)?
    };
    let changes = zone.live.zone.changes(&live.zone);
    let outcome = |live: &LiveZone, generation| Activated {
        version: version.clone(),
        digest: *live.zone.digest(),
        generation,
        pinned: live.pinned,
        changes: changes.clone(),
    };
    if zone.live.version == live.version {
        return Ok(outcome(&zone.live, loaded.generation));
    }
    let entry =
        Entry { digest: &digest, at: inner.clock.now(), by: By::Operator(uid), signed: live.signed.as_ref() };
    versions.activate(&read, entry, inner.config.bundles.keep_versions).map_err(ActivateError::NotKept)?;
    let live = Arc::new(live);
    if let Some(zone) = loaded.zones.get_mut(id) {
        zone.live = Arc::clone(&live);
    }
    loaded.generation = loaded.generation.saturating_add(1);
    put_into_force(inner, loaded);
    let (zone, digest, changes) = (id, live.zone.digest(), changes.as_slice());
    inner.observer.observe(&if live.pinned {
        ReloadEvent::ZonePinned { zone, version: &version, digest, changes }
    } else {
        ReloadEvent::ZoneAccepted { zone, generation, digest, changes }
    });
    Ok(outcome(&live, loaded.generation))
}

/// The version that is meant.
fn meant(versions: &Versions, zone: &LoadedZone, wanted: &Wanted) -> Result<String, ActivateError> {
    let journal = versions.journal().map_err(ActivateError::Journal)?;
    match wanted {
        Wanted::Files => Ok(name_of(&zone.source)),
        Wanted::Version(word) => Ok(journal.find(word).map_err(ActivateError::NoVersion)?.version.clone()),
        Wanted::Earlier => {
            let earlier = journal.earlier(&name_of(&zone.live.version));
            Ok(earlier.ok_or(ActivateError::NothingEarlier)?.version.clone())
        }
    }
}
