//! Revocation by an operator: first everything that would die is found, then exactly that is ended.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::desk::Desk;
use super::doomed::Doomed;
use super::error::CoordinatorError;
use super::model::{Anchor, AuthorityRecord, RecordKind, Session, SessionStatus};
use super::records::Keeping;
use super::shared::Narrowing;
use super::store::{Write, ZoneWrite};
use super::{State, Zone};

/// What is to be revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// An authority record (a mandate's `sid`), what was minted from it, and the sessions that act for any of it.
    Record(Arc<str>),
    /// A root record (a mandate's `root_sid`) with everything under it.
    Root(Arc<str>),
    /// A session and the sessions under it.
    Session(Arc<str>),
    /// A delegation, what was handed on from it, and the sessions that held any of it.
    Delegation(Arc<str>),
    /// Everything that was issued to or acts for a subject (a mandate's `sub`).
    Subject(Arc<str>),
    /// Everything issued to an application.
    Application {
        /// Its id.
        id: Arc<str>,
        /// How far it reaches.
        extent: Extent,
    },
}

/// How far the revocation of an application reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// Everything issued up to now is dead and nothing new is minted until it is restored.
    Block,
    /// Everything issued up to now is dead; the application may mint again at once.
    Cut,
}

impl Target {
    /// The reason sessions end with when the operator names none.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Record(_) | Self::Root(_) => "authority_record_revoked",
            Self::Session(_) => "session_revoked",
            Self::Delegation(_) => "delegation_revoked",
            Self::Subject(_) => "subject_revoked",
            Self::Application { .. } => "application_revoked",
        }
    }
}

impl State {
    /// What [`State::revoke`] would end now, without ending it.
    ///
    /// # Errors
    /// As [`State::revoke`], except for its 503.
    pub fn plan_revocation(&self, zone: &str, target: &Target) -> Result<Doomed, CoordinatorError> {
        let zone = self.zone(zone);
        let now = self.shared.clock.now();
        let mut desk = zone.desk.lock();
        desk.settle(now);
        desk.found(target, now)
    }

    /// Revokes: in force in memory and told to every hook before it is committed.
    ///
    /// # Errors
    /// 404 `authority_record_not_found`, `session_not_found`, `delegation_not_found` or `subject_not_found` when
    /// nothing of it stands; 503 when the commit fails: it is in force then all the same.
    pub async fn revoke(
        &self,
        zone: &str,
        target: &Target,
        reason: &str,
    ) -> Result<Doomed, CoordinatorError> {
        let zone = self.zone(zone);
        let (doomed, commit) = {
            let now = self.shared.clock.now();
            let mut desk = zone.desk.lock();
            desk.settle(now);
            let doomed = desk.found(target, now)?;
            let mut narrowing = match target {
                Target::Application { id, extent } => self.stop_application(&zone, id, *extent, now),
                Target::Record(_)
                | Target::Root(_)
                | Target::Session(_)
                | Target::Delegation(_)
                | Target::Subject(_) => self.revoked(&zone.name, &doomed.records),
            };
            narrowing.absorb(desk.carry_out(&doomed, SessionStatus::Terminated, reason, now));
            let commit = self.shared.narrow(&zone.name, reason, &mut narrowing);
            (doomed, commit)
        };
        commit.done().await?;
        Ok(doomed)
    }

    fn stop_application(&self, zone: &Zone, id: &Arc<str>, extent: Extent, now: i64) -> Narrowing {
        let at = now.saturating_add(self.shared.limits.cut_ahead_ms);
        let standing = match extent {
            Extent::Block => self.shared.standing.block(&zone.name, id, at),
            Extent::Cut => self.shared.standing.cut(&zone.name, id, at),
        };
        let write = ZoneWrite::Application {
            zone: Arc::clone(&zone.name),
            application: Arc::clone(id),
            cut_at: standing.cut_at,
            blocked: standing.blocked,
        };
        Narrowing {
            anchors: vec![Anchor::Application(Arc::clone(id))],
            writes: vec![Write::Zone(write)],
            ..Narrowing::default()
        }
    }

