//! `caracal providers`: which there are, and whether their tokens can be had.

use clap::Subcommand;
use serde_json::Value;

use super::exit::Failed;
use super::out::{Out, Style};
use super::{Exit, Global, edge};
use crate::control::Request;

/// `caracal providers ...`
#[derive(Debug, Subcommand)]
pub(super) enum ProvidersCommand {
    /// List providers: kinds, endpoints, and the access tokens that are kept, as fingerprints
    List {
        /// Only this zone
        #[arg(long, value_name = "ZONE")]
        zone: Option<String>,
    },
    /// Fetch an access token now and tell how that went; it is shown as a fingerprint and dropped
    #[command(after_help = TEST_HELP)]
    Test {
        /// The provider's identifier or id
        provider: String,
        /// Its zone; needed only when several zones have it
        #[arg(long, value_name = "ZONE")]
        zone: Option<String>,
    },
}

const TEST_HELP: &str = "\
The running edge asks the token endpoint as it would for a request, past its cache and its circuit
breaker, and records that you asked:

  caracal providers test provider://crm

Exit codes: 0 there is a token, 1 there is none (`outcome` and `detail` say why), 69 no edge is running.";

pub(super) async fn run(global: &Global, command: ProvidersCommand, out: &mut Out) -> Result<Exit, Failed> {
    let request = match command {
        ProvidersCommand::List { zone } => Request::Providers { zone },
        ProvidersCommand::Test { provider, zone } => Request::ProviderTest { zone, provider },
    };
    let data = edge::ask(global, &request).await?;
    let outcome = data.get("outcome").and_then(Value::as_str);
    if let (Some(outcome), false) = (outcome, global.json) {
        let verdict = match outcome {
            "ok" => out.paint(Style::Good, "the token endpoint gives a token"),
            _ => out.paint(Style::Bad, "there is no token to be had"),
        };
        out.line(&verdict)?;
    }
    out.value(&data, global.json)?;
    Ok(if outcome.is_none_or(|outcome| outcome == "ok") { Exit::Done } else { Exit::Failed })
}
