//! What other nodes of a fleet wrote to the shared store, put on this node's desks.
//!
//! What takes authority is applied at once, with everything that follows from it here, and told to the hooks as
//! news from elsewhere. What gives some back (a resume, a restore) is believed only while nothing this node took is
//! still on its way to the store: it may be older than that.

use std::sync::Arc;

use super::desk::Desk;
use super::holds::{Hold, Holds};
use super::jobs::{AgentService, Invocation, Jobs};
use super::model::{Anchor, AuthorityRecord, Delegation, DelegationStatus, Origin, Session, SessionStatus};
use super::receipts::{Receipts, StoredReceipt};
use super::records::Keeping;
use super::shared::Narrowing;
use super::standing::TombstoneKind;
use super::store::{Loaded, ReceiptId};
use super::writer::Tally;
use super::zones::Zones;

/// The reason of what ends here because of something that ended elsewhere.
const FOLLOWS: &str = "ended_elsewhere";

impl Zones {
    /// Applies rows of other nodes, or this node's own again, which changes nothing. False when something given
    /// back was not believed and must be shown again.
    pub(super) fn learn(&self, rows: Loaded, tally: &Tally) -> bool {
        let now = self.shared.clock.now();
        let mut all = true;
        for record in rows.records {
            self.learn_record(record, now);
        }
        for (zone, frozen) in rows.frozen {
            all &= self.learn_freeze(&zone, frozen, tally);
        }
        for (zone, application, cut_at, blocked) in rows.applications {
            all &= self.learn_application(&zone, &application, cut_at, blocked, now, tally);
        }
        for (kind, zone, value, buried) in rows.tombstones {
            all &= self.learn_grave(kind, &zone, &value, buried, tally);
        }
        // Sessions before the delegations between them; their ends after those of the delegations, so that each
        // delegation ends as it ended elsewhere.
        let (ended, standing): (Vec<_>, Vec<_>) =
            rows.sessions.into_iter().partition(|session| session.status.ended());
        for session in standing {
            all &= self.learn_session(session, now, tally);
        }
        for delegation in rows.delegations {
            self.at(&Arc::clone(&delegation.zone), FOLLOWS, |desk| desk.learn_delegation(delegation, now));
        }
        for session in ended {
            let reason = session.termination_reason.clone().unwrap_or_default();
            self.at(&Arc::clone(&session.zone), &reason, |desk| desk.learn_end(session, now));
        }
        for (zone, epoch) in rows.graph_epochs {
            self.shared.standing.lift_graph_epoch(&zone, epoch);
        }
        for (id, stored) in rows.receipts {
            self.zone(&id.zone).desk.lock().receipts.learn(id, stored);
        }
        for service in rows.services {
            self.zone(&service.zone).desk.lock().jobs.learn_service(service);
        }
        for invocation in rows.invocations {
            self.zone(&invocation.zone).desk.lock().jobs.learn_invocation(invocation);
        }
        for connection in rows.connections {
            self.shared.connections.put(Arc::new(connection));
        }
        let mut answered = false;
        for hold in rows.holds {
            answered |= self.zone(&hold.zone).desk.lock().holds.learn(hold);
        }
        if answered {
            self.shared.answered.notify_waiters();
        }
        all
    }

    /// Does something at a zone's desk and tells what it took.
    fn at(&self, zone: &str, reason: &str, act: impl FnOnce(&mut Desk) -> Narrowing) {
        let zone = self.zone(zone);
        let mut desk = zone.desk.lock();
        let mut narrowing = act(&mut desk);
        narrowing.origin = Origin::Elsewhere;
        if !narrowing.is_empty() {
            // Most of it is in the store already. Nobody waits for the rest: any node would find it again.
            drop(self.shared.narrow(&zone.name, reason, &mut narrowing));
        }
    }

    fn learn_record(&self, record: AuthorityRecord, now: i64) {
        let (zone, id, revoked) = (Arc::clone(&record.zone), Arc::clone(&record.id), record.revoked);
        let standing = self.shared.records.find(&zone, &id).is_none_or(|known| !known.revoked);
        self.shared.records.put(record, Keeping::Durable);
        if revoked && standing {
            self.at(&zone, FOLLOWS, |desk| {
                let roots = desk.standing_where(|session| session.subject_record == id);
                let mut narrowing = desk.end(&roots, SessionStatus::Terminated, FOLLOWS, now);
                narrowing.anchors.push(Anchor::Record(id));
                narrowing
            });
        }
    }

