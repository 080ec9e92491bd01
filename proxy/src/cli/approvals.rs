//! `caracal approvals`: what waits for a person, and the person's answer.

use std::collections::HashSet;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::exit::Failed;
use super::out::{Out, Style, visible};
use super::sessions::duration;
use super::{Exit, Global, edge, sinks};
use crate::control::Request;

pub(super) const HELP: &str = "\
A mint whose scopes are in a tier of `approval_tiers` waits until a person has answered, and so does a request that a
guard holds. A yes is for exactly what was asked, and for one mandate or one request; policy is asked again when it is
used. A no holds until the approval expires.

  caracal approvals list                       what waits, oldest last
  caracal approvals watch                      the same as it comes, until Ctrl-C
  caracal approvals approve ID
  caracal approvals reject ID --reason \"not on a Friday\"
  caracal approvals sinks                      who is told of all this, and whether that works

Exit codes: 0 answered, 1 it cannot be answered (any more), 69 no edge is running.";

/// How often `watch` looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// `caracal approvals ...`
#[derive(Debug, Subcommand)]
pub(super) enum ApprovalsCommand {
    /// List what waits for an answer, newest first
    List(ListArgs),
    /// Print what waits, and whatever comes, until Ctrl-C
    Watch(ZoneArgs),
    /// Say yes, once
    Approve(AnswerArgs),
    /// Say no; it holds until the approval expires
    Reject(AnswerArgs),
    /// Who is told what happens to approvals, and whether that works
    #[command(after_help = sinks::HELP)]
    Sinks(sinks::SinksArgs),
}

/// Which approvals.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    zone: ZoneArgs,
    /// Also what is answered, used or over
    #[arg(long)]
    all: bool,
}

/// Which zone.
#[derive(Debug, Args)]
pub(super) struct ZoneArgs {
    /// Only this zone
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
}

