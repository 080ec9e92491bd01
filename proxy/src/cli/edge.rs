//! Finding the edge: its configuration, its control socket, and what an application needs to call it.

use std::path::{Path, PathBuf};

use caracal_policies::{Report, Zone, compile};
use serde_json::Value;

use super::Global;
use super::exit::{Exit, Failed};
use crate::bundles;
use crate::config::{self, Config, Listener};
use crate::control::{self, ApplicationView, ControlError, Endpoints, Request, base_url};

/// Asks the running edge.
pub(super) async fn ask(global: &Global, request: &Request) -> Result<Value, Failed> {
    let socket = control::socket_path(&state_dir(global)?);
    Ok(control::call(&socket, request).await?)
}

/// Reads and checks the configuration.
pub(super) fn load(global: &Global) -> Result<Config, Failed> {
    let config = config::load(global.config())?;
    match &global.state_dir {
        Some(state_dir) => Ok(Config { state_dir: state_dir.clone(), ..config }),
        None => Ok(config),
    }
}

/// The state folder of the edge that is meant.
///
/// A stop must not wait for somebody to find a typo: for this, a configuration that does not check is enough.
pub(super) fn state_dir(global: &Global) -> Result<PathBuf, Failed> {
    if let Some(state_dir) = &global.state_dir {
        return Ok(state_dir.clone());
    }
    match config::load(global.config()) {
        Ok(config) => Ok(config.state_dir),
        Err(report) => state_dir_at_least(global.config()).ok_or_else(|| lost(global.config(), &report)),
    }
}

fn state_dir_at_least(path: &Path) -> Option<PathBuf> {
    let table: toml::Table = std::fs::read_to_string(path).ok()?.parse().ok()?;
    let named = table.get("state_dir").map_or(Some("state"), toml::Value::as_str)?;
    Some(path.parent()?.join(named))
}

fn lost(path: &Path, report: &Report) -> Failed {
    Failed::Said(
        Exit::BadConfiguration,
        format!(
            "`{}` does not say where the edge keeps its state; name the configuration with --config, \
             or the folder with --state-dir\n\n{report}",
            path.display()
        ),
    )
}

/// What an application needs to know: from the running edge, else from the files it would read.
pub(super) async fn application(
    global: &Global,
    zone: Option<&str>,
    application: &str,
) -> Result<ApplicationView, Failed> {
    let request = Request::Application { zone: zone.map(str::to_owned), application: application.to_owned() };
    let socket = control::socket_path(&state_dir(global)?);
    match control::call(&socket, &request).await {
        Ok(view) => serde_json::from_value(view)
            .map_err(|error| Failed::because("the running edge is of another version", &error)),
        Err(ControlError::NotRunning { .. }) => from_files(global, zone, application),
        Err(error) => Err(error.into()),
    }
}

fn from_files(global: &Global, zone: Option<&str>, application: &str) -> Result<ApplicationView, Failed> {
    let config = load(global)?;
    let mut zones: Vec<Zone> = Vec::new();
    for (id, assigned) in config.zones.iter().filter(|(id, _)| zone.is_none_or(|zone| zone == *id)) {
        zones.push(compile(&bundles::read(&config.bundles_dir, &config.base, id)?, id, assigned)?);
    }
    ApplicationView::find(endpoints(&config), zones.iter(), zone, application)
        .map_err(|failure| Failed::new(failure.message))
}

fn endpoints(config: &Config) -> Endpoints {
    let url = |listener: &Listener| base_url(listener.address, listener.tls.is_some());
    Endpoints {
        issuer: config.issuer.clone(),
        coordinator: url(&config.listeners.coordinator),
        gateway: url(&config.listeners.gateway),
    }
}
