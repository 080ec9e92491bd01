//! Everything a request consults, as one immutable value with one generation number.

mod routes;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use caracal_plugins::{Chain, Registry};
use caracal_policies::{KeySlot, Problem, ProviderKind, Resource, Zone};

use crate::bundles::signature::Signed;
use crate::rehearsal::Rehearsal;
use crate::secrets::SecretsTable;

pub use routes::{RouteTarget, Routes, misplaced};

/// Zones, routes and secrets as of one moment. A request loads it once and keeps it to its end.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts swaps; greater is newer. It goes into the ledger record.
    pub generation: u64,
    /// The zones by id.
    pub zones: HashMap<Arc<str>, Arc<LiveZone>>,
    /// Which resource a host or prefix leads to.
    pub routes: Routes,
    /// The upstream credentials.
    pub secrets: Arc<SecretsTable>,
    /// Counts accepted versions of the secrets file.
    pub secrets_generation: u64,
}

/// A compiled zone with the plugin chains of its resources.
#[derive(Clone, Debug)]
pub struct LiveZone {
    /// The compiled bundle.
    pub zone: Arc<Zone>,
    /// Plugin chain by resource identifier; every resource has one.
    pub chains: HashMap<Arc<str>, Arc<Chain>>,
    /// Counts accepted versions of this zone's bundle.
    pub bundle_generation: u64,
    /// Digest of the files it was made from, which names the version.
    pub version: [u8; 32],
    /// Whether an operator put it into force instead of what the files say.
    pub pinned: bool,
    /// What its signature proves, where one was checked.
    pub signed: Option<Signed>,
    /// The candidate that waits beside it, if any. It decides nothing.
    pub rehearsal: Option<Arc<Rehearsal>>,
}

impl Snapshot {
    /// A snapshot without zones, from before anything was read.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            generation: 0,
            zones: HashMap::new(),
            routes: Routes::default(),
            secrets: Arc::new(SecretsTable::empty()),
            secrets_generation: 0,
        }
    }
}

impl LiveZone {
    /// Puts the chains of a zone together. The chain of a resource that is also in `before` is taken from there.
    ///
    /// # Errors
    /// Every plugin that is unknown, wrongly configured, or declares what no plugin may touch.
    pub fn build(
        zone: Arc<Zone>,
        registry: &Registry,
        bundle_generation: u64,
        version: [u8; 32],
        before: Option<&Self>,
    ) -> Result<Self, Vec<Problem>> {
        let mut chains = HashMap::with_capacity(zone.resources().len());
        let mut problems = Vec::new();
        for resource in zone.resources() {
            if let Some(chain) = before.and_then(|before| before.chain_of(resource)) {
                chains.insert(Arc::clone(&resource.identifier), Arc::clone(chain));
                continue;
            }
            let slots = key_headers(resource);
            let slots: Vec<&str> = slots.iter().map(String::as_str).collect();
            match Chain::build_reserving(registry, &resource.plugins, &slots) {
                Ok(chain) => {
                    chains.insert(Arc::clone(&resource.identifier), Arc::new(chain));
                }
                Err(found) => problems.extend(found.into_iter().map(|problem| Problem {
                    code: "plugin",
                    place: problem.place,
                    message: problem.message,
                    found: format!("in resource `{}`", resource.identifier),
                    expected: format!("plugins: {}", registry.names().collect::<Vec<_>>().join(", ")),
                    hint: problem.hint,
                })),
            }
        }
        if problems.is_empty() {
            Ok(Self {
                zone,
                chains,
                bundle_generation,
                version,
                pinned: false,
                signed: None,
                rehearsal: None,
            })
        } else {
            Err(problems)
        }
    }

    /// The chain of this very resource: not of one that only has its name.
    fn chain_of(&self, resource: &Arc<Resource>) -> Option<&Arc<Chain>> {
        let known = self.zone.resource(&resource.identifier)?;
        if Arc::ptr_eq(known, resource) { self.chains.get(&resource.identifier) } else { None }
    }
}

/// The headers in which a resource's provider carries keys; no plugin may touch them.
fn key_headers(resource: &Resource) -> Vec<String> {
    let Some(provider) = &resource.provider else { return Vec::new() };
    let mut names: Vec<String> = provider
        .key_slots
        .iter()
        .filter_map(|slot| match slot {
            KeySlot::Header(name) | KeySlot::Bearer(name) => Some(name.to_ascii_lowercase()),
            KeySlot::BasicPassword | KeySlot::BasicUser | KeySlot::Query(_) => None,
        })
        .collect();
    match &provider.kind {
        ProviderKind::ApiKeyHeader { name, .. } | ProviderKind::BearerToken { header: name, .. } => {
            names.push(name.to_ascii_lowercase());
        }
        ProviderKind::ServiceToken(token) => names.push(token.header.clone()),
        ProviderKind::None
        | ProviderKind::CaracalMandate
        | ProviderKind::ApiKeyQuery { .. }
        | ProviderKind::HttpBasic { .. } => {}
    }
    names
}

/// The one place where the current snapshot is kept. Clones share it.
#[derive(Clone, Debug)]
pub struct SnapshotHandle(Arc<ArcSwap<Snapshot>>);

impl SnapshotHandle {
    /// A handle that starts with `snapshot`.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(snapshot)))
    }

    /// The current snapshot.
    ///
    /// Cost: one atomic load and a reference count.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// Replaces the snapshot; requests that hold the one before keep it.
    pub fn store(&self, snapshot: Arc<Snapshot>) {
        self.0.store(snapshot);
    }
}
