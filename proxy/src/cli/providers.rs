//! `caracal providers`: which there are, whether their tokens can be had, and whose accounts are connected.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::exit::Failed;
use super::out::{Out, Style};
use super::{Exit, Global, edge};
use crate::control::Request;
use crate::state::SHARED_SUBJECT;

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
    /// Connect an account: prints the address where its owner agrees, and waits for that
    #[command(after_help = CONNECT_HELP)]
    Connect(Whose),
    /// List connections: whose, to what, how they stand and until when
    Connections {
        /// Only this zone
        #[arg(long, value_name = "ZONE")]
        zone: Option<String>,
    },
    /// End a connection: its tokens are given back at the provider and forgotten
    #[command(after_help = DISCONNECT_HELP)]
    Disconnect(Whose),
}

/// Which connection.
#[derive(Debug, Args)]
pub(super) struct Whose {
    /// The zone
    zone: String,
    /// The provider's identifier or id
    provider: String,
    #[command(flatten)]
    subject: Subject,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Subject {
    /// Of this subject: a person's `sub`, or an application's id
    #[arg(long, value_name = "SUB")]
    subject: Option<String>,
    /// The zone's shared connection, for whoever has none of their own and may use it
    #[arg(long)]
    shared: bool,
}

const TEST_HELP: &str = "\
The running edge asks the token endpoint as it would for a request, past its cache and its circuit
breaker, and records that you asked:

  caracal providers test provider://crm

Exit codes: 0 there is a token, 1 there is none (`outcome` and `detail` say why), 69 no edge is running.";

const CONNECT_HELP: &str = "\
For providers of the kind `oauth2_authorization_code`. The address is good once, for ten minutes, and only for
whoever owns the account: what they agree to is what the subject's agents act with. Register the `redirect_uri`
that is shown with the authorization server first.

  caracal providers connect prod provider://calendar --subject ada@example.com
  caracal providers connect prod provider://wiki --shared

With --json two documents are printed: the address at once, and how it went when that is known.

Exit codes: 0 connected, 1 not connected (`outcome` says why), 69 no edge is running.";

const DISCONNECT_HELP: &str = "\
The connection is over at once, also when the provider cannot be asked; `upstream_revocation` says whether the
tokens were given back there (revoked), could not be (failed), or the provider takes none (unsupported).

  caracal providers disconnect prod provider://calendar --subject ada@example.com

Exit codes: 0 it is over, 1 there is none, 69 no edge is running.";

impl Whose {
    fn parts(self) -> (String, String, String) {
        (self.zone, self.provider, self.subject.subject.unwrap_or_else(|| SHARED_SUBJECT.to_owned()))
    }
}

pub(super) async fn run(global: &Global, command: ProvidersCommand, out: &mut Out) -> Result<Exit, Failed> {
    let request = match command {
        ProvidersCommand::List { zone } => Request::Providers { zone },
        ProvidersCommand::Test { provider, zone } => Request::ProviderTest { zone, provider },
        ProvidersCommand::Connections { zone } => Request::ProviderConnections { zone },
        ProvidersCommand::Disconnect(whose) => {
            let (zone, provider, subject) = whose.parts();
            Request::ProviderDisconnect { zone, provider, subject }
        }
        ProvidersCommand::Connect(whose) => return connect(global, whose, out).await,
    };
    let data = edge::ask(global, &request).await?;
    let outcome = data.get("outcome").and_then(Value::as_str);
    if let (Some(outcome), false) = (outcome, global.json) {
        let verdict = match outcome {
            "ok" => out.paint(Style::Good, "the token endpoint gives a token"),
            "disconnected" => out.paint(Style::Good, "the connection is over"),
            _ => out.paint(Style::Bad, "there is no token to be had"),
        };
        out.line(&verdict)?;
    }
    out.value(&data, global.json)?;
    Ok(if outcome.is_none_or(|outcome| ["ok", "disconnected"].contains(&outcome)) {
        Exit::Done
    } else {
        Exit::Failed
    })
}

async fn connect(global: &Global, whose: Whose, out: &mut Out) -> Result<Exit, Failed> {
    let (zone, provider, subject) = whose.parts();
    let begun = edge::ask(global, &Request::ProviderConnect { zone, provider, subject }).await?;
    let text = |name: &str| begun.get(name).and_then(Value::as_str).unwrap_or_default();
    if global.json {
        out.value(&begun, true)?;
    } else {
        out.note(&format!("redirect_uri to be registered: {}", text("redirect_uri")))?;
        out.note(&out.paint_error(Style::Strong, "Open this address as the owner of the account:"))?;
        out.line(text("url"))?;
        out.note("waiting for up to ten minutes; Ctrl-C leaves the address good")?;
    }
    let flow = Request::ProviderFlow { flow: text("flow").to_owned() };
    loop {
        let told = edge::ask(global, &flow).await?;
        let outcome = told.get("outcome").and_then(Value::as_str).unwrap_or_default();
        if outcome == "pending" {
            continue;
        }
        let connected = outcome == "connected";
        if global.json {
            out.value(&told, true)?;
        } else {
            let (style, verdict) =
                if connected { (Style::Good, "connected") } else { (Style::Bad, "not connected") };
            out.line(&out.paint(style, verdict))?;
            out.value(&told, false)?;
        }
        return Ok(if connected { Exit::Done } else { Exit::Failed });
    }
}
