//! `caracal policy`: what of a policy the ledger shows to be needed, the policy that would be enough, and policy data in
//! another form.

mod convert;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::{BTreeMap, BTreeSet};

use caracal_policies::{Zone, compile};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::exit::Failed;
use super::out::{Out, Style, visible};
use super::versions::chosen;
use super::{Exit, Global, edge};
use crate::bundles;
use crate::clock::Clock;
use crate::ledger::read;
use usage::{Grant, Need, Usage};

/// `caracal policy ...`
#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// List grants and operations of the bundles that no request needed
    #[command(after_help = UNUSED_HELP)]
    Unused(Period),
    /// Print grants that would have been enough, and list what was refused
    #[command(after_help = SUGGEST_HELP)]
    Suggest(Period),
    /// Write policy data in the other form of documents, TOML or Rego
    #[command(after_help = convert::HELP)]
    Convert(convert::ConvertArgs),
}

/// Which records count.
#[derive(Debug, Args)]
pub(super) struct Period {
    /// The zone; all of them when left out
    zone: Option<String>,
    /// Look at this many days
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    days: u16,
}

const UNUSED_HELP: &str = "\
Compares the bundles, as the files say, with the records of the ledger. A grant that nobody asked
for can go. One that mandates only carried can go once nobody asks for it any more.

  caracal policy unused --days 90

Exit codes: 0 told, 1 the ledger cannot be read, 64 bad configuration.";

const SUGGEST_HELP: &str = "\
Prints `app_ids` and `grants` for a document of the bundle: what was used or carried, and nothing
else. It never grants more than the files do; what was refused is listed in comments, for you to
decide. Look at it with `caracal diff` and `caracal test` before it is in force.

  caracal policy suggest quickstart --days 90 >grants.toml

Exit codes: 0 told, 1 the ledger cannot be read, 64 bad configuration.";

/// Refusals that are listed.
const MOST_REFUSED: usize = 50;
const DAY_MS: i64 = 86_400_000;

/// One zone, as the files say, and what its ledger says of it.
struct Seen {
    zone: Zone,
    usage: Usage,
}

pub(super) fn run(global: &Global, command: &PolicyCommand, out: &mut Out) -> Result<Exit, Failed> {
    let period = match command {
        PolicyCommand::Unused(period) | PolicyCommand::Suggest(period) => period,
        PolicyCommand::Convert(args) => return convert::run(global, args, out),
    };
    let zones = look(global, period)?;
    if global.json {
        let zones: Vec<Value> = zones.iter().map(summary).collect();
        out.value(&json!({ "days": period.days, "zones": zones }), true)?;
        return Ok(Exit::Done);
    }
    for seen in &zones {
        match command {
            PolicyCommand::Unused(_) => tell_unused(seen, out)?,
            PolicyCommand::Suggest(_) | PolicyCommand::Convert(_) => out.line(&suggestion(seen))?,
        }
    }
    Ok(Exit::Done)
}

fn look(global: &Global, period: &Period) -> Result<Vec<Seen>, Failed> {
    let config = edge::load(global)?;
    let since = Clock::system().now().saturating_sub(i64::from(period.days).saturating_mul(DAY_MS));
    let mut zones = Vec::new();
    for id in chosen(&config, period.zone.as_deref())? {
        let assigned = config.zones.get(id).cloned().unwrap_or_default();
        let zone = compile(&bundles::read(&config.bundles_dir, &config.base, id)?, id, &assigned)?;
        let mut usage = Usage::default();
        for record in read::records(&config.state_dir.join("ledger"), id)? {
            usage.count(&zone, &record?, since);
        }
        zones.push(Seen { zone, usage });
    }
    Ok(zones)
}

/// The grants that no request needed, and whether mandates carried them.
fn unused(seen: &Seen) -> Vec<(Grant, Need)> {
    let grants = Usage::grants(&seen.zone).into_iter().map(|grant| {
        let need = seen.usage.need(&grant);
        (grant, need)
    });
    grants.filter(|(_, need)| *need != Need::Used).collect()
}

/// What the answer is worth.
fn basis(usage: &Usage) -> String {
    let since = usage.first.as_deref().map(|first| format!(" since {first}")).unwrap_or_default();
    let gaps = match usage.gaps {
        0 => String::new(),
        gaps => format!("; records may be missing at {gaps} places"),
    };
    format!("{} permitted requests{since}{gaps}", usage.requests)
}

