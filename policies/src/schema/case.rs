//! The tests of a bundle in its schema.

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
    expect: TestAnswer,
    /// deny: the reason, such as `role_scope_mismatch`. allow: the rule, such as `caracal-demo-mint`.
    reason: Option<String>,
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
