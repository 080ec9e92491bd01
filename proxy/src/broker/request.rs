//! The request for a token: the grant's form, and how the client proves itself.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caracal_policies::{ClientAuthentication, EndpointUrl, Grant, ServiceToken};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::assertion::Signer;
use super::client::Body;
use super::{Order, Trouble, Unavailable};

/// What stays as it is in a form or a query (RFC 3986 unreserved).
pub(super) const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Life of an assertion that asks for a token, in seconds.
const GRANT_LIFE_S: i64 = 300;
/// Life of an assertion that only proves the client, in seconds.
const CLIENT_LIFE_S: i64 = 60;
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const CLIENT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What is wanted of an endpoint.
pub(super) enum Ask<'a> {
    /// A token, for the provider's own grant.
    Token,
    /// The tokens for what a person has agreed to (RFC 6749 section 4.1.3, RFC 7636).
    Code { code: &'a str, verifier: &'a str, redirect_uri: &'a str },
    /// Fresh tokens (RFC 6749 section 6).
    Refresh(&'a str),
    /// That this token is good no longer (RFC 7009); which kind it is.
    Revoke(&'a str, &'static str),
}

/// Builds the request. `now` is unix milliseconds.
pub(super) fn build(
    order: &Order,
    token: &ServiceToken,
    endpoint: &EndpointUrl,
    what: &Ask<'_>,
    now: i64,
) -> Result<Request<Body>, Trouble> {
    let signer = signer(order, token, endpoint)?;
    let now_s = now.div_euclid(1_000);
    let mut form = Form(Zeroizing::new(String::with_capacity(1_024)));
    match what {
        Ask::Token => grant(&mut form, token, endpoint, signer.as_ref(), now_s)?,
        Ask::Code { code, verifier, redirect_uri } => form.add_all(&[
            ("grant_type", "authorization_code"),
            ("code", code),
            ("code_verifier", verifier),
            ("redirect_uri", redirect_uri),
        ]),
        Ask::Refresh(refresh) => {
            form.add_all(&[("grant_type", "refresh_token"), ("refresh_token", refresh)]);
        }
        Ask::Revoke(revoked, hint) => form.add_all(&[("token", revoked), ("token_type_hint", hint)]),
    }
    if let (Ask::Code { .. } | Ask::Refresh(_), Some(resource)) = (what, &token.resource) {
        form.add("resource", resource);
    }
    let more = if matches!(what, Ask::Revoke(..)) { &[][..] } else { &token.params };
    for (name, value) in more {
        form.add(name, value);
    }
    let authorization = authenticate(&mut form, order, token, endpoint, signer.as_ref(), now_s)?;
    let mut request = Request::post(endpoint.as_str())
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form.body())
        .map_err(|_url| unusable("the token endpoint's URL cannot be asked"))?;
    if let Some(value) = authorization {
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    Ok(request)
}

fn grant(
    form: &mut Form,
    token: &ServiceToken,
    endpoint: &EndpointUrl,
    signer: Option<&Signer>,
    now_s: i64,
) -> Result<(), Trouble> {
    let scope = token.scopes.join(" ");
    match &token.grant {
        Grant::ClientCredentials => {
            form.add("grant_type", "client_credentials");
            let fields = [("audience", &token.audience), ("resource", &token.resource)];
            for (name, value) in fields {
                if let Some(value) = value {
                    form.add(name, value);
                }
            }
        }
        Grant::AuthorizationCode(_) => return Err(unusable("a person has to agree first")),
        Grant::JwtBearer { subject, audience } => {
            let subject = subject.as_deref().unwrap_or(&token.client_id);
            let audience = audience.as_deref().unwrap_or(endpoint.as_str());
            let mut claims = claims(&token.client_id, subject, audience, now_s, GRANT_LIFE_S);
            if !scope.is_empty() {
                claims.insert("scope".into(), json!(scope));
            }
            form.add("grant_type", JWT_BEARER);
            form.add("assertion", &signed(signer, &claims)?);
        }
    }
    if !scope.is_empty() {
        form.add("scope", &scope);
    }
    Ok(())
}

/// The `Authorization` header, where the method has one.
fn authenticate(
    form: &mut Form,
    order: &Order,
    token: &ServiceToken,
    endpoint: &EndpointUrl,
    signer: Option<&Signer>,
    now_s: i64,
) -> Result<Option<HeaderValue>, Trouble> {
    let id = &token.client_id;
    match token.authentication {
        ClientAuthentication::SecretBasic => {
            let secret = client_secret(order, endpoint)?;
            // RFC 6749 section 2.3.1: both are form-encoded first.
            let pair = Zeroizing::new(format!("{}:{}", *encoded(id), *encoded(secret)));
            let text = Zeroizing::new(format!("Basic {}", *Zeroizing::new(STANDARD.encode(pair.as_bytes()))));
            let mut value =
                HeaderValue::from_str(&text).map_err(|_text| unusable("the client cannot be named"))?;
            value.set_sensitive(true);
            return Ok(Some(value));
        }
        ClientAuthentication::SecretPost => {
            form.add("client_id", id);
            form.add("client_secret", client_secret(order, endpoint)?);
        }
        ClientAuthentication::PrivateKeyJwt => {
            form.add("client_id", id);
            form.add("client_assertion_type", CLIENT_ASSERTION);
            let claims = claims(id, id, endpoint.as_str(), now_s, CLIENT_LIFE_S);
            form.add("client_assertion", &signed(signer, &claims)?);
        }
        // The issuer of the assertion is the client; servers that want no authentication want no name either.
        ClientAuthentication::None if matches!(token.grant, Grant::JwtBearer { .. }) => {}
        ClientAuthentication::None => form.add("client_id", id),
    }
    Ok(None)
}

fn client_secret<'a>(order: &'a Order, endpoint: &EndpointUrl) -> Result<&'a str, Trouble> {
    let reference = order.provider.secret.as_ref().ok_or_else(|| unusable("there is no client secret"))?;
    order.secret(reference, endpoint).map(crate::secrets::Secret::expose)
}

