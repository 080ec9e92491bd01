//! Where the edge may connect to for somebody else: upstreams, token endpoints, key sets.
//!
//! A name is resolved once. Every address of the answer must be allowed, and the one that was checked is the one that
//! is dialled, so an answer that changes gains nothing.

mod class;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use caracal_policies::{Place, Problem, Resource, Upstream};
use moka::sync::Cache;
use rustls_pki_types::CertificateDer;

use self::rules::Rules;
use crate::config::Config;
use crate::gate::refusal::Refusal;
use crate::trust;

pub use class::Class;
pub use rules::{Reach, Refused, check_bundle};

/// Whether no setting lets this address be dialled.
#[must_use]
pub fn never(address: IpAddr) -> bool {
    Class::of(address).standing() == class::Standing::Never
}

/// What of the operator's certificate authorities cannot be used. Reads the files; blocks.
#[must_use]
pub fn check_authorities(config: &Config) -> Vec<Problem> {
    let unusable = |(name, file): (&String, &PathBuf)| {
        let why = trust::authorities(file).err()?;
        Some(Problem {
            code: "authorities",
            place: Place { file: file.display().to_string().into(), line: 1, column: 1 },
            message: format!("the certificate authorities `{name}` cannot be used"),
            found: why,
            expected: "a PEM file with certificates".to_owned(),
            hint: format!("correct the file, or `{name}` in [egress.authorities]"),
        })
    };
    config.egress.authorities.iter().filter_map(unusable).collect()
}

/// How long a resolved name is trusted. The resolver does not tell us a record's own lifetime.
const NAME_LIFETIME: Duration = Duration::from_secs(5);
const MAX_NAMES: u64 = 10_000;
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The same refusal is told to the log once in this time, however many requests meet it.
const TOLD_FOR: Duration = Duration::from_secs(60);
const MAX_TOLD: u64 = 1_000;

/// Asks for the addresses of a name.
#[async_trait]
pub trait Resolver: fmt::Debug + Send + Sync {
    /// All addresses of the name, in the order of preference.
    ///
    /// # Errors
    /// When there is no answer.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// Decides what is dialled. Everything that connects for an agent or a bundle asks here first.
#[derive(Debug)]
pub struct Egress {
    rules: Rules,
    resolver: Arc<dyn Resolver>,
    names: Cache<Box<str>, Arc<[IpAddr]>>,
    told: Cache<(Box<str>, String), ()>,
    authorities: HashMap<String, Arc<[CertificateDer<'static>]>>,
}

impl Egress {
    /// The operator's rules over this resolver. Reads the files of certificate authorities; blocks.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn new(config: &Config, resolver: Arc<dyn Resolver>) -> Result<Self, String> {
        Self::keeping(config, resolver, NAME_LIFETIME)
    }

    fn keeping(config: &Config, resolver: Arc<dyn Resolver>, lifetime: Duration) -> Result<Self, String> {
        let mut authorities = HashMap::new();
        for (name, file) in &config.egress.authorities {
            let read =
                trust::authorities(file).map_err(|why| format!("[egress.authorities] {name}: {why}"))?;
            authorities.insert(name.clone(), read.into());
        }
        Ok(Self {
            authorities,
            rules: Rules::new(config),
            resolver,
            names: Cache::builder().max_capacity(MAX_NAMES).time_to_live(lifetime).build(),
            told: Cache::builder().max_capacity(MAX_TOLD).time_to_live(TOLD_FOR).build(),
        })
    }

    /// The certificate authorities that the operator gave this name.
    pub(crate) fn authorities(&self, name: &str) -> Option<&Arc<[CertificateDer<'static>]>> {
        self.authorities.get(name)
    }

    /// Tells the log why there is no connection to an upstream, once in a while.
    pub(crate) fn tell(&self, upstream: &Upstream, why: String) {
        let host = &*upstream.host;
        if self.told.get(&(host.into(), why.clone())).is_none() {
            tracing::warn!(host, why, "no connection to an upstream");
            self.told.insert((host.into(), why), ());
        }
    }

    /// The address to dial. `host` is a name, or an address without brackets.
    ///
    /// # Errors
    /// [`Refused`], when the host or any of its addresses may not be dialled.
    pub async fn address(&self, host: &str, port: u16, reach: Reach) -> Result<SocketAddr, Refused> {
        let addresses = self.allowed(host, reach).await?;
        let first = preferred(&addresses).next();
        first.map(|ip| SocketAddr::new(ip, port)).ok_or_else(|| Refused::Unresolved(host.to_owned()))
    }

    /// The addresses at which a resource's calls may be dialled: at least one. A target that has none is left out;
    /// why stands in the log: the caller must not learn what is inside the network.
    ///
    /// # Errors
    /// [`Refusal::UpstreamFailed`] when no name resolves; [`Refusal::UpstreamUnsafe`] when none may be dialled.
    pub async fn upstream(&self, resource: &Resource) -> Result<Vec<SocketAddr>, Refusal> {
        let upstream = &resource.upstream;
        let own = resource.targets.is_empty().then_some((&upstream.host, upstream.port));
        let targets = resource.targets.iter().map(|target| (&target.host, target.port));
        let (mut found, mut refused) = (Vec::new(), None);
        for (host, port) in own.into_iter().chain(targets) {
            match self.allowed(host, Reach::Upstream).await {
                Ok(addresses) => found.extend(preferred(&addresses).map(|ip| SocketAddr::new(ip, port))),
                Err(why) => {
                    self.tell(upstream, why.to_string());
                    refused = Some(why);
                }
            }
        }
        match (found.is_empty(), refused) {
            (true, Some(why)) => Err(match why {
                Refused::Unresolved(_) => Refusal::UpstreamFailed,
                Refused::Host(_)
                | Refused::Never { .. }
                | Refused::Network { .. }
                | Refused::Inside { .. }
                | Refused::Plaintext { .. } => Refusal::UpstreamUnsafe,
            }),
            (true, None) => Err(Refusal::UpstreamFailed),
            (false, _) => Ok(found),
        }
    }

    /// All addresses of a host, every one of which may be dialled.
    async fn allowed(&self, host: &str, reach: Reach) -> Result<Arc<[IpAddr]>, Refused> {
        self.rules.host(host)?;
        let addresses = match host.parse::<IpAddr>() {
            Ok(literal) => Arc::from([literal]),
            Err(_name) => self.addresses(host).await?,
        };
        for address in &*addresses {
            self.rules.address(host, *address, reach)?;
        }
        Ok(addresses)
    }

    async fn addresses(&self, host: &str) -> Result<Arc<[IpAddr]>, Refused> {
        if let Some(known) = self.names.get(host) {
            return Ok(known);
        }
        let answer = tokio::time::timeout(RESOLVE_TIMEOUT, self.resolver.resolve(host)).await;
        let found: Arc<[IpAddr]> = match answer {
            Ok(Ok(addresses)) if !addresses.is_empty() => addresses.into(),
            Ok(Ok(_) | Err(_)) | Err(_) => return Err(Refused::Unresolved(host.to_owned())),
        };
        self.names.insert(host.into(), Arc::clone(&found));
        Ok(found)
    }
}

/// The IPv4 addresses, or the IPv6 ones of a host that has no other: many hosts have IPv6 addresses and no way there.
fn preferred(addresses: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
    let any_v4 = addresses.iter().any(IpAddr::is_ipv4);
    addresses.iter().copied().filter(move |address| address.is_ipv4() || !any_v4)
}
