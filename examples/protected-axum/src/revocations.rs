//! Following the revocations a fleet of edges announces through Redis.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use caracal_mandates::resource_server::{EPOCH_PREFIX, Heard, REVOKED_PREFIX, RevocationFeed, STREAMS};
use redis::aio::MultiplexedConnection;
use redis::streams::StreamReadReply;
use redis::{AsyncConnectionConfig, Client, cmd};

/// How long one read of the streams waits for a message. The feed's patience should be several times as long.
const BLOCK: Duration = Duration::from_millis(500);
/// The pause after Redis could not be read.
const PAUSE: Duration = Duration::from_millis(250);
/// Messages in one read, keys in one step of a scan.
const BATCH: usize = 500;

/// Keeps `feed` fed until the task is dropped; `clock` gives unix milliseconds. While Redis cannot be read the feed
/// grows old and everything is refused; when it can be read again, the whole list is taken before it is believed.
///
/// # Errors
/// When `redis` is no address of a Redis server.
pub async fn follow(
    redis: &str,
    feed: Arc<RevocationFeed>,
    clock: impl Fn() -> i64 + Send + Sync,
) -> anyhow::Result<()> {
    let client = Client::open(redis).context("the address of Redis")?;
    loop {
        if let Err(error) = follow_once(&client, &feed, &clock).await {
            tracing::warn!(error = format!("{error:#}"), "revocations cannot be followed; trying again");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow_once(
    client: &Client,
    feed: &RevocationFeed,
    clock: &(impl Fn() -> i64 + Send + Sync),
) -> anyhow::Result<()> {
    let patience = BLOCK.saturating_mul(4);
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(patience))
        .set_response_timeout(Some(patience));
    let mut redis =
        client.get_multiplexed_async_connection_with_config(&config).await.context("connecting")?;
    // The ends of the streams first and the list second: what is announced in between is in both.
    let mut cursor = Vec::with_capacity(STREAMS.len());
    for stream in STREAMS {
        let last: Vec<(String, BTreeMap<String, String>)> = cmd("XREVRANGE")
            .arg(stream)
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1)
            .query_async(&mut redis)
            .await?;
        cursor.push(last.into_iter().next().map_or_else(|| "0-0".to_owned(), |(id, _)| id));
    }
    let begun = clock();
    take_list(&mut redis, feed, clock).await.context("reading the list")?;
    feed.read(begun);
    loop {
        let begun = clock();
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(BATCH).arg("BLOCK").arg(BLOCK.as_millis().to_string()).arg("STREAMS");
        read.arg(&STREAMS).arg(&cursor);
        let reply: Option<StreamReadReply> =
            read.query_async(&mut redis).await.context("reading the streams")?;
        let full = hand_over(feed, &mut cursor, reply.unwrap_or_default(), clock());
        if !full {
            feed.read(begun);
        }
    }
}

/// Hands messages over and moves the cursor past them; whether there may be more of them already.
fn hand_over(feed: &RevocationFeed, cursor: &mut [String], reply: StreamReadReply, now: i64) -> bool {
    let mut full = false;
    for stream in reply.keys {
        full |= stream.ids.len() >= BATCH;
        for message in stream.ids {
            let text = |value: &redis::Value| redis::from_redis_value(value.clone()).ok();
            let fields: BTreeMap<String, String> =
                message.map.iter().filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect();
            if feed.hear(&stream.key, &fields, now) == Heard::Unsigned {
                tracing::warn!(stream = stream.key, id = message.id, "passed over: not signed by our edges");
            }
            for (place, name) in cursor.iter_mut().zip(STREAMS) {
                if name == stream.key {
                    place.clone_from(&message.id);
                }
            }
        }
    }
    full
}

/// Hands every key over that says what is revoked.
async fn take_list(
    redis: &mut MultiplexedConnection,
    feed: &RevocationFeed,
    clock: &(impl Fn() -> i64 + Send + Sync),
) -> anyhow::Result<()> {
    debug_assert!(EPOCH_PREFIX.starts_with(REVOKED_PREFIX), "one scan finds both");
    let mut place = "0".to_owned();
    loop {
        let (next, keys): (String, Vec<String>) = cmd("SCAN")
            .arg(&place)
            .arg("MATCH")
            .arg(format!("{REVOKED_PREFIX}*"))
            .arg("COUNT")
            .arg(BATCH)
            .query_async(redis)
            .await?;
        if !keys.is_empty() {
            let values: Vec<Option<String>> = cmd("MGET").arg(&keys).query_async(redis).await?;
            for (key, value) in keys.iter().zip(values) {
                if let Some(value) = value {
                    feed.listed(key, &value, clock());
                }
            }
        }
        place = next;
        if place == "0" {
            return Ok(());
        }
    }
}
