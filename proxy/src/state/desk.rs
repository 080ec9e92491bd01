//! The one place where a zone's sessions and delegations change. Pure bookkeeping: what it returns is committed
//! and told by [`Shared`].
//!
//! A desk sits behind its zone's lock. The lock is held while an operation is judged and its rows are queued,
//! never while anything is written. Rows that take authority change here at once; rows that give it are placed
//! here by the writer, after their commit.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::doomed::Doomed;
use super::holds::Holds;
use super::jobs::Jobs;
use super::model::{Delegation, DelegationStatus, Lifecycle, RecordKind, Session, SessionStatus};
use super::receipts::Receipts;
use super::shared::{Narrowing, Shared};
use super::store::Write;
use super::writer::Intent;

/// Edges a chain may have, and how far the graph is searched.
pub(super) const MAX_CHAIN: usize = 10;

#[derive(Debug)]
pub(super) struct Desk {
    pub(super) zone: Arc<str>,
    pub(super) shared: Arc<Shared>,
    pub(super) sessions: BTreeMap<Arc<str>, Arc<Session>>,
    pub(super) delegations: BTreeMap<Arc<str>, Arc<Delegation>>,
    pub(super) receipts: Receipts,
    pub(super) jobs: Jobs,
    pub(super) holds: Holds,
    /// Delegations on their way to the store: they count when cycles are looked for.
    pub(super) underway: HashMap<Arc<str>, Arc<Delegation>>,
    children: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    inbound: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    outbound: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Applications that ever received a delegation at a session.
    received: HashMap<Arc<str>, HashSet<Arc<str>>>,
    counts: Counts,
    /// When rows must be looked at again; what ends early leaves, or an hour of short sessions would pile up here.
    due: BTreeSet<(i64, Row)>,
    ended: VecDeque<(i64, Row)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Row {
    Session(Arc<str>),
    Delegation(Arc<str>),
}

/// Sessions that have not ended, those on their way to the store included.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) zone: usize,
    applications: HashMap<Arc<str>, usize>,
    children: HashMap<Arc<str>, usize>,
}

impl Counts {
    pub(super) fn application(&self, id: &str) -> usize {
        self.applications.get(id).copied().unwrap_or(0)
    }

    pub(super) fn children(&self, parent: &str) -> usize {
        self.children.get(parent).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, session: &Session) {
        self.zone = self.zone.saturating_add(1);
        let own = self.applications.entry(Arc::clone(&session.application)).or_default();
        *own = own.saturating_add(1);
        if let Some(parent) = &session.parent {
            let children = self.children.entry(Arc::clone(parent)).or_default();
            *children = children.saturating_add(1);
        }
    }

    pub(super) fn remove(&mut self, session: &Session) {
        self.zone = self.zone.saturating_sub(1);
        lower(&mut self.applications, &session.application);
        if let Some(parent) = &session.parent {
            lower(&mut self.children, parent);
        }
    }
}

fn lower(counts: &mut HashMap<Arc<str>, usize>, id: &str) {
    if let Some(count) = counts.get_mut(id) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(id);
        }
    }
}

impl Desk {
    pub(super) fn new(zone: Arc<str>, shared: Arc<Shared>) -> Self {
        Self {
            zone,
            shared,
            sessions: BTreeMap::new(),
            delegations: BTreeMap::new(),
            receipts: Receipts::default(),
            jobs: Jobs::default(),
            holds: Holds::default(),
            underway: HashMap::new(),
            children: HashMap::new(),
            inbound: HashMap::new(),
            outbound: HashMap::new(),
            received: HashMap::new(),
            counts: Counts::default(),
            due: BTreeSet::new(),
            ended: VecDeque::new(),
        }
    }

    pub(super) fn counts(&mut self) -> &mut Counts {
        &mut self.counts
    }

