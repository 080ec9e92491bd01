//! What the benches and the load scenarios share: zones of any size, an edge's folder, a small HTTP client,
//! an upstream, the bare pass-through, and how a run is measured.

pub mod bulk;
pub mod edge;
pub mod http1;
pub mod load;
pub mod machine;
pub mod pass_through;
pub mod run;
pub mod upstream;
pub mod zones;

/// The allocator of the edge, for everything that is measured here: the bare pass-through and the single stages too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
