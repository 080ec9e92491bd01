//! The security path of the gateway, top to bottom: from a head to a planned upstream request.
//!
//! Order: head, route, authenticate, then the ledger's places, capacity, mark, standing, decision. What is
//! refused before the mark does not burn a mandate; from the mark on it is burnt whatever happens.

use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use caracal_mandates::SubjectType;
use caracal_plugins::ScrubStream;
use caracal_policies::{McpCall, Permit, Resource, UpstreamProtocol};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, UPGRADE};
use pingora::http::RequestHeader;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::context::{Ctx, Forward, Governed, Pace, Refused, Settled};
use super::exact::Way;
use super::live::Membership;
use super::posted::{self, Form};
use super::record::{self, DecisionInput, Held, Identity, Open, ResultSoFar};
use super::slot::Bound;
use super::target::addressed;
use super::{burn, exact, finish, mcp, meter, search, spend};
use crate::app::App;
use crate::budgets::{Limited, Spending};
use crate::gate::authenticate::Source;
use crate::gate::authorize::Decided;
use crate::gate::concurrency::{Place, Queue};
use crate::gate::credential;
use crate::gate::exact::{Asking, ExactRefusal};
use crate::gate::forward::{self, Via};
use crate::gate::head::Head;
use crate::gate::refusal::Refusal;
use crate::gate::standing::{self, CurrentMandate};
use crate::gate::{self, Entered, authorize};
use crate::ledger::EarlyRefusal;
use crate::snapshot::Snapshot;

/// A recorded allow.
struct Allowed {
    permit: Permit,
    headers: Option<HeaderMap>,
    meter: Option<meter::Meter>,
    /// What a guard that holds it lets it pass on.
    way: Option<Way>,
}

/// Takes one request from its head to a planned upstream request, or says what its body has to be read as first.
pub(super) async fn govern(
    app: &App,
    header: &RequestHeader,
    peer: IpAddr,
    tls: bool,
    ctx: &Ctx,
) -> Result<ControlFlow<Form, Governed>, Refused> {
    let started = Instant::now();
    let snapshot = app.snapshot.load();
    let early = |refusal: Refusal| refused_early(app, refusal, peer);
    let (named, target) = addressed(header).ok_or_else(|| early(Refusal::PathMalformed))?;
    let head = Head {
        method: header.method.as_str(),
        target,
        authority: named.or_else(|| header.uri.authority().map(http::uri::Authority::as_str)),
        headers: &header.headers,
        peer,
        tls,
    };
    let entered = gate::enter(app, &snapshot, &head).map_err(|refusal| Refused {
        format: gate::error_format(&snapshot, &head),
        ..early(refusal).into()
    })?;
    if let Some(form) = posted::unread(&entered, &head, ctx) {
        return Ok(ControlFlow::Break(form));
    }
    let format = entered.matched.resource().map(|resource| resource.error_format).unwrap_or_default();
    let source = entered.source;
    let decided = decide(app, &snapshot, &head, &entered, ctx).await;
    let source = if source == Source::Hit { "hit" } else { "miss" };
    app.metrics.gate_seconds.with_label_values(&[source]).observe(started.elapsed().as_secs_f64());
    let allowed = decided.map_err(|refused| Refused { format, ..refused })?;
    go_on(app, &snapshot, &head, &entered, allowed, ctx).await.map(ControlFlow::Continue).map_err(|refusal| {
        finish::failed(&ctx.slot, &refusal);
        Refused { decision_id: ctx.slot.decision_id(), format, ..refusal.into() }
    })
}

