//! Following what other nodes say: each node reads every stream with a cursor of its own.
//!
//! A node that may have missed something (it starts, Redis lost the streams, or they were trimmed past its
//! cursor) takes the whole list of dead anchors before it goes on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use caracal_mandates::resource_server::{EPOCH_PREFIX, REVOKED_PREFIX, SUSPENDED_PREFIX};
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamId, StreamReadReply};
use redis::{ErrorKind, RedisError, Value, cmd, pipe};

use super::announce::{REVOKED_MS, STANDING_KEY};
use super::ended::REMEMBERED_MS;
use super::link::READ_BLOCK_MS;
use super::message::{self, Order, STREAMS};
use super::{Fleet, FleetError};
use crate::state::{Anchor, DelegationStatus, Heard, State};

/// Messages in one read, and keys in one step of a scan.
const BATCH: usize = 500;
/// The id before every other.
const BEGINNING: &str = "0-0";

/// Up to where each of [`STREAMS`] was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor([String; STREAMS.len()]);

/// Brings the node up to date: from the cursor if nothing can have been missed, from the whole list if not.
/// When it returns, everything said before the call is in force.
pub(super) async fn catch_up(
    fleet: &Fleet,
    state: &State,
    streams: &mut MultiplexedConnection,
    cursor: &mut Option<Cursor>,
) -> Result<(), FleetError> {
    let mut at = match cursor.take() {
        Some(known) if !missed(streams, &known).await? => known,
        Some(_) | None => snapshot(fleet, state, streams).await?,
    };
    while read(fleet, state, streams, &mut at, Wait::No).await? == BATCH {}
    *cursor = Some(at);
    Ok(())
}

