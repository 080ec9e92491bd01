//! The `caracal` binary: arguments in, exit code out.

use std::process::ExitCode;

use anyhow::Context as _;
use caracal::cli::{Cli, Out, run};
use clap::Parser as _;

/// A governed call makes many small allocations, and the ledger's thread frees those of its records.
/// `docs/performance.md` has what this is worth.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_another| anyhow::anyhow!("a TLS provider is already installed"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the threads of the process cannot be started")?;
    let exit = runtime.block_on(run(cli, &mut Out::process()));
    Ok(exit.into())
}
