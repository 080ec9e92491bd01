//! What the guards look at in a test of a bundle.

use serde_json::Value;

use crate::guard::GuardFacts;

/// A request as a test describes it.
#[derive(Debug)]
pub(crate) struct CaseFacts {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) body: Option<Value>,
    pub(crate) arguments: Option<Value>,
    pub(crate) subject: Option<String>,
    pub(crate) depth: u32,
    pub(crate) source: String,
    pub(crate) seconds: i64,
}

impl Default for CaseFacts {
    fn default() -> Self {
        Self {
            headers: Vec::new(),
            query: Vec::new(),
            body: None,
            arguments: None,
            subject: None,
            depth: 0,
            source: "127.0.0.1".to_owned(),
            seconds: 0,
        }
    }
}

impl CaseFacts {
    pub(crate) fn headers(&self) -> Vec<(&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
    }

    pub(crate) fn for_guards<'a>(&'a self, headers: &'a [(&'a str, &'a [u8])]) -> GuardFacts<'a> {
        GuardFacts {
            headers,
            query: Some(&self.query),
            arguments: self.arguments.as_ref(),
            body: self.body.as_ref(),
            subject: self.subject.as_deref(),
            depth: self.depth,
            source: &self.source,
            now_s: self.seconds,
        }
    }
}
