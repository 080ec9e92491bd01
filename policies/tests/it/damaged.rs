//! Whatever a bundle looks like, the answer is a zone or a report one can act on.

use caracal_policies::{Path, Report};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::bundles::{SINGLE, compiled, single};

/// Every problem says where, what and what to do, and its place exists.
fn is_usable(report: &Report, text: &str) -> bool {
    let lines = text.lines().count().saturating_add(1);
    report.problems.iter().all(|problem| {
        let told = [&problem.message, &problem.found, &problem.expected, &problem.hint];
        let line = usize::try_from(problem.place.line).unwrap();
        told.iter().all(|part| !part.is_empty() && !part.contains('\n'))
            && (1..=lines).contains(&line)
            && problem.place.column >= 1
    })
}

/// The good bundle with a piece taken out and another put in.
fn damaged() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-z\\[\\]{}=\"#.,:/ \n0-9]{0,6}",
        Just("\u{e9}\u{1f43e}".to_owned()),
        Just("\n[[resources]]\n".to_owned()),
        Just("\"\"\"".to_owned()),
    ];
    (any::<Index>(), 0_usize..12, piece).prop_map(|(at, cut, piece)| {
        let at = at.index(SINGLE.len());
        let (before, after) = SINGLE.split_at(at);
        let after = after.get(cut.min(after.len())..).unwrap_or_default();
        format!("{before}{piece}{after}")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(2048)))]

    #[test]
    fn a_damaged_bundle_gives_a_usable_report(text in damaged()) {
        if let Err(report) = compiled(&single(&text)) {
            prop_assert!(!report.problems.is_empty());
            prop_assert!(is_usable(&report, &text), "{report}");
        }
    }

    #[test]
    fn any_text_gives_a_usable_report(text in any::<String>()) {
        if let Err(report) = compiled(&single(&text)) {
            prop_assert!(is_usable(&report, &text), "{report}");
        }
    }

    #[test]
    fn any_path_is_read_or_refused(raw in any::<String>()) {
        if let Ok(path) = Path::parse(&raw) {
            prop_assert_eq!(path.raw(), &raw);
        }
    }
}
