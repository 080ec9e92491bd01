//! Retired secrets of applications, as an operator sees and readmits them.

use serde_json::{Value, json};

use super::{Operate, store_failed};
use crate::control::{Failure, Operator};
use crate::retired::{self, Turn};
use crate::state::TombstoneKind;

/// Names of the secrets that are retired, by zone, and which of them the files list all the same.
pub(super) fn list(operate: &Operate, zone: Option<&str>) -> Result<Value, Failure> {
    let app = &operate.app;
    let mut rows = Vec::new();
    for live in operate.looked_at(zone)? {
        let listed: Vec<Value> = retired::kept_out(app, &live.zone)
            .iter()
            .map(|one| json!({ "application": one.application, "secret": retired::short(&one.secret) }))
            .collect();
        let zone = live.zone.id();
        let names = app.state.graves(TombstoneKind::SecretHash, zone);
        rows.push(json!({ "zone": zone, "retired": names, "listed": listed }));
    }
    Ok(json!({ "zones": rows }))
}

/// Lets retired secrets in again that an application's bundle lists.
pub(super) async fn readmit(
    operate: &Operate,
    zone: &str,
    application: &str,
    secret: Option<&str>,
) -> Result<Value, Failure> {
    let live = operate.known(zone)?;
    let secret = secret.unwrap_or_default();
    let app = &operate.app;
    let done = app.retirement.readmit(app, &live.zone, application, secret).await.map_err(store_failed)?;
    if done.is_empty() {
        let message = format!(
            "application `{application}` lists no secret that is retired; `caracal secret retired` shows those there are"
        );
        return Err(Failure::new("nothing_retired", message));
    }
    let names: Vec<&str> = done.iter().map(|one| retired::short(&one.secret)).collect();
    Ok(json!({ "zone": zone, "application": application, "readmitted": names }))
}

/// Finishes an act that may have put other applications into force: what left is ended in the operator's name, and the
/// answer says what is refused all the same.
pub(super) async fn finish(operate: &Operate, operator: Operator, turn: Turn<'_>, mut done: Value) -> Value {
    let app = &operate.app;
    if let Err(error) = turn.settle(app, Some(operator.uid)).await {
        tracing::error!(%error, "what left a bundle could not be stored as gone; it is tried again");
    }
    app.retirement.tell(app);
    let zone = done.get("zone").and_then(Value::as_str).map(str::to_owned);
    let warnings: Vec<String> = retired::warnings(app, zone.as_deref())
        .into_iter()
        .flat_map(|(zone, words)| words.into_iter().map(move |words| format!("zone {zone}: {words}")))
        .collect();
    if let (Some(members), false) = (done.as_object_mut(), warnings.is_empty()) {
        members.insert("warnings".to_owned(), json!(warnings));
    }
    done
}
