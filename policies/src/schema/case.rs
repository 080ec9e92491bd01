//! The tests of a bundle in its schema.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// A test of the bundle: facts and the answer expected. Either `application` or `workload` asks.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Test {
    /// What is tested; no two tests of a bundle have the same.
    #[schemars(length(min = 1, max = 256))]
    name: String,
    /// Id of the application that asks.
    application: Option<String>,
    /// Id of the workload that asks.
    workload: Option<String>,
    /// `mint` by default, `inject` for a workload.
    action: Option<TestAction>,
    /// Identifier of a resource.
    resource: String,
    /// Labels of the session.
    #[serde(default)]
    labels: Vec<String>,
    /// Asked for at a mint, carried by the mandate at a use.
    scopes: Vec<String>,
    /// mint: scopes of the delegation. The scopes asked for by default; none for `agent:lifecycle`.
    delegation: Option<Vec<String>>,
    /// use: resources the mandate was minted for; the resource by default.
    #[serde(default)]
    targets: Vec<String>,
    /// use: method of the request.
    method: Option<String>,
    /// use: path of the request, below the resource.
    path: Option<String>,
    /// use: the tool that is called, on a resource with `mcp`.
    tool: Option<String>,
    /// use: another method of the message, on a resource with `mcp`.
    mcp_method: Option<String>,
    /// use: whether a human approved the mandate.
    #[serde(default)]
    approved: bool,
    /// use: what the guards of the resource look at.
    request: Option<TestRequest>,
    /// use: what was used before of budgets and rates, by name; of a rate, the calls that came at once.
    #[serde(default)]
    used: BTreeMap<String, u64>,
    expect: TestAnswer,
    /// deny: the guard that refuses. approval: the one that asks.
    guard: Option<String>,
    /// deny: the reason, such as `role_scope_mismatch`. allow: the rule, such as `caracal-demo-mint`.
    reason: Option<String>,
}

/// What guards look at beside method, path, tool, application and labels.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
struct TestRequest {
    /// Header fields by their lower-case names: a text, or a list for a field that comes more than once.
    #[serde(default)]
    headers: BTreeMap<String, OneOrMany>,
    /// Pairs of the query.
    #[serde(default)]
    query: BTreeMap<String, OneOrMany>,
    /// The body; none by default.
    body: Option<serde_json::Value>,
    /// Arguments of the tool call.
    arguments: Option<BTreeMap<String, serde_json::Value>>,
    /// Who the call is made for.
    subject: Option<String>,
    /// Delegations between the application and the root; none by default.
    depth: Option<u32>,
    /// Address it comes from; `127.0.0.1` by default.
    source: Option<String>,
    /// Seconds since 1970; 0 by default.
    seconds: Option<u64>,
}

#[derive(JsonSchema, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(JsonSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TestAction {
    Mint,
    Use,
    Inject,
}

#[derive(JsonSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TestAnswer {
    Allow,
    Approval,
    Deny,
}
