//! Tokens an attacker would try, as a table: what it is, the token, and why it is refused.
//!
//! Wherever the trick is in the form, the token carries a signature of the zone's own key, so that nothing but
//! the check under test stands between it and acceptance.

use std::sync::Arc;

use aws_lc_rs::hmac;
use serde_json::json;

use super::*;
use crate::testing::{KID, encoded, good_payload, payload_with, signed_parts};
use crate::{Malformed, SigningKey};

struct Attack {
    name: String,
    token: String,
    refusal: Invalid,
}

fn attack(name: impl Into<String>, token: impl Into<String>, refusal: impl Into<Invalid>) -> Attack {
    Attack { name: name.into(), token: token.into(), refusal: refusal.into() }
}

#[test]
fn no_attack_token_is_accepted() {
    let key = signing_key();
    let keys = ZoneKeys::new(Arc::clone(&key), []).unwrap();
    let control = signed(&key, &good_header(), &good_payload());
    verify(keys.public(), &control, &expect(&ALL)).unwrap();
    let tables =
        [algorithms(&key), key_choices(&key), headers(&key), claims(&key), spellings(&key), signatures(&key)];
    let attacks: Vec<Attack> = tables.into_iter().flatten().collect();
    assert!(attacks.len() > 80, "{}", attacks.len());
    for attack in attacks {
        let refusal = verify(keys.public(), &attack.token, &expect(&ALL)).map(|_| ()).unwrap_err();
        assert_eq!(refusal, attack.refusal, "{}", attack.name);
    }
}

#[test]
fn keys_offered_by_the_token_are_ignored() {
    let key = signing_key();
    let keys = ZoneKeys::new(Arc::clone(&key), []).unwrap();
    for header in self_serving_headers(&signing_key()) {
        let token = signed(&key, &header, &good_payload());
        verify(keys.public(), &token, &expect(&ALL)).unwrap();
    }
}

/// Headers that point to a key of the attacker's, by every means there is (RFC 7515 section 4.1).
fn self_serving_headers(theirs: &SigningKey) -> Vec<String> {
    let (x, y) = theirs.public().coordinates();
    let jwk = json!({"kty": "EC", "crv": "P-256", "kid": KID, "x": encoded(x), "y": encoded(y)});
    let with = |name: &str, value: serde_json::Value| {
        let mut header = json!({"alg": "ES256", "typ": "JWT", "kid": KID});
        header[name] = value;
        header.to_string()
    };
    vec![
        with("jwk", jwk),
        with("jku", json!("https://evil.example/jwks.json")),
        with("jku", json!("file:///etc/passwd")),
        with("x5u", json!("http://169.254.169.254/latest/meta-data")),
        with("x5c", json!(["MIIB"])),
        with("x5t", json!("AAAA")),
    ]
}

fn algorithms(key: &SigningKey) -> Vec<Attack> {
    let mut table = Vec::new();
    let payload = encoded(good_payload());
    for alg in
        ["none", "None", "NONE", "nOnE", "", "es256", "ES256 ", "ES384", "ES512", "HS256", "RS256", "EdDSA"]
    {
        let header = json!({"alg": alg, "typ": "JWT", "kid": KID}).to_string();
        let signed = signed(key, &header, &good_payload());
        table.push(attack(format!("alg {alg:?}, signed"), signed, Malformed::Algorithm));
        let unsigned = format!("{}.{payload}.", encoded(&header));
        table.push(attack(format!("alg {alg:?}, no signature"), unsigned, Malformed::Parts));
    }
    for alg in [json!(null), json!(["ES256"]), json!({"alg": "ES256"}), json!(256)] {
        let header = json!({"alg": alg, "kid": KID}).to_string();
        table.push(attack(format!("alg {alg}"), signed(key, &header, &good_payload()), Malformed::Algorithm));
    }
    let header = json!({"kid": KID}).to_string();
    table.push(attack("no alg", signed(key, &header, &good_payload()), Malformed::Algorithm));
    table.extend(confusions(key));
    table
}

