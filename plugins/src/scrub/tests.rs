//! Every form of a secret is found, keeps its length, and leaves the rest alone.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::*;

const SECRET: &str = "sk-live/ab+c?\"d\\e~7>zz9";

fn scrubbed(text: &str) -> (String, usize) {
    let mut bytes = text.as_bytes().to_vec();
    let found = Scrubber::new(&[SECRET.as_bytes()]).scrub(&mut bytes);
    (String::from_utf8(bytes).unwrap(), found)
}

fn percent(text: &str, upper: bool) -> String {
    text.bytes()
        .map(|byte| match (byte.is_ascii_alphanumeric(), upper) {
            (true, _) => char::from(byte).to_string(),
            (false, true) => format!("%{byte:02X}"),
            (false, false) => format!("%{byte:02x}"),
        })
        .collect()
}

#[test]
fn every_plain_form_is_replaced_by_as_many_stars() {
    let json = SECRET.replace('\\', "\\\\").replace('"', "\\\"").replace('/', "\\/");
    let unicode: String = SECRET.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    let every_byte: String = SECRET.bytes().map(|byte| format!("%{byte:02x}")).collect();
    for form in [
        SECRET.to_owned(),
        percent(SECRET, true),
        percent(SECRET, false),
        every_byte,
        json,
        unicode,
        hex::encode(SECRET),
        hex::encode_upper(SECRET),
    ] {
        let (after, found) = scrubbed(&format!("before {form} after"));
        assert_eq!(after, format!("before {} after", "*".repeat(form.len())), "{form}");
        assert_eq!(found, 1);
    }
}

#[test]
fn base64_is_found_at_every_alignment_and_in_both_alphabets() {
    for before in ["", "u", "us", "use", "user:"] {
        for after in ["", "!", "!!", "!!!"] {
            let plain = format!("{before}{SECRET}{after}");
            for text in [STANDARD.encode(&plain), URL_SAFE_NO_PAD.encode(&plain)] {
                let (masked, found) = scrubbed(&format!("Basic {text}"));
                assert_eq!(found, 1, "{plain}");
                assert_eq!(masked.len(), text.len() + 6);
                let stars = masked.matches('*').count();
                assert!(stars >= SECRET.len() * 4 / 3, "{masked}");
                let left = masked.trim_start_matches("Basic ").replace(['*', '='], "");
                let around = before.len() + after.len();
                assert!(left.len() <= around * 4 / 3 + 1, "{masked}");
            }
        }
    }
}

#[test]
fn a_space_may_be_a_plus_in_a_query() {
    let mut bytes = b"p=a+b%20c+long+secret".to_vec();
    assert_eq!(Scrubber::new(&[b"a b c long secret"]).scrub(&mut bytes), 1);
    assert_eq!(bytes, b"p=*******************");
}

#[test]
fn a_secret_beyond_ascii_is_found_in_json_escapes() {
    let secret = "pässwörd-🔑-long";
    let json: String = secret.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
    let mut bytes = json.clone().into_bytes();
    assert_eq!(Scrubber::new(&[secret.as_bytes()]).scrub(&mut bytes), 1);
    assert_eq!(bytes, "*".repeat(json.len()).into_bytes());
}

#[test]
fn overlapping_and_repeated_occurrences_leave_nothing() {
    let scrubber = Scrubber::new(&[b"abcabcabcabc", b"second-secret"]);
    let mut bytes = b"abcabcabcabcabc, second-secret; abcabcabcab".to_vec();
    assert_eq!(scrubber.scrub(&mut bytes), 2);
    assert_eq!(bytes, b"***************, *************; abcabcabcab");
}

#[test]
fn text_without_a_secret_is_untouched() {
    for text in ["", "sk-live/ab+c", "%", "%4", "\\u00", "\\", "c2stbGl2ZS9h", "deadbeef%zz\\q"] {
        assert_eq!(scrubbed(text), (text.to_owned(), 0));
    }
    let mut bytes = b"anything".to_vec();
    assert_eq!(Scrubber::new(&[b""]).scrub(&mut bytes), 0);
}

#[test]
fn headers_keep_their_number_their_length_and_their_sensitive_mark() {
    let mut headers = HeaderMap::new();
    let mut echo = HeaderValue::from_str(&format!("k={}", percent(SECRET, true))).unwrap();
    echo.set_sensitive(true);
    let before = echo.len();
    headers.append("x-echo", echo);
    headers.append("x-echo", HeaderValue::from_static("plain"));
    let scrubber = Scrubber::new(&[SECRET.as_bytes()]);
    assert_eq!(scrubber.scrub_headers(&mut headers), 1);
    let values: Vec<_> = headers.get_all("x-echo").iter().collect();
    assert_eq!(values[0].len(), before);
    assert!(values[0].is_sensitive());
    assert_eq!(values[1], "plain");
}

#[test]
fn a_scrubber_cannot_be_printed() {
    let shown = format!("{:?}", Scrubber::new(&[SECRET.as_bytes()]));
    assert_eq!(shown, "Scrubber { secrets: 1, .. }");
}
