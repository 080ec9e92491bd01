//! Uses up a single-use mandate: from here on it is gone, whatever happens next.

use caracal_mandates::Claims;

use crate::app::App;
use crate::fleet::MarkRefused;
use crate::gate::Entered;
use crate::gate::authenticate::LEEWAY_S;
use crate::gate::refusal::Refusal;
use crate::state::MarkError;

/// Longest life of a reusable mandate, in seconds.
const MAX_REUSABLE_S: i64 = 900;

/// Marks a single-use mandate as used, in the whole fleet where there is one. A reusable one needs the
/// resource's consent and the signed claim.
pub(super) async fn burn(app: &App, entered: &Entered<'_>, now: i64) -> Result<(), Refusal> {
    let claims = entered.mandate.claims();
    let epoch = claims.epoch.as_deref().ok_or(Refusal::EpochGone)?;
    if claims.reusable && may_be_reused(entered, claims) {
        return match &app.fleet {
            Some(fleet) => fleet.accepts(epoch).await.map_err(unmarked),
            None => accepted(app, epoch),
        };
    }
    let keep_until = claims.exp.saturating_add(LEEWAY_S).saturating_mul(1_000).max(now);
    match &app.fleet {
        // Known to be away: nothing was used up, so the same mandate may be tried again.
        Some(fleet) if !fleet.connected() => return Err(Refusal::MarksUnavailable),
        Some(_) => {}
        None => accepted(app, epoch)?,
    }
    // In a fleet too: it costs no round trip, and bounds what one application may fill Redis with.
    let used = app.state.use_once(&claims.zone_id, &claims.jti, &claims.client_id, keep_until);
    app.claims.forget(&entered.mandate);
    used.map_err(|error| match error {
        MarkError::Replayed => Refusal::Replayed,
        MarkError::Capacity => Refusal::MarksFull,
        MarkError::Stopping => Refusal::Restarting,
    })?;
    match &app.fleet {
        Some(fleet) => {
            fleet.use_once(&claims.zone_id, &claims.jti, epoch, keep_until).await.map_err(unmarked)
        }
        None => Ok(()),
    }
}

fn accepted(app: &App, epoch: &str) -> Result<(), Refusal> {
    if app.state.accepts_epoch(epoch) { Ok(()) } else { Err(Refusal::EpochGone) }
}

fn unmarked(refused: MarkRefused) -> Refusal {
    match refused {
        MarkRefused::Replayed => Refusal::Replayed,
        MarkRefused::EpochGone => Refusal::EpochGone,
        MarkRefused::Unavailable => Refusal::MarksUnavailable,
    }
}

fn may_be_reused(entered: &Entered<'_>, claims: &Claims) -> bool {
    entered.matched.resource().is_some_and(|resource| resource.reusable_mandates)
        && claims.exp.saturating_sub(claims.iat) <= MAX_REUSABLE_S
        && claims.target.len() == 1
}
