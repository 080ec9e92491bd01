//! The compiled zone: everything a request of it may consult, immutable and indexed.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};

use crate::application::Application;
use crate::budget::Budget;
use crate::changes;
use crate::data::PolicyData;
use crate::decision::{Decision, DenyReason, Input};
use crate::digest::Digest;
use crate::endpoint::EndpointUrl;
use crate::engine::Policy;
use crate::issuer::SubjectIssuer;
use crate::kept::Kept;
use crate::provider::Provider;
use crate::resource::Resource;

/// One zone, compiled.
///
/// Made by [`compile`](crate::compile) alone. Holds no secret, only references to them.
#[derive(Debug)]
pub struct Zone {
    parts: Parts,
    digest: Digest,
    applications: HashMap<Arc<str>, Arc<Application>>,
    /// By identifier and by row id.
    resources: HashMap<Arc<str>, Arc<Resource>>,
    policy: Option<Policy>,
    /// Its listed documents, for when it is compiled again.
    kept: Vec<Kept>,
}

/// What a zone is made of, checked.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) id: Arc<str>,
    pub(crate) name: String,
    pub(crate) applications: Vec<Arc<Application>>,
    pub(crate) providers: Vec<Arc<Provider>>,
    pub(crate) resources: Vec<Arc<Resource>>,
    pub(crate) issuers: Vec<Arc<SubjectIssuer>>,
    pub(crate) budgets: Vec<Arc<Budget>>,
    /// None when no document defines any of the six roots.
    pub(crate) data: Option<PolicyData>,
}

impl Zone {
    /// Sorts and indexes.
    pub(crate) fn new(mut parts: Parts) -> Self {
        parts.applications.sort_by(|a, b| a.id.cmp(&b.id));
        parts.providers.sort_by(|a, b| a.identifier.cmp(&b.identifier));
        parts.resources.sort_by(|a, b| a.identifier.cmp(&b.identifier));
        parts.budgets.sort_by(|a, b| a.name.cmp(&b.name));
        parts.issuers.sort_by(|a, b| a.issuer.cmp(&b.issuer));
        let applications = parts
            .applications
            .iter()
            .map(|application| (Arc::clone(&application.id), Arc::clone(application)))
            .collect();
        let mut resources = HashMap::with_capacity(parts.resources.len());
        for resource in &parts.resources {
            resources.insert(Arc::clone(&resource.id), Arc::clone(resource));
            resources.insert(Arc::clone(&resource.identifier), Arc::clone(resource));
        }
        let digest = Digest::of(&parts);
        let policy = parts.data.as_ref().map(Policy::new);
        Self { parts, digest, applications, resources, policy, kept: Vec::new() }
    }

    /// The zone with the documents it was compiled from.
    pub(crate) fn keeping(self, kept: Vec<Kept>) -> Self {
        Self { kept, ..self }
    }

    pub(crate) fn kept(&self) -> &[Kept] {
        &self.kept
    }

    /// The provider of this zone that is this one, in the same place.
    pub(crate) fn same_provider(&self, provider: &Provider) -> Option<&Arc<Provider>> {
        let providers = &self.parts.providers;
        let at = providers.binary_search_by(|known| known.identifier.cmp(&provider.identifier)).ok()?;
        providers.get(at).filter(|known| ***known == *provider)
    }

    /// This zone's policy, resources and providers for the applications and subject issuers of `newer`, and frozen
    /// where `newer` is. So a policy comes back without those who may ask, and what they prove it with, being older.
    pub fn for_identities_of(&self, newer: &Self) -> Self {
        let mut parts = self.parts.clone();
        parts.applications.clone_from(&newer.parts.applications);
        parts.issuers.clone_from(&newer.parts.issuers);
        if let (Some(data), Some(newer)) = (&mut parts.data, &newer.parts.data) {
            data.restrict.extend(newer.restrict.iter().cloned());
        }
        Self::new(parts)
    }

    /// The zone's id.
    pub fn id(&self) -> &Arc<str> {
        &self.parts.id
    }

