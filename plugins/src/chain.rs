//! A resource's plugins, put together once and run in an order that is written here.
//!
//! 1. Request: in the order of the bundle's list, before the decision.
//! 2. Scrub: first on the response, so that no other plugin reads a secret the upstream echoed.
//! 3. Response: in the order of the list.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use caracal_policies::{Place, PluginSpec};
use http::HeaderMap;

use crate::view::Head;
use crate::{
    Declaration, Facts, Phase, Plugin, Registry, RequestView, ResponseView, ScrubView, Scrubber, Verdict,
};

/// The plugins of one resource. Immutable; shared by all its requests.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    links: Vec<Link>,
}

/// Why a chain ended a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainStop {
    /// A plugin objected.
    Refused {
        /// Which one.
        plugin: &'static str,
        /// Its code.
        code: &'static str,
    },
    /// A plugin panicked or did what it had not declared. The caller learns `plugin_fault` and nothing else.
    Fault {
        /// Which one.
        plugin: &'static str,
    },
}

/// Something wrong with a bundle's plugin list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginProblem {
    /// Where the plugin is named.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

#[derive(Clone, Debug)]
struct Link {
    name: &'static str,
    declaration: Declaration,
    plugin: Arc<dyn Plugin>,
}

impl Chain {
    /// Builds the chain a bundle describes, or says everything that is wrong with it.
    ///
    /// # Errors
    /// One [`PluginProblem`] per unknown name, bad table, or declaration that is not let in.
    pub fn build(registry: &Registry, specs: &[PluginSpec]) -> Result<Self, Vec<PluginProblem>> {
        Self::build_reserving(registry, specs, &[])
    }

    /// As [`Chain::build`], and reserves the headers in which this resource's provider carries its keys.
    ///
    /// Shape: `slots` are header names in lower case.
    ///
    /// # Errors
    /// As [`Chain::build`].
    pub fn build_reserving(
        registry: &Registry,
        specs: &[PluginSpec],
        slots: &[&str],
    ) -> Result<Self, Vec<PluginProblem>> {
        let mut links = Vec::with_capacity(specs.len());
        let mut problems = Vec::new();
        for spec in specs {
            match Link::build(registry, spec, slots) {
                Ok(link) => links.push(link),
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() { Ok(Self { links }) } else { Err(problems) }
    }

    /// Whether there is nothing to run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Whether the response phase wants a [`Scrubber`] for this request's secrets.
    #[must_use]
    pub fn scrubs(&self) -> bool {
        self.of(Phase::Scrub).next().is_some()
    }

    /// Whether the bodies of responses are to be searched too.
    #[must_use]
    pub fn scrubs_bodies(&self) -> bool {
        self.links.iter().any(|link| link.declaration.scrubs_bodies)
    }

    /// Runs the request phase. `headers` must no longer hold the mandate; what plugins changed is in it after.
    ///
    /// # Errors
    /// The first objection or fault. The request must then be refused: what was changed so far is unfinished.
    pub fn on_request(
        &self,
        method: &str,
        raw_path: &str,
        headers: &mut HeaderMap,
        facts: &mut Facts,
    ) -> Result<(), ChainStop> {
        for link in self.of(Phase::Request) {
            let declared = link.declaration.request_headers.as_slice();
            let head = Head { headers: &mut *headers, declared, broke_its_word: false };
            let mut view = RequestView { method, raw_path, plugin: link.name, facts: &mut *facts, head };
            let verdict = link.guarded(|plugin| plugin.on_request(&mut view))?;
            link.judge(verdict, view.head.broke_its_word)?;
        }
        Ok(())
    }

    /// Runs the scrub phase and then the response phase. `scrubber` knows what was injected, if anything was.
    ///
    /// # Errors
    /// The first objection or fault. Nothing of the response may then be sent.
    pub fn on_response(
        &self,
        status: u16,
        headers: &mut HeaderMap,
        scrubber: Option<&Scrubber>,
    ) -> Result<(), ChainStop> {
        for link in self.of(Phase::Scrub) {
            let mut view = ScrubView { status, headers: &mut *headers, scrubber };
            let verdict = link.guarded(|plugin| plugin.on_scrub(&mut view))?;
            link.judge(verdict, false)?;
        }
        for link in self.of(Phase::Response) {
            let declared = link.declaration.response_headers.as_slice();
            let head = Head { headers: &mut *headers, declared, broke_its_word: false };
            let mut view = ResponseView { status, head };
            let verdict = link.guarded(|plugin| plugin.on_response(&mut view))?;
            link.judge(verdict, view.head.broke_its_word)?;
        }
        Ok(())
    }

    fn of(&self, phase: Phase) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(move |link| link.declaration.phases.contains(&phase))
    }
}

impl Link {
    fn build(registry: &Registry, spec: &PluginSpec, slots: &[&str]) -> Result<Self, Vec<PluginProblem>> {
        let problem =
            |message: String, hint: String| vec![PluginProblem { place: spec.place.clone(), message, hint }];
        let Some(make) = registry.make(&spec.name) else {
            let known = registry.names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            return Err(problem(
                format!("there is no plugin called `{}`", spec.name),
                format!("this process knows {known}"),
            ));
        };
        let plugin = make(&spec.config).map_err(|reason| {
            problem(
                format!("plugin `{}` does not accept its settings: {reason}", spec.name),
                "correct the plugin's table; its documentation lists the keys".to_owned(),
            )
        })?;
        if plugin.name() != spec.name {
            return Err(problem(
                format!("the plugin registered as `{}` calls itself `{}`", spec.name, plugin.name()),
                "register it under its own name".to_owned(),
            ));
        }
        let declaration = plugin.declares();
        let found: Vec<_> = declaration
            .objections(slots)
            .into_iter()
            .map(|reason| PluginProblem {
                place: spec.place.clone(),
                message: format!("plugin `{}` is not let in: {reason}", spec.name),
                hint: "a plugin may change ordinary headers only".to_owned(),
            })
            .collect();
        if found.is_empty() { Ok(Self { name: plugin.name(), declaration, plugin }) } else { Err(found) }
    }

    /// Calls a hook. A panic is a fault of the plugin, never the end of the worker.
    fn guarded(&self, hook: impl FnOnce(&dyn Plugin) -> Verdict) -> Result<Verdict, ChainStop> {
        // What a panicking hook leaves half-changed is thrown away with the request, so nothing unwound is used.
        catch_unwind(AssertUnwindSafe(|| hook(self.plugin.as_ref())))
            .map_err(|_panic| ChainStop::Fault { plugin: self.name })
    }

    /// A broken word outweighs any verdict: the plugin cannot be trusted about this request.
    fn judge(&self, verdict: Verdict, broke_its_word: bool) -> Result<(), ChainStop> {
        if broke_its_word {
            return Err(ChainStop::Fault { plugin: self.name });
        }
        match verdict {
            Verdict::Continue => Ok(()),
            Verdict::Refuse(refusal) => Err(ChainStop::Refused { plugin: self.name, code: refusal.code }),
        }
    }
}

#[cfg(test)]
mod tests;
