//! Notification sinks as an operator sees and tries them.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::{Operate, blocking};
use crate::control::Failure;

/// The sinks of one zone or all: where they are, how far they have come, and what failed.
pub(super) async fn list(operate: &Operate, zone: Option<&str>) -> Result<Value, Failure> {
    let zones: Vec<Arc<str>> =
        operate.looked_at(zone)?.iter().map(|live| Arc::clone(live.zone.id())).collect();
    let app = Arc::clone(&operate.app);
    let rows = blocking(move || app.sinks.list(&app, &zones)).await?;
    Ok(json!({ "sinks": rows }))
}

/// Sends a sink a test event and says how that went.
pub(super) async fn test(operate: &Operate, zone: Option<&str>, name: &str) -> Result<Value, Failure> {
    let app = &operate.app;
    let mut zones = app.sinks.zones_of(name).filter(|own| zone.is_none_or(|zone| zone == *own));
    let zone = match (zones.next(), zones.next()) {
        (Some(only), None) => only,
        (Some(_), Some(_)) => {
            return Err(Failure::new("zone_needed", "several zones have this sink; name one with --zone"));
        }
        (None, _) => {
            let message = "there is no such sink; `caracal approvals sinks list` shows those there are";
            return Err(Failure::new("unknown_sink", message));
        }
    };
    let started = Instant::now();
    let tested = app.sinks.test(app, zone, name).await;
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(match tested {
        Ok(status) => json!({
            "zone": zone, "sink": name, "outcome": "delivered", "status": status, "took_ms": took_ms,
        }),
        Err(why) => json!({
            "zone": zone, "sink": name, "outcome": "failed", "detail": why, "took_ms": took_ms,
        }),
    })
}
