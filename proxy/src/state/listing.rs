//! Reads of the coordinator. An application sees its own rows, an administrator the whole zone.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use serde_json::{Value, json};

use super::State;
use super::caller::Caller;
use super::delegations::ResourceCatalog;
use super::error::CoordinatorError;
use super::json::iso;
use super::model::{Delegation, Lifecycle, Session, SessionStatus};

/// Which part of a list is wanted.
#[derive(Clone, Debug)]
pub struct PageRequest {
    /// 1 to 500.
    pub limit: usize,
    /// The last id of the page before.
    pub cursor: Option<String>,
}

/// Part of a list, newest first.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<Arc<T>>,
    /// The cursor of the next page, when there is one.
    pub next_cursor: Option<Arc<str>>,
}

/// Which sessions are wanted; an absent member admits all.
#[derive(Clone, Debug, Default)]
pub struct SessionFilter {
    /// With this status.
    pub status: Option<SessionStatus>,
    /// Of this lifecycle.
    pub lifecycle: Option<Lifecycle>,
    /// Of this application.
    pub application: Option<String>,
    /// With this label.
    pub label: Option<String>,
}

impl SessionFilter {
    fn admits(&self, session: &Session) -> bool {
        self.status.is_none_or(|status| status == session.status)
            && self.lifecycle.is_none_or(|lifecycle| lifecycle == session.lifecycle)
            && self.application.as_deref().is_none_or(|application| application == &*session.application)
            && self.label.as_ref().is_none_or(|label| session.labels.iter().any(|own| **own == **label))
    }
}

impl State {
    /// Sessions of the zone that the caller may see.
    ///
    /// # Errors
    /// 400 `invalid_cursor` when the cursor names no row the caller may see.
    pub fn list_sessions(
        &self,
        zone: &str,
        caller: &Caller,
        filter: &SessionFilter,
        page: &PageRequest,
    ) -> Result<Page<Session>, CoordinatorError> {
        self.sessions_page(zone, page, |row| caller.sees(&row.application), |row| filter.admits(row))
    }

    /// One session.
    ///
    /// # Errors
    /// 404 `session_not_found`, also for a session of another application.
    pub fn read_session(
        &self,
        zone: &str,
        id: &str,
        caller: &Caller,
    ) -> Result<Arc<Session>, CoordinatorError> {
        if let Some(zone) = self.known_zone(zone) {
            zone.desk.lock().settle(self.shared.clock.now());
        }
        let session = self.session(zone, id).filter(|session| caller.sees(&session.application));
        session.ok_or_else(CoordinatorError::session_not_found)
    }

    /// Sessions started directly under one.
    ///
    /// # Errors
    /// 404 `session_not_found`, 400 `invalid_cursor`.
    pub fn list_children(
        &self,
        zone: &str,
        id: &str,
        caller: &Caller,
        page: &PageRequest,
    ) -> Result<Page<Session>, CoordinatorError> {
        self.read_session(zone, id, caller)?;
        let child = |row: &Session| row.parent.as_deref() == Some(id);
        self.sessions_page(zone, page, |row| caller.sees(&row.application), child)
    }

    /// Delegations a session received, closed ones included.
    ///
    /// # Errors
    /// 404 `session_not_found`, 400 `invalid_cursor`.
    pub fn list_inbound(
        &self,
        zone: &str,
        session: &str,
        caller: &Caller,
        page: &PageRequest,
    ) -> Result<Page<Delegation>, CoordinatorError> {
        self.read_session(zone, session, caller)?;
        self.delegations_page(zone, caller, page, |row| *row.target_session == *session)
    }

    /// Delegations a session gave, closed ones included.
    ///
    /// # Errors
    /// 404 `session_not_found`, 400 `invalid_cursor`.
    pub fn list_outbound(
        &self,
        zone: &str,
        session: &str,
        caller: &Caller,
        page: &PageRequest,
    ) -> Result<Page<Delegation>, CoordinatorError> {
        self.read_session(zone, session, caller)?;
        self.delegations_page(zone, caller, page, |row| *row.source_session == *session)
    }

    /// Active, unexpired delegations of the zone.
    ///
    /// # Errors
    /// 400 `invalid_cursor`.
    pub fn list_active_delegations(
        &self,
        zone: &str,
        caller: &Caller,
        page: &PageRequest,
    ) -> Result<Page<Delegation>, CoordinatorError> {
        let now = self.shared.clock.now();
        self.delegations_page(zone, caller, page, |row| row.live(now))
    }

    /// One delegation a session received, while it is active and unexpired.
    ///
    /// # Errors
    /// 404 `delegation_not_found`, also when somebody else received it.
    pub fn read_inbound(
        &self,
        zone: &str,
        session: &str,
        id: &str,
        caller: &Caller,
    ) -> Result<Arc<Delegation>, CoordinatorError> {
        self.live_delegation(zone, id, self.shared.clock.now())
            .filter(|edge| *edge.target_session == *session && caller.sees(&edge.receiver_application))
            .ok_or_else(CoordinatorError::delegation_not_found)
    }