/// An answer.
#[derive(Debug, Args)]
pub(super) struct AnswerArgs {
    /// The approval's id
    id: String,
    /// Why, for the ledger
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(super) async fn run(global: &Global, command: &ApprovalsCommand, out: &mut Out) -> Result<Exit, Failed> {
    match command {
        ApprovalsCommand::List(args) => {
            let request = Request::Approvals { zone: args.zone.zone.clone(), all: args.all };
            let answer = edge::ask(global, &request).await?;
            if global.json {
                out.value(&answer, true)?;
            } else {
                list(&answer, out)?;
            }
        }
        ApprovalsCommand::Watch(args) => watch(global, args, out).await?,
        ApprovalsCommand::Approve(args) => decide(global, args, true, out).await?,
        ApprovalsCommand::Reject(args) => decide(global, args, false, out).await?,
        ApprovalsCommand::Sinks(args) => return sinks::run(global, args, out).await,
    }
    Ok(Exit::Done)
}

async fn decide(global: &Global, args: &AnswerArgs, approved: bool, out: &mut Out) -> Result<(), Failed> {
    let request = Request::DecideApproval { id: args.id.clone(), approved, reason: args.reason.clone() };
    let done = edge::ask(global, &request).await?;
    if global.json {
        return Ok(out.value(&done, true)?);
    }
    let (style, word) = if approved { (Style::Good, "approved") } else { (Style::Bad, "rejected") };
    let headline = out.paint(style, word);
    out.line(&format!("{headline}: {}", what(&done)))?;
    Ok(())
}

async fn watch(global: &Global, args: &ZoneArgs, out: &mut Out) -> Result<(), Failed> {
    let request = Request::Approvals { zone: args.zone.clone(), all: false };
    let mut seen = HashSet::new();
    loop {
        let answer = edge::ask(global, &request).await?;
        for row in rows(&answer).iter().rev() {
            if seen.insert(text(row, "id")) {
                if global.json {
                    out.line(&row.to_string())?;
                } else {
                    show(row, out)?;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            // Ctrl-C is how this ends.
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

fn list(answer: &Value, out: &mut Out) -> Result<(), Failed> {
    let rows = rows(answer);
    if rows.is_empty() {
        out.line("nothing waits for an answer")?;
    }
    rows.iter().try_for_each(|row| show(row, out))
}

fn show(row: &Value, out: &mut Out) -> Result<(), Failed> {
    let seconds = |name: &str| row.get(name).and_then(Value::as_i64).unwrap_or(0);
    let state = text(row, "state");
    let style = match &*state {
        "pending" => Style::Strong,
        "approved" | "consumed" => Style::Good,
        _ => Style::Bad,
    };
    let state = out.paint(style, &state);
    out.line(&format!("{}  {state}  {}", text(row, "id"), what(row)))?;
    let mut about = vec![
        format!("zone {}", text(row, "zone")),
        format!("tier {}", text(row, "tier")),
        format!("for {}", text(row, "approver")),
        format!("asked {} ago", duration(seconds("age_seconds"))),
        format!("left {}", duration(seconds("left_seconds"))),
    ];
    for (name, word) in
        [("session", "session"), ("subject", "person"), ("decided_by", "by"), ("reason", "reason")]
    {
        about.extend(row.get(name).and_then(Value::as_str).map(|value| format!("{word} {}", visible(value))));
    }
    out.line(&format!("  {}", about.join("  ")))?;
    row.get("request").filter(|request| request.is_object()).map_or(Ok(()), |request| exactly(request, out))
}

/// The one request that the yes would be for.
fn exactly(request: &Value, out: &mut Out) -> Result<(), Failed> {
    let bytes = request.get("body_bytes").and_then(Value::as_u64).unwrap_or(0);
    let kind = text(request, "content_type");
    out.line(&format!("  body {bytes} bytes  {kind}  sha256 {}", text(request, "body_sha256")))?;
    let shown = request.get("shown").and_then(Value::as_object).into_iter().flatten();
    for (pointer, value) in shown {
        let value = value.as_str().map_or_else(|| "(not there)".to_owned(), visible);
        out.line(&format!("  {} = {value}", visible(pointer)))?;
    }
    Ok(())
}

/// `agent wants pay on resource://billing [labels]`.
fn what(row: &Value) -> String {
    let list = |name: &str| {
        let items = row.get(name).and_then(Value::as_array).into_iter().flatten();
        items.filter_map(Value::as_str).map(visible).collect::<Vec<_>>().join(" ")
    };
    let labels = list("labels");
    let labels = if labels.is_empty() { labels } else { format!(" [{labels}]") };
    let wanted = match row.get("request").filter(|request| request.is_object()) {
        None => list("scopes"),
        Some(request) => {
            let tool = request.get("tool").and_then(Value::as_str);
            let tool = tool.map(|tool| format!(" (tool {})", visible(tool))).unwrap_or_default();
            format!("{} {}{tool}", text(request, "method"), text(request, "path"))
        }
    };
    format!("{} wants {wanted} on {}{labels}", text(row, "application"), list("resources"))
}

fn rows(answer: &Value) -> &[Value] {
    answer.get("approvals").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text(row: &Value, name: &str) -> String {
    visible(row.get(name).and_then(Value::as_str).unwrap_or("-"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::out::Colour;
    use super::super::tests::Page;
    use super::*;

    #[test]
    fn a_row_says_who_wants_what_and_cannot_drive_a_terminal() {
        let row = json!({
            "id": "i", "zone": "z", "state": "pending", "application": "app", "scopes": ["pay", "read"],
            "resources": ["resource://billing"], "labels": ["\u{1b}[2Jagent"], "tier": "high",
            "approver": "operator", "age_seconds": 61, "left_seconds": 3_700, "session": "s",
        });
        let page = Page::default();
        let mut out = Out::into_writers(Box::new(page.clone()), Box::new(Page::default()), Colour::Plain);
        list(&json!({ "approvals": [row] }), &mut out).unwrap();
        let shown = page.text();
        assert!(shown.starts_with("i  pending  app wants pay read on resource://billing ["), "{shown}");
        assert!(shown.contains("tier high  for operator  asked 1m ago  left 1h 1m  session s"), "{shown}");
        assert!(!shown.contains('\u{1b}'));
        let row = json!({
            "id": "i", "state": "pending", "application": "app", "resources": ["resource://billing"],
            "request": {
                "method": "POST", "path": "/refunds", "tool": "pay\u{1b}", "content_type": "application/json",
                "body_bytes": 12, "body_sha256": "ab", "shown": { "/amount": "7", "/to": "\u{1b}[2J", "/x": null },
            },
        });
        list(&json!({ "approvals": [row] }), &mut out).unwrap();
        let shown = page.text();
        assert!(shown.contains("app wants POST /refunds (tool pay"), "{shown}");
        assert!(
            shown.contains("  body 12 bytes  application/json  sha256 ab\n  /amount = 7\n  /to = "),
            "{shown}"
        );
        assert!(shown.contains("  /x = (not there)\n") && !shown.contains('\u{1b}'), "{shown}");
        list(&json!({ "approvals": [] }), &mut out).unwrap();
        assert!(page.text().ends_with("nothing waits for an answer\n"));
    }
}
