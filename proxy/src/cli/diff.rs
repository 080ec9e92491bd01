//! `caracal diff`: what two versions of a zone's bundle grant differently, in words about authority.

use std::collections::BTreeMap;

use caracal_policies::{BundleSource, Zone, compile};
use clap::Args;
use serde_json::{Value, json};

use super::exit::Failed;
use super::out::{Out, Style, visible};
use super::versions::{chosen, in_force, journal, pinned, running, short};
use super::{Exit, Global, edge};
use crate::bundles;
use crate::config::Config;
use crate::reload::versions::Versions;

pub(super) const HELP: &str = "\
A version is `active` (what is in force), `files` (what the bundles say now), or the beginning of a
digest that `caracal versions` shows. What is told is authority, not lines:

  caracal diff                         what a reload would change
  caracal diff 3f2a91c0 active         what came since that version
  caracal diff active 3f2a91c0         what going back to it would change

Exit codes: 0 the same, 1 different, 2 it cannot be told.";

/// `caracal diff ...`
#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// The older side
    #[arg(default_value = "active")]
    from: String,
    /// The newer side
    #[arg(default_value = "files")]
    to: String,
    /// The zone; needed with a digest when there are several
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
}

/// One zone compared.
struct Compared {
    zone: String,
    from: Side,
    to: Side,
    changes: Vec<String>,
}

/// What is compared, and what it is called.
pub(super) struct Side {
    word: String,
    pub(super) zone: Zone,
}

impl Compared {
    fn same(&self) -> bool {
        self.from.zone.digest() == self.to.zone.digest()
    }
}

pub(super) async fn run(global: &Global, args: &DiffArgs, out: &mut Out) -> Result<Exit, Failed> {
    let compared = match compare(global, args).await {
        Ok(compared) => compared,
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
        let zones: Vec<Value> = compared.iter().map(summary).collect();
        out.value(&json!({ "ok": true, "same": compared.iter().all(Compared::same), "zones": zones }), true)?;
    } else {
        compared.iter().try_for_each(|one| tell(one, out))?;
    }
    Ok(if compared.iter().all(Compared::same) { Exit::Done } else { Exit::Failed })
}

async fn compare(global: &Global, args: &DiffArgs) -> Result<Vec<Compared>, Failed> {
    let config = edge::load(global)?;
    let zones = chosen(&config, args.zone.as_deref())?;
    let digests =
        [&args.from, &args.to].into_iter().any(|word| !["active", "files"].contains(&word.as_str()));
    if digests && zones.len() > 1 {
        return Err(Failed::new("there are several zones; name one with --zone"));
    }
    let running = running(&config).await?;
    let mut compared = Vec::new();
    for zone in zones {
        let from = side(&config, running.as_ref(), zone, &args.from)?;
        let to = side(&config, running.as_ref(), zone, &args.to)?;
        let changes = from.zone.changes(&to.zone);
        compared.push(Compared { zone: zone.to_owned(), from, to, changes });
    }
    Ok(compared)
}

/// One zone at `active`, `files` or the beginning of a digest.
pub(super) fn side(
    config: &Config,
    running: Option<&BTreeMap<String, String>>,
    zone: &str,
    word: &str,
) -> Result<Side, Failed> {
    let compiled = |source: &BundleSource| {
        let assigned = config.zones.get(zone).cloned().unwrap_or_default();
        compile(source, zone, &assigned).map_err(Failed::Report)
    };
    let kept = |version: &str| {
        let kept = Versions::of(&config.state_dir, zone).load(version);
        let lost = || format!("version {} of zone `{zone}` is not kept whole any more", short(version));
        compiled(&kept.ok_or_else(|| Failed::new(lost()))?.source)
    };
    let side = |compiled: Zone| Side { word: word.to_owned(), zone: compiled };
    if word == "files" {
        return Ok(side(compiled(&bundles::read(&config.bundles_dir, &config.base, zone)?)?));
    }
    let journal = journal(config, zone)?;
    if word != "active" {
        let found =
            journal.find(word).map_err(|error| Failed::new(format!("`{}`: {error}", visible(word))))?;
        return Ok(side(kept(&found.version)?));
    }
    let version = in_force(running, zone, &journal)
        .ok_or_else(|| Failed::new(format!("nothing of zone `{zone}` was in force yet")))?;
    let active = kept(&version)?;
    match (pinned(&journal, Some(&version)), journal.files()) {
        (Some(_), Some(files)) => Ok(side(active.for_identities_of(&kept(files)?))),
        _ => Ok(side(active)),
    }
}

fn tell(one: &Compared, out: &mut Out) -> Result<(), Failed> {
    let name = |side: &Side| {
        let digest = side.zone.digest().to_string();
        if ["active", "files"].contains(&side.word.as_str()) {
            format!("{} ({})", side.word, short(&digest))
        } else {
            short(&digest).to_owned()
        }
    };
    let title = format!("zone {}: {} to {}", one.zone, name(&one.from), name(&one.to));
    let title = out.paint(Style::Strong, &title);
    out.line(&title)?;
    if one.same() {
        out.line("  the same authority")?;
    } else if one.changes.is_empty() {
        out.line("  the same grants; a name, or the secret of an application, is another")?;
    }
    for change in &one.changes {
        out.line(&format!("  {}", visible(change)))?;
    }
    Ok(())
}

fn summary(one: &Compared) -> Value {
    let side = |side: &Side| json!({ "version": side.word, "digest": side.zone.digest().to_string() });
    json!({
        "zone": one.zone, "same": one.same(), "from": side(&one.from), "to": side(&one.to),
        "changes": one.changes,
    })
}
