//! `[[providers]]`.

use std::sync::Arc;

use super::oauth::{self, Way};
use super::{Draft, DraftProvider, NAME, checked};
use crate::provider::{KeySlot, Provider, ProviderKind, SecretRef};
use crate::read::{Placed, Section};
use crate::report::Problem;
use crate::{limits, names};

/// Keys every provider may have.
const COMMON: [&str; 5] = ["identifier", "id", "kind", "forward_caracal_identity", "key_slots"];

/// Keys of one table of `providers`, whatever its kind.
#[cfg(test)]
pub(crate) fn keys() -> Vec<&'static str> {
    const OF_SECRETS: [&str; 7] =
        ["secret", "location", "header_name", "auth_scheme", "query_param_name", "auth_header", "username"];
    [&COMMON[..], &OF_SECRETS, &oauth::OWN, &super::consent::OWN].concat()
}

/// Keys of one table of `key_slots`; each table has exactly one.
pub(crate) const SLOT_KEYS: [&str; 4] = ["header", "bearer", "basic", "query"];

#[derive(Clone, Copy)]
enum Kind {
    None,
    CaracalMandate,
    ApiKey,
    BearerToken,
    HttpBasic,
    ServiceToken,
    AuthorizationCode,
}

#[derive(Clone, Copy)]
enum Location {
    Header,
    Query,
}

const KINDS: [(&str, Kind); 7] = [
    ("none", Kind::None),
    ("caracal_mandate", Kind::CaracalMandate),
    ("api_key", Kind::ApiKey),
    ("bearer_token", Kind::BearerToken),
    ("http_basic", Kind::HttpBasic),
    ("oauth2_client_credentials", Kind::ServiceToken),
    ("oauth2_authorization_code", Kind::AuthorizationCode),
];

impl Draft {
    pub(super) fn read_providers(&mut self, document: &Section<'_>) {
        for mut section in document.sections("providers", "a provider") {
            let identifier = section.needed_text("identifier").and_then(|text| {
                checked(&section, "identifier", text, is_identifier, "`provider://` and a name")
            });
            if let Some(identifier) = &identifier {
                section.named(format!("provider `{}`", identifier.value));
            }
            let id = section.text("id").and_then(|id| checked(&section, "id", id, names::is_name, NAME));
            let rest = read_kind(&section);
            let Some(identifier) = identifier else { continue };
            let id = id.unwrap_or_else(|| identifier.clone());
            let provider = rest.map(|Rest { kind, secret, private_key, key_slots }| {
                Arc::new(Provider {
                    id: Arc::clone(&id.value),
                    identifier: Arc::clone(&identifier.value),
                    kind,
                    secret,
                    private_key,
                    forward_caracal_identity: section.flag("forward_caracal_identity"),
                    key_slots,
                    place: identifier.place.clone(),
                })
            });
            self.providers.push(DraftProvider { identifier, id, provider });
        }
    }
}

fn is_identifier(text: &str) -> bool {
    names::is_name(text) && text.strip_prefix("provider://").is_some_and(|name| !name.is_empty())
}

/// Everything that depends on the kind.
struct Rest {
    kind: ProviderKind,
    secret: Option<SecretRef>,
    private_key: Option<SecretRef>,
    key_slots: Vec<KeySlot>,
}

