//! Creating, walking and taking back delegations.

mod judging;
mod walking;

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::again::Again;
use super::caller::Caller;
use super::desk::Desk;
use super::error::{CoordinatorError, StateError};
use super::json::{iso, object};
use super::model::{Constraints, Delegation, DelegationStatus};
use super::narrowing::Draft;
use super::receipts::{self, IdempotencyKey, Known, Operation, Underway};
use super::sessions::Step;
use super::shared::{Narrowing, new_id};
use super::store::{ReceiptId, Write};
use super::writer::Intent;
use super::{State, Zone};

pub use walking::{Impact, Reach, Revoked};

/// The resources of the zone, as its compiled bundle has them.
pub trait ResourceCatalog: Sync {
    /// The resource with this identifier or row id.
    fn find(&self, identifier_or_id: &str) -> Option<ResourceInfo>;
}

/// What a delegation needs to know of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceInfo {
    /// Row id.
    pub id: Arc<str>,
    /// Identifier.
    pub identifier: Arc<str>,
    /// Scopes it declares.
    pub scopes: Vec<Arc<str>>,
}

/// A request to create a delegation; shapes are already checked, constraints read by [`Constraints::parse`].
#[derive(Clone, Debug)]
pub struct CreateDelegation {
    /// Zone of both sessions.
    pub zone: Arc<str>,
    /// Who asks.
    pub caller: Caller,
    /// The session that gives.
    pub source_session: Arc<str>,
    /// The session that receives.
    pub target_session: Arc<str>,
    /// Application of the source session.
    pub issuer_application: Arc<str>,
    /// Application of the target session.
    pub receiver_application: Arc<str>,
    /// The delegation to cut from, when the source holds several.
    pub parent: Option<Arc<str>>,
    /// Identifier or row id of the one resource it is good for.
    pub resource: Option<String>,
    /// What it hands over.
    pub scopes: Vec<Arc<str>>,
    /// What narrows it.
    pub constraints: Constraints,
    /// Unix milliseconds.
    pub expires_at: Option<i64>,
    /// 1 to 86,400.
    pub ttl_seconds: Option<u32>,
    /// From the `Idempotency-Key` header.
    pub idempotency: Option<IdempotencyKey>,
}

/// A created delegation.
#[derive(Clone, Debug)]
pub struct Delegated {
    /// The delegation.
    pub delegation: Arc<Delegation>,
    /// The 201 body; on a replay, as it was the first time.
    pub response: Value,
    /// Whether this is the answer to an earlier request under the same key.
    pub replayed: bool,
}

impl State {
    /// Creates a delegation: judged in the order of the coordinator's contract, visible after its commit. The
    /// zone's graph epoch stays as it is.
    ///
    /// # Errors
    /// [`CoordinatorError`] with the code of the first condition that fails, or 503 when the commit does.
    pub async fn create_delegation(
        &self,
        mut request: CreateDelegation,
        catalog: &dyn ResourceCatalog,
    ) -> Result<Delegated, CoordinatorError> {
        let broad = request.check_shape()?;
        let zone = self.zone(&request.zone);
        let mut again = Again::default();
        loop {
            match self.begin_delegation(&zone, &request, broad, catalog)? {
                Step::Wait(mut done) => drop(done.changed().await),
                Step::Replay { id, result } => return self.replay_delegation(id, &result).await,
                Step::Committing(answer) => {
                    let outcome = answer.await.unwrap_or(Err(StateError::Closed.into()));
                    if !again.should(&outcome) {
                        return outcome;
                    }
                }
            }
        }
    }

    fn begin_delegation(
        &self,
        zone: &Arc<Zone>,
        request: &CreateDelegation,
        broad: Breadth,
        catalog: &dyn ResourceCatalog,
    ) -> Result<Step<Delegated>, CoordinatorError> {
        let now = self.shared.clock.now();
        let mut desk = zone.desk.lock();
        desk.settle(now);
        let mut writes = Vec::new();
        let mut receipt = None;
        if let Some(key) = &request.idempotency {
            let id = self.receipt_id(zone, Operation::DelegationCreate, &request.issuer_application, key);
            match desk.look_up(id, key, now)? {
                Known::Underway(done) => return Ok(Step::Wait(done)),
                Known::Answered { id, result } => {
                    return if desk.delegations.get(&result).is_some_and(|edge| edge.live(now)) {
                        Ok(Step::Replay { id, result })
                    } else {
                        Err(receipts::inactive())
                    };
                }
                Known::New { id, forgotten } => {
                    writes.extend(forgotten.into_iter().map(Write::ForgetReceipt));
                    receipt = Some((id, key));
                }
            }
        }
        let judged = desk.judge_delegation(request, catalog, now)?;
        let response = judged.response(broad, catalog);
        let delegation = Arc::new(judged.delegation);
        desk.underway.insert(Arc::clone(&delegation.id), Arc::clone(&delegation));
        writes.push(Write::Delegation(Arc::clone(&delegation)));
        let underway =
            receipt.map(|(id, key)| desk.receipts.reserve(id, key, Arc::clone(&delegation.id), now));
        writes.extend(underway.iter().map(|underway| underway.write(&response)));
        let (tell, told) = oneshot::channel();
        let zone = Arc::clone(zone);
        let made = Delegated { delegation, response, replayed: false };
        self.shared.queue.send(
            writes,
            Intent::Widen,
            Box::new(move |outcome| {
                drop(tell.send(zone.finish_delegation(made, underway.as_ref(), outcome)))
            }),
        );
        Ok(Step::Committing(told))
    }

