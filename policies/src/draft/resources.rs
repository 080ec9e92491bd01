//! `[[resources]]`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::{Draft, DraftResource, NAME, SCOPE, at_most, checked, checked_all, health, tls};
use crate::operations::{Operation, OperationMethod, Operations, TemplateProblem, check_template};
use crate::read::{Placed, PlacedName, Section};
use crate::report::{Place, Problem, shortened};
use crate::resource::{Enforcement, ErrorFormat, PluginSpec, Resource, ResourceLimits, UpstreamProtocol};
use crate::upstream::{Target, Upstream};
use crate::{limits, names};

/// Keys of one table of `resources`.
pub(crate) const KEYS: [&str; 21] = [
    "identifier",
    "id",
    "upstream_url",
    "targets",
    "scopes",
    "credential_provider",
    "operation_enforcement",
    "operations",
    "mcp",
    "guards",
    "hosts",
    "prefixes",
    "plugins",
    "reusable_mandates",
    "query_key_slots",
    "cookies",
    "limits",
    "tls",
    "health_check",
    "upstream_protocol",
    "error_format",
];
/// Keys of one table of `operations`.
pub(crate) const OPERATION_KEYS: [&str; 3] = ["method", "path", "scope"];
/// Keys of `limits`.
pub(crate) const LIMIT_KEYS: [&str; 8] = [
    "max_request_bytes",
    "connect_timeout_ms",
    "response_timeout_ms",
    "idle_timeout_ms",
    "max_stream_seconds",
    "max_concurrent",
    "max_waiting",
    "max_wait_ms",
];

const ENFORCEMENTS: [(&str, Enforcement); 2] =
    [("enforced", Enforcement::Enforced), ("transport_uniform", Enforcement::TransportUniform)];
const PROTOCOLS: [(&str, UpstreamProtocol); 3] = [
    ("http1", UpstreamProtocol::Http1),
    ("http2", UpstreamProtocol::Http2),
    ("auto", UpstreamProtocol::Auto),
];
const ERROR_FORMATS: [(&str, ErrorFormat); 2] =
    [("caracal", ErrorFormat::Caracal), ("object", ErrorFormat::Object)];

impl Draft {
    pub(super) fn read_resources(&mut self, document: &Section<'_>) {
        for mut section in document.sections("resources", "a resource") {
            section.only(&KEYS);
            let identifier = section.needed_text("identifier");
            let identifier =
                identifier.and_then(|text| checked(&section, "identifier", text, names::is_name, NAME));
            if let Some(identifier) = &identifier {
                section.named(format!("resource `{}`", identifier.value));
            }
            let Some(identifier) = identifier else { continue };
            self.resources.push(read_resource(&section, identifier));
        }
    }
}

fn read_resource(section: &Section<'_>, identifier: PlacedName) -> DraftResource {
    let id = section.text("id").and_then(|id| checked(section, "id", id, names::is_name, NAME));
    let id = id.unwrap_or_else(|| identifier.clone());
    let mut scopes = match section.needed("scopes") {
        Some(_) => checked_all(section, "scopes", names::is_scope, SCOPE),
        None => Vec::new(),
    };
    scopes.sort_unstable_by(|a, b| a.value.cmp(&b.value));
    at_most(section, "scopes", scopes.len(), limits::SCOPES);
    let operations = read_operations(section);
    at_most(section, "operations", operations.len(), limits::OPERATIONS);
    let provider = section.text("credential_provider");
    let provider =
        provider.and_then(|text| checked(section, "credential_provider", text, names::is_name, NAME));
    let hosts = checked_all(section, "hosts", names::is_host, "a lower-case host name without port");
    let prefixes = checked_all(section, "prefixes", is_prefix, PREFIX);
    let mcp = super::mcp::read(section);
    let guards = super::guards::read(section);
    let asks = super::guards::asks(&guards);
    let enforcement = section.word("operation_enforcement", &ENFORCEMENTS).unwrap_or_default();
    let cookies = checked_all(section, "cookies", names::is_token, "a cookie name");
    let upstream = read_upstream(section);
    let tls = tls::read(section, upstream.as_ref());
    let resource = Resource {
        id: Arc::clone(&id.value),
        identifier: Arc::clone(&identifier.value),
        // INVARIANT: without an upstream a problem was reported, so this resource is never used.
        upstream: match upstream {
            Some(upstream) => upstream,
            None => {
                return DraftResource {
                    identifier,
                    id,
                    provider,
                    scopes,
                    operations,
                    mcp,
                    guards,
                    asks,
                    hosts,
                    prefixes,
                    resource: None,
                };
            }
        },
        targets: read_targets(section),
        scopes: Vec::new(),
        provider: None,
        enforcement,
        operations: Operations::default(),
        mcp: None,
        guards: None,
        hosts: Vec::new(),
        prefixes: Vec::new(),
        plugins: read_plugins(section),
        reusable_mandates: section.flag("reusable_mandates"),
        query_key_slots: section.flag("query_key_slots"),
        cookies: cookies.into_iter().map(|cookie| cookie.value.to_string()).collect(),
        limits: read_limits(section),
        tls,
        health_check: health::read(section),
        protocol: section.word("upstream_protocol", &PROTOCOLS).unwrap_or_default(),
        error_format: section.word("error_format", &ERROR_FORMATS).unwrap_or_default(),
        place: identifier.place.clone(),
    };
    DraftResource {
        identifier,
        id,
        provider,
        scopes,
        operations,
        mcp,
        guards,
        asks,
        hosts,
        prefixes,
        resource: Some(resource),
    }
}