/// The public key, which everybody has, used as an HMAC secret.
fn confusions(key: &SigningKey) -> Vec<Attack> {
    let (x, y) = key.public().coordinates();
    let point = [&[4][..], x, y].concat();
    let jwk = json!({"kty": "EC", "crv": "P-256", "x": encoded(x), "y": encoded(y)}).to_string();
    let mut table = Vec::new();
    for (form, secret) in [("point", point), ("jwk", jwk.into_bytes())] {
        for (alg, refusal) in [("HS256", Malformed::Algorithm), ("ES256", Malformed::SignatureLength)] {
            let header = json!({"alg": alg, "typ": "JWT", "kid": KID}).to_string();
            let message = format!("{}.{}", encoded(header), encoded(good_payload()));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message.as_bytes());
            let token = format!("{message}.{}", encoded(tag.as_ref()));
            table.push(attack(format!("HMAC with the public key as {form}, alg {alg}"), token, refusal));
        }
    }
    table
}

fn key_choices(key: &SigningKey) -> Vec<Attack> {
    let with_kid = |kid: serde_json::Value| {
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": kid}).to_string();
        signed(key, &header, &good_payload())
    };
    let mut table = Vec::new();
    let insane = [
        json!("../../../../dev/null"),
        json!("..\\..\\x"),
        json!("/etc/passwd"),
        json!("' OR '1'='1"),
        json!("x' UNION SELECT 'key'--"),
        json!("x; rm -rf /"),
        json!("http://evil.example/key"),
        json!("k\u{0}"),
        json!("k\n"),
        json!(" "),
        json!(""),
        json!("."),
        json!("k".repeat(129)),
        json!(null),
        json!(1),
        json!([KID]),
    ];
    for kid in insane {
        table.push(attack(format!("kid {kid}"), with_kid(kid), Malformed::Kid));
    }
    for kid in ["unknown", &KID.to_uppercase(), KID.split_at(1).1] {
        table.push(attack(format!("kid {kid}"), with_kid(json!(kid)), Invalid::UnknownKey));
    }
    let header = json!({"alg": "ES256", "typ": "JWT"}).to_string();
    table.push(attack("no kid", signed(key, &header, &good_payload()), Malformed::Kid));
    let theirs = signing_key();
    for header in self_serving_headers(&theirs) {
        let token = signed(&theirs, &header, &good_payload());
        table.push(attack(format!("their key, offered as {header}"), token, Invalid::Signature));
    }
    table
}

