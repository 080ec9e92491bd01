//! Access tokens that the edge fetches itself (RFC 6749, RFC 7523, RFC 7636): from where, as whom, for what.

use std::fmt;

use crate::endpoint::EndpointUrl;

/// How a provider's access token is fetched, and where it goes on the way to the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceToken {
    /// Where it is fetched.
    pub source: TokenSource,
    /// The client that asks.
    pub client_id: String,
    /// How that client proves itself.
    pub authentication: ClientAuthentication,
    /// What it asks with.
    pub grant: Grant,
    /// Scopes asked for, in the order of the bundle.
    pub scopes: Vec<String>,
    /// `audience`, as some servers want it.
    pub audience: Option<String>,
    /// `resource` (RFC 8707).
    pub resource: Option<String>,
    /// `kid` of what is signed.
    pub key_id: Option<String>,
    /// The certificate of the private key in PEM; its thumbprints go into what is signed.
    pub certificate: Option<String>,
    /// More form fields, sorted by name.
    pub params: Vec<(String, String)>,
    /// The header the token goes in, normally `authorization`.
    pub header: String,
    /// Word before the token, normally `Bearer`.
    pub scheme: String,
}

/// Where a token is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// At this token endpoint.
    Endpoint(EndpointUrl),
    /// At the token endpoint that this issuer's metadata names (RFC 8414, OpenID Connect Discovery).
    Issuer(EndpointUrl),
}

/// How a client proves itself at the token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// Its secret, in Basic credentials.
    SecretBasic,
    /// Its secret, in the form.
    SecretPost,
    /// A JWT signed with its private key (RFC 7523 section 2.2).
    PrivateKeyJwt,
    /// Not at all: it only says its name.
    None,
}

/// What is presented for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// The client's own credentials.
    ClientCredentials,
    /// A signed assertion (RFC 7523 section 2.1).
    JwtBearer {
        /// `sub`; the client id by default.
        subject: Option<String>,
        /// `aud`; the token endpoint by default.
        audience: Option<String>,
    },
    /// What a person agreed to at the authorization server (RFC 6749 section 4.1, always with PKCE).
    AuthorizationCode(Consent),
}

/// How a person's agreement is asked for, and for whom it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// Where the person is sent; the issuer's metadata names it where that names the token endpoint.
    pub authorization_endpoint: Option<EndpointUrl>,
    /// Where a token is given back (RFC 7009), as for `authorization_endpoint`.
    pub revocation_endpoint: Option<EndpointUrl>,
    /// More parameters of the authorization request, sorted by name.
    pub params: Vec<(String, String)>,
    /// Whether a person without a connection of their own acts with the shared one.
    pub shared_fallback: bool,
}

impl ServiceToken {
    /// How a person agrees, for the kind that needs one to.
    pub fn consent(&self) -> Option<&Consent> {
        match &self.grant {
            Grant::AuthorizationCode(consent) => Some(consent),
            Grant::ClientCredentials | Grant::JwtBearer { .. } => None,
        }
    }

    /// Whether something has to be signed.
    pub fn signs(&self) -> bool {
        self.authentication == ClientAuthentication::PrivateKeyJwt
            || matches!(self.grant, Grant::JwtBearer { .. })
    }
}

impl TokenSource {
    /// The key bundles use for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Endpoint(_) => "token_endpoint",
            Self::Issuer(_) => "issuer",
        }
    }

    /// The URL the bundle names.
    pub fn url(&self) -> &EndpointUrl {
        match self {
            Self::Endpoint(url) | Self::Issuer(url) => url,
        }
    }
}

impl ClientAuthentication {
    /// The word bundles and the RFCs use.
    pub fn word(self) -> &'static str {
        match self {
            Self::SecretBasic => "client_secret_basic",
            Self::SecretPost => "client_secret_post",
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::None => "none",
        }
    }

    /// Whether the client has a secret to show.
    pub fn has_secret(self) -> bool {
        matches!(self, Self::SecretBasic | Self::SecretPost)
    }
}

impl Grant {
    /// The word bundles use.
    pub fn word(&self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::JwtBearer { .. } => "jwt_bearer",
            Self::AuthorizationCode(_) => "authorization_code",
        }
    }
}

/// For people: everything that decides whose authority the token carries.
impl fmt::Display for ServiceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "in header `{}` after `{}`, by {} at {} `{}` as `{}` with {}",
            self.header,
            self.scheme,
            self.grant.word(),
            self.source.word(),
            self.source.url(),
            self.client_id,
            self.authentication.word()
        )?;
        if let Grant::JwtBearer { subject, audience } = &self.grant {
            for (name, value) in [("subject", subject), ("assertion audience", audience)] {
                if let Some(value) = value {
                    write!(f, ", {name} `{value}`")?;
                }
            }
        }
        if !self.scopes.is_empty() {
            write!(f, ", scopes `{}`", self.scopes.join(" "))?;
        }
        for (name, value) in [("audience", &self.audience), ("resource", &self.resource)] {
            if let Some(value) = value {
                write!(f, ", {name} `{value}`")?;
            }
        }
        for (name, value) in &self.params {
            write!(f, ", {name} `{value}`")?;
        }
        self.consent().map_or(Ok(()), |consent| consent.fmt(f))
    }
}

/// What comes after the rest of its token.
impl fmt::Display for Consent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints =
            [("agreed to at", &self.authorization_endpoint), ("given back at", &self.revocation_endpoint)];
        for (what, url) in endpoints {
            if let Some(url) = url {
                write!(f, ", {what} `{url}`")?;
            }
        }
        for (name, value) in &self.params {
            write!(f, ", authorization {name} `{value}`")?;
        }
        let whose =
            if self.shared_fallback { ", the shared account for people without their own" } else { "" };
        f.write_str(whose)
    }
}
