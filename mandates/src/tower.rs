//! A tower layer that lets a request through to a service only with a good mandate (feature `tower`).
//!
//! [`Protection`] is made once for an application: it holds the zone's key set and the revocation view. Each
//! [`ProtectLayer`] it gives asks for what one route needs. A request that passes carries a [`Principal`] in its
//! extensions; any other is answered with the body and status of the official adapters and goes no further.
//!
//! Requirements belong to routes, not to path prefixes: only the router knows which paths mean the same.
//!
//! ```
//! use std::sync::Arc;
//! use caracal_mandates::resource_server::{MemoryRevocations, Settings};
//! use caracal_mandates::tower::{FetchFailed, Fetching, JwksSource, Protection, Requirements};
//!
//! #[derive(Debug)]
//! struct Nowhere;
//! impl JwksSource for Nowhere {
//!     fn fetch(&self, _url: &str) -> Fetching {
//!         Box::pin(async { Err(FetchFailed::new("there is no network in this example")) })
//!     }
//! }
//!
//! let settings = Settings::new("https://authority.example", "resource://billing", "prod");
//! let revocations = Arc::new(MemoryRevocations::default());
//! let clock = || 1_790_000_000; // unix seconds; an application asks its own clock
//! let protection = Protection::new(settings, Nowhere, revocations, clock)?;
//! let reading = protection.layer();
//! let paying = protection.requiring(Requirements::default().scope("invoices:pay").session());
//! // axum: Router::new().route("/pay", post(pay).layer(paying)).route("/invoices", get(list).layer(reading))
//! # drop((reading, paying));
//! # Ok::<(), caracal_mandates::resource_server::Refused>(())
//! ```

mod answer;
mod keys;
mod principal;
mod requirements;
mod service;
mod source;

use std::fmt;
use std::sync::Arc;

use crate::compact::peek;
use crate::keys::KeySet;
use crate::resource_server::{Refused, Revocations, Settings, Verifier};

use self::keys::Keys;

pub use self::keys::KeyTimes;
pub use self::principal::Principal;
pub use self::requirements::Requirements;
pub use self::service::{Protect, ProtectLayer};
pub use self::source::{FetchFailed, Fetching, JwksSource};

/// Gives unix seconds. The crate reads no clock itself.
type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What an application needs to verify mandates: settings, the zone's keys, the revocation view, a clock.
///
/// Cheap to clone; clones share one key set.
#[derive(Clone)]
pub struct Protection(Arc<Shared>);

struct Shared {
    settings: Settings,
    revocations: Arc<dyn Revocations>,
    keys: Keys,
    clock: Clock,
}

impl Protection {
    /// Protection with the usual [`KeyTimes`]; nothing is fetched before the first request.
    ///
    /// # Errors
    /// [`Refused::ZoneInvalid`] without a zone, [`Refused::InvalidToken`] when the issuer's URL would let someone
    /// between us choose the keys.
    pub fn new(
        settings: Settings,
        source: impl JwksSource,
        revocations: Arc<dyn Revocations>,
        clock: impl Fn() -> i64 + Send + Sync + 'static,
    ) -> Result<Self, Refused> {
        Self::with_times(settings, source, revocations, clock, KeyTimes::default())
    }

    /// As [`Protection::new`], with times of your own.
    ///
    /// # Errors
    /// As [`Protection::new`].
    pub fn with_times(
        settings: Settings,
        source: impl JwksSource,
        revocations: Arc<dyn Revocations>,
        clock: impl Fn() -> i64 + Send + Sync + 'static,
        times: KeyTimes,
    ) -> Result<Self, Refused> {
        let url = Verifier::new(settings.clone(), Arc::clone(&revocations)).jwks_url()?;
        let keys = Keys::new(url, Arc::new(source), times);
        Ok(Self(Arc::new(Shared { settings, revocations, keys, clock: Arc::new(clock) })))
    }

    /// A layer that asks for what the settings ask for.
    #[must_use]
    pub fn layer(&self) -> ProtectLayer {
        self.requiring(Requirements::default())
    }

    /// A layer that asks for what the settings ask for and for more.
    #[must_use]
    pub fn requiring(&self, more: Requirements) -> ProtectLayer {
        let settings = more.added_to(self.0.settings.clone());
        let verifier = Verifier::new(settings, Arc::clone(&self.0.revocations));
        ProtectLayer::new(Gate { protection: self.clone(), verifier: Arc::new(verifier) })
    }
}

impl fmt::Debug for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = &self.0;
        f.debug_struct("Protection")
            .field("settings", &shared.settings)
            .field("keys", &shared.keys)
            .finish_non_exhaustive()
    }
}

/// One route's checks.
#[derive(Clone, Debug)]
struct Gate {
    protection: Protection,
    verifier: Arc<Verifier>,
}

impl Gate {
    /// Verifies the token; waits for the key set when it is not there or does not have the token's key.
    async fn admit(&self, token: &str) -> Result<Principal, Refused> {
        let shared = &self.protection.0;
        // Looked at first: junk must not make us fetch.
        let kid = peek(token).ok().ok_or(Refused::InvalidToken("form"))?.kid;
        let keys = shared.keys.having(&kid, (shared.clock)()).await;
        let keys: &KeySet = keys.as_deref().ok_or(Refused::InvalidToken("keys"))?;
        let mandate = self.verifier.verify(keys, token, (shared.clock)())?;
        Ok(Principal::new(mandate, Arc::clone(&self.verifier), Arc::clone(&shared.clock)))
    }
}

#[cfg(test)]
mod tests;
