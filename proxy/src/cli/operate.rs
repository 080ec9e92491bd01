//! Looking at and changing a running edge through its control socket.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::exit::Failed;
use super::out::{Out, Style};
use super::{Exit, Global, edge, seal, set_secret};
use crate::control::Request;

/// A command about one zone.
#[derive(Debug, Args)]
pub(super) struct ZoneArgs {
    /// The zone's id
    zone: String,
}

/// A command about one application.
#[derive(Debug, Args)]
pub(super) struct ApplicationArgs {
    /// The application's zone
    #[arg(long, value_name = "ZONE")]
    zone: String,
    /// The application's id
    #[arg(long, value_name = "ID")]
    app: String,
}

/// `caracal keys ...`
#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// List every zone's signing keys: ids, ages and states, nothing secret
    List,
    /// Publish a new key for a zone; it signs once verifiers have had 300 s to fetch it
    Rotate(ZoneArgs),
    /// Refuse everything a key signed, from the next request on
    #[command(after_help = REVOKE_KEY_HELP)]
    Revoke {
        /// The zone's id
        zone: String,
        /// The key's id, as `caracal keys list` shows it
        kid: String,
    },
}

/// `caracal secrets ...`
#[derive(Debug, Subcommand)]
pub(super) enum SecretsCommand {
    #[command(flatten)]
    Files(seal::SealCommand),
    /// Change one value in the secrets file, or add one, and see it in force
    #[command(after_help = set_secret::HELP)]
    Set(set_secret::SetArgs),
    /// List the loaded secrets: fingerprint, since when in force, when used last
    List,
    /// Say whether the old value of a secret may be deleted now
    #[command(after_help = ROTATE_HELP)]
    RotateCheck {
        /// The secret, as `name/key`, or its name where it has one key
        name: String,
        /// Fingerprint of the old value, from `caracal secrets list` before the change
        #[arg(long, value_name = "FINGERPRINT")]
        old: Option<String>,
        /// How long calls that were in flight at the change may still use the old value
        #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32))]
        grace: u32,
    },
}

const ROTATE_HELP: &str = "\
Looks in this edge's ledger for calls that used another value than the one in force. With --old the
answer is about that value, and is no while it is still the one in force:

  caracal secrets list                       # note the fingerprint, then change the secret
  caracal secrets rotate-check stripe/api_key --old 0123456789abcdef

Nodes of a fleet have a ledger each: ask every one.

Exit codes: 0 the old value may be deleted, 1 not yet, or not known, 69 no edge is running.";

pub(super) const FREEZE_HELP: &str = "\
A freeze is in force when the command returns. It ends streams, refuses mints and calls, and
survives reloads and restarts until `caracal unfreeze ZONE`. It needs no valid bundle and no valid
configuration:

  caracal freeze quickstart
  caracal freeze quickstart --state-dir /var/lib/caracal

Exit codes: 0 in force, 1 not carried out, 69 no edge is running.";

pub(super) const RELOAD_HELP: &str = "\
The edge also follows its files by itself; this does it now and says what came of it. Zones are taken
or refused one by one, and what is refused leaves in force what was.

Exit codes: 0 as in the files, 1 not carried out, 64 something was refused, 69 no edge is running.";

const REVOKE_KEY_HELP: &str = "\
This edge refuses the key from the next request on and signs with a new key at once. Resource
servers that verify mandates themselves keep published keys for up to 300 s: until then they may
still accept it.

Exit codes: 0 in force, 1 not carried out, 69 no edge is running.";

pub(super) async fn status(global: &Global, out: &mut Out) -> Result<Exit, Failed> {
    show(global, Request::Status, out).await
}

pub(super) async fn secrets(
    global: &Global,
    command: &SecretsCommand,
    out: &mut Out,
) -> Result<Exit, Failed> {
    match command {
        SecretsCommand::Files(command) => seal::run(global, command, out),
        SecretsCommand::Set(args) => set_secret::run(global, args, out).await,
        SecretsCommand::List => show(global, Request::SecretsList, out).await,
        SecretsCommand::RotateCheck { name, old, grace } => {
            let grace_ms = i64::from(*grace).saturating_mul(1_000);
            let request = Request::RotateCheck { secret: name.clone(), old: old.clone(), grace_ms };
            rotate_check(global, request, out).await
        }
    }
}

