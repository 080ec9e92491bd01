//! Start and clean stop: the epoch, the marks taken over, and what the store and the ledger last agreed on.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::hmac;
use parking_lot::{Mutex, RwLock};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::sync::Notify;

use super::connections::Connections;
use super::desk::Desk;
use super::error::StateError;
use super::folder::{CleanStop, Folder, SavedEpoch};
use super::holds::Hold;
use super::jobs::{AgentService, Invocation};
use super::marks::Marks;
use super::records::{Keeping, Records};
use super::shards::Shards;
use super::shared::{Shared, random_hex};
use super::standing::Standing;
use super::store::postgres::{self, SharedStore};
use super::store::{self, Database, Loaded, Write, ZoneWrite, sqlite};
use super::writer::{self, Intent};
use super::zones::Zones;
use super::{State, StateLimits};
use crate::clock::Clock;

/// The longest a mandate lives (3,600 s) and the leeway of its check (60 s), in milliseconds.
const LONGEST_MANDATE_MS: i64 = 3_660_000;
/// How long the store remembers which epochs there were, for the operator; nothing decides by it.
const EPOCHS_KEPT_MS: i64 = 90 * 24 * 3_600 * 1_000;

impl State {
    /// Opens the folder for this process alone: takes its lock, brings the store up to date, commits a new
    /// epoch, takes over what a clean stop saved and makes sure that is never taken over again.
    ///
    /// # Errors
    /// [`StateError::Locked`] when another process has the folder, [`StateError::Folder`] when others may enter
    /// it, [`StateError::NewerStore`] for a store of a later version; else what SQLite or a file refused.
    pub async fn open(dir: &Path, clock: Clock, limits: StateLimits) -> Result<Self, StateError> {
        Self::open_with(dir, None, clock, limits).await
    }

    /// As [`State::open`], as a node of a fleet when there is a `shared` store: records, sessions, delegations and
    /// what operators stopped are there, and the folder keeps the rest.
    ///
    /// # Errors
    /// As [`State::open`], also for the shared store, which must answer now.
    pub async fn open_with(
        dir: &Path,
        shared: Option<SharedStore>,
        clock: Clock,
        limits: StateLimits,
    ) -> Result<Self, StateError> {
        let now = clock.now();
        let folder = Arc::new(Folder::open(dir)?);
        let saved = folder.clean_stop();
        let mut own = sqlite::open(&folder.store()?).await?;
        let nonce = store::meta(&mut own, store::CLEAN_STOP).await?;
        let epoch = random_hex()?;
        let begin = [
            Write::Epoch(epoch.clone(), now),
            Write::ForgetEpochs { before: now.saturating_sub(EPOCHS_KEPT_MS) },
            Write::ForgetMeta(store::CLEAN_STOP),
        ];
        store::commit(&mut own, &begin).await?;
        folder.forget_clean_stop()?;
        let saved = saved.filter(|saved| nonce.as_ref() == Some(&saved.nonce));
        let kept = store::own(&mut own).await?;
        let (receipt_key, loaded, joined) = match shared {
            None => (receipt_key(&mut own).await?, store::load(&mut own).await?, None),
            Some(server) => {
                let mut connection = server.open().await?;
                let key = shared_receipt_key(&mut connection).await?;
                let (seen, loaded) = postgres::everything(&mut connection).await?;
                (key, loaded, Some((server, connection, seen)))
            }
        };
        let local = writer::start(own, Arc::clone(&folder));
        let in_fleet = joined.is_some();
        let (queue, waiting) = match joined {
            None => (local.clone(), None),
            Some(joined) => {
                let (queue, waiting) = writer::shared::prepare();
                (queue, Some((waiting, joined)))
            }
        };
        let shared = Arc::new(Shared {
            clock,
            limits: limits.clone(),
            sessions: Shards::new(),
            delegations: Shards::new(),
            records: Records::new(),
            standing: Standing::default(),
            queue,
            connections: Connections::default(),
            hooks: RwLock::default(),
            answered: Notify::new(),
        });
        let zones = Arc::new(Zones::new(Arc::clone(&shared)));
        let state = Self {
            shared,
            zones,
            local,
            in_fleet,
            marks: Marks::new(limits.marks, limits.marks_per_application),
            epoch,
            earlier_epochs: RwLock::default(),
            receipt_key,
            heads: RwLock::default(),
            budgets: Mutex::new(kept.budgets),
            cursors: Mutex::new(kept.cursors),
            identities: Mutex::new(kept.identities),
            folder: Mutex::new(Some(folder)),
        };
        *state.heads.write() =
            kept.heads.into_iter().map(|(zone, seq, hash)| (zone, (seq, hash))).collect::<HashMap<_, _>>();
        state.take_over(saved, now);
        state.fill(loaded, now);
        if let Some((waiting, (server, connection, seen))) = waiting {
            waiting.start(server, connection, seen, Arc::downgrade(&state.zones));
        }
        Ok(state)
    }

