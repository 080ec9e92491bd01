//! What the documents of a bundle say, before it is checked against each other.

mod applications;
mod budgets;
mod case_facts;
mod cases;
mod consent;
mod guards;
mod health;
mod issuers;
mod mcp;
mod oauth;
mod policy;
mod providers;
mod resources;
mod tls;

use std::sync::Arc;

pub(crate) use self::budgets::DraftBudget;
pub(crate) use self::cases::read as read_cases;
pub(crate) use self::guards::{DraftAsk, DraftGuard};
pub(crate) use self::mcp::{DraftEntry, DraftMcp};
pub(crate) use self::policy::ROOTS;
use crate::application::Application;
use crate::data::{Confinement, GrantData, Risk, TierDeclaration};
use crate::issuer::SubjectIssuer;
use crate::operations::Operation;
use crate::provider::Provider;
use crate::read::{Placed, PlacedName, Section};
use crate::report::{Place, Problem, shortened};
use crate::resource::Resource;

/// What one document says. Items whose name could not be read are left out; their problem has been reported.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) applications: Vec<Placed<Arc<Application>>>,
    pub(crate) providers: Vec<DraftProvider>,
    pub(crate) resources: Vec<DraftResource>,
    pub(crate) issuers: Vec<Placed<Arc<SubjectIssuer>>>,
    pub(crate) app_ids: Vec<(PlacedName, PlacedName)>,
    pub(crate) grants: Vec<DraftGrant>,
    pub(crate) confinement: Vec<(Confinement, Vec<PlacedName>)>,
    pub(crate) restrict: Vec<PlacedName>,
    pub(crate) risk: Vec<(Risk, PlacedName)>,
    pub(crate) tiers: Vec<Placed<TierDeclaration>>,
    pub(crate) budgets: Vec<DraftBudget>,
    /// Whether it defines one of the six roots. A zone where no document does has no policy, and denies.
    pub(crate) has_policy: bool,
}

/// A provider whose name is known; the rest only when it could be read.
#[derive(Debug)]
pub(crate) struct DraftProvider {
    pub(crate) identifier: PlacedName,
    pub(crate) id: PlacedName,
    pub(crate) provider: Option<Arc<Provider>>,
}

/// A resource whose name is known, with everything in it that needs a look at the rest of the bundle.
#[derive(Debug)]
pub(crate) struct DraftResource {
    pub(crate) identifier: PlacedName,
    pub(crate) id: PlacedName,
    pub(crate) provider: Option<PlacedName>,
    /// Sorted.
    pub(crate) scopes: Vec<PlacedName>,
    pub(crate) operations: Vec<(Operation, Place)>,
    pub(crate) mcp: Option<DraftMcp>,
    /// Gone once they are built.
    pub(crate) guards: Vec<DraftGuard>,
    /// The tiers that its guards name.
    pub(crate) asks: Vec<DraftAsk>,
    pub(crate) hosts: Vec<PlacedName>,
    pub(crate) prefixes: Vec<PlacedName>,
    /// Without what is filled in later: provider, scopes, operations, guards and routes.
    pub(crate) resource: Option<Resource>,
}

/// One table of `grants`.
#[derive(Debug)]
pub(crate) struct DraftGrant {
    pub(crate) resource: PlacedName,
    pub(crate) application: PlacedName,
    pub(crate) roles: Vec<DraftRole>,
    /// The same without places.
    pub(crate) data: Arc<GrantData>,
}

/// A role and its scopes.
pub(crate) type DraftRole = (PlacedName, Vec<PlacedName>);

/// The keys of a document beside `schema` and `zone`.
pub(crate) const DOCUMENT_KEYS: [&str; 12] = [
    "applications",
    "providers",
    "resources",
    "subject_issuers",
    "app_ids",
    "grants",
    "confinement",
    "restrict",
    "risk",
    "approval_tiers",
    "budgets",
    "rates",
];

impl Draft {
    /// Adds what a document says.
    pub(crate) fn read(&mut self, document: &Section<'_>) {
        self.read_applications(document);
        self.read_providers(document);
        self.read_resources(document);
        self.read_issuers(document);
        self.read_policy(document);
        self.read_budgets(document);
    }
}

