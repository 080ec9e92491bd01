//! What was asked for and granted so far, and therefore all the authority there may be.

use std::collections::{BTreeSet, HashSet};

pub(super) const BILLING: &str = "resource://billing";
pub(super) const PLAIN: &str = "resource://plain";
pub(super) const RESOURCES: [&str; 2] = [BILLING, PLAIN];
pub(super) const READ: &str = "invoice.read";
pub(super) const WRITE: &str = "invoice.write";
pub(super) const SCOPES: [&str; 2] = [READ, WRITE];
pub(super) const OWNER: &str = "billing-agent";
pub(super) const APPLICATIONS: [&str; 2] = [OWNER, "other-agent"];
pub(super) const LABELS: [&str; 3] = [OWNER, "reader", "nobody"];
pub(super) const SESSION_S: u32 = 1_800;

/// What each policy gives a label on the billing resource. On the plain one it is always [`READ`] for [`OWNER`].
pub(super) const POLICIES: [&[(&str, &[&str])]; 4] = [
    &[(OWNER, &[READ, WRITE]), ("reader", &[READ])],
    &[(OWNER, &[READ])],
    &[(OWNER, &[WRITE]), ("reader", &[READ, WRITE])],
    &[("absent", &[READ])],
];

#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) application: &'static str,
    pub(super) label: &'static str,
    pub(super) parent: Option<usize>,
    pub(super) ends_at: i64,
    pub(super) ended: bool,
    pub(super) suspended: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Edge {
    pub(super) id: String,
    pub(super) source: usize,
    pub(super) target: usize,
    pub(super) parent: Option<usize>,
    pub(super) scopes: BTreeSet<&'static str>,
    pub(super) resources: BTreeSet<&'static str>,
    pub(super) hops: usize,
    pub(super) expires_at: i64,
    pub(super) revoked: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Mandate {
    pub(super) token: String,
    pub(super) sid: String,
    pub(super) edge: usize,
    pub(super) scopes: BTreeSet<&'static str>,
    pub(super) resource: &'static str,
    pub(super) application: &'static str,
    pub(super) ends_at: i64,
    pub(super) dead: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Model {
    pub(super) sessions: Vec<Session>,
    pub(super) edges: Vec<Edge>,
    pub(super) mandates: Vec<Mandate>,
    pub(super) blocked: HashSet<&'static str>,
    pub(super) frozen: bool,
    pub(super) policy: usize,
    pub(super) let_through: usize,
}

impl Model {
    /// Whether a session and all it hangs on may act, as far as the model knows.
    pub(super) fn acts(&self, session: usize, now: i64) -> bool {
        let session = &self.sessions[session];
        !session.ended
            && !session.suspended
            && now < session.ends_at
            && !self.blocked.contains(session.application)
    }

    pub(super) fn under(&self, root: usize) -> Vec<usize> {
        let mut found = vec![root];
        // Children are started after their parents, so one pass sees them all.
        for (place, session) in self.sessions.iter().enumerate() {
            if session.parent.is_some_and(|parent| found.contains(&parent)) {
                found.push(place);
            }
        }
        found
    }

    pub(super) fn end(&mut self, root: usize) {
        for place in self.under(root) {
            self.sessions[place].ended = true;
        }
    }

    /// Sessions whose time is over end with what is under them.
    pub(super) fn settle(&mut self, now: i64) {
        for place in 0..self.sessions.len() {
            if now >= self.sessions[place].ends_at {
                self.end(place);
            }
        }
    }

    /// A delegation goes with everything that whoever received it handed on, and with who received any of it.
    pub(super) fn take_back(&mut self, edge: usize, now: i64) {
        let mut walked = vec![edge];
        while let Some(next) = (0..self.edges.len()).find(|place| {
            let edge = &self.edges[*place];
            !walked.contains(place)
                && self.open(edge, now)
                && walked.iter().any(|above| self.edges[*above].target == edge.source)
        }) {
            walked.push(next);
        }
        for edge in walked {
            self.edges[edge].revoked = true;
            self.end(self.edges[edge].target);
        }
    }

    pub(super) fn open(&self, edge: &Edge, now: i64) -> bool {
        !edge.revoked
            && now < edge.expires_at
            && !self.sessions[edge.source].ended
            && !self.sessions[edge.target].ended
    }

    pub(super) fn policy_gives(
        &self,
        application: &str,
        label: &str,
        resource: &str,
    ) -> BTreeSet<&'static str> {
        if application != OWNER {
            return BTreeSet::new();
        }
        if resource == PLAIN {
            return if label == OWNER { BTreeSet::from([READ]) } else { BTreeSet::new() };
        }
        let role = POLICIES[self.policy].iter().find(|(known, _)| *known == label);
        role.map(|(_, scopes)| scopes.iter().copied().collect()).unwrap_or_default()
    }

    /// Everything that must hold for authority over `scopes` on `resource` through `edge`, up to its root.
    pub(super) fn holds(
        &self,
        edge: usize,
        scopes: &BTreeSet<&'static str>,
        resource: &str,
        now: i64,
    ) -> Result<(), String> {
        let receiver = &self.sessions[self.edges[edge].target];
        let given = self.policy_gives(receiver.application, receiver.label, resource);
        if self.frozen {
            return Err("the zone is frozen".into());
        }
        if !scopes.is_subset(&given) {
            return Err(format!("the policy gives {given:?}"));
        }
        let (mut next, mut distance) = (Some(edge), 1);
        while let Some(place) = next {
            let edge = &self.edges[place];
            let stands = self.open(edge, now) && self.acts(edge.source, now) && self.acts(edge.target, now);
            if !stands {
                return Err(format!("edge {place} does not stand"));
            }
            if !scopes.is_subset(&edge.scopes) || !edge.resources.contains(resource) || distance > edge.hops {
                return Err(format!("edge {place} does not carry it"));
            }
            (next, distance) = (edge.parent, distance.saturating_add(1));
        }
        Ok(())
    }
}
