//! The policy in the schema of a bundle.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// Who owns a resource, and what each role may do there.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    /// A key of `app_ids`.
    application: String,
    /// Session label to scopes.
    roles: BTreeMap<String, Vec<String>>,
}

/// Sessions with a label that starts so may have these scopes only.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Confinement {
    label_prefix: String,
    scopes: Vec<String>,
}

/// The tier of a scope.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Risk {
    scope: String,
    tier: String,
}

/// What a tier asks for before anything in it is minted.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApprovalTier {
    tier: String,
    /// `operator` by default.
    approver: Option<Approver>,
    /// 1,800 by default.
    #[schemars(range(min = 1, max = 604_800))]
    ttl_seconds: Option<u64>,
    /// `identified` by default.
    privacy: Option<Privacy>,
    /// Whether the person the session acts for may answer; `allowed` by default. With `forbidden` any other person of
    /// the application may, where persons may answer at all.
    self_approval: Option<SelfApproval>,
}

#[derive(JsonSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SelfApproval {
    Allowed,
    Forbidden,
}

#[derive(JsonSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Approver {
    Operator,
    Subject,
    Any,
}

#[derive(JsonSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Privacy {
    Identified,
    Pseudonymous,
    Anonymous,
}
