//! Candidates: what waits beside the bundles in force, and decides nothing.
//!
//! A candidate passes every check that would put it into force, and is then only asked what it would have answered. A
//! change of its files, or of what is in force, begins anew.

use std::sync::Arc;

use caracal_policies::Report;

use super::{Inner, Loaded, LoadedZone};
use crate::bundles;
use crate::rehearsal::{Candidate, Rehearsal};
use crate::reload::versions::name_of;
use crate::reload::{ReloadEvent, candidate};
use crate::snapshot::LiveZone;

/// A bundle that waits beside a zone's.
#[derive(Debug)]
pub(super) struct Candidacy {
    key: Key,
    pub(super) found: Result<Arc<Candidate>, Report>,
    pub(super) rehearsal: Option<Arc<Rehearsal>>,
}

/// What a judgement was about: the same needs no other one.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    /// None when the files cannot be read.
    source: Option<[u8; 32]>,
    secrets_generation: u64,
    floor: Option<u64>,
}

/// Looks for candidates; whether any came, changed or went.
pub(super) fn look(inner: &Inner, loaded: &mut Loaded) -> bool {
    let mut changed = false;
    for (id, zone) in &loaded.zones {
        let before = loaded.candidates.remove(id);
        let was_good = before.as_ref().is_some_and(|one| one.found.is_ok());
        if !bundles::is_there(&inner.config.bundles_dir, &bundles::candidate_of(id)) {
            if before.is_some() {
                inner.observer.observe(&ReloadEvent::CandidateGone { zone: id });
                changed |= was_good;
            }
            continue;
        }
        let now = judge(inner, id, zone, loaded, before);
        changed |= now.rehearsal.is_none() && (was_good || now.found.is_ok());
        loaded.candidates.insert(id.clone(), now);
    }
    changed
}

fn judge(
    inner: &Inner,
    id: &str,
    zone: &LoadedZone,
    loaded: &Loaded,
    mut before: Option<Candidacy>,
) -> Candidacy {
    let read = candidate::read_next(&inner.config, id);
    let key = Key {
        source: read.as_ref().ok().map(|read| read.digest),
        secrets_generation: loaded.secrets_generation,
        floor: zone.floor.as_ref().map(|floor| floor.revision),
    };
    if let Some(before) = before.take_if(|before| before.key == key && key.source.is_some()) {
        return before;
    }
    let found = read.and_then(|read| {
        let floor = zone.floor.as_ref();
        let table = Some(&*loaded.secrets);
        let live = candidate::build(&inner.config, &inner.registry, &read, None, table, 0, floor)?;
        Ok(Arc::new(Candidate {
            zone: Arc::clone(&live.zone),
            version: read.digest,
            revision: live.signed.as_ref().map(|signed| signed.revision),
            source: read.source,
        }))
    });
    let before = match (before, &found) {
        // Other secrets, and it is as good as it was: the count goes on.
        (Some(before), Ok(_)) if before.found.is_ok() && before.key.source == key.source => {
            return Candidacy { key, ..before };
        }
        (before, _) => before.and_then(|before| before.found.err()),
    };
    match &found {
        Ok(candidate) => {
            let (version, changes) = (name_of(&candidate.version), zone.live.zone.changes(&candidate.zone));
            let (version, changes) = (&*version, &*changes);
            inner.observer.observe(&ReloadEvent::CandidateRehearsed { zone: id, version, changes });
        }
        Err(report) if before.as_ref() != Some(report) => {
            inner.observer.observe(&ReloadEvent::CandidateRefused { zone: id, report });
        }
        Err(_) => {}
    }
    Candidacy { key, found, rehearsal: None }
}

/// Begins to count where a candidate or what is in force is another than before.
pub(super) fn renew(loaded: &mut Loaded, now: i64) {
    for (id, candidacy) in &mut loaded.candidates {
        let (Ok(candidate), Some(zone)) = (&candidacy.found, loaded.zones.get(id)) else { continue };
        if !candidacy.rehearsal.as_ref().is_some_and(|one| one.is_of(&zone.live, candidate)) {
            candidacy.rehearsal = Some(Arc::new(Rehearsal::new(&zone.live, Arc::clone(candidate), now)));
        }
    }
}

/// A zone as requests get it: with its candidate, if one waits.
pub(super) fn beside(loaded: &Loaded, id: &str, live: &Arc<LiveZone>) -> Arc<LiveZone> {
    match loaded.candidates.get(id).and_then(|one| one.rehearsal.clone()) {
        Some(rehearsal) => Arc::new(LiveZone { rehearsal: Some(rehearsal), ..LiveZone::clone(live) }),
        None => Arc::clone(live),
    }
}
