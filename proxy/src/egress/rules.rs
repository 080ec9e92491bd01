//! What an operator allows to be dialled, and what a bundle names that is not.

use std::net::IpAddr;

use caracal_policies::{Place, Problem, Resource, Scheme, TokenSource, Zone};

use super::class::{Class, Standing, meant};
use crate::config::{Config, EgressConfig};

/// Who dials: what an address may be depends on what is asked there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// A resource's upstream.
    Upstream,
    /// The token endpoint or the metadata of a provider. Unencrypted only on this host.
    TokenEndpoint(Scheme),
    /// The key set of a subject issuer: public, unless its host is listed. Unencrypted only on this host.
    KeySet(Scheme),
    /// A notification sink: on this host, public, or in a network that is listed. Unencrypted only on this host.
    Sink(Scheme),
}

/// Why something is not dialled. Words for the operator: callers are not told addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// No answer from the resolver.
    #[error("the name `{0}` cannot be resolved")]
    Unresolved(String),
    /// The operator lists hosts, and not this one.
    #[error("`{0}` is not in [egress] hosts")]
    Host(String),
    /// No setting allows it.
    #[error("`{host}` is at {address}, which is {class} and never dialled")]
    Never {
        /// The name or address that was to be dialled.
        host: String,
        /// Where it is.
        address: IpAddr,
        /// What that is.
        class: Class,
    },
    /// Its network is not one the operator lists.
    #[error(
        "`{host}` is at {address}, which is {class}; list its network in [egress] networks if it is meant"
    )]
    Network {
        /// The name or address that was to be dialled.
        host: String,
        /// Where it is.
        address: IpAddr,
        /// What that is.
        class: Class,
    },
    /// An issuer's keys are not fetched from inside the network unless the operator lists the host.
    #[error(
        "`{host}` is at {address}, which is {class}; list the host in [federation] private_hosts if it is meant"
    )]
    Inside {
        /// The name or address that was to be dialled.
        host: String,
        /// Where it is.
        address: IpAddr,
        /// What that is.
        class: Class,
    },
    /// Nothing is asked for tokens or keys unencrypted over a network.
    #[error("`{host}` is at {address}, which is not this host, and the URL is plain http")]
    Plaintext {
        /// The name or address that was to be dialled.
        host: String,
        /// Where it is.
        address: IpAddr,
    },
}

/// The operator's rules.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    egress: EgressConfig,
    private_hosts: Vec<String>,
}

impl Rules {
    pub(super) fn new(config: &Config) -> Self {
        Self { egress: config.egress.clone(), private_hosts: config.federation.private_hosts.clone() }
    }

    /// Whether the host may be dialled wherever it is.
    pub(super) fn host(&self, host: &str) -> Result<(), Refused> {
        let hosts = &self.egress.hosts;
        if hosts.is_empty() || hosts.iter().any(|pattern| pattern.matches(host)) {
            return Ok(());
        }
        Err(Refused::Host(host.to_owned()))
    }

    /// Whether this address of the host may be dialled.
    pub(super) fn address(&self, host: &str, address: IpAddr, reach: Reach) -> Result<(), Refused> {
        self.network(host, address)?;
        let class = Class::of(address);
        let scheme = match reach {
            Reach::Upstream => return Ok(()),
            Reach::TokenEndpoint(scheme) => scheme,
            Reach::Sink(scheme) => {
                let near = class == Class::Loopback || class.standing() == Standing::Public;
                if !near && !self.listed(address) {
                    return Err(Refused::Network { host: host.to_owned(), address, class });
                }
                scheme
            }
            Reach::KeySet(scheme) => {
                let listed = self.private_hosts.iter().any(|listed| listed == host);
                if class.standing() != Standing::Public && !listed {
                    return Err(Refused::Inside { host: host.to_owned(), address, class });
                }
                scheme
            }
        };
        if scheme == Scheme::Http && class != Class::Loopback {
            return Err(Refused::Plaintext { host: host.to_owned(), address });
        }
        Ok(())
    }

    fn network(&self, host: &str, address: IpAddr) -> Result<(), Refused> {
        let class = Class::of(address);
        let allowed = match class.standing() {
            Standing::Never => return Err(Refused::Never { host: host.to_owned(), address, class }),
            Standing::Public => true,
            Standing::Inside => self.egress.networks.is_none() || self.listed(address),
            Standing::Odd => self.listed(address),
        };
        if allowed { Ok(()) } else { Err(Refused::Network { host: host.to_owned(), address, class }) }
    }

    /// Whether the operator lists the address's network.
    fn listed(&self, address: IpAddr) -> bool {
        let networks = self.egress.networks.as_deref().unwrap_or_default();
        networks.iter().any(|network| network.contains(address) || network.contains(meant(address)))
    }

    /// What can be told without asking a resolver.
    fn written(&self, host: &str) -> Result<(), Refused> {
        self.host(host)?;
        host.parse().map_or(Ok(()), |address| self.network(host, address))
    }
}

/// Checks the hosts a bundle names, as far as that can be told before one is resolved.
#[must_use]
pub fn check_bundle(zone: &Zone, config: &Config) -> Vec<Problem> {
    let rules = Rules::new(config);
    let mut problems = Vec::new();
    for resource in zone.resources() {
        for (host, _) in resource.places() {
            problems.extend(problem(&rules, host, &resource.place, "the upstream"));
        }
        problems.extend(unknown_authorities(resource, config));
    }
    for provider in zone.providers() {
        let Some(token) = provider.service_token() else { continue };
        let (TokenSource::Endpoint(url) | TokenSource::Issuer(url)) = &token.source;
        problems.extend(problem(&rules, url.host(), &provider.place, "the token endpoint or issuer"));
        if let Some(url) = token.consent().and_then(|consent| consent.revocation_endpoint.as_ref()) {
            problems.extend(problem(&rules, url.host(), &provider.place, "the revocation endpoint"));
        }
    }
    for issuer in zone.subject_issuers() {
        problems.extend(problem(&rules, issuer.jwks_url.host(), &issuer.place, "the key set"));
    }
    problems
}

fn unknown_authorities(resource: &Resource, config: &Config) -> Option<Problem> {
    let name = resource.tls.authorities.as_ref()?;
    let known = &config.egress.authorities;
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    (!known.contains_key(name)).then(|| Problem {
        code: "tls_ca",
        place: resource.tls.place.clone().unwrap_or_else(|| resource.place.clone()),
        message: format!(
            "resource `{}` names certificate authorities that are not there",
            resource.identifier
        ),
        found: format!("`{name}`"),
        expected: format!("a name of [egress.authorities] in caracal.toml: {}", names.join(", ")),
        hint: "the operator decides whom the edge believes".to_owned(),
    })
}

fn problem(rules: &Rules, host: &str, place: &Place, what: &str) -> Option<Problem> {
    let refused = rules.written(host).err()?;
    let (code, expected) = if matches!(refused, Refused::Host(_)) {
        ("egress_host", "a host that [egress] hosts of caracal.toml lists")
    } else {
        ("egress_address", "an address that may be dialled")
    };
    Some(Problem {
        code,
        place: place.clone(),
        message: format!("{what} may not be dialled"),
        found: refused.to_string(),
        expected: expected.to_owned(),
        hint: "only the operator can widen what is dialled".to_owned(),
    })
}
