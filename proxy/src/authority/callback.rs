//! `GET /oauth/2/callback`: where an authorization server sends the browser of whoever agreed, or did not.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use caracal_policies::Provider;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Map, json};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Desk, form, wrong_method};
use crate::app::App;
use crate::broker::{Concluded, Order, Outcome};
use crate::ledger::Event;
use crate::listen::{RequestId, json_response};
use crate::state::ConnectionKey;

/// The path of the callback.
const PATH: &str = "/oauth/2/callback";

/// The one redirect URI of this edge, to be registered with authorization servers.
pub(crate) fn redirect_uri(app: &App) -> String {
    format!("{}{PATH}", app.config.issuer)
}

/// The callback. Nothing is taken from a look ahead (HEAD): what comes back is good once.
pub(super) async fn callback(
    State(desk): State<Arc<Desk>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    if request.method() != Method::GET {
        return wrong_method(Extension(id)).await;
    }
    let query = Zeroizing::new(request.uri().query().unwrap_or_default().to_owned());
    let plain = wants_json(request.headers());
    let Some(returned) = form::returned(&query) else {
        return page(plain, &Outcome::refused("oauth_state_invalid", ""));
    };
    let app = Arc::clone(&desk.app);
    // A task of its own: what was agreed to is kept also when the browser goes away.
    let concluded = tokio::spawn(async move {
        let concluded = app.broker.returned(returned, &redirect_uri(&app), |key| order(&app, key)).await;
        record(&app, &concluded, &id);
        concluded.outcome
    });
    match concluded.await {
        Ok(outcome) => page(plain, &outcome),
        Err(_ended) => page(plain, &Outcome::refused("internal_error", "")),
    }
}

/// The order for a zone's provider as it is now.
fn order(app: &App, key: &ConnectionKey) -> Option<Order> {
    let snapshot = app.snapshot.load();
    let live = snapshot.zones.get(&key.zone)?;
    let named = |provider: &&Arc<Provider>| provider.identifier == key.provider;
    let provider = Arc::clone(live.zone.providers().find(named)?);
    Some(Order { zone: Arc::clone(&key.zone), provider, connection: None, snapshot })
}

/// A return that belongs to no flow is nobody's act, and has no record: anybody can send any number of them.
fn record(app: &App, concluded: &Concluded, id: &RequestId) {
    let Some((key, operator)) = &concluded.whose else { return };
    let outcome = &concluded.outcome;
    tell(key, outcome);
    if let Err(error) = app.ledger.event(event(app, key, *operator, outcome, id)) {
        tracing::error!(%error, "a connection could not be recorded");
    }
}

fn tell(key: &ConnectionKey, outcome: &Outcome) {
    let (zone, provider, code, detail) = (&*key.zone, &*key.provider, outcome.code, &*outcome.detail);
    tracing::info!(zone, provider, outcome = code, detail, "a person came back from an authorization server");
}

fn event(app: &App, key: &ConnectionKey, operator: u32, outcome: &Outcome, id: &RequestId) -> Event {
    let connected = outcome.connection.is_some();
    let mut metadata = Map::new();
    metadata.insert("operator_uid".into(), json!(operator));
    metadata.insert("provider_id".into(), json!(key.provider));
    metadata.insert("subject".into(), json!(key.subject));
    metadata.insert("outcome".into(), json!(outcome.code));
    if let Some(connection) = &outcome.connection {
        metadata.insert("connection_id".into(), json!(connection));
    }
    Event {
        id: Uuid::now_v7().to_string(),
        zone_id: key.zone.to_string(),
        event_type: "provider_connected",
        request_id: id.own().to_owned(),
        decision: if connected { "allow" } else { "deny" },
        evaluation_status: if connected { "complete" } else { "failed" }.to_owned(),
        determining_policies: Vec::new(),
        diagnostics: json!([]),
        metadata,
        occurred_at: app.clock.now(),
    }
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.contains("application/json") && !accept.contains("text/html")
}

/// What the person reads. The operator's command, the log and the ledger say more.
fn told(code: &str) -> (StatusCode, &'static str) {
    match code {
        "connected" => (StatusCode::OK, "Connected. You can close this page."),
        "oauth_state_invalid" => {
            (StatusCode::BAD_REQUEST, "Nobody here asked for this. Ask your operator for a new link.")
        }
        "oauth_state_used" => {
            (StatusCode::BAD_REQUEST, "This link was used before. Ask your operator for a new one.")
        }
        "oauth_state_expired" => {
            (StatusCode::BAD_REQUEST, "This link is too old. Ask your operator for a new one.")
        }
        "oauth_state_mismatch" => {
            (StatusCode::BAD_REQUEST, "What was asked for has changed. Ask your operator for a new link.")
        }
        "oauth_issuer_mismatch" => {
            (StatusCode::BAD_REQUEST, "Another server answered than was asked. Nothing was connected.")
        }
        "authorization_code_required" => {
            (StatusCode::BAD_REQUEST, "The answer was incomplete. Ask your operator for a new link.")
        }
        "provider_oauth_denied" => (StatusCode::FORBIDDEN, "Access was not granted. Nothing was connected."),
        "state_unavailable" => {
            (StatusCode::SERVICE_UNAVAILABLE, "The connection could not be kept. Tell your operator.")
        }
        "internal_error" => (StatusCode::INTERNAL_SERVER_ERROR, "Something failed. Tell your operator."),
        _ => (StatusCode::BAD_GATEWAY, "The server gave no usable tokens. Tell your operator."),
    }
}

/// A page without anything active in it, or JSON.
fn page(json: bool, outcome: &Outcome) -> Response {
    let (status, text) = told(outcome.code);
    let mut response = if json {
        let body = if status == StatusCode::OK {
            json!({ "ok": true, "code": outcome.code, "message": text })
        } else {
            json!({ "error": outcome.code, "error_description": text })
        };
        json_response(status, body.to_string())
    } else {
        let title = if status == StatusCode::OK { "Connected" } else { "Not connected" };
        let code = outcome.code;
        let body = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
             <h1>{title}</h1><p>{text}</p><p><code>{code}</code></p></html>\n"
        );
        let mut response = json_response(status, body);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        response
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    response
}
