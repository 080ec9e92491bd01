//! `[[providers]]` of the kinds `oauth2_client_credentials` and `oauth2_authorization_code`: what they have in common.

use super::providers::{only, parse_secret, read_header, read_scheme};
use super::{checked_all, consent};
use crate::endpoint::EndpointUrl;
use crate::oauth::{ClientAuthentication, Grant, ServiceToken, TokenSource};
use crate::provider::SecretRef;
use crate::read::{Placed, Section};
use crate::report::{Problem, shortened};
use crate::{limits, names};

/// Keys of the kind `oauth2_client_credentials`.
pub(super) const OWN: [&str; 15] = [
    "token_endpoint",
    "issuer",
    "client_id",
    "client_auth_method",
    "grant_type",
    "client_secret",
    "private_key",
    "key_id",
    "certificate",
    "scopes",
    "audience",
    "resource",
    "assertion_subject",
    "assertion_audience",
    "token_params",
];

/// Form fields that the edge fills itself.
const RESERVED_FIELDS: [&str; 13] = [
    "assertion",
    "audience",
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "code",
    "code_verifier",
    "grant_type",
    "redirect_uri",
    "refresh_token",
    "resource",
    "scope",
];

const METHODS: [(&str, ClientAuthentication); 4] = [
    ("client_secret_basic", ClientAuthentication::SecretBasic),
    ("client_secret_post", ClientAuthentication::SecretPost),
    ("private_key_jwt", ClientAuthentication::PrivateKeyJwt),
    ("none", ClientAuthentication::None),
];

const CLIENT: &str = "1 to 2048 printable ASCII characters";

/// The two secrets a token may be fetched with.
pub(super) struct Secrets {
    pub(super) client_secret: Option<SecretRef>,
    pub(super) private_key: Option<SecretRef>,
}

/// Which of the two kinds is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// With credentials of the edge's own.
    Service,
    /// With what a person agreed to.
    Consent,
}

/// Reads everything, and only then gives up: a bundle's problems come all at once.
pub(super) fn read(section: &Section<'_>, way: Way) -> Option<(ServiceToken, Secrets)> {
    let mut known = match way {
        Way::Service => OWN.to_vec(),
        Way::Consent => consent::known(),
    };
    known.extend(["auth_header", "auth_scheme"]);
    only(section, &known);
    let source = read_source(section);
    let client_id = needed(section, "client_id");
    let authentication = if section.has("client_auth_method") {
        section.word("client_auth_method", &METHODS)
    } else {
        Some(ClientAuthentication::SecretBasic)
    };
    let grant = match way {
        Way::Service => read_grant(section),
        Way::Consent => consent::read(section).map(Grant::AuthorizationCode),
    };
    let scopes = checked_all(section, "scopes", names::is_scope, super::SCOPE);
    let (audience, resource) = (optional(section, "audience"), optional(section, "resource"));
    let key_id = optional(section, "key_id");
    let certificate = read_certificate(section, "certificate");
    let params = read_params(section, "token_params", &RESERVED_FIELDS);
    let header = read_header(section, "auth_header", Some("authorization"));
    let scheme = read_scheme(section);
    let secrets = authentication.zip(grant.as_ref()).and_then(|(method, grant)| {
        fitting(section, method, grant);
        read_secrets(section, method, grant)
    });
    let token = ServiceToken {
        source: source?,
        client_id: client_id?,
        authentication: authentication?,
        grant: grant?,
        scopes: scopes.iter().map(|scope| scope.value.to_string()).collect(),
        audience: audience?,
        resource: resource?,
        key_id: key_id?,
        certificate: certificate?,
        params: params?,
        header: header?,
        scheme: scheme?.unwrap_or_else(|| "Bearer".to_owned()),
    };
    Some((token, secrets?))
}

fn read_source(section: &Section<'_>) -> Option<TokenSource> {
    match (section.has("token_endpoint"), section.has("issuer")) {
        (true, true) => {
            section.report(
                Problem::new(
                    "token_source",
                    section.place(),
                    format!("{} names its token endpoint twice", section.what()),
                )
                .found("`token_endpoint` and `issuer`")
                .expected("one of them")
                .hint("keep `token_endpoint`, or leave it to the issuer's metadata and keep `issuer`"),
            );
            None
        }
        (false, true) => read_url(section, "issuer").map(TokenSource::Issuer),
        (_, false) => read_url(section, "token_endpoint").map(TokenSource::Endpoint),
    }
}

/// A URL that is none may hold a password, so it is not repeated.
pub(super) fn read_url(section: &Section<'_>, key: &'static str) -> Option<EndpointUrl> {
    let text = section.needed_text(key)?;
    match EndpointUrl::parse(text.value) {
        Ok(url) => Some(url),
        Err(expected) => {
            section.report(
                Problem::new(key, &text.place, format!("`{key}` of {} is not valid", section.what()))
                    .found("a text in another form, not shown here")
                    .expected(expected)
                    .hint("take it from the documentation of the authorization server"),
            );
            None
        }
    }
}

fn read_grant(section: &Section<'_>) -> Option<Grant> {
    let (subject, audience) =
        (optional(section, "assertion_subject"), optional(section, "assertion_audience"));
    let jwt_bearer = if section.has("grant_type") {
        section.word("grant_type", &[("client_credentials", false), ("jwt_bearer", true)])?
    } else {
        false
    };
    if jwt_bearer {
        Some(Grant::JwtBearer { subject: subject?, audience: audience? })
    } else {
        Some(Grant::ClientCredentials)
    }
}

