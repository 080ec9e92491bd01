//! Asking a token endpoint, and what went wrong in a broker's words.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};

use super::{Trouble, Unavailable};
use crate::egress::{Egress, Reach, Refused};
use crate::outbound::{self, Unanswered};

/// One question, from the name to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) use outbound::Body;

/// Asks token endpoints.
#[derive(Debug)]
pub(super) struct Http(outbound::Http);

impl Http {
    pub(super) fn new(egress: Arc<Egress>) -> Self {
        Self(outbound::Http::new(egress, Reach::TokenEndpoint, TIMEOUT))
    }

    /// The status and the body, whatever they are.
    pub(super) async fn ask(&self, request: Request<Body>) -> Result<(StatusCode, Bytes), Trouble> {
        Ok(self.0.ask(request).await?)
    }
}

impl From<Unanswered> for Trouble {
    fn from(why: Unanswered) -> Self {
        let (kind, again) = match &why {
            Unanswered::Late(_) => (Unavailable::Unreachable, false),
            Unanswered::Refused(Refused::Unresolved(_))
            | Unanswered::Unreachable(_)
            | Unanswered::Broken(_) => (Unavailable::Unreachable, true),
            Unanswered::Refused(_) => (Unavailable::NotAddressable, false),
            Unanswered::TooLong => (Unavailable::Malformed, false),
        };
        Self { again, ..Self::new(kind, why.to_string()) }
    }
}
