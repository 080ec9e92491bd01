//! Telling the fleet and its resource servers what ended here.
//!
//! For every dead anchor a message on the streams, and a key in the form in which the official stores look it
//! up. Whatever could not be told (Redis was away, the outbox was full, Redis forgot) is looked up in the state
//! and told later; keys that are there already are not told again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use caracal_mandates::resource_server::{EPOCH_PREFIX, REVOKED_PREFIX, SUSPENDED_PREFIX};
use redis::{Cmd, Pipeline, cmd, pipe};
use tokio::sync::{mpsc, oneshot};

use super::ended::REMEMBERED_MS;
use super::link::Commands;
use super::message::{DELEGATIONS, Message, SESSIONS, STANDING};
use super::{Fleet, FleetError, link_is_lost};
use crate::state::{Anchor, Narrowed, SessionStatus, State};

/// How long a dead anchor is kept for the stores of resource servers.
pub(super) const REVOKED_MS: i64 = 24 * 3_600 * 1_000;
/// Stopped zones and applications, for nodes that start later.
pub(super) const STANDING_KEY: &str = "caracal:edge:standing";
/// Messages a stream keeps, about.
const KEPT: usize = 100_000;
/// Commands in one round trip.
const TOGETHER: usize = 256;

/// The pause after a server refused to be told.
const TRY_AGAIN: Duration = Duration::from_secs(1);

const RAISE: &str = "if (tonumber(redis.call('GET', KEYS[1])) or 0) < tonumber(ARGV[1]) then \
                     redis.call('SET', KEYS[1], ARGV[1]) end return 1";

/// Something that waits to be told.
#[derive(Debug)]
pub(super) enum Outgoing {
    Narrowed(Narrowed),
    Unfrozen(Arc<str>),
    Restored(Arc<str>, Arc<str>),
    Resumed(Vec<Arc<str>>),
    /// Answered once everything before it was told.
    Told(oneshot::Sender<()>),
}

/// Tells what comes through the outbox, for as long as the process runs.
pub(super) async fn announce(fleet: &Fleet, state: &State, outbox: &mut mpsc::Receiver<Outgoing>) {
    let mut batch = Vec::new();
    loop {
        if batch.is_empty() && !fleet.owing.load(Ordering::Acquire) {
            tokio::select! {
                _ = outbox.recv_many(&mut batch, TOGETHER) => {}
                () = fleet.wake_announcer.notified() => {}
            }
        }
        match fleet.commands.load_full() {
            // The supervisor wakes it with the next link. What comes meanwhile waits in the outbox.
            None => fleet.wake_announcer.notified().await,
            Some(link) => {
                if let Err(error) = tell_all(fleet, state, &mut batch, &link).await {
                    not_told(fleet, &link, &error).await;
                }
            }
        }
    }
}

