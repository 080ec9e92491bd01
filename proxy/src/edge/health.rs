//! Looks at the places of upstreams beside the calls, where a resource asks for it.
//!
//! A check carries nothing of a caller and no credential; only the connection is secured as the resource's are.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use caracal_policies::{HealthCheck, Resource};
use parking_lot::Mutex;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::{protocol, secured};
use crate::app::App;
use crate::snapshot::Snapshot;

/// How often it is looked whether other places are to be checked.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// Nothing is kept open between checks; what it has is the system's authorities, read once.
static CONNECTOR: LazyLock<Connector> = LazyLock::new(|| Connector::new(None));

/// Zone and resource.
type Key = (Arc<str>, Arc<str>);

/// Which places of upstreams do not pass their check.
#[derive(Debug, Default)]
pub struct Health {
    known: Mutex<HashMap<Key, HashMap<SocketAddr, Standing>>>,
    /// What requests read: resources with a place that does not pass.
    unwell: ArcSwap<HashMap<Key, Arc<HashSet<SocketAddr>>>>,
    none: Arc<HashSet<SocketAddr>>,
}

/// What the last checks of one place said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Standing {
    unwell: bool,
    /// Checks in a row that say the opposite.
    against: u32,
}

impl Standing {
    /// Takes in a check; says whether the place changed sides.
    fn heard(&mut self, passed: bool, check: &HealthCheck) -> bool {
        if passed != self.unwell {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        let needed = if passed { check.healthy_after } else { check.unhealthy_after };
        let changed = self.against >= needed;
        if changed {
            *self = Self { unwell: !passed, against: 0 };
        }
        changed
    }
}

impl Health {
    /// The places of this resource that do not pass; none of one that is not checked.
    pub(super) fn unwell(&self, zone: &Arc<str>, resource: &Resource) -> Arc<HashSet<SocketAddr>> {
        if resource.health_check.is_none() {
            return Arc::clone(&self.none);
        }
        let unwell = self.unwell.load();
        let places = unwell.get(&(Arc::clone(zone), Arc::clone(&resource.identifier)));
        Arc::clone(places.unwrap_or(&self.none))
    }

    fn heard(&self, key: &Key, address: SocketAddr, passed: bool, check: &HealthCheck) -> bool {
        self.change(|known| {
            known.entry(key.clone()).or_default().entry(address).or_default().heard(passed, check)
        })
    }

    /// Forgets every place of this resource but these.
    fn keep(&self, key: &Key, addresses: &[SocketAddr]) {
        self.change(|known| {
            let Some(places) = known.get_mut(key) else { return false };
            let before = places.len();
            places.retain(|address, _| addresses.contains(address));
            places.len() != before
        });
    }

    /// Forgets every resource but these.
    fn keep_only(&self, keys: &HashSet<Key>) {
        self.change(|known| {
            let before = known.len();
            known.retain(|key, _| keys.contains(key));
            known.len() != before
        });
    }

    /// Says what `change` says: whether requests are to be told something else from now on.
    fn change(&self, change: impl FnOnce(&mut HashMap<Key, HashMap<SocketAddr, Standing>>) -> bool) -> bool {
        let mut known = self.known.lock();
        let changed = change(&mut known);
        if changed {
            let unwell = known.iter().filter_map(|(key, places)| {
                let unwell = places.iter().filter(|(_, standing)| standing.unwell);
                let unwell: HashSet<SocketAddr> = unwell.map(|(address, _)| *address).collect();
                (!unwell.is_empty()).then(|| (key.clone(), Arc::new(unwell)))
            });
            // Under the lock, so that of two changes the later one stays.
            self.unwell.store(Arc::new(unwell.collect()));
        }
        changed
    }
}

/// Checks what the running snapshot asks to be checked, until `stop` turns true.
pub async fn run(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(FOLLOW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut checks = JoinSet::new();
    let mut generation = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let snapshot = app.snapshot.load();
                if generation != Some(snapshot.generation) {
                    generation = Some(snapshot.generation);
                    checks = begin(&app, &snapshot);
                }
            }
            // It changes once.
            _ = stop.changed() => break,
        }
    }
    drop(checks);
}

fn begin(app: &Arc<App>, snapshot: &Arc<Snapshot>) -> JoinSet<()> {
    let mut checks = JoinSet::new();
    let mut keys = HashSet::new();
    for (zone, live) in &snapshot.zones {
        for resource in live.zone.resources() {
            if let Some(check) = resource.health_check.clone() {
                let checker = Checker {
                    app: Arc::clone(app),
                    snapshot: Arc::clone(snapshot),
                    key: (Arc::clone(zone), Arc::clone(&resource.identifier)),
                    resource: Arc::clone(resource),
                    check,
                };
                keys.insert(checker.key.clone());
                checks.spawn(checker.run());
            }
        }
    }
    app.health.keep_only(&keys);
    app.metrics.upstream_healthy.reset();
    checks
}

/// The checks of one resource.
struct Checker {
    app: Arc<App>,
    snapshot: Arc<Snapshot>,
    key: Key,
    resource: Arc<Resource>,
    check: HealthCheck,
}

impl Checker {
    async fn run(self) {
        let mut ticks = tokio::time::interval(self.check.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look().await;
        }
    }

