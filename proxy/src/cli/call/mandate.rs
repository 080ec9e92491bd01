//! A mandate in the caller's hand.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use zeroize::Zeroizing;

/// A mandate that is sent, and never shown.
pub(in super::super) struct Mandate(Zeroizing<String>);

impl Mandate {
    pub(super) fn new(token: String) -> Self {
        Self(Zeroizing::new(token))
    }

    /// For the `Authorization` header.
    pub(in super::super) fn expose(&self) -> &str {
        &self.0
    }

    /// `sha256:` and the first 16 hex digits of the digest of the whole token.
    pub(super) fn fingerprint(&self) -> String {
        let digest = hex::encode(digest(&SHA256, self.0.as_bytes()));
        format!("sha256:{}", digest.get(..16).unwrap_or(&digest))
    }

    /// What the mandate says, unverified; null when it is no mandate.
    pub(super) fn claims(&self) -> Value {
        let part = self.0.split('.').nth(1).unwrap_or_default();
        let bytes = URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }
}

impl fmt::Debug for Mandate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mandate({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mandate_is_known_by_fingerprint_and_claims_only() {
        let payload = URL_SAFE_NO_PAD.encode(br#"{"use":"gateway"}"#);
        let mandate = Mandate::new(format!("head.{payload}.signature"));
        assert_eq!(mandate.claims()["use"], "gateway");
        let shown = format!("{mandate:?}");
        assert_eq!(shown.len(), "Mandate(sha256:)".len() + 16);
        assert!(!shown.contains("signature") && !shown.contains(&payload));
    }

    #[test]
    fn what_is_no_mandate_has_no_claims() {
        for text in ["", "a", "a.b.c", "a.e30"] {
            let claims = Mandate::new(text.to_owned()).claims();
            assert!(claims.is_null() || claims == serde_json::json!({}), "{text}");
        }
    }
}
