//! Stopping a zone, and letting zones and applications go on.

use serde_json::{Value, json};

use super::{Operate, store_failed};
use crate::control::Failure;

/// Stops a zone.
pub(super) async fn freeze(operate: &Operate, zone: &str) -> Result<Value, Failure> {
    operate.known(zone)?;
    operate.app.state.freeze(zone).await.map_err(store_failed)?;
    Ok(json!({ "zone": zone, "frozen": true }))
}

/// Lets a stopped zone go on.
pub(super) async fn unfreeze(operate: &Operate, zone: &str) -> Result<Value, Failure> {
    operate.known(zone)?;
    operate.app.state.unfreeze(zone).await.map_err(store_failed)?;
    if let Some(fleet) = &operate.app.fleet {
        fleet.unfrozen(zone);
    }
    Ok(json!({ "zone": zone, "frozen": false }))
}

/// Lets new mandates be minted for a revoked application.
pub(super) async fn restore(operate: &Operate, zone: &str, application: &str) -> Result<Value, Failure> {
    operate.known_application(zone, application)?;
    operate.app.state.restore_application(zone, application).await.map_err(store_failed)?;
    if let Some(fleet) = &operate.app.fleet {
        fleet.restored(zone, application);
    }
    Ok(json!({ "zone": zone, "application": application, "restored": true }))
}