async fn not_told(fleet: &Fleet, link: &Arc<Commands>, error: &FleetError) {
    tracing::warn!(%error, "revocations could not be told to the fleet yet");
    if link_is_lost(error) {
        fleet.lost(link);
    } else {
        // A server that is full, say: another link to it would be no better.
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// Tells the batch and whatever is owed. The batch is empty when that was told.
async fn tell_all(
    fleet: &Fleet,
    state: &State,
    batch: &mut Vec<Outgoing>,
    commands: &Commands,
) -> Result<(), FleetError> {
    let mut commands = commands.clone();
    tell(fleet, state, batch, &mut commands).await?;
    for outgoing in batch.drain(..) {
        if let Outgoing::Told(waiting) = outgoing
            && waiting.send(()).is_err()
        {
            tracing::debug!("the stop went on without waiting");
        }
    }
    if !fleet.owing.swap(false, Ordering::AcqRel) {
        return Ok(());
    }
    let told = catch_up(fleet, state, &mut commands).await;
    fleet.owing.fetch_or(told.is_err(), Ordering::AcqRel);
    told
}

async fn tell(
    fleet: &Fleet,
    state: &State,
    batch: &[Outgoing],
    commands: &mut Commands,
) -> Result<(), FleetError> {
    let mut together = Vec::new();
    for outgoing in batch {
        match outgoing {
            Outgoing::Narrowed(narrowed) => {
                for news in news(state, narrowed) {
                    together.push(add(fleet, news.message));
                    together.extend(news.keys);
                }
            }
            Outgoing::Unfrozen(zone) => together.push(forget_standing(&frozen_field(zone))),
            Outgoing::Restored(zone, application) => {
                together.push(forget_standing(&application_field(zone, application)));
            }
            Outgoing::Resumed(sessions) => {
                let mut forget = cmd("DEL");
                for id in sessions {
                    forget.arg(format!("{REVOKED_PREFIX}{id}"));
                }
                together.push(forget);
            }
            Outgoing::Told(_) => {}
        }
    }
    send(commands, together).await
}

async fn send(commands: &mut Commands, together: Vec<Cmd>) -> Result<(), FleetError> {
    for part in together.chunks(TOGETHER) {
        let mut pipeline = Pipeline::with_capacity(part.len());
        for command in part {
            pipeline.add_command(command.clone()).ignore();
        }
        let () = pipeline.query_async(&mut commands.0).await?;
    }
    Ok(())
}

/// One message, and what goes into the keyspace with it.
struct News {
    message: Message,
    keys: Vec<Cmd>,
    /// The id that is marked as dead, if the message is about one.
    dead: Option<Arc<str>>,
}

/// Everything a narrowing has to say. Delegations first: when a node ends a session, its edges have ended.
fn news(state: &State, narrowed: &Narrowed) -> Vec<News> {
    let mut anchors: Vec<&Anchor> = narrowed.anchors.iter().collect();
    anchors.sort_by_key(|anchor| !matches!(anchor, Anchor::Delegation(_)));
    let mut all: Vec<News> = anchors.into_iter().filter_map(|anchor| one(state, narrowed, anchor)).collect();
    all.extend(invalidation(state, narrowed));
    all
}

fn one(state: &State, narrowed: &Narrowed, anchor: &Anchor) -> Option<News> {
    let zone = &*narrowed.zone;
    let sessions = || Message::new(SESSIONS, zone, &narrowed.reason);
    match anchor {
        Anchor::Record(id) => Some(dead(sessions().with("session_id", &**id), id)),
        Anchor::Delegation(id) => Some(dead(sessions().with("delegation_edge_id", &**id), id)),
        Anchor::Session(id) => {
            let message = sessions().with("agent_session_id", &**id);
            match state.session(zone, id).map(|session| session.status) {
                Some(SessionStatus::Active) => None,
                Some(SessionStatus::Suspended) => {
                    Some(revoked(message.with("event", "suspend"), id, format!("{SUSPENDED_PREFIX}{zone}")))
                }
                Some(SessionStatus::Terminated | SessionStatus::Expired) | None => {
                    Some(dead(message.with("event", "terminate"), id))
                }
            }
        }
        Anchor::Zone => {
            let message = Message::new(STANDING, zone, &narrowed.reason).with("event", "zone_frozen");
            Some(News { message, keys: vec![remember_standing(&frozen_field(zone), "1")], dead: None })
        }
        Anchor::Application(id) => {
            let (cut, blocked) = (state.application_cut(zone, id)?, state.application_blocked(zone, id));
            let message = Message::new(STANDING, zone, &narrowed.reason)
                .with("event", "application_revoked")
                .with("application_id", &**id)
                .with("cut_at", cut.to_string())
                .with("blocked", blocked.to_string());
            let key = remember_standing(&application_field(zone, id), &format!("{cut}:{blocked}"));
            Some(News { message, keys: vec![key], dead: None })
        }
    }
}

/// The zone's new delegation epoch, with the edges that ended.
fn invalidation(state: &State, narrowed: &Narrowed) -> Option<News> {
    let (zone, epoch) = (&*narrowed.zone, narrowed.graph_epoch?);
    let ids = narrowed.anchors.iter().filter_map(|anchor| match anchor {
        Anchor::Delegation(id) => Some(id),
        Anchor::Record(_) | Anchor::Session(_) | Anchor::Application(_) | Anchor::Zone => None,
    });
    let ids: Vec<&Arc<str>> = ids.collect();
    let mut message = Message::new(DELEGATIONS, zone, &narrowed.reason)
        .with("event", "edge_revoke")
        .with("epoch", epoch.to_string())
        .with("affected_edges", ids.len().to_string());
    message = match ids.as_slice() {
        [id] => {
            let edge = state.delegation(zone, id);
            let ends = edge.map(|edge| (edge.source_session.to_string(), edge.target_session.to_string()));
            let (source, target) = ends.unwrap_or_default();
            message
                .with("edge_id", &***id)
                .with("source_session_id", source)
                .with("target_session_id", target)
        }
        several => message.with("edge_ids", serde_json::json!(several).to_string()),
    };
    let mut raise = cmd("EVAL");
    raise.arg(RAISE).arg(1).arg(format!("{EPOCH_PREFIX}{zone}")).arg(epoch);
    Some(News { message, keys: vec![raise], dead: None })
}

fn dead(message: Message, id: &Arc<str>) -> News {
    revoked(message, id, "1".to_owned())
}

/// The official stores look only for the key; what it holds is for nodes that take the whole list.
fn revoked(message: Message, id: &Arc<str>, value: String) -> News {
    let mut key = cmd("SET");
    key.arg(format!("{REVOKED_PREFIX}{id}")).arg(value).arg("PX").arg(REVOKED_MS);
    News { message, keys: vec![key], dead: Some(Arc::clone(id)) }
}

fn add(fleet: &Fleet, message: Message) -> Cmd {
    let mut add = cmd("XADD");
    add.arg(message.stream).arg("MAXLEN").arg("~").arg(KEPT).arg("*");
    for (name, value) in message.signed(&fleet.key, &fleet.node) {
        add.arg(name).arg(value);
    }
    add
}

/// Tells what ended lately and is not known in Redis.
async fn catch_up(fleet: &Fleet, state: &State, commands: &mut Commands) -> Result<(), FleetError> {
    let since = fleet.clock.now().saturating_sub(REMEMBERED_MS);
    for narrowed in state.ended_since(since) {
        let (known, rest): (Vec<News>, Vec<News>) =
            news(state, &narrowed).into_iter().partition(|news| news.dead.is_some());
        for part in known.chunks(TOGETHER) {
            let mut ask = pipe();
            for id in part.iter().filter_map(|news| news.dead.as_ref()) {
                ask.cmd("EXISTS").arg(format!("{REVOKED_PREFIX}{id}"));
            }
            let there: Vec<bool> = ask.query_async(&mut commands.0).await?;
            let missing = part.iter().zip(there).filter(|(_, there)| !there).map(|(news, _)| news);
            let told =
                missing.flat_map(|news| [vec![add(fleet, news.message.clone())], news.keys.clone()].concat());
            send(commands, told.collect()).await?;
        }
        // The epoch's key is raised quietly: no mandate becomes stale that was not stale before.
        send(commands, rest.into_iter().flat_map(|news| news.keys).collect()).await?;
    }
    if fleet.forgotten.swap(false, Ordering::AcqRel) {
        let told = remind(state, commands).await;
        fleet.forgotten.fetch_or(told.is_err(), Ordering::AcqRel);
        told?;
    }
    Ok(())
}

/// Puts what is stopped here back where nodes that start later find it. Not a message: what another node has
/// let go on meanwhile goes on there.
async fn remind(state: &State, commands: &mut Commands) -> Result<(), FleetError> {
    let zones = state.frozen_zones();
    let mut together: Vec<Cmd> =
        zones.iter().map(|zone| remember_standing(&frozen_field(zone), "1")).collect();
    for (zone, application, cut, blocked) in state.stopped_applications() {
        together
            .push(remember_standing(&application_field(&zone, &application), &format!("{cut}:{blocked}")));
    }
    send(commands, together).await
}

/// Zone ids have no colon in them; application ids come last.
fn frozen_field(zone: &str) -> String {
    format!("frozen:{zone}")
}

fn application_field(zone: &str, application: &str) -> String {
    format!("application:{zone}:{application}")
}

fn remember_standing(field: &str, value: &str) -> Cmd {
    let mut remember = cmd("HSET");
    remember.arg(STANDING_KEY).arg(field).arg(value);
    remember
}

fn forget_standing(field: &str) -> Cmd {
    let mut forget = cmd("HDEL");
    forget.arg(STANDING_KEY).arg(field);
    forget
}
