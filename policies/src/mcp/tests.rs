//! What a message needs.

use super::*;

fn entry(name: &str, scope: &str) -> McpEntry {
    McpEntry { name: name.into(), scope: scope.into() }
}

fn server() -> Mcp {
    Mcp {
        path: "/mcp".into(),
        scope: "connect".into(),
        tools: vec![entry("delete", "docs:write"), entry("search", "docs:read")],
        methods: vec![entry("resources/read", "docs:read")],
    }
}

fn needs(call: &McpCall) -> Option<String> {
    server().scope_of(call).map(ToString::to_string)
}

#[test]
fn a_tool_needs_its_own_scope_and_an_unlisted_one_has_none() {
    assert_eq!(needs(&McpCall::Tool("search".into())).unwrap(), "docs:read");
    assert_eq!(needs(&McpCall::Tool("delete".into())).unwrap(), "docs:write");
    for other in ["Search", "search ", "sear", "", "tools/call", "ping"] {
        assert_eq!(needs(&McpCall::Tool(other.into())), None, "{other}");
    }
}

#[test]
fn the_connection_has_a_scope_of_its_own_and_other_methods_none() {
    for method in ["initialize", "ping", "server/discover", "tools/list", "notifications/cancelled"] {
        assert_eq!(needs(&McpCall::Method(method.into())).unwrap(), "connect", "{method}");
    }
    assert_eq!(needs(&McpCall::Response).unwrap(), "connect");
    assert_eq!(needs(&McpCall::Method("resources/read".into())).unwrap(), "docs:read");
    for method in ["tools/call", "Tools/list", "resources/list", "prompts/get", "notifications", "", "search"]
    {
        assert_eq!(needs(&McpCall::Method(method.into())), None, "{method}");
    }
}

#[test]
fn a_listed_tool_may_be_called_by_who_carries_its_scope() {
    let server = server();
    assert!(server.may_call("search", "connect docs:read"));
    assert!(!server.may_call("delete", "connect docs:read"));
    assert!(!server.may_call("search", "docs:rea docs:reader"));
    assert!(!server.may_call("unlisted", "connect docs:read docs:write"));
}
