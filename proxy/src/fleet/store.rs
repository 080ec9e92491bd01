//! The store the nodes of a fleet share: the way to it, and requests that must see what other nodes did there.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::FleetError;
use super::link::private_text;
use crate::app::App;
use crate::config::Config;
use crate::state::SharedStore;

/// The shared store that the configuration names, if it names one.
///
/// # Errors
/// [`FleetError::File`] for a password file that cannot be used.
pub(crate) fn shared_store(config: &Config) -> Result<Option<SharedStore>, FleetError> {
    let Some(store) = config.fleet.as_ref().and_then(|fleet| fleet.store.as_ref()) else { return Ok(None) };
    let password = store.password_file.as_deref();
    let password = password.map(|path| private_text("url_password_file", path)).transpose()?;
    let loopback = store.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !store.tls && !loopback && store.host != "localhost" {
        tracing::warn!(
            "Postgres is reached without TLS: whoever is on the way can read and change authority"
        );
    }
    Ok(Some(SharedStore::new(store, password.as_ref())))
}

/// Looks at the shared store before a request is answered, so that a client finds on one node what it just did on
/// another. Costs a node without a shared store nothing.
pub(crate) async fn caught_up(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    app.state.catch_up().await;
    next.run(request).await
}
