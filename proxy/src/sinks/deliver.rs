//! One attempt to tell a sink.

use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;

use super::Sink;
use super::message::{Notice, signature};
use crate::app::App;
use crate::broker::dial;
use crate::outbound::Body;

/// The status of a delivery.
///
/// # Errors
/// Why there was none, in words for the operator. Nothing the other side wrote is in them.
pub(super) async fn deliver(app: &App, sink: &Sink, notice: &Notice) -> Result<u16, String> {
    let request = request(app, sink, notice)?;
    let status = app.sinks.http.status(request).await.map_err(|why| why.to_string())?;
    if status.is_success() {
        return Ok(status.as_u16());
    }
    let redirect = if status.is_redirection() { ", and redirects are not followed" } else { "" };
    Err(format!("the answer is {}{redirect}", status.as_u16()))
}

fn request(app: &App, sink: &Sink, notice: &Notice) -> Result<Request<Body>, String> {
    let unusable = |error: &dyn std::fmt::Display| format!("the event cannot be sent: {error}");
    let config = &sink.config;
    let body = serde_json::to_vec(notice).map_err(|error| unusable(&error))?;
    let seconds = app.clock.now_s();
    // Looked up at each attempt: a rotated secret is used at once, and one that was taken away not at all.
    let secrets = &app.snapshot.load().secrets;
    let secret = secrets.get(&config.zone, &config.secret.name, &config.secret.key, &dial(&config.url));
    let secret = secret.map_err(|refused| refused.to_string())?;
    Request::post(config.url.as_str())
        .header(CONTENT_TYPE, "application/json")
        .header("x-caracal-event", &notice.event_type)
        .header("x-caracal-delivery", &notice.id)
        .header("x-caracal-sink", &config.name)
        .header("x-caracal-timestamp", seconds)
        .header("x-caracal-signature", signature(secret.expose(), seconds, &body))
        .body(Body::new(Bytes::from(body)))
        .map_err(|error| unusable(&error))
}
