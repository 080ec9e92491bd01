//! The keys that sign mandates.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Operate, blocking};
use crate::control::Failure;

/// Publishes a new key.
pub(super) async fn rotate(operate: &Operate, zone: &str) -> Result<Value, Failure> {
    operate.known(zone)?;
    let app = &operate.app;
    let (keyring, zone, now) = (Arc::clone(&app.keyring), zone.to_owned(), app.clock.now());
    let rotation = blocking(move || keyring.rotate(&zone, now)).await?;
    Ok(json!({ "kid": rotation.kid, "signs_at": rotation.signs_at }))
}

/// Refuses everything a key signed.
pub(super) async fn revoke(operate: &Operate, zone: &str, kid: &str) -> Result<Value, Failure> {
    operate.known(zone)?;
    let app = &operate.app;
    if !app.keyring.list().iter().any(|key| *key.zone == *zone && *key.kid == *kid) {
        let message =
            format!("zone `{zone}` has no key `{kid}`; `caracal keys list` shows the keys there are");
        return Err(Failure::new("unknown_key", message));
    }
    let (keyring, now) = (Arc::clone(&app.keyring), app.clock.now());
    let (zone, revoked) = (zone.to_owned(), kid.to_owned());
    blocking(move || keyring.revoke(&zone, &revoked, now)).await?;
    Ok(json!({
        "kid": kid, "revoked": true,
        "note": "refused here from the next request; verifiers elsewhere follow within 300 seconds",
    }))
}