fn signer(order: &Order, token: &ServiceToken, endpoint: &EndpointUrl) -> Result<Option<Signer>, Trouble> {
    if !token.signs() {
        return Ok(None);
    }
    let reference = order.provider.private_key.as_ref().ok_or_else(|| unusable("there is no private key"))?;
    let pem = order.secret(reference, endpoint)?.expose();
    Signer::new(pem, token.certificate.as_deref(), token.key_id.as_deref()).map(Some).map_err(unusable)
}

fn signed(signer: Option<&Signer>, claims: &Map<String, Value>) -> Result<Zeroizing<String>, Trouble> {
    signer.and_then(|signer| signer.sign(claims)).ok_or_else(|| unusable("the assertion cannot be signed"))
}

fn claims(issuer: &str, subject: &str, audience: &str, now_s: i64, life_s: i64) -> Map<String, Value> {
    let members = [
        ("iss", json!(issuer)),
        ("sub", json!(subject)),
        ("aud", json!(audience)),
        ("iat", json!(now_s)),
        ("exp", json!(now_s.saturating_add(life_s))),
        ("jti", json!(Uuid::new_v4().to_string())),
    ];
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn encoded(text: &str) -> Zeroizing<String> {
    Zeroizing::new(utf8_percent_encode(text, KEPT).to_string())
}

fn unusable(detail: &str) -> Trouble {
    Trouble::new(Unavailable::Secret, detail)
}

/// Fields of an `application/x-www-form-urlencoded` body; wiped when dropped.
struct Form(Zeroizing<String>);

impl Form {
    fn add_all(&mut self, fields: &[(&str, &str)]) {
        for (name, value) in fields {
            self.add(name, value);
        }
    }

    fn add(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        for part in utf8_percent_encode(name, KEPT) {
            self.0.push_str(part);
        }
        self.0.push('=');
        for part in utf8_percent_encode(value, KEPT) {
            self.0.push_str(part);
        }
    }

    fn body(mut self) -> Body {
        Body::new(bytes::Bytes::from_owner(Zeroizing::new(std::mem::take(&mut *self.0).into_bytes())))
    }
}