pub(super) const PREFIX: &str = "`/` or `/name`, without trailing slash, empty, dot or encoded segments";

/// Prefixes are compared with the bytes of a request, so they hold nothing that can be written two ways.
pub(super) fn is_prefix(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('/') else { return false };
    let plain = |segment: &str| {
        !segment.is_empty()
            && segment != "."
            && segment != ".."
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte))
    };
    text.len() <= limits::NAME_BYTES && (inner.is_empty() || inner.split('/').all(plain))
}

fn read_upstream(section: &Section<'_>) -> Option<Upstream> {
    let text = section.needed_text("upstream_url")?;
    match Upstream::parse(text.value) {
        Ok(upstream) => Some(upstream),
        Err(expected) => {
            section.report(
                Problem::new(
                    "upstream_url",
                    &text.place,
                    format!("`upstream_url` of {} cannot be used", section.what()),
                )
                .found("a URL in another form, not shown here")
                .expected(expected)
                .hint("write it as `https://host[:port][/path]`"),
            );
            None
        }
    }
}

fn read_targets(section: &Section<'_>) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    for text in section.texts("targets") {
        let (found, expected) = match Target::parse(text.value) {
            Ok(target) if !targets.contains(&target) => {
                targets.push(target);
                continue;
            }
            Ok(target) => (format!("`{target}`, a second time"), "each target once"),
            Err(expected) => ("a text in another form, not shown here".to_owned(), expected),
        };
        section.report(
            Problem::new("target", &text.place, format!("a target of {} cannot be used", section.what()))
                .found(found)
                .expected(expected)
                .hint("scheme, path and query are those of `upstream_url`"),
        );
    }
    at_most(section, "targets", targets.len(), limits::TARGETS);
    targets
}

fn read_operations(section: &Section<'_>) -> Vec<(Operation, Place)> {
    section
        .sections("operations", "an operation")
        .into_iter()
        .filter_map(|mut operation| {
            operation.named(format!("an operation of {}", section.what()));
            operation.only(&OPERATION_KEYS);
            let method = operation.needed_text("method");
            let path = operation.needed_text("path");
            let scope = operation.needed_text("scope");
            let method = method.and_then(|text| read_method(&operation, &text));
            let path = path.and_then(|text| read_template(&operation, &text));
            let scope = scope.and_then(|text| checked(&operation, "scope", text, names::is_scope, SCOPE));
            let (Some(method), Some(path), Some(scope)) = (method, path, scope) else { return None };
            let place = operation.place().clone();
            Some((Operation { method, path, scope: scope.value, place }, scope.place))
        })
        .collect()
}

