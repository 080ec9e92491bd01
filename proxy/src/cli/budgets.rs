//! `caracal budgets`: what is used of budgets and rates.

use clap::Args;
use serde_json::Value;

use super::exit::Failed;
use super::out::{Out, visible};
use super::{Exit, Global, edge};
use crate::control::Request;

pub(super) const HELP: &str = "\
Budgets and rates stand in the bundle of a zone. Each is counted for somebody: an application, a resource, a session
with everything below it, or a delegation with every delegation made from it.

  caracal budgets                        every budget, with the ten that used most of it
  caracal budgets tokens --limit 100     one budget, with more of them
  caracal budgets --json                 the same for programs

In a fleet Redis counts; a node shows what it heard of the accounts its own calls used. Exit codes: 0 done,
1 there is no such budget, 69 no edge is running.";

/// Which budgets.
#[derive(Debug, Args)]
pub(super) struct BudgetsArgs {
    /// Only the budget or rate with this name
    budget: Option<String>,
    /// Only this zone
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Most accounts shown of each
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

pub(super) async fn run(global: &Global, args: BudgetsArgs, out: &mut Out) -> Result<Exit, Failed> {
    let limit = usize::from(args.limit);
    let data = edge::ask(global, &Request::Budgets { zone: args.zone, budget: args.budget, limit }).await?;
    if global.json {
        out.value(&data, true)?;
        return Ok(Exit::Done);
    }
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let text = |value: &Value, name: &str| visible(value[name].as_str().unwrap_or_default());
    let budgets = list(&data, "budgets");
    if budgets.is_empty() {
        out.line("there are no budgets")?;
    }
    for budget in budgets {
        let (zone, name, says) = (text(&budget, "zone"), text(&budget, "budget"), text(&budget, "says"));
        out.line(&format!("{zone}  {name}: {says}"))?;
        let used = list(&budget, "used");
        if used.is_empty() {
            out.line("    nothing is used")?;
        }
        for row in &used {
            let reset = row
                .get("resets_at")
                .and_then(Value::as_str)
                .map_or_else(String::new, |at| format!(", until {}", visible(at)));
            out.line(&format!(
                "    {}  used {}, left {}{reset}",
                text(row, "subject"),
                row["used"],
                row["left"]
            ))?;
        }
        let more = budget.get("accounts").and_then(Value::as_u64).unwrap_or_default();
        let more = more.saturating_sub(u64::try_from(used.len()).unwrap_or(u64::MAX));
        if more > 0 {
            out.line(&format!("    and {more} more: `--limit` shows them"))?;
        }
    }
    Ok(Exit::Done)
}
