//! The log of a serving process, on standard error.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer as _, fmt};

use crate::config::{LogConfig, LogFormat};

/// Starts logging; once per process.
pub(super) fn start(config: &LogConfig) -> Result<(), TryInitError> {
    let targets = targets(LevelFilter::from_level(config.level));
    let colour =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(colour);
    let lines = match config.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(targets)).try_init()
}

/// Who may say how much.
///
/// The HTTP stacks below us print whole request lines, and with them query strings, when they are asked for
/// detail. They are never asked: whatever the level, they get to warn and no more. Their warnings about a
/// request go through `request_summary`, which is ours.
fn targets(level: LevelFilter) -> Targets {
    let others = level.min(LevelFilter::INFO);
    let quiet = level.min(LevelFilter::WARN);
    HTTP_STACKS
        .iter()
        .fold(Targets::new().with_default(others).with_target("caracal", level), |targets, stack| {
            targets.with_target(*stack, quiet)
        })
        .with_target(PROXY_STACK, LevelFilter::OFF)
}

/// Says at `ERROR` that somebody connected and hung up, which anybody on the network can do as often as they like.
/// What it has to say about requests is in the ledger and the metrics.
const PROXY_STACK: &str = "pingora_proxy";

/// Crates that see request lines, headers or statements.
const HTTP_STACKS: [&str; 10] = [
    "axum",
    "h2",
    "hyper",
    "hyper_util",
    "pingora",
    "pingora_core",
    "pingora_http",
    "pingora_pool",
    "sqlx",
    "tower_http",
];

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn no_level_makes_the_http_stacks_print_request_lines() {
        let targets = targets(LevelFilter::TRACE);
        for stack in HTTP_STACKS {
            assert!(targets.would_enable(stack, &Level::WARN), "{stack}");
            assert!(!targets.would_enable(stack, &Level::INFO), "{stack}");
        }
        assert!(!targets.would_enable("pingora_proxy::proxy_common", &Level::ERROR));
        assert!(targets.would_enable("pingora_core::services::listening", &Level::ERROR));
        assert!(!targets.would_enable("reqwest::connect", &Level::DEBUG));
        assert!(targets.would_enable("caracal::edge", &Level::TRACE));
        assert!(targets.would_enable("caracal_policies", &Level::DEBUG));
    }

    #[test]
    fn a_quiet_log_is_quiet_for_everybody() {
        let targets = targets(LevelFilter::ERROR);
        for target in ["caracal", "pingora_proxy", "other"] {
            assert!(!targets.would_enable(target, &Level::WARN), "{target}");
        }
    }
}
