//! TLS to upstreams that want more than the usual: authorities of the operator's, a certificate of ours.
//!
//! Pingora tells pooled connections apart by address, name and the serial number of our certificate, which is not enough:
//! a connection on which another authority was believed, or another certificate with the same serial shown, would be
//! handed on. The group of a connection is therefore made from all of it.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use caracal_policies::Resource;
use moka::sync::Cache;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls_pki_types::CertificateDer;

use crate::egress::Egress;
use crate::gate::refusal::Refusal;
use crate::gate::{credential, forward};
use crate::snapshot::Snapshot;
use crate::trust::{self, ClientPair};

const KEPT: u64 = 10_000;
const KEPT_FOR: Duration = Duration::from_secs(600);

/// What a connection to one resource's upstream is secured with.
pub(super) struct Secured {
    authorities: Option<Arc<CaType>>,
    client: Option<Arc<CertKey>>,
    group: u64,
}

impl Secured {
    /// Makes the peer one of this group.
    fn apply(&self, peer: &mut HttpPeer) {
        peer.options.ca.clone_from(&self.authorities);
        peer.client_cert_key.clone_from(&self.client);
        peer.group_key = self.group;
    }
}

/// A connection to this address, for this resource's upstream. Times and protocol are the caller's.
pub(super) fn peer(address: SocketAddr, resource: &Resource, secured: Option<&Secured>) -> HttpPeer {
    let name = resource.tls.server_name.as_ref().unwrap_or(&resource.upstream.host);
    let mut peer = HttpPeer::new(address, forward::tls(resource), name.to_string());
    if let Some(secured) = secured {
        secured.apply(&mut peer);
    }
    peer
}

/// Zone, resource, and the generation of bundles and secrets they are from.
type Key = (Arc<str>, Arc<str>, u64);

/// Keeps what was put together, for as long as bundles and secrets are the same.
pub struct SecuredCache(Cache<Key, Arc<Secured>>);

impl Default for SecuredCache {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(KEPT).time_to_idle(KEPT_FOR).build())
    }
}

impl std::fmt::Debug for SecuredCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecuredCache")
    }
}

impl SecuredCache {
    /// What the resource's connections are secured with; nothing where the usual will do.
    ///
    /// # Errors
    /// [`Refusal::CredentialUnavailable`] when the key may not be used with this upstream, or what the resource names
    /// is not there.
    pub(super) fn find(
        &self,
        egress: &Egress,
        snapshot: &Snapshot,
        zone: &Arc<str>,
        resource: &Resource,
        address: std::net::IpAddr,
    ) -> Result<Option<Arc<Secured>>, Refusal> {
        let tls = &resource.tls;
        if tls.authorities.is_none() && tls.client.is_none() {
            return Ok(None);
        }
        // Where the key may be used is looked at on every use.
        let client = match &tls.client {
            Some(client) => {
                let key = credential::allowed(snapshot, zone, &client.key, resource, address)?;
                Some((&client.chain, key.expose()))
            }
            None => None,
        };
        let key = (Arc::clone(zone), Arc::clone(&resource.identifier), snapshot.generation);
        if let Some(known) = self.0.get(&key) {
            return Ok(Some(known));
        }
        let missing = Refusal::CredentialUnavailable;
        let authorities = match &tls.authorities {
            Some(name) => Some(egress.authorities(name).ok_or(missing)?),
            None => None,
        };
        let pair = client.map(|(chain, key)| trust::client_pair(chain, key)).transpose();
        let pair = pair.map_err(|_told_at_load| missing)?;
        // The parser panics on what it cannot read. All of it was read by another one before.
        let made = catch_unwind(AssertUnwindSafe(|| put_together(authorities.map(AsRef::as_ref), pair)));
        let made = Arc::new(made.map_err(|_panic| missing)?);
        self.0.insert(key, Arc::clone(&made));
        Ok(Some(made))
    }
}

fn put_together(authorities: Option<&[CertificateDer<'static>]>, client: Option<ClientPair>) -> Secured {
    let mut digest = Context::new(&SHA256);
    let mut part = |bytes: &[u8]| {
        digest.update(&bytes.len().to_be_bytes());
        digest.update(bytes);
    };
    for certificate in authorities.unwrap_or_default() {
        part(certificate);
    }
    part(b"client");
    if let Some(pair) = &client {
        pair.chain.iter().for_each(|certificate| part(certificate));
        part(pair.key.secret_der());
    }
    let group = digest.finish();
    let group = group.as_ref().first_chunk().map_or(u64::MAX, |first| u64::from_be_bytes(*first));
    let parsed = |certificate: &CertificateDer<'_>| WrappedX509::new(certificate.to_vec(), parse_x509);
    Secured {
        authorities: authorities.map(|all| all.iter().map(parsed).collect()),
        client: client.map(|ClientPair { chain, key }| {
            let chain = chain.iter().map(|certificate| certificate.to_vec()).collect();
            Arc::new(CertKey::new(chain, key.secret_der().to_vec()))
        }),
        group,
    }
}
