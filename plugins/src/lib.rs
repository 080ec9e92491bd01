//! How users extend the edge: the plugin trait, its phases, the chain, the stock plugins.
//!
//! A plugin narrows and never widens. It may add facts under its own name, change the headers it declared,
//! and refuse; it has no way to allow, nothing of it runs between the permit and the upstream, and a plugin
//! that breaks its word or panics refuses the request. Everything here is synchronous and pure: no I/O, no
//! clock, the same answer for the same input.
//!
//! Start at [`Plugin`] to write one, at [`Chain`] to see how they are run. A complete crate is in
//! `examples/custom-plugin`.

mod chain;
mod declaration;
mod facts;
mod plugin;
mod registry;
mod reserved;
mod scrub;
mod stock;
mod view;

pub use chain::{Chain, ChainStop, PluginProblem};
pub use declaration::{Declaration, Phase};
pub use facts::Facts;
pub use plugin::{Plugin, Refusal, Verdict};
pub use registry::{Make, NameTaken, Registry};
pub use scrub::{ScrubStream, Scrubber};
pub use view::{RequestView, ResponseView, ScrubView};
