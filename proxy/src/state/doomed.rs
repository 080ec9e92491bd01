//! What an act would end, found by looking only. The act itself ends exactly what was found.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::desk::Desk;
use super::model::{Anchor, Delegation, DelegationStatus, Session};

/// Everything that an act ends, as it was before.
#[derive(Clone, Debug, Default)]
pub struct Doomed {
    /// Authority records, by id.
    pub records: Vec<Arc<str>>,
    /// Sessions that have not ended, those above before those under them.
    pub sessions: Vec<Arc<Session>>,
    /// Active delegations.
    pub delegations: Vec<Arc<Delegation>>,
    /// The application of which everything issued so far is meant.
    pub application: Option<Arc<str>>,
    /// The sessions that were meant themselves; the others end with one of them.
    pub(super) roots: HashSet<Arc<str>>,
}

impl Doomed {
    /// Everything a request in flight may stand on that would be dead.
    #[must_use]
    pub fn anchors(&self) -> Vec<Anchor> {
        let records = self.records.iter().map(|id| Anchor::Record(Arc::clone(id)));
        let sessions = self.sessions.iter().map(|session| Anchor::Session(Arc::clone(&session.id)));
        let delegations = self.delegations.iter().map(|edge| Anchor::Delegation(Arc::clone(&edge.id)));
        let application = self.application.iter().map(|id| Anchor::Application(Arc::clone(id)));
        records.chain(sessions).chain(delegations).chain(application).collect()
    }
}

impl Desk {
    /// The sessions with their subtrees, and every active delegation that is named or touches one of them.
    pub(super) fn doomed(&self, roots: &[Arc<str>], edges: impl IntoIterator<Item = Arc<str>>) -> Doomed {
        let mut seen = HashSet::new();
        let mut sessions = Vec::new();
        for root in roots {
            let subtree = self.subtree(root);
            sessions.extend(subtree.into_iter().filter(|session| seen.insert(Arc::clone(&session.id))));
        }
        let touching = sessions.iter().flat_map(|session| self.touching(&session.id)).cloned();
        let ids: BTreeSet<Arc<str>> = touching.chain(edges).collect();
        let delegations = ids.iter().filter_map(|id| self.delegations.get(id));
        let active = delegations.filter(|edge| edge.status == DelegationStatus::Active).cloned();
        Doomed {
            delegations: active.collect(),
            sessions,
            roots: roots.iter().cloned().collect(),
            ..Doomed::default()
        }
    }

    /// Ids of the sessions that have not ended and that `wanted` picks.
    pub(super) fn standing_where(&self, wanted: impl Fn(&Session) -> bool) -> Vec<Arc<str>> {
        let standing = self.sessions.values().filter(|session| !session.status.ended());
        standing.filter(|session| wanted(session)).map(|session| Arc::clone(&session.id)).collect()
    }
}
