//! Zone-wide switches: freezes, cut and blocked applications, tombstones and the graph epoch.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

/// What no reload, rollback or file may bring back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TombstoneKind {
    /// Hash of an application secret that was retired.
    SecretHash,
    /// Id that was revoked.
    RevokedId,
}

impl TombstoneKind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::SecretHash => "secret_hash",
            Self::RevokedId => "revoked_id",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Self::SecretHash, Self::RevokedId].into_iter().find(|known| known.as_str() == word)
    }
}

/// An application an operator acted on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ApplicationStanding {
    /// Everything issued at or before this unix millisecond is dead.
    pub(super) cut_at: i64,
    pub(super) blocked: bool,
    /// Counts blocks, so that a restore undoes only the block it saw.
    blocks: u64,
}

/// Kind, zone and value of what is buried.
type Grave = (TombstoneKind, Arc<str>, Arc<str>);

#[derive(Debug, Default)]
pub(super) struct Standing {
    zones: RwLock<HashMap<Arc<str>, ZoneStanding>>,
    /// With the number of the burial, so that a readmission undoes only the one it saw.
    tombstones: RwLock<HashMap<Grave, u64>>,
}

#[derive(Debug, Default)]
struct ZoneStanding {
    frozen: bool,
    freezes: u64,
    graph_epoch: u64,
    applications: HashMap<Arc<str>, ApplicationStanding>,
}

impl Standing {
    pub(super) fn graph_epoch(&self, zone: &str) -> u64 {
        self.zones.read().get(zone).map_or(0, |zone| zone.graph_epoch)
    }

    pub(super) fn raise_graph_epoch(&self, zone: &Arc<str>) -> u64 {
        self.change(zone, |zone| {
            zone.graph_epoch = zone.graph_epoch.saturating_add(1);
            zone.graph_epoch
        })
    }

    /// Raises the epoch to `epoch`; whether it was lower.
    pub(super) fn lift_graph_epoch(&self, zone: &Arc<str>, epoch: u64) -> bool {
        self.change(zone, |zone| {
            let lower = zone.graph_epoch < epoch;
            zone.graph_epoch = zone.graph_epoch.max(epoch);
            lower
        })
    }

    pub(super) fn load_graph_epoch(&self, zone: &Arc<str>, epoch: u64) {
        self.change(zone, |zone| zone.graph_epoch = epoch);
    }

    pub(super) fn frozen(&self, zone: &str) -> bool {
        self.zones.read().get(zone).is_some_and(|zone| zone.frozen)
    }

    pub(super) fn frozen_zones(&self) -> Vec<Arc<str>> {
        let zones = self.zones.read();
        zones.iter().filter(|(_, zone)| zone.frozen).map(|(name, _)| Arc::clone(name)).collect()
    }

    pub(super) fn freeze(&self, zone: &Arc<str>) {
        self.change(zone, |zone| {
            zone.frozen = true;
            zone.freezes = zone.freezes.saturating_add(1);
        });
    }

    /// The number of the latest freeze, to be shown to [`Standing::unfreeze`].
    pub(super) fn freezes(&self, zone: &str) -> u64 {
        self.zones.read().get(zone).map_or(0, |zone| zone.freezes)
    }

    /// Ends the freeze, unless the zone was frozen again since `seen`.
    pub(super) fn unfreeze(&self, zone: &Arc<str>, seen: u64) {
        self.change(zone, |zone| {
            if zone.freezes == seen {
                zone.frozen = false;
            }
        });
    }

    pub(super) fn application(&self, zone: &str, application: &str) -> Option<ApplicationStanding> {
        self.zones.read().get(zone)?.applications.get(application).copied()
    }

    /// Zone, application, cut and block of every application an operator acted on.
    pub(super) fn applications(&self) -> Vec<(Arc<str>, Arc<str>, i64, bool)> {
        let zones = self.zones.read();
        let all = zones.iter().flat_map(|(name, zone)| {
            zone.applications.iter().map(|(application, standing)| {
                (Arc::clone(name), Arc::clone(application), standing.cut_at, standing.blocked)
            })
        });
        all.collect()
    }

    /// Kills what was issued at or before `at`; cuts never move back.
    pub(super) fn cut(&self, zone: &Arc<str>, application: &Arc<str>, at: i64) -> ApplicationStanding {
        self.change_application(zone, application, |standing| standing.cut_at = standing.cut_at.max(at))
    }

    pub(super) fn block(&self, zone: &Arc<str>, application: &Arc<str>, at: i64) -> ApplicationStanding {
        self.change_application(zone, application, |standing| {
            standing.cut_at = standing.cut_at.max(at);
            standing.blocked = true;
            standing.blocks = standing.blocks.saturating_add(1);
        })
    }

    /// Lifts the block seen in `seen`; the cut stays.
    pub(super) fn unblock(&self, zone: &Arc<str>, application: &Arc<str>, seen: ApplicationStanding) {
        self.change_application(zone, application, |standing| {
            if standing.blocks == seen.blocks {
                standing.blocked = false;
            }
        });
    }

    pub(super) fn bury(&self, kind: TombstoneKind, zone: &str, value: &str) {
        let mut tombstones = self.tombstones.write();
        let burials = tombstones.entry((kind, zone.into(), value.into())).or_default();
        *burials = burials.saturating_add(1);
    }

    pub(super) fn burials(&self, kind: TombstoneKind, zone: &str, value: &str) -> Option<u64> {
        self.tombstones.read().get(&(kind, zone.into(), value.into())).copied()
    }

    pub(super) fn graves(&self, kind: TombstoneKind, zone: &str) -> Vec<Arc<str>> {
        let tombstones = self.tombstones.read();
        let meant = tombstones.keys().filter(|(other, of, _)| *other == kind && **of == *zone);
        let mut values: Vec<Arc<str>> = meant.map(|(_, _, value)| Arc::clone(value)).collect();
        values.sort_unstable();
        values
    }

    pub(super) fn unbury(&self, kind: TombstoneKind, zone: &str, value: &str, seen: Option<u64>) {
        let mut tombstones = self.tombstones.write();
        let place = (kind, zone.into(), value.into());
        if tombstones.get(&place).copied() == seen {
            tombstones.remove(&place);
        }
    }

    fn change<T>(&self, zone: &Arc<str>, act: impl FnOnce(&mut ZoneStanding) -> T) -> T {
        act(self.zones.write().entry(Arc::clone(zone)).or_default())
    }

    fn change_application(
        &self,
        zone: &Arc<str>,
        application: &Arc<str>,
        act: impl FnOnce(&mut ApplicationStanding),
    ) -> ApplicationStanding {
        self.change(zone, |zone| {
            let standing = zone.applications.entry(Arc::clone(application)).or_default();
            act(standing);
            *standing
        })
    }
}
