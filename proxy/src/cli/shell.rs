//! Words for a POSIX shell.

/// `text` as one word that every POSIX shell reads back unchanged.
///
/// Source: POSIX.1-2017, shell command language, 2.2.2: between single quotes every character is itself, and
/// only the single quote cannot occur.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn read_back(text: &str) -> String {
        let script = format!("printf %s {}", quoted(text));
        let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn hostile_words_survive_a_shell() {
        for text in
            ["", "'", "''", "a b", "$(id)", "`id`", "\\", "\"$HOME\"", "a\nb\n", "*", "~", "!x", "é=1,2"]
        {
            assert_eq!(read_back(text), text);
        }
    }

    proptest! {
        #![proptest_config(crate::authority::testkit::cases(32))]

        #[test]
        fn any_text_survives_a_shell(text in "[^\0]{0,40}") {
            prop_assert_eq!(read_back(&text), text);
        }
    }
}
