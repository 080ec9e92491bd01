//! The guards of a resource in the schema of its bundle.

use schemars::JsonSchema;
use serde::Deserialize;

/// A condition over requests. Where it holds, or has no answer, the request is refused.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Guard {
    /// Records name it; no other guard of the resource has it.
    name: String,
    /// An expression of CEL, see docs/guides/guards.md.
    #[schemars(length(max = 4096))]
    when: String,
    /// The operations it is about, as `METHOD path`; all requests by default.
    operations: Option<Vec<String>>,
    /// On a resource with `mcp`: the tools whose calls it is about; all requests by default.
    tools: Option<Vec<String>>,
    /// `enforce` by default; `shadow` only counts and records.
    mode: Option<GuardMode>,
}

#[derive(JsonSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
enum GuardMode {
    Enforce,
    Shadow,
}
