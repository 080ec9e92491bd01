//! Putting kept versions into force for an operator.

use serde_json::{Value, json};

use super::Operate;
use crate::control::{Failure, Operator};
use crate::reload::Wanted;

/// Puts what is wanted into force.
pub(super) async fn activate(
    on: &Operate,
    zone: Option<&str>,
    wanted: Wanted,
    operator: Operator,
) -> Result<Value, Failure> {
    let zone = on.meant(zone)?.zone.id().to_string();
    let done = on.app.reloader.activate(zone.clone(), wanted, operator.uid).await;
    let done = done.map_err(|error| Failure::new(error.code(), error.to_string()))?;
    Ok(json!({
        "zone": zone, "version": done.version, "digest": done.digest.to_string(),
        "generation": done.generation, "pinned": done.pinned, "changes": done.changes,
    }))
}
