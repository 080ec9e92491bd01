//! What an operator may do to a running process, behind the control socket.

mod approvals;
mod budgets;
mod connections;
mod keys;
mod providers;
mod rehearsal;
mod retired;
mod revoke;
mod secrets;
mod sessions;
mod sinks;
mod standing;
mod versions;
mod what_can;
mod who_can;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::app::App;
use crate::control::{ApplicationView, ControlHandler, Endpoints, Failure, Operator, Request, base_url};
use crate::ledger::{Event, SYSTEM, read};
use crate::reload::versions::name_of;
use crate::reload::{SecretsOutcome, Wanted, ZoneResult};
use crate::serve::Addresses;
use crate::snapshot::LiveZone;

/// Carries out requests of the control socket.
#[derive(Debug)]
pub struct Operate {
    app: Arc<App>,
    addresses: Addresses,
}

impl Operate {
    /// A handler over the running process.
    #[must_use]
    pub const fn new(app: Arc<App>, addresses: Addresses) -> Self {
        Self { app, addresses }
    }
}

#[async_trait]
impl ControlHandler for Operate {
    async fn handle(&self, request: Request, operator: Operator) -> Result<Value, Failure> {
        let outcome = self.act(&request, operator).await;
        if let Some((zone, act)) = recorded(&request) {
            // An act that left its zone open has found it. A name that is no zone's gets no chain of its own.
            let found = outcome.as_ref().ok().and_then(|data| data.get("zone")).and_then(Value::as_str);
            let chain = zone.or(found).filter(|zone| self.known(zone).is_ok()).unwrap_or(SYSTEM);
            self.record(chain, act, &request, operator, &outcome)?;
        }
        outcome
    }
}

impl Operate {
    #[expect(clippy::cognitive_complexity, reason = "one table, to be read as one")]
    async fn act(&self, request: &Request, operator: Operator) -> Result<Value, Failure> {
        let app = &self.app;
        match request {
            Request::Status => Ok(self.status()),
            Request::Freeze { zone } => standing::freeze(self, zone).await,
            Request::Unfreeze { zone } => standing::unfreeze(self, zone).await,
            Request::KeysList => Ok(json!({ "keys": app.keyring.list() })),
            Request::KeysRotate { zone } => keys::rotate(self, zone).await,
            Request::KeysRevoke { zone, kid } => keys::revoke(self, zone, kid).await,
            Request::Revoke { zone, target, reason, dry_run } => {
                revoke::revoke(self, zone.as_deref(), target, reason.as_deref(), *dry_run).await
            }
            Request::Sessions { zone, which, limit } => sessions::list(self, zone.as_deref(), *which, *limit),
            Request::Session { zone, id } => sessions::show(self, zone.as_deref(), id),
            Request::WhatCan { zone, id } => what_can::what_can(self, zone.as_deref(), id),
            Request::WhoCan { zone, method, url } => who_can::who_can(self, zone.as_deref(), method, url),
            Request::RestoreApplication { zone, application } => {
                standing::restore(self, zone, application).await
            }
            Request::Approvals { zone, all } => approvals::list(self, zone.as_deref(), *all),
            Request::DecideApproval { id, approved, reason } => {
                approvals::decide(self, operator, id, *approved, reason.as_deref()).await
            }
            Request::Sinks { zone } => sinks::list(self, zone.as_deref()).await,
            Request::SinkTest { zone, sink } => sinks::test(self, zone.as_deref(), sink).await,
            Request::Reload => Ok(versions::reload(self, operator).await),
            Request::Activate { zone, version } => {
                let wanted = version.clone().map_or(Wanted::Files, Wanted::Version);
                versions::activate(self, zone.as_deref(), wanted, operator).await
            }
            Request::Rollback { zone } => {
                versions::activate(self, zone.as_deref(), Wanted::Earlier, operator).await
            }
            Request::Shadow { zone } => rehearsal::shadow(self, zone.as_deref()).await,
            Request::Promote { zone, promotion } => {
                versions::promote(self, zone, promotion.clone(), operator).await
            }
            Request::SecretsList => secrets::list(self).await,
            Request::RotateCheck { secret, old, grace_ms } => {
                secrets::rotate_check(self, secret, old.as_deref(), *grace_ms).await
            }
            Request::RetiredSecrets { zone } => retired::list(self, zone.as_deref()),
            Request::ReadmitSecret { zone, application, secret } => {
                retired::readmit(self, zone, application, secret.as_deref()).await
            }
            Request::Budgets { zone, budget, limit } => {
                budgets::list(self, zone.as_deref(), budget.as_deref(), *limit)
            }
            Request::Providers { zone } => providers::list(self, zone.as_deref()),
            Request::ProviderTest { zone, provider } => {
                providers::test(self, zone.as_deref(), provider).await
            }
            Request::ProviderConnect { zone, provider, subject } => {
                connections::begin(self, operator, zone, provider, subject).await
            }
            Request::ProviderFlow { flow } => connections::follow(self, flow).await,
            Request::ProviderConnections { zone } => connections::list(self, zone.as_deref()),
            Request::ProviderDisconnect { zone, provider, subject } => {
                connections::end(self, zone, provider, subject).await
            }
            Request::Decision { id } => self.decision(id.clone()).await,
            Request::LedgerKey => Ok(self.ledger_key()),
            Request::Application { zone, application } => self.application(zone.as_deref(), application),
        }
    }

