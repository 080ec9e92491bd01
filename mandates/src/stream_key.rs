//! Signatures of the messages that tell of revocations: HMAC-SHA256 over a canonical form, as the official consumers
//! check them. Source: spec 1.4.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

/// The field that carries the signature and is not part of what is signed.
pub const SIGNATURE_FIELD: &str = "_sig";

/// Fewest bytes of a key.
const SHORTEST_KEY: usize = 32;

/// Signs and checks stream messages. Every node of a fleet and every resource server that listens holds the same.
pub struct StreamKey(hmac::Key);

impl StreamKey {
    /// The key in `text`: at least 64 hexadecimal digits; none for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(hex::decode(text.trim()).ok()?);
        (bytes.len() >= SHORTEST_KEY).then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The signature in lower-case hex.
    #[must_use]
    pub fn sign<K: AsRef<str>>(&self, stream: &str, fields: &BTreeMap<K, String>) -> String {
        hex::encode(hmac::sign(&self.0, &canonical(stream, fields)))
    }

    /// Whether `fields` carries a good signature of itself. Takes the same time wherever it differs.
    #[must_use]
    pub fn verifies<K: AsRef<str> + Ord>(&self, stream: &str, fields: &BTreeMap<K, String>) -> bool {
        let signature = fields.iter().find(|(name, _)| name.as_ref() == SIGNATURE_FIELD);
        let signature = signature.and_then(|(_, text)| hex::decode(text).ok());
        signature
            .is_some_and(|signature| hmac::verify(&self.0, &canonical(stream, fields), &signature).is_ok())
    }
}

impl std::fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StreamKey(..)")
    }
}

/// The stream's name, then `name=value` for each field in the order of the names' bytes, each with a newline.
fn canonical<K: AsRef<str>>(stream: &str, fields: &BTreeMap<K, String>) -> Vec<u8> {
    let mut text = format!("{stream}\n");
    for (name, value) in fields.iter().filter(|(name, _)| name.as_ref() != SIGNATURE_FIELD) {
        for part in [name.as_ref(), "=", value, "\n"] {
            text.push_str(part);
        }
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&'static str, &str)]) -> BTreeMap<&'static str, String> {
        pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
    }

    /// The vectors are the original's fixtures.
    #[test]
    fn signatures_are_the_ones_the_official_consumers_expect() {
        let key = StreamKey::parse(&"0123456789abcdef".repeat(4)).unwrap();
        let only_action = "93c82e377fc1ff7f1430549aa20cd20971150173b5996308ab84cb48d6f2683d";
        for (pairs, expected) in [
            (
                vec![("amount", "100"), ("action", "transfer")],
                "c06ccc579e026c31a97a04f203981b236a3c88041712e9b46242e8762da23d75",
            ),
            (vec![("action", "transfer")], only_action),
            (vec![("action", "transfer"), (SIGNATURE_FIELD, "deadbeef")], only_action),
            (
                vec![("name", ""), ("count", "0"), ("active", "true")],
                "dd36b85d880107b52155410569f95436acd8b5a656bba83e37c4b0196fb32ae1",
            ),
        ] {
            assert_eq!(key.sign("audit:events", &fields(&pairs)), expected);
        }
    }

    #[test]
    fn what_was_changed_moved_to_another_stream_or_not_signed_does_not_verify() {
        let key = StreamKey::parse(&"ab".repeat(32)).unwrap();
        let mut message = fields(&[("zone_id", "z"), ("session_id", "r1")]);
        assert!(!key.verifies("s", &message), "unsigned");
        let signature = key.sign("s", &message);
        message.insert(SIGNATURE_FIELD, signature);
        assert!(key.verifies("s", &message));
        assert!(!key.verifies("other", &message));
        message.insert("session_id", "r2".into());
        assert!(!key.verifies("s", &message));
        message.insert(SIGNATURE_FIELD, "zz".into());
        assert!(!key.verifies("s", &message));
    }

    #[test]
    fn a_short_or_unreadable_key_is_refused() {
        assert!(StreamKey::parse(&"ab".repeat(31)).is_none());
        assert!(StreamKey::parse("not hex").is_none());
        assert!(StreamKey::parse(&format!("{}\n", "ab".repeat(32))).is_some());
    }
}
