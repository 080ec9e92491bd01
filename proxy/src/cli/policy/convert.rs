//! `caracal policy convert`: policy data in the other form.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use caracal_policies::{PolicyForm, SourceFile, convert_bundle, convert_document};
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::bundles;
use crate::cli::exit::Failed;
use crate::cli::out::{Out, visible};
use crate::cli::versions::chosen;
use crate::cli::{Exit, Global, edge};

pub(in crate::cli) const HELP: &str = "\
A document in Rego (`.rego`) and one in TOML (`.toml`) say the same: a bundle that has the one in
the place of the other has the same digest. Of a zone, or the folder of a bundle, the policy data
of all documents becomes one document, and the rest of the bundle stays in TOML. Comments and the
order of keys are not kept. Nothing is evaluated, and no edge has to run.

  caracal policy convert --to toml authz.rego
  caracal policy convert --to rego quickstart --out policies/authz.rego

List the new document in `zone.toml`, take the old ones off the list, then `caracal check`.

Exit codes: 0 converted, 1 not readable or not written, 64 what is there cannot be converted.";

/// `caracal policy convert ...`
#[derive(Debug, Args)]
pub(in crate::cli) struct ConvertArgs {
    /// A document, the folder of a bundle, or a zone of the configuration
    #[arg(value_name = "FILE|FOLDER|ZONE")]
    what: PathBuf,
    /// The form that is wanted
    #[arg(long, value_name = "FORM")]
    to: Form,
    /// Write to this file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A form of policy documents.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// A TOML document
    Toml,
    /// A Rego data document
    Rego,
}

pub(in crate::cli) fn run(global: &Global, args: &ConvertArgs, out: &mut Out) -> Result<Exit, Failed> {
    let to = match args.to {
        Form::Toml => PolicyForm::Toml,
        Form::Rego => PolicyForm::Rego,
    };
    let text = text(global, &args.what, to)?;
    if let Some(path) = &args.out {
        write(path, &text)?;
    }
    if global.json {
        out.value(&json!({ "document": text, "out": args.out }), true)?;
    } else if let Some(path) = &args.out {
        out.note(&format!("written to {}; list it in `zone.toml`", path.display()))?;
    } else {
        out.line(text.trim_end())?;
    }
    Ok(Exit::Done)
}

fn text(global: &Global, what: &Path, to: PolicyForm) -> Result<String, Failed> {
    let shown = what.display().to_string();
    if what.is_file() {
        let text = fs::read_to_string(what)
            .map_err(|error| Failed::because(format!("`{shown}` could not be read"), &error))?;
        return Ok(convert_document(&SourceFile { path: shown, text }, to)?);
    }
    let name = what.file_name().and_then(|name| name.to_str());
    if let (true, Some(zone)) = (what.is_dir(), name) {
        let parent = what.parent().unwrap_or_else(|| Path::new(""));
        let bundles = if parent == Path::new("") { Path::new(".") } else { parent };
        return Ok(convert_bundle(&bundles::read(bundles, Path::new("."), zone)?, zone, to)?);
    }
    let config = edge::load(global)?;
    let found = chosen(&config, Some(&shown)).map_err(|_no_zone| {
        let shown = visible(&shown);
        Failed::new(format!("`{shown}` is no file, no folder and no zone of `{}`", global.config().display()))
    })?;
    let zone = found.first().copied().unwrap_or_default();
    Ok(convert_bundle(&bundles::read(&config.bundles_dir, &config.base, zone)?, zone, to)?)
}

/// What is there already is somebody's policy, and stays.
fn write(path: &Path, text: &str) -> Result<(), Failed> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failed::because(format!("`{}` could not be written", path.display()), &error))
}
