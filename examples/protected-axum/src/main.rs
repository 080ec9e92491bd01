//! Runs the application: `ISSUER`, `ZONE`, `RESOURCE` and `LISTEN` say where it belongs.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use caracal_example_protected_axum::{HttpJwks, router};
use caracal_mandates::resource_server::{MemoryRevocations, Settings};
use caracal_mandates::tower::Protection;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().init();
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let issuer = setting("ISSUER", "http://127.0.0.1:8080");
    let settings =
        Settings::new(&issuer, &setting("RESOURCE", "resource://invoices"), &setting("ZONE", "team"));
    // Nobody feeds this store here. It is where a consumer of the revocation stream would put what it hears.
    let revocations = Arc::new(MemoryRevocations::default());
    let protection = Protection::new(settings, HttpJwks::new()?, revocations, unix_seconds)?;
    let address = setting("LISTEN", "127.0.0.1:9100");
    let listener = tokio::net::TcpListener::bind(&address).await.context(address)?;
    tracing::info!(address = %listener.local_addr()?, %issuer, "protected");
    axum::serve(listener, router(&protection)).await?;
    Ok(())
}

/// A clock before 1970 lets nobody in: every mandate is then from the future.
#[expect(clippy::disallowed_methods, reason = "this is where the application asks its clock")]
fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
