//! How the coordinator says no: `{"error": code, "request_id": id}` and what some codes add to it.

use axum::response::Response;
use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::{Map, Value, json};

use crate::listen::{RequestId, json_response};
use crate::state::CoordinatorError;

/// One thing wrong with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Issue {
    /// Member names from the outside in.
    pub(super) path: Vec<String>,
    pub(super) message: &'static str,
}

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) code: &'static str,
    message: Option<&'static str>,
    detail: Option<&'static str>,
    pub(super) issues: Vec<Issue>,
    retry_after: Option<u32>,
}

impl Refused {
    pub(super) const fn new(status: u16, code: &'static str) -> Self {
        Self { status, code, message: None, detail: None, issues: Vec::new(), retry_after: None }
    }

    pub(super) const fn with_message(mut self, message: &'static str) -> Self {
        self.message = Some(message);
        self
    }

    pub(super) const fn after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(super) fn body(issues: Vec<Issue>) -> Self {
        Self { issues, ..Self::new(400, "invalid_body") }
    }

    pub(super) fn response(&self, id: &RequestId) -> Response {
        let mut body = Map::new();
        body.insert("error".into(), json!(self.code));
        body.insert("request_id".into(), json!(id.shown()));
        for (name, text) in [("message", self.message), ("detail", self.detail)] {
            if let Some(text) = text {
                body.insert(name.into(), json!(text));
            }
        }
        if self.code == "invalid_body" {
            let issues: Vec<Value> = self
                .issues
                .iter()
                .map(|issue| json!({ "path": issue.path, "message": issue.message }))
                .collect();
            body.insert("error_description".into(), json!("the request body is not valid"));
            body.insert("requestId".into(), json!(id.shown()));
            body.insert("details".into(), json!({ "issues": issues }));
        }
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = json_response(status, Value::Object(body).to_string());
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, challenge(self.code));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// RFC 6750 section 3: a request without any token is challenged without an error code.
fn challenge(code: &str) -> HeaderValue {
    let bare = HeaderValue::from_static("Bearer");
    if code == "missing_token" { bare } else { HeaderValue::from_static("Bearer error=\"invalid_token\"") }
}

impl From<CoordinatorError> for Refused {
    fn from(error: CoordinatorError) -> Self {
        if let Some(source) = &error.source {
            tracing::error!(error = %source, "a coordinator operation could not be stored");
        }
        Self {
            status: error.status,
            code: error.code,
            message: error.message,
            detail: error.detail,
            issues: Vec::new(),
            retry_after: (error.status == 503).then_some(2),
        }
    }
}