    /// Checks every place once, all at the same time.
    async fn look(&self) {
        // Why there is none stands in the log.
        let Ok(addresses) = self.app.egress.upstream(&self.resource).await else { return };
        self.app.health.keep(&self.key, &addresses);
        let mut asked = JoinSet::new();
        for address in addresses {
            let Some((peer, request)) = self.prepared(address) else { return };
            let patience = self.check.timeout;
            asked.spawn(async move {
                let answer = tokio::time::timeout(patience, ask(&peer, request)).await;
                (address, answer.unwrap_or_else(|_late| Err(format!("no answer within {patience:?}"))))
            });
        }
        while let Some(answered) = asked.join_next().await {
            // A check that panicked says nothing about the place.
            if let Ok((address, answer)) = answered {
                self.heard(address, &answer);
            }
        }
    }

    fn heard(&self, address: SocketAddr, answer: &Result<(), String>) {
        if self.app.health.heard(&self.key, address, answer.is_ok(), &self.check) {
            self.tell(address, answer.as_ref().err());
        }
        let (zone, resource) = (&*self.key.0, &*self.key.1);
        let unwell = self.app.health.unwell(&self.key.0, &self.resource).contains(&address);
        let labels = [zone, resource, &address.to_string()];
        self.app.metrics.upstream_healthy.with_label_values(&labels).set(i64::from(!unwell));
    }

    fn tell(&self, address: SocketAddr, failed: Option<&String>) {
        let (zone, resource) = (&*self.key.0, &*self.key.1);
        let (now, why) = match failed {
            None => ("passes again", ""),
            Some(why) => ("fails and is left alone", &**why),
        };
        tracing::warn!(zone, resource, %address, now, why, "the health check of a target changed");
    }

    /// The connection to one place and what is asked there; `None` when it cannot be secured as it must be.
    fn prepared(&self, address: SocketAddr) -> Option<(HttpPeer, RequestHeader)> {
        let resource = &self.resource;
        let secured = self
            .app
            .secured
            .find(&self.app.egress, &self.snapshot, &self.key.0, resource, address.ip())
            .ok()?;
        let mut peer = secured::peer(address, resource, secured.as_deref());
        peer.options.connection_timeout = Some(self.check.timeout);
        protocol::choose(&mut peer, resource.protocol, false, false);
        let mut request = RequestHeader::build("GET", self.check.target.as_bytes(), None).ok()?;
        request.insert_header("host", resource.upstream.authority()).ok()?;
        request.insert_header("user-agent", "caracal-health-check").ok()?;
        Some((peer, request))
    }
}

/// Asks one place; an answer of 200 to 299 is a pass.
async fn ask(peer: &HttpPeer, request: RequestHeader) -> Result<(), String> {
    let asked = async {
        let (mut session, _reused) = CONNECTOR.get_http_session(peer).await?;
        session.write_request_header(Box::new(request)).await?;
        session.finish_request_body().await?;
        session.read_response_header().await?;
        let status = session.response_header().map(|head| head.status);
        session.shutdown().await;
        Ok(status)
    };
    let status = asked.await.map_err(|error: pingora::BError| error.etype().as_str().to_owned())?;
    match status {
        Some(status) if status.is_success() => Ok(()),
        Some(status) => Err(format!("status {}", status.as_u16())),
        None => Err("no status".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(healthy_after: u32, unhealthy_after: u32) -> HealthCheck {
        let second = Duration::from_secs(1);
        HealthCheck { target: "/".into(), interval: second, timeout: second, healthy_after, unhealthy_after }
    }

    #[test]
    fn requests_are_told_what_is_unwell_and_no_longer_what_was_forgotten() {
        let health = Health::default();
        let keys: [Key; 2] = [("z".into(), "one".into()), ("z".into(), "two".into())];
        let places = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let told = |key: &Key| health.unwell.load().get(key).map(|places| places.iter().copied().collect());
        for key in &keys {
            for place in places {
                assert!(health.heard(key, place, false, &check(1, 1)));
            }
            assert_eq!(told(key).map(|places: Vec<_>| places.len()), Some(2));
        }
        assert!(health.heard(&keys[0], places[0], true, &check(1, 1)));
        assert_eq!(told(&keys[0]), Some(vec![places[1]]));
        health.keep(&keys[0], &places[..1]);
        assert_eq!(told(&keys[0]), None);
        health.keep_only(&HashSet::from([keys[0].clone()]));
        assert_eq!(told(&keys[1]), None);
    }

    #[test]
    fn a_place_changes_sides_after_so_many_checks_in_a_row() {
        let check = check(2, 3);
        let mut standing = Standing::default();
        let told = [
            // passed, and whether it is unwell then
            (false, false),
            (false, false),
            (true, false),
            (false, false),
            (false, false),
            (false, true),
            (false, true),
            (true, true),
            (false, true),
            (true, true),
            (true, false),
            (false, false),
        ];
        for (at, (passed, unwell)) in told.into_iter().enumerate() {
            let before = standing.unwell;
            let changed = standing.heard(passed, &check);
            assert_eq!(standing.unwell, unwell, "check {at}");
            assert_eq!(changed, before != unwell, "check {at}");
        }
    }
}
