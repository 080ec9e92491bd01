//! `caracal approvals sinks`: who is told what happens to approvals, and whether that works.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::exit::Failed;
use super::out::{Out, Style, visible};
use super::sessions::duration;
use super::{Exit, Global, edge};
use crate::control::Request;

pub(super) const HELP: &str = "\
Sinks are the webhooks in `[zones.<id>.sinks.<name>]` of caracal.toml.

  caracal approvals sinks                      how far each has come, and what failed
  caracal approvals sinks test ops             send it a signed `step_up_test` event now

Exit codes: 0 listed or delivered, 1 not delivered (`detail` says why), 69 no edge is running.";

/// `caracal approvals sinks ...`
#[derive(Debug, Args)]
pub(super) struct SinksArgs {
    #[command(subcommand)]
    act: Option<SinksCommand>,
    /// Only this zone
    #[arg(long, global = true, value_name = "ZONE")]
    zone: Option<String>,
}

#[derive(Debug, Subcommand)]
enum SinksCommand {
    /// List sinks: where they are, what waits, and the last failure
    List,
    /// Send a sink a test event and say how that went
    Test {
        /// The sink's name
        name: String,
    },
}

pub(super) async fn run(global: &Global, args: &SinksArgs, out: &mut Out) -> Result<Exit, Failed> {
    let zone = args.zone.clone();
    let Some(SinksCommand::Test { name }) = &args.act else {
        let told = edge::ask(global, &Request::Sinks { zone }).await?;
        if global.json {
            out.value(&told, true)?;
        } else {
            list(&told, out)?;
        }
        return Ok(Exit::Done);
    };
    let told = edge::ask(global, &Request::SinkTest { zone, sink: name.clone() }).await?;
    let delivered = text(&told, "outcome") == "delivered";
    if !global.json {
        let verdict = if delivered {
            out.paint(Style::Good, "the sink took the event")
        } else {
            out.paint(Style::Bad, "the sink did not take the event")
        };
        out.line(&verdict)?;
    }
    out.value(&told, global.json)?;
    Ok(if delivered { Exit::Done } else { Exit::Failed })
}

fn list(told: &Value, out: &mut Out) -> Result<(), Failed> {
    let rows = told.get("sinks").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if rows.is_empty() {
        out.line("there are no sinks; caracal.toml names them in [zones.<id>.sinks.<name>]")?;
    }
    rows.iter().try_for_each(|row| show(row, out))
}

fn show(row: &Value, out: &mut Out) -> Result<(), Failed> {
    let number = |name: &str| row.get(name).and_then(Value::as_i64).unwrap_or(0);
    let failing = number("failed_attempts") > 0;
    let standing = if failing { out.paint(Style::Bad, "failing") } else { out.paint(Style::Good, "ok") };
    out.line(&format!("{}  {standing}  to {}", text(row, "sink"), text(row, "host")))?;
    let more = if row.get("more").and_then(Value::as_bool) == Some(true) { "+" } else { "" };
    let mut about = vec![
        format!("zone {}", text(row, "zone")),
        format!("at record {}", number("cursor")),
        format!("waiting {}{more}", number("waiting")),
        format!("delivered {}", number("delivered")),
        format!("given up {}", number("given_up")),
        format!("last delivery {}", text(row, "last_delivery")),
    ];
    if failing {
        let next = duration(number("next_attempt_in_seconds"));
        about.push(format!("failed attempts {}, next in {next}", number("failed_attempts")));
    }
    out.line(&format!("  {}", about.join("  ")))?;
    if row.get("last_failure").is_some_and(Value::is_string) {
        let (why, at) = (text(row, "last_failure"), text(row, "last_failure_at"));
        out.line(&format!("  last failure {at}: {why}"))?;
    }
    Ok(())
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
    fn a_failing_sink_says_what_waits_and_why() {
        let row = json!({
            "zone": "z", "sink": "ops", "host": "hooks.example", "cursor": 7, "waiting": 2, "more": false,
            "failed_attempts": 1, "next_attempt_in_seconds": 30, "delivered": 4, "given_up": 0,
            "last_delivery": null, "last_failure": "the answer is 500", "last_failure_at": "then",
        });
        let page = Page::default();
        let mut out = Out::into_writers(Box::new(page.clone()), Box::new(Page::default()), Colour::Plain);
        list(&json!({ "sinks": [row] }), &mut out).unwrap();
        assert_eq!(
            page.text(),
            "ops  failing  to hooks.example\n  zone z  at record 7  waiting 2  delivered 4  given up 0  last delivery -  \
             failed attempts 1, next in 30s\n  last failure then: the answer is 500\n"
        );
    }
}
