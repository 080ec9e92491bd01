//! From a bundle to a zone: read everything, check everything against everything, then build.

mod authority;
mod budgets;
mod endpoints;
mod guards;
mod identities;
mod resources;
mod routes;
mod sizes;

use std::sync::Arc;

use crate::bundle::{self, Said};
use crate::case::CaseResult;
use crate::data::PolicyData;
use crate::draft::Drafts;
use crate::kept::Kept;
use crate::read::Placed;
use crate::report::{Problems, Report};
use crate::source::{Assigned, BundleSource};
use crate::zone::{Parts, Zone};
use guards::Tiers;
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
    passed(tested(source, zone_id, assigned, None)?)
}

/// As [`compile`], with the same answer. Listed documents that say what they said in `before` are not read again, and
/// what was built of them is shared with it.
///
/// # Errors
/// As [`compile`].
pub fn recompile(
    source: &BundleSource,
    zone_id: &str,
    assigned: &Assigned,
    before: &Zone,
) -> Result<Zone, Report> {
    passed(tested(source, zone_id, assigned, Some(before))?)
}

/// As [`compile`], but a test that fails is a result and not a problem.
///
/// # Errors
/// A [`Report`] with everything wrong beside the tests.
pub fn compile_and_test(source: &BundleSource, zone_id: &str, assigned: &Assigned) -> Result<Tested, Report> {
    tested(source, zone_id, assigned, None)
}

fn passed(tested: Tested) -> Result<Zone, Report> {
    let Tested { zone, results } = tested;
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

fn tested(
    source: &BundleSource,
    zone_id: &str,
    assigned: &Assigned,
    before: Option<&Zone>,
) -> Result<Tested, Report> {
    let problems = Problems::default();
    let kept = before.map(Zone::kept).unwrap_or_default();
    let bundle = bundle::read(source, zone_id, kept, &problems);
    let mut documents: Vec<Kept> = bundle.documents.into_iter().map(|said| built(said, &problems)).collect();
    let drafts = Drafts(documents.iter().map(|document| Arc::clone(&document.draft)).collect());
    sizes::check(&documents, &problems);

    let known = Known::new(&drafts, &problems);
    if bundle.complete {
        known.check_references(&drafts, &problems);
    }
    routes::check(&drafts, assigned, &problems);
    let data = authority::merge(&drafts, &problems);

    let applications: Vec<_> = drafts.each(|draft| &draft.applications).map(shared).collect();
    let providers: Vec<_> = drafts
        .each(|draft| &draft.providers)
        .filter_map(|draft| draft.provider.as_ref())
        .map(|provider| before.and_then(|zone| zone.same_provider(provider)).unwrap_or(provider))
        .map(Arc::clone)
        .collect();
    let issuers = drafts.each(|draft| &draft.issuers).map(shared).collect();
    let tiers = Tiers { declared: data.tiers.rules(), complete: bundle.complete };
    let resources = resources::link(&mut documents, &providers, &tiers, &problems);
    let budgets = budgets::build(&drafts, &applications, &resources, bundle.complete, &problems);
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
        data: drafts.have_policy().then_some(data),
    });
    let problems = Problems::default();
    bundle.cases.iter().for_each(|case| case.check(&zone, &problems));
    if let Some(report) = problems.into_report() {
        return Err(report);
    }
    let results = bundle.cases.iter().map(|case| case.run(&zone)).collect();
    documents.retain(|document| document.text.is_some());
    Ok(Tested { zone: zone.keeping(documents), results })
}

/// A document with its resources, as far as it alone tells them.
fn built(said: Said, problems: &Problems) -> Kept {
    match said {
        Said::AsBefore(kept) => kept,
        Said::Anew { file, text, mut draft } => {
            let resources = draft.resources.iter_mut().map(|draft| resources::build(draft, problems));
            let resources = resources.collect();
            Kept { file, text, draft: Arc::from(draft), resources }
        }
    }
}

fn shared<T>(placed: &Placed<Arc<T>>) -> Arc<T> {
    Arc::clone(&placed.value)
}

/// The policy data of some drafts, merged.
pub(crate) fn policy_data(drafts: &Drafts, problems: &Problems) -> PolicyData {
    authority::merge(drafts, problems)
}
