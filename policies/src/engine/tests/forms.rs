//! The same data in both forms of documents: what is read is the same, and so is every answer.

use proptest::prelude::*;

use super::cases::{self, CORNERS, TRUTH_TABLE};
use super::model::{asked, engine, policy_data};
use crate::convert::{PolicyForm, through};
use crate::data::{Checked, PolicyData};
use crate::engine::Policy;

const FORMS: [PolicyForm; 2] = [PolicyForm::Toml, PolicyForm::Rego];

/// Whether the data can be loaded at all: what contradicts itself or is malformed cannot.
fn loads(data: &PolicyData) -> bool {
    let (Checked::Rules(risk), Checked::Rules(tiers)) = (&data.risk, &data.tiers) else { return false };
    let one_tier = |scope: &str| {
        let mut tiers: Vec<_> =
            risk.iter().filter(|rule| &*rule.scope == scope).map(|rule| &rule.tier).collect();
        tiers.dedup();
        tiers.len() == 1
    };
    let declared_once = |tier: &str| {
        let mut all: Vec<_> = tiers.iter().filter(|one| &*one.tier == tier).collect();
        all.dedup();
        all.len() == 1
    };
    risk.iter().all(|rule| one_tier(&rule.scope)) && tiers.iter().all(|one| declared_once(&one.tier))
}

#[test]
fn every_case_answers_the_same_in_both_forms() {
    let mut count = 0;
    for text in [TRUTH_TABLE, CORNERS] {
        cases::for_each(text, |name, _, data, input| {
            if !loads(data) {
                return;
            }
            let answer = engine(&Policy::new(data), input);
            for form in FORMS {
                let read =
                    through(data, form).unwrap_or_else(|report| panic!("{name} as {form:?}: {report}"));
                assert_eq!(engine(&Policy::new(&read), input), answer, "{name} as {form:?}");
                count += 1;
            }
        });
    }
    assert!(count > 100, "{count}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(512)))]

    #[test]
    fn what_is_written_in_one_form_is_what_was_written_in_the_other(data in policy_data(), asked in asked()) {
        prop_assume!(loads(&data));
        let [toml, rego] = FORMS.map(|form| through(&data, form).unwrap());
        prop_assert_eq!(&toml, &rego);
        prop_assert_eq!(&through(&toml, PolicyForm::Rego).unwrap(), &toml);
        asked.with(|input| {
            let answer = engine(&Policy::new(&data), input);
            prop_assert_eq!(engine(&Policy::new(&rego), input), answer);
            Ok(())
        })?;
    }
}
