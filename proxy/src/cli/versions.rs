//! `caracal versions`: the kept versions of each zone, and which one is in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::activate::warn;
use super::exit::Failed;
use super::out::{Out, Style, visible};
use super::{Exit, Global, edge};
use crate::config::Config;
use crate::control::{self, ControlError, Request};
use crate::reload::versions::{Activation, By, Journal, Versions};
use crate::retired::KeptOut;
use crate::state::iso;

pub(super) const HELP: &str = "\
Each version that was in force is kept, named after what it says, until `[bundles] keep_versions`
newer ones came. The list has the newest first; the star marks what is in force.

  caracal versions
  caracal diff 3f2a91c0 active         what came since then, in words about authority
  caracal activate 3f2a91c0            that version, until the files change

Exit codes: 0 listed, 1 not readable, 64 bad configuration.";

/// `caracal versions ...`
#[derive(Debug, Args)]
pub(super) struct VersionsArgs {
    /// The zone; all of them when left out
    zone: Option<String>,
}

/// Digits of a digest that people are shown.
const SHOWN_DIGITS: usize = 12;

pub(super) async fn run(global: &Global, args: &VersionsArgs, out: &mut Out) -> Result<Exit, Failed> {
    let config = edge::load(global)?;
    let running = running(&config).await?;
    let mut zones = Vec::new();
    for zone in chosen(&config, args.zone.as_deref())? {
        let journal = journal(&config, zone)?;
        let in_force = in_force(running.as_ref(), zone, &journal);
        if global.json {
            let versions: Vec<Value> =
                journal.newest_first().into_iter().map(|one| row(one, in_force.as_deref())).collect();
            let pinned = pinned(&journal, in_force.as_deref()).is_some();
            zones.push(json!({
                "zone": zone, "in_force": in_force, "pinned": pinned, "files": journal.files(),
                "versions": versions,
            }));
        } else {
            tell(zone, &journal, in_force.as_deref(), out)?;
        }
    }
    let warnings = if running.is_some() { warnings(global, args.zone.clone()).await? } else { Vec::new() };
    if global.json {
        let told = json!({ "running": running.is_some(), "zones": zones, "warnings": warnings });
        out.value(&told, true)?;
    } else {
        warn(&json!({ "warnings": warnings }), out)?;
        if running.is_none() {
            out.note("no edge is running; the star marks what was in force last")?;
        }
    }
    Ok(Exit::Done)
}

/// What the running edge refuses although the files list it.
async fn warnings(global: &Global, zone: Option<String>) -> Result<Vec<String>, Failed> {
    let told = edge::ask(global, &Request::RetiredSecrets { zone }).await?;
    let mut warnings = Vec::new();
    for zone in told.get("zones").and_then(Value::as_array).into_iter().flatten() {
        let listed = zone.get("listed").and_then(Value::as_array).into_iter().flatten();
        let word = |row: &Value, name| Some(Arc::from(row.get(name)?.as_str()?));
        warnings.extend(listed.filter_map(|row| {
            let (application, secret) = (word(row, "application")?, word(row, "secret")?);
            let kept = KeptOut { zone: word(zone, "zone")?, application, secret };
            Some(format!("zone {}: {}", kept.zone, kept.words()))
        }));
    }
    Ok(warnings)
}

/// The zones that are meant, in order.
pub(super) fn chosen<'a>(config: &'a Config, only: Option<&str>) -> Result<Vec<&'a str>, Failed> {
    let zones: Vec<&str> =
        config.zones.keys().map(String::as_str).filter(|id| only.is_none_or(|only| only == *id)).collect();
    match only {
        Some(zone) if zones.is_empty() => Err(Failed::new(format!("there is no zone `{}`", visible(zone)))),
        _ => Ok(zones),
    }
}

/// The versions that the running edge has in force, by zone; nothing while none runs.
pub(super) async fn running(config: &Config) -> Result<Option<BTreeMap<String, String>>, Failed> {
    match control::call(&control::socket_path(&config.state_dir), &Request::Status).await {
        Ok(status) => {
            let zones = status.get("zones").and_then(Value::as_array).into_iter().flatten();
            let word = |zone: &Value, name| Some(zone.get(name)?.as_str()?.to_owned());
            Ok(Some(zones.filter_map(|zone| Some((word(zone, "id")?, word(zone, "version")?))).collect()))
        }
        Err(ControlError::NotRunning { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The version of `zone` that is in force: as the running edge says, else as a start would find it.
pub(super) fn in_force(
    running: Option<&BTreeMap<String, String>>,
    zone: &str,
    journal: &Journal,
) -> Option<String> {
    match running {
        Some(running) => running.get(zone).cloned(),
        None => journal.in_force().map(str::to_owned),
    }
}

/// The version in force, if it is there instead of what the files said last.
pub(super) fn pinned<'a>(journal: &Journal, in_force: Option<&'a str>) -> Option<&'a str> {
    in_force.filter(|version| journal.files().is_some_and(|files| files != *version))
}

pub(super) fn journal(config: &Config, zone: &str) -> Result<Journal, Failed> {
    Versions::of(&config.state_dir, zone).journal().map_err(|error| {
        Failed::because(format!("the versions of `{zone}` cannot be read in the state folder"), &error)
    })
}

/// The digits of a digest that are enough for people.
pub(super) fn short(digest: &str) -> &str {
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    digits.get(..SHOWN_DIGITS).unwrap_or(digits)
}

fn tell(zone: &str, journal: &Journal, in_force: Option<&str>, out: &mut Out) -> Result<(), Failed> {
    let title = out.paint(Style::Strong, &format!("zone {zone}"));
    out.line(&title)?;
    let versions = journal.newest_first();
    if versions.is_empty() {
        out.line("  nothing was in force yet")?;
    }
    for one in versions {
        let active = in_force == Some(one.version.as_str());
        let star = if active { "*" } else { " " };
        let Activation { number, digest, at, by, revision, .. } = one;
        let by = match by {
            By::Files => "from the files".to_owned(),
            By::Operator(uid) => format!("by uid {uid}"),
        };
        let revision = revision.map(|revision| format!(", revision {revision}")).unwrap_or_default();
        let line = format!("{star} {number:4}  {}  {}  {by}{revision}", short(digest), iso(*at));
        let line = if active { out.paint(Style::Good, &line) } else { line };
        out.line(&line)?;
    }
    if let (Some(version), Some(files)) = (pinned(journal, in_force), journal.files()) {
        let digest = |version: &str| {
            let named = journal.newest_first().into_iter().find(|one| one.version == version);
            named.map_or_else(|| short(version).to_owned(), |one| short(&one.digest).to_owned())
        };
        out.line(&format!(
            "  {} is pinned; the files say {}, and come back with `caracal activate --files` or when they change",
            digest(version),
            digest(files)
        ))?;
    }
    if let Some(version) = in_force
        && !journal.newest_first().iter().any(|one| one.version == version)
    {
        out.note("what is in force could not be kept; the log of the edge says why")?;
    }
    Ok(())
}

fn row(one: &Activation, in_force: Option<&str>) -> Value {
    json!({
        "number": one.number, "digest": one.digest, "version": one.version, "activated_at": one.at,
        "by": one.by, "revision": one.revision, "in_force": in_force == Some(one.version.as_str()),
    })
}

#[cfg(test)]
mod tests;
