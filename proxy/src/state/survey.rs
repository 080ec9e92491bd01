//! Sessions with what they hold and gave, for an operator's view.

use std::sync::Arc;

use super::State;
use super::desk::Desk;
use super::model::{Delegation, Session};

/// A session with its live delegations.
#[derive(Clone, Debug)]
pub struct Surveyed {
    /// The session.
    pub session: Arc<Session>,
    /// What it holds.
    pub inbound: Vec<Arc<Delegation>>,
    /// What it gave.
    pub outbound: Vec<Arc<Delegation>>,
}

impl State {
    /// Sessions of the zone that `wanted` picks, newest first, at most `most`; and whether there are more.
    pub fn survey(
        &self,
        zone: &str,
        wanted: impl Fn(&Session) -> bool,
        most: usize,
    ) -> (Vec<Surveyed>, bool) {
        let Some(zone) = self.known_zone(zone) else { return (Vec::new(), false) };
        let now = self.shared.clock.now();
        let mut desk = zone.desk.lock();
        desk.settle(now);
        let mut picked = desk.sessions.values().rev().filter(|session| wanted(session));
        let found = picked.by_ref().take(most).map(|session| desk.surveyed(session, now)).collect();
        let more = picked.next().is_some();
        (found, more)
    }

    /// One session with its live delegations, ended or not.
    #[must_use]
    pub fn survey_one(&self, zone: &str, id: &str) -> Option<Surveyed> {
        let zone = self.known_zone(zone)?;
        let now = self.shared.clock.now();
        let mut desk = zone.desk.lock();
        desk.settle(now);
        desk.sessions.get(id).map(|session| desk.surveyed(session, now))
    }
}

impl Desk {
    fn surveyed(&self, session: &Arc<Session>, now: i64) -> Surveyed {
        Surveyed {
            session: Arc::clone(session),
            inbound: self.inbound(&session.id, now),
            outbound: self.outbound(&session.id, now),
        }
    }
}
