//! The contract written a second time, straight from its predicates, and compared with the engine on random input.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;

use crate::data::{Approver, Checked, Confinement, GrantData, PolicyData, Risk, TierDeclaration};
use crate::decision::{Action, Decision, EdgeFacts, Input, Presented, Principal};
use crate::engine::{Policy, Recheck};

/// What either side answers: a word, and what comes with an allow.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Allow(String, BTreeSet<TierDeclaration>, BTreeMap<String, String>),
    Deny(&'static str),
    Failed,
}

/// Every predicate is a field, named as the contract names it.
pub(super) struct Model<'a> {
    pub(super) data: &'a PolicyData,
    pub(super) input: &'a Input<'a>,
}

impl Model<'_> {
    fn s(&self) -> BTreeSet<&str> {
        self.input.requested.iter().copied().collect()
    }

    fn ps(&self) -> BTreeSet<&str> {
        let scope = self.input.presented.map_or("", |claims| claims.scope);
        scope.split(' ').filter(|part| !part.is_empty()).collect()
    }

    fn frozen(&self) -> bool {
        self.data.restrict.iter().next().is_some()
    }

    fn grant(&self) -> Option<&GrantData> {
        self.data
            .grants
            .iter()
            .find(|(resource, _)| &***resource == self.input.resource)
            .map(|(_, grant)| &**grant)
    }

    fn owns(&self) -> bool {
        let principal = match self.input.principal {
            Principal::Application(id) | Principal::Workload(id) => id,
        };
        self.data.app_ids.iter().any(|(key, id)| {
            &**id == principal && self.grant().is_some_and(|grant| grant.application == *key)
        })
    }

    fn session(&self) -> bool {
        self.input.agent_session_id.is_some_and(|id| !id.is_empty())
    }

    fn bootstrap(&self) -> bool {
        self.s() == BTreeSet::from(["agent:lifecycle"])
            && self.input.presented.is_none()
            && self.input.edge.is_none()
            && !self.session()
    }

    fn mint_shape(&self) -> bool {
        self.input.edge.is_some_and(|edge| !edge.id.is_empty())
            && self.session()
            && self.input.presented.is_none()
            && !self.s().is_empty()
            && !self.s().contains("agent:lifecycle")
    }

    fn narrowed(&self) -> bool {
        let held: BTreeSet<&str> = match self.input.edge {
            Some(edge) => edge.scopes.iter().map(AsRef::as_ref).collect(),
            None => BTreeSet::new(),
        };
        self.s().is_subset(&held)
    }

    fn confined_ok(&self, scopes: &BTreeSet<&str>) -> bool {
        self.data.confinement.iter().all(|rule| {
            let matches = self.input.labels.iter().any(|label| label.starts_with(&*rule.label_prefix));
            !matches || scopes.iter().all(|scope| rule.scopes.contains(*scope))
        })
    }

    fn role(&self, scopes: &BTreeSet<&str>) -> bool {
        let Some(grant) = self.grant() else { return false };
        self.input.labels.iter().any(|label| match grant.roles.get(label) {
            Some(role) => scopes.iter().all(|scope| role.contains(*scope)),
            None => false,
        })
    }

    fn workload(&self) -> bool {
        matches!(self.input.principal, Principal::Workload(_))
            && self.input.action == Action::CredentialInjection
            && self.input.presented.is_none()
            && self.input.edge.is_none()
            && !self.session()
    }

    fn presented(&self) -> bool {
        self.input.presented.is_some_and(|claims| claims.delegation_edge_id.is_some_and(|id| !id.is_empty()))
            && self.s().is_empty()
            && !self.ps().is_empty()
    }

    fn in_target(&self) -> bool {
        self.input.presented.is_some_and(|claims| claims.target.iter().any(|one| one == self.input.resource))
    }

    fn bad_risk(&self) -> bool {
        self.data.risk == Checked::Malformed
    }

    fn bad_tiers(&self) -> bool {
        self.data.tiers == Checked::Malformed
    }

    /// `None`: two tiers for one scope.
    fn diagnostics(&self, rule: String) -> Answer {
        let mut risk = BTreeMap::new();
        for scope in self.s() {
            let tiers: BTreeSet<&str> = self
                .data
                .risk
                .rules()
                .iter()
                .filter(|rule| &*rule.scope == scope)
                .map(|rule| &*rule.tier)
                .collect();
            if tiers.len() > 1 {
                return Answer::Failed;
            }
            risk.extend(tiers.iter().map(|tier| (scope.to_owned(), (*tier).to_owned())));
        }
        let gate = self.data.tiers.rules().iter().filter(|one| risk.values().any(|tier| **tier == *one.tier));
        Answer::Allow(rule, gate.cloned().collect(), risk)
    }

    fn plain(rule: String) -> Answer {
        Answer::Allow(rule, BTreeSet::new(), BTreeMap::new())
    }

    pub(super) fn decide(&self) -> Answer {
        let key = self.grant().map_or_else(String::new, |grant| grant.application.to_string());
        if self.bootstrap() && self.owns() && !self.frozen() {
            return Self::plain("caracal-bootstrap".into());
        }
        if self.mint_shape()
            && self.narrowed()
            && self.confined_ok(&self.s())
            && self.owns()
            && self.role(&self.s())
            && !self.frozen()
            && !self.bad_risk()
            && !self.bad_tiers()
        {
            return self.diagnostics(format!("caracal-{key}-mint"));
        }
        if self.workload() && !self.frozen() && !self.bad_risk() && !self.bad_tiers() {
            return self.diagnostics("caracal-workload-mint".into());
        }
        if self.presented() && self.in_target() && self.owns() && self.role(&self.ps()) && !self.frozen() {
            return Self::plain(format!("caracal-{key}-use"));
        }
        Answer::Deny(self.reason())
    }

    fn reason(&self) -> &'static str {
        let minting = (self.mint_shape() || self.workload()) && !self.bootstrap();
        let reasons = [
            (self.frozen(), "restriction_active"),
            (minting && self.bad_risk(), "malformed_risk_data"),
            (minting && self.bad_tiers(), "malformed_approval_data"),
            (self.mint_shape() && !self.owns(), "resource_not_granted"),
            (self.mint_shape() && !self.narrowed(), "delegation_scope_exceeded"),
            (self.mint_shape() && !self.confined_ok(&self.s()), "confinement_violation"),
            (self.mint_shape() && !self.role(&self.s()), "role_scope_mismatch"),
            (self.presented() && !self.in_target(), "mandate_target_mismatch"),
            (self.presented() && !self.owns(), "resource_not_granted"),
            (self.presented() && !self.role(&self.ps()), "role_scope_mismatch"),
        ];
        reasons.iter().find(|(holds, _)| *holds).map_or("no_rule_matched", |(_, reason)| reason)
    }
}