/// Reports keys that mean nothing beside the others: whoever wrote them expected something that will not happen.
fn fitting(section: &Section<'_>, method: ClientAuthentication, grant: &Grant) {
    let assertion = matches!(grant, Grant::JwtBearer { .. });
    let signs = assertion || method == ClientAuthentication::PrivateKeyJwt;
    let rules: [(&[&str], bool, &str); 4] = [
        (
            &["client_secret"],
            method.has_secret(),
            "`client_auth_method` `client_secret_basic` or `client_secret_post`",
        ),
        (
            &["private_key", "key_id", "certificate"],
            signs,
            "`client_auth_method = \"private_key_jwt\"` or `grant_type = \"jwt_bearer\"`",
        ),
        (&["assertion_subject", "assertion_audience"], assertion, "`grant_type = \"jwt_bearer\"`"),
        (&["audience", "resource"], !assertion, "`grant_type = \"client_credentials\"`"),
    ];
    for (keys, fits, only_with) in rules {
        for key in keys.iter().filter(|key| !fits && section.has(key)) {
            let place = section.entry(key).map_or_else(|| section.place().clone(), |entry| entry.place());
            section.report(
                Problem::new("key_unused", &place, format!("`{key}` of {} has no use", section.what()))
                    .found(format!("`{}` with `{}`", method.word(), grant.word()))
                    .expected(format!("it only with {only_with}"))
                    .hint("remove it, or correct the method or grant"),
            );
        }
    }
}

fn read_secrets(section: &Section<'_>, method: ClientAuthentication, grant: &Grant) -> Option<Secrets> {
    let one = |key: &str, wanted: bool| {
        if wanted {
            section.needed_text(key).and_then(|text| parse_secret(section, key, &text)).map(Some)
        } else {
            Some(None)
        }
    };
    let signs = matches!(grant, Grant::JwtBearer { .. }) || method == ClientAuthentication::PrivateKeyJwt;
    let client_secret = one("client_secret", method.has_secret());
    let private_key = one("private_key", signs);
    Some(Secrets { client_secret: client_secret?, private_key: private_key? })
}

/// Only its outside is looked at here; whether it belongs to the private key is seen where that is.
pub(super) fn read_certificate(section: &Section<'_>, key: &str) -> Option<Option<String>> {
    if !section.has(key) {
        return Some(None);
    }
    let text = section.text(key)?;
    let body = text.value.trim();
    if body.starts_with("-----BEGIN CERTIFICATE-----") && body.ends_with("-----END CERTIFICATE-----") {
        return Some(Some(body.to_owned()));
    }
    section.report(
        Problem::new("certificate", &text.place, format!("`{key}` of {} is not in PEM", section.what()))
            .found("a text in another form, not shown here")
            .expected("`-----BEGIN CERTIFICATE-----` to `-----END CERTIFICATE-----`")
            .hint("write it between `'''` and `'''`; the private key never stands here"),
    );
    None
}

/// A table of texts whose names are none of those that the edge sends itself.
pub(super) fn read_params(
    section: &Section<'_>,
    key: &'static str,
    reserved: &[&str],
) -> Option<Vec<(String, String)>> {
    let Some(entry) = section.entry(key) else { return Some(Vec::new()) };
    let table = entry.section(key, format!("`{key}`").into())?;
    let mut params = Vec::new();
    let mut good = true;
    for (name, value) in table.entries() {
        let Some(text) = value.text(name.value) else {
            good = false;
            continue;
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
        let named = !name.value.is_empty()
            && name.value.len() <= limits::NAME_BYTES
            && name.value.bytes().all(plain)
            && !reserved.contains(&name.value);
        if named && is_printable(text.value) {
            params.push((name.value.to_owned(), text.value.to_owned()));
            continue;
        }
        good = false;
        section.report(
            Problem::new(
                key,
                &name.place,
                format!("a field in `{key}` of {} cannot be sent", section.what()),
            )
            .found(format!("`{}`", shortened(name.value)))
            .expected(
                "a name of letters, digits and `._~-` that is no field of the grant, and a printable value",
            )
            .hint("scopes, audience, resource and credentials have keys of their own"),
        );
    }
    params.sort_unstable();
    good.then_some(params)
}

fn is_printable(text: &str) -> bool {
    (1..=limits::ISSUER_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

fn needed(section: &Section<'_>, key: &str) -> Option<String> {
    printable(section, key, &section.needed_text(key)?)
}

/// `None`: wrong and reported. `Some(None)`: the bundle has none.
fn optional(section: &Section<'_>, key: &str) -> Option<Option<String>> {
    if section.has(key) { printable(section, key, &section.text(key)?).map(Some) } else { Some(None) }
}

fn printable(section: &Section<'_>, key: &str, text: &Placed<&str>) -> Option<String> {
    if is_printable(text.value) {
        return Some(text.value.to_owned());
    }
    section.report(
        Problem::new("text_form", &text.place, format!("`{key}` of {} is not valid", section.what()))
            .found("an empty or long text, or characters that cannot be sent")
            .expected(CLIENT)
            .hint("take it from the documentation of the authorization server"),
    );
    None
}
