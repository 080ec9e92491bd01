//! What a plugin is: one shared, immutable object with up to three hooks.

use std::fmt::Debug;

use crate::{Declaration, RequestView, ResponseView, ScrubView};

/// An extension of the edge, built once per snapshot from its typed configuration.
///
/// Hooks get a narrow view and say [`Verdict::Continue`] or refuse. They may be called from many threads at
/// once. Only the hooks of the phases named in [`Plugin::declares`] are called.
pub trait Plugin: Send + Sync + Debug {
    /// The name it is configured by; also the namespace of its facts.
    fn name(&self) -> &'static str;

    /// What it takes part in and may change. Asked once, when the chain is built.
    fn declares(&self) -> Declaration;

    /// Runs after the mandate was found good and before the decision.
    fn on_request(&self, _view: &mut RequestView<'_>) -> Verdict {
        Verdict::Continue
    }

    /// Runs on the response head before any other plugin sees it, and only to take secrets out of it.
    fn on_scrub(&self, _view: &mut ScrubView<'_>) -> Verdict {
        Verdict::Continue
    }

    /// Runs on the response head, before anything of it was sent to the caller.
    fn on_response(&self, _view: &mut ResponseView<'_>) -> Verdict {
        Verdict::Continue
    }
}

/// What a hook answers. There is deliberately no way to say "allow".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No objection.
    Continue,
    /// The request ends here.
    Refuse(Refusal),
}

/// A plugin's objection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Stable machine-readable code, lower case with underscores, for the caller and the ledger.
    pub code: &'static str,
}

impl Verdict {
    /// Refuses with `code`.
    #[must_use]
    pub fn refuse(code: &'static str) -> Self {
        Self::Refuse(Refusal { code })
    }
}