/// Keys another kind has are unknown here.
fn read_kind(section: &Section<'_>) -> Option<Rest> {
    let kind = match section.needed("kind") {
        Some(_) => section.word("kind", &KINDS)?,
        None => return None,
    };
    let way = if matches!(kind, Kind::AuthorizationCode) { Way::Consent } else { Way::Service };
    let kind = match kind {
        Kind::None => {
            section.only(&COMMON);
            Some(ProviderKind::None)
        }
        Kind::CaracalMandate => {
            section.only(&COMMON);
            Some(ProviderKind::CaracalMandate)
        }
        Kind::ApiKey => read_api_key(section),
        Kind::BearerToken => {
            only(section, &["secret", "auth_header", "auth_scheme"]);
            let header = read_header(section, "auth_header", Some("authorization"));
            let scheme = read_scheme(section);
            header.zip(scheme).map(|(header, scheme)| ProviderKind::BearerToken {
                header,
                scheme: scheme.unwrap_or_else(|| "Bearer".to_owned()),
            })
        }
        Kind::HttpBasic => {
            only(section, &["secret", "username"]);
            read_username(section)
        }
        Kind::ServiceToken | Kind::AuthorizationCode => {
            let read = oauth::read(section, way);
            let extra = read_slots(section);
            let (token, secrets) = read?;
            let kind = ProviderKind::ServiceToken(Box::new(token));
            let key_slots = slots(&kind, extra);
            return Some(Rest {
                kind,
                secret: secrets.client_secret,
                private_key: secrets.private_key,
                key_slots,
            });
        }
    };
    let extra = read_slots(section);
    let secret = read_secret(section, kind.as_ref());
    let kind = kind?;
    let key_slots = slots(&kind, extra);
    Some(Rest { kind, secret: secret?, private_key: None, key_slots })
}

/// Those of the kind first.
fn slots(kind: &ProviderKind, extra: Vec<KeySlot>) -> Vec<KeySlot> {
    let mut slots = kind.slots();
    slots.extend(extra.into_iter().filter(|slot| !slots.contains(slot)).collect::<Vec<_>>());
    slots
}

pub(super) fn only(section: &Section<'_>, more: &[&str]) {
    let mut keys = COMMON.to_vec();
    keys.extend_from_slice(more);
    section.only(&keys);
}

fn read_api_key(section: &Section<'_>) -> Option<ProviderKind> {
    let location = if section.has("location") {
        section.word("location", &[("header", Location::Header), ("query", Location::Query)])?
    } else {
        Location::Header
    };
    match location {
        Location::Header => {
            only(section, &["secret", "location", "header_name", "auth_scheme"]);
            let scheme = read_scheme(section);
            let name = read_header(section, "header_name", None);
            Some(ProviderKind::ApiKeyHeader { name: name?, scheme: scheme? })
        }
        Location::Query => {
            only(section, &["secret", "location", "query_param_name"]);
            let param = section.needed_text("query_param_name")?;
            Some(ProviderKind::ApiKeyQuery { param: read_param(section, &param)? })
        }
    }
}

/// A header name in lower case. The value is not repeated: a whole header line may have been pasted.
pub(super) fn read_header(section: &Section<'_>, key: &str, default: Option<&str>) -> Option<String> {
    let text = match default {
        Some(default) if !section.has(key) => return Some(default.to_owned()),
        _ => section.needed_text(key)?,
    };
    check_header(section, key, &text)
}

fn check_header(section: &Section<'_>, key: &str, text: &Placed<&str>) -> Option<String> {
    let name = text.value.to_ascii_lowercase();
    if !names::is_token(&name) {
        section.report(
            Problem::new(
                "header_name",
                &text.place,
                format!("`{key}` of {} is not a header name", section.what()),
            )
            .found("characters that a header name cannot have")
            .expected("letters, digits and `-`")
            .hint("write the name alone, without colon and value"),
        );
        return None;
    }
    if names::is_reserved_header(&name) {
        section.report(
            Problem::new(
                "header_reserved",
                &text.place,
                format!("`{key}` of {} cannot carry a credential", section.what()),
            )
            .found(format!("`{name}`"))
            .expected("a header that neither frames nor routes a request, such as `authorization`")
            .hint("use the header the upstream documents for its credential"),
        );
        return None;
    }
    Some(name)
}

/// `None`: wrong and reported. `Some(None)`: the bundle has none.
pub(super) fn read_scheme(section: &Section<'_>) -> Option<Option<String>> {
    if !section.has("auth_scheme") {
        return Some(None);
    }
    let text = section.text("auth_scheme")?;
    if names::is_scheme_word(text.value) {
        return Some(Some(text.value.to_owned()));
    }
    section.report(
        Problem::new(
            "scheme_word",
            &text.place,
            format!("`auth_scheme` of {} is not a word", section.what()),
        )
        .found("a text in another form, not shown here")
        .expected("a letter, then letters, digits and `-`, such as `Bearer`")
        .hint("write the word alone; the credential comes from `secret`"),
    );
    None
}

