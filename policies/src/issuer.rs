//! Subject issuers: identity providers whose users a zone knows.

use std::sync::Arc;

use crate::endpoint::EndpointUrl;
use crate::report::Place;

/// An identity provider whose identity tokens the zone accepts, for one audience.
#[derive(Debug, Clone)]
pub struct SubjectIssuer {
    /// `iss` of its tokens, compared byte for byte.
    pub issuer: Arc<str>,
    /// Where its keys are.
    pub jwks_url: EndpointUrl,
    /// The `aud` its tokens must name: the client id of the zone's applications there.
    pub audience: String,
    /// Whether each identity token is good for one exchange only.
    pub single_use: bool,
    /// Where the bundle says so.
    pub place: Place,
}
