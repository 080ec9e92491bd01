//! What of providers counts for the digest.

use super::Canon;
use crate::oauth::{Consent, Grant, ServiceToken};
use crate::provider::{KeySlot, Provider, ProviderKind, SecretRef};

impl Canon {
    pub(super) fn provider(&mut self, provider: &Provider) {
        let Provider {
            id,
            identifier,
            kind,
            secret,
            private_key,
            forward_caracal_identity,
            key_slots,
            place: _,
        } = provider;
        self.text(id);
        self.text(identifier);
        self.kind(kind);
        self.list(secret, Self::secret);
        // Only where there can be one, so that zones without them keep their digest.
        if provider.service_token().is_some() {
            self.list(private_key, Self::secret);
        }
        self.flag(*forward_caracal_identity);
        let mut slots: Vec<&KeySlot> = key_slots.iter().collect();
        slots.sort_unstable();
        self.list(slots, |canon, slot| canon.text(&slot.to_string()));
    }

    fn kind(&mut self, kind: &ProviderKind) {
        self.text(kind.word());
        match kind {
            ProviderKind::None | ProviderKind::CaracalMandate => {}
            ProviderKind::ApiKeyHeader { name, scheme } => {
                self.text("header");
                self.text(name);
                self.list(scheme, |canon, scheme| canon.text(scheme));
            }
            ProviderKind::ApiKeyQuery { param } => {
                self.text("query");
                self.text(param);
            }
            ProviderKind::BearerToken { header, scheme } => {
                self.text(header);
                self.text(scheme);
            }
            ProviderKind::HttpBasic { username } => self.text(username),
            ProviderKind::ServiceToken(token) => self.service_token(token),
        }
    }

    pub(super) fn secret(&mut self, secret: &SecretRef) {
        self.text(&secret.name);
        self.text(&secret.key);
    }

    fn service_token(&mut self, token: &ServiceToken) {
        let ServiceToken {
            source,
            client_id,
            authentication,
            grant,
            scopes,
            audience,
            resource,
            key_id,
            certificate,
            params,
            header,
            scheme,
        } = token;
        self.text(source.word());
        self.text(source.url().as_str());
        self.text(client_id);
        self.text(authentication.word());
        self.text(grant.word());
        if let Grant::JwtBearer { subject, audience } = grant {
            self.list(subject, |canon, subject| canon.text(subject));
            self.list(audience, |canon, audience| canon.text(audience));
        }
        if let Some(consent) = token.consent() {
            self.consent(consent);
        }
        self.list(scopes, |canon, scope| canon.text(scope));
        for optional in [audience, resource, key_id, certificate] {
            self.list(optional, |canon, text| canon.text(text));
        }
        self.list(params, |canon, (name, value)| {
            canon.text(name);
            canon.text(value);
        });
        self.text(header);
        self.text(scheme);
    }

    fn consent(&mut self, consent: &Consent) {
        let Consent { authorization_endpoint, revocation_endpoint, params, shared_fallback } = consent;
        for endpoint in [authorization_endpoint, revocation_endpoint] {
            self.list(endpoint, |canon, url| canon.text(url.as_str()));
        }
        self.list(params, |canon, (name, value)| {
            canon.text(name);
            canon.text(value);
        });
        self.flag(*shared_fallback);
    }
}
