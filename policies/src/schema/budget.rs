//! `[[budgets]]` and `[[rates]]`.

use schemars::JsonSchema;
use serde::Deserialize;

/// How much may be done in a time. One of `calls`, `bytes` and `units` says what is counted, and how much of it there is.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Budget {
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,64}$"))]
    name: String,
    per: BudgetPer,
    /// Only calls of this application count.
    application: Option<String>,
    /// Only calls of this resource count; its identifier or id.
    resource: Option<String>,
    /// Governed calls.
    #[schemars(range(min = 1))]
    calls: Option<u64>,
    /// Bytes of request and response bodies.
    #[schemars(range(min = 1))]
    bytes: Option<u64>,
    /// What the upstream says a call cost.
    #[schemars(range(min = 1))]
    units: Option<u64>,
    /// units: JSON pointer into the answer, or into the events of a stream, such as `/usage/total_tokens`.
    units_pointer: Option<String>,
    /// units: instead, several numbers that are summed, where an upstream tells them apart; what is not there counts 0.
    #[schemars(length(min = 1, max = 8))]
    units_pointers: Option<Vec<Summand>>,
    /// units: the response header that says it.
    units_header: Option<String>,
    /// bytes and units: what is set aside before a call, until it is known what it took.
    #[schemars(range(min = 1))]
    max_per_call: Option<u64>,
    /// What was used comes back after so many seconds. Without it, for the life of the session or delegation.
    #[schemars(range(min = 1, max = 31_622_400))]
    window_seconds: Option<u64>,
}

/// A JSON pointer, or several of which the first that is there counts.
#[derive(JsonSchema, Deserialize)]
#[serde(untagged)]
enum Summand {
    One(String),
    FirstOf(#[schemars(length(min = 1, max = 4))] Vec<String>),
}

/// How fast calls may come: `calls` in `window_seconds`, steadily, and `burst` at once.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rate {
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,64}$"))]
    name: String,
    per: BudgetPer,
    /// Only calls of this application count.
    application: Option<String>,
    /// Only calls of this resource count; its identifier or id.
    resource: Option<String>,
    #[schemars(range(min = 1, max = 1_000_000))]
    calls: u64,
    /// 1 by default.
    #[schemars(range(min = 1, max = 86_400))]
    window_seconds: Option<u64>,
    /// As many as `calls` by default.
    #[schemars(range(min = 1, max = 1_000_000))]
    burst: Option<u64>,
}

/// For whom it is counted. A session's calls count for the sessions above it too, and a delegation's for those above it.
#[derive(JsonSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BudgetPer {
    Application,
    Resource,
    Session,
    Delegation,
}
