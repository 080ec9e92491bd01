//! Which bodies a guard is shown.

use serde_json::json;

use super::{GuardRefusal, read};

#[test]
fn a_body_that_could_be_read_in_two_ways_is_refused() {
    let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let (deepest, deeper) = (deep(64), deep(65));
    for body in [
        r#"{"amount":1,"amount":2}"#,
        r#"{"amount":1,"Amount":2}"#,
        r#"{"a":{"b":1,"\u0062":2}}"#,
        "\u{feff}{}",
        "{} {}",
        "{}x",
        "{'a':1}",
        "{\"a\":1,}",
        "amount=5",
        " ",
        "1e400",
        "-1e400",
        "1e-400",
        "123456789012345678901",
        "[0.12345678901234567891]",
        "NaN",
        "01",
        "\"\\ud800\"",
        deeper.as_str(),
    ] {
        assert_eq!(read(body.as_bytes()), Err(GuardRefusal::NotJson), "{body}");
    }
    assert_eq!(read(b"\"\xff\""), Err(GuardRefusal::NotJson));
    for body in [
        deepest.as_str(),
        "18446744073709551615",
        "-9223372036854775808",
        "0.1",
        "0.0",
        "0e5",
        "100000000000000000000.0",
        "1.5e300",
        r#"{"a":"123456789012345678901 \" 1e400","b":[1,2,{"c":null}]}"#,
    ] {
        assert!(read(body.as_bytes()).is_ok_and(|value| value.is_some()), "{body}");
    }
    assert_eq!(read(b""), Ok(None));
    assert_eq!(read(b" {\"a\": 1}\n"), Ok(Some(json!({ "a": 1 }))));
}
