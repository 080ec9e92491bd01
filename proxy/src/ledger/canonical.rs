//! Canonical JSON, RFC 8785, for what the ledger holds: no fractions, and integers every reader can represent.

use std::cmp::Ordering;
use std::io::Write as _;

use serde_json::{Map, Number, Value};
use smallvec::SmallVec;
use thiserror::Error;

/// Deepest nesting of one member's value. A record, which holds such members, may be one level deeper.
const MAX_DEPTH: usize = 32;

/// Largest integer that survives in every JSON implementation (RFC 7493 section 2.2): 2^53 - 1.
const MAX_SAFE: i64 = (1 << 53) - 1;

/// Why a value has no canonical form here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum NotCanonical {
    /// A fraction, or an integer beyond 2^53 - 1.
    #[error("a number is not a safe integer")]
    Number,
    /// Nested deeper than 32.
    #[error("nested too deep")]
    Depth,
}

/// Appends the canonical bytes of a whole record.
pub(super) fn write_record(out: &mut Vec<u8>, record: &Map<String, Value>) -> Result<(), NotCanonical> {
    write_object(out, record, MAX_DEPTH.saturating_add(1))
}

/// Appends the canonical bytes of a value.
pub(super) fn write(out: &mut Vec<u8>, value: &Value) -> Result<(), NotCanonical> {
    write_value(out, value, MAX_DEPTH)
}

/// Appends the canonical bytes of an object.
pub(super) fn write_map(out: &mut Vec<u8>, map: &Map<String, Value>) -> Result<(), NotCanonical> {
    write_object(out, map, MAX_DEPTH)
}

/// Appends a string with the escapes of RFC 8785 section 3.2.2.2 and no others.
pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    // Almost every string is plain; without an early exit the compiler looks at many bytes at a time.
    if !rest.iter().fold(false, |found, byte| found | is_special(*byte)) {
        out.extend_from_slice(rest);
        out.push(b'"');
        return;
    }
    while let Some(at) = rest.iter().position(|byte| is_special(*byte)) {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((special, tail)) = tail.split_first() else { break };
        write_escape(out, *special);
        rest = tail;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

const fn is_special(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | 0x00..=0x1f)
}

/// Appends formatted text; writing to memory cannot fail.
pub(super) fn write_display(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).ok();
}

/// The nearest value that has a canonical form, also as the element of an array: other numbers become text, what is
/// too deep becomes a remark.
pub(super) fn tame(value: &Value) -> Value {
    tame_within(value, MAX_DEPTH.saturating_sub(1))
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        0x08 => out.extend_from_slice(b"\\b"),
        b'\t' => out.extend_from_slice(b"\\t"),
        b'\n' => out.extend_from_slice(b"\\n"),
        0x0c => out.extend_from_slice(b"\\f"),
        b'\r' => out.extend_from_slice(b"\\r"),
        _ => write_display(out, format_args!("\\u{byte:04x}")),
    }
}

fn write_value(out: &mut Vec<u8>, value: &Value, depth: usize) -> Result<(), NotCanonical> {
    let inner = depth.checked_sub(1).ok_or(NotCanonical::Depth)?;
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => {
            let integer = safe_integer(number).ok_or(NotCanonical::Number)?;
            write_display(out, format_args!("{integer}"));
        }
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push(b'[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                write_value(out, item, inner)?;
            }
            out.push(b']');
        }
        Value::Object(map) => write_object(out, map, depth)?,
    }
    Ok(())
}

fn write_object(out: &mut Vec<u8>, map: &Map<String, Value>, depth: usize) -> Result<(), NotCanonical> {
    let inner = depth.checked_sub(1).ok_or(NotCanonical::Depth)?;
    let mut members: SmallVec<[(&String, &Value); 16]> = map.iter().collect();
    if members.iter().all(|(name, _)| name.is_ascii()) {
        members.sort_unstable_by_key(|(name, _)| *name);
    } else {
        members.sort_unstable_by(|a, b| member_order(a.0, b.0));
    }
    out.push(b'{');
    for (position, (name, value)) in members.into_iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        write_string(out, name);
        out.push(b':');
        write_value(out, value, inner)?;
    }
    out.push(b'}');
    Ok(())
}

