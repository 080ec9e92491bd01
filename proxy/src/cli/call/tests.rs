use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cli::tests::caracal;
use crate::control::{ControlHandler, ControlSocket, Failure, Operator, Request as Control, socket_path};

/// Stands in for authority, coordinator and gateway, and remembers what it was asked.
#[derive(Default)]
struct Desk {
    seen: Mutex<Vec<(String, String, String)>>,
    /// What the last leg answers, and what the gateway mint answers when it is not allowed.
    gateway: Mutex<Option<(StatusCode, Value)>>,
    mint: Mutex<Option<(StatusCode, Value)>>,
}

fn token(class: &str) -> String {
    let payload = URL_SAFE_NO_PAD.encode(json!({ "use": class }).to_string());
    format!("aGVhZA.{payload}.c2lnbmF0dXJl")
}

async fn answer(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 65_536).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let line = format!("{} {}", head.method, head.uri);
    let bearer = head.headers.get("authorization").map_or("", |value| value.to_str().unwrap()).to_owned();
    let sessions = desk.seen.lock().iter().filter(|(line, ..)| line.ends_with("/agents")).count();
    desk.seen.lock().push((line.clone(), bearer, body.clone()));
    let (status, body) = match line.as_str() {
        "POST /oauth/2/token" if body.contains("delegation_edge_id") => desk
            .mint
            .lock()
            .clone()
            .unwrap_or_else(|| (StatusCode::OK, json!({ "access_token": token("gateway") }))),
        "POST /oauth/2/token" => (StatusCode::OK, json!({ "access_token": token("session") })),
        "POST /zones/z/agents" => {
            (StatusCode::CREATED, json!({ "agent_session_id": format!("s{sessions}") }))
        }
        "POST /zones/z/delegations" => (StatusCode::CREATED, json!({ "delegation_edge_id": "e1" })),
        _ if line.starts_with("DELETE ") => return StatusCode::NO_CONTENT.into_response(),
        _ => desk.gateway.lock().clone().unwrap_or_else(|| (StatusCode::OK, json!({ "hello": "agent" }))),
    };
    (status, [("x-request-id", "r1")], axum::Json(body)).into_response()
}

struct Call {
    desk: Arc<Desk>,
    address: SocketAddr,
    folder: TempDir,
}

impl Call {
    async fn start() -> Self {
        let desk = Arc::new(Desk::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&desk));
        tokio::spawn(axum::serve(listener, router).into_future());
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("agent.secret");
        std::fs::write(&secret, "cs_the+secret\n").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        Self { desk, address, folder }
    }

    async fn make(&self, json: &str) -> (u8, String, String) {
        let base = format!("http://{}", self.address);
        let secret = self.folder.path().join("agent.secret");
        let state = self.folder.path().to_str().unwrap();
        caracal([
            "call",
            "--sts-url",
            &base,
            "--coordinator-url",
            &base,
            "--gateway-url",
            &base,
            "--zone",
            "z",
            "--app",
            "demo-agent",
            "--secret-file",
            secret.to_str().unwrap(),
            "--resource",
            "resource://echo",
            "--scope",
            "echo:read",
            "--scope",
            "echo:list",
            "-H",
            "accept: text/plain",
            "--state-dir",
            state,
            json,
            "GET",
            "/read/hello?q=1",
        ])
        .await
    }

    fn lines(&self) -> Vec<String> {
        self.desk.seen.lock().iter().map(|(line, ..)| line.clone()).collect()
    }
}

const STEPS: [&str; 8] = [
    "POST /oauth/2/token",
    "POST /zones/z/agents",
    "POST /zones/z/agents",
    "POST /zones/z/delegations",
    "POST /oauth/2/token",
    "GET /read/hello?q=1",
    "DELETE /zones/z/agents/s1",
    "DELETE /zones/z/agents/s0",
];

