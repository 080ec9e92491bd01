//! What a refused caller is told: one shape for every listener that speaks the token endpoint's error format.
//!
//! The text is fixed at compile time. Nothing from the request, a policy, an upstream or a parser is ever
//! echoed; what a request lacked is given in typed members that come from the compiled zone.

use std::sync::Arc;

use caracal_policies::ErrorFormat;
use serde_json::{Map, Value, json};

/// The fixed part of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Stable machine-readable code, the body's `error`.
    pub code: &'static str,
    /// One sentence for a person, the body's `error_description`.
    pub description: &'static str,
    /// What the caller should do next.
    pub next_step: &'static str,
    /// Whether the same request may succeed later without any change.
    pub retryable: bool,
    /// Seconds for `Retry-After`, where waiting helps.
    pub retry_after: Option<u32>,
}

/// The variable part of a refusal: identifiers and what the caller's own request lacked.
#[derive(Clone, Debug, Default)]
pub struct Particulars {
    /// The request id that is also in the `X-Request-Id` header.
    pub request_id: String,
    /// The ledger's id of the decision; absent for callers that never proved who they are.
    pub decision_id: Option<String>,
    /// The decision's reason code, such as `role_scope_mismatch`, or a plugin's own.
    pub reason: Option<&'static str>,
    /// Scopes of the addressed operation that the mandate lacked.
    pub missing: Vec<Arc<str>>,
    /// Members that belong to the code alone, such as the approval that is waited for.
    pub members: Map<String, Value>,
    /// What of a budget or rate is told in the head.
    pub limits: Option<Limits>,
    /// What the callers of the addressed resource read as `error`.
    pub format: ErrorFormat,
}

/// A refusing budget in the fields of draft-ietf-httpapi-ratelimit-headers-10.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `RateLimit-Policy`.
    pub policy: String,
    /// `RateLimit`.
    pub limit: String,
    /// `Retry-After`, instead of the answer's own; none where waiting does not help.
    pub retry_after: Option<u64>,
}

impl Answer {
    /// The JSON body: the official clients' members and RFC 9457's, in one object.
    #[must_use]
    pub fn body(&self, particulars: &Particulars) -> Vec<u8> {
        let description = match particulars.reason {
            Some(reason) if self.code == "access_denied" => format!("policy denied ({reason})"),
            Some(reason) => format!("{} ({reason})", self.description),
            None => self.description.to_owned(),
        };
        let mut body = Map::new();
        let error = match particulars.format {
            ErrorFormat::Caracal => json!(self.code),
            ErrorFormat::Object => json!({
                "code": self.code,
                "message": format!("{description}; {}", self.next_step),
                "type": self.kind(),
            }),
        };
        body.insert("error".into(), error);
        body.insert("error_description".into(), json!(description));
        body.insert("requestId".into(), json!(particulars.request_id));
        body.insert("type".into(), json!(format!("urn:caracal:error:{}", self.code)));
        body.insert("title".into(), json!(self.description));
        body.insert("status".into(), json!(self.status));
        body.insert("detail".into(), json!(description));
        body.insert("next_step".into(), json!(self.next_step));
        body.insert(
            "retryable".into(),
            json!(
                self.retryable
                    && particulars.limits.as_ref().is_none_or(|limits| limits.retry_after.is_some())
            ),
        );
        if let Some(id) = &particulars.decision_id {
            body.insert("decision_id".into(), json!(id));
        }
        if !particulars.missing.is_empty() {
            body.insert("missing".into(), json!({ "scopes": particulars.missing }));
        }
        body.extend(particulars.members.clone());
        Value::Object(body).to_string().into_bytes()
    }

    /// The kind of the error, in the words that the APIs have in common whose clients read an object.
    fn kind(&self) -> &'static str {
        match self.status {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "api_error",
        }
    }

    /// The `WWW-Authenticate` value that goes with a 401 (RFC 6750 section 3).
    #[must_use]
    pub fn challenge(&self) -> Option<String> {
        (self.status == 401).then(|| format!("Bearer error=\"{}\"", self.code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_carries_both_vocabularies_and_no_empty_members() {
        let answer = Answer {
            status: 403,
            code: "access_denied",
            description: "access denied",
            next_step: "ask for the scope",
            retryable: false,
            retry_after: None,
        };
        let bare: Value = serde_json::from_slice(&answer.body(&Particulars::default())).unwrap();
        assert_eq!(bare["error"], "access_denied");
        assert_eq!(bare["status"], 403);
        assert!(bare.get("missing").is_none() && bare.get("decision_id").is_none());
        let told = Particulars {
            request_id: "r1".into(),
            decision_id: Some("d1".into()),
            reason: Some("role_scope_mismatch"),
            missing: vec!["echo:write".into()],
            format: ErrorFormat::Caracal,
            ..Particulars::default()
        };
        let full: Value = serde_json::from_slice(&answer.body(&told)).unwrap();
        assert_eq!(full["error_description"], "policy denied (role_scope_mismatch)");
        assert_eq!(full["missing"]["scopes"][0], "echo:write");
        assert_eq!(answer.challenge(), None);
        let told = Particulars { format: ErrorFormat::Object, ..told };
        let object: Value = serde_json::from_slice(&answer.body(&told)).unwrap();
        assert_eq!(
            object["error"],
            json!({
                "code": "access_denied",
                "message": "policy denied (role_scope_mismatch); ask for the scope",
                "type": "permission_error",
            })
        );
        assert_eq!(object["error_description"], full["error_description"]);
    }
}
