//! `POST /oauth/2/token`: one request, from its bytes to its answer.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use caracal_mandates::{Use, new_jti};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, json};

use super::approvals::{self, Unapproved};
use super::clients::{Client, Presented};
use super::exchange::{self, Asked, Issued, Trail};
use super::form::{ACCESS_TOKEN, FormProblem, Subject, TokenForm};
use super::refused::Refused;
use super::{Desk, answer_with, record};
use crate::app::App;
use crate::config::LedgerMode;
use crate::ledger::EarlyRefusal;
use crate::listen::{BodyProblem, RequestId, read_body, source};
use crate::refusal::Particulars;

/// Longest form, in bytes (the reference's limit).
const MAX_FORM: usize = 64 * 1024;
/// Headers with which the reference's gateway signs its exchanges; ours is in this process and sends none.
const GATEWAY_HEADERS: [&str; 3] =
    ["x-caracal-gateway-timestamp", "x-caracal-gateway-request", "x-caracal-gateway-signature"];

/// Who is asking, as far as the connection and the head tell.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) id: RequestId,
    pub(super) address: IpAddr,
}

/// The token endpoint.
pub(super) async fn exchange(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let caller = Caller {
        id: request
            .extensions()
            .get::<RequestId>()
            .cloned()
            .unwrap_or_else(|| RequestId::of(request.headers())),
        address: source(request.extensions(), request.headers(), &desk.app.config.trusted_proxies),
    };
    match authenticated(&desk, &caller, request).await {
        Ok((client, form)) => decided(&desk, &caller, &client, &form).await,
        Err(refused) => {
            let code = refused.answer().code;
            desk.app.ledger.refuse_early(EarlyRefusal { code, listener: "authority", peer: caller.address });
            refuse(&desk, &caller, "", &refused, None)
        }
    }
}

/// Everything before an identity is proven; the order of the checks is part of the contract.
async fn authenticated(
    desk: &Desk,
    caller: &Caller,
    request: Request,
) -> Result<(Client, TokenForm), Refused> {
    let (head, body) = request.into_parts();
    if head.uri.query().is_some_and(|query| !query.is_empty()) {
        return Err(Refused::QueryString);
    }
    if !is_form(&head.headers) {
        return Err(Refused::ContentType);
    }
    let limit = usize::try_from(desk.app.config.limits.max_request_bytes).unwrap_or(MAX_FORM).min(MAX_FORM);
    let body = read_body(body, limit).await.map_err(|problem| match problem {
        BodyProblem::TooLarge => Refused::TooLarge,
        BodyProblem::TooSlow | BodyProblem::Broken => Refused::Unreadable,
    })?;
    let form = TokenForm::parse(&body);
    let signed = GATEWAY_HEADERS.iter().any(|name| head.headers.contains_key(*name));
    let form = match form {
        Err(problem) if !signed || problem <= FormProblem::BadTtl => return Err(Refused::Form(problem)),
        Ok(form) if !signed => form,
        Ok(_) | Err(_) => return Err(Refused::GatewayHeaders),
    };
    let snapshot = desk.app.snapshot.load();
    let presented = Presented {
        zone: &form.zone_id,
        application: &form.application_id,
        secret: &form.client_secret,
        address: caller.address,
    };
    let client = desk.clients.authenticate(&desk.app, &snapshot, presented).await?;
    Ok((client, form))
}

fn is_form(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else { return false };
    let essence = only.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let plain = headers.get_all(CONTENT_ENCODING).iter().all(|coding| coding == "identity");
    plain && essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// The exchange of a proven client: a place in the ledger, the decision, its record, the answer.
async fn decided(desk: &Desk, caller: &Caller, client: &Client, form: &TokenForm) -> Response {
    let app = &*desk.app;
    let zone = client.zone.zone.id();
    let now = app.clock.now();
    let Ok(admission) = app.ledger.admit(zone) else {
        return refuse(desk, caller, zone, &Refused::LedgerFull, None);
    };
    let asked = Asked { app, zone: &client.zone, application: &client.application, form, now };
    let mut trail = Trail::default();
    let allowed = app.mints.count(zone, &client.application.id, now);
    let outcome = match &form.subject {
        _ if let Err(wait) = allowed => Err(Refused::MintRate(wait)),
        Some(Subject::Federated(token)) => desk.federation.exchange(&asked, token, &mut trail).await,
        Some(Subject::Mandate(_)) | None => exchange::run(asked, &mut trail).await,
    };
    let decision_id = new_jti(now);
    let event = record::event(&asked, &trail, outcome.as_ref(), caller, &decision_id);
    let _rehearsed = app.rehearsals.after(&client.zone, &event);
    admission.result(event);
    // Whatever was minted is worth nothing to a caller who never gets it.
    let outcome = if recorded(app).await { outcome } else { Err(Refused::LedgerFull) };
    match outcome {
        Ok(issued) => {
            app.metrics.exchanges.with_label_values(&[&**zone, "ok"]).inc();
            if issued.mandate.claims().use_ == Use::Gateway {
                app.claims.prime(issued.key_generation, &issued.mandate);
            }
            success(&issued)
        }
        Err(refused) => refuse(desk, caller, zone, &refused, Some(decision_id)),
    }
}

/// Waits until what was queued is on disk, where the ledger is strict; false when it could not be written.
pub(crate) async fn recorded(app: &App) -> bool {
    match app.config.ledger.mode {
        LedgerMode::Buffered => true,
        LedgerMode::Strict => app.ledger.flush().await.is_ok(),
    }
}

fn refuse(
    desk: &Desk,
    caller: &Caller,
    zone: &str,
    refused: &Refused,
    decision_id: Option<String>,
) -> Response {
    let told = refused.answer();
    desk.app.metrics.exchanges.with_label_values(&[zone, told.code]).inc();
    let members = if let Refused::Unapproved(Unapproved::Held { hold, .. }) = refused {
        approvals::told(hold, desk.app.clock.now())
    } else {
        Map::new()
    };
    let more = Particulars { decision_id, reason: refused.reason(), members, ..Particulars::default() };
    answer_with(&told, &caller.id, more)
}

fn success(issued: &Issued) -> Response {
    let claims = issued.mandate.claims();
    let mut body = json!({
        "access_token": issued.token,
        "token_type": "Bearer",
        "expires_in": issued.expires_in,
        "issued_token_type": ACCESS_TOKEN,
    });
    if let Some(members) = body.as_object_mut() {
        if let Some(scope) = &claims.scope {
            members.insert("scope".into(), json!(scope));
        }
        if !claims.target.is_empty() {
            members.insert("target_resources".into(), json!(claims.target));
        }
    }
    crate::listen::json_response(StatusCode::OK, body.to_string())
}
