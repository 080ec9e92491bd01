//! [`Permit`] to [`Credential`]: what is injected on the way to the upstream.
//!
//! The secret's own list of zones and destinations is checked against the host that will be dialled, on every
//! request; a bundle cannot send a secret anywhere its owner did not name.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caracal_mandates::{Claims, SubjectType};
use caracal_plugins::Scrubber;
use caracal_policies::{Consent, Permit, Provider, ProviderKind, Resource, Scheme, SecretRef, ServiceToken};
use http::{HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::refusal::Refusal;
use crate::app::App;
use crate::authority::exchange;
use crate::broker::{Held, Order, Unavailable};
use crate::secrets::{Dial, Secret};
use crate::snapshot::Snapshot;
use crate::state::{Connection, ConnectionKey, ConnectionStatus, SHARED_SUBJECT};

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
    /// What looks for all of these, where there is one that other requests use too.
    pub scrubber: Option<Arc<Scrubber>>,
    /// Keyed fingerprint of the injected secret, for the ledger.
    pub fingerprint: Option<String>,
    /// The access token it was made from, where one was fetched.
    pub held: Option<Held>,
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

/// Fetches the credential for one permitted call to `address`. Waits only for an access token that is not there yet.
///
/// # Errors
/// [`Refusal::CredentialUnavailable`] when the secret is unknown or may not go there, or a mandate for the
/// upstream cannot be signed; a refusal that names the provider when there is no access token.
pub async fn lookup(
    app: &App,
    snapshot: &Arc<Snapshot>,
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
            let secret = secret(snapshot, &claims.zone_id, provider, resource, address)?;
            kept(bearer(name, scheme.as_deref().unwrap_or_default(), secret.expose())?, secret)
        }
        ProviderKind::ApiKeyQuery { param } => {
            let secret = secret(snapshot, &claims.zone_id, provider, resource, address)?;
            let encoded =
                percent_encoding::utf8_percent_encode(secret.expose(), percent_encoding::NON_ALPHANUMERIC);
            let query = Some((param.clone(), Zeroizing::new(encoded.to_string())));
            let searched = vec![Zeroizing::new(secret.expose().to_owned())];
            kept(Credential { query, searched, ..Credential::default() }, secret)
        }
        ProviderKind::BearerToken { header, scheme } => {
            let secret = secret(snapshot, &claims.zone_id, provider, resource, address)?;
            kept(bearer(header, scheme, secret.expose())?, secret)
        }
        ProviderKind::HttpBasic { username } => {
            let secret = secret(snapshot, &claims.zone_id, provider, resource, address)?;
            let pair = Zeroizing::new(format!("{username}:{}", secret.expose()));
            let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
            let mut basic = bearer("authorization", "Basic", &encoded)?;
            basic.searched.push(Zeroizing::new(secret.expose().to_owned()));
            Credential { fingerprint: Some(secret.fingerprint()), ..basic }
        }
        ProviderKind::ServiceToken(token) => {
            may_receive(snapshot, &claims.zone_id, provider, resource, address)?;
            let order = order(snapshot, &claims.zone_id, provider)?;
            let order = match token.consent() {
                None => order,
                Some(consent) => {
                    Order { connection: Some(connection(app, &order, consent, claims)?), ..order }
                }
            };
            with_token(token, app.broker.token(&order).await.map_err(unavailable)?)?
        }
    };
    if provider.forward_caracal_identity && provider.kind != ProviderKind::CaracalMandate {
        let mandate = identity(app, claims, resource)?;
        credential.identity = Some(sensitive(&mandate)?);
        credential.searched.push(mandate);
        credential.scrubber = None;
    }
    Ok(credential)
}

fn identity(app: &App, claims: &Claims, resource: &Resource) -> Result<Zeroizing<String>, Refusal> {
    exchange::mint_resource(app, claims, resource, app.clock.now())
        .map(Zeroizing::new)
        .map_err(|_reason| Refusal::CredentialUnavailable)
}

/// The access token in its header.
pub(crate) fn with_token(token: &ServiceToken, held: Held) -> Result<Credential, Refusal> {
    let credential = bearer(&token.header, &token.scheme, held.token.expose())?;
    let (fingerprint, scrubber) = (Some(held.token.fingerprint.to_string()), held.token.scrubber());
    Ok(Credential { fingerprint, scrubber, held: Some(held), ..credential })
}

/// Whose token is wanted, on what this request consults.
pub(crate) fn order(
    snapshot: &Arc<Snapshot>,
    zone: &str,
    provider: &Arc<Provider>,
) -> Result<Order, Refusal> {
    let (zone, _) = snapshot.zones.get_key_value(zone).ok_or(Refusal::CredentialUnavailable)?;
    Ok(Order {
        snapshot: Arc::clone(snapshot),
        zone: Arc::clone(zone),
        provider: Arc::clone(provider),
        connection: None,
    })
}