fn headers(key: &SigningKey) -> Vec<Attack> {
    let mut table = Vec::new();
    for crit in [json!(["exp"]), json!(["b64"]), json!([]), json!(null), json!("x")] {
        let header = json!({"alg": "ES256", "kid": KID, "crit": crit, "b64": false}).to_string();
        table.push(attack(
            format!("crit {crit}"),
            signed(key, &header, &good_payload()),
            Malformed::Critical,
        ));
    }
    for typ in [json!("JWE"), json!("at+jwt"), json!("JOSE"), json!(""), json!(1), json!(null)] {
        let header = json!({"alg": "ES256", "kid": KID, "typ": typ}).to_string();
        table.push(attack(format!("typ {typ}"), signed(key, &header, &good_payload()), Malformed::Type));
    }
    let doubled = [
        format!(r#"{{"alg":"none","alg":"ES256","kid":"{KID}"}}"#),
        format!(r#"{{"alg":"ES256","kid":"evil","kid":"{KID}"}}"#),
        format!(r#"{{"alg":"ES256","kid":"{KID}","\u006bid":"{KID}"}}"#),
        format!(r#"{{"alg":"ES256","kid":"{KID}","jwk":{{"x":1,"x":2}}}}"#),
    ];
    for header in doubled {
        table.push(attack(
            format!("doubled: {header}"),
            signed(key, &header, &good_payload()),
            Malformed::Json,
        ));
    }
    for header in ["", "null", "[]", "\"ES256\"", "{", "{} {}", "\u{feff}{}"] {
        let refusal = if header.is_empty() { Malformed::Parts } else { Malformed::Json };
        table.push(attack(format!("header {header:?}"), signed(key, header, &good_payload()), refusal));
    }
    let large = json!({"alg": "ES256", "kid": KID, "pad": "x".repeat(1 << 20)}).to_string();
    table.push(attack("1 MB header", signed(key, &large, &good_payload()), Malformed::TooLong));
    table
}

fn claims(key: &SigningKey) -> Vec<Attack> {
    let token = |payload: &str| signed(key, &good_header(), payload);
    let mut table = Vec::new();
    for exp in [
        json!(1.79e9),
        json!(1_790_000_900.5),
        json!("1790000900"),
        json!(-1),
        json!(true),
        json!([1]),
        json!(u64::MAX),
    ] {
        let payload = payload_with("exp", Some(exp.clone()));
        table.push(attack(format!("exp {exp}"), token(&payload), Malformed::Claim("exp")));
    }
    let raw = |exp: &str| payload_with("exp", Some(json!("@"))).replace("\"@\"", exp);
    for exp in
        ["1e400", "-1e400", "NaN", "Infinity", "0x7fffffff", "+1790000900", "01790000900", "1790000900."]
    {
        table.push(attack(format!("exp {exp}"), token(&raw(exp)), Malformed::Json));
    }
    for exp in ["1790000900.0", "1.7900009e9", "-0", "99999999999999999999"] {
        table.push(attack(format!("exp {exp}"), token(&raw(exp)), Malformed::Claim("exp")));
    }
    table.push(attack("exp 0", token(&raw("0")), Invalid::Claims));
    table.push(attack("iat as text", token(&payload_with("iat", Some(json!("1")))), Malformed::Claim("iat")));
    for name in ["zone_id", "client_id", "use"] {
        let payload = payload_with(name, Some(json!(["quickstart"])));
        table.push(attack(format!("{name} as a list"), token(&payload), Malformed::Claim(name)));
    }
    for (name, value) in
        [("zone_id", "\"evil\""), ("exp", "9999999999"), ("scope", "\"admin\""), ("\\u0073cope", "\"admin\"")]
    {
        let payload = good_payload();
        let doubled = format!("{{\"{name}\":{value},{}", payload.strip_prefix('{').unwrap());
        table.push(attack(format!("doubled {name}, first"), token(&doubled), Malformed::Json));
        let doubled = format!("{},\"{name}\":{value}}}", payload.strip_suffix('}').unwrap());
        table.push(attack(format!("doubled {name}, last"), token(&doubled), Malformed::Json));
    }
    let inner = token(&good_payload());
    table.push(attack("nested token", token(&inner), Malformed::Json));
    table.push(attack("nested token as JSON text", token(&json!(inner).to_string()), Malformed::Json));
    for payload in ["null", "[]", "{", "{}{}", "\u{feff}{}"] {
        table.push(attack(format!("payload {payload:?}"), token(payload), Malformed::Json));
    }
    table
}

fn spellings(key: &SigningKey) -> Vec<Attack> {
    let good = signed(key, &good_header(), &good_payload());
    let (header, payload) = (encoded(good_header()), encoded(good_payload()));
    let resigned = |header: &str, payload: &str| signed_parts(key, header, payload);
    let mut table = vec![
        attack("nothing", "", Malformed::Parts),
        attack("one dot", ".", Malformed::Parts),
        attack("two dots", "..", Malformed::Parts),
        attack("four dots", "....", Malformed::Parts),
        attack("no signature part", format!("{header}.{payload}"), Malformed::Parts),
        attack("trailing dot", format!("{good}."), Malformed::Parts),
        attack("trailing dots", format!("{good}.."), Malformed::Parts),
        attack("leading dot", format!(".{good}"), Malformed::Parts),
        attack("five parts", format!("{header}.{payload}.AAAA.AAAA.AAAA"), Malformed::Parts),
        attack("five parts, none filled", format!("{header}...."), Malformed::Parts),
        attack("padded signature", format!("{good}="), Malformed::Base64),
        attack("padded signature, twice", format!("{good}=="), Malformed::Base64),
        attack("padded header", resigned(&format!("{header}=="), &payload), Malformed::Base64),
        attack("padded payload", resigned(&header, &format!("{payload}==")), Malformed::Base64),
        attack("space before", format!(" {good}"), Malformed::Base64),
        attack("line break after", format!("{good}\n"), Malformed::Base64),
        attack("line break inside", resigned(&header, &format!("{payload}\r\n")), Malformed::Base64),
        attack("zero byte", format!("{good}\0"), Malformed::Base64),
        attack("percent", resigned(&header, &format!("{payload}%2E")), Malformed::Base64),
        attack("standard alphabet", resigned(&header, &format!("{payload}+/+/")), Malformed::Base64),
        attack("not ASCII", resigned(&header, &format!("{payload}é")), Malformed::Base64),
        attack("too long", format!("{good}{}", "A".repeat(4096)), Malformed::TooLong),
    ];
    // The last character of 64 bytes carries four stray bits; 15 other spellings must not pass for the same.
    let mut all_but_last = good.clone();
    all_but_last.pop();
    let stray: Vec<String> = b"BCDEFGHIJKLMNOP"
        .iter()
        .map(|last| format!("{all_but_last}{}", char::from(*last)))
        .filter(|token| *token != good)
        .collect();
    assert!(!stray.is_empty());
    table.extend(stray.into_iter().map(|token| attack("stray bits", token, Malformed::Base64)));
    table
}

/// Signatures that are no `r || s` of this key: zeros, the group order, other lengths, the other encoding.
fn signatures(key: &SigningKey) -> Vec<Attack> {
    const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order = hex::decode(ORDER).unwrap();
    let good = signed(key, &good_header(), &good_payload());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let signature =
        base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, signature).unwrap();
    let (r, s) = signature.split_at(32);
    let one = [&[0; 31][..], &[1]].concat();
    let with = |bytes: &[u8]| format!("{message}.{}", encoded(bytes));
    let mut table = Vec::new();
    for (name, bytes) in [
        ("r and s zero", vec![0; 64]),
        ("r zero", [&[0; 32][..], s].concat()),
        ("s zero", [r, &[0; 32]].concat()),
        ("r the order", [&order[..], s].concat()),
        ("s the order", [r, &order].concat()),
        ("r and s the order", [&order[..], &order].concat()),
        ("r and s one", [&one[..], &one].concat()),
        ("r and s swapped", [s, r].concat()),
        ("all ones", vec![255; 64]),
        ("of another message", key_signature(key)),
    ] {
        table.push(attack(name, with(&bytes), Invalid::Signature));
    }
    let der = [&[0x30, 0x44, 0x02, 0x20][..], r, &[0x02, 0x20], s].concat();
    for (name, bytes) in [
        ("DER", der),
        ("cut", signature[..63].to_vec()),
        ("one byte more", [&signature[..], &[0]].concat()),
        ("a zero before each", [&[0][..], r, &[0], s].concat()),
        ("r only", r.to_vec()),
        ("of P-384", vec![1; 96]),
    ] {
        table.push(attack(name, with(&bytes), Malformed::SignatureLength));
    }
    table
}

fn key_signature(key: &SigningKey) -> Vec<u8> {
    let other = signed(key, &good_header(), &payload_with("sub", Some(json!("someone-else"))));
    let (_, signature) = other.rsplit_once('.').unwrap();
    base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, signature).unwrap()
}
