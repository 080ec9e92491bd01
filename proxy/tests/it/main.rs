//! The edge as its users meet it: a whole process on loopback, real sockets, real files.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cognitive_complexity,
    unreachable_pub,
    reason = "tests fail by panicking, and nothing here is anybody's API"
)]

mod addressing;
mod answers;
mod approvals;
mod budgets;
mod canary;
mod connections;
mod crash;
mod cut;
mod echoed;
mod edge;
mod egress;
mod evidence;
mod exact;
mod explain;
mod fleet;
mod framing;
mod governed;
mod guards;
mod health;
mod http2_upstream;
mod hygiene;
mod isolation;
mod matrix;
mod mcp;
mod operate;
mod plugged;
mod policy_change;
mod postgres;
mod promtool;
mod protected;
mod providers;
mod redis;
mod refused;
mod rehearse;
mod reload;
mod reload_parts;
mod restart;
mod retired;
mod rotation;
mod scripted;
mod sealed;
mod secure;
mod set_secret;
mod sharing;
mod sinks;
mod standing;
mod targets;
mod templates;
mod tokens;
mod upstream;
mod upstream_tls;
mod versions;
mod who_can;
