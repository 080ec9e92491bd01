//! Why a resource server refuses, in both vocabularies of the official verifiers.

/// The first check of [`Verifier::verify`](super::Verifier::verify) that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No bearer token.
    #[error("no bearer token")]
    MissingToken,
    /// Not a mandate for this resource; the word says which check, for logs.
    #[error("invalid mandate: {0}")]
    InvalidToken(&'static str),
    /// Another zone's, or no zone configured.
    #[error("mandate of another zone")]
    ZoneInvalid,
    /// A required scope is not granted.
    #[error("missing scope")]
    ScopeInsufficient,
    /// It names no session.
    #[error("session required")]
    SessionRequired,
    /// It names no delegation.
    #[error("delegation required")]
    DelegationRequired,
    /// Delegated too often.
    #[error("delegation too long")]
    HopCountExceeded,
    /// A required application is not in its chain.
    #[error("application missing from the delegation chain")]
    ChainMismatch,
    /// An anchor of it is revoked, or the store cannot say.
    #[error("mandate revoked")]
    SessionRevoked,
    /// Delegations of the zone changed since it was minted, or the store cannot say.
    #[error("delegation stale")]
    DelegationStale,
}

impl Refused {
    /// The verifier's code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::MissingToken => "missing_token",
            Self::InvalidToken(_) => "invalid_token",
            Self::ZoneInvalid => "zone_invalid",
            Self::ScopeInsufficient => "scope_insufficient",
            Self::SessionRequired => "session_required",
            Self::DelegationRequired => "delegation_required",
            Self::HopCountExceeded => "hop_count_exceeded",
            Self::ChainMismatch => "chain_mismatch",
            Self::SessionRevoked => "session_revoked",
            Self::DelegationStale => "delegation_stale",
        }
    }

    /// The code in an HTTP answer's `error`, which differs for two.
    #[must_use]
    pub const fn http_code(&self) -> &'static str {
        match self {
            Self::ZoneInvalid => "invalid_zone",
            Self::ScopeInsufficient => "insufficient_scope",
            Self::MissingToken
            | Self::InvalidToken(_)
            | Self::SessionRequired
            | Self::DelegationRequired
            | Self::HopCountExceeded
            | Self::ChainMismatch
            | Self::SessionRevoked
            | Self::DelegationStale => self.code(),
        }
    }

    /// 401 for a caller without a good mandate, 403 for one that is not enough.
    #[must_use]
    pub const fn http_status(&self) -> u16 {
        match self {
            Self::MissingToken
            | Self::InvalidToken(_)
            | Self::ZoneInvalid
            | Self::SessionRevoked
            | Self::DelegationStale => 401,
            Self::ScopeInsufficient
            | Self::SessionRequired
            | Self::DelegationRequired
            | Self::HopCountExceeded
            | Self::ChainMismatch => 403,
        }
    }
}
