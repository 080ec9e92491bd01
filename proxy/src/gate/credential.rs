//! [`Permit`] to [`Credential`]: what is injected on the way to the upstream.
//!
//! The secret's own list of zones and destinations is checked against the host that will be dialled, on every
//! request; a bundle cannot send a secret anywhere its owner did not name.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caracal_mandates::Claims;
use caracal_policies::{Permit, Provider, ProviderKind, Resource};
use http::{HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::refusal::Refusal;
use crate::app::App;
use crate::authority::exchange;
use crate::secrets::Dial;
use crate::snapshot::Snapshot;

/// What the upstream request will carry. Never printed.
#[derive(Default)]
pub struct Credential {
    /// A header to set.
    pub header: Option<(HeaderName, HeaderValue)>,
    /// A query pair to add: the raw parameter name and the percent-encoded value.
    pub query: Option<(String, Zeroizing<String>)>,
    /// `X-Caracal-Identity`, where the provider asks for it.
    pub identity: Option<HeaderValue>,
    /// The bare secrets, for scrubbing responses.
    pub searched: Vec<Zeroizing<String>>,
    /// Keyed fingerprint of the injected secret, for the ledger.
    pub fingerprint: Option<String>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl Credential {
    /// Whether anything goes upstream that the upstream could turn into a login of its own.
    #[must_use]
    pub const fn injects(&self) -> bool {
        self.header.is_some() || self.query.is_some() || self.identity.is_some()
    }
}

/// Fetches the credential for one permitted call to `address`.
///
/// # Errors
/// [`Refusal::CredentialUnavailable`] when the secret is unknown or may not go there, or a mandate for the
/// upstream cannot be signed.
pub fn lookup(
    app: &App,
    snapshot: &Snapshot,
    permit: &Permit,
    claims: &Claims,
    address: IpAddr,
) -> Result<Credential, Refusal> {
    let resource = permit.resource();
    let Some(provider) = &resource.provider else {
        return identity(app, claims, resource)
            .and_then(|mandate| bearer("authorization", "Bearer", &mandate));
    };
    let mut credential = match &provider.kind {
        ProviderKind::None => Credential::default(),
        ProviderKind::CaracalMandate => bearer("authorization", "Bearer", &identity(app, claims, resource)?)?,
        ProviderKind::ApiKeyHeader { name, scheme } => {
            let (secret, fingerprint) = secret(snapshot, &claims.zone_id, provider, resource, address)?;
            with_fingerprint(bearer(name, scheme.as_deref().unwrap_or_default(), &secret)?, fingerprint)
        }
        ProviderKind::ApiKeyQuery { param } => {
            let (secret, fingerprint) = secret(snapshot, &claims.zone_id, provider, resource, address)?;
            let encoded = percent_encoding::utf8_percent_encode(&secret, percent_encoding::NON_ALPHANUMERIC);
            let query = Some((param.clone(), Zeroizing::new(encoded.to_string())));
            with_fingerprint(
                Credential { query, searched: vec![secret], ..Credential::default() },
                fingerprint,
            )
        }
        ProviderKind::BearerToken { header, scheme } => {
            let (secret, fingerprint) = secret(snapshot, &claims.zone_id, provider, resource, address)?;
            with_fingerprint(bearer(header, scheme, &secret)?, fingerprint)
        }
        ProviderKind::HttpBasic { username } => {
            let (secret, fingerprint) = secret(snapshot, &claims.zone_id, provider, resource, address)?;
            let pair = Zeroizing::new(format!("{username}:{}", *secret));
            let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
            let mut basic = bearer("authorization", "Basic", &encoded)?;
            basic.searched.push(secret);
            with_fingerprint(basic, fingerprint)
        }
    };
    if provider.forward_caracal_identity && provider.kind != ProviderKind::CaracalMandate {
        let mandate = identity(app, claims, resource)?;
        credential.identity = Some(sensitive(&mandate)?);
        credential.searched.push(mandate);
    }
    Ok(credential)
}

fn identity(app: &App, claims: &Claims, resource: &Resource) -> Result<Zeroizing<String>, Refusal> {
    exchange::mint_resource(app, claims, resource, app.clock.now())
        .map(Zeroizing::new)
        .map_err(|_reason| Refusal::CredentialUnavailable)
}

fn secret(
    snapshot: &Snapshot,
    zone: &str,
    provider: &Provider,
    resource: &Resource,
    address: IpAddr,
) -> Result<(Zeroizing<String>, String), Refusal> {
    let reference = provider.secret.as_ref().ok_or(Refusal::CredentialUnavailable)?;
    let upstream = &resource.upstream;
    let dial = Dial {
        scheme: upstream.scheme,
        host: &upstream.host,
        port: upstream.port,
        loopback: address.is_loopback(),
    };
    let secret = snapshot
        .secrets
        .get(zone, &reference.name, &reference.key, &dial)
        .map_err(|_reason| Refusal::CredentialUnavailable)?;
    Ok((Zeroizing::new(secret.expose().to_owned()), secret.fingerprint()))
}

fn bearer(header: &str, scheme: &str, secret: &Zeroizing<String>) -> Result<Credential, Refusal> {
    let name = HeaderName::from_bytes(header.as_bytes()).map_err(|_reason| Refusal::CredentialUnavailable)?;
    let text =
        if scheme.is_empty() { secret.clone() } else { Zeroizing::new(format!("{scheme} {}", **secret)) };
    let header = Some((name, sensitive(&text)?));
    Ok(Credential { header, searched: vec![secret.clone()], ..Credential::default() })
}

fn sensitive(text: &str) -> Result<HeaderValue, Refusal> {
    let mut value = HeaderValue::from_str(text).map_err(|_reason| Refusal::CredentialUnavailable)?;
    value.set_sensitive(true);
    Ok(value)
}

fn with_fingerprint(credential: Credential, fingerprint: String) -> Credential {
    Credential { fingerprint: Some(fingerprint), ..credential }
}
