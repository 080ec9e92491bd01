//! `caracal revoke`: ends everything that stands on something, or says what that would be.

use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use super::exit::Failed;
use super::out::{Out, Style, visible};
use super::{Exit, Global, edge};
use crate::control::Request;
use crate::state::{Extent, Target};

pub(super) const HELP: &str = "\
It is in force when the command returns: the next call is refused, calls and streams that are under
way are cut, and it survives reloads and restarts. The ledger records who did it and what ended.

  caracal revoke --session ID --dry-run        what would end, and nothing ends
  caracal revoke --session ID                  a session, those under it, and what they gave and hold
  caracal revoke --delegation ID               a delegation, what was handed on, and who held it
  caracal revoke --record ID                   a mandate's `sid`, what came of it, and its sessions
  caracal revoke --subject ID                  everything that acts for a mandate's `sub`, and its connections
  caracal revoke --app ID                      an application, until `caracal restore-application`
  caracal revoke --app ID --cut                the same, but it may start afresh at once

Exit codes: 0 in force, 1 not carried out, 69 no edge is running.";

/// `caracal revoke ...`
#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The zone; needed when there are several
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
    /// With --app: end what exists, but let the application get new mandates at once
    #[arg(long, conflicts_with_all = ["record", "root", "session", "delegation", "subject"])]
    cut: bool,
    /// Why, for the ledger and for whoever looks at the ended sessions
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// List what would end, and end nothing
    #[arg(long)]
    dry_run: bool,
}

/// What is revoked: exactly one.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct TargetArgs {
    /// An authority record: a mandate's `sid`
    #[arg(long, value_name = "ID")]
    record: Option<String>,
    /// A root record: a mandate's `root_sid`, with everything minted under it
    #[arg(long, value_name = "ID")]
    root: Option<String>,
    /// A session
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// A delegation
    #[arg(long, value_name = "ID")]
    delegation: Option<String>,
    /// A subject: a mandate's `sub`; the accounts it connected end too
    #[arg(long, value_name = "ID")]
    subject: Option<String>,
    /// An application
    #[arg(long, value_name = "ID")]
    app: Option<String>,
}

impl RevokeArgs {
    fn target(&self) -> Result<Target, Failed> {
        let TargetArgs { record, root, session, delegation, subject, app } = &self.target;
        let id = |id: &Option<String>| id.as_deref().map(Arc::<str>::from);
        let extent = if self.cut { Extent::Cut } else { Extent::Block };
        id(record)
            .map(Target::Record)
            .or_else(|| id(root).map(Target::Root))
            .or_else(|| id(session).map(Target::Session))
            .or_else(|| id(delegation).map(Target::Delegation))
            .or_else(|| id(subject).map(Target::Subject))
            .or_else(|| id(app).map(|id| Target::Application { id, extent }))
            .ok_or_else(|| Failed::new("say what to revoke; `caracal revoke --help` lists what there is"))
    }
}

pub(super) async fn run(global: &Global, args: &RevokeArgs, out: &mut Out) -> Result<Exit, Failed> {
    let target = args.target()?;
    let request = Request::Revoke {
        zone: args.zone.clone(),
        target,
        reason: args.reason.clone(),
        dry_run: args.dry_run,
    };
    let done = edge::ask(global, &request).await?;
    if global.json {
        out.value(&done, true)?;
    } else {
        tell(args, &done, out)?;
    }
    Ok(Exit::Done)
}

fn tell(args: &RevokeArgs, done: &Value, out: &mut Out) -> Result<(), Failed> {
    let count = |kind: &str, one: &str, many: &str| {
        let count = done.pointer(&format!("/counts/{kind}")).and_then(Value::as_u64).unwrap_or(0);
        format!("{count} {}", if count == 1 { one } else { many })
    };
    let mut what = vec![
        count("records", "record", "records"),
        count("sessions", "session", "sessions"),
        count("delegations", "delegation", "delegations"),
        count("requests", "request in flight", "requests in flight"),
    ];
    if args.target.subject.is_some() {
        what.push(count("connections", "connection", "connections"));
    }
    let what = what.join(", ");
    let headline = if args.dry_run {
        out.paint(Style::Strong, &format!("would end {what}; nothing was changed"))
    } else {
        out.paint(Style::Good, &format!("ended {what}"))
    };
    out.line(&headline)?;
    rows(done, "session", session, out)?;
    rows(done, "delegation", delegation, out)?;
    rows(done, "connection", connection, out)?;
    rows(done, "record", text, out)?;
    if done.get("more") == Some(&Value::Bool(true)) {
        out.line("  and more, which the counts include")?;
    }
    if let (Some(app), false, false) = (&args.target.app, args.cut, args.dry_run) {
        let (zone, app) = (done.get("zone").map(text).unwrap_or_default(), visible(app));
        out.line(&format!(
            "it gets nothing new until `caracal restore-application --zone {zone} --app {app}`"
        ))?;
    }
    Ok(())
}

fn rows(done: &Value, kind: &str, line: fn(&Value) -> String, out: &mut Out) -> Result<(), Failed> {
    let rows = done.get(format!("{kind}s")).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for row in rows {
        out.line(&format!("  {kind:11} {}", line(row)))?;
    }
    Ok(())
}

fn session(row: &Value) -> String {
    let labels = row.get("labels").and_then(Value::as_array).into_iter().flatten().map(text);
    let labels = labels.collect::<Vec<_>>().join(" ");
    let part = |name: &str| row.get(name).map(text).unwrap_or_default();
    format!("{} {} {} {} [{labels}]", part("id"), part("application"), part("lifecycle"), part("status"))
}

fn delegation(row: &Value) -> String {
    let scopes = row.get("scopes").and_then(Value::as_array).into_iter().flatten().map(text);
    let scopes = scopes.collect::<Vec<_>>().join(" ");
    let part = |name: &str| row.get(name).map(text).unwrap_or_default();
    format!("{} {} -> {} [{scopes}]", part("id"), part("issuer"), part("receiver"))
}

fn connection(row: &Value) -> String {
    let part = |name: &str| row.get(name).map(text).unwrap_or_default();
    let told = match &*part("upstream_revocation") {
        "revoked" => "given back at the provider",
        "failed" => "could not be given back at the provider: end it there",
        "unsupported" => "the provider takes no tokens back",
        _ => "",
    };
    format!("{} {} {told}", part("id"), part("provider")).trim_end().to_owned()
}

fn text(value: &Value) -> String {
    visible(value.as_str().unwrap_or_default())
}
