//! `caracal shadow`: what a candidate would change.

use clap::Args;
use serde_json::Value;

use super::exit::Failed;
use super::out::{Out, Style, visible};
use super::versions::short;
use super::{Exit, Global, edge};
use crate::control::Request;

pub(super) const HELP: &str = "\
A candidate is a bundle in `<zone>.next` beside the zone's (or `<zone>.next.toml`). It is checked like
any bundle and decides nothing: it is asked about the decisions that are made anyway, once each
request is over. A change of either begins a new count.

  cp -r bundles/quickstart bundles/quickstart.next     then edit the copy
  caracal shadow
  caracal explain REQUEST                              one of the requests, rule by rule

Exit codes: 0 told, 1 not readable, 69 no edge is running.";

/// `caracal shadow ...`
#[derive(Debug, Args)]
pub(super) struct ShadowArgs {
    /// The zone; all of them when left out
    zone: Option<String>,
}

pub(super) async fn run(global: &Global, args: ShadowArgs, out: &mut Out) -> Result<Exit, Failed> {
    let told = edge::ask(global, &Request::Shadow { zone: args.zone }).await?;
    if global.json {
        out.value(&told, true)?;
        return Ok(Exit::Done);
    }
    for zone in told.get("zones").and_then(Value::as_array).into_iter().flatten() {
        tell(zone, out)?;
    }
    Ok(Exit::Done)
}

fn tell(zone: &Value, out: &mut Out) -> Result<(), Failed> {
    let id = word(zone, "/zone");
    if let Some(refused) = zone.get("refused").and_then(Value::as_str) {
        let title = out.paint(Style::Bad, &format!("zone {id}: the candidate was refused and is not asked"));
        out.line(&title)?;
        return Ok(out.line(visible(refused).trim_end())?);
    }
    let Some(report) = zone.get("rehearsal").filter(|report| !report.is_null()) else {
        return Ok(out.line(&format!("zone {id}: no candidate waits in `{id}.next`"))?);
    };
    let (active, version) = (word(zone, "/active/version"), word(zone, "/candidate/version"));
    let title = format!("zone {id}: candidate {} beside {}", short(&version), short(&active));
    let title = out.paint(Style::Strong, &title);
    out.line(&format!("{title}, since {}", word(report, "/since")))?;
    for change in report.get("changes").and_then(Value::as_array).into_iter().flatten() {
        out.line(&format!("  {}", visible(change.as_str().unwrap_or_default())))?;
    }
    differences(report, out)?;
    if number(report, "dropped") > 0 {
        out.line(&format!("  {} decisions came too fast to be asked about", number(report, "dropped")))?;
    }
    out.line(&format!("  caracal promote {id} --candidate {version}"))?;
    Ok(())
}

/// The counts and groups of a report; `caracal replay` tells the same.
pub(super) fn differences(report: &Value, out: &mut Out) -> Result<(), Failed> {
    let changed = number(report, "compared").saturating_sub(number(report, "same"));
    let told = format!(
        "  {} compared: {} the same, {} newly denied, {} newly allowed, {} for another reason",
        number(report, "compared"),
        number(report, "same"),
        number(report, "newly_denied"),
        number(report, "newly_allowed"),
        number(report, "other_reason"),
    );
    let told = out.paint(if changed == 0 { Style::Good } else { Style::Bad }, &told);
    out.line(&told)?;
    for (why, count) in report.get("not_comparable").and_then(Value::as_object).into_iter().flatten() {
        out.line(&format!("  {count} not comparable ({})", because(why)))?;
    }
    for group in report.get("groups").and_then(Value::as_array).into_iter().flatten() {
        let line = format!(
            "  {}x {} {} on {}: {} -> {}",
            number(group, "count"),
            word(group, "/application"),
            word(group, "/what"),
            word(group, "/resource"),
            word(group, "/from"),
            word(group, "/to"),
        );
        out.line(&line.replace(['\n', '\t'], " "))?;
        if let Some(grounds) = group.get("grounds").filter(|grounds| !grounds.is_null()) {
            let place = grounds.pointer("/place/file").and_then(Value::as_str).map(|file| {
                let line = grounds.pointer("/place/line").and_then(Value::as_u64).unwrap_or_default();
                format!("  [{}:{line}]", visible(file))
            });
            let told = format!("      {}: {}", word(grounds, "/rule"), word(grounds, "/compared"));
            out.line(&format!("{}{}", told.replace(['\n', '\t'], " "), place.unwrap_or_default()))?;
        }
        let requests = group.get("requests").and_then(Value::as_array).into_iter().flatten();
        let requests: Vec<String> = requests.filter_map(Value::as_str).map(visible).collect();
        out.line(&format!("      requests {}", requests.join(" ")))?;
    }
    if number(report, "ungrouped") > 0 {
        out.line(&format!("  and {} of further kinds", number(report, "ungrouped")))?;
    }
    Ok(())
}

fn because(why: &str) -> &str {
    match why {
        "no_input" => "the record does not hold the whole input",
        "before_policy" => "they ended before a policy was asked",
        "message_not_read" => "the messages to the server were not read",
        "plugins" => "the candidate has other plugins there",
        "inexact" => "asked again, the bundle in force answers something else: please report it",
        other => other,
    }
}

fn word(value: &Value, at: &str) -> String {
    visible(value.pointer(at).and_then(Value::as_str).unwrap_or("-"))
}

fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or_default()
}
