//! Processes under measurement.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::machine::{Cores, pin};

/// A started process; it ends when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// From the start of the process to its first answer.
    pub ready_after: Duration,
}

impl Process {
    /// Starts `caracal serve` on the proxy's core and waits for its ready line.
    ///
    /// # Errors
    /// The binary is not there, or the process ends before it is ready.
    pub fn edge(cores: Cores, config: &Path) -> anyhow::Result<Self> {
        let binary = binary()?;
        let mut command = Command::new(&binary);
        command.arg("serve").arg("--config").arg(config).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child =
            spawn(cores, &mut command).with_context(|| format!("starting {}", binary.display()))?;
        let mut lines = BufReader::new(child.stderr.take().context("no stderr")?).lines();
        for line in lines.by_ref() {
            let line = line?;
            if line.starts_with("caracal: ready") {
                let ready_after = started.elapsed();
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Self { child, ready_after });
            }
        }
        bail!("the edge ended with {} before it was ready", child.wait()?)
    }

    /// Starts the bare pass-through on the proxy's core.
    ///
    /// # Errors
    /// It does not start.
    pub fn pass_through(cores: Cores, listen: SocketAddr, upstream: SocketAddr) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["pass-through", &listen.to_string(), &upstream.to_string()]);
        let started = Instant::now();
        let child = spawn(cores, &mut command)?;
        while std::net::TcpStream::connect(listen).is_err() {
            if started.elapsed() > Duration::from_secs(10) {
                bail!("the pass-through does not answer");
            }
            std::thread::yield_now();
        }
        Ok(Self { child, ready_after: started.elapsed() })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is fine.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The `caracal` of this build: `CARACAL_BIN`, or the one beside the running program.
fn binary() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os("CARACAL_BIN") {
        return Ok(named.into());
    }
    let own = std::env::current_exe()?;
    let beside = own.with_file_name("caracal");
    if beside.exists() {
        Ok(beside)
    } else {
        bail!("build it first: cargo build --release --package caracal")
    }
}

/// A child keeps the core its parent had when it started it.
fn spawn(cores: Cores, command: &mut Command) -> anyhow::Result<Child> {
    pin(cores.proxy)?;
    let child = command.spawn();
    pin(cores.load)?;
    Ok(child?)
}
