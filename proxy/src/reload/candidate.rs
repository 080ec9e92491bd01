//! One zone's files to something that could be in force.

use std::sync::Arc;

use caracal_plugins::Registry;
use caracal_policies::{BundleSource, Digest, Report, Zone, compile, recompile};

use crate::bundles::signature::Floor;
use crate::bundles::{self, signature};
use crate::config::Config;
use crate::egress;
use crate::secrets::{SecretsTable, check_bundle};
use crate::snapshot::{LiveZone, misplaced};

/// A bundle that was read but not judged.
#[derive(Debug)]
pub(crate) struct Read {
    pub(super) zone: String,
    pub(crate) source: BundleSource,
    pub(super) digest: [u8; 32],
}

/// Reads a zone's bundle.
pub(super) fn read(config: &Config, zone: &str) -> Result<Read, Report> {
    let source = bundles::read(&config.bundles_dir, &config.base, zone)?;
    Ok(of(zone, source))
}

/// Reads the bundle that waits beside a zone's.
pub(super) fn read_next(config: &Config, zone: &str) -> Result<Read, Report> {
    let source = bundles::read(&config.bundles_dir, &config.base, &bundles::candidate_of(zone))?;
    Ok(of(zone, source))
}

/// A bundle whose text is there already.
pub(super) fn of(zone: &str, source: BundleSource) -> Read {
    Read { zone: zone.to_owned(), digest: bundles::digest(&source), source }
}

/// Checks the signature of a bundle, compiles it, checks its routes and secrets, and puts its plugin chains together.
/// Without a secrets table the references are left unchecked, without a floor the revision. What did not change since
/// `before` is taken from it; the answer is the same without.
pub(super) fn build(
    config: &Config,
    registry: &Registry,
    read: &Read,
    before: Option<&LiveZone>,
    secrets: Option<&SecretsTable>,
    generation: u64,
    floor: Option<&Floor>,
) -> Result<LiveZone, Report> {
    let signed = signature::check(&read.source, &read.zone, &config.bundles)?;
    if let (Some(signed), Some(floor)) = (&signed, floor) {
        signature::check_revision(&read.source, signed, floor)?;
    }
    let zone = compiled(config, read, before)?;
    let live = put_together(config, registry, read, zone, before, secrets, generation)?;
    Ok(LiveZone { signed, ..live })
}

/// As [`build`], for the applications and subject issuers of `base`, which is what the files say. Also the digest
/// of the version on its own.
pub(super) fn pinned(
    config: &Config,
    registry: &Registry,
    read: &Read,
    base: &Zone,
    secrets: &SecretsTable,
    generation: u64,
) -> Result<(Digest, LiveZone), Report> {
    let signed = signature::check(&read.source, &read.zone, &config.bundles)?;
    let own = compiled(config, read, None)?;
    let zone = own.for_identities_of(base);
    let live = put_together(config, registry, read, zone, None, Some(secrets), generation)?;
    Ok((*own.digest(), LiveZone { pinned: true, signed, ..live }))
}

fn compiled(config: &Config, read: &Read, before: Option<&LiveZone>) -> Result<Zone, Report> {
    let assigned = config.zones.get(&read.zone).cloned().unwrap_or_default();
    match before {
        Some(before) => recompile(&read.source, &read.zone, &assigned, &before.zone),
        None => compile(&read.source, &read.zone, &assigned),
    }
}

fn put_together(
    config: &Config,
    registry: &Registry,
    read: &Read,
    zone: Zone,
    before: Option<&LiveZone>,
    secrets: Option<&SecretsTable>,
    generation: u64,
) -> Result<LiveZone, Report> {
    let zone = Arc::new(zone);
    let mut problems = misplaced(&zone, &config.zones);
    problems.extend(egress::check_bundle(&zone, config));
    if let Some(table) = secrets {
        problems.extend(check_bundle(&zone, table));
    }
    match LiveZone::build(zone, registry, generation, read.digest, before) {
        Ok(live) if problems.is_empty() => Ok(live),
        Ok(_) => Err(Report { problems }),
        Err(more) => {
            problems.extend(more);
            Err(Report { problems })
        }
    }
}
