//! `caracal self-check`: proof on loopback that the caller's token does not pass and the credential does.
//!
//! A throw-away edge is started with the providers of the configuration, made-up secrets, and one upstream that writes
//! down what reaches it. Then each provider is called the way an application calls, its mandate in every slot.

mod files;
mod judge;
mod site;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use caracal_plugins::Registry;
use caracal_policies::{Provider, ProviderKind, Zone};
use serde_json::{Value, json};

use super::exit::Failed;
use super::out::{Out, Style};
use super::{Exit, Global, edge};
use crate::reload;
use site::Site;

pub(super) const HELP: &str = "\
Starts an edge of its own on loopback, with the providers of your bundles, made-up secrets and an
upstream that writes down what it gets. Each provider is called with the caller's mandate in every
place where a client of it may carry a key. It is well when the mandate reached the upstream nowhere
and the credential is exactly where the provider says. Nothing else is dialled, no secret of yours is
sent, and a running edge is not touched.

  caracal self-check --config caracal.toml && caracal serve --config caracal.toml

A provider that fetches access tokens is skipped: `caracal providers test` tries those.

Exit codes: 0 all as it should be, 1 something is not, 64 bad configuration.";

/// A provider to try, and how many resources use it.
#[derive(Debug)]
struct Probe {
    zone: String,
    /// Nothing where a resource names no provider: its upstream gets a mandate of ours.
    provider: Option<Arc<Provider>>,
    resources: usize,
    /// Whether a resource lets the mandate stand in the query.
    query_key_slots: bool,
}

/// What came of a probe.
#[derive(Debug)]
enum Outcome {
    Tried(Vec<String>),
    Skipped(&'static str),
}

pub(super) async fn run(global: &Global, out: &mut Out, plugins: &Registry) -> Result<Exit, Failed> {
    let config = edge::load(global)?;
    let probes = probes(&reload::check(&config, plugins)?);
    let site = Site::start(&probes).await?;
    let mut outcomes = Vec::new();
    for (number, probe) in probes.iter().enumerate() {
        outcomes.push(match probe.skipped() {
            Some(why) => Outcome::Skipped(why),
            None => Outcome::Tried(site.try_one(number, probe, out).await?),
        });
    }
    site.stop().await?;
    tell(global, &probes, &outcomes, out)
}

/// The providers that are in use, by zone and name.
fn probes(zones: &BTreeMap<String, Arc<Zone>>) -> Vec<Probe> {
    let mut found: BTreeMap<(String, String), Probe> = BTreeMap::new();
    for (zone, compiled) in zones {
        for resource in compiled.resources() {
            let name = resource.provider.as_ref().map_or("", |provider| &provider.identifier);
            let probe = found.entry((zone.clone(), name.to_owned())).or_insert_with(|| Probe {
                zone: zone.clone(),
                provider: resource.provider.clone(),
                resources: 0,
                query_key_slots: false,
            });
            probe.resources = probe.resources.saturating_add(1);
            probe.query_key_slots |= resource.query_key_slots;
        }
    }
    found.into_values().collect()
}

impl Probe {
    fn name(&self) -> &str {
        self.provider.as_ref().map_or("(none named)", |provider| &provider.identifier)
    }

    /// The kind as a bundle writes it.
    fn kind(&self) -> &'static str {
        match self.provider.as_ref().map(|provider| &provider.kind) {
            None | Some(ProviderKind::CaracalMandate) => "caracal_mandate",
            Some(ProviderKind::None) => "none",
            Some(ProviderKind::ApiKeyHeader { .. } | ProviderKind::ApiKeyQuery { .. }) => "api_key",
            Some(ProviderKind::BearerToken { .. }) => "bearer_token",
            Some(ProviderKind::HttpBasic { .. }) => "http_basic",
            Some(ProviderKind::ServiceToken(_)) => "oauth2",
        }
    }

    fn skipped(&self) -> Option<&'static str> {
        (self.kind() == "oauth2").then_some("fetches its token; try it with `caracal providers test`")
    }
}

fn tell(global: &Global, probes: &[Probe], outcomes: &[Outcome], out: &mut Out) -> Result<Exit, Failed> {
    let failed = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Tried(wrong) if !wrong.is_empty()));
    let exit = if failed { Exit::Failed } else { Exit::Done };
    let rows = || probes.iter().zip(outcomes);
    if global.json {
        let providers: Vec<Value> = rows()
            .map(|(probe, outcome)| {
                let (result, details) = match outcome {
                    Outcome::Tried(wrong) if wrong.is_empty() => ("ok", Vec::new()),
                    Outcome::Tried(wrong) => ("failed", wrong.clone()),
                    Outcome::Skipped(why) => ("skipped", vec![(*why).to_owned()]),
                };
                json!({
                    "zone": probe.zone, "provider": probe.provider.as_ref().map(|provider| &provider.identifier),
                    "kind": probe.kind(), "resources": probe.resources, "result": result, "details": details,
                })
            })
            .collect();
        out.value(&json!({ "ok": !failed, "providers": providers }), true)?;
        return Ok(exit);
    }
    let width = |of: fn(&Probe) -> &str| probes.iter().map(|probe| of(probe).len()).max().unwrap_or(0);
    let (zones, names, kinds) = (width(|probe| &probe.zone), width(Probe::name), width(|probe| probe.kind()));
    for (probe, outcome) in rows() {
        let (verdict, details) = match outcome {
            Outcome::Tried(wrong) if wrong.is_empty() => (out.paint(Style::Good, "ok"), &wrong[..]),
            Outcome::Tried(wrong) => (out.paint(Style::Bad, "FAILED"), &wrong[..]),
            Outcome::Skipped(why) => (format!("skipped: {why}"), &[][..]),
        };
        let (zone, name, kind) = (&probe.zone, probe.name(), probe.kind());
        out.line(&format!("{zone:zones$}  {name:names$}  {kind:kinds$}  {verdict}"))?;
        for wrong in details {
            out.line(&format!("    {wrong}"))?;
        }
    }
    let verdict = if failed {
        out.paint(Style::Bad, "the edge does not do what its providers say; do not serve with it")
    } else {
        out.paint(Style::Good, "no caller's token passes, and each credential is in its place")
    };
    out.line(&verdict)?;
    Ok(exit)
}
