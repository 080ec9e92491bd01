//! `caracal audit`: reading, following and verifying the ledger.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::exit::Failed;
use super::out::{Out, Style};
use super::{Exit, Global, edge};
use crate::control::Request;
use crate::ledger::verify::{Verification, ZoneReport, verify};
use crate::ledger::{Fingerprint, LedgerError, PublicKey, Record, Trust, read, render};

/// `caracal audit ...`
#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Show the last records, and with --follow the new ones as they are written
    #[command(after_help = TAIL_HELP)]
    Tail(TailArgs),
    /// Prove that a ledger is whole and unaltered, or name the first bad line
    #[command(after_help = VERIFY_HELP)]
    Verify(VerifyArgs),
    /// Print the public key that signs the running edge's ledger, for `verify --key`
    #[command(after_help = KEY_HELP)]
    Key,
}

/// `caracal audit tail ...`
#[derive(Debug, Args)]
pub(super) struct TailArgs {
    #[command(flatten)]
    place: Place,
    /// How many records to begin with
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 20)]
    count: usize,
    /// Keep going with new records, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
}

/// `caracal audit verify ...`
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    place: Place,
    /// A file with the public key you trust, as `caracal audit key` printed it
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "fingerprint",
        conflicts_with = "fingerprint"
    )]
    key: Option<PathBuf>,
    /// The fingerprint of the key you trust, `sha256:` and 64 hex digits
    #[arg(long, value_name = "FINGERPRINT")]
    fingerprint: Option<Fingerprint>,
}

#[derive(Debug, Args)]
struct Place {
    /// The ledger's folder [default: `ledger` in the state folder of the configuration]
    #[arg(long, value_name = "DIR")]
    ledger: Option<PathBuf>,
    /// One zone only
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
}

impl Place {
    fn folder(&self, global: &Global) -> Result<PathBuf, Failed> {
        match &self.ledger {
            Some(folder) => Ok(folder.clone()),
            None => Ok(edge::state_dir(global)?.join("ledger")),
        }
    }
}

const TAIL_HELP: &str = "\
  caracal audit tail -n 50
  caracal audit tail --zone quickstart --follow
  caracal audit tail --json | jq 'select(.decision == \"deny\")'

With --json each record is one line, as it is in the ledger.

Exit codes: 0 done, 1 the ledger cannot be read, 64 bad configuration.";

const VERIFY_HELP: &str = "\
Whoever can write the ledger's folder could also put a key there, so the key comes from you: keep
what `caracal audit key` prints somewhere else, and verify with that. The edge need not be running.

  caracal audit key > edge-ledger.pub
  caracal audit verify --ledger state/ledger --key edge-ledger.pub
  caracal audit verify --ledger /backup/ledger --fingerprint sha256:...

Exit codes: 0 whole, 1 the ledger or the key cannot be read, 65 it does not verify.";

const KEY_HELP: &str = "\
The key goes to standard output, its fingerprint to standard error.

  caracal audit key > edge-ledger.pub

Exit codes: 0 done, 69 no edge is running.";

pub(super) async fn run(global: &Global, command: &AuditCommand, out: &mut Out) -> Result<Exit, Failed> {
    match command {
        AuditCommand::Tail(args) => tail(global, args, out).await,
        AuditCommand::Verify(args) => prove(global, args, out),
        AuditCommand::Key => key(global, out).await,
    }
}

async fn tail(global: &Global, args: &TailArgs, out: &mut Out) -> Result<Exit, Failed> {
    let folder = args.place.folder(global)?;
    let zone = args.place.zone.as_deref();
    // Before the last records are read, so that none falls between them and the new ones.
    let mut follow = if args.follow { Some(read::Follow::from_now(&folder, zone)?) } else { None };
    let mut shown: HashMap<String, u64> = HashMap::new();
    let mut records = read::tail(&folder, zone, args.count)?;
    loop {
        for record in records {
            let last = shown.entry(record.zone_id.clone()).or_default();
            if record.seq > *last {
                *last = record.seq;
                print(&record, global.json, out)?;
            }
        }
        let Some(follow) = &mut follow else { return Ok(Exit::Done) };
        tokio::time::sleep(FOLLOW_EVERY).await;
        records = follow.poll()?;
    }
}

/// Prints one record: a line for people, or the ledger's own line.
pub(super) fn print(record: &Record, json: bool, out: &mut Out) -> Result<(), Failed> {
    let line = if json {
        serde_json::to_string(record).map_err(|error| Failed::because("a record is not JSON", &error))?
    } else {
        render(record, out.in_colour())
    };
    Ok(out.line(&line)?)
}

fn prove(global: &Global, args: &VerifyArgs, out: &mut Out) -> Result<Exit, Failed> {
    let trust = trust(args)?;
    let folder = args.place.folder(global)?;
    let verification = verify(&folder, args.place.zone.as_deref(), &trust)?;
    if verification.zones.is_empty() {
        return Err(Failed::new(format!("there is no ledger in `{}`", folder.display())));
    }
    if global.json {
        let report = serde_json::to_value(&verification)
            .map_err(|error| Failed::because("the report is not JSON", &error))?;
        out.value(&json!({ "good": verification.is_good(), "report": report }), true)?;
    } else {
        tell(&verification, out)?;
    }
    Ok(if verification.is_good() { Exit::Done } else { Exit::Mismatch })
}

fn trust(args: &VerifyArgs) -> Result<Trust, Failed> {
    if let Some(fingerprint) = args.fingerprint {
        return Ok(Trust::Fingerprint(fingerprint));
    }
    let path =
        args.key.as_deref().ok_or_else(|| Failed::new("name the key you trust: --key or --fingerprint"))?;
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failed::because(format!("the key file `{}`", path.display()), &error))?;
    let key: PublicKey = text
        .trim()
        .parse()
        .map_err(|error| Failed::because(format!("the key file `{}`", path.display()), &error))?;
    Ok(Trust::Key(key))
}

fn tell(verification: &Verification, out: &mut Out) -> Result<(), Failed> {
    for zone in &verification.zones {
        let verdict = match &zone.first_bad {
            None => out.paint(Style::Good, "whole"),
            Some(_) => out.paint(Style::Bad, "BROKEN"),
        };
        out.line(&format!("{}: {verdict}, {}", zone.zone, counted(zone)))?;
        if let Some(bad) = &zone.first_bad {
            out.line(&format!("  first bad line: {bad}"))?;
        }
    }
    Ok(())
}

fn counted(zone: &ZoneReport) -> String {
    let signed = match zone.last_checkpoint_seq {
        Some(seq) => format!("signed up to number {seq}"),
        None => "nothing signed yet".to_owned(),
    };
    let mut parts = vec![format!("{} records", zone.records), signed];
    if zone.uncovered_tail > 0 {
        parts.push(format!("{} behind the last checkpoint", zone.uncovered_tail));
    }
    if zone.gaps > 0 {
        parts.push(format!("{} gaps recorded", zone.gaps));
    }
    parts.join(", ")
}

async fn key(global: &Global, out: &mut Out) -> Result<Exit, Failed> {
    let data = edge::ask(global, &Request::LedgerKey).await?;
    if global.json {
        out.value(&data, true)?;
        return Ok(Exit::Done);
    }
    let member = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or_default();
    out.line(member("public_key"))?;
    out.note(&format!("fingerprint: {}", member("fingerprint")))?;
    Ok(Exit::Done)
}

impl From<LedgerError> for Failed {
    fn from(error: LedgerError) -> Self {
        Self::because("the ledger", &error)
    }
}

/// Often enough to look live; the ledger hands records to the kernel every 50 ms.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
