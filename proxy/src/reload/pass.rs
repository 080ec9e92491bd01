//! One comparison of the files with what is in force.

mod operator;
mod promote;
mod rehearse;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use caracal_policies::{Problem, Report};

use super::candidate::{self, Read};
use super::versions::{By, Entry, Journal, Versions, name_of};
use super::{Inner, ReloadEvent, ReloadOutcome, SecretsOutcome, ZoneOutcome, ZoneResult};
use crate::bundles::signature::{Floor, Signed};
use crate::secrets::{SecretsTable, check_bundle, check_sinks};
use crate::snapshot::{LiveZone, Routes, Snapshot};

pub(super) use operator::activate;
pub(super) use promote::promote;

/// What the last pass left: what is in force, from which files, and what was refused.
#[derive(Debug)]
pub(super) struct Loaded {
    zones: BTreeMap<String, LoadedZone>,
    /// What waits beside them.
    candidates: BTreeMap<String, rehearse::Candidacy>,
    secrets: Arc<SecretsTable>,
    secrets_generation: u64,
    secrets_refused: Option<Report>,
    generation: u64,
    /// What requests still held when it was replaced. It is held here too until they are done, so that none of them has
    /// to take it apart.
    retired: Vec<Arc<Snapshot>>,
}

/// A zone as it is in force and as the files have it.
#[derive(Debug)]
struct LoadedZone {
    live: Arc<LiveZone>,
    /// What the files say: `live`, unless an operator pinned a version.
    base: Arc<LiveZone>,
    /// Digest of the files that `base` was made from.
    source: [u8; 32],
    /// The highest revision the files had, if they were signed.
    floor: Option<Floor>,
    refused: Option<Refused>,
}

impl LoadedZone {
    /// `floor` as it was before: a version that stands in for bad files may be older.
    fn new(live: LiveZone, refused: Option<Refused>, floor: Option<Floor>) -> Self {
        let own = live.signed.as_ref().map(Signed::floor);
        let floor = own.into_iter().chain(floor).max_by_key(|floor| floor.revision);
        let (source, live) = (live.version, Arc::new(live));
        Self { base: Arc::clone(&live), live, source, floor, refused }
    }
}

/// A refusal, and what it was the answer to: the same files and secrets need not be judged again.
#[derive(Debug)]
struct Refused {
    source: Option<[u8; 32]>,
    secrets_generation: u64,
    report: Report,
}

/// What became of a zone's files, before anything is put into force.
enum Judged {
    Unchanged,
    Accepted(Box<(Read, LiveZone)>),
    Rejected(Refused),
}

/// The first pass: everything must be there, or something to stand in for it.
pub(super) fn start(inner: &Inner) -> Result<Loaded, Report> {
    let mut problems = Vec::new();
    let table = SecretsTable::load(&inner.config.secrets, &inner.fingerprints)
        .map(|table| table.dated(&SecretsTable::empty(), inner.clock.now()))
        .map_err(|report| problems.extend(report.problems))
        .ok();
    let mut zones = BTreeMap::new();
    let mut accepted = Vec::new();
    for id in inner.config.zones.keys() {
        match first(inner, id, table.as_ref()) {
            Ok((mut zone, read)) => {
                if let Some(table) = &table {
                    pin(inner, id, &mut zone, table);
                }
                // What a pin stands over was remembered when it came into force.
                accepted.extend(read.filter(|_| !zone.live.pinned));
                zones.insert(id.clone(), zone);
            }
            Err(report) => problems.extend(report.problems),
        }
    }
    problems.extend(table.iter().flat_map(|table| check_sinks(&inner.config, table)));
    let (Some(table), true) = (table, problems.is_empty()) else { return Err(Report { problems }) };
    for read in &accepted {
        if let Some(zone) = zones.get(&read.zone) {
            remember(inner, read, &zone.live);
        }
    }
    let mut loaded = Loaded {
        zones,
        candidates: BTreeMap::new(),
        secrets: Arc::new(table),
        secrets_generation: 1,
        secrets_refused: None,
        generation: 1,
        retired: Vec::new(),
    };
    rehearse::look(inner, &mut loaded);
    put_into_force(inner, &mut loaded);
    Ok(loaded)
}

