//! The token endpoint's form, read from its raw bytes.
//!
//! Strict where the usual form decoders are lenient: a field may occur once (only `resource` repeats), every
//! `%` starts a valid escape, values are UTF-8.

use std::collections::{BTreeMap, BTreeSet};

use percent_encoding::percent_decode;
use zeroize::Zeroizing;

use crate::broker::Returned;

/// The only grant of this endpoint (RFC 8693 section 2.1).
pub(super) const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// Type of an access token (RFC 8693 section 3).
pub(super) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// Type of an identity token (RFC 8693 section 3).
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
/// Fields that must not be sent at all: other ways to authenticate or to act that this endpoint does not have.
const FORBIDDEN: [&str; 3] = ["actor_token", "client_assertion", "client_assertion_type"];
/// Most fields one form may have, repeated ones counted.
const MAX_FIELDS: usize = 128;
/// Most bytes of an identifier in the form.
const MAX_ID: usize = 128;

/// One token exchange request, well formed but not yet believed.
#[derive(Debug)]
pub(super) struct TokenForm {
    pub(super) zone_id: String,
    pub(super) application_id: String,
    pub(super) client_secret: Secret,
    pub(super) subject: Option<Subject>,
    /// Trimmed, sorted, unique.
    pub(super) resources: Vec<String>,
    /// In the order asked for, unique.
    pub(super) scopes: Vec<String>,
    pub(super) session_id: Option<String>,
    pub(super) agent_session_id: Option<String>,
    pub(super) delegation_edge_id: Option<String>,
    /// Seconds; `None` when absent or 0.
    pub(super) ttl: Option<i64>,
    pub(super) approval_id: Option<String>,
    pub(super) use_count: UseCount,
}

/// The presented secret; prints nothing, wiped on drop.
pub(super) struct Secret(Zeroizing<String>);

impl Secret {
    pub(super) fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// A presented subject token.
pub(super) enum Subject {
    /// One of our own mandates.
    Mandate(String),
    /// An identity token of a foreign identity provider.
    Federated(Zeroizing<String>),
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Mandate(_) => "Mandate",
            Self::Federated(_) => "Federated",
        })
    }
}

/// How often the mandate asked for may be presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UseCount {
    Once,
    Reusable,
}

/// Why a form is refused; the order of the variants is the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FormProblem {
    Malformed,
    DuplicateField,
    ForbiddenField,
    BadTtl,
    BlankResource,
    GrantType,
    SubjectTokenType,
    SubjectTokenPair,
    BadReusable,
}

impl TokenForm {
    /// Parses and checks a body in the documented order.
    pub(super) fn parse(body: &[u8]) -> Result<Self, FormProblem> {
        let mut fields = Fields::read(body)?;
        if FORBIDDEN.iter().any(|name| fields.single.contains_key(*name)) {
            return Err(FormProblem::ForbiddenField);
        }
        let ttl = fields.take("ttl_seconds").map(|text| ttl(&text)).transpose()?.filter(|ttl| *ttl != 0);
        let resources: BTreeSet<String> =
            fields.resources.iter().map(|text| text.trim().to_owned()).collect();
        if resources.contains("") {
            return Err(FormProblem::BlankResource);
        }
        if fields.take("grant_type").as_deref() != Some(GRANT) {
            return Err(FormProblem::GrantType);
        }
        let subject = fields.subject()?;
        let use_count = match fields.take("reusable").as_deref() {
            None | Some("false") => UseCount::Once,
            Some("true") => UseCount::Reusable,
            Some(_) => return Err(FormProblem::BadReusable),
        };
        let mut seen = BTreeSet::new();
        let scopes = fields.take("scope").unwrap_or_default();
        Ok(Self {
            zone_id: fields.take("zone_id").unwrap_or_default(),
            application_id: fields.take("application_id").unwrap_or_default(),
            client_secret: Secret(Zeroizing::new(fields.single.remove("client_secret").unwrap_or_default())),
            subject,
            resources: resources.into_iter().collect(),
            scopes: scopes
                .split_ascii_whitespace()
                .filter(|scope| seen.insert((*scope).to_owned()))
                .map(str::to_owned)
                .collect(),
            session_id: fields.take("session_id"),
            agent_session_id: fields.take("agent_session_id"),
            delegation_edge_id: fields.take("delegation_edge_id"),
            ttl,
            approval_id: fields.take("approval_id"),
            use_count,
        })
    }

    /// Whether the form carries anything beside the identity fields, which a federation may not.
    pub(super) fn asks_for_authority(&self) -> bool {
        !self.resources.is_empty()
            || !self.scopes.is_empty()
            || self.session_id.is_some()
            || self.agent_session_id.is_some()
            || self.delegation_edge_id.is_some()
            || self.approval_id.is_some()
            || self.use_count == UseCount::Reusable
    }
}

struct Fields {
    single: BTreeMap<String, String>,
    resources: Vec<String>,
}

impl Fields {
    fn read(body: &[u8]) -> Result<Self, FormProblem> {
        let mut fields = Self { single: BTreeMap::new(), resources: Vec::new() };
        let mut duplicate = false;
        let pairs = body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
        for (count, pair) in pairs.enumerate() {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let name = decode(halves.next().unwrap_or_default())?;
            let value = decode(halves.next().unwrap_or_default())?;
            if count >= MAX_FIELDS {
                return Err(FormProblem::Malformed);
            }
            if name == "resource" {
                fields.resources.push(value);
            } else {
                duplicate |= fields.single.insert(name, value).is_some();
            }
        }
        if duplicate { Err(FormProblem::DuplicateField) } else { Ok(fields) }
    }

