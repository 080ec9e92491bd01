//! `caracal promote`: the candidate that was looked at, in place of the bundle.

use clap::Args;
use serde_json::Value;

use super::activate::warn;
use super::exit::Failed;
use super::out::{Out, Style, visible};
use super::versions::short;
use super::{Exit, Global, edge};
use crate::control::Request;
use crate::reload::Promotion;

pub(super) const HELP: &str = "\
Names the candidate whose numbers you saw, as `caracal shadow` prints it. It is refused when another
one waits, when files changed since, when it was asked about too few decisions, or when it would
answer some of them differently and you did not say that it may. Then the files of candidate and bundle
change places in one step, and what was replaced lies in `<zone>.previous`.

  caracal promote quickstart --candidate 3f2a91c04d11e6b7
  caracal promote quickstart --candidate 3f2a91c04d11e6b7 --max-newly-denied 3
  caracal promote quickstart --candidate 3f2a91c04d11e6b7 --accept

`caracal rollback` goes back. Exit codes: 0 in force, 1 not carried out, 69 no edge is running.";

/// `caracal promote ...`
#[derive(Debug, Args)]
pub(super) struct PromoteArgs {
    /// The zone
    zone: String,
    /// The candidate's version or digest: at least 16 of its digits
    #[arg(long, value_name = "DIGEST")]
    candidate: String,
    /// Take whatever it changes
    #[arg(long)]
    accept: bool,
    /// Most decisions that it would newly deny, or hold for a person
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64))]
    max_newly_denied: u64,
    /// Most decisions that it would newly allow, or allow without a person
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64))]
    max_newly_allowed: u64,
    /// Fewest decisions that it must have been asked about
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64))]
    min_compared: u64,
}

pub(super) async fn run(global: &Global, args: PromoteArgs, out: &mut Out) -> Result<Exit, Failed> {
    let PromoteArgs { zone, candidate, accept, max_newly_denied, max_newly_allowed, min_compared } = args;
    let promotion = Promotion { candidate, accept, max_newly_denied, max_newly_allowed, min_compared };
    let done = edge::ask(global, &Request::Promote { zone, promotion }).await?;
    if global.json {
        out.value(&done, true)?;
        return Ok(Exit::Done);
    }
    let word = |name: &str| visible(done.get(name).and_then(Value::as_str).unwrap_or("-"));
    let headline = format!("zone {}: {} is in force, as the files say", word("zone"), short(&word("digest")));
    let headline = out.paint(Style::Good, &headline);
    out.line(&headline)?;
    for change in done.get("changes").and_then(Value::as_array).into_iter().flatten() {
        out.line(&format!("  {}", visible(change.as_str().unwrap_or_default())))?;
    }
    warn(&done, out)?;
    match done.get("replaced").and_then(Value::as_str) {
        Some(place) => out.line(&format!("  what it replaced lies in {}", visible(place)))?,
        None => out.note("what it replaced could not be moved and waits as the candidate now; remove it")?,
    }
    Ok(Exit::Done)
}
