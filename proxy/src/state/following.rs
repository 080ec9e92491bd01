//! What other nodes of a fleet took away, and what this node has to tell them again after a silence.

use std::sync::Arc;

use super::model::{Anchor, DelegationStatus, Narrowed, Origin, SessionStatus};
use super::shared::Narrowing;
use super::store::{Write, ZoneWrite};
use super::{State, Zone};

/// The reason of everything that ends here because it ended on another node.
const ELSEWHERE: &str = "ended_elsewhere";

/// Something another node said. All of it narrows; what widens is never taken from anybody's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A record, session or delegation is dead.
    Ended(Anchor),
    /// A session is suspended.
    Suspended(Arc<str>),
    /// The zone's delegation epoch is at least this.
    GraphEpoch(u64),
    /// The zone is stopped.
    Frozen,
    /// Everything issued to an application up to a unix millisecond is dead.
    Application {
        /// The application.
        application: Arc<str>,
        /// The unix millisecond, itself included.
        cut_at: i64,
        /// Whether nothing new may be minted for it either.
        blocked: bool,
    },
}

impl State {
    /// Applies what another node said: in force when this returns, committed soon after. What is unknown here
    /// still ends the requests that stand on it.
    pub fn follow(&self, zone: &str, heard: &Heard) {
        let zone = self.zone(zone);
        let mut narrowing = self.followed(&zone, heard);
        narrowing.origin = Origin::Elsewhere;
        if !narrowing.is_empty() {
            // Nobody waits for the commit: it would be heard again after a restart.
            drop(self.shared.narrow(&zone.name, ELSEWHERE, &mut narrowing));
        }
    }

    /// Everything that ended here at or after `since` (unix milliseconds), one narrowing for each zone. Revoked
    /// records have no time of their own and are all in it.
    #[must_use]
    pub fn ended_since(&self, since: i64) -> Vec<Narrowed> {
        let zones = self.all_zones().into_iter().map(|zone| {
            let desk = zone.desk.lock();
            let delegations = desk.delegations.values().filter(|edge| {
                edge.status == DelegationStatus::Revoked && edge.revoked_at.is_some_and(|at| at >= since)
            });
            let mut anchors: Vec<Anchor> =
                delegations.map(|edge| Anchor::Delegation(Arc::clone(&edge.id))).collect();
            let sessions = desk.sessions.values().filter(|session| {
                session.status.ended() && session.terminated_at.is_some_and(|at| at >= since)
            });
            anchors.extend(sessions.map(|session| Anchor::Session(Arc::clone(&session.id))));
            let records = self.shared.records.ids(&zone.name, |record| record.revoked);
            anchors.extend(records.into_iter().map(Anchor::Record));
            let epoch = self.shared.standing.graph_epoch(&zone.name);
            Narrowed {
                zone: Arc::clone(&zone.name),
                anchors,
                graph_epoch: (epoch > 0).then_some(epoch),
                reason: "ended_before".into(),
                origin: Origin::Here,
            }
        });
        zones.filter(|narrowed| !narrowed.anchors.is_empty()).collect()
    }

    /// Every application an operator acted on: zone, application, cut and whether it is blocked.
    #[must_use]
    pub fn stopped_applications(&self) -> Vec<(Arc<str>, Arc<str>, i64, bool)> {
        self.shared.standing.applications()
    }

    fn followed(&self, zone: &Zone, heard: &Heard) -> Narrowing {
        let now = self.shared.clock.now();
        match heard {
            Heard::Ended(Anchor::Session(id)) => {
                let mut desk = zone.desk.lock();
                let known: Vec<_> =
                    desk.sessions.get(id).map(|session| Arc::clone(&session.id)).into_iter().collect();
                let mut narrowing = desk.end(&known, SessionStatus::Terminated, ELSEWHERE, now);
                narrowing.anchors.push(Anchor::Session(Arc::clone(id)));
                narrowing
            }
            Heard::Ended(Anchor::Delegation(id)) => {
                // The epoch rose where the delegation was taken back; its rise is a message of its own.
                let epoch = self.shared.standing.graph_epoch(&zone.name);
                let mut narrowing = Narrowing { graph_epoch: Some(epoch), ..Narrowing::default() };
                zone.desk.lock().revoke([Arc::clone(id)], now, &mut narrowing);
                narrowing.anchors.push(Anchor::Delegation(Arc::clone(id)));
                narrowing
            }
            Heard::Ended(Anchor::Record(id)) => self.record_ended(zone, id, now),
            Heard::Ended(Anchor::Application(_) | Anchor::Zone) => Narrowing::default(),
            Heard::Suspended(id) => {
                let mut desk = zone.desk.lock();
                let active =
                    desk.sessions.get(id).is_some_and(|session| session.status == SessionStatus::Active);
                if active { desk.suspend(id) } else { Narrowing::default() }
            }
            Heard::GraphEpoch(epoch) => self.epoch_raised(zone, *epoch),
            Heard::Frozen => self.frozen_elsewhere(zone, now),
            Heard::Application { application, cut_at, blocked } => {
                self.application_stopped(zone, application, *cut_at, *blocked, now)
            }
        }
    }

    fn record_ended(&self, zone: &Zone, id: &Arc<str>, now: i64) -> Narrowing {
        let mut desk = zone.desk.lock();
        let mut narrowing = self.revoked(&zone.name, &[Arc::clone(id)]);
        let roots = desk.standing_where(|session| session.subject_record == *id);
        narrowing.absorb(desk.end(&roots, SessionStatus::Terminated, ELSEWHERE, now));
        narrowing
    }

    fn epoch_raised(&self, zone: &Zone, epoch: u64) -> Narrowing {
        let _desk = zone.desk.lock();
        if !self.shared.standing.lift_graph_epoch(&zone.name, epoch) {
            return Narrowing::default();
        }
        let write = Write::Zone(ZoneWrite::GraphEpoch(Arc::clone(&zone.name), epoch));
        Narrowing { writes: vec![write], ..Narrowing::default() }
    }

    fn frozen_elsewhere(&self, zone: &Zone, now: i64) -> Narrowing {
        let _desk = zone.desk.lock();
        if self.shared.standing.frozen(&zone.name) {
            return Narrowing::default();
        }
        self.shared.standing.freeze(&zone.name);
        Narrowing {
            anchors: vec![Anchor::Zone],
            writes: vec![Write::Zone(ZoneWrite::Freeze(Arc::clone(&zone.name), now))],
            ..Narrowing::default()
        }
    }

    fn application_stopped(
        &self,
        zone: &Zone,
        application: &Arc<str>,
        cut_at: i64,
        blocked: bool,
        now: i64,
    ) -> Narrowing {
        let mut desk = zone.desk.lock();
        let standing = &self.shared.standing;
        let seen = standing.application(&zone.name, application).unwrap_or_default();
        if seen.cut_at >= cut_at && (seen.blocked || !blocked) {
            return Narrowing::default();
        }
        let standing = if blocked {
            standing.block(&zone.name, application, cut_at)
        } else {
            standing.cut(&zone.name, application, cut_at)
        };
        let roots = desk
            .standing_where(|session| session.application == *application && session.started_at <= cut_at);
        let mut narrowing = desk.end(&roots, SessionStatus::Terminated, ELSEWHERE, now);
        narrowing.anchors.push(Anchor::Application(Arc::clone(application)));
        narrowing.writes.push(Write::Zone(ZoneWrite::Application {
            zone: Arc::clone(&zone.name),
            application: Arc::clone(application),
            cut_at: standing.cut_at,
            blocked: standing.blocked,
        }));
        narrowing
    }
}
