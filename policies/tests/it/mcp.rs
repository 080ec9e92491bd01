//! MCP servers as resources: what their bundles say, and what is decided from it.

use std::sync::Arc;

use caracal_policies::{Guarding, McpCall, Path, Permit, Presented, Refused, UseRequest, Zone};

use crate::bundles::zone;

const BUNDLE: &str = r#"
schema = 1
[zone]
id = "demo"
name = "Demo"
[[applications]]
id = "agent"
name = "Agent"
[[resources]]
identifier = "resource://docs"
upstream_url = "https://docs.example"
scopes = ["docs:connect", "docs:read", "docs:write"]
[resources.mcp]
path = "/mcp"
scope = "docs:connect"
tools = [{ name = "search", scope = "docs:read" }, { name = "delete", scope = "docs:write" }]
methods = [{ name = "resources/read", scope = "docs:read" }]
[app_ids]
main = "agent"
[grants."resource://docs"]
application = "main"
roles = { agent = ["docs:connect", "docs:read", "docs:write"] }
"#;

fn authorize(zone: &Zone, at: (&str, &str), scope: &str, call: Option<&McpCall>) -> Result<Permit, Refused> {
    let (method, path) = at;
    let target = ["resource://docs".to_owned()];
    zone.authorize(
        zone.resource("resource://docs").unwrap(),
        &UseRequest {
            application: "agent",
            labels: &["agent".into()],
            edge: None,
            agent_session_id: Some("session"),
            presented: Presented { delegation_edge_id: Some("edge"), scope, target: &target },
            method,
            path: &Path::parse(path).unwrap(),
            target: path,
            call,
            approved: false,
            guards: Guarding::Elsewhere,
        },
    )
}

fn needs(outcome: Result<Permit, Refused>) -> Option<Arc<str>> {
    match outcome {
        Err(Refused::OperationNotPermitted { needs }) => needs,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_posted_message_needs_the_scope_of_what_it_does() {
    let zone = zone(BUNDLE);
    let post = ("POST", "/mcp");
    let search = McpCall::Tool("search".into());
    let permit = authorize(&zone, post, "docs:read", Some(&search)).unwrap();
    assert_eq!(permit.scope().map(|scope| &**scope), Some("docs:read"));
    let delete = McpCall::Tool("delete".into());
    assert_eq!(
        needs(authorize(&zone, post, "docs:connect docs:read", Some(&delete))),
        Some("docs:write".into())
    );
    let list = McpCall::Method("tools/list".into());
    let permit = authorize(&zone, post, "docs:connect", Some(&list)).unwrap();
    assert_eq!(permit.scope().map(|scope| &**scope), Some("docs:connect"));
    assert_eq!(needs(authorize(&zone, post, "docs:read", Some(&list))), Some("docs:connect".into()));
    let all = "docs:connect docs:read docs:write";
    for refused in [McpCall::Tool("drop".into()), McpCall::Method("prompts/get".into())] {
        assert_eq!(needs(authorize(&zone, post, all, Some(&refused))), None, "{refused:?}");
    }
    assert_eq!(needs(authorize(&zone, post, all, None)), None, "a message that was not read");
}

#[test]
fn nothing_but_the_endpoint_is_reached() {
    let zone = zone(BUNDLE);
    let all = "docs:connect docs:read docs:write";
    for method in ["GET", "DELETE"] {
        let permit = authorize(&zone, (method, "/mcp"), "docs:connect", None).unwrap();
        assert_eq!(permit.method(), method);
        assert_eq!(needs(authorize(&zone, (method, "/mcp"), "docs:read", None)), Some("docs:connect".into()));
    }
    let search = McpCall::Tool("search".into());
    for at in [("PUT", "/mcp"), ("POST", "/mcp/"), ("POST", "/"), ("GET", "/files"), ("POST", "/MCP")] {
        assert_eq!(needs(authorize(&zone, at, all, Some(&search))), None, "{at:?}");
    }
}

#[test]
fn a_change_of_a_tool_is_a_change_of_authority() {
    let before = zone(BUNDLE);
    let moved =
        zone(&BUNDLE.replace("\"delete\", scope = \"docs:write\"", "\"delete\", scope = \"docs:read\""));
    assert_ne!(before.digest(), moved.digest());
    assert_eq!(
        before.changes(&moved),
        [
            "tool `delete` on `resource://docs` is open to holders of `docs:read` instead of holders of `docs:write`"
        ]
    );
    let without = zone(&BUNDLE.replace("{ name = \"search\", scope = \"docs:read\" }, ", ""));
    assert_eq!(
        before.changes(&without),
        ["tool `search` on `resource://docs` is no longer open to holders of `docs:read`"]
    );
}

#[test]
fn a_bundle_tests_its_tools() {
    let tested = |facts: &str, expect: &str| {
        let text = format!(
            "{BUNDLE}\n[[tests]]\nname = \"a tool\"\naction = \"use\"\napplication = \"agent\"\n\
             resource = \"resource://docs\"\nlabels = [\"agent\"]\nscopes = [\"docs:read\"]\n\
             method = \"POST\"\npath = \"/mcp\"\n{facts}\nexpect = \"{expect}\"\n"
        );
        zone(&text)
    };
    tested("tool = \"search\"", "allow");
    tested("tool = \"delete\"", "deny");
    tested("mcp_method = \"resources/read\"", "allow");
    tested("mcp_method = \"prompts/get\"", "deny");
    tested("", "deny");
}