fn read_method(section: &Section<'_>, text: &Placed<&str>) -> Option<OperationMethod> {
    if text.value == "*" {
        return Some(OperationMethod::Any);
    }
    let upper = !text.value.bytes().any(|byte| byte.is_ascii_lowercase());
    let never = ["TRACE", "TRACK", "CONNECT"].contains(&text.value);
    if names::is_token(text.value) && upper && !never {
        return Some(OperationMethod::Named(text.value.into()));
    }
    section.report(
        Problem::new(
            "operation_method",
            &text.place,
            format!("`method` of {} cannot be used", section.what()),
        )
        .found(format!("`{}`", shortened(text.value)))
        .expected("a method in upper case, or `*`")
        .hint(if never {
            "this method is refused on every resource"
        } else {
            "methods are case-sensitive"
        }),
    );
    None
}

fn read_template(section: &Section<'_>, text: &Placed<&str>) -> Option<Box<str>> {
    let problem = match check_template(text.value) {
        Ok(()) => return Some(text.value.into()),
        Err(problem) => problem,
    };
    let hint = match problem {
        TemplateProblem::Path(problem) => problem.to_string(),
        TemplateProblem::Mixed => {
            "a placeholder takes a whole segment: `{name}`, or `**` at the end".to_owned()
        }
        TemplateProblem::RestNotLast => "`**` can only stand at the end".to_owned(),
        TemplateProblem::EncodedTwice => "encode each character once".to_owned(),
        TemplateProblem::TooLong => format!("use at most {} segments", limits::TEMPLATE_SEGMENTS),
    };
    section.report(
        Problem::new("operation_path", &text.place, format!("`path` of {} cannot be used", section.what()))
            .found(format!("`{}`", shortened(text.value)))
            .expected("literal segments, `{name}` for one segment, `/**` at the end for the rest")
            .hint(hint),
    );
    None
}

fn read_plugins(section: &Section<'_>) -> Vec<PluginSpec> {
    let Some(entry) = section.entry("plugins") else { return Vec::new() };
    entry
        .items("plugins", "an array of tables")
        .into_iter()
        .filter_map(|item| {
            let plugin = item.section("plugins", format!("a plugin of {}", section.what()).into())?;
            let name = plugin.needed_text("name")?;
            let name = checked(&plugin, "name", name, names::is_name, NAME)?;
            let mut config = toml::Table::new();
            for (key, value) in plugin.entries().filter(|(key, _)| key.value != "name") {
                config.insert(key.value.to_owned(), value.plain()?);
            }
            Some(PluginSpec { name: name.value.to_string(), config, place: name.place })
        })
        .collect()
}

fn read_limits(section: &Section<'_>) -> ResourceLimits {
    let mut read = ResourceLimits::default();
    let Some(entry) = section.entry("limits") else { return read };
    let what = format!("`limits` of {}", section.what());
    let Some(section) = entry.section("limits", what.into()) else { return read };
    section.only(&LIMIT_KEYS);
    if let Some(bytes) = section.number("max_request_bytes", 0..=GIB) {
        read.max_request_bytes = bytes;
    }
    let milliseconds = |key: &str, range: RangeInclusive<u64>, limit: &mut Duration| {
        if let Some(milliseconds) = section.number(key, range) {
            *limit = Duration::from_millis(milliseconds);
        }
    };
    milliseconds("connect_timeout_ms", 1..=60_000, &mut read.connect_timeout);
    milliseconds("response_timeout_ms", 1..=HOUR_MS, &mut read.response_timeout);
    milliseconds("idle_timeout_ms", 1..=HOUR_MS, &mut read.idle_timeout);
    if let Some(seconds) = section.number("max_stream_seconds", 1..=DAY_S) {
        read.max_stream = Duration::from_secs(seconds);
    }
    if let Some(most) = section.number("max_concurrent", 1..=1_000_000) {
        read.max_concurrent = u32::try_from(most).unwrap_or(read.max_concurrent);
    }
    if let Some(most) = section.number("max_waiting", 0..=100_000) {
        read.max_waiting = u32::try_from(most).unwrap_or(read.max_waiting);
    }
    milliseconds("max_wait_ms", 1..=60_000, &mut read.max_wait);
    read
}

const GIB: u64 = 1024 * 1024 * 1024;
const HOUR_MS: u64 = 3_600_000;
const DAY_S: u64 = 86_400;
