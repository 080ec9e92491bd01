//! `headers`: sets and removes fixed headers on the way in and on the way out.
//!
//! ```toml
//! plugins = [ { name = "headers", request_set = { "X-Team" = "payments" }, response_remove = ["Via"] } ]
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use crate::{Declaration, Phase, Plugin, RequestView, ResponseView, Verdict};

pub(crate) const NAME: &str = "headers";

/// Builds it from its table, every name and value checked.
pub(crate) fn make(table: &toml::Table) -> Result<Arc<dyn Plugin>, String> {
    let file = FileSettings::deserialize(table.clone()).map_err(|error| error.message().to_owned())?;
    let request = Changes::checked("request", &file.request_set, &file.request_remove)?;
    let response = Changes::checked("response", &file.response_set, &file.response_remove)?;
    if request.is_empty() && response.is_empty() {
        return Err("it neither sets nor removes anything".to_owned());
    }
    Ok(Arc::new(Headers { request, response }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct FileSettings {
    request_set: BTreeMap<String, String>,
    request_remove: Vec<String>,
    response_set: BTreeMap<String, String>,
    response_remove: Vec<String>,
}

#[derive(Debug)]
struct Headers {
    request: Changes,
    response: Changes,
}

impl Plugin for Headers {
    fn name(&self) -> &'static str {
        NAME
    }

    fn declares(&self) -> Declaration {
        let mut phases = Vec::new();
        if !self.request.is_empty() {
            phases.push(Phase::Request);
        }
        if !self.response.is_empty() {
            phases.push(Phase::Response);
        }
        Declaration {
            phases,
            request_headers: self.request.names(),
            response_headers: self.response.names(),
            ..Declaration::default()
        }
    }

    fn on_request(&self, view: &mut RequestView<'_>) -> Verdict {
        for name in &self.request.remove {
            view.remove_header(name.as_str());
        }
        for (name, value) in &self.request.set {
            view.set_header(name.as_str(), value);
        }
        Verdict::Continue
    }

    fn on_response(&self, view: &mut ResponseView<'_>) -> Verdict {
        for name in &self.response.remove {
            view.remove_header(name.as_str());
        }
        for (name, value) in &self.response.set {
            view.set_header(name.as_str(), value);
        }
        Verdict::Continue
    }
}

/// The changes of one direction. No header is both set and removed.
#[derive(Debug)]
struct Changes {
    set: Vec<(HeaderName, String)>,
    remove: Vec<HeaderName>,
}

impl Changes {
    fn checked(direction: &str, set: &BTreeMap<String, String>, remove: &[String]) -> Result<Self, String> {
        let mut changes = Self { set: Vec::new(), remove: Vec::new() };
        for name in remove {
            changes.remove.push(header_name(name)?);
        }
        for (name, value) in set {
            let header = header_name(name)?;
            HeaderValue::from_str(value)
                .map_err(|_invalid| format!("the value of `{name}` cannot stand in a header"))?;
            if changes.names().contains(&header) {
                return Err(format!(
                    "`{direction}_set` and `{direction}_remove` name `{name}` more than once"
                ));
            }
            changes.set.push((header, value.clone()));
        }
        Ok(changes)
    }

    fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    fn names(&self) -> Vec<HeaderName> {
        self.remove.iter().chain(self.set.iter().map(|(name, _)| name)).cloned().collect()
    }
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_invalid| format!("`{name}` is not a header name"))
}
