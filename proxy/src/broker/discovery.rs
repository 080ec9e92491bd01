//! Where an authorization server's endpoints are: in the bundle, or in its metadata (RFC 8414, OpenID Connect
//! Discovery 1.0).

use caracal_mandates::json_object;
use caracal_policies::{EndpointUrl, ServiceToken, TokenSource};
use http::header::ACCEPT;
use http::{Request, StatusCode};
use serde_json::Value;

use super::client::{Body, Http};
use super::{Inner, Order, Trouble, Unavailable};

/// What is known of an authorization server.
#[derive(Clone, Debug)]
pub(crate) struct Endpoints {
    /// Where tokens are fetched.
    pub(super) token: EndpointUrl,
    /// Where a person agrees.
    pub(super) authorization: Option<EndpointUrl>,
    /// Where tokens are given back.
    pub(super) revocation: Option<EndpointUrl>,
    /// Its name, where that is known.
    pub(super) issuer: Option<EndpointUrl>,
    /// Whether it says its name with every answer that a browser brings (RFC 9207).
    pub(super) names_itself: bool,
}

/// The endpoints of a provider's server.
pub(super) async fn endpoints(
    inner: &Inner,
    order: &Order,
    token: &ServiceToken,
) -> Result<Endpoints, Trouble> {
    match &token.source {
        TokenSource::Endpoint(url) => {
            let consent = token.consent();
            Ok(Endpoints {
                token: url.clone(),
                authorization: consent.and_then(|consent| consent.authorization_endpoint.clone()),
                revocation: consent.and_then(|consent| consent.revocation_endpoint.clone()),
                issuer: None,
                names_itself: false,
            })
        }
        TokenSource::Issuer(issuer) => {
            let found = metadata(&inner.http, issuer).await?;
            // Known only now, and so looked at only now: see the load error of the same name.
            let zone = order.snapshot.zones.get(&order.zone);
            if zone.is_none_or(|live| live.zone.reaching(&found.token).is_some()) {
                let detail = "a resource of the zone leads to the token endpoint that the metadata names";
                return Err(Trouble::new(Unavailable::NotAddressable, detail));
            }
            Ok(found)
        }
    }
}

/// Asks the issuer; the two kinds of metadata live in two places.
async fn metadata(http: &Http, issuer: &EndpointUrl) -> Result<Endpoints, Trouble> {
    let path = issuer.target().trim_end_matches('/');
    let places = [
        format!("{}/.well-known/oauth-authorization-server{path}", issuer.origin()),
        format!("{}{path}/.well-known/openid-configuration", issuer.origin()),
    ];
    for place in places {
        let request = Request::get(place).header(ACCEPT, "application/json").body(Body::default());
        let request = request.map_err(|_url| malformed("the issuer's URL cannot be asked"))?;
        let (status, body) = http.ask(request).await?;
        match status {
            StatusCode::OK => return read(issuer, &body),
            StatusCode::NOT_FOUND => {}
            other => {
                let why =
                    if other.is_server_error() { Unavailable::Unreachable } else { Unavailable::Malformed };
                let detail = format!("the issuer's metadata answers {}", other.as_u16());
                return Err(Trouble { again: other.is_server_error(), ..Trouble::new(why, detail) });
            }
        }
    }
    Err(malformed("the issuer publishes no metadata"))
}

fn read(issuer: &EndpointUrl, body: &[u8]) -> Result<Endpoints, Trouble> {
    let metadata = json_object(body).ok_or_else(|| malformed("the issuer's metadata is no JSON object"))?;
    let text = |name: &str| metadata.get(name).and_then(Value::as_str);
    if text("issuer") != Some(issuer.as_str()) {
        return Err(malformed("the metadata is another issuer's; `issuer` must be written as there"));
    }
    let token = text("token_endpoint").ok_or_else(|| malformed("the metadata names no token endpoint"))?;
    let token = EndpointUrl::parse(token)
        .map_err(|_why| malformed("the metadata's token endpoint is no https URL"))?;
    let optional = |name: &str| text(name).and_then(|url| EndpointUrl::parse(url).ok());
    Ok(Endpoints {
        token,
        authorization: optional("authorization_endpoint"),
        revocation: optional("revocation_endpoint"),
        issuer: Some(issuer.clone()),
        names_itself: metadata.get("authorization_response_iss_parameter_supported")
            == Some(&Value::Bool(true)),
    })
}

fn malformed(detail: &str) -> Trouble {
    Trouble::new(Unavailable::Malformed, detail)
}