    fn status(&self) -> Value {
        let app = &self.app;
        let snapshot = app.snapshot.load();
        let zones = snapshot.zones.values().map(|live| {
            json!({
                "id": live.zone.id(), "name": live.zone.name(), "digest": live.zone.digest().to_string(),
                "version": name_of(&live.version), "pinned": live.pinned,
                "revision": live.signed.as_ref().map(|signed| signed.revision),
                "bundle_generation": live.bundle_generation, "frozen": app.state.frozen(live.zone.id()),
                "applications": live.zone.applications().count(), "resources": live.zone.resources().count(),
                "candidate": rehearsal::summary(app, live),
            })
        });
        let mut zones: Vec<Value> = zones.collect();
        zones.sort_by_key(|zone| zone["id"].as_str().unwrap_or_default().to_owned());
        let ledger = app.ledger.status();
        let readiness = app.readiness();
        json!({
            "version": env!("CARGO_PKG_VERSION"), "ready": readiness.is_ok(), "reason": readiness.err(),
            "rejected_bundles": app.reloader.standing().bundles_rejected,
            "generation": snapshot.generation, "secrets_generation": snapshot.secrets_generation,
            "issuer": app.config.issuer, "in_flight": app.live.count(), "zones": zones,
            "listeners": {
                "gateway": self.addresses.gateway, "authority": self.addresses.authority,
                "coordinator": self.addresses.coordinator, "ops": self.addresses.ops,
            },
            "ledger": {
                "healthy": ledger.healthy, "reserved": ledger.reserved, "capacity": ledger.capacity,
                "written": ledger.written, "trouble": ledger.trouble,
            },
        })
    }

    async fn reload(&self) -> Value {
        let outcome = self.app.reloader.reload().await;
        let pinned = self.app.pinned();
        let zones = outcome.zones.into_iter().map(|zone| match zone.result {
            ZoneResult::Accepted { digest, changes } => {
                json!({ "zone": zone.zone, "result": "accepted", "digest": digest.to_string(), "changes": changes })
            }
            ZoneResult::Unchanged => {
                let pinned = pinned.iter().any(|id| **id == *zone.zone);
                json!({ "zone": zone.zone, "result": "unchanged", "pinned": pinned })
            }
            ZoneResult::Rejected(report) => {
                json!({ "zone": zone.zone, "result": "rejected", "report": report.to_string() })
            }
        });
        let zones: Vec<Value> = zones.collect();
        let secrets = match outcome.secrets {
            SecretsOutcome::Accepted { changes, unserved } => {
                json!({ "result": "accepted", "changes": changes, "unserved": unserved.len() })
            }
            SecretsOutcome::Unchanged => json!({ "result": "unchanged" }),
            SecretsOutcome::Rejected(report) => json!({ "result": "rejected", "report": report.to_string() }),
        };
        json!({ "generation": outcome.generation, "zones": zones, "secrets": secrets })
    }