/// From a recorded allow to where the request goes. A yes is used up last, when nothing of ours can fail any more.
async fn go_on(
    app: &App,
    snapshot: &Arc<Snapshot>,
    head: &Head<'_>,
    entered: &Entered<'_>,
    mut allowed: Allowed,
    ctx: &Ctx,
) -> Result<Governed, Refusal> {
    let approved = match allowed.way.take() {
        None => None,
        Some(Way::Approved(hold)) => Some(hold),
        Some(Way::Settled(hold, kept)) => {
            ctx.slot.note(|open| open.result.replayed = Some(Arc::clone(&hold.id)));
            let expires_in = entered.mandate.claims().exp.saturating_sub(app.clock.now_s());
            return Ok(Governed::Settled(Settled { hold, kept, expires_in }));
        }
    };
    let mut forward = plan(app, snapshot, head, entered, allowed, ctx).await?;
    if let Some(hold) = approved {
        let decision = ctx.slot.decision_id().ok_or(Refusal::Internal)?;
        forward.keeping = Some(Box::pin(exact::consume(app, &hold, &decision)).await?);
    }
    Ok(Governed::Forward(Box::new(forward)))
}

/// From a proven identity to the recorded decision.
async fn decide(
    app: &App,
    snapshot: &Snapshot,
    head: &Head<'_>,
    entered: &Entered<'_>,
    ctx: &Ctx,
) -> Result<Allowed, Refused> {
    let now = app.clock.now();
    let claims = entered.mandate.claims();
    let identity = identity(entered, head, ctx, now);
    let mut admission = app
        .ledger
        .admit(&identity.zone)
        .map_err(|_full| refused_early(app, Refusal::LedgerFull, head.peer))?;
    let mut input = DecisionInput {
        matched: &entered.matched,
        claims,
        head,
        // A mandate that stands in the path must not come into the ledger.
        path: if entered.misplaced { "" } else { entered.path.raw() },
        labels: Vec::new(),
        edge_scopes: Vec::new(),
        approved: false,
        facts: Value::Null,
        limited: None,
        answer: None,
        guards: Map::new(),
        held: None,
        generation: snapshot.generation,
    };
    match judge(app, head, entered, ctx, (&mut input, &identity.decision_id), now).await {
        Err((refusal, missing)) => {
            let event = record::decision(&identity, &input, None, Some(&refusal), now);
            // Its request is over with the answer, which is decided.
            drop(app.rehearsals.after(entered.matched.zone(), &event));
            admission.result(event);
            count_refusal(app, entered, refusal);
            let (decision_id, limited) = (Some(identity.decision_id), input.limited.take());
            let held = input.held.take().map(|held| held.hold);
            Err(Refused { decision_id, missing, limited, held, ..refusal.into() })
        }
        Ok(Judged { permit, headers, places, spending, membership, way }) => {
            let rule = permit.rule().to_string();
            let event = record::decision(&identity, &input, Some(rule), None, now);
            let rehearsed = app.rehearsals.after(entered.matched.zone(), &event);
            if admission.decide(event).await.is_err() {
                // What was queued is followed by an aborted result as the admission goes.
                count_refusal(app, entered, Refusal::LedgerFull);
                return Err(Refused {
                    decision_id: Some(identity.decision_id),
                    ..Refusal::LedgerFull.into()
                });
            }
            let result =
                ResultSoFar { secrets_generation: snapshot.secrets_generation, ..ResultSoFar::default() };
            let meter = spending.as_ref().and_then(|spending| meter::Meter::new(spending.metered()));
            ctx.slot.open(Open { admission, identity, result, places, spending, membership, rehearsed });
            Ok(Allowed { permit, headers, meter, way })
        }
    }
}

/// A permit with the places that its request holds.
struct Judged {
    permit: Permit,
    headers: Option<HeaderMap>,
    places: Vec<Place>,
    spending: Option<Spending>,
    membership: Membership,
    way: Option<Way>,
}

