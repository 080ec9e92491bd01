//! `response_scrub`: an upstream that echoes the injected credential does not leak it.
//!
//! Heads are searched by the edge itself, for every resource. With `bodies = true` bodies are too.

use std::sync::Arc;

use serde::Deserialize;

use crate::{Declaration, Phase, Plugin, ScrubView, Verdict};

pub(crate) const NAME: &str = "response_scrub";

/// Builds it.
pub(crate) fn make(table: &toml::Table) -> Result<Arc<dyn Plugin>, String> {
    let Settings { bodies } =
        Settings::deserialize(table.clone()).map_err(|error| error.message().to_owned())?;
    Ok(Arc::new(ResponseScrub { bodies }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    bodies: bool,
}

#[derive(Debug)]
struct ResponseScrub {
    bodies: bool,
}

impl Plugin for ResponseScrub {
    fn name(&self) -> &'static str {
        NAME
    }

    fn declares(&self) -> Declaration {
        Declaration { phases: vec![Phase::Scrub], scrubs_bodies: self.bodies, ..Declaration::default() }
    }

    fn on_scrub(&self, view: &mut ScrubView<'_>) -> Verdict {
        view.scrub();
        Verdict::Continue
    }
}