/// Follows the streams until something fails.
pub(super) async fn follow(
    fleet: &Fleet,
    state: &State,
    streams: &mut MultiplexedConnection,
    cursor: &mut Option<Cursor>,
) -> FleetError {
    loop {
        let step = async {
            let Some(mut at) = cursor.clone() else { return catch_up(fleet, state, streams, cursor).await };
            let before = at.clone();
            let full = read(fleet, state, streams, &mut at, Wait::Yes).await? >= BATCH;
            *cursor = Some(at);
            // Far behind, messages may be trimmed before they are read.
            if full && missed(streams, &before).await? {
                *cursor = None;
            }
            Ok::<(), FleetError>(())
        };
        if let Err(error) = step.await {
            return error;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Yes,
    No,
}

/// Reads and applies one batch; gives the number of messages of the longest stream in it.
async fn read(
    fleet: &Fleet,
    state: &State,
    streams: &mut MultiplexedConnection,
    at: &mut Cursor,
    wait: Wait,
) -> Result<usize, FleetError> {
    let mut ask = cmd("XREAD");
    ask.arg("COUNT").arg(BATCH);
    if wait == Wait::Yes {
        ask.arg("BLOCK").arg(READ_BLOCK_MS);
    }
    ask.arg("STREAMS").arg(&STREAMS).arg(&at.0);
    let reply: Option<StreamReadReply> = ask.query_async(streams).await?;
    let mut longest = 0;
    for part in reply.into_iter().flat_map(|reply| reply.keys) {
        let known = STREAMS.into_iter().zip(at.0.iter_mut()).find(|(stream, _)| *stream == part.key);
        let Some((stream, position)) = known else { continue };
        longest = longest.max(part.ids.len());
        for entry in part.ids {
            if let Some(order) = verified(fleet, stream, &entry) {
                obey(fleet, state, &order);
            }
            *position = entry.id;
        }
    }
    if longest < BATCH {
        fleet.read_at.store(fleet.clock.now(), Ordering::Relaxed);
    }
    Ok(longest)
}

/// The order in a message, if its signature is good and it is not our own.
fn verified(fleet: &Fleet, stream: &'static str, entry: &StreamId) -> Option<Order> {
    let mut fields = BTreeMap::new();
    for (name, value) in &entry.map {
        fields.insert(name.clone(), redis::from_redis_value_ref::<String>(value).ok()?);
    }
    if !fleet.key.verifies(stream, &fields) {
        fleet.metrics.bad_signatures.with_label_values(&[stream]).inc();
        tracing::warn!(stream, id = entry.id, "a message without a good signature was passed over");
        return None;
    }
    message::read(stream, &fields, &fleet.node)
}

fn obey(fleet: &Fleet, state: &State, order: &Order) {
    if !fleet.zones.contains(&order.zone) {
        return;
    }
    let now = fleet.clock.now();
    for heard in &order.heard {
        if let Heard::Ended(Anchor::Record(id) | Anchor::Session(id) | Anchor::Delegation(id)) = heard {
            // Before the requests in flight are looked through: one that begins in between finds it here.
            fleet.elsewhere.insert(id, now.saturating_add(REMEMBERED_MS), now);
        }
        state.follow(&order.zone, heard);
    }
}

/// Whether a stream is gone, or was trimmed past the cursor.
async fn missed(streams: &mut MultiplexedConnection, cursor: &Cursor) -> Result<bool, FleetError> {
    for (stream, read) in STREAMS.into_iter().zip(&cursor.0) {
        let (first, last) = ends(streams, stream).await?;
        if order_of(&last) < order_of(read) || order_of(&first) > order_of(read) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The first id a stream has kept and the last one it ever gave.
async fn ends(streams: &mut MultiplexedConnection, stream: &str) -> Result<(String, String), FleetError> {
    let reply: Result<HashMap<String, Value>, RedisError> =
        cmd("XINFO").arg("STREAM").arg(stream).query_async(streams).await;
    match reply {
        Ok(info) => {
            let text = |value: &Value| redis::from_redis_value_ref::<String>(value).ok();
            let last = info.get("last-generated-id").and_then(text);
            let last = last.ok_or(FleetError::Answer("XINFO STREAM names no last-generated-id"))?;
            // A stream that was trimmed to nothing has no first entry.
            let first = match info.get("first-entry") {
                Some(Value::Array(entry)) => entry.first().and_then(text),
                _ => None,
            };
            Ok((first.unwrap_or_else(|| last.clone()), last))
        }
        // There is no such stream.
        Err(error) if matches!(error.kind(), ErrorKind::Server(_)) => {
            Ok((BEGINNING.to_owned(), BEGINNING.to_owned()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Ids are two numbers; as text they would not sort.
fn order_of(id: &str) -> (u64, u64) {
    let (ms, seq) = id.split_once('-').unwrap_or((id, "0"));
    (ms.parse().unwrap_or(0), seq.parse().unwrap_or(0))
}

/// Takes the whole list, and the place in the streams from which on it has to be kept up.
async fn snapshot(
    fleet: &Fleet,
    state: &State,
    streams: &mut MultiplexedConnection,
) -> Result<Cursor, FleetError> {
    let mut at = STREAMS.map(|_| BEGINNING.to_owned());
    for (stream, position) in STREAMS.into_iter().zip(at.iter_mut()) {
        *position = ends(streams, stream).await?.1;
    }
    let mut taken = 0_usize;
    let mut place = BEGINNING.trim_end_matches("-0").to_owned();
    loop {
        let (next, keys): (String, Vec<String>) = cmd("SCAN")
            .arg(&place)
            .arg("MATCH")
            .arg(format!("{REVOKED_PREFIX}*"))
            .arg("COUNT")
            .arg(BATCH)
            .query_async(streams)
            .await?;
        taken = taken.saturating_add(keys.len());
        take(fleet, state, streams, &keys).await?;
        if next == "0" {
            break;
        }
        place = next;
    }
    take_standing(fleet, state, streams).await?;
    tracing::info!(taken, "took the list of what had ended");
    Ok(Cursor(at))
}

/// One step of the list: dead anchors, and among them the epochs of zones.
async fn take(
    fleet: &Fleet,
    state: &State,
    streams: &mut MultiplexedConnection,
    keys: &[String],
) -> Result<(), FleetError> {
    let mut anchors = Vec::new();
    for key in keys {
        match key.strip_prefix(EPOCH_PREFIX) {
            Some(zone) => {
                let epoch: Option<u64> = cmd("GET").arg(key).query_async(streams).await?;
                if let Some(epoch) = epoch.filter(|_| fleet.zones.iter().any(|known| **known == *zone)) {
                    state.follow(zone, &Heard::GraphEpoch(epoch));
                }
            }
            None => anchors.extend(key.strip_prefix(REVOKED_PREFIX)),
        }
    }
    if anchors.is_empty() {
        return Ok(());
    }
    let mut ask = pipe();
    for id in &anchors {
        let key = format!("{REVOKED_PREFIX}{id}");
        ask.cmd("PTTL").arg(&key).cmd("GET").arg(&key);
    }
    let found: Vec<Option<String>> = ask.query_async(streams).await?;
    for (id, found) in anchors.into_iter().zip(found.chunks(2)) {
        if let [Some(left), Some(value)] = found {
            ended(fleet, state, id, left.parse().unwrap_or(-1), value);
        }
    }
    Ok(())
}

/// One dead anchor of the list. The list names neither kind nor zone, so it is looked for everywhere.
fn ended(fleet: &Fleet, state: &State, id: &str, left: i64, value: &str) {
    if let Some(zone) = value.strip_prefix(SUSPENDED_PREFIX) {
        if fleet.zones.iter().any(|known| **known == *zone) {
            state.follow(zone, &Heard::Suspended(id.into()));
        }
        return;
    }
    let now = fleet.clock.now();
    // A key without a time (-1) counts as new.
    let age = if left < 0 { 0 } else { REVOKED_MS.saturating_sub(left) };
    fleet.elsewhere.insert(id, now.saturating_sub(age).saturating_add(REMEMBERED_MS), now);
    for zone in &fleet.zones {
        let session = state.session(zone, id).filter(|session| !session.status.ended());
        let delegation = state.delegation(zone, id).filter(|edge| edge.status == DelegationStatus::Active);
        let record = state.record(zone, id).filter(|record| !record.revoked);
        let anchors = [
            session.map(|_| Anchor::Session(id.into())),
            delegation.map(|_| Anchor::Delegation(id.into())),
            record.map(|_| Anchor::Record(id.into())),
        ];
        for anchor in anchors.into_iter().flatten() {
            state.follow(zone, &Heard::Ended(anchor));
        }
    }
}

/// What is stopped: zones and applications.
async fn take_standing(
    fleet: &Fleet,
    state: &State,
    streams: &mut MultiplexedConnection,
) -> Result<(), FleetError> {
    let all: HashMap<String, String> = cmd("HGETALL").arg(STANDING_KEY).query_async(streams).await?;
    for (field, value) in all {
        let known = |zone: &str| fleet.zones.iter().any(|known| **known == *zone);
        let parts: Vec<&str> = field.splitn(3, ':').collect();
        match parts.as_slice() {
            ["frozen", zone] if known(zone) => state.follow(zone, &Heard::Frozen),
            ["application", zone, application] if known(zone) => {
                let cut = value.split_once(':').and_then(|(cut, blocked)| Some((cut.parse().ok()?, blocked)));
                let Some((cut_at, blocked)) = cut else { continue };
                let application: Arc<str> = (*application).into();
                state.follow(zone, &Heard::Application { application, cut_at, blocked: blocked == "true" });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_as_numbers() {
        assert!(order_of("9-0") < order_of("10-0"));
        assert!(order_of("10-2") < order_of("10-11"));
        assert_eq!(order_of(BEGINNING), (0, 0));
    }
}
