//! Runs the application: `ISSUER`, `ZONE`, `RESOURCE` and `LISTEN` say where it belongs, `REDIS` and `STREAM_KEY_FILE`
//! where it hears of revocations.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use caracal_example_protected_axum::{HttpJwks, follow, router};
use caracal_mandates::StreamKey;
use caracal_mandates::resource_server::{MemoryRevocations, RevocationFeed, Revocations, Settings};
use caracal_mandates::tower::Protection;

/// Milliseconds the view of revocations may be old.
const PATIENCE_MS: i64 = 5_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().init();
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let issuer = setting("ISSUER", "http://127.0.0.1:8080");
    let settings =
        Settings::new(&issuer, &setting("RESOURCE", "resource://invoices"), &setting("ZONE", "team"));
    let protection = Protection::new(settings, HttpJwks::new()?, revocations()?, unix_seconds)?;
    let address = setting("LISTEN", "127.0.0.1:9100");
    let listener = tokio::net::TcpListener::bind(&address).await.context(address)?;
    tracing::info!(address = %listener.local_addr()?, %issuer, "protected");
    axum::serve(listener, router(&protection)).await?;
    Ok(())
}

/// What the edges of a fleet announce, where `REDIS` says where; else nothing is heard of, and a mandate is good for the
/// rest of its minute.
fn revocations() -> anyhow::Result<Arc<dyn Revocations>> {
    let Ok(redis) = std::env::var("REDIS") else { return Ok(Arc::new(MemoryRevocations::default())) };
    let path = std::env::var("STREAM_KEY_FILE").context("REDIS needs STREAM_KEY_FILE")?;
    let key = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let key = StreamKey::parse(&key).with_context(|| format!("{path} holds no stream key"))?;
    let feed = Arc::new(RevocationFeed::new(key, PATIENCE_MS));
    let followed = Arc::clone(&feed);
    tokio::spawn(async move {
        let unix_ms = || unix_seconds().saturating_mul(1_000);
        if let Err(error) = follow(&redis, followed, unix_ms).await {
            tracing::error!(
                error = format!("{error:#}"),
                "revocations are not followed: everything is refused"
            );
        }
    });
    Ok(feed)
}

/// A clock before 1970 lets nobody in: every mandate is then from the future.
#[expect(clippy::disallowed_methods, reason = "this is where the application asks its clock")]
fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
