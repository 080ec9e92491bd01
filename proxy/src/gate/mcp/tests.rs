//! Which bodies are one message, and which message.

use std::sync::Arc;

use super::*;
use crate::gate::refusal::Refusal;

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn message(body: &str) -> Result<Message, McpRefusal> {
    read(body.as_bytes(), &HeaderMap::new())
}

#[test]
fn a_message_is_what_its_method_and_tool_say() {
    let call = |body: &str| message(body).map(|message| message.call).unwrap();
    let search =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{}}}"#;
    assert_eq!(call(search), McpCall::Tool("search".into()));
    let escaped = r#"{"jsonrpc":"2.0","id":"a","method":"tools\/call","params":{"n\u0061me":"sear\u0063h"}}"#;
    assert_eq!(call(escaped), McpCall::Tool("search".into()));
    let list = r#" {"id":7,"method":"tools/list","jsonrpc":"2.0"} "#;
    assert_eq!(call(list), McpCall::Method("tools/list".into()));
    let notified = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    assert_eq!(call(notified), McpCall::Method("notifications/initialized".into()));
    for answer in [r#""result":{}"#, r#""error":{"code":1,"message":"no"}"#] {
        assert_eq!(call(&format!(r#"{{"jsonrpc":"2.0","id":3,{answer}}}"#)), McpCall::Response);
    }
    assert_eq!(message(search).unwrap().id, json!(1));
}

#[test]
fn what_two_readers_could_read_in_two_ways_is_refused() {
    let long = "x".repeat(129);
    for body in [
        "",
        "{",
        "null",
        "\u{feff}{}",
        r#"{"jsonrpc":"2.0","id":1,"method":"ping"} {}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","param\u017f":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Name":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","x":{"y":1,"y":2}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":["a"]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["a"]}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a"}}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
        r#"{"id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping ","params":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":""}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"params":{}}"#,
        r#"{"jsonrpc":"2.0","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        &format!(r#"{{"jsonrpc":"2.0","id":"{long}","method":"ping"}}"#),
        &format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{long}"}}"#),
    ] {
        assert_eq!(message(body), Err(McpRefusal::Malformed), "{body}");
    }
    for batch in ["[]", " \r\n\t[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]", "[garbage"] {
        assert_eq!(message(batch), Err(McpRefusal::Batch), "{batch}");
    }
}

#[test]
fn fields_of_the_head_say_the_same_as_the_body_or_nothing() {
    let body = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search"}}"#;
    for good in [
        &[][..],
        &[("mcp-method", "tools/call"), ("mcp-name", "search")],
        &[("mcp-name", "search"), ("mcp-name", "search")],
    ] {
        assert!(read(body, &headers(good)).is_ok(), "{good:?}");
    }
    for bad in [
        &[("mcp-method", "ping")][..],
        &[("mcp-name", "delete")],
        &[("mcp-name", "search"), ("mcp-name", "delete")],
        &[("mcp-name", "=?base64?c2VhcmNo?=")],
        &[("mcp-method", "")],
    ] {
        assert_eq!(read(body, &headers(bad)), Err(McpRefusal::HeaderMismatch), "{bad:?}");
    }
    let read_one = br#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"a:b"}}"#;
    let fields = headers(&[("mcp-name", "a:b"), ("mcp-method", "resources/read")]);
    assert_eq!(read(read_one, &fields).unwrap().id, json!(1));
}

#[test]
fn only_plain_json_of_a_bounded_length_is_read() {
    let json = ("content-type", "application/json");
    assert_eq!(declared_length(&headers(&[json, ("content-length", "7")]), 10), Ok(Some(7)));
    assert_eq!(declared_length(&headers(&[json]), 10), Ok(None));
    let chunked = headers(&[json, ("transfer-encoding", "chunked")]);
    assert_eq!(declared_length(&chunked, 10), Ok(None));
    for kind in
        ["Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\"", "application/json ; v=1"]
    {
        assert!(declared_length(&headers(&[("content-type", kind)]), 10).is_ok(), "{kind}");
    }
    let encoded = [json, ("content-encoding", "gzip")];
    for bad in [
        &[][..],
        &[("content-type", "text/plain")],
        &[("content-type", "application/json; charset=utf-16")],
        &[json, json],
        &encoded,
        &[("content-type", "application/jsonx")],
    ] {
        assert_eq!(declared_length(&headers(bad), 10), Err(McpRefusal::MediaType), "{bad:?}");
    }
    for length in ["11", "99999999999999999999", "x"] {
        let long = headers(&[json, ("content-length", length)]);
        assert_eq!(declared_length(&long, 10), Err(McpRefusal::TooLarge), "{length}");
    }
}

#[test]
fn a_client_is_told_in_its_own_terms_and_in_ours() {
    let refusal = Refusal::OperationNotPermitted;
    let particulars = Particulars {
        request_id: "r".into(),
        decision_id: Some("d".into()),
        missing: vec![Arc::from("docs:write")],
        ..Particulars::default()
    };
    let told = error(&json!("7"), &refusal.answer(), &particulars);
    assert_eq!((&told["jsonrpc"], &told["id"]), (&json!("2.0"), &json!("7")));
    assert_eq!(told["error"]["code"], -32050);
    let message = told["error"]["message"].as_str().unwrap();
    assert!(message.contains("(operation_not_permitted): mint a mandate"), "{message}");
    assert_eq!(told["error"]["data"]["missing"]["scopes"][0], "docs:write");
    assert_eq!(told["error"]["data"]["decision_id"], "d");
    let url = "http://edge.test/.well-known/oauth-protected-resource/mcp";
    assert_eq!(
        challenge(&refusal.answer(), &particulars, url).unwrap(),
        format!("Bearer error=\"insufficient_scope\", scope=\"docs:write\", resource_metadata=\"{url}\"")
    );
    assert_eq!(
        challenge(&Refusal::TokenMissing.answer(), &Particulars::default(), url).unwrap(),
        format!("Bearer error=\"invalid_token\", resource_metadata=\"{url}\"")
    );
    assert_eq!(challenge(&refusal.answer(), &Particulars::default(), url), None);
}
