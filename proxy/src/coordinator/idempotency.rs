//! The `Idempotency-Key` header and the digest of what it protects.

use http::HeaderMap;
use serde_json::{Value, json};

use super::refused::Refused;
use crate::state::{Caller, IdempotencyKey, KeyKind};

const KEY: &str = "idempotency-key";
const KIND: &str = "idempotency-key-kind";
/// Longest key, in bytes.
const MAX_KEY: usize = 255;

/// Reads the key; `request` is what the operation depends on.
///
/// The digest covers the caller's application and subject and the request, and nothing that a renewed mandate
/// changes: a retry with a fresh mandate is the same request.
///
/// # Errors
/// 400 `idempotency_key_multiple` or `idempotency_key_invalid`.
pub(super) fn key(
    headers: &HeaderMap,
    caller: &Caller,
    request: &Value,
) -> Result<Option<IdempotencyKey>, Refused> {
    let mut sent = headers.get_all(KEY).iter();
    let Some(first) = sent.next() else { return Ok(None) };
    if sent.next().is_some() {
        return Err(
            Refused::new(400, "idempotency_key_multiple").with_message("send one Idempotency-Key header")
        );
    }
    let text = std::str::from_utf8(first.as_bytes()).map_err(|_bad| invalid())?;
    let kind = match headers.get(KIND).map(http::HeaderValue::as_bytes) {
        Some(b"generated") => KeyKind::Generated,
        Some(_) | None => KeyKind::Chosen,
    };
    named(text, kind, caller, request).map(Some)
}

/// A key that was sent, wherever that was.
///
/// # Errors
/// 400 `idempotency_key_invalid`.
pub(super) fn named(
    key: &str,
    kind: KeyKind,
    caller: &Caller,
    request: &Value,
) -> Result<IdempotencyKey, Refused> {
    let fits =
        !key.is_empty() && key.len() <= MAX_KEY && key.trim() == key && !key.contains(char::is_control);
    if !fits {
        return Err(invalid());
    }
    let subject = match caller {
        Caller::Application(caller) => &*caller.subject,
        Caller::Operator => caller.id(),
    };
    // Object members are kept sorted, so equal requests have equal text.
    let canonical = json!({ "client_id": caller.id(), "sub": subject, "request": request }).to_string();
    Ok(IdempotencyKey { key: key.to_owned(), kind, request_digest: caracal_mandates::digest(&canonical) })
}

const fn invalid() -> Refused {
    Refused::new(400, "idempotency_key_invalid").with_message(
        "an idempotency key is 1 to 255 bytes of UTF-8 without outer spaces or control characters",
    )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::state::ApplicationCaller;

    fn caller(record: &str) -> Caller {
        Caller::Application(ApplicationCaller {
            id: "app".into(),
            subject: "app".into(),
            record: Some(record.into()),
            scopes: Vec::new(),
        })
    }

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(KEY, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_renewed_mandate_and_another_member_order_are_the_same_request() {
        let headers = headers(&[b"k"]);
        let first: Value = serde_json::from_str(r#"{"a":1,"b":{"c":2,"d":3}}"#).unwrap();
        let again: Value = serde_json::from_str(r#"{"b":{"d":3,"c":2},"a":1}"#).unwrap();
        let one = key(&headers, &caller("r1"), &first).unwrap().unwrap();
        let two = key(&headers, &caller("r2"), &again).unwrap().unwrap();
        assert_eq!(one.request_digest, two.request_digest);
        let other = key(&headers, &caller("r1"), &json!({ "a": 2 })).unwrap().unwrap();
        assert_ne!(one.request_digest, other.request_digest);
    }

    #[test]
    fn keys_are_single_short_and_clean() {
        let told = |values: &[&[u8]]| key(&headers(values), &caller("r"), &json!({})).unwrap_err().code;
        assert_eq!(told(&[b"a", b"b"]), "idempotency_key_multiple");
        for bad in [&b""[..], &[b'x'; 256], &b" a"[..], &b"a "[..], &b"\xff\xfe"[..]] {
            assert_eq!(told(&[bad]), "idempotency_key_invalid");
        }
        assert_eq!(key(&HeaderMap::new(), &caller("r"), &json!({})).unwrap(), None);
        let mut generated = headers(&["ä".as_bytes()]);
        assert_eq!(key(&generated, &caller("r"), &json!({})).unwrap().unwrap().kind, KeyKind::Chosen);
        generated.insert(KIND, HeaderValue::from_static("generated"));
        assert_eq!(key(&generated, &caller("r"), &json!({})).unwrap().unwrap().kind, KeyKind::Generated);
    }
}