    /// Puts a session on the desk that is not there yet. It must be counted already.
    pub(super) fn place_session(&mut self, session: Arc<Session>) {
        let id = Arc::clone(&session.id);
        if session.status.ended() {
            self.ended.push_back((session.terminated_at.unwrap_or(session.started_at), Row::Session(id)));
        } else {
            if let Some(parent) = &session.parent {
                self.children.entry(Arc::clone(parent)).or_default().insert(Arc::clone(&id));
            }
            self.due.insert((session.deadline(), Row::Session(Arc::clone(&id))));
            if session.subject_kind == RecordKind::User {
                let record = self.shared.records.find(&self.zone, &session.subject_record);
                let at = record.map_or(session.started_at, |record| record.expires_at);
                self.due.insert((at, Row::Session(id)));
            }
        }
        self.show_session(session);
    }

    /// Puts a delegation on the desk that is not there yet.
    pub(super) fn place_delegation(&mut self, delegation: Arc<Delegation>) {
        let id = Arc::clone(&delegation.id);
        let receivers = self.received.entry(Arc::clone(&delegation.target_session)).or_default();
        receivers.insert(Arc::clone(&delegation.receiver_application));
        if delegation.status == DelegationStatus::Active {
            for (side, session) in [
                (&mut self.inbound, &delegation.target_session),
                (&mut self.outbound, &delegation.source_session),
            ] {
                side.entry(Arc::clone(session)).or_default().insert(Arc::clone(&id));
            }
            self.due.insert((delegation.expires_at, Row::Delegation(id)));
        } else {
            let at = delegation.revoked_at.unwrap_or(delegation.expires_at);
            self.ended.push_back((at, Row::Delegation(id)));
        }
        self.show_delegation(delegation);
    }

    /// Puts what was loaded in no particular order into the order of its end.
    pub(super) fn loaded(&mut self) {
        self.ended.make_contiguous().sort_by_key(|(at, _)| *at);
        self.jobs.loaded();
    }

    /// Replaces a row that is on the desk by one that is not ended.
    pub(super) fn show_session(&mut self, session: Arc<Session>) {
        self.shared.sessions.put(&self.zone, &session.id, Arc::clone(&session));
        self.sessions.insert(Arc::clone(&session.id), session);
    }

    fn show_delegation(&mut self, delegation: Arc<Delegation>) {
        self.shared.delegations.put(&self.zone, &delegation.id, Arc::clone(&delegation));
        self.delegations.insert(Arc::clone(&delegation.id), delegation);
    }

    /// Makes a resumed or renewed session due again.
    pub(super) fn schedule(&mut self, session: &Session) {
        self.due.insert((session.deadline(), Row::Session(Arc::clone(&session.id))));
    }

    pub(super) fn inbound(&self, session: &str, now: i64) -> Vec<Arc<Delegation>> {
        self.edges(&self.inbound, session, now)
    }

    pub(super) fn outbound(&self, session: &str, now: i64) -> Vec<Arc<Delegation>> {
        self.edges(&self.outbound, session, now)
    }

    /// Every active delegation that a session gave or received, by id.
    pub(super) fn touching(&self, session: &str) -> impl Iterator<Item = &Arc<str>> {
        [self.inbound.get(session), self.outbound.get(session)].into_iter().flatten().flatten()
    }

    pub(super) fn ever_received(&self, session: &str, application: &str) -> bool {
        self.received.get(session).is_some_and(|receivers| receivers.contains(application))
    }

    fn edges(
        &self,
        side: &HashMap<Arc<str>, BTreeSet<Arc<str>>>,
        session: &str,
        now: i64,
    ) -> Vec<Arc<Delegation>> {
        let ids = side.get(session).into_iter().flatten();
        ids.filter_map(|id| self.delegations.get(id)).filter(|edge| edge.live(now)).cloned().collect()
    }

    /// The session and everything under it that has not ended, top first.
    pub(super) fn subtree(&self, root: &str) -> Vec<Arc<Session>> {
        let mut found: Vec<Arc<Session>> = Vec::new();
        let mut seen = HashSet::new();
        let mut next: VecDeque<&str> = VecDeque::from([root]);
        while let Some(id) = next.pop_front() {
            let Some(session) = self.sessions.get(id) else { continue };
            if session.status.ended() || !seen.insert(id) {
                continue;
            }
            found.push(Arc::clone(session));
            next.extend(self.children.get(id).into_iter().flatten().map(|child| &**child));
        }
        found
    }

