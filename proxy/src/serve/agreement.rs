//! Whether store and ledger belong together, and what is done when somebody says that they are from a backup.

use serde_json::{Map, json};
use uuid::Uuid;

use super::{ServeError, ServeOptions, start_error};
use crate::clock::Clock;
use crate::keyring::Keyring;
use crate::ledger::{Event, Ledger, SYSTEM};
use crate::state::State;

/// Refuses to go on with a store or a ledger of which one was brought back; with both brought back nobody can
/// tell, which is why `--accept-restored` acts whether or not anything was noticed.
pub(super) async fn agree(
    state: &State,
    ledger: &Ledger,
    keyring: &Keyring,
    clock: &Clock,
    options: ServeOptions,
) -> Result<(), ServeError> {
    ledger.flush().await.map_err(start_error)?;
    let mut heads = ledger.heads();
    let mismatch = mismatch(state, ledger)?;
    if options.accept_restored {
        let why = mismatch.unwrap_or_else(|| "the operator says so".to_owned());
        tracing::warn!(why, "going on after a restore: all sessions end, all keys are replaced");
        state.end_everything("restored").await.map_err(start_error)?;
        keyring.retire_all(clock.now()).map_err(start_error)?;
        ledger.event(accepted(&why, clock.now())).map_err(start_error)?;
        for (zone, _, _) in state.stored_heads() {
            if !heads.iter().any(|(known, _, _)| *known == zone) {
                heads.push((zone, 0, String::new()));
            }
        }
    } else if let Some(mismatch) = mismatch {
        return Err(ServeError::Restored(mismatch));
    }
    // Before anything is served: from here on a copy of the store that is older than this start can be told.
    state.store_heads(&heads).await.map_err(start_error)
}

fn mismatch(state: &State, ledger: &Ledger) -> Result<Option<String>, ServeError> {
    let stored = state.stored_heads();
    for (zone, seq, hash) in &stored {
        // Number 0 stands for a chain that was given up after a restore.
        if *seq > 0 && !ledger.contains(zone, *seq, hash).map_err(start_error)? {
            return Ok(Some(format!(
                "the store knows record {seq} of `{zone}`, which the ledger does not have"
            )));
        }
    }
    let known = stored.iter().find(|(zone, _, _)| zone == SYSTEM).map_or(0, |(_, seq, _)| *seq);
    let unknown = ledger.earlier_run_after(known).map_err(start_error)?;
    Ok(unknown.map(|seq| {
        format!("the ledger has a whole run of the edge, from record {seq} of `{SYSTEM}`, of which the store knows nothing")
    }))
}

fn accepted(why: &str, now: i64) -> Event {
    let mut metadata = Map::new();
    metadata.insert("reason".into(), json!(why));
    Event {
        id: Uuid::now_v7().to_string(),
        zone_id: SYSTEM.to_owned(),
        event_type: "restore_accepted",
        decision: "allow",
        evaluation_status: "complete".to_owned(),
        metadata,
        occurred_at: now,
        ..Event::default()
    }
}