fn read_param(section: &Section<'_>, text: &Placed<&str>) -> Option<String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
    if !text.value.is_empty() && text.value.len() <= limits::NAME_BYTES && text.value.bytes().all(good) {
        return Some(text.value.to_owned());
    }
    section.report(
        Problem::new(
            "query_param_name",
            &text.place,
            format!("a query parameter of {} is not a plain name", section.what()),
        )
        .found("characters that would need encoding")
        .expected("letters, digits and `._~-`")
        .hint("write the name alone, without `=` and value"),
    );
    None
}

fn read_username(section: &Section<'_>) -> Option<ProviderKind> {
    let text = section.needed_text("username")?;
    let good =
        !text.value.is_empty() && !text.value.contains(':') && !text.value.chars().any(char::is_control);
    if good {
        return Some(ProviderKind::HttpBasic { username: text.value.to_owned() });
    }
    section.report(
        Problem::new("username", &text.place, format!("`username` of {} is not valid", section.what()))
            .found("an empty text, a colon or a control character")
            .expected("a user name without colon (RFC 7617)")
            .hint("the password comes from `secret`"),
    );
    None
}

/// `None`: wrong and reported. `Some(None)`: this kind has none.
fn read_secret(section: &Section<'_>, kind: Option<&ProviderKind>) -> Option<Option<SecretRef>> {
    match kind {
        Some(ProviderKind::None | ProviderKind::CaracalMandate) => Some(None),
        _ => parse_secret(section, "secret", &section.needed_text("secret")?).map(Some),
    }
}

/// Anything else may be the secret itself, so it is not repeated.
pub(super) fn parse_secret(section: &Section<'_>, key: &str, text: &Placed<&str>) -> Option<SecretRef> {
    let parts = text.value.strip_prefix("secret://").and_then(|rest| rest.split_once('/'));
    if let Some((name, key)) = parts
        && names::is_secret_part(name)
        && names::is_secret_part(key)
        && !["zones", "hosts", "demo"].contains(&key)
    {
        return Some(SecretRef { name: name.to_owned(), key: key.to_owned(), place: text.place.clone() });
    }
    section.report(
        Problem::new(
            "secret_reference",
            &text.place,
            format!("`{key}` of {} is not a reference", section.what()),
        )
        .found("a text in another form, not shown here")
        .expected("`secret://<name>/<key>`, where <name> is a table of the secrets file")
        .hint("secrets never stand in a bundle; if one did, replace it"),
    );
    None
}

fn read_slots(section: &Section<'_>) -> Vec<KeySlot> {
    section
        .sections("key_slots", "a key slot")
        .into_iter()
        .filter_map(|slot| {
            slot.only(&SLOT_KEYS);
            let present: Vec<_> = SLOT_KEYS.into_iter().filter(|key| slot.has(key)).collect();
            match present.as_slice() {
                [key] => read_slot(&slot, key),
                _ => {
                    slot.report(
                        Problem::new("key_slot", slot.place(), "a key slot names exactly one place")
                            .found(crate::report::listed(present))
                            .expected("one of `header`, `bearer`, `basic`, `query`")
                            .hint("write one table for each slot"),
                    );
                    None
                }
            }
        })
        .collect()
}

fn read_slot(slot: &Section<'_>, key: &str) -> Option<KeySlot> {
    match key {
        "header" => check_header(slot, key, &slot.text(key)?).map(KeySlot::Header),
        "bearer" => check_header(slot, key, &slot.text(key)?).map(KeySlot::Bearer),
        "query" => read_param(slot, &slot.text(key)?).map(KeySlot::Query),
        _ => {
            slot.word(key, &[("password", KeySlotPart::Password), ("user", KeySlotPart::User)]).map(|part| {
                match part {
                    KeySlotPart::Password => KeySlot::BasicPassword,
                    KeySlotPart::User => KeySlot::BasicUser,
                }
            })
        }
    }
}

#[derive(Clone, Copy)]
enum KeySlotPart {
    Password,
    User,
}
