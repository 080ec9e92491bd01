//! Where a hold stands, for whoever knows its id, and the answer of the person an agent works for.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use caracal_mandates::{Claims, Expect, SubjectType, Use, verify};
use caracal_policies::{Approver, Privacy, SelfApproval};
use http::{HeaderMap, StatusCode, Uri};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::super::form::query_field;
use super::super::{Desk, answer, simple};
use super::write_down;
use crate::app::App;
use crate::listen::{RequestId, json_response, read_body};
use crate::refusal::Answer;
use crate::state::{AuthorityRecord, Hold, HoldDecision, HoldState, RecordKind, iso};

/// Longest wait of one request, in seconds.
const LONGEST_WAIT_S: u64 = 25;
/// How often a waiting request looks again, whether or not it was told of an answer.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Bytes of a decision, and of a reason in it.
const MAX_BODY: usize = 4_096;
const MAX_REASON: usize = 500;

/// `GET /approvals/{id}?wait=N`: where the hold stands; with `wait`, as soon as it is answered or N seconds are over.
/// The id is the capability.
pub(in super::super) async fn read(
    State(desk): State<Arc<Desk>>,
    Path(id): Path<String>,
    Extension(request): Extension<RequestId>,
    uri: Uri,
) -> Response {
    let app = &*desk.app;
    let Some(mut hold) = find(app, &id) else { return lost(&request) };
    let wait = match query_field(uri.query().unwrap_or_default(), "wait").as_deref().map(str::parse::<u64>) {
        None => 0,
        Some(Ok(seconds)) => seconds.min(LONGEST_WAIT_S),
        Some(Err(_)) => {
            return answer(
                &simple(400, "invalid_token", "wait is a number of seconds"),
                &request,
                None,
                None,
            );
        }
    };
    let begun = Instant::now();
    let wait = Duration::from_secs(wait);
    while hold.state(app.clock.now()) == HoldState::Pending {
        let Some(left) = wait.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) else { break };
        // Asked for before the look, so that an answer in between is not missed.
        let answered = app.state.hold_answered();
        tokio::pin!(answered);
        answered.as_mut().enable();
        match find(app, &id) {
            Some(now) if now.state(app.clock.now()) == HoldState::Pending => {
                // Whether it was told or not, the hold is looked at.
                drop(tokio::time::timeout(left.min(LOOK_AGAIN), answered).await);
                let Some(now) = find(app, &id) else { return lost(&request) };
                hold = now;
            }
            Some(now) => hold = now,
            None => return lost(&request),
        }
    }
    json_response(StatusCode::OK, state(&hold, app.clock.now()))
}

/// What is decided.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    decision: Word,
    binding: String,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Approved,
    Rejected,
}

/// `POST /approvals/{id}/decision`: the answer of the person an agent works for, proven by that person's own session
/// mandate. The order of the checks is part of the contract (spec 3.11).
pub(in super::super) async fn decide(
    State(desk): State<Arc<Desk>>,
    Path(id): Path<String>,
    Extension(request): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let app = &*desk.app;
    match decided(app, &id, &headers, body).await {
        Ok(hold) => json_response(StatusCode::OK, state(&hold, app.clock.now())),
        Err(told) => answer(&told, &request, None, None),
    }
}

async fn decided(app: &App, id: &str, headers: &HeaderMap, body: Body) -> Result<Arc<Hold>, Answer> {
    let lost = simple(404, "resource_not_found", "there is no such approval");
    let malformed = |text| simple(400, "invalid_token", text);
    if Uuid::parse_str(id).is_err() {
        return Err(lost);
    }
    let token = crate::coordinator::bearer(headers).ok_or(simple(
        401,
        "invalid_token",
        "the person's session mandate is required",
    ))?;
    let body = read_body(body, MAX_BODY).await.map_err(|_problem| malformed("the body could not be read"))?;
    let decision: Decision = serde_json::from_slice(&body)
        .map_err(|_unreadable| malformed("the body must be {\"decision\",\"binding\",\"reason\"?}"))?;
    if decision.reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
        return Err(malformed("a reason has at most 500 bytes"));
    }
    let hold = app.state.find_hold(id).ok_or(lost)?;
    let now = app.clock.now();
    let claims = proven(app, &hold, token, now)?;
    let own = entitled(app, &hold, &claims, now)?;
    if *hold.binding != *decision.binding {
        return Err(simple(409, "approval_consumed", "the decision is for another binding"));
    }
    let word = decision.decision;
    let decision = HoldDecision {
        approved: word == Word::Approved,
        at: now,
        by: named(&hold, &own),
        reason: decision.reason,
    };
    let hold = app.state.decide_hold(&hold.zone, &hold.id, &decision).await;
    let hold = hold.map_err(|error| match error.status {
        503 => simple(503, "sts_unavailable", "the store could not be written"),
        _ => simple(409, "approval_consumed", "the approval is answered, used or over"),
    })?;
    let word = if word == Word::Approved { "approved" } else { "rejected" };
    let about = json!({
        "approver_plane": "subject", "approver_id": decision.by, "reason": decision.reason,
    });
    write_down(app, &hold, "step_up_decided", word, about);
    Ok(hold)
}