    /// Ends sessions with their subtrees and takes back every delegation that touches one of them.
    pub(super) fn end(
        &mut self,
        roots: &[Arc<str>],
        how: SessionStatus,
        reason: &str,
        now: i64,
    ) -> Narrowing {
        let doomed = self.doomed(roots, []);
        self.carry_out(&doomed, how, reason, now)
    }

    /// Ends exactly what was found. A session that was named ends as `how` for `reason`, one under it with it.
    pub(super) fn carry_out(
        &mut self,
        doomed: &Doomed,
        how: SessionStatus,
        reason: &str,
        now: i64,
    ) -> Narrowing {
        let mut narrowing = Narrowing::default();
        for session in &doomed.sessions {
            let (status, reason) = if doomed.roots.contains(&session.id) {
                (how, reason)
            } else {
                (SessionStatus::Terminated, "parent_terminated")
            };
            narrowing.ended.push(self.end_one(session, status, reason, now));
        }
        let closed = doomed.delegations.iter().map(|edge| Arc::clone(&edge.id));
        self.revoke(closed, now, &mut narrowing);
        narrowing
    }

    /// Takes back delegations; any that was still active raises the zone's graph epoch, once for
    /// the whole narrowing.
    pub(super) fn revoke(
        &mut self,
        ids: impl IntoIterator<Item = Arc<str>>,
        now: i64,
        narrowing: &mut Narrowing,
    ) {
        let before = narrowing.closed.len();
        for id in ids {
            narrowing.closed.extend(self.close_delegation(&id, DelegationStatus::Revoked, now));
        }
        if narrowing.closed.len() > before && narrowing.graph_epoch.is_none() {
            narrowing.graph_epoch = Some(self.shared.standing.raise_graph_epoch(&self.zone));
        }
    }

    /// Suspends a session and everything active under it.
    pub(super) fn suspend(&mut self, root: &str) -> Narrowing {
        let mut narrowing = Narrowing::default();
        for session in self.subtree(root) {
            if session.status == SessionStatus::Active {
                let row = Arc::new(Session { status: SessionStatus::Suspended, ..Session::clone(&session) });
                self.show_session(Arc::clone(&row));
                narrowing.suspended.push(row);
            }
        }
        narrowing
    }

    /// Suspends one session, whatever is under it.
    pub(super) fn suspend_one(&mut self, id: &str) -> Narrowing {
        let mut narrowing = Narrowing::default();
        let active = self.sessions.get(id).filter(|session| session.status == SessionStatus::Active);
        if let Some(session) = active.cloned() {
            let row = Arc::new(Session { status: SessionStatus::Suspended, ..Session::clone(&session) });
            self.show_session(Arc::clone(&row));
            narrowing.suspended.push(row);
        }
        narrowing
    }

