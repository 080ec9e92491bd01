//! `caracal replay`: recorded decisions, made again by another bundle.

use std::path::PathBuf;

use caracal_policies::{RulePlaces, compile};
use clap::Args;
use serde_json::{Value, json};

use super::bundle::bundle;
use super::exit::Failed;
use super::out::{Out, Style, visible};
use super::shadow::differences;
use super::versions::short;
use super::{Exit, Global, edge};
use crate::bundles;
use crate::config::Config;
use crate::ledger::read;
use crate::question::Said;
use crate::rehearsal::Tally;
use crate::state::parse_iso;

pub(super) const HELP: &str = "\
Needs no running edge. Each mint and each call on record is put to the bundle, with the input that the
record holds; nothing that was revoked, used up or refused by a plugin is looked at again. Records
that do not hold their input are counted as not comparable.

  caracal replay --bundle bundles/quickstart.next
  caracal replay --bundle bundles/quickstart --since 2026-11-24T00:00:00Z --json
  caracal replay --bundle /review/quickstart --ledger /backup/ledger

Exit codes: 0 nothing would be different, 1 something would, 2 it cannot be told.";

/// `caracal replay ...`
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// The bundle: a folder or a `.toml` file, named after its zone, or after it with `.next`
    #[arg(long, value_name = "PATH")]
    bundle: PathBuf,
    /// The ledger's folder [default: `ledger` in the state folder of the configuration]
    #[arg(long, value_name = "DIR")]
    ledger: Option<PathBuf>,
    /// The zone, where the bundle is not named after it
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Only records from this time on, as in 2026-11-24T00:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

pub(super) fn run(global: &Global, args: &ReplayArgs, out: &mut Out) -> Result<Exit, Failed> {
    let told = match replay(global, args) {
        Ok(told) => told,
        Err(Failed::Report(report)) => {
            if global.json {
                out.value(&json!({ "ok": false, "problems": report.problems }), true)?;
            } else {
                out.note(report.to_string().trim_end())?;
            }
            return Ok(Exit::BadInput);
        }
        Err(Failed::Said(_, message)) => return Err(Failed::Said(Exit::BadInput, message)),
        Err(Failed::NobodyReads) => return Err(Failed::NobodyReads),
    };
    if global.json {
        out.value(&told, true)?;
    } else {
        let word = |name: &str| visible(told.get(name).and_then(Value::as_str).unwrap_or("-"));
        let title = format!("zone {}: the ledger, decided by {}", word("zone"), short(&word("digest")));
        let title = out.paint(Style::Strong, &title);
        out.line(&title)?;
        differences(&told, out)?;
    }
    Ok(if told.get("same_answers") == Some(&Value::Bool(true)) { Exit::Done } else { Exit::Failed })
}

fn replay(global: &Global, args: &ReplayArgs) -> Result<Value, Failed> {
    let config = edge::load(global)?;
    let (named, source) = bundle(&args.bundle)?;
    let id = args.zone.clone().unwrap_or(named);
    let assigned = config.zones.get(&id).cloned().unwrap_or_default();
    let zone = compile(&source, &id, &assigned)?;
    let since = args.since.as_deref().map(|text| {
        parse_iso(text).ok_or_else(|| {
            Failed::new(format!("`{}` is no time such as 2026-11-24T00:00:00Z", visible(text)))
        })
    });
    let since = since.transpose()?.unwrap_or(i64::MIN);
    let folder = ledger(&config, args, &id)?;
    let mut tally = Tally::default();
    for record in read::records(&folder, &id)? {
        let record = record?;
        if since == i64::MIN || parse_iso(&record.occurred_at).is_some_and(|at| at >= since) {
            tally.add(None, &zone, Said::from(&record), &record.request_id);
        }
    }
    let mut told = tally.report(None, (&zone, Some(&RulePlaces::of(&source, &id))));
    told.extend([
        ("ok".to_owned(), json!(true)),
        ("zone".to_owned(), json!(id)),
        ("digest".to_owned(), json!(zone.digest().to_string())),
        ("version".to_owned(), json!(hex::encode(bundles::digest(&source)))),
        ("same_answers".to_owned(), json!(!tally.differs())),
    ]);
    Ok(Value::Object(told))
}

/// The folder of the ledger, which has a chain of the zone: an empty answer would look like a good one.
fn ledger(config: &Config, args: &ReplayArgs, zone: &str) -> Result<PathBuf, Failed> {
    let folder = args.ledger.clone().unwrap_or_else(|| config.state_dir.join("ledger"));
    let mut records = read::records(&folder, zone)?;
    if records.next().is_none() {
        let place = visible(&folder.display().to_string());
        return Err(Failed::new(format!(
            "the ledger in `{place}` has no records of zone `{}`",
            visible(zone)
        )));
    }
    Ok(folder)
}
