//! Claims, record, signature.

use std::sync::Arc;

use caracal_mandates::{ChainHop, Claims, SubjectType, Use, VerifiedMandate, new_jti};
use caracal_policies::Resource;

use super::super::approvals::{Grounds, Unapproved};
use super::super::form::UseCount;
use super::super::refused::Refused;
use super::{Asked, Held, HeldDelegation};
use crate::state::{AuthorityRecord, RecordKind};

/// A signed mandate whose record is in force.
pub(in super::super) struct Issued {
    pub(in super::super) token: String,
    pub(in super::super) mandate: VerifiedMandate,
    /// Generation of the zone's keys it was signed under.
    pub(in super::super) key_generation: u64,
    /// Seconds.
    pub(in super::super) expires_in: i64,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("mandate", &self.mandate).finish_non_exhaustive()
    }
}

/// Signs the mandate and makes its record known: durable for mandates that are used more than once, in memory
/// for single-use ones (after a crash those are unknown, and unknown is refused).
///
/// # Errors
/// [`Refused::NoKeys`], [`Refused::Signing`], [`Refused::Store`].
pub(super) async fn issue(
    asked: &Asked<'_>,
    held: &Held,
    resources: &[Arc<Resource>],
    use_count: UseCount,
    ttl: i64,
    grounds: &Grounds,
) -> Result<Issued, Refused> {
    put_in_force(asked, claims(asked, held, resources, use_count, ttl), grounds).await
}

/// Signs the session mandate of a person, without scope or target: it only proves who a session acts for.
///
/// # Errors
/// As [`issue`].
pub(in super::super) async fn issue_to_user(
    asked: &Asked<'_>,
    subject: &str,
    ttl: i64,
) -> Result<Issued, Refused> {
    let claims = Claims { sub: subject.to_owned(), ..base(asked, Use::Session, SubjectType::User, ttl) };
    put_in_force(asked, claims, &Grounds::Policy).await
}

async fn put_in_force(asked: &Asked<'_>, claims: Claims, grounds: &Grounds) -> Result<Issued, Refused> {
    let Asked { app, zone, application, now, .. } = *asked;
    let keys = app.keyring.zone(zone.zone.id()).ok_or(Refused::NoKeys)?;
    let claims = match grounds {
        Grounds::Again(_, record) => on_record(claims, record),
        Grounds::Policy | Grounds::Approved(_) => claims,
    };
    let expires_in = claims.exp.saturating_sub(claims.iat);
    let record = AuthorityRecord {
        id: claims.sid.as_str().into(),
        zone: Arc::clone(zone.zone.id()),
        subject: claims.sub.as_str().into(),
        application: Arc::clone(&application.id),
        root: claims.root_sid.as_str().into(),
        parent: None,
        kind: match claims.sub_type {
            SubjectType::User => RecordKind::User,
            SubjectType::Application => RecordKind::Application,
        },
        issued_at: now,
        expires_at: claims.exp.saturating_mul(1_000),
        revoked: false,
        approved: matches!(grounds, Grounds::Approved(_)),
    };
    // What is used once need not outlive a crash, but another node of a fleet may be the one that meets it.
    let passing = claims.use_ == Use::Gateway && !claims.reusable && !app.state.in_fleet();
    let minted = keys.keys.mint(claims).map_err(|error| {
        tracing::error!(zone = %zone.zone.id(), %error, "a mandate could not be signed");
        Refused::Signing
    })?;
    let stored = match grounds {
        Grounds::Again(..) => Ok(()),
        Grounds::Approved(hold) => match app.state.use_hold(&hold.zone, &hold.id, record).await {
            Err(lost) if lost.source.is_none() => return Err(Unapproved::Consumed.into()),
            outcome => outcome.map(drop).map_err(|error| error.to_string()),
        },
        Grounds::Policy if passing => {
            app.state.remember_record(record);
            Ok(())
        }
        Grounds::Policy => app.state.insert_record(record).await.map_err(|error| error.to_string()),
    };
    stored.map_err(|error| {
        tracing::error!(zone = %zone.zone.id(), error, "an authority record could not be stored");
        Refused::Store
    })?;
    Ok(Issued { token: minted.token, mandate: minted.mandate, key_generation: keys.generation, expires_in })
}

/// Claims that stand on a record which is there already, and last no longer than it does.
fn on_record(claims: Claims, record: &AuthorityRecord) -> Claims {
    Claims {
        sid: record.id.to_string(),
        root_sid: record.root.to_string(),
        exp: claims.exp.min(record.expires_at.div_euclid(1_000)),
        ..claims
    }
}

fn claims(
    asked: &Asked<'_>,
    held: &Held,
    resources: &[Arc<Resource>],
    use_count: UseCount,
    ttl: i64,
) -> Claims {
    let Asked { app, form, .. } = *asked;
    let use_ = if held.delegation.is_some() { Use::Gateway } else { Use::Session };
    let base = Claims {
        scope: (!form.scopes.is_empty()).then(|| form.scopes.join(" ")),
        target: resources.iter().map(|resource| resource.identifier.to_string()).collect(),
        agent_session_id: held.session.as_ref().map(|session| session.id.to_string()),
        ..base(asked, use_, SubjectType::Application, ttl)
    };
    let Some(delegation) = &held.delegation else { return base };
    let edge = delegation.edge();
    Claims {
        delegation_edge_id: Some(edge.id.to_string()),
        source_session_id: Some(edge.source_session.to_string()),
        target_session_id: Some(edge.target_session.to_string()),
        delegation_path: delegation.lineage().iter().map(|edge| edge.id.to_string()).collect(),
        delegation_chain: chain(delegation),
        hop_count: u32::try_from(delegation.lineage().len()).unwrap_or(u32::MAX),
        delegation_graph_epoch: delegation.graph_epoch,
        epoch: Some(app.epoch()),
        reusable: use_count == UseCount::Reusable,
        ..base
    }
}

/// What every mandate of this endpoint carries. It is the root of its lineage, and its subject is the application.
fn base(asked: &Asked<'_>, use_: Use, sub_type: SubjectType, ttl: i64) -> Claims {
    let Asked { app, zone, application, now, .. } = *asked;
    let issued_at = now.div_euclid(1_000);
    let sid = new_jti(now);
    Claims {
        iss: app.config.issuer.clone(),
        sub: application.id.to_string(),
        aud: vec![app.config.issuer.clone()],
        exp: issued_at.saturating_add(ttl),
        iat: issued_at,
        jti: new_jti(now),
        zone_id: zone.zone.id().to_string(),
        client_id: application.id.to_string(),
        root_sid: sid.clone(),
        sid,
        ..Claims::empty(use_, sub_type)
    }
}

/// The issuers from the root down, then the receiver.
pub(in super::super) fn chain(delegation: &HeldDelegation) -> Vec<ChainHop> {
    let edge = delegation.edge();
    let receiver = ChainHop {
        application_id: edge.receiver_application.to_string(),
        agent_session_id: Some(edge.target_session.to_string()),
        delegation_edge_id: None,
    };
    delegation
        .lineage()
        .iter()
        .map(|edge| ChainHop {
            application_id: edge.issuer_application.to_string(),
            agent_session_id: Some(edge.source_session.to_string()),
            delegation_edge_id: Some(edge.id.to_string()),
        })
        .chain([receiver])
        .collect()
}
