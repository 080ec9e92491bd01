//! What operators stop and let go on: whole zones, applications, and what must never come back.

use std::sync::Arc;

use super::again::Again;
use super::endings::Ended;
use super::error::StateError;
use super::model::{Anchor, Session, SessionStatus};
use super::shared::{Narrowing, Shared};
use super::standing::TombstoneKind;
use super::store::{Write, ZoneWrite};
use super::writer::{Commit, Intent};
use super::{State, Zone};

impl State {
    /// Lets new mandates be minted for a revoked application. What was killed stays dead.
    ///
    /// # Errors
    /// [`StateError`] when the commit fails; then it stays revoked.
    pub async fn restore_application(&self, zone: &str, application: &str) -> Result<(), StateError> {
        let zone = self.zone(zone);
        let application: Arc<str> = application.into();
        self.widen(&zone, |zone| {
            let seen = self.shared.standing.application(zone, &application).unwrap_or_default();
            let write = ZoneWrite::Unblock { zone: Arc::clone(zone), application: Arc::clone(&application) };
            let (zone, application) = (Arc::clone(zone), Arc::clone(&application));
            (write, move |shared: &Shared| shared.standing.unblock(&zone, &application, seen))
        })
        .await
    }

    /// Stops a zone: nothing is minted or used in it until [`State::unfreeze`].
    ///
    /// # Errors
    /// [`StateError`] when the commit fails; the zone is stopped all the same.
    pub async fn freeze(&self, zone: &str) -> Result<(), StateError> {
        let zone = self.zone(zone);
        let commit = {
            let _desk = zone.desk.lock();
            self.shared.standing.freeze(&zone.name);
            let write = ZoneWrite::Freeze(Arc::clone(&zone.name), self.shared.clock.now());
            let mut narrowing = Narrowing {
                anchors: vec![Anchor::Zone],
                writes: vec![Write::Zone(write)],
                ..Narrowing::default()
            };
            self.shared.narrow(&zone.name, "zone_frozen", &mut narrowing)
        };
        commit.done().await
    }

    /// Lets a stopped zone go on.
    ///
    /// # Errors
    /// [`StateError`] when the commit fails; then it stays stopped.
    pub async fn unfreeze(&self, zone: &str) -> Result<(), StateError> {
        let zone = self.zone(zone);
        self.widen(&zone, |zone| {
            let seen = self.shared.standing.freezes(zone);
            let zone = Arc::clone(zone);
            let write = ZoneWrite::Unfreeze(Arc::clone(&zone));
            (write, move |shared: &Shared| shared.standing.unfreeze(&zone, seen))
        })
        .await
    }

    /// Buries something for good: no file, reload or rollback brings it back.
    ///
    /// # Errors
    /// [`StateError`] when the commit fails; it is buried all the same.
    pub async fn bury(&self, kind: TombstoneKind, zone: &str, value: &str) -> Result<(), StateError> {
        let zone = self.zone(zone);
        let commit = {
            let _desk = zone.desk.lock();
            self.shared.standing.bury(kind, &zone.name, value);
            let at = self.shared.clock.now();
            let write = ZoneWrite::Tombstone(kind, Arc::clone(&zone.name), value.into(), at);
            self.shared.queue.commit(vec![Write::Zone(write)], Intent::Narrow)
        };
        commit.done().await
    }

    /// Takes something out of its grave, by an operator's explicit word.
    ///
    /// # Errors
    /// [`StateError`] when the commit fails; then it stays buried.
    pub async fn readmit(&self, kind: TombstoneKind, zone: &str, value: &str) -> Result<(), StateError> {
        let zone = self.zone(zone);
        let value: Arc<str> = value.into();
        self.widen(&zone, |zone| {
            let seen = self.shared.standing.burials(kind, zone, &value);
            let zone = Arc::clone(zone);
            let write = ZoneWrite::ForgetTombstone(kind, Arc::clone(&zone), Arc::clone(&value));
            let value = Arc::clone(&value);
            (write, move |shared: &Shared| shared.standing.unbury(kind, &zone, &value, seen))
        })
        .await
    }

    /// Whether something is buried.
    #[must_use]
    pub fn buried(&self, kind: TombstoneKind, zone: &str, value: &str) -> bool {
        self.shared.standing.burials(kind, zone, value).is_some()
    }

    /// Ends every session, delegation and connection and revokes every record, in every zone: what follows a restored
    /// store.
    ///
    /// # Errors
    /// [`StateError`] when a commit fails; all of it is dead all the same.
    pub async fn end_everything(&self, reason: &str) -> Result<Ended, StateError> {
        let mut all = Ended::default();
        self.end_connections().await?;
        for zone in self.all_zones() {
            let records = self.shared.records.ids(&zone.name, |_| true);
            let (part, commit) =
                self.end_where(&zone, reason, |_| true, || self.revoked(&zone.name, &records));
            commit.done().await?;
            all.sessions.extend(part.sessions);
            all.delegations.extend(part.delegations);
            all.records.extend(records);
        }
        Ok(all)
    }

    fn end_where(
        &self,
        zone: &Zone,
        reason: &str,
        wanted: impl Fn(&Session) -> bool,
        beside: impl FnOnce() -> Narrowing,
    ) -> (Ended, Commit) {
        let mut desk = zone.desk.lock();
        let mut narrowing = beside();
        let roots = desk.standing_where(wanted);
        narrowing.absorb(desk.end(&roots, SessionStatus::Terminated, reason, self.shared.clock.now()));
        let commit = self.shared.narrow(&zone.name, reason, &mut narrowing);
        (Ended::from(narrowing), commit)
    }

    /// Commits one write and runs what goes with it afterwards. Both are made under the zone's lock, so that a
    /// narrowing that comes later is also committed later.
    async fn widen<F: FnOnce(&Shared) + Send + 'static>(
        &self,
        zone: &Zone,
        prepare: impl Fn(&Arc<str>) -> (ZoneWrite, F),
    ) -> Result<(), StateError> {
        let mut again = Again::default();
        loop {
            let (tell, told) = tokio::sync::oneshot::channel();
            {
                let _desk = zone.desk.lock();
                let (write, publish) = prepare(&zone.name);
                let shared = Arc::clone(&self.shared);
                let done = move |outcome: Result<(), StateError>| {
                    if outcome.is_ok() {
                        publish(&shared);
                    }
                    drop(tell.send(outcome));
                };
                self.shared.queue.send(vec![Write::Zone(write)], Intent::Widen, Box::new(done));
            }
            let outcome = told.await.unwrap_or(Err(StateError::Closed));
            if !again.should_store(&outcome) {
                return outcome;
            }
        }
    }
}
