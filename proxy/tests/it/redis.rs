//! A Redis server of the test's own, on a free port, without a file.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use redis::aio::MultiplexedConnection;
use redis::{Client, cmd};

use crate::edge::eventually;

pub struct Redis {
    pub port: u16,
    process: Option<Child>,
    folder: tempfile::TempDir,
    policy: &'static str,
}

impl Redis {
    pub async fn start() -> Self {
        Self::with_policy("noeviction").await
    }

    pub async fn with_policy(policy: &'static str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut redis = Self { port, process: None, folder: tempfile::TempDir::new().unwrap(), policy };
        redis.run().await;
        redis
    }

    /// Starts the server again on its port, with nothing in it.
    pub async fn run(&mut self) {
        let port = self.port.to_string();
        let child = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--maxmemory-policy", self.policy, "--maxmemory", "200mb"])
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server runs; `scripts/setup.sh tests` installs it");
        self.process = Some(child);
        eventually("redis answers", async || self.try_connect().await.is_some()).await;
    }

    /// Starts a server that speaks only TLS, and asks for a password; its certificate is in `dir`.
    pub async fn tls(dir: &std::path::Path, password: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(dir.join("redis-ca.pem"), pair.cert.pem()).unwrap();
        std::fs::write(dir.join("redis.key"), pair.signing_key.serialize_pem()).unwrap();
        let child = Command::new("redis-server")
            .args(["--port", "0", "--tls-port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--tls-cert-file", "redis-ca.pem", "--tls-key-file", "redis.key"])
            .args(["--tls-auth-clients", "no", "--requirepass", password, "--save", "", "--appendonly", "no"])
            .current_dir(dir)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server runs; `scripts/setup.sh tests` installs it");
        let folder = tempfile::TempDir::new().unwrap();
        Self { port, process: Some(child), folder, policy: "noeviction" }
    }

    /// Ends the server at once; what it held is gone.
    pub fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub async fn connect(&self) -> MultiplexedConnection {
        self.try_connect().await.unwrap()
    }

    pub async fn flush(&self) {
        let () = cmd("FLUSHALL").query_async(&mut self.connect().await).await.unwrap();
    }

    pub async fn has(&self, key: &str) -> bool {
        cmd("EXISTS").arg(key).query_async(&mut self.connect().await).await.unwrap()
    }

    /// The `[state]` table of a node; `stream.key` is relative to the node's folder.
    pub fn config(&self) -> String {
        format!("[state]\nredis = \"redis://127.0.0.1:{}\"\nstream_key_file = \"stream.key\"\n", self.port)
    }

    async fn try_connect(&self) -> Option<MultiplexedConnection> {
        let client = Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        cmd("PING").query_async::<String>(&mut connection).await.ok().map(|_| connection)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
    }
}
