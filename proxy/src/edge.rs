//! The gateway listener: the only place that names Pingora.
//!
//! A request's life, top to bottom: [`listener`] accepts and wraps the proxy so that every request has a
//! [`slot`] and a [`context`]; [`gateway`] runs the gate in `request_filter`, for every kind of request alike; [`search`] looks for
//! the injected secret in answers, [`posted`] reads bodies that are decided on, [`mcp`] answers of MCP servers;
//! [`respond`] writes refusals; [`burn`] uses mandates up and [`exact`] a person's yes; [`meter`] counts what budgets are for; [`protocol`] chooses
//! what upstreams are spoken to in and [`switching`] dials for upgrades; [`health`] looks at upstreams beside the calls;
//! [`record`] fills the ledger's two records; [`live`] ends requests whose authority went away, and [`last_word`] lets a
//! stream say so. The connections that [`switching`] and [`last_word`] need are [`dialled`].

mod burn;
mod capped;
mod context;
mod dialled;
mod exact;
mod finish;
mod gateway;
mod govern;
mod grpc;
pub mod health;
mod last_word;
mod links;
pub mod listener;
pub mod live;
mod mcp;
mod meter;
mod posted;
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
