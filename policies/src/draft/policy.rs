//! The six roots of policy data.

use std::sync::Arc;

use super::{Draft, DraftGrant, DraftRole, LABEL, NAME, SCOPE, checked, checked_all};
use crate::data::{Approver, Confinement, GrantData, Privacy, Risk, SelfApproval, TierDeclaration};
use crate::names;
use crate::read::{Placed, Section};

/// The six roots.
pub(crate) const ROOTS: [&str; 6] =
    ["app_ids", "grants", "confinement", "restrict", "risk", "approval_tiers"];

/// Keys of one table of `grants`.
pub(crate) const GRANT_KEYS: [&str; 2] = ["application", "roles"];
/// Keys of one table of `confinement`.
pub(crate) const CONFINEMENT_KEYS: [&str; 2] = ["label_prefix", "scopes"];
/// Keys of one table of `risk`.
pub(crate) const RISK_KEYS: [&str; 2] = ["scope", "tier"];
/// Keys of one table of `approval_tiers`.
pub(crate) const TIER_KEYS: [&str; 5] = ["tier", "approver", "ttl_seconds", "privacy", "self_approval"];

/// Seconds an approval may be waited for at most: a week.
const APPROVAL_SECONDS: u64 = 7 * 24 * 3600;

impl Draft {
    /// Adds the policy data of a document.
    pub(crate) fn read_policy(&mut self, document: &Section<'_>) {
        self.has_policy = self.has_policy || ROOTS.iter().any(|root| document.has(root));
        self.read_app_ids(document);
        self.read_grants(document);
        self.read_confinement(document);
        let restrict = checked_all(document, "restrict", |text| !text.is_empty(), "a text that is not empty");
        self.restrict.extend(restrict);
        self.read_risk(document);
        self.read_tiers(document);
    }

    fn read_app_ids(&mut self, document: &Section<'_>) {
        let Some(entry) = document.entry("app_ids") else { return };
        let Some(section) = entry.section("app_ids", "`app_ids`".into()) else { return };
        for (key, value) in section.entries() {
            let id =
                value.text(key.value).and_then(|id| checked(&section, key.value, id, names::is_name, NAME));
            let key = checked(&section, "key", key, names::is_name, NAME);
            if let (Some(key), Some(id)) = (key, id) {
                self.app_ids.push((key, id));
            }
        }
    }

    fn read_grants(&mut self, document: &Section<'_>) {
        let Some(entry) = document.entry("grants") else { return };
        let Some(grants) = entry.section("grants", "`grants`".into()) else { return };
        for (resource, value) in grants.entries() {
            let what = format!("the grant of `{}`", crate::report::shortened(resource.value));
            let Some(section) = value.section(resource.value, what.into()) else { continue };
            section.only(&GRANT_KEYS);
            let application = section.needed_text("application");
            let application =
                application.and_then(|text| checked(&section, "application", text, names::is_name, NAME));
            let roles = read_roles(&section);
            let resource = checked(&grants, "key", resource, names::is_name, NAME);
            if let (Some(resource), Some(application)) = (resource, application) {
                let scopes = |(role, scopes): &DraftRole| {
                    let scopes = scopes.iter().map(|scope| Arc::clone(&scope.value)).collect();
                    (Arc::clone(&role.value), scopes)
                };
                let data = GrantData {
                    application: Arc::clone(&application.value),
                    roles: roles.iter().map(scopes).collect(),
                };
                self.grants.push(DraftGrant { resource, application, roles, data: Arc::new(data) });
            }
        }
    }

    fn read_confinement(&mut self, document: &Section<'_>) {
        for section in document.sections("confinement", "a rule of `confinement`") {
            section.only(&CONFINEMENT_KEYS);
            let prefix = section.needed_text("label_prefix");
            let scopes = match section.needed("scopes") {
                Some(_) => checked_all(&section, "scopes", names::is_scope, SCOPE),
                None => continue,
            };
            let Some(prefix) = prefix else { continue };
            let rule = Confinement {
                label_prefix: section.shared(prefix.value),
                scopes: scopes.iter().map(|scope| Arc::clone(&scope.value)).collect(),
            };
            self.confinement.push((rule, scopes));
        }
    }

    fn read_risk(&mut self, document: &Section<'_>) {
        for section in document.sections("risk", "a rule of `risk`") {
            section.only(&RISK_KEYS);
            let scope = section.needed_text("scope");
            let scope = scope.and_then(|text| checked(&section, "scope", text, names::is_scope, SCOPE));
            let tier = section.needed_text("tier");
            let tier = tier.and_then(|text| checked(&section, "tier", text, names::is_name, NAME));
            if let (Some(scope), Some(tier)) = (scope, tier) {
                self.risk.push((Risk { scope: Arc::clone(&scope.value), tier: tier.value }, scope));
            }
        }
    }

    fn read_tiers(&mut self, document: &Section<'_>) {
        for section in document.sections("approval_tiers", "a rule of `approval_tiers`") {
            section.only(&TIER_KEYS);
            let tier = section.needed_text("tier");
            let tier = tier.and_then(|text| checked(&section, "tier", text, names::is_name, NAME));
            let approver = section.word("approver", &APPROVERS);
            let ttl_seconds = section.number("ttl_seconds", 1..=APPROVAL_SECONDS);
            let privacy = section.word("privacy", &PRIVACIES);
            let self_approval = section.word("self_approval", &SELF_APPROVALS);
            if let Some(tier) = tier {
                let value =
                    TierDeclaration { tier: tier.value, approver, ttl_seconds, privacy, self_approval };
                self.tiers.push(Placed { value, place: tier.place });
            }
        }
    }
}

const APPROVERS: [(&str, Approver); 3] =
    [("operator", Approver::Operator), ("subject", Approver::Subject), ("any", Approver::Any)];
const SELF_APPROVALS: [(&str, SelfApproval); 2] =
    [("allowed", SelfApproval::Allowed), ("forbidden", SelfApproval::Forbidden)];
const PRIVACIES: [(&str, Privacy); 3] = [
    ("identified", Privacy::Identified),
    ("pseudonymous", Privacy::Pseudonymous),
    ("anonymous", Privacy::Anonymous),
];

/// The roles of a grant with their scopes.
fn read_roles(section: &Section<'_>) -> Vec<DraftRole> {
    let Some(entry) = section.needed("roles") else { return Vec::new() };
    let Some(roles) = entry.section("roles", format!("the roles in {}", section.what()).into()) else {
        return Vec::new();
    };
    let mut read = Vec::new();
    for (role, _) in roles.entries() {
        let scopes = checked_all(&roles, role.value, names::is_scope, SCOPE);
        if let Some(role) = checked(&roles, "role", role, names::is_label, LABEL) {
            read.push((role, scopes));
        }
    }
    read
}
