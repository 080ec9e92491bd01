//! The zones' signing keys: on disk sealed, in memory ready, rotated without a verifier noticing.
//!
//! One file per zone, `<zone>.json`, mode 0600, replaced as a whole. A key's life: *next* (published, not signing,
//! for [`PUBLISH_BEFORE_SIGN_MS`]), *signing*, *previous* (published so that its mandates live on, for
//! [`KEEP_PREVIOUS_MS`]), gone; or *revoked* at any point: out of the published set at once.
//!
//! Reading ([`Keyring::zone`]) takes no lock. Everything that changes a zone writes to the disk and blocks, so
//! async callers move it to a blocking thread.

mod record;
mod ring;
mod store;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use caracal_mandates::{KeyError, SigningKey, ZoneKeys, new_jti};
use parking_lot::Mutex;
use serde::Serialize;

use crate::sealing::SealingKey;
use ring::Ring;
use store::Folder;

/// How long a key is published before it signs, in milliseconds. Source: verifiers keep a key set for 300 s and
/// do not ask again for an unknown key.
pub const PUBLISH_BEFORE_SIGN_MS: i64 = 300_000;

/// How long a key stays published after it stopped signing, in milliseconds: longer than any mandate lives.
pub const KEEP_PREVIOUS_MS: i64 = 24 * 60 * 60 * 1_000;

/// The keys of every zone of this process.
#[derive(Debug)]
pub struct Keyring {
    folder: Folder,
    zones: ArcSwap<HashMap<Arc<str>, Arc<Slot>>>,
    /// Held while a zone is added, so that two callers do not make two keys for it.
    adding: Mutex<()>,
}

/// A zone's keys as of one change; requests hold it from beginning to end.
#[derive(Debug)]
pub struct ZoneState {
    /// Higher after every change of this zone's keys; a verification cached under a lower one is void.
    pub generation: u64,
    /// The keys.
    pub keys: ZoneKeys,
}

/// What a rotation will do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rotation {
    /// The key that takes over.
    pub kid: Arc<str>,
    /// When it begins to sign, unix milliseconds.
    pub signs_at: i64,
    /// Whether this call began the rotation, or one was under way.
    pub begun: Begun,
}

/// Who began a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Begun {
    /// This call.
    Now,
    /// An earlier one; this call changed nothing.
    Earlier,
}

/// One key, for an operator's eyes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    /// Its zone.
    pub zone: Arc<str>,
    /// Its name, as in the header of its mandates.
    pub kid: Arc<str>,
    /// When it was made, unix milliseconds.
    pub created_at: i64,
    /// Where in its life it is.
    #[serde(flatten)]
    pub state: KeyState,
}

/// Where in its life a key is; times in unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum KeyState {
    /// Published, not signing yet.
    Next {
        /// When it begins.
        signs_at: i64,
    },
    /// The one that signs.
    Signing,
    /// Published for the mandates it signed.
    Previous {
        /// When it is taken out.
        until: i64,
    },
    /// Not accepted any more.
    Revoked {
        /// Since when.
        at: i64,
    },
}

/// Why a keyring operation failed. No message holds key material.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// The disk said no.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// Others can read or change a key file or its folder.
    #[error("`{path}` {problem}")]
    Exposed {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The keys were sealed with another sealing key than the one given.
    #[error(
        "the keys in `{path}` were sealed with another sealing key: give the process the one it had before"
    )]
    OtherSealingKey {
        /// The file.
        path: PathBuf,
    },
    /// The file is not what this process writes.
    #[error("key file `{path}` is damaged: {problem}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        problem: &'static str,
    },
    /// A zone id that cannot name a file.
    #[error("zone id cannot name a key file: letters, digits, `.`, `_` and `-`, the first a letter or digit")]
    ZoneName,
    /// The process has no such zone.
    #[error("unknown zone")]
    UnknownZone,
    /// The zone has no such key.
    #[error("unknown key")]
    UnknownKey,
    /// No key could be made.
    #[error("cannot make a key")]
    Key(#[from] KeyError),
    /// A key could not be sealed.
    #[error("cannot seal a key")]
    Seal,
}

/// One zone: where its file is, what it holds, and what readers see of it.
struct Slot {
    zone: Arc<str>,
    path: PathBuf,
    ring: Mutex<Ring>,
    state: ArcSwap<ZoneState>,
}

impl Keyring {
    /// Opens the keys of these zones, and makes those that are missing. Zones that are not named keep their
    /// files and are not loaded. What fell due while the process was away happens now.
    ///
    /// # Errors
    /// [`KeyringError`]; [`KeyringError::OtherSealingKey`] when the sealing key is not the one of before.
    pub fn open(dir: &Path, sealing: &SealingKey, zones: &[String], now: i64) -> Result<Self, KeyringError> {
        let folder = Folder::open(dir, sealing.clone())?;
        let keyring = Self { folder, zones: ArcSwap::from_pointee(HashMap::new()), adding: Mutex::new(()) };
        for zone in zones {
            keyring.ensure(zone, now)?;
        }
        keyring.tick(now)?;
        Ok(keyring)
    }

    /// A zone's keys as they are now. Cost: two atomic loads and a hash lookup.
    #[must_use]
    pub fn zone(&self, zone: &str) -> Option<Arc<ZoneState>> {
        self.zones.load().get(zone).map(|slot| slot.state.load_full())
    }