    fn learn_freeze(&self, zone: &Arc<str>, frozen: bool, tally: &Tally) -> bool {
        let standing = &self.shared.standing;
        let place = self.zone(zone);
        let _desk = place.desk.lock();
        match (frozen, standing.frozen(zone)) {
            (true, false) => {
                standing.freeze(zone);
                let mut narrowing = Narrowing {
                    anchors: vec![Anchor::Zone],
                    origin: Origin::Elsewhere,
                    ..Narrowing::default()
                };
                drop(self.shared.narrow(zone, "zone_frozen", &mut narrowing));
            }
            (false, true) if tally.narrowing() => return false,
            (false, true) => standing.unfreeze(zone, standing.freezes(zone)),
            (true, true) | (false, false) => {}
        }
        true
    }

    fn learn_application(
        &self,
        zone: &Arc<str>,
        application: &Arc<str>,
        cut_at: i64,
        blocked: bool,
        now: i64,
        tally: &Tally,
    ) -> bool {
        let standing = &self.shared.standing;
        let mut believed = true;
        self.at(zone, "application_revoked", |desk| {
            let seen = standing.application(zone, application).unwrap_or_default();
            if seen.blocked && !blocked {
                if tally.narrowing() {
                    believed = false;
                } else {
                    standing.unblock(zone, application, seen);
                }
            }
            if seen.cut_at >= cut_at && (seen.blocked || !blocked) {
                return Narrowing::default();
            }
            if blocked {
                standing.block(zone, application, cut_at);
            } else {
                standing.cut(zone, application, cut_at);
            }
            let roots = desk.standing_where(|session| {
                session.application == *application && session.started_at <= cut_at
            });
            let mut narrowing = desk.end(&roots, SessionStatus::Terminated, FOLLOWS, now);
            narrowing.anchors.push(Anchor::Application(Arc::clone(application)));
            narrowing
        });
        believed
    }

    fn learn_grave(&self, kind: TombstoneKind, zone: &str, value: &str, buried: bool, tally: &Tally) -> bool {
        let standing = &self.shared.standing;
        let place = self.zone(zone);
        let _desk = place.desk.lock();
        let known = standing.burials(kind, zone, value);
        match (buried, known) {
            (true, None) => standing.bury(kind, zone, value),
            (false, Some(_)) if tally.narrowing() => return false,
            (false, Some(_)) => standing.unbury(kind, zone, value, known),
            (true, Some(_)) | (false, None) => {}
        }
        true
    }

    fn learn_session(&self, session: Session, now: i64, tally: &Tally) -> bool {
        let mut believed = true;
        self.at(&Arc::clone(&session.zone), FOLLOWS, |desk| {
            let (narrowing, all) = desk.learn_session(session, now, tally);
            believed = all;
            narrowing
        });
        believed
    }
}

impl Desk {
    /// A session that stands elsewhere, and whether all of it was believed.
    fn learn_session(&mut self, row: Session, now: i64, tally: &Tally) -> (Narrowing, bool) {
        let id = Arc::clone(&row.id);
        let Some(own) = self.sessions.get(&id).cloned() else {
            self.counts().add(&row);
            let parent = row.parent.clone();
            self.place_session(Arc::new(row));
            // It was started while its parent was being ended here.
            let orphan = parent
                .is_some_and(|parent| self.sessions.get(&parent).is_some_and(|parent| parent.status.ended()));
            let narrowing = if orphan {
                self.end(&[id], SessionStatus::Terminated, "parent_terminated", now)
            } else {
                Narrowing::default()
            };
            return (narrowing, true);
        };
        if own.status.ended() {
            return (Narrowing::default(), true);
        }
        let renewed = Session {
            lease_generation: own.lease_generation.max(row.lease_generation),
            last_heartbeat_at: own.last_heartbeat_at.max(row.last_heartbeat_at),
            heartbeat_deadline_at: own.heartbeat_deadline_at.max(row.heartbeat_deadline_at),
            ..Session::clone(&own)
        };
        match (own.status, row.status) {
            (SessionStatus::Active, SessionStatus::Suspended) => {
                self.show_session(Arc::new(renewed));
                // Those below are rows of their own.
                return (self.suspend_one(&id), true);
            }
            (SessionStatus::Suspended, SessionStatus::Active) if tally.narrowing() => {
                self.show_session(Arc::new(renewed));
                return (Narrowing::default(), false);
            }
            (SessionStatus::Suspended, SessionStatus::Active) => {
                let resumed = Session { status: SessionStatus::Active, ..renewed };
                self.schedule(&resumed);
                self.show_session(Arc::new(resumed));
            }
            _ => {
                self.schedule(&renewed);
                self.show_session(Arc::new(renewed));
            }
        }
        (Narrowing::default(), true)
    }

