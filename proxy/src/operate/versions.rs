//! Putting kept versions into force for an operator.

use serde_json::{Value, json};

use super::{Operate, rehearsal, retired};
use crate::control::{Failure, Operator, Request};
use crate::reload::Wanted;

/// Answers what puts bundles into force, and what is about the candidate for the next one.
pub(super) async fn answer(on: &Operate, request: &Request, operator: Operator) -> Result<Value, Failure> {
    if matches!(request, Request::Reload) {
        let turn = on.app.retirement.turn().await;
        return Ok(retired::finish(on, operator, turn, on.reload().await).await);
    }
    if let Request::Shadow { zone } = request {
        return rehearsal::shadow(on, zone.as_deref()).await;
    }
    if let Request::Promote { zone, promotion } = request {
        let turn = on.app.retirement.turn().await;
        let done = rehearsal::promote(on, zone, promotion.clone()).await?;
        return Ok(retired::finish(on, operator, turn, done).await);
    }
    if let Request::Activate { zone, version } = request {
        let wanted = version.clone().map_or(Wanted::Files, Wanted::Version);
        return activate(on, zone.as_deref(), wanted, operator).await;
    }
    let Request::Rollback { zone } = request else {
        return Err(Failure::new("internal_error", "the request is about something else"));
    };
    activate(on, zone.as_deref(), Wanted::Earlier, operator).await
}

/// Puts what is wanted into force.
async fn activate(
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
