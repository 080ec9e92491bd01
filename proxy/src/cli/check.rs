//! `caracal check`: the report a start or a reload would give, without starting or reloading anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use caracal_plugins::Registry;
use caracal_policies::Zone;
use serde_json::{Value, json};

use super::activate::warn;
use super::exit::Failed;
use super::out::{Out, Style};
use super::{Exit, Global, edge};
use crate::control::Request;
use crate::reload;
use crate::retired::{self, KeptOut};

pub(super) const HELP: &str = "\
Reads the configuration, the secrets file and the bundle of every zone, and compiles them. Every
problem is reported at once, each with its place, what was found, what was expected and a hint. A
running edge is asked which of the listed application secrets were retired.

  caracal check --config caracal.toml && caracal reload

Exit codes: 0 all good, 64 problems were found.";

pub(super) async fn run(global: &Global, out: &mut Out, plugins: &Registry) -> Result<Exit, Failed> {
    match checked(global, plugins) {
        Ok(zones) if global.json => {
            let warnings = retired(global, &zones).await;
            let zones: Value = zones.values().map(|zone| summary(zone)).collect();
            out.value(&json!({ "ok": true, "zones": zones, "warnings": warnings }), true)?;
        }
        Ok(zones) => {
            let verdict = out.paint(Style::Good, "all good");
            out.line(&format!("{}: {verdict}", global.config().display()))?;
            for zone in zones.values() {
                out.line(&told(zone))?;
            }
            warn(&json!({ "warnings": retired(global, &zones).await }), out)?;
        }
        Err(Failed::Report(report)) if global.json => {
            out.value(&json!({ "ok": false, "problems": report.problems }), true)?;
            return Ok(Exit::BadConfiguration);
        }
        Err(failed) => return Err(failed),
    }
    Ok(Exit::Done)
}

fn checked(global: &Global, plugins: &Registry) -> Result<BTreeMap<String, Arc<Zone>>, Failed> {
    let config = edge::load(global)?;
    Ok(reload::check(&config, plugins)?)
}

/// Which secrets the files list that the running edge, if there is one, refuses because they were retired.
async fn retired(global: &Global, zones: &BTreeMap<String, Arc<Zone>>) -> Vec<String> {
    let Ok(told) = edge::ask(global, &Request::RetiredSecrets { zone: None }).await else {
        return Vec::new();
    };
    let mut warnings = Vec::new();
    for row in told.get("zones").and_then(Value::as_array).into_iter().flatten() {
        let Some(zone) = row.get("zone").and_then(Value::as_str).and_then(|id| zones.get(id)) else {
            continue;
        };
        let names: Vec<&str> = row
            .get("retired")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for application in zone.applications() {
            for name in application.secrets.iter().map(retired::name) {
                if names.contains(&&*name) {
                    let (zone, application) = (Arc::clone(zone.id()), Arc::clone(&application.id));
                    let kept = KeptOut { zone, application, secret: name };
                    warnings.push(format!("zone {}: {}", kept.zone, kept.words()));
                }
            }
        }
    }
    warnings
}

fn told(zone: &Zone) -> String {
    let (applications, resources) = (zone.applications().count(), zone.resources().count());
    format!("  zone {}: applications {applications}, resources {resources}, {}", zone.id(), zone.digest())
}

fn summary(zone: &Zone) -> Value {
    json!({
        "zone": &**zone.id(),
        "applications": zone.applications().count(),
        "resources": zone.resources().count(),
        "digest": zone.digest().to_string(),
    })
}