    /// Applies everything whose time came: tasks and delegations expire, lapsed services are suspended, sessions
    /// of persons end with the person's record. Commits and tells each part; the answers may be dropped, since
    /// all of it would be found again at the next start.
    pub(super) fn settle(&mut self, now: i64) {
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            let (reason, mut narrowing) = match self.due.pop_first() {
                Some((_, Row::Session(id))) => self.settle_session(&id, now),
                Some((_, Row::Delegation(id))) => ("expired", self.expire_delegation(&id, now)),
                None => break,
            };
            if !narrowing.is_empty() {
                drop(self.shared.narrow(&self.zone, reason, &mut narrowing));
            }
        }
        let timed_out = self.jobs.settle(now);
        if !timed_out.is_empty() {
            drop(self.shared.queue.commit(timed_out, Intent::Narrow));
        }
    }

    /// Forgets invocations and services that are over for long.
    pub(super) fn forget_jobs(&mut self, now: i64) -> Vec<Write> {
        let limits = &self.shared.limits;
        self.jobs.forget(&self.zone, now, limits.keep_ended_ms, limits.keep_ended)
    }

    fn settle_session(&mut self, id: &Arc<str>, now: i64) -> (&'static str, Narrowing) {
        let none = ("", Narrowing::default());
        let Some(session) = self.sessions.get(id).filter(|session| !session.status.ended()).cloned() else {
            return none;
        };
        if !self.shared.subject_stands(&session, now) {
            let reason = "subject_authority_inactive";
            return (reason, self.end(&[Arc::clone(id)], SessionStatus::Terminated, reason, now));
        }
        if session.in_time(now) {
            self.schedule(&session);
            return none;
        }
        match (session.lifecycle, session.status) {
            (Lifecycle::Task, _) => {
                let reason = "ttl_expired";
                (reason, self.end(&[Arc::clone(id)], SessionStatus::Expired, reason, now))
            }
            (Lifecycle::Service, SessionStatus::Active) => ("service_heartbeat_lost", self.suspend(id)),
            (Lifecycle::Service, _) => none,
        }
    }

    pub(super) fn expire_delegation(&mut self, id: &str, now: i64) -> Narrowing {
        let mut narrowing = Narrowing::default();
        let over = self.delegations.get(id).is_some_and(|edge| edge.expires_at <= now);
        if over {
            narrowing.closed.extend(self.close_delegation(id, DelegationStatus::Expired, now));
        }
        narrowing
    }

    fn end_one(
        &mut self,
        session: &Arc<Session>,
        status: SessionStatus,
        reason: &str,
        now: i64,
    ) -> Arc<Session> {
        let row = Arc::new(Session {
            status,
            terminated_at: Some(now),
            termination_reason: Some(reason.to_owned()),
            ..Session::clone(session)
        });
        self.counts.remove(&row);
        if let Some(siblings) = row.parent.as_ref().and_then(|parent| self.children.get_mut(parent)) {
            siblings.remove(&row.id);
        }
        self.due.remove(&(row.deadline(), Row::Session(Arc::clone(&row.id))));
        self.ended.push_back((now, Row::Session(Arc::clone(&row.id))));
        self.show_session(Arc::clone(&row));
        row
    }

    fn close_delegation(&mut self, id: &str, how: DelegationStatus, now: i64) -> Option<Arc<Delegation>> {
        let open = self.delegations.get(id).filter(|edge| edge.status == DelegationStatus::Active)?;
        let row = Arc::new(Delegation {
            status: how,
            version: open.version.saturating_add(1),
            revoked_at: (how == DelegationStatus::Revoked).then_some(now),
            ..Delegation::clone(open)
        });
        for (side, session) in
            [(&mut self.inbound, &row.target_session), (&mut self.outbound, &row.source_session)]
        {
            if let Some(ids) = side.get_mut(session) {
                ids.remove(id);
                if ids.is_empty() {
                    side.remove(session);
                }
            }
        }
        self.due.remove(&(row.expires_at, Row::Delegation(Arc::clone(&row.id))));
        self.ended.push_back((now, Row::Delegation(Arc::clone(&row.id))));
        self.show_delegation(Arc::clone(&row));
        Some(row)
    }

    /// Forgets ended rows that are old or too many, oldest first, and tells what to delete. An unknown row is as
    /// dead as an ended one; the ledger keeps the history.
    pub(super) fn forget_ended(&mut self, now: i64) -> Vec<Write> {
        let oldest = now.saturating_sub(self.shared.limits.keep_ended_ms);
        let mut writes = Vec::new();
        while let Some((at, _)) = self.ended.front() {
            if *at > oldest && self.ended.len() <= self.shared.limits.keep_ended {
                break;
            }
            let zone = Arc::clone(&self.zone);
            match self.ended.pop_front() {
                Some((_, Row::Session(id))) => {
                    self.sessions.remove(&id);
                    self.children.remove(&id);
                    self.received.remove(&id);
                    self.shared.sessions.remove(&zone, &id);
                    writes.push(Write::ForgetSession { zone, id });
                }
                Some((_, Row::Delegation(id))) => {
                    self.delegations.remove(&id);
                    self.shared.delegations.remove(&zone, &id);
                    writes.push(Write::ForgetDelegation { zone, id });
                }
                None => {}
            }
        }
        writes
    }
}