    /// A field's trimmed value; blank counts as absent.
    fn take(&mut self, name: &str) -> Option<String> {
        let value = self.single.remove(name)?;
        let trimmed = value.trim();
        (!trimmed.is_empty()).then(|| trimmed.to_owned())
    }

    fn subject(&mut self) -> Result<Option<Subject>, FormProblem> {
        let token = self.take("subject_token");
        match (token, self.take("subject_token_type").as_deref()) {
            (_, Some(kind)) if kind != ACCESS_TOKEN && kind != ID_TOKEN => Err(FormProblem::SubjectTokenType),
            (Some(token), Some(ACCESS_TOKEN)) => Ok(Some(Subject::Mandate(token))),
            (Some(token), Some(_)) => Ok(Some(Subject::Federated(Zeroizing::new(token)))),
            (None, None) => Ok(None),
            (Some(_), None) | (None, Some(_)) => Err(FormProblem::SubjectTokenPair),
        }
    }
}

/// `application/x-www-form-urlencoded` decoding of one name or value (WHATWG URL, section 5.1, but strict).
fn decode(raw: &[u8]) -> Result<String, FormProblem> {
    let mut at = raw.iter().enumerate().filter(|(_, byte)| **byte == b'%').map(|(at, _)| at);
    let escaped = |at: usize| {
        let digits = raw.get(at.saturating_add(1)..at.saturating_add(3));
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !at.all(escaped) || raw.contains(&b';') {
        return Err(FormProblem::Malformed);
    }
    let spaced: Zeroizing<Vec<u8>> =
        Zeroizing::new(raw.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect());
    let bytes: Vec<u8> = percent_decode(&spaced).collect();
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        Ok(_) | Err(_) => Err(FormProblem::Malformed),
    }
}

/// The value of a field that occurs exactly once in a query string.
pub(super) fn query_field(query: &str, name: &str) -> Option<String> {
    let mut fields = Fields::read(query.as_bytes()).ok()?;
    fields.take(name)
}

/// What a browser brings back from an authorization server; none without a state, or with a field twice.
pub(super) fn returned(query: &str) -> Option<Returned> {
    let mut fields = Fields::read(query.as_bytes()).ok()?;
    Some(Returned {
        state: fields.take("state")?,
        code: fields.take("code").map(Zeroizing::new),
        error: fields.take("error"),
        issuer: fields.take("iss"),
    })
}

/// Seconds, as plain decimal digits; more digits than any cap has are out of range like any other big number.
fn ttl(text: &str) -> Result<i64, FormProblem> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FormProblem::BadTtl);
    }
    text.parse().ok().ok_or(FormProblem::BadTtl)
}

/// Whether a text may be an id of a zone, an application, a session, a delegation or a record.
pub(crate) fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(body: &str) -> Result<TokenForm, FormProblem> {
        TokenForm::parse(format!("grant_type={GRANT}{body}").as_bytes())
    }

    #[test]
    fn values_are_decoded_trimmed_sorted_and_unique() {
        let form = form(
            "&resource=b&resource=resource%3A%2F%2Fa&resource=+b+&scope=x+y++x&ttl_seconds=0&zone_id=+z",
        )
        .unwrap();
        assert_eq!(form.resources, ["b", "resource://a"]);
        assert_eq!(form.scopes, ["x", "y"]);
        assert_eq!((form.ttl, form.zone_id.as_str()), (None, "z"));
        assert_eq!(form.use_count, UseCount::Once);
    }

    #[test]
    fn problems_are_told_in_the_documented_order() {
        let without_type = "&subject_token=x".to_owned();
        let without_token = format!("&subject_token_type={ACCESS_TOKEN}");
        let cases = [
            ("&scope=%zz&scope=a", FormProblem::Malformed),
            ("&scope=%ff", FormProblem::Malformed),
            ("&scope=a;b", FormProblem::Malformed),
            ("&scope=a&scope=a&actor_token=", FormProblem::DuplicateField),
            ("&actor_token=&ttl_seconds=x", FormProblem::ForbiddenField),
            ("&client_assertion=x", FormProblem::ForbiddenField),
            ("&client_assertion_type=x", FormProblem::ForbiddenField),
            ("&ttl_seconds=-1&resource=", FormProblem::BadTtl),
            ("&ttl_seconds=1.5", FormProblem::BadTtl),
            ("&ttl_seconds=%2B9", FormProblem::BadTtl),
            ("&ttl_seconds=99999999999999999999", FormProblem::BadTtl),
            ("&resource=+", FormProblem::BlankResource),
            ("&subject_token_type=saml2", FormProblem::SubjectTokenType),
            (&*without_type, FormProblem::SubjectTokenPair),
            (&*without_token, FormProblem::SubjectTokenPair),
            ("&reusable=yes", FormProblem::BadReusable),
        ];
        for (body, problem) in cases {
            assert_eq!(form(body).unwrap_err(), problem, "{body}");
        }
        assert_eq!(TokenForm::parse(b"grant_type=password").unwrap_err(), FormProblem::GrantType);
    }

    #[test]
    fn a_secret_keeps_its_bytes_and_is_never_printed() {
        let form = form("&client_secret=%20cs_x%2By%20").unwrap();
        assert_eq!(form.client_secret.expose(), b" cs_x+y ");
        assert!(!format!("{form:?}").contains("cs_x"));
    }

    #[test]
    fn any_other_field_may_occur_once() {
        form("&audience=a&requested_token_type=b").unwrap();
        assert_eq!(form("&audience=a&audience=b").unwrap_err(), FormProblem::DuplicateField);
        let many: String = (0..MAX_FIELDS).map(|n| format!("&f{n}=1")).collect();
        assert_eq!(form(&many).unwrap_err(), FormProblem::Malformed);
    }
}