#[tokio::test]
async fn a_call_takes_the_steps_of_the_official_clients_and_cleans_up() {
    let call = Call::start().await;
    let (code, text, notes) = call.make("--json").await;
    assert_eq!(code, 0, "{notes}");
    assert_eq!(call.lines(), STEPS);

    let seen = call.desk.seen.lock().clone();
    assert!(
        seen[0].2.contains(
            "client_secret=cs%5Fthe%2Bsecret&resource=resource%3A%2F%2Fecho&scope=agent%3Alifecycle"
        )
    );
    let session: Value = serde_json::from_str(&seen[1].2).unwrap();
    assert_eq!(session["labels"], json!(["demo-agent"]));
    assert_eq!(seen[1].1, format!("Bearer {}", token("session")));
    let delegation: Value = serde_json::from_str(&seen[3].2).unwrap();
    assert_eq!(delegation["scopes"], json!(["echo:read", "echo:list"]));
    assert_eq!(delegation["constraints"]["resources"], json!(["resource://echo"]));
    assert_eq!(
        (&delegation["source_session_id"], &delegation["target_session_id"]),
        (&json!("s0"), &json!("s1"))
    );
    assert!(seen[4].2.ends_with("scope=echo%3Aread%20echo%3Alist&agent_session_id=s1&delegation_edge_id=e1"));
    assert_eq!(seen[5].1, format!("Bearer {}", token("gateway")));

    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&told["outcome"], &told["status"]), (&json!("allowed"), &json!(200)));
    assert_eq!(told["body"]["hello"], "agent");
    assert_eq!(told["mandate"]["claims"]["use"], "gateway");
    assert_eq!(told["steps"].as_array().unwrap().len(), STEPS.len());
}

#[tokio::test]
async fn no_secret_and_no_mandate_is_ever_told() {
    let call = Call::start().await;
    for form in ["--json", "--data=x"] {
        let (code, text, notes) = call.make(form).await;
        assert_eq!(code, 0, "{notes}");
        for hidden in ["cs_the", "c2lnbmF0dXJl", &token("session"), &token("gateway")] {
            assert!(!text.contains(hidden) && !notes.contains(hidden), "{hidden} is told with {form}");
        }
        assert!(text.contains("sha256:"), "{text}");
    }
}

#[tokio::test]
async fn a_denied_mint_is_explained_and_the_sessions_are_ended() {
    let call = Call::start().await;
    let body = json!({
        "error": "access_denied", "error_description": "policy denied (role_scope_mismatch)",
        "missing": { "scopes": ["echo:write"] }, "next_step": "ask for the scope", "decision_id": "d1",
    });
    *call.desk.mint.lock() = Some((StatusCode::FORBIDDEN, body));
    let (code, text, _) = call.make("--data=x").await;
    assert_eq!(code, 3);
    assert_eq!(call.lines()[5..], STEPS[6..], "no governed request was made");
    for told in [
        "role_scope_mismatch",
        "missing:   scopes: echo:write",
        "next step: ask for the scope",
        "decision d1",
    ] {
        assert!(text.contains(told), "{told} is not in\n{text}");
    }
}

#[tokio::test]
async fn the_edges_no_is_told_from_the_upstreams() {
    let call = Call::start().await;
    let no = |kind: &str| Some((StatusCode::FORBIDDEN, json!({ "type": kind, "error": "access_denied" })));
    *call.desk.gateway.lock() = no("urn:caracal:error:access_denied");
    let (code, text, _) = call.make("--json").await;
    assert_eq!(code, 3);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["outcome"], "denied");

    *call.desk.gateway.lock() = no("about:blank");
    let (code, text, _) = call.make("--json").await;
    assert_eq!(code, 1);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["outcome"], "upstream_refused");
}

/// Knows the records of request `r1`.
#[derive(Debug)]
struct Clerk;

#[async_trait]
impl ControlHandler for Clerk {
    async fn handle(&self, request: Control, _operator: Operator) -> Result<Value, Failure> {
        if request != (Control::Decision { id: "r1".into() }) {
            return Err(Failure::new("unknown_decision", "no such decision"));
        }
        let record = |id: &str| json!({ "id": id, "metadata_json": { "decision_id": "d1" } });
        Ok(json!({ "records": [record("d1"), record("x1")] }))
    }
}

#[tokio::test]
async fn the_ledgers_records_of_the_call_are_shown() {
    let call = Call::start().await;
    let socket = ControlSocket::bind(&socket_path(call.folder.path())).unwrap();
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(socket.serve(Arc::new(Clerk), stopped));
    let (_, text, _) = call.make("--json").await;
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&told["request_id"], &told["decision_id"]), (&json!("r1"), &json!("d1")));
    assert_eq!(told["records"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_secret_file_open_to_others_is_not_used() {
    let call = Call::start().await;
    let secret = call.folder.path().join("agent.secret");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, _, notes) = call.make("--json").await;
    assert_eq!(code, 1);
    assert!(notes.contains("chmod 600"), "{notes}");
    assert!(call.lines().is_empty());
}

#[test]
fn headers_of_the_call_itself_cannot_be_replaced() {
    super::parse_header("Accept: text/plain").unwrap();
    for text in ["Authorization: Bearer x", "X-Caracal-Resource: other", "no colon", "a b: c", "a: b\r\nc: d"]
    {
        super::parse_header(text).unwrap_err();
    }
}
