//! `caracal echo`: an upstream to try things with.

use std::net::SocketAddr;

use clap::Args;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::Exit;
use super::exit::Failed;
use super::out::Out;
use crate::echo;

/// `caracal echo ...`
#[derive(Debug, Args)]
pub(super) struct EchoArgs {
    /// Where to listen; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// Show credentials as they are, for secrets marked `demo = true`; mandates stay fingerprints
    #[arg(long)]
    show_secrets: bool,
}

pub(super) const HELP: &str = "\
Answers every request with its method, path, headers and the digest of its body, as JSON;
`/stream?events=100` sends server-sent events. It stops at Ctrl-C or SIGTERM.

  caracal echo --listen 127.0.0.1:9000

Exit codes: 0 stopped, 1 the address cannot be used.";

pub(super) async fn run(args: &EchoArgs, out: &mut Out) -> Result<Exit, Failed> {
    let cannot = |error| Failed::because(format!("listening on {} failed", args.listen), &error);
    let listener = TcpListener::bind(args.listen).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    let stop = stop_on_signal()?;
    out.note(&format!("echo: ready on http://{address}"))?;
    echo::serve(listener, args.show_secrets, stop).await;
    Ok(Exit::Done)
}

/// A channel that turns true at SIGINT or SIGTERM.
fn stop_on_signal() -> Result<watch::Receiver<bool>, Failed> {
    use tokio::signal::unix::{SignalKind, signal};

    let failed = |error| Failed::because("signals cannot be caught", &error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.send_replace(true);
    });
    Ok(stopped)
}