fn tell_unused(seen: &Seen, out: &mut Out) -> Result<(), Failed> {
    let title = format!("zone {}: {}", seen.zone.id(), basis(&seen.usage));
    let title = out.paint(Style::Strong, &title);
    out.line(&title)?;
    let (grants, operations) = (unused(seen), seen.usage.unused_operations(&seen.zone));
    if grants.is_empty() && operations.is_empty() {
        out.line("  everything was used")?;
    }
    for (grant, need) in grants {
        let Grant { resource, application, label, scope } = &grant;
        let what = visible(&format!("{application} as {label}: {scope} on {resource}"));
        let why = if need == Need::Carried { "carried, never needed" } else { "never asked for" };
        out.line(&format!("  grant      {what} ({why})"))?;
    }
    for (resource, operation) in operations {
        out.line(&format!("  operation  {} on {}", visible(&operation), visible(&resource)))?;
    }
    Ok(())
}

/// The scopes of a role, and how much each was needed.
type Scopes = Vec<(String, Need)>;

/// A document that grants what was used or carried.
fn suggestion(seen: &Seen) -> String {
    let mut lines = vec![
        format!("# Zone {}, from {}.", seen.zone.id(), basis(&seen.usage)),
        "# Takes the place of `app_ids` and `grants`; the other tables stay as they are.".to_owned(),
        "schema = 1".to_owned(),
    ];
    let mut roles: BTreeMap<(String, String), BTreeMap<String, Scopes>> = BTreeMap::new();
    for grant in Usage::grants(&seen.zone) {
        let need = seen.usage.need(&grant);
        if need != Need::Never {
            let of = roles.entry((grant.resource, grant.application)).or_default();
            of.entry(grant.label).or_default().push((grant.scope, need));
        }
    }
    let owners: BTreeSet<&String> = roles.keys().map(|(_, application)| application).collect();
    if !owners.is_empty() {
        lines.extend([String::new(), "[app_ids]".to_owned()]);
    }
    lines.extend(owners.into_iter().map(|owner| format!("{0} = {0}", quoted(owner))));
    for ((resource, application), labels) in &roles {
        let (on, by) = (quoted(resource), quoted(application));
        lines.extend([String::new(), format!("[grants.{on}]"), format!("application = {by}")]);
        lines.extend([String::new(), format!("[grants.{on}.roles]")]);
        for (label, scopes) in labels {
            let carried = scopes.iter().filter(|(_, need)| *need == Need::Carried);
            let carried: Vec<&str> = carried.map(|(scope, _)| scope.as_str()).collect();
            if !carried.is_empty() {
                lines.push(format!("# carried, never needed: {}", carried.join(" ")));
            }
            let scopes: Vec<String> = scopes.iter().map(|(scope, _)| quoted(scope)).collect();
            lines.push(format!("{} = [{}]", quoted(label), scopes.join(", ")));
        }
    }
    let refused = seen.usage.refused();
    if !refused.is_empty() {
        lines.extend([String::new(), "# Refused, for you to decide:".to_owned()]);
    }
    for (what, count) in refused.into_iter().take(MOST_REFUSED) {
        let usage::Refused { application, labels, resource, asked, reason } = what;
        let told = format!("{application} as `{labels}`: {asked} on {resource} ({reason})");
        // Parts of it came with requests, and must not end the comment.
        lines.push(format!("# {count:5}x {}", visible(&told).replace('\n', " ")));
    }
    lines.join("\n")
}

/// A name as TOML writes it: names are visible ASCII, where JSON and TOML quote alike.
fn quoted(name: &str) -> String {
    Value::from(name).to_string()
}

fn summary(seen: &Seen) -> Value {
    let grants = unused(seen).into_iter().map(|(grant, need)| {
        let Grant { resource, application, label, scope } = grant;
        json!({
            "resource": resource, "application": application, "label": label, "scope": scope,
            "carried": need == Need::Carried,
        })
    });
    let operations = seen.usage.unused_operations(&seen.zone).into_iter();
    let operations =
        operations.map(|(resource, operation)| json!({ "resource": resource, "operation": operation }));
    let refused = seen.usage.refused().into_iter().take(MOST_REFUSED).map(|(what, count)| {
        json!({
            "application": what.application, "labels": what.labels, "resource": what.resource,
            "asked": what.asked, "reason": what.reason, "count": count,
        })
    });
    json!({
        "zone": &**seen.zone.id(), "requests": seen.usage.requests, "since": seen.usage.first,
        "gaps": seen.usage.gaps, "unused_grants": grants.collect::<Vec<_>>(),
        "unused_operations": operations.collect::<Vec<_>>(), "refused": refused.collect::<Vec<_>>(),
        "suggestion": suggestion(seen),
    })
}
