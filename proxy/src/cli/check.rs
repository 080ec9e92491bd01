//! `caracal check`: the report a start or a reload would give, without starting or reloading anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use caracal_plugins::Registry;
use caracal_policies::Zone;
use serde_json::{Value, json};

use super::exit::Failed;
use super::out::{Out, Style};
use super::{Exit, Global, edge};
use crate::reload;

pub(super) const HELP: &str = "\
Reads the configuration, the secrets file and the bundle of every zone, and compiles them. Every
problem is reported at once, each with its place, what was found, what was expected and a hint.

  caracal check --config caracal.toml && caracal reload

Exit codes: 0 all good, 64 problems were found.";

pub(super) fn run(global: &Global, out: &mut Out, plugins: &Registry) -> Result<Exit, Failed> {
    match checked(global, plugins) {
        Ok(zones) if global.json => {
            let zones: Value = zones.values().map(|zone| summary(zone)).collect();
            out.value(&json!({ "ok": true, "zones": zones }), true)?;
        }
        Ok(zones) => {
            let verdict = out.paint(Style::Good, "all good");
            out.line(&format!("{}: {verdict}", global.config().display()))?;
            for zone in zones.values() {
                out.line(&told(zone))?;
            }
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
