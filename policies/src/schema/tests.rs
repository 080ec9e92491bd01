//! The schema and the readers know the same keys.

use std::collections::BTreeSet;

use super::bundle_schema;
use crate::bundle::ZONE_KEYS;
use crate::draft::{DOCUMENT_KEYS, keys};

fn properties(schema: &serde_json::Value) -> BTreeSet<&str> {
    schema["properties"].as_object().unwrap().keys().map(String::as_str).collect()
}

fn set<'a>(keys: &[&'a str]) -> BTreeSet<&'a str> {
    keys.iter().copied().collect()
}

#[test]
fn the_schema_names_every_key_the_readers_know() {
    let schema = bundle_schema();
    let mut root = set(&DOCUMENT_KEYS);
    root.extend(["schema", "zone", "tests"]);
    assert_eq!(properties(&schema), root);
    for (definition, known) in [
        ("ZoneHead", set(&ZONE_KEYS)),
        ("Application", set(&keys::APPLICATION)),
        ("Provider", set(&keys::provider())),
        ("Resource", set(&keys::RESOURCE)),
        ("SubjectIssuer", set(&keys::SUBJECT_ISSUER)),
        ("Operation", set(&keys::OPERATION)),
        ("Mcp", set(&keys::MCP)),
        ("McpEntry", set(&keys::MCP_ENTRY)),
        ("Limits", set(&keys::LIMITS)),
        ("UpstreamTls", set(&keys::UPSTREAM_TLS)),
        ("HealthCheck", set(&keys::HEALTH_CHECK)),
        ("Grant", set(&keys::GRANT)),
        ("Confinement", set(&keys::CONFINEMENT)),
        ("Risk", set(&keys::RISK)),
        ("ApprovalTier", set(&keys::TIER)),
        ("Budget", set(&keys::BUDGET)),
        ("Rate", set(&keys::RATE)),
        ("Test", set(&keys::TEST)),
    ] {
        assert_eq!(properties(&schema["$defs"][definition]), known, "{definition}");
        assert_eq!(schema["$defs"][definition]["additionalProperties"], false, "{definition}");
    }
    let slots = schema["$defs"]["KeySlot"]["oneOf"].as_array().unwrap();
    let slots: BTreeSet<_> = slots.iter().flat_map(properties).collect();
    assert_eq!(slots, set(&keys::SLOT));
}
