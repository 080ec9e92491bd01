//! The public documents: a zone's keys, and the description of the token endpoint.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use serde_json::json;

use super::exchange::LIFECYCLE;
use super::form::{GRANT, is_id, query_field};
use super::{Desk, answer, simple};
use crate::listen::{RequestId, json_response};

const PUBLIC: HeaderValue = HeaderValue::from_static("public, max-age=300, must-revalidate");

/// `GET /.well-known/jwks.json?zone_id=`: every published key of the zone (RFC 7517).
pub(super) async fn jwks(
    State(desk): State<Arc<Desk>>,
    Extension(id): Extension<RequestId>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let Some(zone) = query_field(uri.query().unwrap_or_default(), "zone_id").filter(|zone| is_id(zone))
    else {
        return answer(&simple(400, "invalid_token", "zone_id is required"), &id, None, None);
    };
    let Some(keys) = desk.app.keyring.zone(&zone) else {
        return answer(&simple(404, "resource_not_found", "there is no such zone"), &id, None, None);
    };
    let document = keys.keys.jwks();
    let digest = caracal_mandates::digest(document);
    let tag = format!("\"{}\"", hex::encode(digest));
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let unchanged = known.flat_map(|value| value.split(',')).any(|entry| {
        let entry = entry.trim();
        entry == "*" || entry.strip_prefix("W/").unwrap_or(entry) == tag
    });
    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        json_response(StatusCode::OK, document.to_owned())
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, PUBLIC);
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(ETAG, tag);
    }
    response
}

/// `GET /.well-known/oauth-authorization-server` (RFC 8414).
///
/// `jwks_uri` needs a zone: the one asked for with `zone_id`, or the only one there is; otherwise it is left out.
pub(super) async fn metadata(State(desk): State<Arc<Desk>>, uri: Uri) -> Response {
    let issuer = &desk.app.config.issuer;
    let snapshot = desk.app.snapshot.load();
    let asked = query_field(uri.query().unwrap_or_default(), "zone_id");
    let mut zones = snapshot.zones.keys();
    let zone = match (&asked, zones.next(), zones.next()) {
        (Some(asked), ..) => snapshot.zones.get_key_value(asked.as_str()).map(|(id, _)| id),
        (None, Some(only), None) => Some(only),
        (None, ..) => None,
    };
    let mut document = json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/oauth/2/token"),
        "grant_types_supported": [GRANT],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["client_secret_post"],
        "scopes_supported": [LIFECYCLE],
    });
    if let (Some(zone), Some(members)) = (zone, document.as_object_mut()) {
        members.insert("jwks_uri".into(), json!(format!("{issuer}/.well-known/jwks.json?zone_id={zone}")));
    }
    let mut response = json_response(StatusCode::OK, document.to_string());
    response.headers_mut().insert(CACHE_CONTROL, PUBLIC);
    response
}
