//! Putting kept versions into force for an operator.

use serde_json::{Value, json};

use super::{Operate, rehearsal, retired};
use crate::control::{Failure, Operator};
use crate::reload::{Promotion, Wanted};

/// Reads the files again.
pub(super) async fn reload(on: &Operate, operator: Operator) -> Value {
    let turn = on.app.retirement.turn().await;
    retired::finish(on, operator, turn, on.reload().await).await
}

/// Puts the candidate into force.
pub(super) async fn promote(
    on: &Operate,
    zone: &str,
    promotion: Promotion,
    operator: Operator,
) -> Result<Value, Failure> {
    let turn = on.app.retirement.turn().await;
    let done = rehearsal::promote(on, zone, promotion).await?;
    Ok(retired::finish(on, operator, turn, done).await)
}

/// Puts what is wanted into force.
pub(super) async fn activate(
    on: &Operate,
    zone: Option<&str>,
    wanted: Wanted,
    operator: Operator,
) -> Result<Value, Failure> {
    let zone = on.meant(zone)?.zone.id().to_string();
    let turn = on.app.retirement.turn().await;
    let done = on.app.reloader.activate(zone.clone(), wanted, operator.uid).await;
    let done = done.map_err(|error| Failure::new(error.code(), error.to_string()))?;
    let done = json!({
        "zone": zone, "version": done.version, "digest": done.digest.to_string(),
        "generation": done.generation, "pinned": done.pinned, "changes": done.changes,
    });
    Ok(retired::finish(on, operator, turn, done).await)
}
