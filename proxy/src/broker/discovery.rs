//! Where an issuer's token endpoint is (RFC 8414, OpenID Connect Discovery 1.0).

use caracal_mandates::json_object;
use caracal_policies::EndpointUrl;
use http::header::ACCEPT;
use http::{Request, StatusCode};
use serde_json::Value;

use super::client::{Body, Http};
use super::{Trouble, Unavailable};

/// Asks the issuer; the two kinds of metadata live in two places.
pub(super) async fn token_endpoint(http: &Http, issuer: &EndpointUrl) -> Result<EndpointUrl, Trouble> {
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

fn read(issuer: &EndpointUrl, body: &[u8]) -> Result<EndpointUrl, Trouble> {
    let metadata = json_object(body).ok_or_else(|| malformed("the issuer's metadata is no JSON object"))?;
    let text = |name: &str| metadata.get(name).and_then(Value::as_str);
    if text("issuer") != Some(issuer.as_str()) {
        return Err(malformed("the metadata is another issuer's; `issuer` must be written as there"));
    }
    let endpoint = text("token_endpoint").ok_or_else(|| malformed("the metadata names no token endpoint"))?;
    EndpointUrl::parse(endpoint).map_err(|_why| malformed("the metadata's token endpoint is no https URL"))
}

fn malformed(detail: &str) -> Trouble {
    Trouble::new(Unavailable::Malformed, detail)
}
