//! `caracal init`: what it writes serves a governed call at once.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use caracal::serve::{ServeOptions, Sockets, start};
use serde_json::Value;
use tempfile::TempDir;

use crate::edge::install_crypto;
use crate::upstream::Upstream;

async fn caracal(line: Vec<String>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_caracal"));
    command.args(line);
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{}: {text}", path.display());
    std::fs::write(path, text.replace(from, to)).unwrap();
}

/// Every file of the folder that names the upstream of the templates.
fn aim(folder: &Path, files: &Value, address: &str) {
    for file in files.as_array().unwrap() {
        let path = folder.join(file.as_str().unwrap());
        if std::fs::read_to_string(&path).unwrap().contains("127.0.0.1:9000") {
            replace(&path, "127.0.0.1:9000", address);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_template_serves_the_call_it_proposes_and_injects_its_key() {
    install_crypto();
    let upstream = Upstream::start().await;
    let dir = TempDir::new().unwrap();
    for name in ["api", "mcp", "customers", "delegation"] {
        let folder = dir.path().join(name);
        let line = ["init", "--template", name, folder.to_str().unwrap(), "--json"];
        let made = caracal(line.map(str::to_owned).to_vec()).await;
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let made: Value = serde_json::from_slice(&made.stdout).unwrap();
        aim(&folder, &made["files"], &upstream.address.to_string());

        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = Sockets { gateway: bind(), authority: bind(), coordinator: bind(), ops: bind() };
        let config = folder.join("caracal.toml");
        replace(&config, "127.0.0.1:8080", &sockets.authority.local_addr().unwrap().to_string());
        let config = caracal::config::load(&config).map_err(|report| panic!("{report}")).unwrap();
        let running = start(config, sockets, ServeOptions::default()).await.unwrap();

        let call: Vec<String> = serde_json::from_value(made["call"].clone()).unwrap();
        let called = caracal(call).await;
        let (told, notes) =
            (String::from_utf8_lossy(&called.stdout), String::from_utf8_lossy(&called.stderr));
        assert!(called.status.success(), "{name}: {told} {notes}");
        let key = upstream.last().header("authorization").join(" ");
        assert!(key.starts_with("Bearer put-the-"), "{name}: {key}");
        running.stop().await.unwrap();
    }
}