/// RFC 8785 section 3.2.3 sorts by UTF-16 code units, which differs from UTF-8 order above U+FFFF.
fn member_order(a: &str, b: &str) -> Ordering {
    a.encode_utf16().cmp(b.encode_utf16())
}

fn safe_integer(number: &Number) -> Option<i64> {
    number.as_i64().filter(|integer| (-MAX_SAFE..=MAX_SAFE).contains(integer))
}

fn tame_within(value: &Value, depth: usize) -> Value {
    let Some(inner) = depth.checked_sub(1).filter(|inner| *inner > 0) else {
        return Value::String("nested too deep".into());
    };
    match value {
        Value::Number(number) if safe_integer(number).is_none() => Value::String(number.to_string()),
        Value::Array(items) => items.iter().map(|item| tame_within(item, inner)).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(name, value)| (name.clone(), tame_within(value, inner)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn to_vec(value: &Value) -> Result<Vec<u8>, NotCanonical> {
        let mut out = Vec::new();
        write(&mut out, value).map(|()| out)
    }

    fn text(value: &Value) -> String {
        String::from_utf8(to_vec(value).unwrap()).unwrap()
    }

    #[test]
    fn members_are_sorted_by_utf16_code_units() {
        // The sample of RFC 8785 section 3.2.3: U+1F600 is a surrogate pair and so comes before U+FB33.
        let value = json!({
            "\u{20ac}": "Euro Sign", "\r": "Carriage Return", "\u{fb33}": "Hebrew Letter Dalet With Dagesh",
            "1": "One", "\u{1f600}": "Emoji: Grinning Face", "\u{80}": "Control", "\u{f6}": "Latin Small Letter O With Diaeresis"
        });
        let out = text(&value);
        let places: Vec<usize> = ["Carriage", "One", "Control", "Latin", "Euro", "Emoji", "Hebrew"]
            .iter()
            .map(|word| out.find(word).unwrap())
            .collect();
        assert!(places.is_sorted(), "{out}");
    }

    #[test]
    fn strings_are_escaped_as_the_rfc_says() {
        // From RFC 8785 section 3.2.2.
        let value = json!({ "string": "\u{20ac}$\u{000f}\nA'\u{0042}\u{0022}\u{005c}\\\"/", "literals": [null, true, false] });
        assert_eq!(
            text(&value),
            "{\"literals\":[null,true,false],\"string\":\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
        );
        assert_eq!(text(&json!("\u{8}\t\n\u{c}\r\u{0}\u{7f}")), "\"\\b\\t\\n\\f\\r\\u0000\u{7f}\"");
    }

    #[test]
    fn only_safe_integers_have_a_form() {
        assert_eq!(text(&json!([0, -1, 9_007_199_254_740_991_i64])), "[0,-1,9007199254740991]");
        for bad in [json!(1.5), json!(1.0), json!(-0.0), json!(9_007_199_254_740_992_i64), json!(u64::MAX)] {
            assert_eq!(to_vec(&bad), Err(NotCanonical::Number), "{bad}");
            assert!(text(&tame(&bad)).starts_with('"'));
        }
    }

    #[test]
    fn nesting_is_bounded_and_can_be_tamed() {
        let mut deep = json!(1);
        for _ in 0..40 {
            deep = json!([deep]);
        }
        assert_eq!(to_vec(&deep), Err(NotCanonical::Depth));
        assert!(text(&tame(&deep)).contains("nested too deep"));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_and_writes_the_same(map in proptest::collection::btree_map(".{0,8}", ".{0,16}", 0..12)) {
            let value = json!(map);
            let out = to_vec(&value).unwrap();
            let back: Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(&back, &value);
            prop_assert_eq!(to_vec(&back).unwrap(), out);
        }
    }
}
