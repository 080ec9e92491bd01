//! What an application needs to know to make a governed call, put together from zones and listeners.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use caracal_policies::{Resource, Scheme, Zone};
use serde::{Deserialize, Serialize};

use super::Failure;

/// Where the three services are that an application calls; base URLs without a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The issuer, which is also the base URL of the token endpoint.
    pub issuer: String,
    /// The coordinator.
    pub coordinator: String,
    /// The gateway.
    pub gateway: String,
}

/// What one application needs for a governed call; the answer to [`super::Request::Application`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplicationView {
    /// Where to call.
    pub endpoints: Endpoints,
    /// The application's zone.
    pub zone: String,
    /// The application's id.
    pub application: String,
    /// The resources some grant gives it, by identifier.
    pub resources: Vec<ResourceView>,
}

/// One resource as its callers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceView {
    /// The identifier, such as `resource://echo`.
    pub identifier: String,
    /// The upstream URL whose calls are to go through the gateway.
    pub upstream: String,
    /// Every scope the resource declares, granted or not.
    pub scopes: Vec<String>,
}

impl ApplicationView {
    /// Finds `application` in `zone`, or in whichever single zone has it.
    ///
    /// # Errors
    /// `unknown_application` when no zone asked for has it; `zone_needed` when several have it and none was named.
    pub fn find<'a>(
        endpoints: Endpoints,
        zones: impl Iterator<Item = &'a Zone>,
        zone: Option<&str>,
        application: &str,
    ) -> Result<Self, Failure> {
        let having: Vec<&Zone> = zones
            .filter(|candidate| zone.is_none_or(|wanted| wanted == &**candidate.id()))
            .filter(|candidate| candidate.application(application).is_some())
            .collect();
        match having.as_slice() {
            [only] => Ok(Self::of(endpoints, only, application)),
            [] => {
                let place = zone.map_or_else(|| "any zone".to_owned(), |zone| format!("zone `{zone}`"));
                let text = format!("there is no application `{application}` in {place}");
                Err(Failure::new("unknown_application", text))
            }
            several => {
                let names: Vec<&str> = several.iter().map(|zone| &**zone.id()).collect();
                let text = format!(
                    "`{application}` is in several zones; name one with --zone: {}",
                    names.join(", ")
                );
                Err(Failure::new("zone_needed", text))
            }
        }
    }

    fn of(endpoints: Endpoints, zone: &Zone, application: &str) -> Self {
        let granted =
            |resource: &&std::sync::Arc<Resource>| zone.granted_somewhere(application, &resource.identifier);
        Self {
            endpoints,
            zone: zone.id().to_string(),
            application: application.to_owned(),
            resources: zone.resources().filter(granted).map(|resource| ResourceView::of(resource)).collect(),
        }
    }
}

impl ResourceView {
    fn of(resource: &Resource) -> Self {
        let scheme = match resource.upstream.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        Self {
            identifier: resource.identifier.to_string(),
            upstream: format!("{scheme}://{}{}", resource.upstream.authority(), resource.upstream.base_path),
            scopes: resource.scopes.iter().map(ToString::to_string).collect(),
        }
    }
}

/// The base URL under which a listener is reached from its own machine.
#[must_use]
pub fn base_url(address: SocketAddr, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    // Every address is a place to listen at, not a place to call.
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        named @ (IpAddr::V4(_) | IpAddr::V6(_)) => named,
    };
    format!("{scheme}://{}", SocketAddr::new(host, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_reached_at_an_address_that_can_be_called() {
        let url = |address: &str, tls| base_url(address.parse().unwrap(), tls);
        assert_eq!(url("127.0.0.1:8081", false), "http://127.0.0.1:8081");
        assert_eq!(url("0.0.0.0:443", true), "https://127.0.0.1:443");
        assert_eq!(url("[::]:8081", false), "http://[::1]:8081");
        assert_eq!(url("[2001:db8::1]:8081", true), "https://[2001:db8::1]:8081");
    }
}