    /// The zone's name, for people.
    pub fn name(&self) -> &str {
        &self.parts.name
    }

    /// The digest of everything in the zone.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The application with this id.
    pub fn application(&self, id: &str) -> Option<&Arc<Application>> {
        self.applications.get(id)
    }

    /// Every application, sorted by id.
    pub fn applications(&self) -> impl Iterator<Item = &Arc<Application>> {
        self.parts.applications.iter()
    }

    /// The resource with this identifier or row id. The two never clash within a zone.
    pub fn resource(&self, identifier_or_id: &str) -> Option<&Arc<Resource>> {
        self.resources.get(identifier_or_id)
    }

    /// Every resource, sorted by identifier.
    pub fn resources(&self) -> impl ExactSizeIterator<Item = &Arc<Resource>> {
        self.parts.resources.iter()
    }

    /// The subject issuer whose tokens carry this `iss`. Cost: a scan of at most twenty.
    pub fn subject_issuer(&self, iss: &str) -> Option<&Arc<SubjectIssuer>> {
        self.parts.issuers.iter().find(|issuer| *issuer.issuer == *iss)
    }

    /// Every subject issuer, sorted by name.
    pub fn subject_issuers(&self) -> impl Iterator<Item = &Arc<SubjectIssuer>> {
        self.parts.issuers.iter()
    }

    /// Every budget and rate, sorted by name; none in a zone without any.
    pub fn budgets(&self) -> Option<&[Arc<Budget>]> {
        Some(self.parts.budgets.as_slice()).filter(|budgets| !budgets.is_empty())
    }

    /// A resource through which this URL can be called.
    pub fn reaching(&self, url: &EndpointUrl) -> Option<&Arc<Resource>> {
        self.parts.resources.iter().find(|resource| resource.reaches(url))
    }

    /// Every provider, sorted by identifier.
    pub fn providers(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.parts.providers.iter()
    }

    /// Decides a mint or a use: default deny, first reason in order of precedence.
    ///
    /// Cost: see `Policy::decide`; the size of the zone does not matter.
    pub fn decide(&self, input: &Input<'_>) -> Decision {
        match &self.policy {
            Some(policy) => policy.decide(input),
            None => Decision::Deny(DenyReason::NoActivePolicySet),
        }
    }

    /// Whether the application is granted any scope on the resource in any role. `missing` scopes are told to no other.
    pub fn granted_somewhere(&self, application: &str, resource: &str) -> bool {
        let Some(resource) = self.resource(resource) else { return false };
        self.policy.as_ref().is_some_and(|policy| policy.granted_somewhere(application, &resource.identifier))
    }

    /// The roles the policy gives the application: resource identifier, session label, scopes. Sorted.
    pub fn roles<'a>(
        &'a self,
        application: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<str>, &'a BTreeSet<Arc<str>>)> {
        self.parts.data.iter().flat_map(move |data| {
            let own = move |key: &Arc<str>| data.app_ids.get(key).is_some_and(|id| **id == *application);
            let grants = data.grants.iter().filter(move |(_, grant)| own(&grant.application));
            grants.flat_map(|(resource, grant)| {
                grant.roles.iter().map(move |(label, scopes)| (resource, label, scopes))
            })
        })
    }

    /// What `newer` changes, in words about authority; empty when nothing does.
    pub fn changes(&self, newer: &Self) -> Vec<String> {
        changes::between(&self.parts, &newer.parts)
    }

    /// Whether the policy itself stops everything.
    pub(crate) fn is_frozen_by_policy(&self) -> bool {
        self.parts.data.as_ref().is_some_and(|data| !data.restrict.is_empty())
    }

    pub(crate) fn data(&self) -> Option<&PolicyData> {
        self.parts.data.as_ref()
    }

    /// This zone under another policy.
    pub(crate) fn with_data(&self, data: PolicyData) -> Self {
        Self::new(Parts { data: Some(data), ..self.parts.clone() })
    }

    pub(crate) fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }
}
