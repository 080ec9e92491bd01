//! A resource that is an MCP server: what reaches it, what its clients are told, and what they see of its tools.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caracal::clock::Clock;
use caracal::serve::{Embedding, ServeOptions};
use http_body_util::Full;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::edge::{Agent, CANARY, ECHO, Edge, Plan, eventually};
use crate::secure;
use crate::upstream::{Seen, read_body, read_head, respond};

/// An MCP server that keeps what it is sent, and answers what it is told to.
pub struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<Mutex<String>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server =
            Self { address: listener.local_addr().unwrap(), seen: Arc::default(), answer: Arc::default() };
        server.answers("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}");
        let (seen, answer) = (Arc::clone(&server.seen), Arc::clone(&server.answer));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                tokio::spawn(async move {
                    let mut buffer = Vec::new();
                    while let Some(head) = read_head(&mut stream, &mut buffer).await {
                        let body = read_body(&mut stream, &mut buffer, &head).await;
                        seen.lock().push(Seen { head, body });
                        let answer = answer.lock().clone();
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        server
    }

    pub fn answers(&self, json: &str) {
        *self.answer.lock() = respond(200, "Content-Type: application/json\r\n", json);
    }

    fn answers_as(&self, headers: &str, body: &str) {
        *self.answer.lock() = respond(200, headers, body);
    }

    pub fn count(&self) -> usize {
        self.seen.lock().len()
    }

    fn last(&self) -> Seen {
        self.seen.lock().last().cloned().expect("the server was called")
    }
}

const BOTH: [&str; 2] = ["echo:read", "echo:write"];

const RULES: &str = r#"{ name = "search", scope = "echo:read" }, { name = "delete", scope = "echo:write" }"#;

/// Makes the edge's resource an MCP server with these tools.
fn write_rules(edge: &Edge, tools: &str) {
    let bundle = edge.bundle_text();
    let (before, rest) = bundle.split_once("operations = [").unwrap();
    let (_, after) = rest.split_once("\n]\n").unwrap();
    let rules = format!("mcp = {{ path = \"/mcp\", scope = \"echo:read\", tools = [{tools}] }}\n");
    std::fs::write(edge.bundle(), format!("{before}{rules}{after}")).unwrap();
}

/// An edge in front of a server, and an agent that may do everything there.
async fn guarded() -> (Edge, Server, Agent) {
    guarded_with(Embedding::default()).await
}

/// As [`guarded`], with guards and more of a zone.
pub async fn guarded_by(guards: &str, zone: &str) -> (Edge, Server, Agent) {
    let (resource, zone) = (format!("guards = [{guards}]"), zone.to_owned());
    planned(Plan { granted: BOTH.to_vec(), resource, zone, ..Plan::default() }).await
}

async fn guarded_with(embedding: Embedding) -> (Edge, Server, Agent) {
    planned(Plan { granted: BOTH.to_vec(), embedding, ..Plan::default() }).await
}

async fn planned(plan: Plan) -> (Edge, Server, Agent) {
    let server = Server::start().await;
    let mut edge = Edge::prepared(plan).await;
    edge.upstream.address = server.address;
    edge.write_files();
    write_rules(&edge, RULES);
    edge.boot(ServeOptions::default()).await.unwrap();
    let agent = Agent::provision(&edge, &BOTH).await;
    (edge, server, agent)
}

fn to_call(tool: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": tool, "arguments": {} } })
}

const LIST: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#;

pub async fn post(edge: &Edge, agent: &Agent, scopes: &[&str]) -> reqwest::RequestBuilder {
    let mandate = agent.mint(edge, scopes).await;
    let json = ("content-type", "application/json");
    edge.http.post(format!("{}/echo/mcp", edge.gateway())).bearer_auth(mandate).header(json.0, json.1)
}

/// Status, JSON-RPC code and our own of a refused request.
async fn refused(request: reqwest::RequestBuilder) -> (u16, i64, String) {
    let response = request.send().await.unwrap();
    let (status, code) = (response.status().as_u16(), response.headers()["x-caracal-error"].clone());
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["data"]["error"], code.to_str().unwrap(), "{body}");
    assert_eq!(body["jsonrpc"], "2.0");
    (status, body["error"]["code"].as_i64().unwrap(), code.to_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_the_server_byte_for_byte_with_its_credential() {
    let (edge, server, agent) = guarded().await;
    let long = "x".repeat(300_000);
    for (body, chunked) in [
        (to_call("search").to_string(), false),
        (format!("  {}\r\n", to_call("search")), true),
        (to_call("search").to_string().replace("{}", &format!("{{\"q\":\"{long}\",\"n\":1.10}}")), false),
    ] {
        let request = post(&edge, &agent, &["echo:read"]).await.header("last-event-id", "5");
        let request = if chunked {
            let pieces = body.as_bytes().chunks(9).map(|piece| Ok::<_, std::io::Error>(piece.to_vec()));
            request.body(reqwest::Body::wrap_stream(futures_util::stream::iter(pieces.collect::<Vec<_>>())))
        } else {
            request.body(body.clone())
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.text().await.unwrap(), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}");
        let seen = server.last();
        assert_eq!(String::from_utf8(seen.body.clone()).unwrap(), body);
        assert_eq!(seen.header("content-length"), [body.len().to_string()]);
        assert_eq!((seen.header("x-api-key"), seen.line()), (vec![CANARY], "POST /mcp HTTP/1.1"));
        let gone = ["transfer-encoding", "last-event-id", "authorization"];
        assert!(gone.iter().all(|name| seen.header(name).is_empty()), "{}", seen.head);
    }
    let ledger = edge.ledger_with("gateway_resource_request", 3).await;
    for kind in ["gateway_decision", "gateway_resource_request"] {
        let record = ledger.iter().find(|record| record["event_type"] == kind).unwrap();
        let metadata = &record["metadata_json"];
        assert_eq!(
            (&metadata["mcp_method"], &metadata["mcp_tool"]),
            (&json!("tools/call"), &json!("search"))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_or_method_that_is_not_allowed_is_not_called_and_the_client_is_told_why() {
    let (edge, server, agent) = guarded().await;
    let request = post(&edge, &agent, &["echo:read"]).await.body(to_call("delete").to_string());
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 403);
    let url = format!("{}/.well-known/oauth-protected-resource/echo/mcp", edge.gateway());
    assert_eq!(
        response.headers()["www-authenticate"].to_str().unwrap(),
        format!("Bearer error=\"insufficient_scope\", scope=\"echo:write\", resource_metadata=\"{url}\"")
    );
    let body: Value = response.json().await.unwrap();
    assert_eq!((&body["id"], &body["error"]["code"]), (&json!(7), &json!(-32050)));
    assert_eq!(body["error"]["data"]["missing"]["scopes"], json!(["echo:write"]));
    for method in
        ["resources/read", "resources/list", "prompts/list", "completion/complete", "logging/setLevel"]
    {
        let all = post(&edge, &agent, &["echo:read", "echo:write"]).await;
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": {} }).to_string();
        assert_eq!(
            refused(all.body(body)).await,
            (403, -32050, "operation_not_permitted".into()),
            "{method}"
        );
    }
    let unlisted = post(&edge, &agent, &["echo:read", "echo:write"]).await.body(to_call("drop").to_string());
    assert_eq!(refused(unlisted).await.0, 403);
    assert_eq!(server.count(), 0);
    let ledger = edge.ledger_with("gateway_decision", 7).await;
    let denied = ledger.iter().find(|record| record["metadata_json"]["mcp_tool"] == "delete").unwrap();
    assert_eq!(
        (&denied["decision"], &denied["metadata_json"]["mcp_method"]),
        (&json!("deny"), &json!("tools/call"))
    );
    let allowed = post(&edge, &agent, &["echo:write"]).await.body(to_call("delete").to_string());
    assert_eq!(allowed.send().await.unwrap().status(), 200);
    assert_eq!(server.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_judged_is_refused_before_anything_is_sent() {
    let (edge, server, agent) = guarded().await;
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(1024 * 1024));
    let chunked = || {
        let pieces = (0..20).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 8 * 1024]));
        reqwest::Body::wrap_stream(futures_util::stream::iter(pieces.collect::<Vec<_>>()))
    };
    type Change = Box<dyn FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder>;
    let cases: Vec<(Change, (u16, i64, &str))> = vec![
        (Box::new(move |request| request.body(format!("[{ping}]"))), (400, -32600, "mcp_batch")),
        (Box::new(|request| request), (400, -32600, "mcp_message_invalid")),
        (
            Box::new(|request| {
                request.body(r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/list"}"#)
            }),
            (400, -32600, "mcp_message_invalid"),
        ),
        (
            Box::new(move |request| request.body(ping).header("mcp-method", "tools/call")),
            (400, -32020, "mcp_header_mismatch"),
        ),
        (
            Box::new(move |request| request.body(ping).header("content-encoding", "gzip")),
            (415, -32050, "mcp_media_type"),
        ),
        (
            Box::new(move |request| request.body(ping).header("content-type", "text/plain")),
            (415, -32050, "mcp_media_type"),
        ),
        (Box::new(move |request| request.body(large)), (413, -32050, "mcp_message_too_large")),
        (Box::new(move |request| request.body(chunked())), (411, -32050, "mcp_length_required")),
        (
            Box::new(move |request| {
                request.body(ping).header("upgrade", "websocket").header("connection", "upgrade")
            }),
            (403, -32050, "operation_not_permitted"),
        ),
    ];
    let count = cases.len();
    for (change, (status, number, code)) in cases {
        let request = change(post(&edge, &agent, &["echo:read"]).await);
        assert_eq!(refused(request).await, (status, number, code.to_owned()));
    }
    let url = format!("{}/echo/mcp", edge.gateway());
    let get = edge.http.get(&url).bearer_auth(agent.mint(&edge, &["echo:read"]).await).body("x");
    assert_eq!(get.send().await.unwrap().status(), 400, "nobody reads the body of a GET");
    for other in ["/echo/mcp/", "/echo/", "/echo/other"] {
        let request = edge.http.post(format!("{}{other}", edge.gateway())).body(ping);
        let request = request.header("content-type", "application/json");
        let request = request.bearer_auth(agent.mint(&edge, &["echo:read", "echo:write"]).await);
        assert_eq!(request.send().await.unwrap().status(), 403, "{other}");
    }
    assert_eq!(server.count(), 0);
    let ledger = edge.ledger_with("gateway_decision", count + 4).await;
    let words: Vec<_> = ledger.iter().filter_map(|record| record["evaluation_status"].as_str()).collect();
    for word in ["mcp_batch", "mcp_message_invalid", "mcp_media_type", "mcp_message_too_large"] {
        assert!(words.contains(&word), "{word}: {words:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_does_not_come_is_not_waited_for() {
    let (edge, server, agent) = guarded().await;
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let address = edge.gateway().replace("http://", "");
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "POST /echo/mcp HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {mandate}\r\n\
         Content-Type: application/json\r\nContent-Length: 20\r\n\r\n{{\"jsonrpc\""
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    drop(tokio::time::timeout(Duration::from_secs(20), reading).await.unwrap());
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("mcp_message_late"), "{answer}");
    assert_eq!(server.count(), 0);
}

fn tools(names: &[&str]) -> String {
    let tools: Vec<_> = names.iter().map(|name| json!({ "name": name, "inputSchema": {} })).collect();
    json!({ "jsonrpc": "2.0", "id": 7, "result": { "tools": tools } }).to_string()
}

fn names(message: &str) -> Vec<String> {
    let message: Value = serde_json::from_str(message).unwrap();
    let tools = message["result"]["tools"].as_array().unwrap();
    tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_tools_shows_what_the_mandate_may_call() {
    let (edge, server, agent) = guarded().await;
    let all = tools(&["delete", "other", "search"]);
    let events = format!(
        "event: message\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}}\n\ndata: {all}\n\n"
    );
    for form in ["json", "events"] {
        let kind = if form == "json" { "application/json" } else { "text/event-stream" };
        let body = if form == "json" { &all } else { &events };
        server.answers_as(&format!("Content-Type: {kind}\r\n"), body);
        for (scopes, expected) in
            [(&["echo:read"][..], &["search"][..]), (&["echo:read", "echo:write"], &["delete", "search"])]
        {
            let response = post(&edge, &agent, scopes).await.body(LIST).send().await.unwrap();
            assert_eq!((response.status().as_u16(), response.headers().get("content-length")), (200, None));
            let text = response.text().await.unwrap();
            let listed = match form {
                "json" => text.as_str(),
                _ => text.lines().filter_map(|line| line.strip_prefix("data: ")).next_back().unwrap(),
            };
            assert_eq!(names(listed), expected, "{text}");
            assert_eq!(form == "events", text.starts_with("event: message\ndata: {\"jsonrpc\""));
            assert_eq!(server.last().header("accept-encoding"), ["identity"]);
        }
        let get = edge.http.get(format!("{}/echo/mcp", edge.gateway())).header("last-event-id", "1");
        let get = get.bearer_auth(agent.mint(&edge, &["echo:read"]).await);
        let text = get.send().await.unwrap().text().await.unwrap();
        assert!(
            text.contains("search") && !text.contains("delete"),
            "an answer that is taken up again: {text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_cannot_be_read_does_not_pass() {
    let (edge, server, agent) = guarded().await;
    let all = tools(&["delete"]);
    let twice = all.replace("\"id\":7", "\"id\":7,\"id\":8");
    for (headers, body, status) in [
        ("Content-Type: application/json\r\n", format!("[{all}]"), 200),
        ("Content-Type: application/json\r\n", twice, 200),
        ("Content-Type: text/event-stream\r\n", format!("data: {all}{all}\n\n"), 200),
        ("Content-Type: text/plain\r\n", all.clone(), 502),
        ("", all.clone(), 502),
        ("Content-Type: application/json\r\nContent-Encoding: gzip\r\n", all.clone(), 502),
    ] {
        server.answers_as(headers, &body);
        let response = post(&edge, &agent, &["echo:read"]).await.body(LIST).send().await.unwrap();
        assert_eq!(response.status(), status, "{headers}");
        let text = response.text().await.unwrap();
        assert!(!text.contains("delete"), "{text}");
        let message = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&text);
        let message: Value = serde_json::from_str(message).unwrap();
        assert_eq!((&message["id"], &message["error"]["code"]), (&json!(7), &json!(-32603)), "{text}");
    }
    let ledger = edge.ledger_with("gateway_resource_request", 6).await;
    let refused = ledger.iter().filter(|record| record["metadata_json"]["error_kind"] == "response_refused");
    assert_eq!(refused.count(), 6);
    // What fails is the server's own affair, and so are the answers to other messages.
    *server.answer.lock() = respond(500, "", "broken");
    let failed = post(&edge, &agent, &["echo:read"]).await.body(LIST).send().await.unwrap();
    assert_eq!((failed.status().as_u16(), failed.text().await.unwrap().as_str()), (500, "broken"));
    server.answers_as("Content-Type: text/plain\r\n", "anything");
    let called = post(&edge, &agent, &["echo:read"]).await.body(to_call("search").to_string());
    assert_eq!(called.send().await.unwrap().text().await.unwrap(), "anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_find_out_where_to_get_a_mandate() {
    let (edge, server, _) = guarded().await;
    let well_known = format!("{}/.well-known/oauth-protected-resource", edge.gateway());
    let url = format!("{well_known}/echo/mcp");
    for authorization in [None, Some("Bearer guessed")] {
        let mut request = edge.http.post(format!("{}/echo/mcp", edge.gateway())).body(LIST);
        request =
            authorization.into_iter().fold(request, |request, value| request.header("authorization", value));
        let response = request.send().await.unwrap();
        let challenge = response.headers()["www-authenticate"].to_str().unwrap();
        assert_eq!(challenge, format!("Bearer error=\"invalid_token\", resource_metadata=\"{url}\""));
        assert_eq!(response.status(), 401);
    }
    let document: Value = edge.http.get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(
        document,
        json!({
            "resource": format!("{}/echo/mcp", edge.gateway()),
            "authorization_servers": [edge.authority()],
            "scopes_supported": ["echo:read"],
            "bearer_methods_supported": ["header"],
        })
    );
    let by_host = edge.http.get(&well_known).header("host", "echo.test");
    let document: Value = by_host.send().await.unwrap().json().await.unwrap();
    assert_eq!(document["resource"], "http://echo.test/mcp");
    for other in ["", "/echo", "/echo/other", "/elsewhere"] {
        let response = edge.http.get(format!("{well_known}{other}")).send().await.unwrap();
        assert_eq!(response.status(), 421, "{other}");
    }
    let named = edge.http.get(&url).header("x-caracal-resource", ECHO).send().await.unwrap();
    assert_eq!(named.status(), 401, "whoever names a resource asks that resource");
    assert_eq!(server.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_over_http_2_is_read_judged_and_sent_on_like_any_other() {
    let server = Server::start().await;
    let mut edge = secure::start(Plan { granted: BOTH.to_vec(), ..Plan::default() }).await;
    edge.upstream.address = server.address;
    edge.write_files();
    write_rules(&edge, RULES);
    edge.running().app.reloader.reload().await;
    let agent = Agent::provision(&edge, &BOTH).await;
    let mut sender = secure::connect(&edge).await;
    let long = to_call("search").to_string().replace("{}", &format!("{{\"q\":\"{}\"}}", "x".repeat(300_000)));
    for (body, status) in
        [(to_call("search").to_string(), 200), (long, 200), (to_call("delete").to_string(), 403)]
    {
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        let request = secure::request("POST", "/mcp", &mandate).header("content-type", "application/json");
        let request = request.body(Full::new(Bytes::from(body.clone()))).unwrap();
        let (head, answer) = secure::send(&mut sender, request).await;
        assert_eq!(head.status, status, "{}", String::from_utf8_lossy(&answer));
        if status == 200 {
            assert_eq!(server.last().body, body.as_bytes());
        } else {
            assert_eq!(secure::json(&answer)["error"]["data"]["error"], "operation_not_permitted");
        }
    }
    assert_eq!(server.count(), 2);
    server.answers(&tools(&["delete", "search"]));
    let mandate = agent.mint(&edge, &["echo:read"]).await;
    let request = secure::request("POST", "/mcp", &mandate).header("content-type", "application/json");
    let (_, answer) = secure::send(&mut sender, request.body(Full::new(Bytes::from(LIST))).unwrap()).await;
    assert_eq!(names(std::str::from_utf8(&answer).unwrap()), ["search"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_under_way_is_cut_when_its_tool_is_closed_and_no_other_is() {
    let clock = Clock::manual(Clock::system().now());
    let embedding = Embedding { clock: clock.clone(), ..Embedding::default() };
    let (edge, server, agent) = guarded_with(embedding).await;
    // Without an end: the server is still at it.
    *server.answer.lock() =
        "HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\na\r\ndata: {}\n\n\r\n"
            .to_owned();
    let mut calls = Vec::new();
    for (tool, scope) in [("search", "echo:read"), ("delete", "echo:write")] {
        let request = post(&edge, &agent, &[scope]).await.body(to_call(tool).to_string());
        let request = request.header("accept", "application/json, text/event-stream");
        let mut answer = request.send().await.unwrap();
        assert!(answer.chunk().await.unwrap().is_some());
        calls.push(answer);
    }
    clock.advance(Duration::from_millis(1_500));
    write_rules(&edge, r#"{ name = "delete", scope = "echo:write" }"#);
    edge.running().app.reloader.reload().await;
    let end = tokio::time::timeout(Duration::from_secs(5), calls[0].chunk()).await.expect("the call is cut");
    end.expect_err("a cut stream does not look complete");
    eventually("one is left", async || edge.running().app.live.count() == 1).await;
    let lines = edge.ledger_with("gateway_resource_request", 1).await;
    let cut = lines.iter().find(|line| line["event_type"] == "gateway_resource_request").unwrap();
    assert_eq!(
        (&cut["metadata_json"]["cut"], &cut["metadata_json"]["mcp_tool"]),
        (&json!("policy"), &json!("search"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_is_refused_by_its_arguments() {
    let (edge, server, agent) = guarded().await;
    let guards = r#"guards = [{ name = "scope", when = 'mcp.arguments.limit > 10', tools = ["search"] }]"#;
    let bundle = std::fs::read_to_string(edge.bundle()).unwrap();
    let bundle = bundle.replacen("prefixes = [\"/echo\"]", &format!("{guards}\nprefixes = [\"/echo\"]"), 1);
    std::fs::write(edge.bundle(), bundle).unwrap();
    edge.running().app.reloader.reload().await;
    let call = async |arguments: &str| {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"search","arguments":{arguments}}}}}"#
        );
        post(&edge, &agent, &["echo:read"]).await.body(text)
    };
    assert_eq!(call(r#"{"limit":10}"#).await.send().await.unwrap().status(), 200);
    assert_eq!(refused(call(r#"{"limit":11}"#).await).await, (403, -32050, "guard_denied".to_owned()));
    assert_eq!(refused(call("{}").await).await, (403, -32050, "guard_unanswered".to_owned()));
    let twice = call(r#"{"limit":1,"Limit":11}"#).await;
    assert_eq!(refused(twice).await, (400, -32600, "mcp_message_invalid".to_owned()));
    let beyond = call(r#"{"limit":1e-400}"#).await;
    assert_eq!(refused(beyond).await, (400, -32600, "mcp_message_invalid".to_owned()));
    // Another tool, and the connection itself, are not what it is about.
    let other = post(&edge, &agent, &BOTH).await.json(&to_call("delete"));
    assert_eq!(other.send().await.unwrap().status(), 200);
    let list = post(&edge, &agent, &["echo:read"]).await.body(LIST);
    server.answers(r#"{"jsonrpc":"2.0","id":7,"result":{"tools":[]}}"#);
    assert_eq!(list.send().await.unwrap().status(), 200);
    assert_eq!(server.count(), 3);
}
