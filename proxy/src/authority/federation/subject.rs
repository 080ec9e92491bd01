//! Which subjects can be told apart by people and programs that compare them byte for byte.

/// Bytes of a subject.
const MAX_BYTES: usize = 512;
/// What we name things by ourselves.
const RESERVED: &str = "caracal:";

/// Whether a subject can be used: not empty, short, not ours, and nothing in it that is invisible at the ends, that
/// reorders what is shown, or that stands for something lost.
pub(super) fn is_usable(subject: &str) -> bool {
    !subject.is_empty()
        && subject.len() <= MAX_BYTES
        && !subject.starts_with(RESERVED)
        && subject.trim() == subject
        && !subject.chars().any(misleads)
}

fn misleads(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{fffd}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::is_usable;

    #[test]
    fn a_subject_reads_the_same_to_everybody() {
        let longest = "s".repeat(512);
        for good in [
            "248289761001",
            "auth0|5f7c8ec7c33c6c004bbafe82",
            "alice@example.com",
            "Zoë O'Brien",
            "\u{65e5}\u{672c}",
            "a\u{200d}b",
            "caracal",
            "Caracal:x",
            "CN=alice,O=\"x y\"",
            "caracal\u{200b}:x",
            longest.as_str(),
        ] {
            assert!(is_usable(good), "{good:?}");
        }
        let too_long = "s".repeat(513);
        let too_long_in_bytes = "\u{e9}".repeat(257);
        for bad in [
            "",
            " ",
            "caracal:",
            "caracal:shared",
            " alice",
            "alice ",
            "alice\u{a0}",
            "\u{3000}alice",
            "al\nice",
            "alice\0",
            "al\u{7f}ice",
            "al\u{85}ice",
            "al\u{fffd}ice",
            "al\u{202e}eci",
            "\u{2066}alice\u{2069}",
            too_long.as_str(),
            too_long_in_bytes.as_str(),
        ] {
            assert!(!is_usable(bad), "{bad:?}");
        }
    }
}
