//! A Postgres server of the test's own, on a free port.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use caracal::config::StoreConfig;
use caracal::state::SharedStore;

use crate::edge::eventually;

/// Postgres does not run as root; a test that does starts it as `nobody`.
const NOBODY: u32 = 65_534;
pub const PASSWORD: &str = "canary-pg-3f1c7a90";

pub struct Postgres {
    pub port: u16,
    folder: tempfile::TempDir,
    process: Option<Child>,
}

impl Postgres {
    pub async fn start() -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        std::fs::write(folder.path().join("password"), PASSWORD).unwrap();
        std::os::unix::fs::chown(folder.path().join("password"), owner(), None).unwrap();
        let made = program("initdb", folder.path())
            .args(["-D", "data", "-U", "caracal", "-A", "scram-sha-256", "--pwfile", "password"])
            .args(["-E", "UTF8", "--locale=C", "--no-sync"])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut postgres = Self { port, folder, process: None };
        postgres.run().await;
        postgres
    }

    /// Starts the server, again with what it held.
    pub async fn run(&mut self) {
        let port = self.port.to_string();
        let child = program("postgres", self.folder.path())
            .args(["-D", "data", "-p", &port, "-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories=", "-c", "fsync=off"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(child);
        eventually("postgres answers", async || self.answers().await).await;
    }

    /// Ends the server at once, with every connection to it.
    pub fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        // Its own processes notice that it is gone, and go too.
        process.kill().unwrap();
        process.wait().unwrap();
        drop(std::fs::remove_file(self.folder.path().join("data/postmaster.pid")));
    }

    /// The way to it, as a node has it.
    pub fn store(&self) -> SharedStore {
        SharedStore::new(&self.config(), Some(&PASSWORD.into()))
    }

    /// The lines of a node's `[state]` table; `pg.password` is relative to the node's folder.
    pub fn lines(&self) -> String {
        format!(
            "url = \"postgres://caracal@127.0.0.1:{}/postgres?sslmode=disable\"\n\
             url_password_file = \"pg.password\"\n",
            self.port
        )
    }

    fn config(&self) -> StoreConfig {
        StoreConfig {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            database: "postgres".to_owned(),
            user: "caracal".to_owned(),
            tls: false,
            password_file: None,
            ca_file: None,
        }
    }

    /// Whether it takes a connection, all of it: a server that is coming up answers and refuses.
    async fn answers(&self) -> bool {
        let folder = tempfile::TempDir::new().unwrap();
        // At the beginning of time nothing is over yet, so that looking ends nothing.
        let clock = caracal::clock::Clock::manual(0);
        let limits = caracal::state::StateLimits::default();
        let state = folder.path().join("state");
        let opened = caracal::state::State::open_with(&state, Some(self.store()), clock, limits).await;
        match opened {
            Ok(state) => {
                Arc::new(state).close().await.unwrap();
                true
            }
            Err(_) => false,
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
    }
}

fn owner() -> Option<u32> {
    rustix::process::geteuid().is_root().then_some(NOBODY)
}

fn program(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(folder_of_programs().join(name));
    command.current_dir(folder);
    if let Some(user) = owner() {
        command.uid(user).gid(user);
    }
    command
}

/// Where the setup found Postgres or put it.
fn folder_of_programs() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let found = Command::new(root.join("scripts/setup.sh")).arg("where-postgres").output().unwrap();
    assert!(found.status.success(), "`scripts/setup.sh tests` installs Postgres");
    String::from_utf8(found.stdout).unwrap().trim().into()
}
