//! The mandate an upstream gets: minted for one request, good for one audience.

use std::sync::Arc;

use caracal_mandates::{Claims, SubjectType, Use, new_jti};
use caracal_policies::Resource;

use crate::app::App;
use crate::state::{AuthorityRecord, RecordKind};

/// Lifetime in seconds, cut to what the presented mandate has left.
const RESOURCE_TTL_S: i64 = 60;

/// Why no resource mandate could be minted. A fault of ours, never the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintFault {
    /// The zone has no signing key.
    #[error("the zone has no signing key")]
    NoKeys,
    /// The presented mandate has no time left.
    #[error("the presented mandate has no time left")]
    NoTimeLeft,
    /// The signature failed, or the claims are too long for a mandate.
    #[error("the mandate could not be signed")]
    Signing,
    /// This host's clock cannot be relied on.
    #[error("the clock cannot be relied on")]
    Clock,
}

/// Mints the `use=resource` mandate for `resource` under the presented mandate; `now` is unix milliseconds.
///
/// Its authority record is kept in memory under the presented mandate's root, so that a revocation of the root
/// reaches it. No listener of ours accepts it. Cost: one signature, one record; no I/O.
///
/// # Errors
/// [`MintFault`].
pub fn mint_resource(app: &App, parent: &Claims, resource: &Resource, now: i64) -> Result<String, MintFault> {
    if !app.clock.healthy() {
        return Err(MintFault::Clock);
    }
    let keys = app.keyring.zone(&parent.zone_id).ok_or(MintFault::NoKeys)?;
    let issued_at = now.div_euclid(1_000);
    let ttl = RESOURCE_TTL_S.min(parent.exp.saturating_sub(issued_at));
    if ttl <= 0 {
        return Err(MintFault::NoTimeLeft);
    }
    let sid = new_jti(now);
    let identifier = resource.identifier.to_string();
    let claims = Claims {
        aud: vec![identifier.clone()],
        target: vec![identifier],
        exp: issued_at.saturating_add(ttl),
        iat: issued_at,
        jti: new_jti(now),
        sid: sid.clone(),
        use_: Use::Resource,
        delegation_graph_epoch: app.state.graph_epoch(&parent.zone_id),
        epoch: None,
        reusable: false,
        ..parent.clone()
    };
    let record = AuthorityRecord {
        id: sid.into(),
        zone: parent.zone_id.as_str().into(),
        subject: parent.sub.as_str().into(),
        application: parent.client_id.as_str().into(),
        root: parent.root_sid.as_str().into(),
        parent: Some(Arc::from(parent.sid.as_str())),
        kind: match parent.sub_type {
            SubjectType::User => RecordKind::User,
            SubjectType::Application => RecordKind::Application,
        },
        issued_at: now,
        expires_at: claims.exp.saturating_mul(1_000),
        revoked: false,
        approved: false,
    };
    let minted = keys.keys.mint(claims).map_err(|error| {
        tracing::error!(zone = %parent.zone_id, %error, "a resource mandate could not be signed");
        MintFault::Signing
    })?;
    app.state.remember_record(record);
    Ok(minted.token)
}
