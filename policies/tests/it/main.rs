//! The crate from outside: bundles as files, reports as text, zones as callers see them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests stop at the first surprise")]

mod asking;
mod budgets;
mod bundles;
mod damaged;
mod guards;
mod mcp;
mod permits;
mod recompiled;
mod rego;
mod reports;
mod scale;
mod zones;
