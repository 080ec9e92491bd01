//! Providers: which credential a resource's upstream wants, and where it goes.

use std::fmt;
use std::sync::Arc;

use crate::oauth::ServiceToken;
use crate::report::Place;

/// How calls to a resource are given their credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Row id; the identifier when the bundle gives none.
    pub id: Arc<str>,
    /// `provider://<name>`.
    pub identifier: Arc<str>,
    /// What the upstream wants.
    pub kind: ProviderKind,
    /// The secret it is made from; present exactly for the kinds that need one.
    pub secret: Option<SecretRef>,
    /// The private key assertions are signed with, in PEM; only for tokens that are fetched.
    pub private_key: Option<SecretRef>,
    /// Whether the upstream also gets a resource mandate in `X-Caracal-Identity`.
    pub forward_caracal_identity: bool,
    /// Where unmodified clients of this kind put their key, and so may put the mandate. Those of the kind first.
    pub key_slots: Vec<KeySlot>,
    /// Where it is declared.
    pub place: Place,
}

/// The kinds of credential. Header names are lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderKind {
    /// The upstream wants none.
    None,
    /// The upstream verifies a resource mandate of ours.
    CaracalMandate,
    /// An API key in a header, after a scheme word if there is one.
    ApiKeyHeader {
        /// Header name.
        name: String,
        /// Word before the key.
        scheme: Option<String>,
    },
    /// An API key in the query.
    ApiKeyQuery {
        /// Decoded parameter name.
        param: String,
    },
    /// A bearer token in a header.
    BearerToken {
        /// Header name, normally `authorization`.
        header: String,
        /// Word before the token, normally `Bearer`.
        scheme: String,
    },
    /// RFC 7617 Basic credentials; the secret is the password.
    HttpBasic {
        /// User name; never holds a colon.
        username: String,
    },
    /// An access token that the edge fetches from a token endpoint: with credentials of its own, or with what a
    /// person agreed to.
    ServiceToken(Box<ServiceToken>),
}

/// A place where a client of a provider puts its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeySlot {
    /// The whole value of this header.
    Header(String),
    /// What follows `Bearer ` in this header.
    Bearer(String),
    /// The password of Basic credentials.
    BasicPassword,
    /// The user name of Basic credentials.
    BasicUser,
    /// The value of this query parameter (decoded name).
    Query(String),
}

/// A reference into the secrets file: `secret://<name>/<key>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRef {
    /// Table in the secrets file.
    pub name: String,
    /// Key in that table.
    pub key: String,
    /// Where the reference stands.
    pub place: Place,
}

impl Provider {
    /// Every secret it is made from.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretRef> {
        self.secret.iter().chain(&self.private_key)
    }

    /// How its token is fetched, for the kinds whose token is.
    pub fn service_token(&self) -> Option<&ServiceToken> {
        match &self.kind {
            ProviderKind::ServiceToken(token) => Some(token),
            ProviderKind::None
            | ProviderKind::CaracalMandate
            | ProviderKind::ApiKeyHeader { .. }
            | ProviderKind::ApiKeyQuery { .. }
            | ProviderKind::BearerToken { .. }
            | ProviderKind::HttpBasic { .. } => None,
        }
    }
}

impl ProviderKind {
    /// The word bundles use for this kind.
    pub fn word(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::CaracalMandate => "caracal_mandate",
            Self::ApiKeyHeader { .. } | Self::ApiKeyQuery { .. } => "api_key",
            Self::BearerToken { .. } => "bearer_token",
            Self::HttpBasic { .. } => "http_basic",
            Self::ServiceToken(token) if token.consent().is_some() => "oauth2_authorization_code",
            Self::ServiceToken(_) => "oauth2_client_credentials",
        }
    }

    /// Where unmodified clients of this kind put their key.
    pub(crate) fn slots(&self) -> Vec<KeySlot> {
        match self {
            Self::None => Vec::new(),
            Self::CaracalMandate => vec![KeySlot::Bearer("authorization".to_owned())],
            Self::ApiKeyHeader { name, scheme: None } => vec![KeySlot::Header(name.clone())],
            Self::ApiKeyHeader { name, scheme: Some(scheme) } => bearer_slot(name, scheme),
            Self::ApiKeyQuery { param } => vec![KeySlot::Query(param.clone())],
            Self::BearerToken { header, scheme } => bearer_slot(header, scheme),
            Self::HttpBasic { .. } => vec![KeySlot::BasicUser, KeySlot::BasicPassword],
            Self::ServiceToken(token) => bearer_slot(&token.header, &token.scheme),
        }
    }
}

/// The kind and where the credential goes, for people.
impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match self {
            Self::None | Self::CaracalMandate => Ok(()),
            Self::ApiKeyHeader { name, scheme: None } => write!(f, " in header `{name}`"),
            Self::ApiKeyHeader { name, scheme: Some(scheme) } => {
                write!(f, " in header `{name}` after `{scheme}`")
            }
            Self::ApiKeyQuery { param } => write!(f, " in query parameter `{param}`"),
            Self::BearerToken { header, scheme } => write!(f, " in header `{header}` after `{scheme}`"),
            Self::HttpBasic { username } => write!(f, " as user `{username}`"),
            Self::ServiceToken(token) => write!(f, " {token}"),
        }
    }
}

/// The place, for people.
impl fmt::Display for KeySlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header {name}"),
            Self::Bearer(name) => write!(f, "bearer in {name}"),
            Self::BasicPassword => f.write_str("basic password"),
            Self::BasicUser => f.write_str("basic user"),
            Self::Query(name) => write!(f, "query {name}"),
        }
    }
}

/// Other scheme words have no slot: a client that sends one cannot be told from one that sends its own key.
fn bearer_slot(header: &str, scheme: &str) -> Vec<KeySlot> {
    if scheme.eq_ignore_ascii_case("bearer") { vec![KeySlot::Bearer(header.to_owned())] } else { Vec::new() }
}