/// A zone at start: its files, which are to be remembered, or else what was activated last.
fn first(
    inner: &Inner,
    id: &str,
    table: Option<&SecretsTable>,
) -> Result<(LoadedZone, Option<Read>), Report> {
    let floor = journal(inner, id).and_then(|journal| journal.floor().cloned());
    let read = candidate::read(&inner.config, id);
    let source = read.as_ref().ok().map(|read| read.digest);
    let built = read.and_then(|read| {
        let live = candidate::build(&inner.config, &inner.registry, &read, None, table, 1, floor.as_ref())?;
        Ok((read, live))
    });
    match built {
        Ok((read, live)) => {
            let digest = live.zone.digest();
            inner.observer.observe(&ReloadEvent::ZoneAccepted {
                zone: id,
                generation: 1,
                digest,
                changes: &[],
            });
            Ok((LoadedZone::new(live, None, floor), Some(read)))
        }
        Err(report) => {
            let live = last(inner, id)
                .and_then(|read| {
                    candidate::build(&inner.config, &inner.registry, &read, None, table, 1, None).ok()
                })
                .ok_or_else(|| report.clone())?;
            inner.observer.observe(&ReloadEvent::ZoneRejected { zone: id, report: &report });
            inner.observer.observe(&ReloadEvent::ZoneStandsIn { zone: id, digest: live.zone.digest() });
            let refused = Some(Refused { source, secrets_generation: 1, report });
            Ok((LoadedZone::new(live, refused, floor), None))
        }
    }
}

/// The version that the files said last, if it is whole.
fn last(inner: &Inner, id: &str) -> Option<Read> {
    Versions::of(&inner.config.state_dir, id).load(journal(inner, id)?.files()?)
}

fn journal(inner: &Inner, id: &str) -> Option<Journal> {
    let journal = Versions::of(&inner.config.state_dir, id).journal();
    journal.map_err(|error| tracing::error!(zone = id, %error, "the journal of versions cannot be read")).ok()
}

/// The version that an operator pinned comes back, where the files say what they said then.
fn pin(inner: &Inner, id: &str, zone: &mut LoadedZone, table: &SecretsTable) {
    let Some(journal) = journal(inner, id) else { return };
    let Some(version) = journal.pinned() else { return };
    if journal.files() != Some(name_of(&zone.source).as_str()) {
        inner.observer.observe(&ReloadEvent::ZonePinEnded { zone: id, version });
        return;
    }
    let read = Versions::of(&inner.config.state_dir, id).load(version);
    let built = read.ok_or_else(|| "the version is not kept whole any more".to_owned()).and_then(|read| {
        candidate::pinned(&inner.config, &inner.registry, &read, &zone.base.zone, table, 1)
            .map_err(|report| report.to_string())
    });
    match built {
        Ok((_, live)) => {
            let (digest, changes) = (live.zone.digest(), &[]);
            inner.observer.observe(&ReloadEvent::ZonePinned { zone: id, version, digest, changes });
            zone.live = Arc::new(live);
        }
        Err(why) => inner.observer.observe(&ReloadEvent::ZonePinLost { zone: id, version, why: &why }),
    }
}

/// A later pass. Nothing is put into force before the last step.
pub(super) fn run(inner: &Inner, loaded: &mut Loaded) -> ReloadOutcome {
    let began = Instant::now();
    let candidate = loaded.secrets.load_again(&inner.config.secrets);
    let (mut secrets, newer) = match candidate {
        Ok(table) if table.same_text(&loaded.secrets) => (SecretsOutcome::Unchanged, None),
        Ok(table) => {
            let table = table.dated(&loaded.secrets, inner.clock.now());
            let changes = loaded.secrets.changes(&table);
            (SecretsOutcome::Accepted { changes, unserved: Vec::new() }, Some(Arc::new(table)))
        }
        Err(report) => (SecretsOutcome::Rejected(report), None),
    };
    let table = newer.clone().unwrap_or_else(|| Arc::clone(&loaded.secrets));
    let secrets_generation = loaded.secrets_generation.saturating_add(u64::from(newer.is_some()));
    let judged: Vec<(String, Judged)> = loaded
        .zones
        .iter()
        .map(|(id, zone)| (id.clone(), judge(inner, id, zone, &table, secrets_generation)))
        .collect();
    let settled: Vec<(String, Settled)> =
        judged.into_iter().filter_map(|(id, judged)| settle(loaded, id, judged)).collect();
    if let (SecretsOutcome::Accepted { unserved, .. }, true) = (&mut secrets, newer.is_some()) {
        *unserved = unserved_by(&table, loaded);
        unserved.extend(check_sinks(&inner.config, &table));
    }
    settle_secrets(inner, loaded, &secrets, secrets_generation);
    let swap = newer.is_some() || settled.iter().any(|(_, one)| matches!(one, Settled::Accepted { .. }));
    loaded.secrets = table;
    loaded.secrets_generation = secrets_generation;
    let swap = rehearse::look(inner, loaded) || swap;
    if swap {
        loaded.generation = loaded.generation.saturating_add(1);
        put_into_force(inner, loaded);
    } else {
        tell_standing(inner, loaded);
    }
    let in_force = began.elapsed();
    let told = settled.into_iter().filter_map(|(id, settled)| tell(inner, loaded, id, settled));
    let outcome = ReloadOutcome { zones: told.collect(), secrets, generation: loaded.generation };
    loaded.retired.retain(|before| Arc::strong_count(before) > 1);
    if swap {
        inner.observer.observe(&ReloadEvent::Took { in_force, whole: began.elapsed() });
    }
    outcome
}