/// The claims of a good session mandate of the hold's zone.
fn proven(app: &App, hold: &Hold, token: &str, now: i64) -> Result<Arc<Claims>, Answer> {
    let bad = simple(401, "invalid_token", "the session mandate is not valid");
    let keys = app.keyring.zone(&hold.zone).ok_or(bad)?;
    let issuer = &app.config.issuer;
    let now = now.div_euclid(1_000);
    let expect = Expect { issuer, audience: issuer, zone: &hold.zone, uses: &[Use::Session], now, leeway: 0 };
    match verify(keys.keys.public(), token, &expect) {
        Ok(mandate) => Ok(Arc::clone(mandate.claims())),
        Err(_) => Err(bad),
    }
}

/// Whether this person may answer: a person, of the application that asks, in the class the tier names, the very one
/// the session acts for, or never that one where the tier says so, and not the authority that asked.
fn entitled(app: &App, hold: &Hold, claims: &Claims, now: i64) -> Result<Arc<AuthorityRecord>, Answer> {
    let denied = |text| simple(403, "access_denied", text);
    if claims.sub_type != SubjectType::User {
        return Err(denied("only a person may answer here"));
    }
    let record = app.state.live_record(&hold.zone, &claims.sid, now);
    let record = record.filter(|record| record.application == hold.application);
    let record = record.ok_or_else(|| denied("the mandate is of another application, or has ended"))?;
    if hold.approver == Approver::Operator {
        return Err(denied("this approval is an operator's"));
    }
    let another = hold.subject.as_ref().is_some_and(|subject| *subject != record.subject);
    match hold.self_approval {
        SelfApproval::Allowed if another => return Err(denied("this approval is another person's")),
        SelfApproval::Forbidden if asks(app, hold, &record.subject, now) => {
            return Err(denied("another person than the one the agent works for has to answer this"));
        }
        SelfApproval::Allowed | SelfApproval::Forbidden => {}
    }
    let kin = |asked: &Arc<str>| {
        let asked = app.state.record(&hold.zone, asked);
        let root = asked.as_ref().map_or(&hold.id, |asked| &asked.root);
        *root == record.root
    };
    if hold.record.as_ref().is_some_and(kin) {
        return Err(denied("whoever asks does not answer"));
    }
    Ok(record)
}

/// Whether this is the person who asks: the session, one above it, or one that handed authority down to it acts for that
/// person. A session below need not act for the person itself, and asks for the person all the same.
fn asks(app: &App, hold: &Hold, person: &str, now: i64) -> bool {
    let handed = hold.delegation.as_ref().map(|edge| app.state.lineage(&hold.zone, edge, now));
    let Some(handed) = handed.unwrap_or_else(|| Some(Vec::new())) else {
        // What does not stand any more cannot say whose it was.
        return true;
    };
    let sources = handed.iter().map(|edge| Arc::clone(&edge.source_session));
    let mut open: Vec<Arc<str>> = hold.session.iter().cloned().chain(sources).collect();
    while let Some(id) = open.pop() {
        let Some(session) = app.state.session(&hold.zone, &id) else { return true };
        let record = app.state.record(&hold.zone, &session.subject_record);
        let of_person = session.subject_kind == RecordKind::User;
        if of_person && record.is_none_or(|record| *record.subject == *person) {
            return true;
        }
        open.extend(session.parent.clone());
    }
    false
}

/// Who answered, as far as the tier lets it be known.
fn named(hold: &Hold, record: &AuthorityRecord) -> String {
    match hold.privacy {
        Privacy::Identified => format!("subject:{}", record.subject),
        Privacy::Pseudonymous => {
            let text = format!("{}\0{}", hold.zone, record.subject);
            let digest = caracal_mandates::digest(&text);
            let short = hex::encode(digest.get(..8).unwrap_or_default());
            format!("subject:pseudonym:{short}")
        }
        Privacy::Anonymous => "subject:redacted".to_owned(),
    }
}

fn find(app: &App, id: &str) -> Option<Arc<Hold>> {
    Uuid::parse_str(id).ok()?;
    app.state.find_hold(id)
}

fn lost(id: &RequestId) -> Response {
    answer(&simple(404, "resource_not_found", "there is no such approval"), id, None, None)
}

fn state(hold: &Hold, now: i64) -> String {
    json!({ "id": hold.id, "state": hold.state(now).as_str(), "expires_at": iso(hold.expires_at) })
        .to_string()
}
