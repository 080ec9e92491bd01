//! How much the documents of a zone may hold together.

use crate::draft::Draft;
use crate::kept::Kept;
use crate::limits;
use crate::report::{Place, Problem, Problems};

/// What is counted, how many one document adds, and the most there may be.
type Size = (&'static str, fn(&Draft) -> usize, usize);

const SIZES: [Size; 10] = [
    ("applications", |draft| draft.applications.len(), limits::APPLICATIONS),
    ("providers", |draft| draft.providers.len(), limits::PROVIDERS),
    ("resources", |draft| draft.resources.len(), limits::RESOURCES),
    ("subject_issuers", |draft| draft.issuers.len(), limits::SUBJECT_ISSUERS),
    ("granted scopes", granted, limits::GRANTED),
    ("confinement", |draft| draft.confinement.len(), limits::RULES),
    ("restrict", |draft| draft.restrict.len(), limits::RULES),
    ("risk", |draft| draft.risk.len(), limits::RULES),
    ("approval_tiers", |draft| draft.tiers.len(), limits::RULES),
    ("budgets", |draft| draft.budgets.len(), limits::BUDGETS),
];

/// Reports the document with which a zone has too much of something.
pub(super) fn check(documents: &[Kept], problems: &Problems) {
    for (what, adds, most) in SIZES {
        let mut count = 0_usize;
        for document in documents {
            count = count.saturating_add(adds(&document.draft));
            if count > most {
                let place = Place { file: document.file.clone(), line: 1, column: 1 };
                problems.push(
                    Problem::new(
                        "too_many",
                        &place,
                        format!("with this document there are too many `{what}`"),
                    )
                    .found(count.to_string())
                    .expected(format!("at most {most}"))
                    .hint("split the zone"),
                );
                break;
            }
        }
    }
}

fn granted(draft: &Draft) -> usize {
    draft.grants.iter().flat_map(|grant| &grant.roles).map(|(_, scopes)| scopes.len()).sum()
}