    async fn decision(&self, id: String) -> Result<Value, Failure> {
        self.app
            .ledger
            .flush()
            .await
            .map_err(|error| Failure::new("ledger_unavailable", error.to_string()))?;
        let dir = self.app.ledger.dir().to_owned();
        let records = blocking(move || read::find(&dir, None, &id)).await?;
        if records.is_empty() {
            return Err(Failure::new("unknown_decision", "no record has this decision id or request id"));
        }
        Ok(json!({ "records": records }))
    }

    fn application(&self, zone: Option<&str>, application: &str) -> Result<Value, Failure> {
        let snapshot = self.app.snapshot.load();
        let listeners = &self.app.config.listeners;
        let endpoints = Endpoints {
            issuer: self.app.config.issuer.clone(),
            coordinator: base_url(self.addresses.coordinator, listeners.coordinator.tls.is_some()),
            gateway: base_url(self.addresses.gateway, listeners.gateway.tls.is_some()),
        };
        let zones = snapshot.zones.values().map(|live| &*live.zone);
        let view = ApplicationView::find(endpoints, zones, zone, application)?;
        serde_json::to_value(view).map_err(|error| Failure::new("internal_error", error.to_string()))
    }

    fn ledger_key(&self) -> Value {
        json!({
            "public_key": self.app.ledger_key.to_string(),
            "fingerprint": self.app.ledger_key.fingerprint().to_string(),
            "ledger": self.app.ledger.dir(),
        })
    }

    fn known(&self, zone: &str) -> Result<Arc<LiveZone>, Failure> {
        self.app.snapshot.load().zones.get(zone).cloned().ok_or_else(|| {
            Failure::new(
                "unknown_zone",
                format!("there is no zone `{zone}`; `caracal status` shows the zones there are"),
            )
        })
    }

    /// The zone that is meant: the named one, or the only one there is.
    fn meant(&self, named: Option<&str>) -> Result<Arc<LiveZone>, Failure> {
        if let Some(zone) = named {
            return self.known(zone);
        }
        let snapshot = self.app.snapshot.load();
        let mut zones = snapshot.zones.values();
        match (zones.next(), zones.next()) {
            (Some(only), None) => Ok(Arc::clone(only)),
            (Some(_), Some(_)) => {
                Err(Failure::new("zone_needed", "there are several zones; name one with --zone"))
            }
            (None, _) => Err(Failure::new("unknown_zone", "no zone is loaded")),
        }
    }

    /// The zones to look in: the named one, or all of them in order.
    fn looked_at(&self, named: Option<&str>) -> Result<Vec<Arc<LiveZone>>, Failure> {
        if let Some(zone) = named {
            return Ok(vec![self.known(zone)?]);
        }
        let mut zones: Vec<_> = self.app.snapshot.load().zones.values().cloned().collect();
        zones.sort_by(|a, b| a.zone.id().cmp(b.zone.id()));
        Ok(zones)
    }

    fn known_application(&self, zone: &str, application: &str) -> Result<(), Failure> {
        // An application may be revoked after it left the bundle: what it held may still be about.
        self.known(zone)?;
        if application.is_empty() {
            return Err(Failure::new("unknown_application", "the application id is empty"));
        }
        Ok(())
    }