pub(super) fn engine(policy: &Policy, input: &Input<'_>) -> Answer {
    match policy.decide(input) {
        Decision::Allow(allowed) => {
            let mut sorted = (allowed.gate.clone(), allowed.risk.clone());
            sorted.0.sort();
            sorted.1.sort();
            assert_eq!((&sorted.0, &sorted.1), (&allowed.gate, &allowed.risk), "diagnostics are sorted");
            let risk =
                allowed.risk.iter().map(|(scope, tier)| (scope.to_string(), tier.to_string())).collect();
            Answer::Allow(allowed.rule.to_string(), allowed.gate.into_iter().collect(), risk)
        }
        Decision::Deny(reason) => Answer::Deny(reason.code()),
        Decision::Failed(_) => Answer::Failed,
    }
}

/// An input that owns what it borrows out.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    workload: bool,
    injection: bool,
    principal: Arc<str>,
    resource: Arc<str>,
    labels: Vec<Arc<str>>,
    requested: Vec<Arc<str>>,
    edge: Option<(Arc<str>, Vec<Arc<str>>)>,
    session: Option<Arc<str>>,
    presented: Option<(Option<Arc<str>>, String, Vec<String>)>,
}

impl Asked {
    pub(super) fn with<T>(&self, look: impl FnOnce(&Input<'_>) -> T) -> T {
        let requested: Vec<&str> = self.requested.iter().map(AsRef::as_ref).collect();
        let principal = if self.workload {
            Principal::Workload(&self.principal)
        } else {
            Principal::Application(&self.principal)
        };
        look(&Input {
            principal,
            action: if self.injection { Action::CredentialInjection } else { Action::TokenExchange },
            resource: &self.resource,
            labels: &self.labels,
            requested: &requested,
            edge: self.edge.as_ref().map(|(id, scopes)| EdgeFacts { id, scopes }),
            agent_session_id: self.session.as_deref(),
            presented: self.presented.as_ref().map(|(edge, scope, target)| Presented {
                delegation_edge_id: edge.as_deref(),
                scope,
                target,
            }),
        })
    }
}

fn word(words: &'static [&'static str]) -> impl Strategy<Value = Arc<str>> {
    prop::sample::select(words).prop_map(Arc::from)
}

