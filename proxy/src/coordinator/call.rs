//! One authenticated call: what every zone route needs, taken from the request in the order of the checks.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts as _, RawPathParams, Request};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use caracal_mandates::new_jti;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use super::Desk;
use super::authenticate::{Door, authenticate};
use super::refused::Refused;
use crate::app::App;
use crate::authority::{is_id, recorded};
use crate::ledger::{EarlyRefusal, Event};
use crate::listen::{BodyProblem, RequestId, json_response, read_body, source};
use crate::state::Caller;

/// Longest body, in bytes (the reference's limit).
const MAX_BODY: usize = 256 * 1024;
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// An authenticated call with a readable body and well-formed path ids.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) desk: Arc<Desk>,
    pub(super) zone: String,
    pub(super) caller: Caller,
    pub(super) headers: HeaderMap,
    pub(super) query: String,
    pub(super) body: Bytes,
    id: RequestId,
    address: IpAddr,
    params: Vec<(String, String)>,
}

/// A successful answer.
#[derive(Debug)]
pub(super) struct Reply {
    status: StatusCode,
    body: Option<Value>,
    replayed: bool,
}

impl Reply {
    pub(super) const fn ok(body: Value) -> Self {
        Self { status: StatusCode::OK, body: Some(body), replayed: false }
    }

    pub(super) const fn created(body: Value, replayed: bool) -> Self {
        Self { status: StatusCode::CREATED, body: Some(body), replayed }
    }

    pub(super) const fn empty() -> Self {
        Self { status: StatusCode::NO_CONTENT, body: None, replayed: false }
    }

    fn response(self) -> Response {
        let mut response = match self.body {
            Some(body) => json_response(self.status, body.to_string()),
            None => self.status.into_response(),
        };
        if self.replayed {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// What a change's ledger event says about it.
pub(super) type About = Map<String, Value>;

impl Call {
    pub(super) fn app(&self) -> &App {
        &self.desk.app
    }

    /// A path parameter of the route; empty when the route has none of that name.
    pub(super) fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Whether the running bundle of the zone has this application.
    pub(super) fn application_known(&self, id: &str) -> bool {
        let snapshot = self.app().snapshot.load();
        snapshot.zones.get(self.zone.as_str()).is_some_and(|live| live.zone.application(id).is_some())
    }

    /// Answers a read.
    pub(super) fn read(self, outcome: Result<Reply, Refused>) -> Response {
        self.answer(outcome)
    }

    /// Makes a change and answers it. Its record is reserved first (without a record there is no change) and
    /// written, made or refused, before the answer.
    pub(super) async fn change(
        self,
        event_type: &'static str,
        act: impl AsyncFnOnce(&Self, &mut About) -> Result<Reply, Refused>,
    ) -> Response {
        let Ok(admission) = self.app().ledger.admit(&self.zone) else {
            return self.answer(Err(Refused::new(503, "audit_unavailable").after(1)));
        };
        let about = self.params.iter().filter(|(name, _)| name != "zone");
        let mut about: About = about.map(|(name, value)| (format!("path_{name}"), json!(value))).collect();
        let outcome = act(&self, &mut about).await;
        let (decision, status) = match &outcome {
            Ok(reply) if reply.replayed => ("allow", "replayed"),
            Ok(_) => ("allow", "complete"),
            Err(refused) => ("deny", refused.code),
        };
        about.insert("caller".into(), json!(self.caller.id()));
        about.insert("authority_record_id".into(), json!(self.caller.record()));
        about.insert("client_ip".into(), json!(self.address.to_string()));
        about.insert("client_request_id".into(), json!(self.id.client()));
        about.retain(|_, value| !value.is_null());
        let now = self.app().clock.now();
        admission.result(Event {
            id: new_jti(now),
            zone_id: self.zone.clone(),
            event_type,
            request_id: self.id.own().to_owned(),
            decision,
            evaluation_status: status.to_owned(),
            determining_policies: Vec::new(),
            diagnostics: json!([]),
            metadata: about,
            occurred_at: now,
        });
        // The change stands, but nobody may rely on it before its record does.
        let outcome =
            if recorded(self.app()).await { outcome } else { Err(Refused::new(500, "audit_unavailable")) };
        self.answer(outcome)
    }

    fn answer(self, outcome: Result<Reply, Refused>) -> Response {
        let code = outcome.as_ref().err().map_or("ok", |refused| refused.code);
        self.app().metrics.coordinator.with_label_values(&[&*self.zone, code]).inc();
        match outcome {
            Ok(reply) => reply.response(),
            Err(refused) => refused.response(&self.id),
        }
    }
}

impl FromRequest<Arc<Desk>> for Call {
    type Rejection = Response;

    async fn from_request(request: Request, desk: &Arc<Desk>) -> Result<Self, Response> {
        let (mut head, body) = request.into_parts();
        let app = &desk.app;
        let id = head.extensions.get().cloned().unwrap_or_else(|| RequestId::of(&head.headers));
        let address = source(&head.extensions, &head.headers, &app.config.trusted_proxies);
        let refuse = |refused: Refused| {
            app.ledger.refuse_early(EarlyRefusal {
                code: refused.code,
                listener: "coordinator",
                peer: address,
            });
            app.metrics.coordinator.with_label_values(&["", refused.code]).inc();
            refused.response(&id)
        };
        let params = RawPathParams::from_request_parts(&mut head, desk).await;
        let params: Vec<(String, String)> = params
            .map_err(|_undecodable| refuse(Refused::new(400, "invalid_params")))?
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let zone =
            params.iter().find(|(name, _)| name == "zone").map(|(_, zone)| zone.clone()).unwrap_or_default();
        let door = head.extensions.get::<Door>().copied().unwrap_or(Door::Applications);
        let caller = authenticate(app, desk.operator.as_ref(), door, &zone, &head.headers, address)
            .map_err(&refuse)?;
        if !params.iter().all(|(_, value)| is_id(value)) {
            return Err(refuse(Refused::new(400, "invalid_params")));
        }
        let limit = usize::try_from(app.config.limits.max_request_bytes).unwrap_or(MAX_BODY).min(MAX_BODY);
        let body = read_body(body, limit).await.map_err(|problem| {
            refuse(match problem {
                BodyProblem::TooLarge => Refused::new(413, "payload_too_large"),
                BodyProblem::TooSlow => Refused::new(408, "request_timeout"),
                BodyProblem::Broken => Refused::new(400, "invalid_body"),
            })
        })?;
        let query = head.uri.query().unwrap_or_default().to_owned();
        Ok(Self {
            desk: Arc::clone(desk),
            zone,
            caller,
            headers: head.headers,
            query,
            body,
            id,
            address,
            params,
        })
    }
}
