//! `POST /v1/verify`: is this mandate good here? For callers without a verifier of their own.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use caracal_mandates::{Claims, Expect, Use, verify as verify_token};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::Desk;
use super::body::Body;
use super::refused::Refused;
use crate::authority::failures::network;
use crate::authority::is_id;
use crate::listen::{RequestId, json_response, read_body, source};

const MAX_BODY: usize = 16 * 1024;

/// The public verification helper. It checks signature, issuer, audience, time, zone and what the caller
/// requires; it looks up no revocation and accepts no resource mandate.
pub(super) async fn verify(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let id = head.extensions.get().cloned().unwrap_or_else(|| RequestId::of(&head.headers));
    let address = network(source(&head.extensions, &head.headers, &desk.app.config.trusted_proxies));
    let now = desk.app.clock.now();
    if let Some(wait) = desk.failures.over(&address, now) {
        return Refused::new(429, "rate_limited").after(wait).response(&id);
    }
    let Ok(bytes) = read_body(body, MAX_BODY).await else {
        return Refused::new(413, "payload_too_large").response(&id);
    };
    let asked = match Asked::read(&head.headers, &bytes) {
        Ok(asked) => asked,
        Err(refused) => return refused.response(&id),
    };
    match asked.check(&desk) {
        Some(claims) => {
            json_response(StatusCode::OK, json!({ "valid": true, "claims": *claims }).to_string())
        }
        None => {
            desk.failures.count(address, now);
            json_response(StatusCode::UNAUTHORIZED, r#"{"valid":false,"error":"token_invalid"}"#)
        }
    }
}

struct Asked {
    token: String,
    zone: String,
    scope: Option<String>,
    session: bool,
    delegation: bool,
}

impl Asked {
    fn read(headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Refused> {
        let invalid = |_problem| Refused::new(400, "invalid_request");
        let mut body = Body::required(headers, bytes).map_err(invalid)?;
        let token = body.optional_string("token");
        let bearer = body.optional_string("authorization").and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
        });
        let mut flag = |name: &str| match body.take(name) {
            Some(serde_json::Value::Bool(flag)) => flag,
            Some(_) => {
                body.issue(name, "must be true or false");
                false
            }
            None => false,
        };
        let (session, delegation) = (flag("require_session"), flag("require_delegation"));
        let zone = body.string("zone_id");
        let scope = body.optional_string("required_scope");
        body.finish().map_err(invalid)?;
        let token = token.or(bearer).ok_or(Refused::new(400, "missing_token"))?;
        Ok(Self { token, zone, scope, session, delegation })
    }

    fn check(&self, desk: &Desk) -> Option<Arc<Claims>> {
        let app = &desk.app;
        let keys = app.keyring.zone(&self.zone).filter(|_| is_id(&self.zone))?;
        let issuer = &app.config.issuer;
        let expect = Expect {
            issuer,
            audience: issuer,
            zone: &self.zone,
            uses: &[Use::Session, Use::Gateway],
            now: app.clock.now_s(),
            leeway: 0,
        };
        let mandate = verify_token(keys.keys.public(), &self.token, &expect).ok()?;
        let claims = mandate.claims();
        let scoped = self.scope.as_deref().is_none_or(|wanted| claims.scopes().any(|scope| scope == wanted));
        let anchored = (!self.session || claims.agent_session_id.is_some())
            && (!self.delegation || claims.delegation_edge_id.is_some());
        (scoped && anchored).then(|| Arc::clone(claims))
    }
}
