//! The gateway listener: the only place that names Pingora.
//!
//! A request's life, top to bottom: [`listener`] accepts and wraps the proxy so that every request has a
//! [`slot`]; [`gateway`] runs the gate in `request_filter`, for every kind of request alike; [`search`] looks for
//! the injected secret in answers, [`mcp`] reads messages to MCP servers and back; [`respond`] writes refusals;
//! [`burn`] uses mandates up; [`protocol`] chooses what upstreams are spoken to in and [`switching`] dials for
//! upgrades; [`health`] looks at upstreams beside the calls; [`record`] fills the ledger's two records; [`live`] ends requests whose authority went away, and
//! [`last_word`] lets a stream say so.

mod burn;
mod capped;
mod finish;
mod gateway;
mod govern;
pub mod health;
mod last_word;
mod links;
pub mod listener;
pub mod live;
mod mcp;
mod meter;
mod protocol;
mod record;
mod replay;
mod respond;
mod search;
pub mod secured;
pub mod slot;
mod spend;
mod switching;
mod target;
pub mod targets;