    /// A clean stop: nothing is used up or written afterwards, and the next start accepts this epoch.
    ///
    /// # Errors
    /// [`StateError`] when something was not saved; the next start then refuses this epoch's mandates.
    pub async fn close(&self) -> Result<(), StateError> {
        let now = self.shared.clock.now();
        let marks = self.marks.stop(now);
        let mut epochs = self.earlier_epochs.read().clone();
        epochs.retain(|earlier| earlier.until > now);
        epochs.push(SavedEpoch { epoch: self.epoch.clone(), until: now.saturating_add(LONGEST_MANDATE_MS) });
        let records = self.shared.records.passing(now);
        if self.in_fleet {
            self.shared.queue.close(None).await?;
        }
        self.local.close(Some(CleanStop::new(random_hex()?, epochs, marks, records))).await?;
        self.folder.lock().take();
        Ok(())
    }

    /// Commits the ledger's heads (zone, sequence, hash), so that an old store is noticed at the next start.
    ///
    /// # Errors
    /// [`StateError`] when they could not be committed.
    pub async fn store_heads(&self, heads: &[(String, u64, String)]) -> Result<(), StateError> {
        let write = |(zone, seq, hash): &(String, u64, String)| {
            Write::Zone(ZoneWrite::Head(zone.clone(), *seq, hash.clone()))
        };
        let writes = heads.iter().map(write).collect();
        self.local.commit(writes, Intent::Note).done().await?;
        let mut known = self.heads.write();
        for (zone, seq, hash) in heads {
            known.insert(zone.clone(), (*seq, hash.clone()));
        }
        Ok(())
    }

    /// Commits what changed of budgets since the last time, and forgets what ended or is over.
    ///
    /// # Errors
    /// [`StateError`] when it could not be committed.
    pub async fn store_budgets(
        &self,
        changed: Vec<crate::budgets::Standing>,
        ended: Vec<crate::budgets::Standing>,
        now: i64,
    ) -> Result<(), StateError> {
        let mut writes: Vec<Write> = changed.into_iter().map(Write::Budget).collect();
        writes.extend(ended.into_iter().map(Write::ForgetBudget));
        writes.push(Write::ForgetBudgets { before: now });
        self.local.commit(writes, Intent::Note).done().await
    }

    /// What was stored of budgets when this process started; once.
    #[must_use]
    pub fn take_stored_budgets(&self) -> Vec<crate::budgets::Standing> {
        std::mem::take(&mut self.budgets.lock())
    }

    /// The heads as last committed, in the order of zones.
    #[must_use]
    pub fn stored_heads(&self) -> Vec<(String, u64, String)> {
        let heads = self.heads.read();
        let mut heads: Vec<_> =
            heads.iter().map(|(zone, (seq, hash))| (zone.clone(), *seq, hash.clone())).collect();
        heads.sort();
        heads
    }

