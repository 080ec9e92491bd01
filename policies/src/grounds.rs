//! What a policy holds on one question, and where that stands: for people who look at a decision.
//!
//! Nothing here decides; [`Zone::decide`] and [`Zone::authorize`] do.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::bundle;
use crate::draft::{DraftGrant, Drafts};
use crate::report::{Place, Problems};
use crate::source::BundleSource;
use crate::zone::Zone;

/// The rules that a question about one resource is compared with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grounds {
    /// Why the policy stops everything; empty when it does not.
    pub restrict: Vec<Arc<str>>,
    /// The application that the resource is granted to. A resource is granted to one.
    pub owner: Option<Arc<str>>,
    /// The binding key of the grant; without a grant, one that stands for the application.
    pub key: Option<Arc<str>>,
    /// The roles of the grant that the labels give, with their scopes.
    pub roles: Vec<(Arc<str>, BTreeSet<Arc<str>>)>,
    /// The confinements that a label falls under: prefix and the scopes that are left.
    pub caps: Vec<(Arc<str>, BTreeSet<Arc<str>>)>,
    /// The scopes that are in a tier.
    pub tiers: Vec<Tiered>,
}

/// A scope in a risk tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiered {
    /// The scope.
    pub scope: Arc<str>,
    /// Its tier.
    pub tier: Arc<str>,
    /// Whether the tier asks for an approval.
    pub gated: bool,
}

impl Zone {
    /// The rules of the policy that such a question is compared with. Cost: a scan of the policy's rules.
    pub fn grounds(
        &self,
        application: &str,
        resource: &str,
        labels: &[Arc<str>],
        scopes: &[&str],
    ) -> Grounds {
        let Some(data) = self.data() else { return Grounds::default() };
        let grant = data.grants.get(resource);
        let own = data.app_ids.iter().find(|(_, id)| ***id == *application).map(|(key, _)| key);
        let role = |label: &Arc<str>| {
            grant.and_then(|grant| grant.roles.get_key_value(label)).map(|(l, s)| (Arc::clone(l), s.clone()))
        };
        let caps = data
            .confinement
            .iter()
            .filter(|cap| labels.iter().any(|label| label.starts_with(&*cap.label_prefix)))
            .map(|cap| (Arc::clone(&cap.label_prefix), cap.scopes.clone()));
        let tiered = data.risk.rules().iter().filter(|rule| scopes.contains(&&*rule.scope));
        let tiers = tiered.map(|rule| Tiered {
            scope: Arc::clone(&rule.scope),
            tier: Arc::clone(&rule.tier),
            gated: data.tiers.rules().iter().any(|declared| declared.tier == rule.tier),
        });
        Grounds {
            restrict: data.restrict.iter().cloned().collect(),
            owner: grant.and_then(|grant| data.app_ids.get(&grant.application)).cloned(),
            key: grant.map(|grant| &grant.application).or(own).cloned(),
            roles: labels.iter().filter_map(role).collect(),
            caps: caps.collect(),
            tiers: tiers.collect(),
        }
    }

    /// This zone with these scopes added to one role of the application on a resource, to try what a grant would do.
    /// Nothing when that is not one grant more: the resource is unknown, or another application's.
    pub fn granting(&self, application: &str, resource: &str, label: &str, scopes: &[&str]) -> Option<Self> {
        let resource = &self.resource(resource)?.identifier;
        let mut data = self.data().cloned().unwrap_or_default();
        if let Some(grant) = data.grants.get(resource) {
            let owner = data.app_ids.get(&grant.application)?;
            if **owner != *application {
                return None;
            }
        } else {
            let own =
                data.app_ids.iter().find(|(_, id)| ***id == *application).map(|(key, _)| Arc::clone(key));
            let key = own.unwrap_or_else(|| application.into());
            if **data.app_ids.entry(Arc::clone(&key)).or_insert_with(|| application.into()) != *application {
                return None;
            }
            let fresh = crate::data::GrantData { application: key, roles: std::collections::BTreeMap::new() };
            data.grants.insert(Arc::clone(resource), Arc::new(fresh));
        }
        let role = Arc::make_mut(data.grants.get_mut(resource)?).roles.entry(label.into()).or_default();
        role.extend(scopes.iter().map(|scope| Arc::from(*scope)));
        Some(self.with_data(data))
    }
}

/// Where the rules of a bundle stand in its documents.
#[derive(Debug)]
pub struct RulePlaces {
    drafts: Drafts,
}

impl RulePlaces {
    /// Reads the places of a bundle; of documents that cannot be read, none.
    pub fn of(source: &BundleSource, zone_id: &str) -> Self {
        Self { drafts: bundle::read(source, zone_id, &[], &Problems::default()).into_drafts() }
    }

    /// Where a resource is declared.
    pub fn resource(&self, resource: &str) -> Option<&Place> {
        let found =
            self.drafts.each(|draft| &draft.resources).find(|one| *one.identifier.value == *resource)?;
        Some(&found.identifier.place)
    }

    /// Where a resource is granted.
    pub fn grant(&self, resource: &str) -> Option<&Place> {
        Some(&self.granted(resource)?.resource.place)
    }

    /// Where a role of a resource gets its scopes.
    pub fn role(&self, resource: &str, label: &str) -> Option<&Place> {
        let mut roles = self.granted(resource)?.roles.iter();
        roles.find(|(role, _)| *role.value == *label).map(|(role, _)| &role.place)
    }

    /// Where the sessions under a label prefix are confined: its first scope.
    pub fn cap(&self, prefix: &str) -> Option<&Place> {
        let (_, scopes) =
            self.drafts.each(|draft| &draft.confinement).find(|(cap, _)| *cap.label_prefix == *prefix)?;
        scopes.first().map(|scope| &scope.place)
    }

    /// Where the zone is stopped.
    pub fn restrict(&self) -> Option<&Place> {
        self.drafts.each(|draft| &draft.restrict).next().map(|reason| &reason.place)
    }

    /// Where a scope is put into a tier.
    pub fn risk(&self, scope: &str) -> Option<&Place> {
        self.drafts
            .each(|draft| &draft.risk)
            .find(|(rule, _)| *rule.scope == *scope)
            .map(|(_, scope)| &scope.place)
    }

    fn granted(&self, resource: &str) -> Option<&DraftGrant> {
        self.drafts.each(|draft| &draft.grants).find(|grant| *grant.resource.value == *resource)
    }
}
