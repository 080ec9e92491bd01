//! `[[providers]]` of the kind `oauth2_authorization_code`: where a person agrees, and for whom it counts.

use super::oauth::{read_params, read_url};
use crate::oauth::Consent;
use crate::read::Section;
use crate::report::Problem;

/// Keys of this kind alone.
pub(super) const OWN: [&str; 4] =
    ["authorization_endpoint", "revocation_endpoint", "authorization_params", "shared_fallback"];

/// Keys it shares with `oauth2_client_credentials`.
const SHARED: [&str; 11] = [
    "token_endpoint",
    "issuer",
    "client_id",
    "client_auth_method",
    "client_secret",
    "private_key",
    "key_id",
    "certificate",
    "scopes",
    "resource",
    "token_params",
];

/// Parameters of the authorization request that the edge fills itself, or that would take its answer elsewhere.
const RESERVED: [&str; 13] = [
    "client_id",
    "client_secret",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "redirect_uri",
    "request",
    "request_uri",
    "resource",
    "response_mode",
    "response_type",
    "scope",
    "state",
];

/// Every key of this kind that a token is fetched with.
pub(super) fn known() -> Vec<&'static str> {
    [&SHARED[..], &OWN].concat()
}

/// Endpoints stand in the bundle or in the issuer's metadata, never half here and half there.
pub(super) fn read(section: &Section<'_>) -> Option<Consent> {
    let params = read_params(section, "authorization_params", &RESERVED);
    let shared_fallback = section.flag("shared_fallback");
    if section.has("issuer") {
        for key in ["authorization_endpoint", "revocation_endpoint"] {
            if let Some(entry) = section.entry(key) {
                section.report(
                    Problem::new(
                        "key_unused",
                        &entry.place(),
                        format!("`{key}` of {} has no use", section.what()),
                    )
                    .found("`issuer`, whose metadata names it")
                    .expected("it only with `token_endpoint`")
                    .hint("remove it, or write every endpoint and no `issuer`"),
                );
            }
        }
        return Some(Consent {
            authorization_endpoint: None,
            revocation_endpoint: None,
            params: params?,
            shared_fallback,
        });
    }
    let authorization = read_url(section, "authorization_endpoint");
    let revocation = if section.has("revocation_endpoint") {
        read_url(section, "revocation_endpoint").map(Some)
    } else {
        Some(None)
    };
    Some(Consent {
        authorization_endpoint: Some(authorization?),
        revocation_endpoint: revocation?,
        params: params?,
        shared_fallback,
    })
}
