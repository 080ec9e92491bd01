//! The command line: what may be asked, and who answers it.
//!
//! Three kinds of commands. `serve` and `echo` are processes. Whatever looks at or changes a running process
//! goes through its control socket. The rest reads files and never touches the store.

mod activate;
mod approvals;
mod audit;
mod budgets;
mod bundle;
mod call;
mod check;
mod diff;
mod echo;
mod edge;
mod env;
mod exit;
mod explain;
mod http;
mod init;
mod logging;
mod operate;
mod out;
mod policy;
mod promote;
mod providers;
mod replay;
mod revoke;
mod schema;
mod seal;
mod secret;
mod self_check;
mod serve;
mod sessions;
mod set_secret;
mod shadow;
mod shell;
mod sinks;
mod test;
mod versions;
mod what_can;
mod who_can;

use std::path::{Path, PathBuf};

use caracal_plugins::Registry;
use clap::{Args, Parser, Subcommand};

use exit::Failed;

pub use exit::Exit;
pub use out::Out;

/// The arguments of the `caracal` binary.
#[derive(Debug, Parser)]
#[command(
    name = "caracal",
    version,
    about = "Authority for AI agents: one edge that decides, injects, revokes and proves",
    after_help = exit::HELP,
    after_long_help = LONG_HELP,
    propagate_version = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
struct Global {
    /// The configuration file [default: caracal.toml]
    #[arg(long, global = true, env = "CARACAL_EDGE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The state folder of the running edge, instead of the one the configuration names
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Answer with one JSON document instead of text for people
    #[arg(long, global = true)]
    json: bool,
}