    /// A session that ended elsewhere, with whatever still stands under it here.
    fn learn_end(&mut self, row: Session, now: i64) -> Narrowing {
        match self.sessions.get(&row.id) {
            None => {
                let mut narrowing = Narrowing::default();
                // Requests that stand on it may be under way all the same.
                narrowing.anchors.push(Anchor::Session(Arc::clone(&row.id)));
                self.place_session(Arc::new(row));
                narrowing
            }
            Some(own) if own.status.ended() => {
                // Of two ends the one that was committed first counts.
                self.show_session(Arc::new(row));
                Narrowing::default()
            }
            Some(_) => {
                let reason = row.termination_reason.as_deref().unwrap_or(FOLLOWS);
                self.end(&[Arc::clone(&row.id)], row.status, reason, now)
            }
        }
    }

    fn learn_delegation(&mut self, row: Delegation, now: i64) -> Narrowing {
        let id = Arc::clone(&row.id);
        let status = row.status;
        let known = self.delegations.get(&id).map(|own| own.status);
        // The epoch rose where the delegation was taken back; its rise is a row of its own.
        let mut narrowing = Narrowing {
            graph_epoch: Some(self.shared.standing.graph_epoch(&self.zone)),
            ..Narrowing::default()
        };
        match (known, status) {
            (None, DelegationStatus::Active) => {
                let ends = [Arc::clone(&row.source_session), Arc::clone(&row.target_session)];
                self.place_delegation(Arc::new(row));
                // It was made while one of its sessions was being ended here.
                let over = |id: &Arc<str>| self.sessions.get(id).is_none_or(|session| session.status.ended());
                if ends.iter().any(over) {
                    self.revoke([id], now, &mut narrowing);
                }
            }
            (None, DelegationStatus::Revoked | DelegationStatus::Expired) => {
                self.place_delegation(Arc::new(row));
                narrowing.anchors.push(Anchor::Delegation(id));
            }
            (Some(DelegationStatus::Active), DelegationStatus::Revoked) => {
                self.revoke([id], now, &mut narrowing);
            }
            (Some(DelegationStatus::Active), DelegationStatus::Expired) => {
                narrowing.absorb(self.expire_delegation(&id, now));
            }
            (Some(_), _) => {}
        }
        narrowing
    }
}

impl Receipts {
    fn learn(&mut self, id: ReceiptId, stored: StoredReceipt) {
        if !self.knows(&id) {
            self.load(id, stored);
        }
    }
}

impl Holds {
    /// True when it tells something new. What was answered or used stays so.
    fn learn(&mut self, row: Hold) -> bool {
        let news = self.get(&row.id).is_none_or(|own| {
            (own.decision.is_none() && row.decision.is_some())
                || (own.used.is_none() && row.used.is_some())
                || (own.lapsed.is_none() && row.lapsed.is_some())
        });
        if news {
            self.put(Arc::new(row));
        }
        news
    }
}

impl Jobs {
    fn learn_service(&mut self, row: AgentService) {
        self.services.insert(Arc::clone(&row.id), Arc::new(row));
    }

    /// The store is right about jobs, but for what is over here and on its way there.
    fn learn_invocation(&mut self, row: Invocation) {
        match self.invocations.get(&row.id) {
            Some(own) if own.status.over() => {}
            Some(_) => self.replace(Arc::new(row)),
            None => {
                if !row.status.over() {
                    self.open = self.open.saturating_add(1);
                }
                self.place(Arc::new(row));
            }
        }
    }
}
