//! Agent services: registered by their application, listed for the whole zone, heard of by heartbeats.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::oneshot;

use super::again::Again;
use super::caller::Caller;
use super::desk::Desk;
use super::error::{CoordinatorError, StateError};
use super::jobs::{AgentService, ServiceHealth};
use super::listing::{Page, PageRequest, nothing, page_of};
use super::shared::new_id;
use super::store::Write;
use super::writer::Intent;
use super::{State, Zone};

/// A service as its application describes it; shapes are already checked.
#[derive(Clone, Debug)]
pub struct RegisterService {
    /// Zone of the service.
    pub zone: Arc<str>,
    /// Who asks.
    pub caller: Caller,
    /// The application it is of.
    pub application: Arc<str>,
    /// False when the zone has no such application.
    pub application_known: bool,
    /// See [`AgentService::endpoint_url`]; with the application it names the service.
    pub endpoint_url: Arc<str>,
    /// See [`AgentService::protocol_versions`].
    pub protocol_versions: Vec<String>,
    /// See [`AgentService::framework_name`].
    pub framework_name: Option<String>,
    /// See [`AgentService::framework_version`].
    pub framework_version: Option<String>,
    /// See [`AgentService::capabilities`].
    pub capabilities: Vec<String>,
    /// See [`AgentService::metadata`].
    pub metadata: Value,
}

impl State {
    /// Registers a service, or describes a registered one anew.
    ///
    /// # Errors
    /// 403 `application_ownership_required` or `zone_frozen`, 404 `application_not_found`,
    /// 429 `agent_service_limit_exceeded`, 503 when the commit fails.
    pub async fn register_service(
        &self,
        request: RegisterService,
    ) -> Result<Arc<AgentService>, CoordinatorError> {
        if !request.caller.may_start_for(&request.application) {
            return Err(CoordinatorError::ownership());
        }
        let zone = self.zone(&request.zone);
        self.say(&zone, |desk, now| desk.judge_service(&request, now)).await
    }

    /// The service with this id.
    #[must_use]
    pub fn service(&self, zone: &str, id: &str) -> Option<Arc<AgentService>> {
        self.known_zone(zone)?.desk.lock().jobs.services.get(id).cloned()
    }

    /// Services of the zone, newest first. Everybody in the zone sees them: that is what they are registered for.
    ///
    /// # Errors
    /// 400 `invalid_cursor`.
    pub fn list_services(
        &self,
        zone: &str,
        page: &PageRequest,
    ) -> Result<Page<AgentService>, CoordinatorError> {
        let Some(zone) = self.known_zone(zone) else { return nothing(page) };
        let desk = zone.desk.lock();
        page_of(&desk.jobs.services, page, |_| true, |_| true, |row| &row.id)
    }

    /// Notes what a service's own session said of it.
    ///
    /// # Errors
    /// 404 `agent_service_not_found`, also for a service of another application; 503 when the commit fails.
    pub async fn service_heard(
        &self,
        zone: &str,
        id: &str,
        application: &str,
        health: ServiceHealth,
    ) -> Result<Arc<AgentService>, CoordinatorError> {
        let lost = || CoordinatorError::new(404, "agent_service_not_found");
        let zone = self.known_zone(zone).ok_or_else(lost)?;
        self.say(&zone, |desk, now| {
            let before = desk.jobs.services.get(id).filter(|row| *row.application == *application);
            let before = AgentService::clone(before.ok_or_else(lost)?);
            Ok(AgentService { health, last_heartbeat_at: Some(now), ..before })
        })
        .await
    }

    /// Shows what is said of a service, then commits it; what is not committed is taken back.
    async fn say(
        &self,
        zone: &Arc<Zone>,
        judge: impl Fn(&Desk, i64) -> Result<AgentService, CoordinatorError>,
    ) -> Result<Arc<AgentService>, CoordinatorError> {
        let mut again = Again::default();
        loop {
            let told = {
                let mut desk = zone.desk.lock();
                let row = Arc::new(judge(&desk, self.shared.clock.now())?);
                let before = desk.jobs.services.insert(Arc::clone(&row.id), Arc::clone(&row));
                let writes = vec![Write::Service(Arc::clone(&row))];
                let (tell, told) = oneshot::channel();
                let zone = Arc::clone(zone);
                let done = move |outcome: Result<(), StateError>| {
                    if outcome.is_err() {
                        zone.desk.lock().jobs.forget_said(&row, before);
                    }
                    drop(tell.send(outcome.map(|()| row).map_err(CoordinatorError::from)));
                };
                self.shared.queue.send(writes, Intent::Widen, Box::new(done));
                told
            };
            let outcome = told.await.unwrap_or(Err(StateError::Closed.into()));
            if !again.should(&outcome) {
                return outcome;
            }
        }
    }
}

impl Desk {
    fn judge_service(&self, request: &RegisterService, now: i64) -> Result<AgentService, CoordinatorError> {
        self.not_frozen()?;
        if !request.application_known {
            return Err(CoordinatorError::new(404, "application_not_found"));
        }
        let services = &self.jobs.services;
        let known = services
            .values()
            .find(|row| row.application == request.application && row.endpoint_url == request.endpoint_url);
        if known.is_none() && services.len() >= self.shared.limits.services_per_zone {
            return Err(CoordinatorError::new(429, "agent_service_limit_exceeded"));
        }
        Ok(AgentService {
            id: known.map_or_else(|| new_id(now), |row| Arc::clone(&row.id)),
            zone: Arc::clone(&request.zone),
            application: Arc::clone(&request.application),
            endpoint_url: Arc::clone(&request.endpoint_url),
            protocol_versions: request.protocol_versions.clone(),
            framework_name: request.framework_name.clone(),
            framework_version: request.framework_version.clone(),
            capabilities: request.capabilities.clone(),
            health: known.map(|row| row.health).unwrap_or_default(),
            metadata: request.metadata.clone(),
            registered_at: now,
            last_heartbeat_at: known.and_then(|row| row.last_heartbeat_at),
        })
    }
}