    fn record(
        &self,
        zone: &str,
        act: &'static str,
        request: &Request,
        operator: Operator,
        outcome: &Result<Value, Failure>,
    ) -> Result<(), Failure> {
        let done = outcome.is_ok();
        let mut metadata = Map::new();
        metadata.insert("operator_uid".into(), json!(operator.uid));
        metadata.insert("request".into(), serde_json::to_value(request).unwrap_or_default());
        if let (Request::Revoke { .. }, Ok(data)) = (request, outcome) {
            metadata.extend(revoke::about(data));
        }
        if let (Request::DecideApproval { .. }, Ok(data)) = (request, outcome) {
            metadata.extend(approvals::about(data));
        }
        if let (Request::Activate { .. } | Request::Rollback { .. }, Ok(data)) = (request, outcome) {
            let about = ["version", "digest", "pinned"].into_iter();
            metadata.extend(about.filter_map(|name| Some((name.to_owned(), data.get(name)?.clone()))));
        }
        if let (Request::ReadmitSecret { .. }, Ok(data)) = (request, outcome) {
            metadata.extend(data.get("readmitted").map(|names| ("readmitted".to_owned(), names.clone())));
        }
        if let (Request::Promote { .. }, Ok(data)) = (request, outcome) {
            metadata.extend(rehearsal::about(data));
        }
        if let (
            Request::ProviderTest { .. } | Request::ProviderDisconnect { .. } | Request::SinkTest { .. },
            Ok(data),
        ) = (request, outcome)
        {
            let about =
                ["outcome", "status", "detail", "fingerprint", "connection_id", "upstream_revocation"]
                    .into_iter();
            metadata.extend(about.filter_map(|name| Some((name.to_owned(), data.get(name)?.clone()))));
        }
        let event = Event {
            id: Uuid::now_v7().to_string(),
            zone_id: zone.to_owned(),
            event_type: act,
            request_id: Uuid::new_v4().to_string(),
            decision: if let (Request::DecideApproval { approved, .. }, true) = (request, done) {
                if *approved { "approved" } else { "rejected" }
            } else if done {
                "allow"
            } else {
                "deny"
            },
            evaluation_status: if done { "complete" } else { "failed" }.to_owned(),
            determining_policies: Vec::new(),
            diagnostics: json!([]),
            metadata,
            occurred_at: self.app.clock.now(),
        };
        self.app.ledger.event(event).map_err(|error| {
            Failure::new(
                "ledger_unavailable",
                format!("the act is in force but could not be recorded: {error}"),
            )
        })
    }
}

/// The chain and the event type of requests that change something.
fn recorded(request: &Request) -> Option<(Option<&str>, &'static str)> {
    let (zone, act) = match request {
        Request::Freeze { zone } => (zone.as_str(), "operator_freeze"),
        Request::Unfreeze { zone } => (zone.as_str(), "operator_unfreeze"),
        Request::KeysRotate { zone } => (zone.as_str(), "operator_keys_rotate"),
        Request::KeysRevoke { zone, .. } => (zone.as_str(), "operator_keys_revoke"),
        Request::Revoke { zone, dry_run: false, .. } => return Some((zone.as_deref(), "operator_revoke")),
        Request::RestoreApplication { zone, .. } => (zone.as_str(), "operator_restore_application"),
        Request::Reload => (SYSTEM, "operator_reload"),
        Request::ReadmitSecret { zone, .. } => (zone.as_str(), "operator_secret_readmit"),
        Request::Activate { zone, .. } => return Some((zone.as_deref(), "operator_activate")),
        Request::Promote { zone, .. } => (zone.as_str(), "operator_promote"),
        Request::Rollback { zone } => return Some((zone.as_deref(), "operator_rollback")),
        Request::ProviderTest { zone, .. } => return Some((zone.as_deref(), "operator_provider_test")),
        Request::ProviderConnect { zone, .. } => (zone.as_str(), "operator_provider_connect"),
        Request::ProviderDisconnect { zone, .. } => (zone.as_str(), "operator_provider_disconnect"),
        Request::DecideApproval { .. } => return Some((None, "step_up_decided")),
        Request::SinkTest { zone, .. } => return Some((zone.as_deref(), "operator_sink_test")),
        Request::Revoke { dry_run: true, .. }
        | Request::Approvals { .. }
        | Request::Sinks { .. }
        | Request::RetiredSecrets { .. }
        | Request::Sessions { .. }
        | Request::Session { .. }
        | Request::WhatCan { .. }
        | Request::WhoCan { .. }
        | Request::Status
        | Request::KeysList
        | Request::Shadow { .. }
        | Request::SecretsList
        | Request::RotateCheck { .. }
        | Request::Budgets { .. }
        | Request::Providers { .. }
        | Request::ProviderFlow { .. }
        | Request::ProviderConnections { .. }
        | Request::Decision { .. }
        | Request::LedgerKey
        | Request::Application { .. } => return None,
    };
    Some((Some(zone), act))
}

fn store_failed(error: impl std::fmt::Display) -> Failure {
    Failure::new("state_unavailable", format!("it is in force in memory but could not be stored: {error}"))
}

async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, Failure>
where
    T: Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(|error| Failure::new("refused", error.to_string())),
        Err(error) => Err(Failure::new("internal_error", error.to_string())),
    }
}
