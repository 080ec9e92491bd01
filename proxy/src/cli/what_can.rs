//! `caracal what-can`: what a session or an application may do now.

use clap::Args;
use serde_json::Value;

use super::exit::Failed;
use super::out::{Out, Style, visible};
use super::sessions::duration;
use super::{Exit, Global, edge};
use crate::control::Request;

pub(super) const HELP: &str = "\
The answers are those that a mint would get at this moment, for each scope that a resource declares.
For an application the question is what a session with each of its roles' labels could get through a
delegation that carries everything.

  caracal what-can demo-agent
  caracal what-can 0199f3c0-5b7e-7c11-8d0e-3a1f0c9b2d44

Exit codes: 0 told, 1 unknown id, 69 no edge is running.";

/// `caracal what-can ...`
#[derive(Debug, Args)]
pub(super) struct WhatCanArgs {
    /// A session's or an application's id
    id: String,
    /// Its zone; needed only when several zones have it
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
}

pub(super) async fn run(global: &Global, args: &WhatCanArgs, out: &mut Out) -> Result<Exit, Failed> {
    let request = Request::WhatCan { zone: args.zone.clone(), id: args.id.clone() };
    let answer = edge::ask(global, &request).await?;
    if global.json {
        out.value(&answer, true)?;
    } else {
        tell(&answer, out)?;
    }
    Ok(Exit::Done)
}

fn tell(answer: &Value, out: &mut Out) -> Result<(), Failed> {
    if let Some(session) = answer.get("session") {
        let title = format!("session {} of {}", word(session, "id"), word(session, "application"));
        let title = out.paint(Style::Strong, &title);
        out.line(&title)?;
    } else {
        let title = format!("application {} in {}", word(answer, "application"), word(answer, "zone"));
        let title = out.paint(Style::Strong, &title);
        out.line(&title)?;
    }
    if let Some(code) = answer.get("refused").and_then(Value::as_str) {
        let text = out.paint(Style::Bad, &format!("  gets nothing: {}", visible(code)));
        out.line(&text)?;
    }
    for edge in list(answer, "delegations") {
        delegation(edge, out)?;
    }
    for role in list(answer, "roles") {
        out.line(&format!("  with the label {}", word(role, "label")))?;
        authority(role, out)?;
    }
    let mandates: Vec<String> =
        list(answer, "session_mandates").iter().filter_map(Value::as_str).map(visible).collect();
    if !mandates.is_empty() {
        out.line(&format!("  may manage sessions, by a mandate for {}", mandates.join(", ")))?;
    }
    let nothing_held = answer.get("session").is_some() && list(answer, "delegations").is_empty();
    if nothing_held && answer.get("refused").is_none_or(Value::is_null) {
        out.line("  holds no delegation: it can delegate, and cannot call a resource itself")?;
    }
    Ok(())
}

fn delegation(edge: &Value, out: &mut Out) -> Result<(), Failed> {
    let number = |name: &str| edge.get(name).and_then(Value::as_i64).unwrap_or(0);
    out.line(&format!(
        "  by delegation {} from {}, {} left, hops {}",
        word(edge, "id"),
        word(edge, "from_application"),
        duration(number("left_seconds")),
        number("hops_left"),
    ))?;
    if let Some(code) = edge.get("refused").and_then(Value::as_str) {
        let text = out.paint(Style::Bad, &format!("    gets nothing: {}", visible(code)));
        out.line(&text)?;
        return Ok(());
    }
    authority(edge, out)
}

fn authority(of: &Value, out: &mut Out) -> Result<(), Failed> {
    for resource in list(of, "authority") {
        out.line(&format!("    {}", word(resource, "resource")))?;
        let granted = list(resource, "granted");
        if !granted.is_empty() {
            let apart = if resource.get("granted_together") == Some(&Value::Bool(true)) {
                ""
            } else {
                " (each on its own, not in one mandate)"
            };
            let text = format!("      may: {}{apart}, by {}", words(granted), word(resource, "rule"));
            let text = out.paint(Style::Good, &text);
            out.line(&text)?;
        }
        for limit in list(resource, "limits").iter().filter_map(Value::as_str) {
            out.line(&format!("      within {}", visible(limit)))?;
        }
        for guard in list(resource, "guards") {
            let (name, place) = (word(guard, "name"), word(guard, "place"));
            out.line(&format!("      unless the guard `{name}` refuses the very request [{place}]"))?;
        }
        for refused in list(resource, "refused") {
            let scopes = words(list(refused, "scopes"));
            out.line(&format!("      may not: {scopes} ({})", word(refused, "code")))?;
        }
    }
    Ok(())
}

fn list<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn words(values: &[Value]) -> String {
    values.iter().filter_map(Value::as_str).map(visible).collect::<Vec<_>>().join(" ")
}

fn word(of: &Value, name: &str) -> String {
    visible(of.get(name).and_then(Value::as_str).unwrap_or("-"))
}
