//! What passes of an answer, whatever the pieces in which it comes.

use caracal_policies::{Assigned, BundleSource, SourceFile, compile};
use serde_json::json;

use super::*;

fn resource() -> Arc<Resource> {
    let text = r#"schema = 1
[zone]
id = "z"
name = "Z"
[[resources]]
identifier = "resource://docs"
upstream_url = "http://127.0.0.1:9"
scopes = ["connect", "read", "write"]
[resources.mcp]
path = "/mcp"
scope = "connect"
tools = [{ name = "search", scope = "read" }, { name = "delete", scope = "write" }]
"#;
    let files = vec![SourceFile { path: "z.toml".into(), text: text.into() }];
    let source = BundleSource { root: "bundles/z.toml".into(), files };
    let zone = compile(&source, "z", &Assigned::default()).unwrap_or_else(|report| panic!("{report}"));
    zone.resources().next().unwrap().clone()
}

fn answers(form: Form) -> Answers {
    let mut answers = Answers::new(resource(), "connect read");
    answers.come_as(form);
    answers
}

/// What passes of an answer; none when it cannot be read. That it comes in two pieces, cut wherever, makes no difference.
fn passed(form: Form, answer: &[u8]) -> Option<Vec<u8>> {
    let in_one = answers(form).push(answer, true);
    for at in 0..=answer.len() {
        let (head, tail) = answer.split_at(at);
        let mut answers = answers(form);
        let in_two = answers.push(head, false).and_then(|mut passed| {
            passed.extend(answers.push(tail, true)?);
            Ok(passed)
        });
        assert_eq!(in_two, in_one, "cut at {at}");
    }
    in_one.ok()
}

fn list(names: &[&str]) -> String {
    let tools: Vec<_> = names.iter().map(|name| json!({ "name": name, "description": "1.10 \n" })).collect();
    json!({ "jsonrpc": "2.0", "id": 1, "result": { "tools": tools, "nextCursor": "c" } }).to_string()
}

#[test]
fn a_list_has_only_tools_that_the_mandate_may_call() {
    let cut = passed(Form::Json, list(&["delete", "search", "other"]).as_bytes()).unwrap();
    let cut: Value = serde_json::from_slice(&cut).unwrap();
    assert_eq!(cut, serde_json::from_str::<Value>(&list(&["search"])).unwrap());
    let whole = format!(" {} ", list(&["search"]).replace(':', " : "));
    assert_eq!(passed(Form::Json, whole.as_bytes()).unwrap(), whole.as_bytes(), "not a byte is touched");
}

#[test]
fn a_list_that_anybody_may_keep_becomes_this_mandates_own() {
    let public = list(&["search"]).replace("\"nextCursor\"", "\"cacheScope\":\"public\",\"nextCursor\"");
    let cut: Value = serde_json::from_slice(&passed(Form::Json, public.as_bytes()).unwrap()).unwrap();
    assert_eq!(cut["result"]["cacheScope"], "private");
}

#[test]
fn a_list_is_found_among_the_events_of_a_stream() {
    for end in ["\n", "\r\n", "\r"] {
        let stream = [
            ": hello",
            "",
            "id: 0",
            "data:",
            "",
            "event: message",
            "id: 1",
            "data: {\"jsonrpc\":\"2.0\",",
            "data: \"method\":\"x\"}",
            "",
            "event: message",
            "id: 2",
            &format!("data: {}", list(&["delete", "search"])),
            "retry: 5",
            "",
            "",
        ]
        .join(end);
        let cut = String::from_utf8(passed(Form::Events, stream.as_bytes()).unwrap()).unwrap();
        let (before, listed) = cut.split_at(cut.find("id: 2").unwrap());
        assert!(stream.starts_with(before), "{before:?}");
        let data = listed.split(['\r', '\n']).find_map(|line| line.strip_prefix("data: ")).unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data, serde_json::from_str::<Value>(&list(&["search"])).unwrap());
        assert!(
            listed.contains("retry: 5") && listed.ends_with("\n\n") && !cut.contains("delete"),
            "{cut:?}"
        );
    }
}

#[test]
fn an_event_passes_as_soon_as_it_is_whole() {
    let mut answers = answers(Form::Events);
    assert_eq!(answers.push(b"data: {\"a\":1}\n", false), Ok(vec![]));
    assert_eq!(answers.push(b"\ndata: {", false), Ok(b"data: {\"a\":1}\n\n".to_vec()));
    assert_eq!(answers.push(b"}\n", true), Ok(vec![]), "an event that does not end is none");
}

#[test]
fn what_cannot_be_read_does_not_pass() {
    let hidden = list(&["delete"]);
    for body in [
        "".to_owned(),
        "hello".to_owned(),
        format!("[{hidden}]"),
        format!("{hidden}{hidden}"),
        hidden.replace("\"id\":1", "\"id\":1,\"id\":2"),
        "{\"result\":{\"tools\":{}}}".to_owned(),
        "{\"result\":{\"tools\":[\"delete\"]}}".to_owned(),
        "{\"result\":{\"tools\":[{\"name\":7}]}}".to_owned(),
    ] {
        assert_eq!(passed(Form::Json, body.as_bytes()), None, "{body}");
        if !body.is_empty() {
            let event = format!("data: {body}\n\n");
            assert_eq!(passed(Form::Events, event.as_bytes()), None, "{event}");
        }
    }
    for stream in
        [format!("\u{feff}data: {hidden}\n\n"), format!("Data: {hidden}\n\n"), format!(" data: {hidden}\n\n")]
    {
        assert_eq!(passed(Form::Events, stream.as_bytes()), None, "{stream}");
    }
}

#[test]
fn no_more_than_a_bounded_message_is_held() {
    for (form, start) in [
        (Form::Json, "{\"a\":\""),
        (Form::Events, "data: "),
        (Form::Events, ": "),
        (Form::Events, "data: a\ndata: "),
    ] {
        let mut answers = answers(form);
        answers.push(start.as_bytes(), false).unwrap();
        let piece = vec![b'x'; 64 * 1024];
        let taken = (0..100).take_while(|_| answers.push(&piece, false).is_ok()).count();
        assert!((60..=64).contains(&taken), "{form:?}: {taken}");
    }
}