    async fn replay_delegation(&self, id: ReceiptId, result: &str) -> Result<Delegated, CoordinatorError> {
        let delegation = self.delegation(&id.zone, result);
        let response = self.recorded(id).await?;
        let delegation = delegation.ok_or_else(receipts::inactive)?;
        Ok(Delegated { delegation, response, replayed: true })
    }
}

impl Zone {
    /// Runs on the writer; see the start of a session for why it looks again.
    fn finish_delegation(
        &self,
        made: Delegated,
        underway: Option<&Underway>,
        outcome: Result<(), StateError>,
    ) -> Result<Delegated, CoordinatorError> {
        let mut desk = self.desk.lock();
        desk.underway.remove(&made.delegation.id);
        if let Err(failed) = outcome {
            if let Some(underway) = underway {
                desk.receipts.abandoned(underway);
            }
            return Err(failed.into());
        }
        if let Some(underway) = underway {
            desk.receipts.answered(underway);
        }
        let now = desk.shared.clock.now();
        let overtaken = desk.delegation_overtaken(&made.delegation, now);
        desk.place_delegation(Arc::clone(&made.delegation));
        let Some(refusal) = overtaken else { return Ok(made) };
        let mut narrowing = Narrowing::default();
        desk.revoke([Arc::clone(&made.delegation.id)], now, &mut narrowing);
        drop(desk.shared.narrow(&desk.zone, "overtaken", &mut narrowing));
        Err(refusal)
    }
}

impl Desk {
    fn delegation_overtaken(&self, edge: &Delegation, now: i64) -> Option<CoordinatorError> {
        let stands = |id: &Arc<str>| {
            self.sessions.get(id).is_some_and(|session| self.shared.session_stands(session, now))
        };
        if !stands(&edge.source_session) || !stands(&edge.target_session) {
            return Some(CoordinatorError::new(404, "delegation_endpoint_not_found"));
        }
        let parent = edge.parent.as_ref().map(|id| self.delegations.get(id));
        let gone = parent.is_some_and(|parent| !parent.is_some_and(|parent| parent.live(now)));
        gone.then(|| CoordinatorError::new(403, "parent_delegation_not_active"))
    }
}

/// Whether a delegation names what it is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Breadth {
    Resources,
    Everything,
}

/// A delegation that may be made, and what was looked at to find that out.
struct Judged {
    delegation: Delegation,
    considered: Vec<Arc<str>>,
}

impl Judged {
    /// The 201 body.
    fn response(&self, broad: Breadth, catalog: &dyn ResourceCatalog) -> Value {
        let edge = &self.delegation;
        let wide = broad == Breadth::Everything;
        let fixed = edge.resource_id.as_ref().and_then(|id| catalog.find(id));
        let resources = match fixed {
            Some(resource) => vec![resource.identifier],
            None => edge.constraints.resources.clone(),
        };
        let scope_reason = if wide { "broad_delegation_elevated" } else { "resource_scope_checked" };
        let root_reason =
            if edge.parent.is_some() { "parent_authority_narrowed" } else { "source_authority_root" };
        let warnings: &[&str] =
            if wide { &["resource_null_delegation_broadens_resource_matching"] } else { &[] };
        let mut body = object(edge.to_json());
        body.remove("id");
        body.insert("warnings".into(), json!(warnings));
        body.insert(
            "allow_reason".into(),
            json!(["same_zone_endpoints_active", scope_reason, root_reason, "typed_constraints_validated"]),
        );
        body.insert(
            "effective_authority".into(),
            json!({
                "source_session_id": edge.source_session,
                "target_session_id": edge.target_session,
                "parent_edge_id": edge.parent,
                "resource_id": edge.resource_id,
                "resources": resources,
                "scopes": edge.scopes,
                "expires_at": iso(edge.expires_at),
                "max_hops": edge.constraints.hops(),
                "ttl_seconds": edge.constraints.ttl_seconds,
                "broad": wide,
                "parent_edges_considered": self.considered,
            }),
        );
        Value::Object(body)
    }
}

fn new_delegation(
    request: &CreateDelegation,
    draft: &Draft,
    parent: Option<&Delegation>,
    expires_at: i64,
    now: i64,
) -> Delegation {
    Delegation {
        id: new_id(now),
        zone: Arc::clone(&request.zone),
        source_session: Arc::clone(&request.source_session),
        target_session: Arc::clone(&request.target_session),
        issuer_application: Arc::clone(&request.issuer_application),
        receiver_application: Arc::clone(&request.receiver_application),
        parent: parent.map(|parent| Arc::clone(&parent.id)),
        resource_id: draft.resource.as_ref().map(|resource| Arc::clone(&resource.id)),
        scopes: draft.scopes.clone(),
        constraints: draft.constraints.clone(),
        status: DelegationStatus::Active,
        expires_at,
        version: 1,
        created_at: now,
        revoked_at: None,
    }
}
