//! Candidates: what they would change, and putting one into force.

use serde_json::{Map, Value, json};

use super::{Operate, blocking};
use crate::app::App;
use crate::control::Failure;
use crate::reload::Promotion;
use crate::reload::versions::name_of;
use crate::snapshot::LiveZone;

/// The candidate of a zone in a few words, for `caracal status`.
pub(super) fn summary(app: &App, live: &LiveZone) -> Value {
    let id: &str = live.zone.id();
    if let Some(refused) = app.reloader.standing().candidates_refused.remove(id) {
        return json!({ "refused": refused });
    }
    live.rehearsal.as_ref().map_or(Value::Null, |rehearsal| rehearsal.summary())
}

/// What candidates would change.
pub(super) async fn shadow(on: &Operate, zone: Option<&str>) -> Result<Value, Failure> {
    let mut zones = Vec::new();
    for live in on.looked_at(zone)? {
        let refused = on.app.reloader.standing().candidates_refused.remove(&**live.zone.id());
        let (mut candidate, mut report) = (Value::Null, Value::Null);
        if let Some(rehearsal) = live.rehearsal.clone().filter(|_| refused.is_none()) {
            candidate = rehearsal.summary();
            report = blocking(move || Ok::<_, std::convert::Infallible>(rehearsal.report())).await?;
        }
        zones.push(json!({
            "zone": live.zone.id(), "refused": refused, "candidate": candidate, "rehearsal": report,
            "pinned": live.pinned,
            "active": { "version": name_of(&live.version), "digest": live.zone.digest().to_string() },
        }));
    }
    Ok(json!({ "zones": zones }))
}

/// Puts a candidate into force.
pub(super) async fn promote(on: &Operate, zone: &str, promotion: Promotion) -> Result<Value, Failure> {
    on.known(zone)?;
    let done = on.app.reloader.promote(zone.to_owned(), promotion).await;
    let done = done.map_err(|error| Failure::new(error.code(), error.to_string()))?;
    Ok(json!({
        "zone": zone, "version": done.version, "digest": done.digest.to_string(),
        "generation": done.generation, "changes": done.changes, "replaced": done.replaced,
        "compared": done.counts.compared, "newly_allowed": done.counts.newly_allowed,
        "newly_denied": done.counts.newly_denied,
    }))
}

/// What the ledger says of a promotion beside what was asked.
pub(super) fn about(done: &Value) -> Map<String, Value> {
    let told = ["version", "digest", "compared", "newly_allowed", "newly_denied"].into_iter();
    told.filter_map(|name| Some((name.to_owned(), done.get(name)?.clone()))).collect()
}
