//! Every form of a secret is found, keeps its length, and leaves the rest alone.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

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

/// What the secret alone decides may begin with one of the two characters in which the alphabets differ.
#[test]
fn base64_is_found_where_its_first_character_is_spelled_in_two_ways() {
    let secret = "\u{3c0}-and-what-follows";
    let plain = format!("u{secret}");
    for text in [STANDARD.encode(&plain), URL_SAFE_NO_PAD.encode(&plain)] {
        assert!(matches!(text.as_bytes()[2], b'+' | b'-'), "{text}");
        let mut bytes = text.clone().into_bytes();
        assert_eq!(Scrubber::new(&[secret.as_bytes()]).scrub(&mut bytes), 1, "{text}");
    }
}

#[test]
fn a_text_that_is_nothing_but_the_shortest_form_is_found() {
    let secret = b"0123456789abcdefghijklmnopqrstuvwxyz";
    for length in 8..secret.len() {
        let secret = &secret[..length];
        let scrubber = Scrubber::new(&[secret]);
        assert_eq!(scrubber.scrub(&mut secret.to_vec()), 1, "{length}");
        for (offset, first) in [0, 2, 3].into_iter().enumerate() {
            let text = STANDARD_NO_PAD.encode([&vec![0; offset][..], secret].concat());
            // Without the characters that also hold bits of neighbours.
            let mut core = text.as_bytes()[first..(offset + length) * 8 / 6].to_vec();
            assert_eq!(scrubber.scrub(&mut core), 1, "{length} at {offset}");
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

/// The secret in all its forms between other text, some of them touching.
fn body() -> Vec<u8> {
    let json = SECRET.replace('\\', "\\\\").replace('"', "\\\"").replace('/', "\\/");
    let unicode: String = SECRET.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    let parts = [
        format!("data: {SECRET}\n\n"),
        SECRET.repeat(2),
        format!("{{\"key\":\"{json}\",\"u\":\"{unicode}\"}}"),
        percent(SECRET, true),
        percent(SECRET, false),
        hex::encode(SECRET),
        format!("Basic {} ", STANDARD.encode(format!("user:{SECRET}"))),
        format!("x{}y ", URL_SAFE_NO_PAD.encode(format!("u{SECRET}!"))),
        "sk-live/ab+c?\"d is no secret, nor is %73k or \\u0073k, and this ends in sk-li".to_owned(),
    ];
    parts.join("|").into_bytes()
}

fn streamed(scrubber: &Scrubber, pieces: &[&[u8]]) -> (Vec<u8>, usize) {
    let mut stream = ScrubStream::default();
    let (mut out, mut count) = (Vec::new(), 0_usize);
    let last = pieces.len().saturating_sub(1);
    for (at, piece) in pieces.iter().enumerate() {
        let (ready, found) = stream.push(scrubber, piece, at == last);
        out.extend_from_slice(&ready);
        count = count.saturating_add(found);
    }
    (out, count)
}

#[test]
fn a_body_is_scrubbed_alike_wherever_it_is_cut() {
    let scrubber = Scrubber::new(&[SECRET.as_bytes()]);
    let body = body();
    let mut whole = body.clone();
    assert!(scrubber.scrub(&mut whole) >= 8);
    for cut in 0..=body.len() {
        let (first, second) = body.split_at(cut);
        let (out, _) = streamed(&scrubber, &[first, second]);
        assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&whole), "cut at {cut}");
    }
    for size in [1, 2, 3, 5, 7, 11, 64] {
        let pieces: Vec<&[u8]> = body.chunks(size).collect();
        let (out, count) = streamed(&scrubber, &pieces);
        assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&whole), "pieces of {size}");
        assert!(count >= 8, "{count}");
    }
}

#[test]
fn only_what_may_begin_a_secret_waits() {
    let scrubber = Scrubber::new(&[SECRET.as_bytes()]);
    let mut stream = ScrubStream::default();
    let mut push = |piece: &[u8], end| {
        let (ready, _) = stream.push(&scrubber, piece, end);
        String::from_utf8(ready.into_owned()).unwrap()
    };
    assert_eq!(push(b"data: an event\n\n", false), "data: an event\n\n", "an event is not held");
    assert_eq!(push(b"and sk-li", false), "and ");
    assert_eq!(push(b"", false), "");
    assert_eq!(push(b"ght.", false), "sk-light.");
    assert_eq!(push(b"at the end sk-live", true), "at the end sk-live");
}

#[test]
fn a_secret_that_repeats_itself_is_covered_and_not_kept() {
    let scrubber = Scrubber::new(&[b"aaaaaaaaaaaa"]);
    let body = vec![b'a'; 10_000];
    let mut stream = ScrubStream::default();
    let mut out = Vec::new();
    for (at, piece) in body.chunks(100).enumerate() {
        let (ready, _) = stream.push(&scrubber, piece, at == 99);
        out.extend_from_slice(&ready);
        assert!(stream.held.len() < 300, "{}", stream.held.len());
    }
    assert_eq!(out, vec![b'*'; 10_000]);
}

#[test]
fn a_field_whose_name_is_the_secret_is_taken_out() {
    let mut headers = HeaderMap::new();
    headers.append("x-sk-live-abcdef-1", HeaderValue::from_static("plain"));
    headers.append("x-other", HeaderValue::from_static("plain"));
    let scrubber = Scrubber::new(&[b"SK-live-ABCDEF"]);
    assert!(scrubber.finds_in(&headers));
    assert_eq!(scrubber.scrub_headers(&mut headers), 1);
    assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-other"]);
    assert!(!scrubber.finds_in(&headers));
}