    /// Marks records revoked; what has a row in the store is written.
    pub(super) fn revoked(&self, zone: &Arc<str>, ids: &[Arc<str>]) -> Narrowing {
        let mut narrowing = Narrowing::default();
        for id in ids {
            let keeping = self.shared.records.revoke(zone, id);
            narrowing.anchors.push(Anchor::Record(Arc::clone(id)));
            if keeping == Some(Keeping::Durable) {
                narrowing.writes.push(Write::RecordRevoked { zone: Arc::clone(zone), id: Arc::clone(id) });
            }
        }
        narrowing
    }
}

impl Desk {
    fn found(&self, target: &Target, now: i64) -> Result<Doomed, CoordinatorError> {
        let lost = |code| CoordinatorError::new(404, code);
        match target {
            Target::Record(id) | Target::Root(id) => {
                self.under_record(id, now).ok_or_else(|| lost("authority_record_not_found"))
            }
            Target::Session(id) => {
                let standing = self.sessions.get(id).filter(|session| !session.status.ended());
                let session = standing.ok_or_else(CoordinatorError::session_not_found)?;
                Ok(self.doomed(&[Arc::clone(&session.id)], []))
            }
            Target::Delegation(id) => Ok(self.under_delegation(&self.live_edge(id, now)?, now)),
            Target::Subject(subject) => {
                self.of_subject(subject, now).ok_or_else(|| lost("subject_not_found"))
            }
            Target::Application { id, .. } => Ok(self.of_application(id, now)),
        }
    }

    /// A session may outlive the record it acts for, so a record that was forgotten may still be meant.
    fn under_record(&self, id: &Arc<str>, now: i64) -> Option<Doomed> {
        let mut ids = HashSet::from([Arc::clone(id)]);
        loop {
            let below = self.records_where(now, |record| {
                !ids.contains(&record.id)
                    && (ids.contains(&record.root)
                        || record.parent.as_ref().is_some_and(|parent| ids.contains(parent)))
            });
            if below.is_empty() {
                break;
            }
            ids.extend(below);
        }
        let roots = self.standing_where(|session| ids.contains(&session.subject_record));
        let known = self.shared.records.find(&self.zone, id).is_some_and(|record| record.expires_at > now);
        if ids.len() == 1 && roots.is_empty() && !known {
            return None;
        }
        Some(Doomed { records: sorted(ids), ..self.doomed(&roots, []) })
    }

    fn of_subject(&self, subject: &Arc<str>, now: i64) -> Option<Doomed> {
        let ids = self.records_where(now, |record| record.subject == *subject);
        let acts_for = |session: &Session| {
            match self.shared.records.find(&self.zone, &session.subject_record) {
                Some(record) => record.subject == *subject,
                // The record is long over; an application's own session goes by its application.
                None => session.subject_kind == RecordKind::Application && session.application == *subject,
            }
        };
        let roots = self.standing_where(acts_for);
        if ids.is_empty() && roots.is_empty() {
            return None;
        }
        Some(Doomed { records: ids, ..self.doomed(&roots, []) })
    }

    /// Records of an application are not marked one by one: the moment of the cut is remembered instead.
    fn of_application(&self, id: &Arc<str>, now: i64) -> Doomed {
        let roots = self.standing_where(|session| session.application == *id);
        Doomed {
            records: self.records_where(now, |record| record.application == *id),
            application: Some(Arc::clone(id)),
            ..self.doomed(&roots, [])
        }
    }

    fn records_where(&self, now: i64, wanted: impl Fn(&AuthorityRecord) -> bool) -> Vec<Arc<str>> {
        let stands = |record: &AuthorityRecord| !record.revoked && record.expires_at > now;
        sorted(self.shared.records.ids(&self.zone, |record| stands(record) && wanted(record)))
    }
}

fn sorted(ids: impl IntoIterator<Item = Arc<str>>) -> Vec<Arc<str>> {
    let mut ids: Vec<_> = ids.into_iter().collect();
    ids.sort();
    ids
}
