//! `caracal bundle`: keys that sign bundles, signatures, and whether one is good.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use caracal_policies::BundleSource;
use clap::{Args, Subcommand};
use serde_json::json;

use super::exit::Failed;
use super::out::{Out, Style, visible};
use super::{Exit, Global, edge};
use crate::bundles;
use crate::bundles::signature;
use crate::bundles::signing::SigningKey;
use crate::config::BundlesConfig;
use crate::ledger::PublicKey;

/// `caracal bundle ...`
#[derive(Debug, Subcommand)]
pub(super) enum BundleCommand {
    /// Make a key that signs bundles, and print what `caracal.toml` trusts
    #[command(after_help = KEYGEN_HELP)]
    Keygen {
        /// The new file with the private key
        file: PathBuf,
    },
    /// Sign a bundle as it is now
    #[command(after_help = SIGN_HELP)]
    Sign(SignArgs),
    /// Say whether the signature of a bundle is good, who made it, and for which revision
    #[command(after_help = VERIFY_HELP)]
    Verify(VerifyArgs),
}

/// `caracal bundle sign ...`
#[derive(Debug, Args)]
pub(super) struct SignArgs {
    /// The bundle: a folder, or one `.toml` file; named after its zone
    path: PathBuf,
    /// The file with the private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The revision; one more than the signature before when left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_REVISIONS))]
    revision: Option<u64>,
}

/// `caracal bundle verify ...`
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The bundle: a folder, or one `.toml` file; named after its zone
    path: PathBuf,
    /// A public key that may sign; those of the configuration when left out
    #[arg(long = "key", value_name = "ed25519:HEX")]
    keys: Vec<PublicKey>,
}

/// The largest integer of TOML.
const MOST_REVISIONS: u64 = i64::MAX.unsigned_abs();

const KEYGEN_HELP: &str = "\
Keep the private key where the edge is not. The line that is printed goes into `caracal.toml`:

  caracal bundle keygen bundles.key

Exit codes: 0 made, 1 not made.";

const SIGN_HELP: &str = "\
Writes `bundle.sig` into the bundle's folder, or ZONE.sig beside a bundle of one file. It is over
the zone, the revision and every document, so sign after the last change. An edge takes each
revision once, and never a lower one:

  caracal bundle sign bundles/quickstart --key bundles.key

Exit codes: 0 signed, 1 not signed, 64 the bundle cannot be read.";

const VERIFY_HELP: &str = "\
Checks the signature, and nothing that the documents say; that is for `caracal check`:

  caracal bundle verify bundles/quickstart --key ed25519:5f3c...

Exit codes: 0 good, 1 unsigned or not good, 64 the bundle cannot be read.";

pub(super) fn run(global: &Global, command: &BundleCommand, out: &mut Out) -> Result<Exit, Failed> {
    match command {
        BundleCommand::Keygen { file } => keygen(global, file, out),
        BundleCommand::Sign(args) => sign(global, args, out),
        BundleCommand::Verify(args) => verify(global, args, out),
    }
}

fn keygen(global: &Global, file: &Path, out: &mut Out) -> Result<Exit, Failed> {
    let key = SigningKey::create(file)
        .map_err(|error| Failed::because(format!("the key file `{}`", file.display()), &error))?;
    let public = key.public().to_string();
    if global.json {
        out.value(&json!({ "key_file": file, "public_key": public }), true)?;
        return Ok(Exit::Done);
    }
    out.note(&format!(
        "the private key is in `{}`, mode 0600; for caracal.toml, in [bundles]:",
        file.display()
    ))?;
    out.line(&format!("trusted_keys = [\"{public}\"]"))?;
    Ok(Exit::Done)
}

fn sign(global: &Global, args: &SignArgs, out: &mut Out) -> Result<Exit, Failed> {
    let (zone, source) = bundle(&args.path)?;
    let key = SigningKey::read(&args.key)
        .map_err(|error| Failed::because(format!("the key file `{}`", args.key.display()), &error))?;
    let before = signature::claimed_revision(&source).unwrap_or(0);
    let revision = args.revision.unwrap_or_else(|| before.saturating_add(1));
    if revision > MOST_REVISIONS {
        return Err(Failed::new("there is no higher revision"));
    }
    let place = place(&args.path);
    replace(&place, &key.sign(&source, &zone, revision))
        .map_err(|error| Failed::because(format!("the signature `{}`", place.display()), &error))?;
    if global.json {
        let public = key.public().to_string();
        out.value(&json!({ "zone": zone, "revision": revision, "key": public, "file": place }), true)?;
    } else {
        let done = out.paint(Style::Good, &format!("zone {zone}: signed as revision {revision}"));
        out.line(&format!("{done}, in {}", place.display()))?;
    }
    Ok(Exit::Done)
}

fn verify(global: &Global, args: &VerifyArgs, out: &mut Out) -> Result<Exit, Failed> {
    let (zone, source) = bundle(&args.path)?;
    let trusted_keys =
        if args.keys.is_empty() { edge::load(global)?.bundles.trusted_keys } else { args.keys.clone() };
    if trusted_keys.is_empty() {
        return Err(Failed::new("no key is trusted; name one with --key, or `[bundles] trusted_keys`"));
    }
    let rules = BundlesConfig { keep_versions: 0, require_signature: true, trusted_keys };
    match signature::check(&source, &zone, &rules) {
        Ok(signed) => {
            let revision = signed.as_ref().map(|signed| signed.revision);
            let key = signed.map(|signed| signed.key.to_string()).unwrap_or_default();
            if global.json {
                out.value(&json!({ "ok": true, "zone": zone, "revision": revision, "key": key }), true)?;
            } else {
                let good = out.paint(Style::Good, "good");
                out.line(&format!(
                    "zone {zone}: {good}, revision {}, by {key}",
                    revision.unwrap_or_default()
                ))?;
            }
            Ok(Exit::Done)
        }
        Err(report) => {
            if global.json {
                out.value(&json!({ "ok": false, "problems": report.problems }), true)?;
            } else {
                out.note(report.to_string().trim_end())?;
            }
            Ok(Exit::Failed)
        }
    }
}

/// The zone a bundle is named after, and its files.
pub(super) fn bundle(path: &Path) -> Result<(String, BundleSource), Failed> {
    let unusable = || {
        let shown = visible(&path.display().to_string());
        Failed::new(format!("`{shown}` is no bundle: a folder or a `.toml` file, named after its zone"))
    };
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(unusable)?;
    let name = if path.is_dir() { name } else { name.strip_suffix(".toml").ok_or_else(unusable)? };
    // A candidate is for the zone it waits beside.
    let zone = name.strip_suffix(bundles::CANDIDATE).unwrap_or(name);
    if !zone.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err(unusable());
    }
    let folder = path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    Ok((zone.to_owned(), bundles::read(folder, Path::new(""), name)?))
}

/// Where the signature of the bundle at `path` goes.
fn place(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(signature::FILE) } else { path.with_extension("sig") }
}

/// Writes a file whole or not at all.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let mut file = std::fs::File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&draft, path)
}

#[cfg(test)]
mod tests;