fn judge(
    inner: &Inner,
    id: &str,
    zone: &LoadedZone,
    table: &SecretsTable,
    secrets_generation: u64,
) -> Judged {
    let refuse = |source, report| Judged::Rejected(Refused { source, secrets_generation, report });
    let read = match candidate::read(&inner.config, id) {
        Ok(read) => read,
        Err(report) => return refuse(None, report),
    };
    if read.digest == zone.source {
        return Judged::Unchanged;
    }
    if let Some(before) = &zone.refused
        && before.source == Some(read.digest)
        && before.secrets_generation == secrets_generation
    {
        return refuse(Some(read.digest), before.report.clone());
    }
    let generation = zone.live.bundle_generation.saturating_add(1);
    match candidate::build(
        &inner.config,
        &inner.registry,
        &read,
        Some(&zone.base),
        Some(table),
        generation,
        zone.floor.as_ref(),
    ) {
        Ok(live) => Judged::Accepted(Box::new((read, live))),
        Err(report) => refuse(Some(read.digest), report),
    }
}

/// What became of a zone's files, as it will be in force, and not told yet.
enum Settled {
    /// `heals` when files that were refused are back to what is in force.
    Unchanged {
        heals: bool,
    },
    Accepted {
        read: Read,
        before: Arc<LiveZone>,
    },
    /// `told` when the same was refused for the same reasons before.
    Rejected {
        report: Report,
        told: bool,
    },
}

/// Writes down what was judged.
fn settle(loaded: &mut Loaded, id: String, judged: Judged) -> Option<(String, Settled)> {
    let zone = loaded.zones.get_mut(&id)?;
    let settled = match judged {
        Judged::Unchanged => Settled::Unchanged { heals: zone.refused.take().is_some() },
        Judged::Accepted(accepted) => {
            let (read, live) = *accepted;
            let now = LoadedZone::new(live, None, zone.floor.take());
            let before = std::mem::replace(zone, now).live;
            Settled::Accepted { read, before }
        }
        Judged::Rejected(refused) => {
            let told = zone.refused.as_ref().is_some_and(|before| before.report == refused.report);
            let report = refused.report.clone();
            zone.refused = Some(refused);
            Settled::Rejected { report, told }
        }
    };
    Some((id, settled))
}