    /// What a session's live inbound delegations have in common, in the wire shape.
    ///
    /// # Errors
    /// 404 `session_not_found`.
    pub fn effective_authority(
        &self,
        zone: &str,
        id: &str,
        caller: &Caller,
        catalog: &dyn ResourceCatalog,
    ) -> Result<Value, CoordinatorError> {
        let session = self.read_session(zone, id, caller)?;
        let now = self.shared.clock.now();
        let inbound = self.known_zone(zone).map_or_else(Vec::new, |zone| zone.desk.lock().inbound(id, now));
        Ok(effective_authority(&session.id, &inbound, catalog))
    }

    fn sessions_page(
        &self,
        zone: &str,
        page: &PageRequest,
        sees: impl Fn(&Session) -> bool,
        wanted: impl Fn(&Session) -> bool,
    ) -> Result<Page<Session>, CoordinatorError> {
        let Some(zone) = self.known_zone(zone) else { return nothing(page) };
        let mut desk = zone.desk.lock();
        desk.settle(self.shared.clock.now());
        page_of(&desk.sessions, page, sees, wanted, |row| &row.id)
    }

    fn delegations_page(
        &self,
        zone: &str,
        caller: &Caller,
        page: &PageRequest,
        wanted: impl Fn(&Delegation) -> bool,
    ) -> Result<Page<Delegation>, CoordinatorError> {
        let Some(zone) = self.known_zone(zone) else { return nothing(page) };
        let mut desk = zone.desk.lock();
        desk.settle(self.shared.clock.now());
        let sees =
            |row: &Delegation| caller.sees(&row.issuer_application) || caller.sees(&row.receiver_application);
        page_of(&desk.delegations, page, sees, wanted, |row| &row.id)
    }
}

pub(super) fn nothing<T>(page: &PageRequest) -> Result<Page<T>, CoordinatorError> {
    match page.cursor {
        Some(_) => Err(CoordinatorError::new(400, "invalid_cursor")),
        None => Ok(Page { items: Vec::new(), next_cursor: None }),
    }
}

pub(super) fn page_of<T>(
    rows: &BTreeMap<Arc<str>, Arc<T>>,
    page: &PageRequest,
    sees: impl Fn(&T) -> bool,
    wanted: impl Fn(&T) -> bool,
    id: impl Fn(&T) -> &Arc<str>,
) -> Result<Page<T>, CoordinatorError> {
    let end = match &page.cursor {
        None => Bound::Unbounded,
        Some(cursor) if rows.get(cursor.as_str()).is_some_and(|row| sees(row)) => {
            Bound::Excluded(cursor.as_str())
        }
        Some(_) => return Err(CoordinatorError::new(400, "invalid_cursor")),
    };
    let older = rows.range::<str, _>((Bound::Unbounded, end)).rev().map(|(_, row)| row);
    let mut found = older.filter(|row| sees(row) && wanted(row));
    let items: Vec<_> = found.by_ref().take(page.limit).cloned().collect();
    let more = found.next().is_some();
    let next_cursor = items.last().filter(|_| more).map(|last| Arc::clone(id(last)));
    Ok(Page { items, next_cursor })
}

fn effective_authority(session: &str, inbound: &[Arc<Delegation>], catalog: &dyn ResourceCatalog) -> Value {
    let Some((first, rest)) = inbound.split_first() else {
        return json!({
            "agent_session_id": session,
            "inbound_edges": [],
            "effective_scopes": [],
            "effective_resources": [],
            "effective_max_hops": 0,
            "effective_ttl_seconds": null,
            "earliest_expires_at": null,
        });
    };
    let mut scopes = first.scopes.clone();
    scopes.retain(|scope| rest.iter().all(|edge| edge.scopes.contains(scope)));
    scopes.sort();
    let mut common: Option<Vec<(Arc<str>, Arc<str>)>> = None;
    for edge in inbound {
        let Some(named) = named_resources(edge, catalog) else { continue };
        common = Some(match common {
            None => named,
            Some(before) => before.into_iter().filter(|resource| named.contains(resource)).collect(),
        });
    }
    let constrained = common.is_some();
    let mut common = common.unwrap_or_default();
    common.sort_by(|(_, left), (_, right)| left.cmp(right));
    let (ids, identifiers): (Vec<_>, Vec<_>) = common.into_iter().unzip();
    json!({
        "agent_session_id": session,
        "inbound_edges": inbound.iter().map(|edge| &edge.id).collect::<Vec<_>>(),
        "effective_scopes": scopes,
        "effective_resource_ids": ids,
        "effective_resources": identifiers,
        "effective_resource_constrained": constrained,
        "effective_max_hops": inbound.iter().map(|edge| edge.constraints.hops()).min(),
        "effective_ttl_seconds": inbound.iter().filter_map(|edge| edge.constraints.ttl_seconds).min(),
        "earliest_expires_at": inbound.iter().map(|edge| edge.expires_at).min().map(iso),
    })
}

/// Row id and identifier of each resource a delegation names; none when it names no resource at all.
fn named_resources(edge: &Delegation, catalog: &dyn ResourceCatalog) -> Option<Vec<(Arc<str>, Arc<str>)>> {
    let names = match &edge.resource_id {
        Some(id) => std::slice::from_ref(id),
        None if edge.constraints.resources.is_empty() => return None,
        None => edge.constraints.resources.as_slice(),
    };
    let found = names.iter().filter_map(|name| catalog.find(name));
    Some(found.map(|resource| (resource.id, resource.identifier)).collect())
}
