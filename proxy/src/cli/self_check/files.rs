//! The files of the throw-away edge: the providers as they are in the bundles, with secrets that are made up.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use caracal_policies::{KeySlot, Provider, ProviderKind};
use uuid::Uuid;

use super::Probe;

/// The application that calls, and its role.
pub(super) const APPLICATION: &str = "self-check";
/// What it may do.
pub(super) const SCOPE: &str = "probe:read";

/// A folder that is gone when this is dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("caracal-{}", Uuid::new_v4().simple()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn put(&self, name: &str, text: &str) -> io::Result<()> {
        let path = self.0.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind is made up.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// The zone of a probe: one for each, so that no limit of a zone is met that the bundles do not meet.
pub(super) fn zone(number: usize) -> String {
    format!("probe-{number}")
}

/// The resource of a probe.
pub(super) const RESOURCE: &str = "resource://probe";

pub(super) fn config(issuer: SocketAddr, probes: usize) -> String {
    let zones: String = (0..probes).map(|number| format!("[zones.{}]\n", zone(number))).collect();
    format!(
        "schema = 1\nissuer = \"http://{issuer}\"\nstate_dir = \"state\"\nbundles_dir = \"bundles\"\n\
         shutdown_deadline_seconds = 2\n{zones}"
    )
}

pub(super) fn secrets(values: &[String], upstream: SocketAddr) -> String {
    let entries = values.iter().enumerate().map(|(number, value)| {
        let zone = zone(number);
        format!("[secrets.p{number}]\nzones = [\"{zone}\"]\nhosts = [\"{upstream}\"]\nvalue = \"{value}\"\n")
    });
    format!("schema = 1\n{}", entries.collect::<String>())
}

pub(super) fn bundle(number: usize, probe: &Probe, hash: &str, upstream: SocketAddr) -> String {
    let zone = zone(number);
    let (provider, named) = match &probe.provider {
        None => (String::new(), ""),
        Some(provider) => (table(number, provider), "credential_provider = \"provider://probe\"\n"),
    };
    format!(
        "schema = 1\n[zone]\nid = \"{zone}\"\nname = \"Self-check\"\n\
         [[applications]]\nid = \"{APPLICATION}\"\nname = \"Self-check\"\nsecrets = [\"{hash}\"]\n{provider}\
         [[resources]]\nidentifier = \"{RESOURCE}\"\nupstream_url = \"http://{upstream}\"\n\
         scopes = [\"{SCOPE}\"]\nquery_key_slots = {}\n{named}\
         operations = [{{ method = \"GET\", path = \"/probe\", scope = \"{SCOPE}\" }}]\n\
         [app_ids]\nprobe = \"{APPLICATION}\"\n\
         [grants.\"{RESOURCE}\"]\napplication = \"probe\"\nroles = {{ {APPLICATION} = [\"{SCOPE}\"] }}\n",
        probe.query_key_slots
    )
}

/// A `[[providers]]` table that says what the compiled provider was read from.
fn table(number: usize, provider: &Provider) -> String {
    let text = |text: &str| toml::Value::from(text).to_string();
    let (kind, secret) = match &provider.kind {
        ProviderKind::None | ProviderKind::ServiceToken(_) => ("kind = \"none\"\n".to_owned(), false),
        ProviderKind::CaracalMandate => ("kind = \"caracal_mandate\"\n".to_owned(), false),
        ProviderKind::ApiKeyHeader { name, scheme } => {
            let scheme = scheme.as_ref().map(|scheme| format!("auth_scheme = {}\n", text(scheme)));
            let scheme = scheme.unwrap_or_default();
            (
                format!("kind = \"api_key\"\nlocation = \"header\"\nheader_name = {}\n{scheme}", text(name)),
                true,
            )
        }
        ProviderKind::ApiKeyQuery { param } => {
            (format!("kind = \"api_key\"\nlocation = \"query\"\nquery_param_name = {}\n", text(param)), true)
        }
        ProviderKind::BearerToken { header, scheme } => {
            let (header, scheme) = (text(header), text(scheme));
            (format!("kind = \"bearer_token\"\nauth_header = {header}\nauth_scheme = {scheme}\n"), true)
        }
        ProviderKind::HttpBasic { username } => {
            (format!("kind = \"http_basic\"\nusername = {}\n", text(username)), true)
        }
    };
    let secret = if secret { format!("secret = \"secret://p{number}/value\"\n") } else { String::new() };
    let slot = |slot: &KeySlot| match slot {
        KeySlot::Header(name) => format!("{{ header = {} }}", text(name)),
        KeySlot::Bearer(name) => format!("{{ bearer = {} }}", text(name)),
        KeySlot::BasicUser => "{ basic = \"user\" }".to_owned(),
        KeySlot::BasicPassword => "{ basic = \"password\" }".to_owned(),
        KeySlot::Query(name) => format!("{{ query = {} }}", text(name)),
    };
    let slots: Vec<String> = provider.key_slots.iter().map(slot).collect();
    format!(
        "[[providers]]\nidentifier = \"provider://probe\"\n{kind}{secret}forward_caracal_identity = {}\nkey_slots = [{}]\n",
        provider.forward_caracal_identity,
        slots.join(", ")
    )
}
