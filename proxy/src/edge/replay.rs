//! A request that the upstream answered with 401 because its access token was no longer good.

use pingora::prelude::{Error, ErrorType, Result};

use super::context::{Ctx, Forward, Replay};
use super::{record, search};
use crate::app::App;
use crate::broker::Order;
use crate::gate::credential;

/// Gives up the token, and where nothing was sent that cannot be sent again, gets a fresh one and asks for a second
/// attempt by the error it returns. A 401 says that the request was not carried out; the method does not matter.
///
/// Without a second attempt the caller gets the 401, and the next request a fresh token.
pub(super) async fn rejected(app: &App, ctx: &mut Ctx, bodiless: bool) -> Result<()> {
    let Some(forward) = &mut ctx.forward else { return Ok(()) };
    let Some(held) = &forward.held else { return Ok(()) };
    let gone = held.rejected(app.clock.now());
    if !gone || !bodiless || ctx.slot.received() > 0 || ctx.replay != Replay::Not {
        return Ok(());
    }
    let Some(credential) = fresh(app, forward).await else { return Ok(()) };
    ctx.replay = Replay::Due;
    record::credential(&ctx.slot, &credential);
    Error::e_explain(ErrorType::Custom("TokenRejected"), "the upstream did not take the access token")
}

/// Puts a fresh token in place of the one that was rejected.
async fn fresh(app: &App, forward: &mut Forward) -> Option<credential::Credential> {
    let provider = forward.resource.provider.as_ref()?;
    let rejected = forward.held.as_ref()?;
    let order = credential::order(&forward.snapshot, &forward.zone, provider).ok()?;
    let order = Order { connection: rejected.connection.clone(), ..order };
    let held = app.broker.token(&order).await.ok()?;
    // A connection that cannot be renewed has no other one.
    if held.token.fingerprint == rejected.token.fingerprint {
        return None;
    }
    let fresh = credential::with_token(provider.service_token()?, held).ok()?;
    let (name, value) = fresh.header.as_ref()?;
    let (_, sent) = forward.head.set.iter_mut().rev().find(|(sent, _)| sent == name)?;
    sent.clone_from(value);
    forward.held.clone_from(&fresh.held);
    // The first one is still looked for: an upstream may repeat it.
    forward.searched.extend(fresh.searched.iter().cloned());
    forward.scrubber = search::scrubber(&forward.searched);
    Some(fresh)
}
