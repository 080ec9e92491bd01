//! The authority: the token endpoint and the documents that describe it.
//!
//! A request for a mandate is read (`form`), its client proven (`clients`), the exchange run
//! ([`exchange`], or `federation` for a person's identity token) and the outcome recorded (`record`) before it is answered.

pub(crate) mod approvals;
mod callback;
mod clients;
mod documents;
pub mod exchange;
pub(crate) mod failures;
mod federation;
mod form;
mod record;
mod refused;
#[cfg(test)]
pub(crate) mod testkit;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;
use serde_json::json;

use self::clients::Clients;
use self::federation::Federation;
use crate::app::App;
use crate::fleet;
use crate::listen::{RequestId, dress, json_response};
use crate::refusal::{Answer, Particulars};

pub(crate) use callback::redirect_uri;
pub(crate) use form::is_id;
pub(crate) use token::recorded;

/// The authority's routes, ready to be served.
pub fn router(app: Arc<App>) -> Router {
    let federation = Federation::new(&app.config.federation, Arc::clone(&app.egress), app.clock.now_s());
    let caught_up = from_fn_with_state(Arc::clone(&app), fleet::caught_up);
    let desk = Arc::new(Desk { app, clients: Clients::new(), federation });
    let router = Router::new()
        .route("/oauth/2/token", post(token::exchange))
        .route("/approvals/{id}", get(approvals::read))
        .route("/approvals/{id}/decision", post(approvals::decide))
        .route_layer(caught_up)
        .route("/oauth/2/callback", get(callback::callback))
        .route("/.well-known/jwks.json", get(documents::jwks))
        .route("/.well-known/oauth-authorization-server", get(documents::metadata))
        .route("/health", get(|| async { StatusCode::OK }))
        .route("/ready", get(ready))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .with_state(desk);
    dress(router)
}

/// What the handlers share.
#[derive(Debug)]
struct Desk {
    app: Arc<App>,
    clients: Clients,
    federation: Federation,
}

async fn ready(State(desk): State<Arc<Desk>>) -> Response {
    match desk.app.readiness() {
        Ok(()) => json_response(StatusCode::OK, r#"{"ok":true,"ready":true}"#),
        Err(reason) => {
            let body = json!({ "ok": false, "ready": false, "error": reason });
            json_response(StatusCode::SERVICE_UNAVAILABLE, body.to_string())
        }
    }
}

async fn not_found(id: axum::Extension<RequestId>) -> Response {
    answer(&simple(404, "not_found", "there is nothing at this path"), &id, None, None)
}

async fn wrong_method(id: axum::Extension<RequestId>) -> Response {
    answer(&simple(405, "method_not_allowed", "this path does not take the method"), &id, None, None)
}

const fn simple(status: u16, code: &'static str, description: &'static str) -> Answer {
    Answer {
        status,
        code,
        description,
        next_step: "correct the request",
        retryable: false,
        retry_after: None,
    }
}

/// A refusal as a response, with the headers that go with its status.
fn answer(
    answer: &Answer,
    id: &RequestId,
    decision_id: Option<String>,
    reason: Option<&'static str>,
) -> Response {
    answer_with(answer, id, Particulars { decision_id, reason, ..Particulars::default() })
}

/// As [`answer`], with whatever else belongs into the body.
fn answer_with(answer: &Answer, id: &RequestId, more: Particulars) -> Response {
    let particulars = Particulars { request_id: id.shown().to_owned(), ..more };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json_response(status, answer.body(&particulars));
    let headers = response.headers_mut();
    if let Some(challenge) = answer.challenge().and_then(|text| text.try_into().ok()) {
        headers.insert(http::header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(seconds) = answer.retry_after {
        headers.insert(http::header::RETRY_AFTER, seconds.into());
    }
    response
}