/// Tells what is in force now. It comes after the swap, because putting the difference of two large zones into
/// words and keeping a copy of the files takes as long as compiling them, and whatever narrows must not wait.
fn tell(inner: &Inner, loaded: &Loaded, id: String, settled: Settled) -> Option<ZoneOutcome> {
    let live = &loaded.zones.get(&id)?.live;
    let (generation, digest) = (live.bundle_generation, *live.zone.digest());
    let accepted = |changes: &[String]| {
        inner.observer.observe(&ReloadEvent::ZoneAccepted {
            zone: &id,
            generation,
            digest: &digest,
            changes,
        });
    };
    let result = match settled {
        Settled::Unchanged { heals } => {
            if heals && live.pinned {
                let (zone, version) = (&*id, &*name_of(&live.version));
                inner.observer.observe(&ReloadEvent::ZonePinned {
                    zone,
                    version,
                    digest: &digest,
                    changes: &[],
                });
            } else if heals {
                accepted(&[]);
            }
            ZoneResult::Unchanged
        }
        Settled::Accepted { read, before } => {
            remember(inner, &read, live);
            if before.pinned {
                let version = name_of(&before.version);
                inner.observer.observe(&ReloadEvent::ZonePinEnded { zone: &id, version: &version });
            }
            // An edited comment makes no difference.
            let same = before.zone.digest() == &digest;
            let changes = if same { Vec::new() } else { before.zone.changes(&live.zone) };
            accepted(&changes);
            ZoneResult::Accepted { digest, changes }
        }
        Settled::Rejected { report, told } => {
            if !told {
                inner.observer.observe(&ReloadEvent::ZoneRejected { zone: &id, report: &report });
            }
            ZoneResult::Rejected(report)
        }
    };
    Some(ZoneOutcome { zone: id, result })
}

fn settle_secrets(inner: &Inner, loaded: &mut Loaded, outcome: &SecretsOutcome, generation: u64) {
    match outcome {
        SecretsOutcome::Unchanged => {
            if loaded.secrets_refused.take().is_some() {
                let event = ReloadEvent::SecretsAccepted { generation, changes: &[], unserved: &[] };
                inner.observer.observe(&event);
            }
        }
        SecretsOutcome::Accepted { changes, unserved } => {
            loaded.secrets_refused = None;
            inner.observer.observe(&ReloadEvent::SecretsAccepted { generation, changes, unserved });
        }
        SecretsOutcome::Rejected(report) => {
            if loaded.secrets_refused.as_ref() != Some(report) {
                inner.observer.observe(&ReloadEvent::SecretsRejected { report });
            }
            loaded.secrets_refused = Some(report.clone());
        }
    }
}

/// References of the zones in force that `table` does not serve. A secrets file that takes something away is
/// accepted all the same: taking away is how an operator stops a leak.
fn unserved_by(table: &SecretsTable, loaded: &Loaded) -> Vec<Problem> {
    loaded.zones.values().flat_map(|zone| check_bundle(&zone.live.zone, table)).collect()
}

/// Keeps the accepted version for a start with a bad bundle. A full disk must not hold up a policy that narrows.
fn remember(inner: &Inner, read: &Read, live: &LiveZone) {
    let (digest, signed) = (live.zone.digest(), live.signed.as_ref());
    let entry = Entry { digest, at: inner.clock.now(), by: By::Files, signed };
    let versions = Versions::of(&inner.config.state_dir, &read.zone);
    if let Err(error) = versions.activate(read, entry, inner.config.bundles.keep_versions) {
        tracing::warn!(zone = read.zone, %error, "the activated bundle could not be kept for the next start");
    }
}

fn put_into_force(inner: &Inner, loaded: &mut Loaded) {
    rehearse::renew(loaded, inner.clock.now());
    let live = loaded.zones.values().map(|zone| &zone.live);
    let with_candidates = loaded.zones.iter().map(|(id, zone)| rehearse::beside(loaded, id, &zone.live));
    let snapshot = Arc::new(Snapshot {
        generation: loaded.generation,
        zones: with_candidates.map(|live| (Arc::clone(live.zone.id()), live)).collect(),
        routes: Routes::build(live.map(|live| &live.zone), &inner.config.zones),
        secrets: Arc::clone(&loaded.secrets),
        secrets_generation: loaded.secrets_generation,
    });
    loaded.retired.push(inner.snapshot.load());
    inner.snapshot.store(Arc::clone(&snapshot));
    tell_standing(inner, loaded);
    inner.observer.observe(&ReloadEvent::Swapped { snapshot: &snapshot });
}

fn tell_standing(inner: &Inner, loaded: &Loaded) {
    let refused = loaded.zones.iter().filter(|(_, zone)| zone.refused.is_some());
    let mut standing = inner.standing.write();
    standing.bundles_rejected = refused.map(|(id, _)| id.clone()).collect();
    let candidates = loaded.candidates.iter();
    let candidates = candidates.filter_map(|(id, one)| Some((id, one.found.as_ref().err()?)));
    standing.candidates_refused = candidates.map(|(id, report)| (id.clone(), report.to_string())).collect();
    standing.secrets_rejected = loaded.secrets_refused.is_some();
    standing.reloading = false;
}