impl Global {
    fn config(&self) -> &Path {
        self.config.as_deref().unwrap_or_else(|| Path::new("caracal.toml"))
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the edge in the foreground until SIGTERM or Ctrl-C
    Serve(serve::ServeArgs),
    /// Make a folder with a configuration and a commented bundle for a chosen case
    #[command(after_help = init::HELP)]
    Init(init::InitArgs),
    /// Read every file as the edge would, and report every problem with its place
    #[command(after_help = check::HELP)]
    Check,
    /// Prove on loopback that no caller's token passes, and that each credential goes where its provider says
    #[command(after_help = self_check::HELP)]
    SelfCheck,
    /// Run the tests that the bundles carry, and say which policy answers differ from what they expect
    #[command(after_help = test::HELP)]
    Test(test::TestArgs),
    /// Print the environment an application's SDK reads, ready for `eval`
    #[command(after_help = env::HELP)]
    Env(env::EnvArgs),
    /// Make one governed call as an application, and tell what happens step by step
    #[command(after_help = call::HELP)]
    Call(call::CallArgs),
    /// Read, follow and verify the ledger
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Sign bundles, and check signatures
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    /// Make an application secret and the hash to put into its bundle
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Print the JSON Schema of a file the edge reads
    #[command(after_help = schema::HELP)]
    Schema(schema::SchemaArgs),
    /// Run an upstream that answers with what it received, credentials as fingerprints
    #[command(after_help = echo::HELP)]
    Echo(echo::EchoArgs),
    #[command(flatten)]
    Policy(Policy),
    #[command(flatten)]
    Running(Running),
}

/// What is about policies: the ones that were in force, and the one that is.
#[derive(Debug, Subcommand)]
enum Policy {
    /// List the versions of each zone that were in force, and which one is
    #[command(after_help = versions::HELP)]
    Versions(versions::VersionsArgs),
    /// Say in words about authority what two versions grant differently
    #[command(after_help = diff::HELP)]
    Diff(diff::DiffArgs),
    /// Put a kept version of a bundle into force instead of what the files say, or the files again
    #[command(after_help = activate::HELP)]
    Activate(activate::ActivateArgs),
    /// Go back to the version that the files said before the one in force
    #[command(after_help = activate::ROLLBACK_HELP)]
    Rollback(activate::RollbackArgs),
    /// Tell what the candidate beside a bundle would change about the decisions of live traffic
    #[command(after_help = shadow::HELP)]
    Shadow(shadow::ShadowArgs),
    /// Put the candidate into force that was looked at, in place of the bundle's files
    #[command(after_help = promote::HELP)]
    Promote(promote::PromoteArgs),
    /// Decide what the ledger has on record again with another bundle, and say what would be different
    #[command(after_help = replay::HELP)]
    Replay(replay::ReplayArgs),
    /// Tell which applications may send a request now, in which roles
    #[command(after_help = who_can::HELP)]
    WhoCan(who_can::WhoCanArgs),
    /// Tell rule by rule why a call was allowed or refused, and the least that would have allowed it
    #[command(after_help = explain::HELP)]
    Explain(explain::ExplainArgs),
    /// Compare the policy with what the ledger shows to be needed, or convert its documents
    #[command(subcommand, name = "policy")]
    Needed(policy::PolicyCommand),
}

/// What goes through the control socket of a running edge.
#[derive(Debug, Subcommand)]
enum Running {
    /// Show how the running edge is: zones, generations, listeners, ledger
    Status,
    /// Look at the sessions that agents have, and what they hold
    #[command(subcommand)]
    Sessions(sessions::SessionsCommand),
    /// Tell what a session or an application may do now, and what it would be refused and why
    #[command(after_help = what_can::HELP)]
    WhatCan(what_can::WhatCanArgs),
    /// List and answer what waits for a person's approval
    #[command(subcommand, after_help = approvals::HELP)]
    Approvals(approvals::ApprovalsCommand),
    /// List, rotate and revoke the keys that sign mandates
    #[command(subcommand)]
    Keys(operate::KeysCommand),
    /// List the upstream secrets in use: fingerprints, never values; change one; seal the file that holds them
    #[command(subcommand)]
    Secrets(operate::SecretsCommand),
    /// List providers, and try whether an access token can be had
    #[command(subcommand)]
    Providers(providers::ProvidersCommand),
    /// Show what is used of budgets and rates, and when it comes back
    #[command(after_help = budgets::HELP)]
    Budgets(budgets::BudgetsArgs),
    /// Stop everything in a zone at once; survives reloads and restarts
    #[command(after_help = operate::FREEZE_HELP)]
    Freeze(operate::ZoneArgs),
    /// End the freeze of a zone
    Unfreeze(operate::ZoneArgs),
    /// End everything that stands on a mandate, session, delegation, subject or application
    #[command(after_help = revoke::HELP)]
    Revoke(revoke::RevokeArgs),
    /// Let a revoked application mint again; what was revoked stays dead
    RestoreApplication(operate::ApplicationArgs),
    /// Read bundles and secrets again now, and say what changed
    #[command(after_help = operate::RELOAD_HELP)]
    Reload,
}

/// Carries out what was asked and says how it ended; whatever went wrong has been printed.
pub async fn run(cli: Cli, out: &mut Out) -> Exit {
    run_with(cli, out, Registry::stock()).await
}

/// As [`run`], with plugins of your own: a binary that knows them is a `main` of a few lines.
pub async fn run_with(cli: Cli, out: &mut Out, plugins: Registry) -> Exit {
    match dispatch(cli, out, plugins).await {
        Ok(exit) => exit,
        Err(failed) => failed.report(out),
    }
}

async fn dispatch(cli: Cli, out: &mut Out, plugins: Registry) -> Result<Exit, Failed> {
    let global = &cli.global;
    match cli.command {
        Command::Serve(args) => Box::pin(serve::run(global, &args, out, plugins)).await,
        Command::Init(args) => init::run(global, &args, out),
        Command::Check => check::run(global, out, &plugins).await,
        Command::SelfCheck => Box::pin(self_check::run(global, out, &plugins)).await,
        Command::Test(args) => test::run(global, &args, out),
        Command::Env(args) => env::run(global, &args, out).await,
        Command::Call(args) => Box::pin(call::run(global, &args, out)).await,
        Command::Audit(command) => audit::run(global, &command, out).await,
        Command::Bundle(command) => bundle::run(global, &command, out),
        Command::Secret(command) => secret::run(global, &command, out).await,
        Command::Schema(args) => schema::run(&args, out),
        Command::Echo(args) => echo::run(&args, out).await,
        Command::Policy(command) => about_policy(global, command, out).await,
        Command::Running(command) => ask_or_change(global, command, out).await,
    }
}

/// Compares policies, puts one into force, or asks the one in force.
async fn about_policy(global: &Global, command: Policy, out: &mut Out) -> Result<Exit, Failed> {
    match command {
        Policy::Versions(args) => versions::run(global, &args, out).await,
        Policy::Diff(args) => diff::run(global, &args, out).await,
        Policy::Activate(args) => activate::activate(global, args, out).await,
        Policy::Rollback(args) => activate::rollback(global, args, out).await,
        Policy::Shadow(args) => shadow::run(global, args, out).await,
        Policy::Promote(args) => promote::run(global, args, out).await,
        Policy::Replay(args) => replay::run(global, &args, out),
        Policy::Needed(command) => policy::run(global, &command, out),
        Policy::Explain(args) => explain::run(global, &args, out).await,
        Policy::WhoCan(args) => who_can::run(global, &args, out).await,
    }
}

/// Looks at or changes a running edge.
async fn ask_or_change(global: &Global, command: Running, out: &mut Out) -> Result<Exit, Failed> {
    match command {
        Running::Status => operate::status(global, out).await,
        Running::Sessions(command) => sessions::run(global, &command, out).await,
        Running::WhatCan(args) => what_can::run(global, &args, out).await,
        Running::Approvals(command) => approvals::run(global, &command, out).await,
        Running::Keys(command) => operate::keys(global, command, out).await,
        Running::Secrets(command) => operate::secrets(global, &command, out).await,
        Running::Budgets(args) => budgets::run(global, args, out).await,
        Running::Providers(command) => providers::run(global, command, out).await,
        Running::Freeze(args) => operate::freeze(global, args, out).await,
        Running::Unfreeze(args) => operate::unfreeze(global, args, out).await,
        Running::Revoke(args) => revoke::run(global, &args, out).await,
        Running::RestoreApplication(args) => operate::restore_application(global, args, out).await,
        Running::Reload => operate::reload(global, out).await,
    }
}

const LONG_HELP: &str = "\
Getting started:
  caracal init --template api my-edge       a folder to start from, valid at once
  caracal check --config caracal.toml       every problem of every file, with its place
  caracal test --config caracal.toml        what the bundles expect of their own policy
  caracal self-check --config caracal.toml  that no caller's token passes, and credentials do
  caracal serve --config caracal.toml       run the edge
  caracal secret new                        a secret for an application, and its hash for the bundle
  eval \"$(caracal env --app demo-agent --secret-file demo-agent.secret)\"
  caracal call --app demo-agent --secret-file demo-agent.secret \\
      --resource resource://echo --scope echo:read GET /read/hello

Emergencies:
  caracal freeze ZONE                       stop a zone now
  caracal revoke --app ID --dry-run         what would end; without --dry-run it does
  caracal revoke --session ID
  caracal keys revoke ZONE KID
  caracal rollback                          the policy before the last change, until the files change

Exit codes:
  0   done; for `call`, the upstream answered 2xx
  1   it did not work, a test failed, `diff` or `replay` found a difference, or the edge failed to start
  2   the arguments were not understood; for `test`, `diff` and `replay`, the files are wrong
  3   denied: `call` was refused by a policy or for want of authority
  64  bad configuration: `check` and `serve` say what and where
  65  the store and the ledger do not belong together, or the ledger does not verify
  66  the state folder is locked by another process
  69  no edge is running to ask

Colour is used on a terminal only, and not when NO_COLOR is set.";

#[cfg(test)]
mod tests;