/// The text when it has the form asked for; reported otherwise.
fn checked(
    section: &Section<'_>,
    key: &str,
    text: Placed<&str>,
    good: fn(&str) -> bool,
    expected: &str,
) -> Option<PlacedName> {
    if good(text.value) {
        return Some(Placed { value: section.shared(text.value), place: text.place });
    }
    section.report(
        Problem::new("value_invalid", &text.place, format!("`{key}` of {} is not valid", section.what()))
            .found(format!("`{}`", shortened(text.value)))
            .expected(expected)
            .hint("correct it"),
    );
    None
}

/// The good texts of an array; the others are reported, and so is one that comes twice.
fn checked_all(section: &Section<'_>, key: &str, good: fn(&str) -> bool, expected: &str) -> Vec<PlacedName> {
    let texts = section.texts(key);
    let mut list: Vec<PlacedName> = Vec::with_capacity(texts.len());
    let mut seen = Seen::default();
    for text in texts {
        if !seen.first(text.value) {
            section.report(
                Problem::new(
                    "duplicate",
                    &text.place,
                    format!("`{key}` of {} repeats a word", section.what()),
                )
                .found(format!("`{}`", shortened(text.value)))
                .expected("each word once")
                .hint("remove one of them"),
            );
        } else if let Some(text) = checked(section, key, text, good, expected) {
            list.push(text);
        }
    }
    list
}

/// Words met so far. Most lists are short, and a look along one is cheaper than a set.
#[derive(Debug, Default)]
struct Seen<'t> {
    few: Vec<&'t str>,
    many: foldhash::HashSet<&'t str>,
}

impl<'t> Seen<'t> {
    const FEW: usize = 16;

    /// Whether the word comes for the first time.
    fn first(&mut self, word: &'t str) -> bool {
        if self.few.contains(&word) {
            return false;
        }
        if self.few.len() < Self::FEW {
            self.few.push(word);
            return true;
        }
        self.many.insert(word)
    }
}

/// What the documents of a bundle say, in their order.
#[derive(Debug, Default)]
pub(crate) struct Drafts(pub(crate) Vec<Arc<Draft>>);

impl Drafts {
    /// What all of them list.
    pub(crate) fn each<'a, T: 'a>(
        &'a self,
        list: fn(&Draft) -> &Vec<T>,
    ) -> impl Iterator<Item = &'a T> + Clone {
        self.0.iter().flat_map(move |draft| list(draft))
    }

    pub(crate) fn have_policy(&self) -> bool {
        self.0.iter().any(|draft| draft.has_policy)
    }
}

/// Reports an array that is longer than we take.
fn at_most(section: &Section<'_>, key: &str, count: usize, most: usize) {
    if count > most {
        section.report(
            Problem::new("too_many", section.place(), format!("{} has too many `{key}`", section.what()))
                .found(count.to_string())
                .expected(format!("at most {most}"))
                .hint("split the zone"),
        );
    }
}

/// Forms of names, in words.
const NAME: &str = "1 to 256 visible ASCII characters without blanks";
const SCOPE: &str = "a scope: 1 to 256 visible ASCII characters without blanks, `\"` and `\\`";
const LABEL: &str = "a label: 1 to 64 characters without blanks at the ends";

/// The keys each reader knows, for comparison with the schema.
#[cfg(test)]
pub(crate) mod keys {
    pub(crate) use super::applications::KEYS as APPLICATION;
    pub(crate) use super::budgets::{BUDGET_KEYS as BUDGET, RATE_KEYS as RATE};
    pub(crate) use super::case_facts::KEYS as TEST_REQUEST;
    pub(crate) use super::cases::KEYS as TEST;
    pub(crate) use super::guards::KEYS as GUARD;
    pub(crate) use super::health::KEYS as HEALTH_CHECK;
    pub(crate) use super::issuers::KEYS as SUBJECT_ISSUER;
    pub(crate) use super::mcp::{ENTRY_KEYS as MCP_ENTRY, KEYS as MCP};
    pub(crate) use super::policy::{
        CONFINEMENT_KEYS as CONFINEMENT, GRANT_KEYS as GRANT, RISK_KEYS as RISK, TIER_KEYS as TIER,
    };
    pub(crate) use super::providers::{SLOT_KEYS as SLOT, keys as provider};
    pub(crate) use super::resources::{KEYS as RESOURCE, LIMIT_KEYS as LIMITS, OPERATION_KEYS as OPERATION};
    pub(crate) use super::tls::KEYS as UPSTREAM_TLS;
}
