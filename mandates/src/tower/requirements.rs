//! What one route asks for.

use crate::resource_server::{Need, Settings};

/// What a route asks for beyond the application's settings. It can only ask for more.
#[derive(Clone, Debug, Default)]
pub struct Requirements {
    scopes: Vec<String>,
    targets: Vec<String>,
    chain: Vec<String>,
    session: Need,
    delegation: Need,
    max_hop_count: Option<u32>,
}

impl Requirements {
    /// A scope that must be granted.
    #[must_use]
    pub fn scope(mut self, scope: &str) -> Self {
        self.scopes.push(scope.to_owned());
        self
    }

    /// A resource identifier that must be in `target`.
    #[must_use]
    pub fn target(mut self, identifier: &str) -> Self {
        self.targets.push(identifier.to_owned());
        self
    }

    /// An application that must be in the delegation chain.
    #[must_use]
    pub fn through(mut self, application: &str) -> Self {
        self.chain.push(application.to_owned());
        self
    }

    /// A session must be named.
    #[must_use]
    pub const fn session(mut self) -> Self {
        self.session = Need::Required;
        self
    }

    /// A delegation must be named.
    #[must_use]
    pub const fn delegation(mut self) -> Self {
        self.delegation = Need::Required;
        self
    }

    /// The longest delegation; the settings' own limit stays where it is shorter. 0 says nothing.
    #[must_use]
    pub const fn max_hops(mut self, hops: u32) -> Self {
        self.max_hop_count = if hops == 0 { None } else { Some(hops) };
        self
    }

    pub(super) fn added_to(self, mut settings: Settings) -> Settings {
        settings.required_scopes.extend(self.scopes);
        settings.required_targets.extend(self.targets);
        settings.required_chain.extend(self.chain);
        if self.session == Need::Required {
            settings.session = Need::Required;
        }
        if self.delegation == Need::Required {
            settings.delegation = Need::Required;
        }
        if let Some(hops) = self.max_hop_count {
            settings.max_hop_count = match settings.max_hop_count {
                0 => hops.min(crate::resource_server::DEFAULT_MAX_HOPS),
                known => known.min(hops),
            };
        }
        settings
    }
}
