//! Providers as an operator sees them: what they are, which token is kept, and whether there is one to be had.

use std::sync::Arc;
use std::time::Instant;

use caracal_policies::{Provider, Resource};
use serde_json::{Map, Value, json};

use super::Operate;
use crate::broker::{Order, Unavailable};
use crate::control::Failure;
use crate::snapshot::LiveZone;
use crate::state::ConnectionStatus;

/// Every provider of the zones looked at.
pub(super) fn list(operate: &Operate, zone: Option<&str>) -> Result<Value, Failure> {
    let mut rows = Vec::new();
    for live in operate.looked_at(zone)? {
        for provider in live.zone.providers() {
            rows.push(row(operate, &live, provider));
        }
    }
    Ok(json!({ "providers": rows }))
}

fn row(operate: &Operate, live: &LiveZone, provider: &Arc<Provider>) -> Value {
    let used = |resource: &&Arc<Resource>| {
        resource.provider.as_ref().is_some_and(|used| used.identifier == provider.identifier)
    };
    let mut row = Map::new();
    let mut say = |name: &str, value: Value| row.insert(name.to_owned(), value);
    say("zone", json!(live.zone.id()));
    say("provider", json!(provider.identifier));
    say("kind", json!(provider.kind.word()));
    say("resources", json!(live.zone.resources().filter(used).count()));
    if let Some(token) = provider.service_token().filter(|token| token.consent().is_some()) {
        let all = operate.app.state.list_connections(live.zone.id());
        let own = all.iter().filter(|row| row.key.provider == provider.identifier);
        say(token.source.word(), json!(token.source.url().as_str()));
        say("connections", json!(own.filter(|row| row.status == ConnectionStatus::Active).count()));
    } else if let Some(token) = provider.service_token() {
        let standing = operate.app.broker.standing(&order(operate, live, provider));
        let now = operate.app.clock.now();
        let kept = standing.token.map(|(fingerprint, expires_at)| {
            json!({ "fingerprint": fingerprint, "expires_in_seconds": seconds(expires_at, now) })
        });
        say(token.source.word(), json!(token.source.url().as_str()));
        say("token", json!(kept));
        say("failures", json!(standing.failures));
        say("last_failure", json!(standing.why.map(Unavailable::word)));
        say("circuit_open", json!(standing.open));
    }
    Value::Object(row)
}

/// Fetches a token and says how that went; the token is dropped.
pub(super) async fn test(operate: &Operate, zone: Option<&str>, name: &str) -> Result<Value, Failure> {
    let mut found = Vec::new();
    for live in operate.looked_at(zone)? {
        let named = |provider: &&Arc<Provider>| *provider.identifier == *name || *provider.id == *name;
        let provider = live.zone.providers().find(named).cloned();
        if let Some(provider) = provider {
            found.push((live, provider));
        }
    }
    let mut found = found.into_iter();
    let (live, provider) = match (found.next(), found.next()) {
        (Some(only), None) => only,
        (Some(_), Some(_)) => {
            return Err(Failure::new(
                "zone_needed",
                "several zones have this provider; name one with --zone",
            ));
        }
        (None, _) => {
            let message = "there is no such provider; `caracal providers list` shows those there are";
            return Err(Failure::new("unknown_provider", message));
        }
    };
    if provider.service_token().is_some_and(|token| token.consent().is_some()) {
        let message =
            "this provider has a token for each connection; `caracal providers connections` shows them";
        return Err(Failure::new("no_token", message));
    }
    if provider.service_token().is_none() {
        let message = format!("a provider of kind `{}` fetches no token", provider.kind.word());
        return Err(Failure::new("no_token", message));
    }
    let started = Instant::now();
    let fetched = operate.app.broker.probe(&order(operate, &live, &provider)).await;
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (zone, identifier) = (live.zone.id(), &provider.identifier);
    Ok(match fetched {
        Ok(token) => json!({
            "zone": zone, "provider": identifier, "outcome": "ok", "took_ms": took_ms,
            "expires_in_seconds": seconds(token.expires_at, operate.app.clock.now()),
            "fingerprint": token.fingerprint,
        }),
        Err(trouble) => json!({
            "zone": zone, "provider": identifier, "outcome": trouble.why.word(), "took_ms": took_ms,
            "detail": trouble.detail,
        }),
    })
}

pub(super) fn order(operate: &Operate, live: &LiveZone, provider: &Arc<Provider>) -> Order {
    Order {
        snapshot: operate.app.snapshot.load(),
        zone: Arc::clone(live.zone.id()),
        provider: Arc::clone(provider),
        connection: None,
    }
}

pub(super) fn seconds(until: i64, now: i64) -> i64 {
    until.saturating_sub(now).div_euclid(1_000)
}
