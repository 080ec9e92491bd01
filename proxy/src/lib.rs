//! Caracal Edge: the process. Listeners, authority, coordinator, state, ledger and the command line.
//!
//! Start reading at [`serve`], which puts the pieces together, or at `edge`, where a request's life is
//! written top to bottom. `ARCHITECTURE.md` has the map.

pub mod app;
pub mod authority;
pub mod broker;
pub mod budgets;
pub mod bundles;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod coordinator;
pub mod echo;
pub mod edge;
pub mod egress;
pub mod fleet;
pub mod gate;
pub mod keyring;
pub mod ledger;
pub mod listen;
pub mod metrics;
pub mod operate;
pub mod ops;
mod outbound;
mod question;
pub mod refusal;

pub mod rehearsal;
pub mod reload;
pub mod retired;
pub mod sealing;
pub mod secrets;
pub mod serve;
pub mod sinks;
pub mod snapshot;
pub mod state;
mod trust;
pub mod watch;
