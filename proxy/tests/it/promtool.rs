//! The metrics as Prometheus itself judges them.

use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use crate::edge::{Agent, Edge};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "a test that did not happen must say so")]
async fn promtool_finds_nothing_wrong_with_the_metrics_of_a_busy_edge() {
    let edge = Edge::start().await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    for path in ["/read/a", "/read/reset", "/admin"] {
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        edge.get(path, &mandate).send().await.unwrap();
    }
    edge.get("/read/a", "junk").send().await.unwrap();
    edge.running().app.reloader.reload().await;
    let response = edge.http.get(format!("{}/metrics", edge.ops())).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let metrics = response.text().await.unwrap();
    for name in [
        "caracal_build_info",
        "caracal_gateway_requests_total",
        "caracal_gateway_gate_duration_seconds_bucket",
    ] {
        assert!(metrics.contains(name), "{name}");
    }
    let check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut check = match check {
        Ok(check) => check,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            assert!(std::env::var_os("CI").is_none(), "promtool is missing: run `make setup`");
            eprintln!("SKIPPED: there is no promtool on the PATH; `make setup` installs it");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    check.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}
