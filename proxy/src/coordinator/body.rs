//! JSON bodies: read into typed values, every problem collected with its place.
//!
//! Members nobody knows are ignored, because clients send some that this server has no use for. A member that
//! is `null` counts as absent.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

use super::refused::{Issue, Refused};
use crate::state::parse_iso;

/// Most problems told at once.
const MAX_ISSUES: usize = 32;

/// A JSON object being read.
#[derive(Debug)]
pub(super) struct Body {
    members: Map<String, Value>,
    path: Vec<String>,
    issues: Vec<Issue>,
}

impl Body {
    /// Parses a body that must be a JSON object.
    ///
    /// # Errors
    /// 415 for another content type, 400 `invalid_body` otherwise.
    pub(super) fn required(headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Refused> {
        json_type(headers)?;
        let whole = |message| Refused::body(vec![Issue { path: Vec::new(), message }]);
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(members)) => Ok(Self { members, path: Vec::new(), issues: Vec::new() }),
            Ok(_) => Err(whole("must be a JSON object")),
            Err(_) => Err(whole("must be valid JSON")),
        }
    }

    /// As [`Body::required`], but no bytes at all count as an empty object, whatever the content type.
    ///
    /// # Errors
    /// As [`Body::required`].
    pub(super) fn optional(headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Refused> {
        if bytes.is_empty() {
            return Ok(Self { members: Map::new(), path: Vec::new(), issues: Vec::new() });
        }
        Self::required(headers, bytes)
    }

    /// A required string of at least one character.
    pub(super) fn string(&mut self, name: &str) -> String {
        match self.take(name) {
            Some(Value::String(text)) if !text.is_empty() => return text,
            Some(_) => self.issue(name, "must be a non-empty string"),
            None => self.issue(name, "is required"),
        }
        String::new()
    }

    /// An optional string of at least one character.
    pub(super) fn optional_string(&mut self, name: &str) -> Option<String> {
        let value = self.take(name)?;
        let text = value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        if text.is_none() {
            self.issue(name, "must be a non-empty string");
        }
        text
    }

    /// One of a fixed set of words.
    pub(super) fn word<T: Copy>(
        &mut self,
        name: &str,
        words: &[(&str, T)],
        message: &'static str,
    ) -> Option<T> {
        let value = self.take(name)?;
        let found = words.iter().find(|(word, _)| value.as_str() == Some(*word)).map(|(_, meaning)| *meaning);
        if found.is_none() {
            self.issue(name, message);
        }
        found
    }

    /// A whole number in a range.
    pub(super) fn integer(
        &mut self,
        name: &str,
        least: u64,
        most: u64,
        message: &'static str,
    ) -> Option<u64> {
        let value = self.take(name)?;
        let found = whole(&value).filter(|number| (least..=most).contains(number));
        if found.is_none() {
            self.issue(name, message);
        }
        found
    }

    /// An RFC 3339 time, as unix milliseconds.
    pub(super) fn time(&mut self, name: &str) -> Option<i64> {
        let value = self.take(name)?;
        let at = value.as_str().and_then(parse_iso);
        if at.is_none() {
            self.issue(name, "must be an RFC 3339 time");
        }
        at
    }

    /// A list of strings that `fits`, each trimmed first.
    pub(super) fn strings(
        &mut self,
        name: &str,
        most: usize,
        fits: impl Fn(&str) -> bool,
        message: &'static str,
    ) -> Vec<String> {
        let Some(value) = self.take(name) else { return Vec::new() };
        let texts: Option<Vec<String>> =
            value.as_array().filter(|list| list.len() <= most).and_then(|list| {
                list.iter()
                    .map(|item| item.as_str().map(str::trim).filter(|text| fits(text)).map(str::to_owned))
                    .collect()
            });
        if texts.is_none() {
            self.issue(name, message);
        }
        texts.unwrap_or_default()
    }

    /// A JSON object, as it is.
    pub(super) fn object(&mut self, name: &str) -> Option<Map<String, Value>> {
        if let Value::Object(members) = self.take(name)? {
            return Some(members);
        }
        self.issue(name, "must be an object");
        None
    }

    /// A member as it is.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name).filter(|value| !value.is_null())
    }

    /// Whether a member is there and not `null`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(|value| !value.is_null())
    }

    /// Notes a problem.
    pub(super) fn issue(&mut self, name: &str, message: &'static str) {
        if self.issues.len() < MAX_ISSUES {
            let path = self.path.iter().cloned().chain([name.to_owned()]).collect();
            self.issues.push(Issue { path, message });
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// 400 `invalid_body` with every problem found.
    pub(super) fn finish(self) -> Result<(), Refused> {
        if self.issues.is_empty() { Ok(()) } else { Err(Refused::body(self.issues)) }
    }
}

/// A whole number, also when it is written as `2.0`.
pub(super) fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let number =
            value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..9.0e15).contains(number))?;
        format!("{number:.0}").parse().ok()
    })
}

/// A body without a content type is taken for JSON: the official clients send some like that.
fn json_type(headers: &HeaderMap) -> Result<(), Refused> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let essence =
        value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    Err(Refused::new(415, "unsupported_media_type").with_message("the body must be application/json"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body(value: &Value) -> Body {
        Body::required(&HeaderMap::new(), value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let mut body = body(&json!({ "a": 1, "n": 1.5, "l": ["x", ""], "w": "maybe", "unknown": true }));
        body.string("a");
        body.string("b");
        body.integer("n", 1, 5, "must be 1 to 5");
        body.strings("l", 4, |text| !text.is_empty(), "must be words");
        body.word("w", &[("yes", true)], "must be yes");
        let refused = body.finish().unwrap_err();
        let paths: Vec<String> = refused.issues.iter().map(|issue| issue.path.join(".")).collect();
        assert_eq!(paths, ["a", "b", "n", "l", "w"]);
    }

    #[test]
    fn whole_numbers_may_be_written_with_a_point() {
        let mut body = body(&json!({ "a": 2.0, "b": null }));
        assert_eq!(body.integer("a", 1, 5, ""), Some(2));
        assert_eq!(body.integer("b", 1, 5, ""), None);
        body.finish().unwrap();
    }

    #[test]
    fn no_bytes_are_an_empty_object_only_where_allowed() {
        let mut headers = HeaderMap::new();
        Body::optional(&headers, b"").unwrap();
        assert_eq!(Body::required(&headers, b"").unwrap_err().code, "invalid_body");
        assert_eq!(Body::required(&headers, b"[]").unwrap_err().code, "invalid_body");
        headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
        assert_eq!(Body::required(&headers, b"{}").unwrap_err().status, 415);
        Body::optional(&headers, b"").unwrap();
    }
}
