//! Access tokens that the edge fetches itself, for providers of the kinds `oauth2_client_credentials` and
//! `oauth2_authorization_code`. For the second, a token belongs to a connection, which the state keeps sealed.
//!
//! Asked only with a permit in hand. A token is kept until shortly before it expires and belongs to the secrets and
//! the configuration it was fetched with: a rotated secret has no token yet. One fetch runs at a time for each; who
//! comes meanwhile waits for it. A token that is nearly over is replaced while it is still used.

mod answer;
mod assertion;
mod client;
mod connection;
mod consent;
mod discovery;
mod flows;
mod request;
mod slot;
#[cfg(test)]
mod tests;

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caracal_plugins::Scrubber;
use caracal_policies::{EndpointUrl, Grant, Provider, SecretRef, ServiceToken, TokenSource};
use moka::sync::Cache;
use tokio::sync::watch;
use uuid::Uuid;
use zeroize::Zeroizing;

use self::answer::Answer;
use self::client::Http;
use self::flows::Flows;
use self::request::Ask;
use self::slot::{Plan, Slot};
use crate::clock::Clock;
use crate::egress::Egress;
use crate::metrics::Metrics;
use crate::sealing::SealingKey;
use crate::secrets::{Dial, Lookout, Secret, is_loopback_host};
use crate::snapshot::Snapshot;
use crate::state::{Connection, ConnectionStatus, State};

pub(crate) use assertion::check_key;
pub(crate) use consent::Concluded;
pub(crate) use flows::{Outcome, Returned};
pub use slot::Standing;

/// Providers with a token or a failure to remember.
const MAX_SLOTS: u64 = 20_000;
/// No token is kept longer, so neither is what is known about one.
const IDLE: Duration = Duration::from_secs(2 * 60 * 60);
/// Before the second and last attempt of a fetch; up to as much again is added at random, in 256 steps.
const PAUSE: Duration = Duration::from_millis(100);
const JITTER: Duration = Duration::from_micros(390);

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// A secret is unknown, unusable, or not for the token endpoint.
    Secret,
    /// The token endpoint may not be asked: its address, or a resource leads there.
    NotAddressable,
    /// The token endpoint cannot be reached, broke off, was late, or failed.
    Unreachable,
    /// The token endpoint does not give this client a token.
    Refused,
    /// The token endpoint asks for patience.
    Limited,
    /// The answer is none that a token endpoint gives.
    Malformed,
    /// It failed too often of late and is left alone.
    Open,
    /// Whom the request acts for has no connection to the provider.
    NotConnected,
    /// The connection is over and cannot be renewed.
    Lapsed,
}

impl Unavailable {
    /// A short stable word for metrics, log and operators.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::NotAddressable => "not_addressable",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Limited => "rate_limited",
            Self::Malformed => "malformed",
            Self::Open => "circuit_open",
            Self::NotConnected => "not_connected",
            Self::Lapsed => "not_renewable",
        }
    }
}

/// A failed attempt, with words for an operator. Nothing the other side wrote is in them.
#[derive(Debug)]
pub struct Trouble {
    /// What kind.
    pub why: Unavailable,
    /// More about it.
    pub detail: String,
    /// Whether asking again at once may help.
    again: bool,
    /// What was shown for a token is not good any more, and never will be.
    spent: bool,
}

impl Trouble {
    fn new(why: Unavailable, detail: impl Into<String>) -> Self {
        Self { why, detail: detail.into(), again: false, spent: false }
    }
}

/// Whose token is wanted. Owned: a fetch ends also when nobody waits for it any more.
#[derive(Clone, Debug)]
pub struct Order {
    /// Secrets and zones of the request.
    pub snapshot: Arc<Snapshot>,
    /// The zone's id.
    pub zone: Arc<str>,
    /// The provider.
    pub provider: Arc<Provider>,
    /// Whose connection it is, for a provider that has some.
    pub connection: Option<Arc<Connection>>,
}

/// An access token. Wiped when dropped, never printed.
pub struct Token {
    value: Zeroizing<String>,
    /// Keyed fingerprint, for ledger and operators.
    pub fingerprint: Box<str>,
    /// Unix milliseconds.
    pub expires_at: i64,
    /// The version of the secrets file it was fetched with.
    pub secrets_generation: u64,
    usable_until: i64,
    refresh_at: i64,
    lookout: Lookout,
}

impl Token {
    /// What looks for it in answers, unless it is too short.
    pub(crate) fn scrubber(&self) -> Option<Arc<Scrubber>> {
        self.lookout.of(&self.value)
    }

    /// The token itself, for the code that writes it into an upstream request.
    #[must_use]
    pub fn expose(&self) -> &Zeroizing<String> {
        &self.value
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", self.fingerprint)
    }
}

/// A token and the place it is kept in, for as long as a request uses it.
#[derive(Clone, Debug)]
pub struct Held {
    /// The token.
    pub token: Arc<Token>,
    /// The connection it belongs to, if it belongs to one.
    pub connection: Option<Arc<Connection>>,
    slot: Arc<Slot>,
}

