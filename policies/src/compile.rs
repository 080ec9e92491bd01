//! From a bundle to a zone: read everything, check everything against everything, then build.

mod authority;
mod budgets;
mod endpoints;
mod guards;
mod identities;
mod resources;
mod routes;

use std::sync::Arc;

use foldhash::HashSet;

use crate::bundle;
use crate::case::CaseResult;
use crate::data::PolicyData;
use crate::draft::Draft;
use crate::report::{Problems, Report};
use crate::source::{Assigned, BundleSource};
use crate::zone::{Parts, Zone};
use identities::Known;

/// A zone, and how the tests of its bundle came out.
#[derive(Debug)]
pub struct Tested {
    /// The zone. Not to be put into force unless every test passed; [`compile`] sees to that.
    pub zone: Zone,
    /// Each test, in the order of the bundle.
    pub results: Vec<CaseResult>,
}

/// Compiles the bundle of a zone and runs its tests, or says everything that is wrong with it. A test that fails is
/// wrong too, with the code `bundle_tests_failed`, unless the bundle freezes its zone with `restrict`.
///
/// `zone_id` is the name of the zone in `caracal.toml`, and `assigned` what that gives it. Places, file names and the
/// order of things in the bundle do not change the zone's digest.
///
/// # Errors
/// A [`Report`] with every problem found. Nothing is ever left out of a zone because it was wrong.
pub fn compile(source: &BundleSource, zone_id: &str, assigned: &Assigned) -> Result<Zone, Report> {
    let Tested { zone, results } = compile_and_test(source, zone_id, assigned)?;
    if zone.is_frozen_by_policy() {
        // It allows nothing, and a stop must not wait for its tests.
        return Ok(zone);
    }
    let problems = Problems::default();
    for failed in results.iter().filter(|result| !result.passed) {
        problems.push_with(|| failed.problem());
    }
    problems.into_report().map_or(Ok(zone), Err)
}

/// As [`compile`], but a test that fails is a result and not a problem.
///
/// # Errors
/// A [`Report`] with everything wrong beside the tests.
pub fn compile_and_test(source: &BundleSource, zone_id: &str, assigned: &Assigned) -> Result<Tested, Report> {
    let problems = Problems::default();
    let bundle = bundle::read(source, zone_id, &problems);
    let mut draft = bundle.draft;
    let mut words = Words::default();

    let known = Known::new(&draft, &problems);
    if bundle.complete {
        known.check_references(&draft, &problems);
    }
    routes::check(&draft, assigned, &problems);
    let data = authority::merge(&draft, &mut words, &problems);

    let applications: Vec<_> =
        draft.applications.drain(..).map(|application| Arc::new(application.value)).collect();
    let providers: Vec<_> =
        draft.providers.drain(..).filter_map(|draft| draft.provider.map(Arc::new)).collect();
    let issuers = draft.issuers.drain(..).map(|issuer| Arc::new(issuer.value)).collect();
    let resources = resources::build(draft.resources, &providers, data.tiers.rules(), &mut words, &problems);
    let budgets = budgets::build(draft.budgets, &applications, &resources, bundle.complete, &problems);
    endpoints::check(&providers, &resources, &problems);
    if let Some(report) = problems.into_report() {
        return Err(report);
    }
    let zone = Zone::new(Parts {
        id: zone_id.into(),
        name: bundle.name.unwrap_or_else(|| zone_id.to_owned()),
        applications,
        providers,
        resources,
        issuers,
        budgets,
        data: draft.has_policy.then_some(data),
    });
    let problems = Problems::default();
    draft.cases.iter().for_each(|case| case.check(&zone, &problems));
    if let Some(report) = problems.into_report() {
        return Err(report);
    }
    let results = draft.cases.iter().map(|case| case.run(&zone)).collect();
    Ok(Tested { zone, results })
}

/// The policy data of a draft, merged.
pub(crate) fn policy_data(draft: &Draft, problems: &Problems) -> PolicyData {
    authority::merge(draft, &mut Words::default(), problems)
}

/// One `Arc` for each distinct word of a zone.
#[derive(Debug, Default)]
struct Words {
    known: HashSet<Arc<str>>,
}

impl Words {
    fn one(&mut self, word: &Arc<str>) -> Arc<str> {
        if let Some(known) = self.known.get(word) {
            return Arc::clone(known);
        }
        self.known.insert(Arc::clone(word));
        Arc::clone(word)
    }
}
