//! What a refused request is answered.

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::resource_server::Refused;

/// The refusal as the official adapters send it: `error`, `error_description`, `error_hint` as JSON, no challenge.
pub(super) fn refusal<B: From<String>>(refused: Refused) -> Response<B> {
    let body = json!({
        "error": refused.http_code(),
        "error_description": refused.to_string(),
        "error_hint": hint(refused),
    });
    let mut response = Response::new(B::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(refused.http_status()).unwrap_or(StatusCode::UNAUTHORIZED);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const fn hint(refused: Refused) -> &'static str {
    match refused {
        Refused::MissingToken => "send the resource mandate as `Authorization: Bearer`",
        Refused::InvalidToken(_) => "get a fresh mandate for this resource through the gateway",
        Refused::ZoneInvalid => "use a mandate of the zone this resource belongs to",
        Refused::ScopeInsufficient => "ask for the scope this route needs",
        Refused::SessionRequired => "act within a session",
        Refused::DelegationRequired => "act under a delegation",
        Refused::HopCountExceeded => "act closer to the root of the delegation",
        Refused::ChainMismatch => {
            "act under a delegation that passed through the application this route needs"
        }
        Refused::SessionRevoked => "the authority was taken back; start a new session",
        Refused::DelegationStale => "delegations of the zone changed; get a fresh mandate",
    }
}
