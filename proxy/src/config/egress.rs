//! `[egress]` and `[federation]`: what may be dialled, checked.

use super::checked::{Checker, usable_host};
use super::file::{FileEgress, FileFederation};
use super::{EgressConfig, FederationConfig, HostPattern, IpNet};
use crate::egress::never;

impl Checker<'_> {
    pub(super) fn egress(&mut self, file: &FileEgress) -> EgressConfig {
        let mut hosts = Vec::new();
        for text in &file.hosts {
            let (below, name) = text.strip_prefix("*.").map_or((false, text.as_str()), |name| (true, name));
            match usable_host(name) {
                Some(host) if !(below && host.parse::<std::net::IpAddr>().is_ok()) => {
                    hosts.push(HostPattern { name: bare(&host), below });
                }
                _ => self.add(
                    "egress_hosts",
                    &["egress", "hosts"],
                    "this is no host",
                    format!("\"{text}\""),
                    "a host name or address without port, or \"*.example.com\" for every name below one",
                    "",
                ),
            }
        }
        let networks = file.networks.as_ref().map(|texts| self.networks(texts));
        let path = |(name, file): (&String, &String)| {
            (name.clone(), self.path(&["egress", "authorities", name], file))
        };
        let authorities = file.authorities.iter().map(path).collect();
        EgressConfig { hosts, networks, authorities }
    }

    fn networks(&mut self, texts: &[String]) -> Vec<IpNet> {
        let path = ["egress", "networks"];
        let mut networks = Vec::new();
        for text in texts {
            match text.parse::<IpNet>() {
                Ok(network) if never(network.addr()) => self.add(
                    "egress_network_never",
                    &path,
                    "no setting opens this network",
                    format!("\"{text}\""),
                    "the networks that are meant, such as \"10.20.0.0/16\"",
                    "link-local, metadata, multicast and unspecified addresses are never dialled",
                ),
                Ok(network) => networks.push(network),
                Err(problem) => self.add(
                    "egress_network",
                    &path,
                    &format!("this is no network: {problem}"),
                    format!("\"{text}\""),
                    "a network such as \"10.20.0.0/16\" or \"fd12:3456::/32\", or one address",
                    "",
                ),
            }
        }
        networks
    }

    pub(super) fn federation(&mut self, file: &FileFederation) -> FederationConfig {
        let mut private_hosts = Vec::new();
        for text in &file.private_hosts {
            match usable_host(text) {
                Some(host) => private_hosts.push(bare(&host)),
                None => self.add(
                    "private_host",
                    &["federation", "private_hosts"],
                    "this is no host",
                    format!("\"{text}\""),
                    "a host name or address without port, as in the issuer's `jwks_url`",
                    "",
                ),
            }
        }
        let ca_file = file.ca_file.as_deref().map(|path| self.path(&["federation", "ca_file"], path));
        FederationConfig { private_hosts, ca_file }
    }
}

fn bare(host: &str) -> String {
    host.trim_matches(['[', ']']).to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::parse;

    fn read(egress: &str) -> Result<super::EgressConfig, Vec<&'static str>> {
        let text = format!("schema = 1\n[egress]\n{egress}\n[zones.z]\n");
        let codes = |report: caracal_policies::Report| report.problems.iter().map(|one| one.code).collect();
        parse("caracal.toml", &text, Path::new(".")).map(|config| config.egress).map_err(codes)
    }

    #[test]
    fn hosts_are_names_addresses_or_everything_below_a_name() {
        let hosts =
            read("hosts = [\"API.example.com.\", \"*.internal\", \"[::1]\", \"10.0.0.1\"]").unwrap().hosts;
        for (host, expected) in [
            ("api.example.com", true),
            ("x.api.example.com", false),
            ("db.internal", true),
            ("a.b.internal", true),
            ("internal", false),
            ("notinternal", false),
            ("::1", true),
            ("10.0.0.1", true),
            ("10.0.0.2", false),
        ] {
            assert_eq!(hosts.iter().any(|pattern| pattern.matches(host)), expected, "{host}");
        }
        for bad in ["", "*", "*.", "a:443", "https://a", "*.10.0.0.1", "a.*.b"] {
            assert_eq!(read(&format!("hosts = [\"{bad}\"]")).unwrap_err(), ["egress_hosts"], "{bad}");
        }
    }

    #[test]
    fn a_network_that_is_never_dialled_cannot_be_listed() {
        assert!(read("").unwrap().networks.is_none());
        assert_eq!(read("networks = []").unwrap().networks.unwrap(), []);
        assert_eq!(read("networks = [\"10.0.0.0/8\", \"fd12::/16\"]").unwrap().networks.unwrap().len(), 2);
        for never in ["169.254.0.0/16", "169.254.169.254", "fe80::/10", "224.0.0.0/4", "0.0.0.0/0", "::/0"] {
            let codes = read(&format!("networks = [\"{never}\"]")).unwrap_err();
            assert_eq!(codes, ["egress_network_never"], "{never}");
        }
        assert_eq!(read("networks = [\"10.0.0.1/8\"]").unwrap_err(), ["egress_network"]);
    }
}
