//! `[[subject_issuers]]`.

use std::sync::Arc;

use super::{Draft, checked};
use crate::endpoint::EndpointUrl;
use crate::issuer::SubjectIssuer;
use crate::names;
use crate::read::{Placed, Section};
use crate::report::Problem;

/// Keys of one table of `subject_issuers`.
pub(crate) const KEYS: [&str; 4] = ["issuer", "jwks_url", "audience", "single_use"];

const ISSUER: &str = "the `iss` of its tokens: 1 to 2048 visible ASCII characters without blanks";
const AUDIENCE: &str = "the `aud` of its tokens: 1 to 512 visible ASCII characters without blanks";

impl Draft {
    pub(super) fn read_issuers(&mut self, document: &Section<'_>) {
        for mut section in document.sections("subject_issuers", "a subject issuer") {
            section.only(&KEYS);
            let issuer = section.needed_text("issuer");
            let issuer = issuer.and_then(|text| checked(&section, "issuer", text, names::is_issuer, ISSUER));
            if let Some(issuer) = &issuer {
                section.named(format!("subject issuer `{}`", issuer.value));
            }
            let audience = section.needed_text("audience");
            let audience =
                audience.and_then(|text| checked(&section, "audience", text, names::is_audience, AUDIENCE));
            let jwks_url = section.needed_text("jwks_url").and_then(|text| read_url(&section, &text));
            let single_use = section.flag("single_use");
            let (Some(issuer), Some(audience), Some(jwks_url)) = (issuer, audience, jwks_url) else {
                continue;
            };
            let value = SubjectIssuer {
                issuer: issuer.value,
                jwks_url,
                audience: audience.value.to_string(),
                single_use,
                place: section.place().clone(),
            };
            self.issuers.push(Placed { value: Arc::new(value), place: issuer.place });
        }
    }
}

/// A URL that is none may hold a password, so it is not repeated.
fn read_url(section: &Section<'_>, text: &Placed<&str>) -> Option<EndpointUrl> {
    match EndpointUrl::parse(text.value) {
        Ok(url) => Some(url),
        Err(expected) => {
            section.report(
                Problem::new(
                    "jwks_url",
                    &text.place,
                    format!("`jwks_url` of {} is not valid", section.what()),
                )
                .found("a text in another form, not shown here")
                .expected(expected)
                .hint("take `jwks_uri` from the issuer's `/.well-known/openid-configuration`"),
            );
            None
        }
    }
}
