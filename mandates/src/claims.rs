//! What a mandate says, with the names and types it has on the wire.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// The class of a mandate: where it may be presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// For the coordinator: starting and ending sessions, delegating.
    Session,
    /// For the gateway: one governed call, unless reusable.
    Gateway,
    /// For the resource behind the gateway; never accepted by our own listeners.
    Resource,
}

impl Use {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Gateway => "gateway",
            Self::Resource => "resource",
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who the subject is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectType {
    /// A federated person.
    User,
    /// A registered application.
    Application,
}

/// One step of a delegation, issuer first; the last hop is the receiver and names no delegation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainHop {
    /// The application of this hop; never empty.
    pub application_id: String,
    /// Its session.
    #[serde(default, skip_serializing_if = "blank")]
    pub agent_session_id: Option<String>,
    /// The delegation it gave.
    #[serde(default, skip_serializing_if = "blank")]
    pub delegation_edge_id: Option<String>,
}

/// The claims of a mandate.
///
/// Shape: empty values are left out of the token; `aud` is always written as an array, and read as an array or
/// a string (RFC 7519 section 4.1.3). Units: `exp` and `iat` are unix seconds, integers only. An optional claim
/// may be absent or null when read; of any other type than its own, the mandate is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The authority that minted it, its URL without a trailing slash.
    pub iss: String,
    /// The application id, or a federated user's subject.
    pub sub: String,
    /// Who it is for: the issuer, or the granted resources for a resource mandate.
    #[serde(deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// Dead from this second on.
    pub exp: i64,
    /// Minted in this second.
    pub iat: i64,
    /// A UUIDv7; the mark of a single use.
    pub jti: String,
    /// The zone whose keys sign it.
    pub zone_id: String,
    /// The application that asked for it.
    pub client_id: String,
    /// Granted scopes, separated by single spaces.
    #[serde(default, skip_serializing_if = "blank")]
    pub scope: Option<String>,
    /// Authority record of this mint.
    pub sid: String,
    /// Authority record at the root of its lineage.
    pub root_sid: String,
    /// The class.
    #[serde(rename = "use")]
    pub use_: Use,
    /// What kind of subject `sub` names.
    pub sub_type: SubjectType,
    /// Granted resource identifiers.
    #[serde(default, deserialize_with = "absent_or_null", skip_serializing_if = "Vec::is_empty")]
    pub target: Vec<String>,
    /// The session acting.
    #[serde(default, skip_serializing_if = "blank")]
    pub agent_session_id: Option<String>,
    /// The delegation acted under.
    #[serde(default, skip_serializing_if = "blank")]
    pub delegation_edge_id: Option<String>,
    /// The delegation's source session.
    #[serde(default, skip_serializing_if = "blank")]
    pub source_session_id: Option<String>,
    /// The delegation's target session.
    #[serde(default, skip_serializing_if = "blank")]
    pub target_session_id: Option<String>,
    /// Delegations from the root to the one acted under.
    #[serde(default, deserialize_with = "absent_or_null", skip_serializing_if = "Vec::is_empty")]
    pub delegation_path: Vec<String>,
    /// The same path as applications and sessions, one longer than `delegation_path`.
    #[serde(default, deserialize_with = "absent_or_null", skip_serializing_if = "Vec::is_empty")]
    pub delegation_chain: Vec<ChainHop>,
    /// Length of `delegation_path`.
    #[serde(default, deserialize_with = "absent_or_null", skip_serializing_if = "is_zero_u32")]
    pub hop_count: u32,
    /// The zone's delegation epoch at the mint.
    #[serde(default, deserialize_with = "absent_or_null", skip_serializing_if = "is_zero_u64")]
    pub delegation_graph_epoch: u64,
    /// The process that minted it; on single-use gateway mandates only.
    #[serde(rename = "caracal_epoch", default, skip_serializing_if = "blank")]
    pub epoch: Option<String>,
    /// Whether it may be presented more than once.
    #[serde(
        rename = "caracal_reusable",
        default,
        deserialize_with = "absent_or_null",
        skip_serializing_if = "is_false"
    )]
    pub reusable: bool,
}

