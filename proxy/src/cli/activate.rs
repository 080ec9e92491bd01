//! `caracal activate` and `caracal rollback`: a kept version instead of what the files say.

use clap::Args;
use serde_json::Value;

use super::exit::Failed;
use super::out::{Out, Style, visible};
use super::versions::short;
use super::{Exit, Global, edge};
use crate::control::Request;

pub(super) const HELP: &str = "\
Puts the policy of a kept version into force, at once, and pins it: it survives restarts, and ends
with `--files` or when the files say something new. Applications, their secrets and subject issuers
stay those of the files, and a `restrict` in the files stays, so that nothing retired comes back.
The next change of the files is still yours to make: until then a new node starts on the files.

  caracal versions
  caracal diff active 3f2a91c0         what it would change
  caracal activate 3f2a91c0
  caracal activate --files             what the files say again

Exit codes: 0 in force, 1 not carried out, 69 no edge is running.";

pub(super) const ROLLBACK_HELP: &str = "\
As `caracal activate` with the version that the files said before the one in force, leaving out those
that grant the same. Once more goes back one further.

  caracal rollback
  caracal activate --files             when the files are right again

Exit codes: 0 in force, 1 not carried out, 69 no edge is running.";

/// `caracal activate ...`
#[derive(Debug, Args)]
pub(super) struct ActivateArgs {
    /// The beginning of the version's digest, as `caracal versions` shows it
    #[arg(value_name = "VERSION", required_unless_present = "files", conflicts_with = "files")]
    digest: Option<String>,
    /// Put what the files say into force again
    #[arg(long)]
    files: bool,
    /// The zone; needed when there are several
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
}

/// `caracal rollback ...`
#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// The zone; needed when there are several
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
}

pub(super) async fn activate(global: &Global, args: ActivateArgs, out: &mut Out) -> Result<Exit, Failed> {
    ask(global, Request::Activate { zone: args.zone, version: args.digest }, out).await
}

pub(super) async fn rollback(global: &Global, args: RollbackArgs, out: &mut Out) -> Result<Exit, Failed> {
    ask(global, Request::Rollback { zone: args.zone }, out).await
}

async fn ask(global: &Global, request: Request, out: &mut Out) -> Result<Exit, Failed> {
    let done = edge::ask(global, &request).await?;
    if global.json {
        out.value(&done, true)?;
        return Ok(Exit::Done);
    }
    let word = |name: &str| visible(done.get(name).and_then(Value::as_str).unwrap_or("-"));
    let until = if done.get("pinned") == Some(&Value::Bool(true)) {
        "pinned until the files say something new, or `caracal activate --files`"
    } else {
        "as the files say"
    };
    let headline = format!("zone {}: {} is in force, {until}", word("zone"), short(&word("digest")));
    let headline = out.paint(Style::Good, &headline);
    out.line(&headline)?;
    let changes = done.get("changes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if changes.is_empty() {
        out.line("  the same authority as before")?;
    }
    for change in changes.iter().filter_map(Value::as_str) {
        out.line(&format!("  {}", visible(change)))?;
    }
    warn(&done, out)?;
    Ok(Exit::Done)
}

/// Tells what an edge warns of beside what it did.
pub(super) fn warn(done: &Value, out: &mut Out) -> Result<(), Failed> {
    for warning in done.get("warnings").and_then(Value::as_array).into_iter().flatten() {
        let words = format!("warning: {}", visible(warning.as_str().unwrap_or_default()));
        let words = out.paint(Style::Bad, &words);
        out.line(&words)?;
    }
    Ok(())
}