    /// Marks first: an epoch whose marks cannot all be taken over is not accepted.
    fn take_over(&self, saved: Option<CleanStop>, now: i64) {
        let Some(saved) = saved else { return };
        if !self.marks.restore(&saved.marks) {
            tracing::warn!("the clean-stop file holds a mark that cannot be read: its mandates are refused");
            return;
        }
        for record in saved.records {
            self.shared.records.put(Arc::unwrap_or_clone(record), Keeping::Passing);
        }
        let mut epochs = saved.epochs;
        epochs.retain(|earlier| earlier.until > now);
        *self.earlier_epochs.write() = epochs;
    }

    fn fill(&self, loaded: Loaded, now: i64) {
        let standing = &self.shared.standing;
        for (zone, epoch) in loaded.graph_epochs {
            standing.load_graph_epoch(&zone, epoch);
        }
        for (zone, frozen) in loaded.frozen {
            if frozen {
                standing.freeze(&zone);
            }
        }
        for (zone, application, cut_at, blocked) in loaded.applications {
            standing.cut(&zone, &application, cut_at);
            if blocked {
                standing.block(&zone, &application, cut_at);
            }
        }
        for (kind, zone, value, buried) in loaded.tombstones {
            if buried {
                standing.bury(kind, &zone, &value);
            }
        }
        for record in loaded.records {
            self.shared.records.put(record, Keeping::Durable);
        }
        for session in loaded.sessions {
            self.with_desk(&Arc::clone(&session.zone), |desk| {
                if !session.status.ended() {
                    desk.counts().add(&session);
                }
                desk.place_session(Arc::new(session));
            });
        }
        for delegation in loaded.delegations {
            self.with_desk(&Arc::clone(&delegation.zone), |desk| desk.place_delegation(Arc::new(delegation)));
        }
        for (id, stored) in loaded.receipts {
            self.with_desk(&Arc::clone(&id.zone), |desk| desk.receipts.load(id, stored));
        }
        for connection in loaded.connections {
            self.shared.connections.put(Arc::new(connection));
        }
        self.fill_waiting(loaded.holds, loaded.services, loaded.invocations);
        for zone in self.all_zones() {
            let mut desk = zone.desk.lock();
            desk.loaded();
            desk.settle(now);
        }
    }

    /// What waits for somebody: approvals and jobs.
    fn fill_waiting(&self, holds: Vec<Hold>, services: Vec<AgentService>, invocations: Vec<Invocation>) {
        for hold in holds {
            self.with_desk(&Arc::clone(&hold.zone), |desk| desk.holds.put(Arc::new(hold)));
        }
        for service in services {
            self.with_desk(&Arc::clone(&service.zone), |desk| {
                desk.jobs.services.insert(Arc::clone(&service.id), Arc::new(service));
            });
        }
        for invocation in invocations {
            self.with_desk(&Arc::clone(&invocation.zone), |desk| desk.jobs.place(Arc::new(invocation)));
        }
    }

    fn with_desk(&self, zone: &str, act: impl FnOnce(&mut Desk)) {
        act(&mut self.zone(zone).desk.lock());
    }
}

async fn receipt_key<D: Database>(database: &mut D) -> Result<hmac::Key, StateError> {
    let text = match store::meta(database, store::RECEIPT_KEY).await? {
        Some(text) => text,
        None => {
            let text = [random_hex()?, random_hex()?].concat();
            let failed = |source| StateError::store("commit to the store", source);
            Write::Meta(store::RECEIPT_KEY, text.clone()).run(database).await.map_err(failed)?;
            text
        }
    };
    Ok(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()))
}

/// One key for all nodes, whichever starts first.
async fn shared_receipt_key(connection: &mut PgConnection) -> Result<hmac::Key, StateError> {
    let failed = |source| StateError::store("open the shared store", source);
    let mut transaction = connection.begin().await.map_err(failed)?;
    postgres::latest(&mut transaction, true).await.map_err(failed)?;
    let key = receipt_key(&mut *transaction).await?;
    transaction.commit().await.map_err(failed)?;
    Ok(key)
}