    /// Loads a zone that was added while the process runs, making its key when it has none.
    ///
    /// # Errors
    /// [`KeyringError`]; the other zones are not touched.
    pub fn ensure(&self, zone: &str, now: i64) -> Result<(), KeyringError> {
        let _adding = self.adding.lock();
        if self.zones.load().contains_key(zone) {
            return Ok(());
        }
        let path = self.folder.path(zone)?;
        let ring = match self.folder.load(&path, zone)? {
            Some(ring) => ring,
            None => {
                let ring = Ring::new(new_key(now)?, now);
                self.folder.save(&path, zone, &ring)?;
                ring
            }
        };
        let slot = Arc::new(Slot::new(zone, path, ring)?);
        let mut zones = HashMap::clone(&self.zones.load());
        zones.insert(Arc::clone(&slot.zone), slot);
        self.zones.store(Arc::new(zones));
        Ok(())
    }

    /// Publishes a new key that signs after [`PUBLISH_BEFORE_SIGN_MS`]; a rotation under way is left as it is.
    ///
    /// # Errors
    /// [`KeyringError::UnknownZone`], or nothing changed because the disk failed.
    pub fn rotate(&self, zone: &str, now: i64) -> Result<Rotation, KeyringError> {
        let slot = self.slot(zone)?;
        let mut ring = slot.ring.lock();
        if let Some(next) = ring.next() {
            return Ok(Rotation { kid: next.kid, signs_at: next.signs_at, begun: Begun::Earlier });
        }
        let mut changed = ring.clone();
        let next = changed.publish(new_key(now)?, now);
        self.folder.save(&slot.path, zone, &changed)?;
        slot.show(&changed)?;
        *ring = changed;
        Ok(Rotation { kid: next.kid, signs_at: next.signs_at, begun: Begun::Now })
    }

    /// Does what is due: a published key begins to sign, keys that stopped long ago go.
    ///
    /// # Errors
    /// The first failure; the other zones are done, and the failed one stays as it was until the next call.
    pub fn tick(&self, now: i64) -> Result<(), KeyringError> {
        self.each(|slot| {
            let mut ring = slot.ring.lock();
            let mut changed = ring.clone();
            if !changed.settle(now) {
                return Ok(());
            }
            self.folder.save(&slot.path, &slot.zone, &changed)?;
            slot.show(&changed)?;
            *ring = changed;
            Ok(())
        })
    }

    /// Takes a key out of the published set: its mandates are refused from the next request. When it was the one
    /// that signs, the next one signs at once, or a new one; verifiers with a cached set then refuse its mandates,
    /// and still accept those of the revoked key, for up to 300 s. Revoking a revoked key changes nothing.
    ///
    /// # Errors
    /// [`KeyringError::UnknownZone`], [`KeyringError::UnknownKey`]. On [`KeyringError::Io`] the key is refused by
    /// this process all the same, and would be accepted again after a restart: repeat the call.
    pub fn revoke(&self, zone: &str, kid: &str, now: i64) -> Result<(), KeyringError> {
        let slot = self.slot(zone)?;
        let mut ring = slot.ring.lock();
        let mut changed = ring.clone();
        if !changed.revoke(kid, now, || new_key(now))? {
            // The file may be behind after a failed call; writing it again is what repeating is for.
            return self.folder.save(&slot.path, zone, &ring);
        }
        slot.show(&changed)?;
        *ring = changed;
        self.folder.save(&slot.path, zone, &ring)
    }

    /// Revokes every key of every zone and signs with new ones at once: after a store was restored, nothing
    /// signed before may count.
    ///
    /// # Errors
    /// The first failure; every zone was tried, and as for [`Keyring::revoke`] memory is ahead of a failed disk.
    pub fn retire_all(&self, now: i64) -> Result<(), KeyringError> {
        self.each(|slot| {
            let mut ring = slot.ring.lock();
            let mut changed = ring.clone();
            changed.replace(new_key(now)?, now);
            slot.show(&changed)?;
            *ring = changed;
            self.folder.save(&slot.path, &slot.zone, &ring)
        })
    }

    /// Every key of every zone: by zone, within one the next, the signing, the previous and the revoked ones.
    #[must_use]
    pub fn list(&self) -> Vec<KeyInfo> {
        let zones = self.zones.load();
        let sorted: BTreeMap<_, _> = zones.iter().collect();
        sorted.into_iter().flat_map(|(zone, slot)| slot.ring.lock().list(zone)).collect()
    }

    fn slot(&self, zone: &str) -> Result<Arc<Slot>, KeyringError> {
        self.zones.load().get(zone).cloned().ok_or(KeyringError::UnknownZone)
    }

    /// Every zone is visited; the first failure is what counts.
    fn each(&self, act: impl Fn(&Slot) -> Result<(), KeyringError>) -> Result<(), KeyringError> {
        let mut outcome = Ok(());
        for slot in self.zones.load().values() {
            let done = act(slot);
            outcome = outcome.and(done);
        }
        outcome
    }
}

impl Slot {
    fn new(zone: &str, path: PathBuf, ring: Ring) -> Result<Self, KeyringError> {
        let state = ZoneState { generation: 1, keys: ring.zone_keys()? };
        Ok(Self { zone: zone.into(), path, ring: Mutex::new(ring), state: ArcSwap::from_pointee(state) })
    }

    /// Lets readers see a changed ring; called with the ring's lock held, so generations only rise.
    fn show(&self, ring: &Ring) -> Result<(), KeyringError> {
        let generation = self.state.load().generation.saturating_add(1);
        self.state.store(Arc::new(ZoneState { generation, keys: ring.zone_keys()? }));
        Ok(())
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("zone", &self.zone).field("state", &self.state).finish_non_exhaustive()
    }
}

/// A new key, named like a token identifier so that names sort by age.
fn new_key(now: i64) -> Result<Arc<SigningKey>, KeyringError> {
    Ok(Arc::new(SigningKey::generate(&new_jti(now))?))
}

#[cfg(test)]
mod tests;