impl Claims {
    /// Claims of a class with every other member empty or zero, to be filled in with `..`; the members a mandate
    /// must have are checked when it is minted.
    #[must_use]
    pub const fn empty(use_: Use, sub_type: SubjectType) -> Self {
        Self {
            iss: String::new(),
            sub: String::new(),
            aud: Vec::new(),
            exp: 0,
            iat: 0,
            jti: String::new(),
            zone_id: String::new(),
            client_id: String::new(),
            scope: None,
            sid: String::new(),
            root_sid: String::new(),
            use_,
            sub_type,
            target: Vec::new(),
            agent_session_id: None,
            delegation_edge_id: None,
            source_session_id: None,
            target_session_id: None,
            delegation_path: Vec::new(),
            delegation_chain: Vec::new(),
            hop_count: 0,
            delegation_graph_epoch: 0,
            epoch: None,
            reusable: false,
        }
    }

    /// The granted scopes, in the order of the token.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        scopes(self.scope.as_deref())
    }

    /// The first claim whose content no mandate may have: a required one that is empty, a list with an empty
    /// member, a life that is not positive.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let required = [
            ("iss", &self.iss),
            ("sub", &self.sub),
            ("jti", &self.jti),
            ("zone_id", &self.zone_id),
            ("client_id", &self.client_id),
            ("sid", &self.sid),
            ("root_sid", &self.root_sid),
        ];
        let optional = [
            ("scope", &self.scope),
            ("agent_session_id", &self.agent_session_id),
            ("delegation_edge_id", &self.delegation_edge_id),
            ("source_session_id", &self.source_session_id),
            ("target_session_id", &self.target_session_id),
            ("caracal_epoch", &self.epoch),
        ];
        let lists =
            [("aud", &self.aud), ("target", &self.target), ("delegation_path", &self.delegation_path)];
        let empty = required.iter().find(|(_, value)| value.is_empty()).map(|(name, _)| *name);
        let blank = || optional.iter().find(|(_, value)| value.as_deref() == Some("")).map(|(name, _)| *name);
        let holed =
            || lists.iter().find(|(_, list)| list.iter().any(String::is_empty)).map(|(name, _)| *name);
        empty
            .or_else(|| self.aud.is_empty().then_some("aud"))
            .or_else(|| (self.iat < 0).then_some("iat"))
            .or_else(|| (self.exp <= self.iat).then_some("exp"))
            .or_else(blank)
            .or_else(holed)
            .or_else(|| {
                self.delegation_chain
                    .iter()
                    .any(|hop| hop.application_id.is_empty())
                    .then_some("delegation_chain")
            })
    }

    /// The same claims with empty optional strings as absent, as they will be read back from the token.
    pub(crate) fn without_blanks(mut self) -> Self {
        for value in [
            &mut self.scope,
            &mut self.agent_session_id,
            &mut self.delegation_edge_id,
            &mut self.source_session_id,
            &mut self.target_session_id,
            &mut self.epoch,
        ] {
            value.take_if(|text| text.is_empty());
        }
        for hop in &mut self.delegation_chain {
            hop.agent_session_id.take_if(|text| text.is_empty());
            hop.delegation_edge_id.take_if(|text| text.is_empty());
        }
        self
    }
}

/// The whole tokens of a space-separated scope (RFC 6749 section 3.3).
pub(crate) fn scopes(scope: Option<&str>) -> impl Iterator<Item = &str> {
    scope.unwrap_or_default().split(' ').filter(|word| !word.is_empty())
}

fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(from)? {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    })
}

fn absent_or_null<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

// The three predicates below have the signatures serde asks for.
fn blank(value: &Option<String>) -> bool {
    value.as_deref().is_none_or(str::is_empty)
}

fn is_zero_u32(value: &u32) -> bool {
    *value == 0
}

fn is_zero_u64(value: &u64) -> bool {
    *value == 0
}

fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests;
