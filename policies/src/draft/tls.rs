//! `tls` of a resource.

use super::oauth::read_certificate;
use super::providers::parse_secret;
use super::{NAME, checked};
use crate::names;
use crate::read::Section;
use crate::report::Problem;
use crate::resource::{ClientCertificate, UpstreamTls};
use crate::upstream::{Scheme, Upstream};

/// Keys of `tls`.
pub(crate) const KEYS: [&str; 4] = ["server_name", "ca", "client_certificate", "client_key"];

/// Reads what a resource says about TLS to its upstream.
pub(super) fn read(resource: &Section<'_>, upstream: Option<&Upstream>) -> UpstreamTls {
    let Some(entry) = resource.entry("tls") else { return UpstreamTls::default() };
    let place = entry.place();
    let Some(section) = entry.section("tls", format!("`tls` of {}", resource.what()).into()) else {
        return UpstreamTls::default();
    };
    section.only(&KEYS);
    if upstream.is_some_and(|upstream| upstream.scheme == Scheme::Http) {
        let what = format!("{} has no use: its upstream is spoken to without TLS", section.what());
        section.report(
            Problem::new("tls_unused", &place, what)
                .found("an `http` upstream")
                .expected("it only with an `https` upstream")
                .hint("write the upstream's URL with `https`, or remove `tls`"),
        );
    }
    let named = |key: &str, is: fn(&str) -> bool, expected: &'static str| {
        section.text(key).and_then(|text| checked(&section, key, text, is, expected))
    };
    let server_name = named("server_name", names::is_host, "a lower-case host name without port");
    let authorities = named("ca", names::is_name, NAME);
    let chain = read_certificate(&section, "client_certificate").flatten();
    let key = section.text("client_key").and_then(|text| parse_secret(&section, "client_key", &text));
    for (one, other) in [("client_certificate", "client_key"), ("client_key", "client_certificate")] {
        if section.has(one) && !section.has(other) {
            section.needed(other);
        }
    }
    UpstreamTls {
        server_name: server_name.map(|name| name.value),
        authorities: authorities.map(|name| name.value.to_string()),
        client: chain.zip(key).map(|(chain, key)| ClientCertificate { chain, key }),
        place: Some(place),
    }
}