impl Held {
    /// The upstream did not take the token: nobody else gets it. Whether it is gone now; a token is given up only so
    /// often, because an upstream that answers 401 to everything must not make us ask for a token each time.
    #[must_use]
    pub fn rejected(&self, now: i64) -> bool {
        self.slot.reject(&self.token, now)
    }
}

/// Fetches and keeps tokens.
#[derive(Debug)]
pub struct Broker {
    slots: Cache<Key, Arc<Slot>>,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    http: Http,
    clock: Clock,
    metrics: Arc<Metrics>,
    state: Arc<State>,
    sealing: SealingKey,
    flows: Flows,
}

/// What a token belongs to. A change of any part is another token.
#[derive(Clone, Debug)]
struct Key {
    zone: Arc<str>,
    provider: Arc<Provider>,
    secrets: [Option<String>; 2],
    connection: Option<Arc<str>>,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let same = Arc::ptr_eq(&self.provider, &other.provider)
            || (self.provider.identifier == other.provider.identifier
                && self.provider.kind == other.provider.kind);
        same && self.zone == other.zone
            && self.secrets == other.secrets
            && self.connection == other.connection
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.zone.hash(state);
        self.provider.identifier.hash(state);
        self.secrets.hash(state);
        self.connection.hash(state);
    }
}

impl Broker {
    /// A broker that knows no token yet.
    #[must_use]
    pub fn new(
        clock: Clock,
        metrics: Arc<Metrics>,
        egress: Arc<Egress>,
        state: Arc<State>,
        sealing: SealingKey,
    ) -> Self {
        let slots = Cache::builder().max_capacity(MAX_SLOTS).time_to_idle(IDLE).build();
        let inner =
            Inner { http: Http::new(egress), clock, metrics, state, sealing, flows: Flows::default() };
        Self { slots, inner: Arc::new(inner) }
    }

    /// The provider's token: the kept one, or a fresh one, waiting for it.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn token(&self, order: &Order) -> Result<Held, Unavailable> {
        let (source, outcome) = self.find(order).await;
        let labels = [&*order.zone, &*order.provider.identifier, source];
        self.inner.metrics.provider_tokens.with_label_values(&labels).inc();
        outcome
    }

    async fn find(&self, order: &Order) -> (&'static str, Result<Held, Unavailable>) {
        // Where the secrets may go is looked at on every use, not only when something is sent.
        if let Err(trouble) = order.may_ask_where_it_says() {
            return ("refused", Err(trouble.why));
        }
        let connection = order.connection.clone();
        match connection.as_ref().map(|connection| connection.status) {
            None | Some(ConnectionStatus::Active) => {}
            Some(ConnectionStatus::Expired) => return ("refused", Err(Unavailable::Lapsed)),
            Some(ConnectionStatus::Revoked) => return ("refused", Err(Unavailable::NotConnected)),
        }
        let slot = self.slots.get_with(order.key(), Arc::default);
        let (source, waited) = match slot.plan(self.inner.clock.now()) {
            Plan::Use(token, refresh) => {
                if let Some(over) = refresh {
                    tokio::spawn(run(Arc::clone(&self.inner), Arc::clone(&slot), order.clone(), over));
                }
                return ("kept", Ok(Held { token, connection, slot }));
            }
            Plan::Refuse(why) => return ("refused", Err(why)),
            Plan::Wait(done) => ("waited", outcome(done).await),
            Plan::Fetch(done, over) => {
                // A task of its own: it ends, and says so, also when the caller that began it goes away.
                tokio::spawn(run(Arc::clone(&self.inner), Arc::clone(&slot), order.clone(), over));
                ("fetched", outcome(done).await)
            }
        };
        (source, waited.map(|token| Held { token, connection, slot }))
    }

    /// Fetches a token once, past everything that is kept, and keeps nothing: for an operator who wants to know.
    ///
    /// # Errors
    /// [`Trouble`], in words.
    pub async fn probe(&self, order: &Order) -> Result<Token, Trouble> {
        attempt(&self.inner, order, None).await
    }

    /// What is kept for a provider.
    #[must_use]
    pub fn standing(&self, order: &Order) -> Standing {
        let now = self.inner.clock.now();
        self.slots.get(&order.key()).map(|slot| slot.standing(now)).unwrap_or_default()
    }
}

/// What the running fetch comes to. Without a word its task is gone.
async fn outcome(
    mut done: watch::Receiver<Option<Result<Arc<Token>, Unavailable>>>,
) -> Result<Arc<Token>, Unavailable> {
    match done.wait_for(Option::is_some).await {
        Ok(said) => said.clone().unwrap_or(Err(Unavailable::Unreachable)),
        Err(_gone) => Err(Unavailable::Unreachable),
    }
}