/// The subject's own connection. The shared one stands in for an application that has none, and for a person only
/// where the provider says so. One that lapsed is not replaced: nobody acts with another account unawares.
fn connection(
    app: &App,
    order: &Order,
    consent: &Consent,
    claims: &Claims,
) -> Result<Arc<Connection>, Refusal> {
    let find = |subject: &str| {
        let (zone, provider) = (Arc::clone(&order.zone), Arc::clone(&order.provider.identifier));
        let found = app.state.connection(&ConnectionKey { zone, provider, subject: subject.into() });
        found.filter(|connection| connection.status != ConnectionStatus::Revoked)
    };
    let person = claims.sub_type == SubjectType::User;
    let may_share = !person || consent.shared_fallback;
    // A person whose identity provider calls them as an application, or as what is shared, is neither.
    let zone = order.snapshot.zones.get(&order.zone);
    let taken = claims.sub == SHARED_SUBJECT
        || (person && zone.is_none_or(|live| live.zone.application(&claims.sub).is_some()));
    let own = if taken { None } else { find(&claims.sub) };
    let found = own.or_else(|| may_share.then(|| find(SHARED_SUBJECT)).flatten());
    found.ok_or(Refusal::CredentialNotProvisioned)
}

/// A token may go where the secrets may that it was got with, and never unencrypted to another host.
fn may_receive(
    snapshot: &Snapshot,
    zone: &str,
    provider: &Provider,
    resource: &Resource,
    address: IpAddr,
) -> Result<(), Refusal> {
    if resource.upstream.scheme == Scheme::Http && !address.is_loopback() {
        return Err(Refusal::CredentialUnavailable);
    }
    for reference in provider.secrets() {
        allowed(snapshot, zone, reference, resource, address)?;
    }
    Ok(())
}

const fn unavailable(why: Unavailable) -> Refusal {
    match why {
        Unavailable::Secret => Refusal::CredentialUnavailable,
        Unavailable::NotAddressable => Refusal::ProviderNotAddressable,
        Unavailable::Unreachable => Refusal::ProviderUnavailable,
        Unavailable::Refused => Refusal::ProviderRefused,
        Unavailable::Limited => Refusal::ProviderRateLimited,
        Unavailable::Malformed => Refusal::ProviderAnswerInvalid,
        Unavailable::Open => Refusal::ProviderCircuitOpen,
        Unavailable::NotConnected => Refusal::CredentialNotProvisioned,
        Unavailable::Lapsed => Refusal::CredentialLapsed,
    }
}

fn secret<'a>(
    snapshot: &'a Snapshot,
    zone: &str,
    provider: &Provider,
    resource: &Resource,
    address: IpAddr,
) -> Result<&'a Secret, Refusal> {
    let reference = provider.secret.as_ref().ok_or(Refusal::CredentialUnavailable)?;
    allowed(snapshot, zone, reference, resource, address)
}

/// A secret, if it may be used with the resource's upstream at this address.
pub(crate) fn allowed<'a>(
    snapshot: &'a Snapshot,
    zone: &str,
    reference: &SecretRef,
    resource: &Resource,
    address: IpAddr,
) -> Result<&'a Secret, Refusal> {
    let lookup = |host: &str, port: u16| {
        let (scheme, loopback) = (resource.upstream.scheme, address.is_loopback());
        let dial = Dial { scheme, host, port, loopback };
        let found = snapshot.secrets.get(zone, &reference.name, &reference.key, &dial);
        found.map_err(|_reason| Refusal::CredentialUnavailable)
    };
    // The secret goes to each target, and to whoever answers to `server_name`.
    for (host, port) in resource.destinations() {
        lookup(host, port)?;
    }
    lookup(&resource.upstream.host, resource.upstream.port)
}

fn bearer(header: &str, scheme: &str, secret: &str) -> Result<Credential, Refusal> {
    let name = HeaderName::from_bytes(header.as_bytes()).map_err(|_reason| Refusal::CredentialUnavailable)?;
    let value = if scheme.is_empty() {
        sensitive(secret)?
    } else {
        sensitive(&Zeroizing::new(format!("{scheme} {secret}")))?
    };
    let searched = vec![Zeroizing::new(secret.to_owned())];
    Ok(Credential { header: Some((name, value)), searched, ..Credential::default() })
}

fn sensitive(text: &str) -> Result<HeaderValue, Refusal> {
    let mut value = HeaderValue::from_str(text).map_err(|_reason| Refusal::CredentialUnavailable)?;
    value.set_sensitive(true);
    Ok(value)
}

/// A credential made of one secret as it is.
fn kept(credential: Credential, secret: &Secret) -> Credential {
    Credential { fingerprint: Some(secret.fingerprint()), scrubber: secret.scrubber(), ..credential }
}

#[cfg(test)]
mod tests;