fn scope() -> impl Strategy<Value = Arc<str>> {
    word(&["a", "b", "c", "d"])
}

fn label() -> impl Strategy<Value = Arc<str>> {
    word(&["L1", "L2", "Lx", "Z"])
}

fn scopes() -> impl Strategy<Value = BTreeSet<Arc<str>>> {
    prop::collection::btree_set(scope(), 0..5)
}

fn grants() -> impl Strategy<Value = BTreeMap<Arc<str>, GrantData>> {
    let roles = prop::collection::btree_map(label(), scopes(), 0..4);
    let grant =
        (word(&["k1", "k2", "k3"]), roles).prop_map(|(application, roles)| GrantData { application, roles });
    prop::collection::btree_map(word(&["R", "S"]), grant, 0..3)
}

fn confinement() -> impl Strategy<Value = Vec<Confinement>> {
    let rule = (word(&["", "L", "L1", "Lx", "Z", "Zz"]), scopes())
        .prop_map(|(label_prefix, scopes)| Confinement { label_prefix, scopes });
    prop::collection::vec(rule, 0..3)
}

fn checked<T: std::fmt::Debug + Clone>(rule: impl Strategy<Value = T>) -> impl Strategy<Value = Checked<T>> {
    prop_oneof![
        8 => prop::collection::vec(rule, 0..4).prop_map(Checked::Rules),
        1 => Just(Checked::Malformed),
    ]
}

pub(super) fn policy_data() -> impl Strategy<Value = PolicyData> {
    let risk = (scope(), word(&["low", "high"])).prop_map(|(scope, tier)| Risk { scope, tier });
    let tier = (word(&["low", "high"]), prop::option::of(Just(Approver::Any)), prop::option::of(1_u64..3))
        .prop_map(|(tier, approver, ttl_seconds)| TierDeclaration {
            tier,
            approver,
            ttl_seconds,
            privacy: None,
            self_approval: None,
        });
    let restrict = prop_oneof![9 => Just(BTreeSet::new()), 1 => Just(BTreeSet::from([Arc::from("stop")]))];
    (
        prop::collection::btree_map(word(&["k1", "k2", "k3"]), word(&["app-1", "app-2"]), 0..4),
        grants(),
        confinement(),
        restrict,
        checked(risk),
        checked(tier),
    )
        .prop_map(|(app_ids, grants, confinement, restrict, risk, tiers)| PolicyData {
            app_ids,
            grants: grants.into_iter().map(|(resource, grant)| (resource, Arc::new(grant))).collect(),
            confinement,
            restrict,
            risk,
            tiers,
        })
}

pub(super) fn asked() -> impl Strategy<Value = Asked> {
    let requested = prop_oneof![
        4 => prop::collection::vec(scope(), 0..4),
        1 => prop::collection::vec(word(&["agent:lifecycle", "a"]), 1..3),
        1 => Just(vec![Arc::from("agent:lifecycle")]),
    ];
    let id = || prop_oneof![5 => Just(Arc::from("x")), 1 => Just(Arc::from(""))];
    let claim = prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c"), Just("")], 0..4);
    let target = prop::collection::vec(prop_oneof![Just("R".to_owned()), Just("S".to_owned())], 0..3);
    (
        (prop::bool::weighted(0.2), prop::bool::weighted(0.3)),
        word(&["app-1", "app-2"]),
        word(&["R", "S"]),
        prop::collection::vec(label(), 0..4),
        requested,
        prop::option::of((id(), prop::collection::vec(scope(), 0..5))),
        prop::option::of(id()),
        prop::option::weighted(
            0.3,
            (prop::option::of(id()), claim.prop_map(|words| words.join(" ")), target),
        ),
    )
        .prop_map(
            |((workload, injection), principal, resource, labels, requested, edge, session, presented)| {
                Asked {
                    workload,
                    injection,
                    principal,
                    resource,
                    labels,
                    requested,
                    edge,
                    session,
                    presented,
                }
            },
        )
}

