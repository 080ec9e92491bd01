//! `caracal init`: a folder with a configuration and a commented bundle for a chosen case, valid at once.

mod templates;
#[cfg(test)]
mod tests;

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::exit::Failed;
use super::out::{Out, Style};
use super::{Exit, Global, secret};
use templates::Template;

pub(super) const HELP: &str = "\
Makes a new folder: caracal.toml, secrets.toml, a bundle with comments and tests, and a secret for its
application. It passes `caracal check` and `caracal test` as it is, and can be tried against
`caracal echo` before you put the address and the key of your own API.

  caracal init --template api my-edge

Exit codes: 0 made, 1 not made; nothing that is there is touched.";

/// `caracal init ...`
#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// What it is for
    #[arg(long, value_enum)]
    template: Case,
    /// The folder to make; it may be there if it is empty
    folder: PathBuf,
}

/// The cases there is a template for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// One agent and one API with a key
    Api,
    /// One agent and one MCP server
    Mcp,
    /// A zone for each of many customers
    Customers,
    /// One application that hands parts of its work to many sessions
    Delegation,
}

pub(super) fn run(global: &Global, args: &InitArgs, out: &mut Out) -> Result<Exit, Failed> {
    let template = templates::of(args.template);
    let folder = &args.folder;
    let made = write_all(folder, &template)
        .map_err(|error| Failed::because(format!("`{}` was not made", folder.display()), &error))?;
    let call = template.call(folder);
    if global.json {
        let files: Vec<Value> = made.iter().map(|path| json!(path)).collect();
        out.value(&json!({ "folder": folder, "files": files, "call": call }), true)?;
        return Ok(Exit::Done);
    }
    let done = out.paint(Style::Good, &format!("{} is ready", folder.display()));
    out.line(&done)?;
    for path in &made {
        out.line(&format!("  {}", path.display()))?;
    }
    let config = folder.join("caracal.toml");
    out.line("\nTry it, each in a terminal of its own:")?;
    out.line("  caracal echo")?;
    out.line(&format!("  caracal serve --config {}", config.display()))?;
    out.line(&format!("  caracal {}", call.join(" ")))?;
    out.line("\nThen put the address of your API into the bundle, and its host and key into secrets.toml.")?;
    Ok(Exit::Done)
}

/// Writes every file of the template, and gives their names below the folder.
fn write_all(folder: &Path, template: &Template) -> io::Result<Vec<PathBuf>> {
    make_folder(folder, 0o700)?;
    if std::fs::read_dir(folder)?.next().is_some() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the folder is not empty"));
    }
    let mut made = Vec::new();
    let mut put = |name: String, text: &str, mode: u32| {
        let path = folder.join(&name);
        if let Some(above) = path.parent() {
            make_folder(above, 0o700)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        file.write_all(text.as_bytes())?;
        made.push(PathBuf::from(name));
        Ok::<_, io::Error>(())
    };
    put("caracal.toml".to_owned(), &template.config(), 0o644)?;
    put("secrets.toml".to_owned(), template.secrets, 0o600)?;
    for zone in template.zones {
        let fresh =
            secret::generate().map_err(|_failed| io::Error::other("the system gave no random bytes"))?;
        put(format!("{}.secret", zone.application), &format!("{}\n", fresh.as_str()), 0o600)?;
        for (name, text) in zone.files(&secret::hash(&fresh)) {
            put(name, &text, 0o644)?;
        }
    }
    Ok(made)
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)
}
