//! The guards of a resource in the schema of its bundle.

use schemars::JsonSchema;
use serde::Deserialize;

/// A condition over requests. Where it holds, the request is refused, or held until a person says yes to it; where it has
/// no answer, the request is refused.
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
    /// `deny` by default; `approval` holds the request until a person has said yes to exactly it.
    effect: Option<GuardEffect>,
    /// approval: a tier of `approval_tiers`, which says who answers and how long that is waited for.
    tier: Option<String>,
    /// approval: JSON pointers into the body, or into the arguments of the tool; whoever answers sees nothing else of it.
    #[schemars(length(max = 16))]
    show: Option<Vec<String>>,
}

#[derive(JsonSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
enum GuardEffect {
    Deny,
    Approval,
}

#[derive(JsonSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
enum GuardMode {
    Enforce,
    Shadow,
}