/// One that has the shape of a mint, so that properties of mints are met often.
pub(super) fn mint() -> impl Strategy<Value = Asked> {
    let scopes = || prop::collection::vec(scope(), 1..5);
    (word(&["app-1", "app-2"]), prop::collection::vec(label(), 0..4), scopes(), scopes()).prop_map(
        |(principal, labels, requested, held)| Asked {
            workload: false,
            injection: false,
            principal,
            resource: "R".into(),
            labels,
            requested,
            edge: Some(("edge".into(), held)),
            session: Some("session".into()),
            presented: None,
        },
    )
}

fn allows(data: &PolicyData, asked: &Asked) -> bool {
    asked.with(|input| matches!(Policy::new(data).decide(input), Decision::Allow(_)))
}

fn recheck(data: &PolicyData, labels: &[Arc<str>], scope: &str, approved: bool) -> bool {
    match Policy::new(data).recheck(labels, scope, approved) {
        Ok(()) => true,
        Err(Recheck::Denied(_) | Recheck::ApprovalRequired | Recheck::Failed(_)) => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(4096)))]

    #[test]
    fn the_engine_answers_as_the_model_does(data in policy_data(), asked in asked()) {
        let policy = Policy::new(&data);
        asked.with(|input| {
            prop_assert_eq!(engine(&policy, input), Model { data: &data, input }.decide());
            Ok(())
        })?;
    }

    #[test]
    fn the_engine_answers_mints_as_the_model_does(data in policy_data(), asked in mint()) {
        let policy = Policy::new(&data);
        asked.with(|input| {
            prop_assert_eq!(engine(&policy, input), Model { data: &data, input }.decide());
            Ok(())
        })?;
    }

    #[test]
    fn asking_for_fewer_scopes_is_never_refused_where_more_was_allowed(
        data in policy_data(), asked in mint(), drop in any::<Index>(),
    ) {
        if asked.requested.len() > 1 && allows(&data, &asked) {
            let mut fewer = asked.clone();
            fewer.requested.swap_remove(drop.index(asked.requested.len()));
            prop_assert!(allows(&data, &fewer));
        }
    }

    #[test]
    fn a_narrower_delegation_never_allows_more(data in policy_data(), asked in mint(), drop in any::<Index>()) {
        let mut narrower = asked.clone();
        if let Some((_, held)) = &mut narrower.edge {
            held.swap_remove(drop.index(held.len()));
        }
        prop_assert!(!allows(&data, &narrower) || allows(&data, &asked));
    }

    /// A label may also cap, so it is the roles that a label adds which never shrink what is allowed.
    #[test]
    fn fewer_labels_never_give_more_where_nothing_is_confined(
        mut data in policy_data(), asked in mint(), drop in any::<Index>(),
    ) {
        data.confinement.clear();
        if !asked.labels.is_empty() {
            let mut fewer = asked.clone();
            fewer.labels.swap_remove(drop.index(asked.labels.len()));
            prop_assert!(!allows(&data, &fewer) || allows(&data, &asked));
        }
    }

    #[test]
    fn a_rule_that_restricts_never_allows_more(
        data in policy_data(), asked in asked(), rule in confinement(), freeze in any::<bool>(),
    ) {
        let mut stricter = data.clone();
        stricter.confinement.extend(rule);
        if freeze {
            stricter.restrict.insert("stop".into());
        }
        prop_assert!(!allows(&stricter, &asked) || allows(&data, &asked));
    }

    #[test]
    fn a_use_that_passes_the_recheck_could_be_minted_under_the_same_caps(
        data in policy_data(), asked in mint(), approved in any::<bool>(),
    ) {
        let scope = asked.requested.join(" ");
        if recheck(&data, &asked.labels, &scope, approved) {
            asked.with(|input| {
                let model = Model { data: &data, input };
                prop_assert!(model.confined_ok(&model.s()));
                match model.diagnostics(String::new()) {
                    Answer::Allow(_, gate, _) => prop_assert!(approved || gate.is_empty()),
                    other @ (Answer::Deny(_) | Answer::Failed) => prop_assert!(false, "{other:?}"),
                }
                Ok(())
            })?;
        }
    }
}
