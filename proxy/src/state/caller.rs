//! Who asks the coordinator, and what that lets them touch.

use std::sync::Arc;

/// The caller of a coordinator operation, already authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The holder of the coordinator token.
    Operator,
    /// The holder of a session-class mandate.
    Application(ApplicationCaller),
}

/// What a session-class mandate says about its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplicationCaller {
    /// `client_id`.
    pub id: Arc<str>,
    /// `sub`.
    pub subject: Arc<str>,
    /// `sid`.
    pub record: Option<Arc<str>>,
    /// `scope`, split.
    pub scopes: Vec<Arc<str>>,
}

impl Caller {
    /// The name operations are recorded under.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Operator => "caracal-operator",
            Self::Application(caller) => &caller.id,
        }
    }

    /// The authority record the caller presented.
    #[must_use]
    pub fn record(&self) -> Option<&Arc<str>> {
        match self {
            Self::Operator => None,
            Self::Application(caller) => caller.record.as_ref(),
        }
    }

    /// May see and change everything in the zone.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        *self == Self::Operator || self.holds("coordinator.admin")
    }

    /// Whether a row of `application` is the caller's own.
    #[must_use]
    pub fn owns(&self, application: &str) -> bool {
        matches!(self, Self::Application(caller) if &*caller.id == application)
    }

    pub(super) fn sees(&self, application: &str) -> bool {
        self.owns(application) || self.is_admin()
    }

    pub(super) fn may_start_for(&self, application: &str) -> bool {
        self.owns(application) || self.holds_for("coordinator.spawn_for", application)
    }

    pub(super) fn may_manage(&self, application: &str) -> bool {
        self.may_start_for(application) || self.is_admin()
    }

    pub(super) fn may_start_under(&self, application: &str) -> bool {
        self.holds_for("coordinator.spawn_under", application)
    }

    pub(super) fn may_invoke_for(&self, application: &str) -> bool {
        self.owns(application) || self.holds_for("coordinator.invoke_from", application) || self.is_admin()
    }

    pub(super) fn may_delegate_from(&self, application: &str) -> bool {
        self.owns(application) || self.holds_for("coordinator.delegate_from", application)
    }

    pub(super) fn may_delegate_broadly(&self, application: &str) -> bool {
        self.is_admin()
            || self.holds("coordinator.delegate_broad")
            || self.holds_for("coordinator.delegate_broad", application)
    }

    fn holds(&self, scope: &str) -> bool {
        match self {
            Self::Operator => false,
            Self::Application(caller) => caller.scopes.iter().any(|held| &**held == scope),
        }
    }

    fn holds_for(&self, scope: &str, application: &str) -> bool {
        match self {
            Self::Operator => false,
            Self::Application(caller) => caller.scopes.iter().any(|held| {
                held.strip_prefix(scope).and_then(|rest| rest.strip_prefix(':')) == Some(application)
            }),
        }
    }
}
