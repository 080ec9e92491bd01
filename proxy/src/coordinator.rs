//! The coordinator: sessions, leases, delegations, agent services and invocations over HTTP.
//!
//! What is allowed and what happens is decided in [`crate::state`]; here is who asks (`authenticate`), what
//! was sent (`body`), and what the answers look like.

mod authenticate;
mod body;
mod call;
mod catalog;
mod delegations;
mod idempotency;
mod invocations;
mod query;
mod refused;
mod services;
mod sessions;
#[cfg(test)]
mod tests;
mod verify;

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{get, patch, post};
use axum::{Extension, Router};
use http::StatusCode;
use serde_json::json;

pub(crate) use self::authenticate::bearer;
use self::authenticate::{Door, OperatorToken};
use self::refused::Refused;
use crate::app::App;
use crate::authority::failures::Failures;
use crate::fleet;
use crate::listen::{RequestId, dress, json_response};

/// Failed verifications a minute that `/v1/verify` allows one address.
const VERIFY_FAILURES: u32 = 60;

/// The coordinator's routes, ready to be served.
pub fn router(app: Arc<App>) -> Router {
    let operator = operator_token(&app);
    let caught_up = from_fn_with_state(Arc::clone(&app), fleet::caught_up);
    let desk = Arc::new(Desk { app, operator, failures: Failures::new(VERIFY_FAILURES) });
    let too = || Extension(Door::OperatorToo);
    let router = Router::new()
        .route("/zones/{zone}/agents", get(sessions::list).layer(too()).post(sessions::start))
        .route("/zones/{zone}/agents/{id}", get(sessions::one).delete(sessions::end).layer(too()))
        .route("/zones/{zone}/agents/{id}/children", get(sessions::children).layer(too()))
        .route(
            "/zones/{zone}/agents/{id}/effective-authority",
            get(sessions::effective_authority).layer(too()),
        )
        .route("/zones/{zone}/agents/{id}/suspend", patch(sessions::suspend).layer(too()))
        .route("/zones/{zone}/agents/{id}/resume", patch(sessions::resume).layer(too()))
        .route("/zones/{zone}/agents/{id}/lease", post(sessions::lease))
        .route("/zones/{zone}/agents/{id}/heartbeat", post(sessions::heartbeat))
        .route("/zones/{zone}/delegations", post(delegations::create))
        .route("/zones/{zone}/delegations/active", get(delegations::active).layer(too()))
        .route("/zones/{zone}/delegations/inbound/{session}", get(delegations::inbound).layer(too()))
        .route("/zones/{zone}/delegations/inbound/{session}/{id}", get(delegations::held).layer(too()))
        .route("/zones/{zone}/delegations/outbound/{session}", get(delegations::outbound).layer(too()))
        .route("/zones/{zone}/delegations/{id}/traverse", get(delegations::traverse).layer(too()))
        .route("/zones/{zone}/delegations/{id}/impact", get(delegations::impact).layer(too()))
        .route("/zones/{zone}/delegations/{id}/revoke", patch(delegations::revoke).layer(too()))
        .route("/zones/{zone}/agent-services", get(services::list).layer(too()).post(services::register))
        .route("/zones/{zone}/invocations", get(invocations::list).layer(too()).post(invocations::create))
        .route("/zones/{zone}/invocations/{id}", get(invocations::one))
        .route("/zones/{zone}/invocations/{id}/start", patch(invocations::start))
        .route("/zones/{zone}/invocations/{id}/cancel", patch(invocations::cancel))
        .route("/zones/{zone}/invocations/{id}/complete", patch(invocations::complete))
        .route_layer(caught_up)
        .route("/v1/verify", post(verify::verify))
        .route("/health", get(|| async { json_response(StatusCode::OK, r#"{"ok":true}"#) }))
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
    operator: Option<OperatorToken>,
    failures: Failures<IpAddr>,
}

/// A token file that cannot be used leaves the operator routes shut; everything else works.
fn operator_token(app: &App) -> Option<OperatorToken> {
    let path = app.config.coordinator_token_file.as_ref()?;
    match OperatorToken::read(path) {
        Ok(token) => Some(token),
        Err(error) => {
            tracing::error!(file = %path.display(), %error, "the coordinator token cannot be used");
            None
        }
    }
}

async fn ready(State(desk): State<Arc<Desk>>) -> Response {
    match desk.app.readiness() {
        Ok(()) => json_response(StatusCode::OK, r#"{"ok":true}"#),
        Err(reason) => json_response(
            StatusCode::SERVICE_UNAVAILABLE,
            json!({ "ok": false, "error": reason }).to_string(),
        ),
    }
}

async fn not_found(Extension(id): Extension<RequestId>) -> Response {
    Refused::new(404, "not_found").response(&id)
}

async fn wrong_method(Extension(id): Extension<RequestId>) -> Response {
    Refused::new(405, "method_not_allowed").response(&id)
}
