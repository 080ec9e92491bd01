//! What a plugin says about itself before it is let into a chain.

use http::HeaderName;

use crate::reserved;

/// The phases a plugin takes part in and the headers it may change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declaration {
    /// Phases whose hook is to be called.
    pub phases: Vec<Phase>,
    /// Request headers it may set or remove.
    pub request_headers: Vec<HeaderName>,
    /// Response headers it may set or remove.
    pub response_headers: Vec<HeaderName>,
    /// Whether bodies of responses are to be searched for this request's secrets. The edge does it; no hook runs.
    pub scrubs_bodies: bool,
}

/// The moments at which plugins run, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before the decision.
    Request,
    /// On the response head, before any other plugin may read it.
    Scrub,
    /// On the response head.
    Response,
}

impl Declaration {
    /// The reasons for which a plugin that declares this is not let in, in words.
    ///
    /// Shape: empty when it may run; one entry per reserved header, phaseless header list or missing phase.
    pub(crate) fn objections(&self, slots: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        if self.phases.is_empty() {
            found.push("it declares no phase, so it would never run".to_owned());
        }
        for (phase, word, headers) in [
            (Phase::Request, "request", &self.request_headers),
            (Phase::Response, "response", &self.response_headers),
        ] {
            if !headers.is_empty() && !self.phases.contains(&phase) {
                found.push(format!("it declares {word} headers but not the {word} phase"));
            }
            for header in headers {
                if let Some(reason) = reserved::reason(header, slots) {
                    found.push(format!("it declares the {word} header `{header}`, which {reason}"));
                }
            }
        }
        found
    }
}
