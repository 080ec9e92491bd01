//! `response_scrub`: an upstream that echoes the injected credential in a header does not leak it.

use std::sync::Arc;

use serde::Deserialize;

use crate::{Declaration, Phase, Plugin, ScrubView, Verdict};

pub(crate) const NAME: &str = "response_scrub";

/// Builds it. It has no settings.
pub(crate) fn make(table: &toml::Table) -> Result<Arc<dyn Plugin>, String> {
    let Settings {} = Settings::deserialize(table.clone()).map_err(|error| error.message().to_owned())?;
    Ok(Arc::new(ResponseScrub))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {}

#[derive(Debug)]
struct ResponseScrub;

impl Plugin for ResponseScrub {
    fn name(&self) -> &'static str {
        NAME
    }

    fn declares(&self) -> Declaration {
        Declaration { phases: vec![Phase::Scrub], ..Declaration::default() }
    }

    fn on_scrub(&self, view: &mut ScrubView<'_>) -> Verdict {
        view.scrub();
        Verdict::Continue
    }
}
