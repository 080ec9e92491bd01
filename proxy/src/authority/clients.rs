//! Who asks for a mandate: application id and secret against the zone's applications.
//!
//! A secret that verifies is never refused because others failed; the throttle only slows those who fail.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, Version};
use caracal_policies::{Application, SecretHash};
use moka::sync::Cache;
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;

use super::failures::{Failures, network};
use super::form::{Secret, is_id};
use super::refused::Refused;
use crate::app::App;
use crate::retired;
use crate::snapshot::{LiveZone, Snapshot};
use crate::state::TombstoneKind;

/// Failed attempts a minute before an address or an application is told to wait.
const FAILURES_A_MINUTE: u32 = 60;
/// Argon2id computations at a time: each needs 64 MiB.
const SLOW_AT_A_TIME: usize = 2;
/// Argon2id computations at a time for addresses over their failure allowance.
const SLOW_FOR_SUSPECTS: usize = 1;
/// Longest wait for a turn.
const SLOW_WAIT: Duration = Duration::from_secs(5);
/// Verified secrets remembered, by stored hash.
const KNOWN_GOOD: u64 = 8_192;
/// How long a verified secret is remembered.
const KNOWN_GOOD_FOR: Duration = Duration::from_secs(3_600);
/// Longest secret looked at, in bytes; ours have 46.
const MAX_SECRET: usize = 512;
/// Argon2id costs of stored hashes: memory in KiB, passes, lanes, output bytes.
const ARGON2: (u32, u32, u32, usize) = (65_536, 3, 2, 32);

/// Client authentication and what it remembers.
#[derive(Debug)]
pub(super) struct Clients {
    by_address: Failures<IpAddr>,
    by_application: Failures<Arc<str>>,
    known_good: Cache<[u8; 32], [u8; 32]>,
    slow: Arc<Semaphore>,
    suspects: Arc<Semaphore>,
}

/// An application that has proved its secret, in the zone it asked for.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) zone: Arc<LiveZone>,
    pub(super) application: Arc<Application>,
}

/// What a caller presents.
#[derive(Clone, Copy, Debug)]
pub(super) struct Presented<'a> {
    pub(super) zone: &'a str,
    pub(super) application: &'a str,
    pub(super) secret: &'a Secret,
    pub(super) address: IpAddr,
}

impl Clients {
    pub(super) fn new() -> Self {
        Self {
            by_address: Failures::new(FAILURES_A_MINUTE),
            by_application: Failures::new(FAILURES_A_MINUTE),
            known_good: Cache::builder().max_capacity(KNOWN_GOOD).time_to_live(KNOWN_GOOD_FOR).build(),
            slow: Arc::new(Semaphore::new(SLOW_AT_A_TIME)),
            suspects: Arc::new(Semaphore::new(SLOW_FOR_SUSPECTS)),
        }
    }

    /// Finds the application and checks its secret.
    ///
    /// # Errors
    /// [`Refused::BadClient`] or [`Refused::Throttled`] when it does not verify, [`Refused::WrongZone`] when it
    /// verifies for an application of another zone, [`Refused::HashQueue`] when no slow hash could be computed.
    pub(super) async fn authenticate(
        &self,
        app: &App,
        snapshot: &Snapshot,
        presented: Presented<'_>,
    ) -> Result<Client, Refused> {
        let secret = presented.secret.expose();
        if secret.is_empty()
            || secret.len() > MAX_SECRET
            || !is_id(presented.application)
            || !is_id(presented.zone)
        {
            return Err(self.failed(app, presented, None));
        }
        let here = snapshot.zones.get(presented.zone);
        let found = here.and_then(|live| Some((live, live.zone.application(presented.application)?)));
        if let Some((live, application)) = found {
            if self.verifies(app, presented.zone, application, presented).await? {
                return Ok(Client { zone: Arc::clone(live), application: Arc::clone(application) });
            }
            return Err(self.failed(app, presented, Some(&application.id)));
        }
        for (id, live) in &snapshot.zones {
            let Some(application) = live.zone.application(presented.application) else { continue };
            if self.verifies(app, id, application, presented).await? {
                return Err(Refused::WrongZone);
            }
        }
        Err(self.failed(app, presented, None))
    }

    fn failed(&self, app: &App, presented: Presented<'_>, application: Option<&Arc<str>>) -> Refused {
        let now = app.clock.now();
        let address = self.by_address.count(network(presented.address), now);
        let application = application
            .and_then(|id| self.by_application.count(format!("{}/{id}", presented.zone).into(), now));
        address.max(application).map_or(Refused::BadClient, Refused::Throttled)
    }

    async fn verifies(
        &self,
        app: &App,
        zone: &str,
        application: &Application,
        presented: Presented<'_>,
    ) -> Result<bool, Refused> {
        let digest = sha256(presented.secret.expose());
        for stored in &application.secrets {
            let good = match stored {
                SecretHash::Sha256(expected) => bool::from(expected.ct_eq(&digest)),
                SecretHash::Argon2id { salt, hash } => {
                    self.verifies_slowly(app, salt, hash, digest, presented).await?
                }
            };
            // A retired hash stays retired whatever the files say; only the store readmits it.
            if good && !app.state.buried(TombstoneKind::SecretHash, zone, &retired::name(stored)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn verifies_slowly(
        &self,
        app: &App,
        salt: &[u8],
        hash: &[u8],
        digest: [u8; 32],
        presented: Presented<'_>,
    ) -> Result<bool, Refused> {
        let key = sha256(&[salt, hash].concat());
        if self.known_good.get(&key).is_some_and(|known| bool::from(known.ct_eq(&digest))) {
            return Ok(true);
        }
        let suspect = self.by_address.over(&network(presented.address), app.clock.now()).is_some();
        let turns = if suspect { &self.suspects } else { &self.slow };
        let turn = tokio::time::timeout(SLOW_WAIT, Arc::clone(turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(Refused::HashQueue) };
        let (salt, hash) = (salt.to_vec(), hash.to_vec());
        let secret = zeroize::Zeroizing::new(presented.secret.expose().to_vec());
        let computed = tokio::task::spawn_blocking(move || {
            let good = argon2id_verifies(&secret, &salt, &hash);
            drop(turn);
            good
        });
        let good = computed.await.unwrap_or(false);
        if good {
            self.known_good.insert(key, digest);
        }
        Ok(good)
    }
}

fn argon2id_verifies(secret: &[u8], salt: &[u8], hash: &[u8]) -> bool {
    let (memory, passes, lanes, length) = ARGON2;
    let Ok(params) = Params::new(memory, passes, lanes, Some(length)) else { return false };
    let mut computed = zeroize::Zeroizing::new([0_u8; 32]);
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into(secret, salt, &mut *computed).is_ok()
        && bool::from(computed.as_slice().ct_eq(hash))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    for (to, from) in out.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    out
}
