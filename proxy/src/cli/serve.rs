//! `caracal serve`: the edge in the foreground.

use caracal_plugins::Registry;
use clap::Args;

use super::exit::{Failed, chain};
use super::out::Out;
use super::{Exit, Global, edge, logging};
use crate::serve::{self, Embedding, ServeOptions};

/// `caracal serve ...`
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct ServeArgs {
    /// Start although store and ledger do not belong together, as after restoring a backup
    #[arg(long)]
    accept_restored: bool,
}

const HELP: &str = "\
Prints `caracal: ready` on standard error once every listener answers. The log goes there too.

  SIGTERM, SIGINT   stop: finish what is under way, save the marks, close the ledger;
                    a second one ends it now
  SIGHUP            read bundles and secrets again, as `caracal reload` does

  caracal serve --config caracal.toml

Exit codes: 0 stopped cleanly, 1 failed to start, 64 bad configuration, 65 store and ledger do not
belong together (see --accept-restored), 66 the state folder is locked by another process.";

pub(super) async fn run(
    global: &Global,
    args: &ServeArgs,
    out: &mut Out,
    registry: Registry,
) -> Result<Exit, Failed> {
    let config = edge::load(global)?;
    logging::start(&config.log).map_err(|error| Failed::because("the log cannot be started", &error))?;
    let options = ServeOptions { accept_restored: args.accept_restored };
    let own = Embedding { registry, ..Embedding::default() };
    match serve::run_with(config, options, own).await {
        Ok(()) => Ok(Exit::Done),
        Err(error) => {
            // The log may be JSON for a machine; whoever started it at a terminal gets a sentence.
            out.note(&format!("caracal: {}", chain(&error)))?;
            Ok(Exit::Serve(error.exit_code()))
        }
    }
}