/// Fetches a token and tells everybody who waits.
async fn run(
    inner: Arc<Inner>,
    slot: Arc<Slot>,
    order: Order,
    over: watch::Sender<Option<Result<Arc<Token>, Unavailable>>>,
) {
    let started = Instant::now();
    let mut fetched = attempt(&inner, &order, slot.spent()).await;
    if fetched.as_ref().is_err_and(|trouble| trouble.again) {
        let [jitter, ..] = Uuid::new_v4().into_bytes();
        tokio::time::sleep(PAUSE.saturating_add(JITTER.saturating_mul(jitter.into()))).await;
        fetched = attempt(&inner, &order, slot.spent()).await;
    }
    let (zone, provider) = (&*order.zone, &*order.provider.identifier);
    let seconds = started.elapsed().as_secs_f64();
    inner.metrics.provider_fetch_seconds.with_label_values(&[zone, provider]).observe(seconds);
    let word = fetched.as_ref().map_or_else(|trouble| trouble.why.word(), |_token| "ok");
    inner.metrics.provider_fetches.with_label_values(&[zone, provider, word]).inc();
    let said = match fetched {
        Ok(token) => Ok(Arc::new(token)),
        Err(Trouble { why, detail, .. }) => {
            tracing::warn!(zone, provider, outcome = word, detail, "no access token for a provider");
            Err(why)
        }
    };
    slot.settle(&said, inner.clock.now());
    over.send_replace(Some(said));
}

/// One fetch from the metadata to the token. `spent` is the fingerprint of one that an upstream did not take.
async fn attempt(inner: &Inner, order: &Order, spent: Option<Box<str>>) -> Result<Token, Trouble> {
    let token = order.service_token()?;
    if matches!(token.grant, Grant::AuthorizationCode(_)) {
        return connection::token(inner, order, spent.as_deref()).await;
    }
    let endpoint = discovery::endpoints(inner, order, token).await?.token;
    let now = inner.clock.now();
    let answer = ask(inner, order, token, &endpoint, &Ask::Token).await?;
    let lifetime = answer.lifetime_s.saturating_mul(1_000);
    let expires_at = now.saturating_add(lifetime);
    let usable_until = expires_at.saturating_sub(slot::SKEW_MS);
    Ok(Token {
        fingerprint: order.snapshot.secrets.fingerprint_of(&answer.access_token),
        value: answer.access_token,
        expires_at,
        secrets_generation: order.snapshot.secrets_generation,
        usable_until,
        refresh_at: usable_until.saturating_sub(slot::AHEAD_MS.min(lifetime / 5)),
        lookout: Lookout::default(),
    })
}

/// One question to a token endpoint.
async fn ask(
    inner: &Inner,
    order: &Order,
    token: &ServiceToken,
    endpoint: &EndpointUrl,
    what: &Ask<'_>,
) -> Result<Answer, Trouble> {
    let request = request::build(order, token, endpoint, what, inner.clock.now())?;
    let (status, body) = inner.http.ask(request).await?;
    answer::read(status, &body)
}

impl Order {
    fn key(&self) -> Key {
        let fingerprint = |reference: &Option<SecretRef>| {
            let reference = reference.as_ref()?;
            self.snapshot.secrets.fingerprint(&reference.name, &reference.key).map(str::to_owned)
        };
        let secrets = [fingerprint(&self.provider.secret), fingerprint(&self.provider.private_key)];
        let connection = self.connection.as_ref().map(|connection| Arc::clone(&connection.id));
        Key { zone: Arc::clone(&self.zone), provider: Arc::clone(&self.provider), secrets, connection }
    }

    fn service_token(&self) -> Result<&ServiceToken, Trouble> {
        let missing = || Trouble::new(Unavailable::Secret, "this kind of provider has no token");
        self.provider.service_token().ok_or_else(missing)
    }

    fn may_ask_where_it_says(&self) -> Result<(), Trouble> {
        if let TokenSource::Endpoint(endpoint) = &self.service_token()?.source {
            for reference in self.provider.secrets() {
                self.secret(reference, endpoint)?;
            }
        }
        Ok(())
    }

    /// A secret, if its entry lists the token endpoint. A private key is not sent there, but what it signs is.
    fn secret(&self, reference: &SecretRef, endpoint: &EndpointUrl) -> Result<&Secret, Trouble> {
        let dial = dial(endpoint);
        let found = self.snapshot.secrets.get(&self.zone, &reference.name, &reference.key, &dial);
        found.map_err(|refused| {
            let (name, key) = (&reference.name, &reference.key);
            let detail = format!("secret://{name}/{key} for {}: {refused}", endpoint.host());
            Trouble::new(Unavailable::Secret, detail)
        })
    }
}

/// A token endpoint as the check of a secret's destination sees it.
pub(crate) fn dial(endpoint: &EndpointUrl) -> Dial<'_> {
    Dial {
        scheme: endpoint.scheme(),
        host: endpoint.host(),
        port: endpoint.port(),
        loopback: is_loopback_host(endpoint.host()),
    }
}