async fn judge(
    app: &App,
    head: &Head<'_>,
    entered: &Entered<'_>,
    ctx: &Ctx,
    (input, decision_id): (&mut DecisionInput<'_>, &str),
    now: i64,
) -> Result<Judged, (Refusal, Vec<Arc<str>>)> {
    let bare = |refusal: Refusal| (refusal, Vec::new());
    if entered.misplaced {
        return Err(bare(Refusal::TokenMisplaced));
    }
    let places = places(app, entered).await.map_err(bare)?;
    // Joined before standing is looked up, so that a revocation in between finds the request.
    let anchors = standing::anchors(entered.mandate.claims());
    ctx.slot.bind(Bound { zone: Arc::clone(entered.matched.zone().zone.id()), anchors, since: now });
    let membership = app.live.join(&ctx.slot);
    burn::burn(app, entered, now).await.map_err(bare)?;
    // The mark may have taken a while.
    let now = app.clock.now();
    if app.fleet.as_ref().is_some_and(|fleet| fleet.ended_elsewhere(entered.mandate.claims())) {
        return Err(bare(Refusal::Revoked));
    }
    let current = current(app, entered, now).await.map_err(bare)?;
    input.labels = current.session().map(|session| session.labels.clone()).unwrap_or_default();
    input.approved = current.approved();
    input.edge_scopes = current.delegation().map(|edge| edge.scopes.clone()).unwrap_or_default();
    if let Some(at) = deadline(&current, entered, now) {
        ctx.slot.end_at(at);
    }
    let mut seen = posted::seen(ctx, now.div_euclid(1_000)).map_err(bare)?;
    let mut outcome = authorize::decide(&entered.matched, &current, head, &entered.path, &seen);
    let mut way = None;
    if asks(&outcome, entered, head) {
        // Boxed, like the use of a yes: other requests do not carry the room for it.
        let found = Box::pin(approved(app, &outcome, entered, head, &current, (ctx, decision_id)));
        match found.await {
            Ok(found) => {
                input.held = Some(found.recorded());
                way = Some(found);
                seen.answered = true;
                outcome = authorize::decide(&entered.matched, &current, head, &entered.path, &seen);
            }
            Err((refusal, hold)) => {
                input.held = hold.map(|hold| Held { hold, again: false });
                outcome.result = Err(refusal);
            }
        }
    }
    input.facts = record::facts(&outcome.facts);
    input.answer = record::policy_answer(&outcome.result);
    input.guards = outcome.guards.recorded();
    finish::count_guards(app, &entered.matched, &outcome.guards);
    match outcome.result {
        Ok(permit) => {
            let charged = charge(app, entered, &permit, (&current, way.as_ref()), now).await;
            let spending = match charged {
                Ok(spending) => spending,
                Err((refusal, limited)) => {
                    input.limited = limited;
                    return Err(bare(refusal));
                }
            };
            let decided = Decided {
                zone: Arc::clone(entered.matched.zone().zone.id()),
                resource: Arc::clone(&permit.resource().identifier),
                current,
                method: head.method.to_owned(),
                target: outcome.target,
                call: seen.call.cloned(),
            };
            ctx.slot.permit(decided, input.generation);
            Ok(Judged { permit, headers: outcome.headers, places, spending, membership, way })
        }
        Err(refusal) => Err((refusal, outcome.missing)),
    }
}

/// Whether a person has to be asked about the very request, or it says that one was. Cost: one look where nobody can be.
fn asks(outcome: &authorize::Outcome, entered: &Entered<'_>, head: &Head<'_>) -> bool {
    let guards = entered.matched.resource().and_then(|resource| resource.guards.as_deref());
    let named = guards.is_some_and(|guards| guards.asks()) && exact::names_approval(head.headers);
    match &outcome.result {
        Ok(_) => named,
        Err(refusal) => matches!(refusal, Refusal::Exact(_)),
    }
}

/// What a request that the guards hold may pass on.
async fn approved(
    app: &App,
    outcome: &authorize::Outcome,
    entered: &Entered<'_>,
    head: &Head<'_>,
    current: &CurrentMandate,
    (ctx, decision_id): (&Ctx, &str),
) -> Result<Way, exact::Unapproved> {
    // What is approved is what a guard holds, and nothing else.
    let asked = &outcome.guards.asked;
    let resource = entered.matched.resource().filter(|_| !asked.is_empty());
    let resource = resource.ok_or_else(|| (ExactRefusal::Mismatch.into(), None))?;
    let claims = current.claims();
    let asking = Asking {
        zone: entered.matched.zone().zone.id(),
        resource,
        application: &claims.client_id,
        session: claims.agent_session_id.as_deref(),
        delegation: claims.delegation_edge_id.as_deref(),
        method: head.method,
        target: &outcome.target,
        headers: outcome.headers.as_ref().unwrap_or(head.headers),
        tool: posted::call(ctx).and_then(McpCall::tool),
        body: ctx.posted.as_ref().map(|posted| &*posted.body).unwrap_or_default(),
        asked,
    };
    exact::settle(app, &asking, current, head.headers, (ctx, decision_id)).await
}

/// Fetches the credential for the address that will be dialled and plans the upstream request.
async fn plan(
    app: &App,
    snapshot: &Arc<Snapshot>,
    head: &Head<'_>,
    entered: &Entered<'_>,
    allowed: Allowed,
    ctx: &Ctx,
) -> Result<Forward, Refusal> {
    let Allowed { permit, headers, meter, way: _ } = allowed;
    let resource = Arc::clone(permit.resource());
    declared_body_fits(head, &resource)?;
    let chain = entered.matched.zone().chains.get(&resource.identifier).filter(|chain| !chain.is_empty());
    let searches = chain.is_some_and(|chain| chain.scrubs_bodies());
    let upgrade = head.headers.contains_key(UPGRADE);
    if upgrade && (searches || resource.protocol == UpstreamProtocol::Http2) {
        return Err(Refusal::UpgradeRefused);
    }
    let mut addresses = app.egress.upstream(&resource).await?;
    let zone = entered.matched.zone().zone.id();
    app.targets.order(&mut addresses, &app.health.unwell(zone, &resource), app.clock.now());
    // Secrets travel unencrypted on this host only: one address elsewhere, and they do not.
    let farthest = addresses.iter().map(SocketAddr::ip).min_by_key(IpAddr::is_loopback);
    let farthest = farthest.ok_or(Refusal::UpstreamFailed)?;
    let claims = entered.mandate.claims();
    ctx.slot.note(|open| {
        open.result.upstream = Some(resource.upstream.authority());
        open.result.auth_mode = Some(record::auth_mode(&resource));
        open.result.secrets = record::secrets(&resource, &snapshot.secrets);
        open.result.provider = resource.provider.as_ref().map(|provider| Arc::clone(&provider.id));
    });
    let secured = app.secured.find(&app.egress, snapshot, zone, &resource, farthest)?;
    let credential = credential::lookup(app, snapshot, &permit, claims, farthest).await?;
    record::credential(&ctx.slot, &credential);
    let via =
        Via { peer: head.peer, tls: head.tls, host: entered.matched.host(), request_id: &ctx.request_id };
    let mut planned =
        forward::plan(permit, &credential, head, headers.as_ref(), entered.shown.token(), &via)?;
    posted::plan(&resource, ctx, &mut planned)?;
    let scopes = claims.scope.as_deref().unwrap_or_default();
    let watched = mcp::plan(&resource, head.headers, scopes, ctx, &mut planned)?;
    if searches || meter.is_some() {
        planned.ask_plainly();
    }
    let starts = |name: HeaderName, start: &[u8]| {
        head.headers.get(name).is_some_and(|value| value.as_bytes().starts_with(start))
    };
    let pace = match (starts(ACCEPT, b"text/event-stream"), starts(CONTENT_TYPE, b"application/grpc")) {
        (true, _) => Pace::Events,
        (false, true) => Pace::Grpc,
        (false, false) => Pace::Steady,
    };
    let injected = credential.injects();
    let scrubber = credential.scrubber.or_else(|| search::scrubber(&credential.searched));
    Ok(Forward {
        head: planned,
        addresses,
        ride: None,
        secured,
        scrubber,
        searching: searches.then(ScrubStream::default),
        watched,
        meter,
        chain: chain.cloned(),
        injected,
        held: credential.held,
        searched: credential.searched,
        snapshot: Arc::clone(snapshot),
        zone: Arc::clone(zone),
        expires_in: claims.exp.saturating_sub(app.clock.now_s()),
        pace,
        upgrade,
        keeping: None,
        resource,
    })
}

/// The standing of the mandate. In a fleet, what is not known here may have been given out by another node a
/// moment ago.
async fn current(app: &App, entered: &Entered<'_>, now: i64) -> Result<CurrentMandate, Refusal> {
    match standing::check(&app.state, entered.mandate.clone(), now) {
        Err(Refusal::NotStanding) if app.state.in_fleet() => {
            app.state.catch_up().await;
            standing::check(&app.state, entered.mandate.clone(), app.clock.now())
        }
        outcome => outcome,
    }
}

/// What the call takes from budgets. One that is only told once more takes nothing.
async fn charge(
    app: &App,
    entered: &Entered<'_>,
    permit: &Permit,
    (current, way): (&CurrentMandate, Option<&Way>),
    now: i64,
) -> Result<Option<Spending>, (Refusal, Option<Box<Limited>>)> {
    if matches!(way, Some(Way::Settled(..))) {
        return Ok(None);
    }
    spend::charge(app, &entered.matched.zone().zone, permit.resource(), current, now).await
}

async fn places(app: &App, entered: &Entered<'_>) -> Result<Vec<Place>, Refusal> {
    let zone = &entered.matched.zone().zone;
    let client = &entered.mandate.claims().client_id;
    // An application that left the bundle has no authority, whatever it still carries.
    let application = zone.application(client).ok_or(Refusal::Revoked)?;
    let caps = app.in_flight.enter(zone.id(), client, application.max_concurrent);
    let mut places = vec![caps.ok_or(Refusal::ApplicationBusy)?];
    if let Some(resource) = entered.matched.resource() {
        let limits = &resource.limits;
        let queue = Queue { most: limits.max_waiting, longest: limits.max_wait };
        let (zone, name, cap) = (zone.id(), &resource.identifier, limits.max_concurrent);
        let place = app.in_flight.enter_or_wait(zone, name, cap, queue).await;
        places.push(place.ok_or(Refusal::ResourceBusy)?);
    }
    Ok(places)
}

fn deadline(current: &CurrentMandate, entered: &Entered<'_>, now: i64) -> Option<i64> {
    let longest = entered.matched.resource().map(|resource| {
        now.saturating_add(i64::try_from(resource.limits.max_stream.as_millis()).unwrap_or(i64::MAX))
    });
    current.ends_at().into_iter().chain(longest).min()
}

fn refused_early(app: &App, refusal: Refusal, peer: IpAddr) -> Refusal {
    app.ledger.refuse_early(EarlyRefusal { code: refusal.label(), listener: "gateway", peer });
    app.metrics.requests.with_label_values(&["", "", refusal.label()]).inc();
    refusal
}

fn count_refusal(app: &App, entered: &Entered<'_>, refusal: Refusal) {
    // Only names from bundles become labels; a name the zone does not have is the caller's own text.
    let resource = entered.matched.resource().map_or("", |resource| &resource.identifier);
    let zone = entered.matched.zone().zone.id();
    app.metrics.requests.with_label_values(&[&**zone, resource, refusal.label()]).inc();
}

fn declared_body_fits(head: &Head<'_>, resource: &Resource) -> Result<(), Refusal> {
    let declared = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let declared = declared.and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    if declared > resource.limits.max_request_bytes { Err(Refusal::BodyTooLarge) } else { Ok(()) }
}

fn identity(entered: &Entered<'_>, head: &Head<'_>, ctx: &Ctx, now: i64) -> Identity {
    let claims = entered.mandate.claims();
    Identity {
        zone: Arc::clone(entered.matched.zone().zone.id()),
        resource: entered.matched.named().into(),
        application: claims.client_id.as_str().into(),
        request_id: ctx.own_id.clone(),
        client_request_id: ctx.client_request_id.clone(),
        decision_id: Uuid::now_v7().to_string(),
        fingerprint: record::fingerprint(entered.mandate.digest()),
        method: head.method.to_owned(),
        call: posted::call(ctx).cloned(),
        user: claims.sub_type == SubjectType::User,
        started_at: now,
    }
}
