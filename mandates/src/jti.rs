//! Token identifiers: UUIDv7 (RFC 9562 section 5.7).

use uuid::{NoContext, Timestamp, Uuid, Variant};

/// A new identifier for a mint at `now_ms` (unix milliseconds): 48 bits of time, 74 random bits, lower case with
/// hyphens.
#[must_use]
pub fn new_jti(now_ms: i64) -> String {
    let since_epoch = u64::try_from(now_ms).unwrap_or(0);
    let nanos = u32::try_from((since_epoch % 1_000).saturating_mul(1_000_000)).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(NoContext, since_epoch / 1_000, nanos)).hyphenated().to_string()
}

/// The unix milliseconds inside an identifier; `None` unless it is a UUIDv7 in its canonical spelling.
#[must_use]
pub fn jti_millis(jti: &str) -> Option<i64> {
    let uuid = Uuid::try_parse(jti).ok()?;
    let canonical = uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == jti;
    if !canonical || uuid.get_version_num() != 7 || uuid.get_variant() != Variant::RFC4122 {
        return None;
    }
    i64::try_from(uuid.as_u128() >> 80).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_time_of_a_mint_can_be_read_back() {
        for at in [0, 1, 999, 1_790_000_000_123, 1_790_000_000_999] {
            assert_eq!(jti_millis(&new_jti(at)), Some(at));
        }
        assert_eq!(jti_millis(&new_jti(-5)), Some(0));
    }

    #[test]
    fn identifiers_of_one_millisecond_differ() {
        let many: HashSet<String> = (0..10_000).map(|_| new_jti(1_790_000_000_000)).collect();
        assert_eq!(many.len(), 10_000);
    }

    #[test]
    fn anything_but_a_canonical_uuidv7_has_no_time() {
        let good = "018f7d6a-8f4a-7d9f-9a54-5e4fd7df0001";
        assert_eq!(jti_millis(good), Some(0x018f_7d6a_8f4a));
        for bad in [
            "",
            "x",
            "018F7D6A-8F4A-7D9F-9A54-5E4FD7DF0001",
            "018f7d6a8f4a7d9f9a545e4fd7df0001",
            "{018f7d6a-8f4a-7d9f-9a54-5e4fd7df0001}",
            "urn:uuid:018f7d6a-8f4a-7d9f-9a54-5e4fd7df0001",
            "018f7d6a-8f4a-4d9f-9a54-5e4fd7df0001",
            "018f7d6a-8f4a-7d9f-ca54-5e4fd7df0001",
            " 018f7d6a-8f4a-7d9f-9a54-5e4fd7df0001",
        ] {
            assert_eq!(jti_millis(bad), None, "{bad}");
        }
    }
}
