//! Connections as an operator makes, sees and ends them.

use std::sync::Arc;
use std::time::Duration;

use caracal_policies::Provider;
use serde_json::{Value, json};

use super::providers::{order, seconds};
use super::{Operate, store_failed};
use crate::authority::redirect_uri;
use crate::control::{Failure, Operator};
use crate::snapshot::LiveZone;
use crate::state::{Connection, ConnectionKey, iso};

/// How long one question about a flow waits; the asker asks again.
const WAIT: Duration = Duration::from_secs(2);
/// Bytes of a subject.
const MAX_SUBJECT: usize = 512;

/// Begins to connect an account; the address is for the person whose it is.
pub(super) async fn begin(
    operate: &Operate,
    operator: Operator,
    zone: &str,
    provider: &str,
    subject: &str,
) -> Result<Value, Failure> {
    let (live, provider) = known(operate, zone, provider)?;
    let key = key(&live, &provider, subject)?;
    let app = &operate.app;
    let begun =
        app.broker.begin(&order(operate, &live, &provider), key, &redirect_uri(app), operator.uid).await;
    let begun = begun.map_err(|trouble| {
        Failure::new("provider_unavailable", format!("{}: {}", trouble.why.word(), trouble.detail))
    })?;
    Ok(json!({
        "zone": live.zone.id(), "provider": provider.identifier, "subject": subject,
        "flow": begun.handle, "url": begun.url.as_str(), "redirect_uri": redirect_uri(app),
        "expires_in_seconds": seconds(begun.until, app.clock.now()),
    }))
}

/// How a flow stands, after a moment of waiting for its end.
pub(super) async fn follow(operate: &Operate, flow: &str) -> Result<Value, Failure> {
    let unknown =
        || Failure::new("unknown_flow", "the edge does not know this flow (any more); connect again");
    let app = &operate.app;
    let (mut told, until) = app.broker.flow(flow).ok_or_else(unknown)?;
    let waited = tokio::time::timeout(WAIT, told.wait_for(Option::is_some)).await;
    let outcome = match waited {
        Ok(Ok(outcome)) => outcome.clone(),
        Ok(Err(_gone)) => return Err(unknown()),
        Err(_elapsed) => None,
    };
    Ok(match outcome {
        Some(outcome) => json!({
            "outcome": outcome.code, "detail": outcome.detail, "connection_id": outcome.connection,
        }),
        None if until <= app.clock.now() => {
            json!({ "outcome": "oauth_state_expired", "detail": "nobody came back within ten minutes" })
        }
        None => json!({ "outcome": "pending", "expires_in_seconds": seconds(until, app.clock.now()) }),
    })
}

/// Every connection of the zones looked at.
pub(super) fn list(operate: &Operate, zone: Option<&str>) -> Result<Value, Failure> {
    let now = operate.app.clock.now();
    let mut rows = Vec::new();
    for live in operate.looked_at(zone)? {
        let found = operate.app.state.list_connections(live.zone.id());
        rows.extend(found.iter().map(|row| shown(row, now)));
    }
    Ok(json!({ "connections": rows }))
}

fn shown(row: &Connection, now: i64) -> Value {
    json!({
        "zone": row.key.zone, "provider": row.key.provider, "subject": row.key.subject, "id": row.id,
        "status": row.status.as_str(), "renewable": row.renewable,
        "connected_at": iso(row.created_at), "refreshed_at": iso(row.refreshed_at),
        "expires_in_seconds": row.expires_at.map(|at| seconds(at, now)),
    })
}

/// Ends a connection, and the calls that act with it.
pub(super) async fn end(
    operate: &Operate,
    zone: &str,
    provider: &str,
    subject: &str,
) -> Result<Value, Failure> {
    let live = operate.known(zone)?;
    // The provider may have left the bundle; what was connected to it may still be about.
    let found = find(&live, provider);
    let identifier = found.as_ref().map_or_else(|| provider.into(), |found| Arc::clone(&found.identifier));
    let key =
        ConnectionKey { zone: Arc::clone(live.zone.id()), provider: identifier, subject: subject.into() };
    let Some(ended) = end_one(operate, &live, &key).await? else {
        let message = "there is no such connection; `caracal providers connections` shows those there are";
        return Err(Failure::new("unknown_connection", message));
    };
    let Ended { id, requests, upstream } = ended;
    Ok(json!({
        "zone": key.zone, "provider": key.provider, "subject": subject, "connection_id": id,
        "outcome": "disconnected", "requests": requests, "upstream_revocation": upstream,
    }))
}

/// A connection that is over.
pub(super) struct Ended {
    pub(super) id: Arc<str>,
    /// Calls under way that were cut.
    pub(super) requests: usize,
    /// What came of giving the tokens back.
    pub(super) upstream: &'static str,
}

/// Ends one connection; none when there is nothing to end. It is over here whatever the provider says.
pub(super) async fn end_one(
    operate: &Operate,
    live: &LiveZone,
    key: &ConnectionKey,
) -> Result<Option<Ended>, Failure> {
    let app = &operate.app;
    let ended = app.state.end_connection(key).await;
    let requests = app.live.disconnect(&app.state);
    let Some(before) = ended.map_err(store_failed)? else { return Ok(None) };
    let upstream = match find(live, &key.provider) {
        None => "unsupported",
        Some(provider) => match app.broker.give_back(&order(operate, live, &provider), &before).await {
            Ok(true) => "revoked",
            Ok(false) => "unsupported",
            Err(trouble) => {
                let (zone, provider, detail) = (&*key.zone, &*key.provider, trouble.detail);
                tracing::warn!(zone, provider, detail, "tokens could not be given back at the provider");
                "failed"
            }
        },
    };
    Ok(Some(Ended { id: Arc::clone(&before.id), requests, upstream }))
}

fn find(live: &LiveZone, name: &str) -> Option<Arc<Provider>> {
    let named = |provider: &&Arc<Provider>| *provider.identifier == *name || *provider.id == *name;
    live.zone.providers().find(named).cloned()
}

fn known(operate: &Operate, zone: &str, name: &str) -> Result<(Arc<LiveZone>, Arc<Provider>), Failure> {
    let live = operate.known(zone)?;
    let provider = find(&live, name).ok_or_else(|| {
        let message = "the zone has no such provider; `caracal providers list` shows those there are";
        Failure::new("unknown_provider", message)
    })?;
    if provider.service_token().is_none_or(|token| token.consent().is_none()) {
        let message = format!("a provider of kind `{}` has no connections", provider.kind.word());
        return Err(Failure::new("provider_connection_unsupported", message));
    }
    Ok((live, provider))
}

fn key(live: &LiveZone, provider: &Provider, subject: &str) -> Result<ConnectionKey, Failure> {
    if subject.is_empty() || subject.len() > MAX_SUBJECT || subject.chars().any(char::is_control) {
        let message = format!("a subject has 1 to {MAX_SUBJECT} bytes and no control characters");
        return Err(Failure::new("subject_invalid", message));
    }
    Ok(ConnectionKey {
        zone: Arc::clone(live.zone.id()),
        provider: Arc::clone(&provider.identifier),
        subject: subject.into(),
    })
}