async fn rotate_check(global: &Global, request: Request, out: &mut Out) -> Result<Exit, Failed> {
    let data = edge::ask(global, &request).await?;
    let may = data.get("may_delete") == Some(&Value::Bool(true));
    if !global.json {
        let verdict = if may {
            out.paint(Style::Good, "the old value may be deleted")
        } else {
            out.paint(Style::Bad, "keep the old value")
        };
        out.line(&verdict)?;
    }
    out.value(&data, global.json)?;
    Ok(if may { Exit::Done } else { Exit::Failed })
}

pub(super) async fn reload(global: &Global, out: &mut Out) -> Result<Exit, Failed> {
    let data = edge::ask(global, &Request::Reload).await?;
    let refused = is_refused(&data);
    if !global.json {
        let verdict = if refused {
            out.paint(Style::Bad, "something was refused; what was in force before it stays in force")
        } else if is_pinned(&data) {
            out.paint(Style::Strong, "secrets are as in the files, and bundles where no version is pinned")
        } else {
            out.paint(Style::Good, "bundles and secrets are as in the files")
        };
        out.line(&verdict)?;
    }
    out.value(&data, global.json)?;
    Ok(if refused { Exit::BadConfiguration } else { Exit::Done })
}

/// Whether any zone's bundle or the secrets file was refused.
fn is_refused(outcome: &Value) -> bool {
    let zones = outcome.get("zones").and_then(Value::as_array).into_iter().flatten();
    zones
        .chain(outcome.get("secrets"))
        .any(|part| part.get("result").and_then(Value::as_str) == Some("rejected"))
}

/// Whether an operator's version is in force in any zone instead of what its files say.
fn is_pinned(outcome: &Value) -> bool {
    let mut zones = outcome.get("zones").and_then(Value::as_array).into_iter().flatten();
    zones.any(|zone| zone.get("pinned") == Some(&Value::Bool(true)))
}

pub(super) async fn keys(global: &Global, command: KeysCommand, out: &mut Out) -> Result<Exit, Failed> {
    match command {
        KeysCommand::List => show(global, Request::KeysList, out).await,
        KeysCommand::Rotate(ZoneArgs { zone }) => {
            let done = format!("a new key of `{zone}` is published and signs in 300 s");
            act(global, Request::KeysRotate { zone }, &done, out).await
        }
        KeysCommand::Revoke { zone, kid } => {
            let done = format!(
                "`{kid}` is refused here from now on; verifiers elsewhere may accept it for up to 300 s more"
            );
            act(global, Request::KeysRevoke { zone, kid }, &done, out).await
        }
    }
}

pub(super) async fn freeze(global: &Global, args: ZoneArgs, out: &mut Out) -> Result<Exit, Failed> {
    let done = format!("`{}` is frozen, until `caracal unfreeze {}`", args.zone, args.zone);
    act(global, Request::Freeze { zone: args.zone }, &done, out).await
}

pub(super) async fn unfreeze(global: &Global, args: ZoneArgs, out: &mut Out) -> Result<Exit, Failed> {
    let done = format!("`{}` is no longer frozen", args.zone);
    act(global, Request::Unfreeze { zone: args.zone }, &done, out).await
}

pub(super) async fn restore_application(
    global: &Global,
    args: ApplicationArgs,
    out: &mut Out,
) -> Result<Exit, Failed> {
    let ApplicationArgs { zone, app } = args;
    let done = format!("`{app}` may mint again; what was revoked stays dead");
    act(global, Request::RestoreApplication { zone, application: app }, &done, out).await
}

/// Asks, and shows the answer.
async fn show(global: &Global, request: Request, out: &mut Out) -> Result<Exit, Failed> {
    let data = edge::ask(global, &request).await?;
    out.value(&data, global.json)?;
    Ok(Exit::Done)
}

/// Has something done, and says so with whatever the edge adds.
async fn act(global: &Global, request: Request, done: &str, out: &mut Out) -> Result<Exit, Failed> {
    let data = edge::ask(global, &request).await?;
    if global.json {
        out.value(&data, true)?;
        return Ok(Exit::Done);
    }
    let done = out.paint(Style::Good, done);
    out.line(&done)?;
    if data != Value::Null {
        out.value(&data, false)?;
    }
    Ok(Exit::Done)
}
