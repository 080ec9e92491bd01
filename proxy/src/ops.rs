//! The operator's listener: metrics, health, readiness.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;

use crate::app::App;
use crate::listen::{dress, json_response};
use crate::retired;

/// Builds the router: `/metrics`, `/health`, `/ready`.
pub fn router(app: Arc<App>) -> Router {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(|| async { StatusCode::OK }))
        .route("/ready", get(ready))
        .with_state(app);
    dress(routes)
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    let readiness = app.readiness();
    let mut body = Map::new();
    body.insert("ok".to_owned(), readiness.is_ok().into());
    body.insert("ready".to_owned(), readiness.is_ok().into());
    if let Err(reason) = readiness {
        body.insert("reason".to_owned(), reason.into());
    }
    // A version that an operator chose is fit to serve, and to be seen.
    let pinned = app.pinned();
    if !pinned.is_empty() {
        body.insert("pinned".to_owned(), pinned.iter().map(|zone| &**zone).collect());
    }
    let retired = retired::warnings(&app, None);
    if !retired.is_empty() {
        body.insert("retired_secrets_listed".to_owned(), retired.into_keys().collect());
    }
    let status = if readiness.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_response(status, Value::Object(body).to_string())
}

async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if let Some(expected) = &app.metrics_bearer {
        let sent =
            headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        if !sent.is_some_and(|sent| bool::from(sent.ct_eq(expected.as_bytes()))) {
            let mut refused = json_response(StatusCode::UNAUTHORIZED, r#"{"error":"unauthorized"}"#);
            refused
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            return refused;
        }
    }
    match app.metrics.render() {
        Ok(text) => {
            let mut response = Response::new(text.into());
            let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => {
            tracing::error!(%error, "metrics cannot be rendered");
            json_response(StatusCode::INTERNAL_SERVER_ERROR, r#"{"error":"internal_error"}"#)
        }
    }
}
