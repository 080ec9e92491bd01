//! `health_check` of a resource.

use std::time::Duration;

use super::checked;
use crate::limits;
use crate::read::Section;
use crate::resource::HealthCheck;

/// Keys of `health_check`.
pub(crate) const KEYS: [&str; 5] = ["path", "interval_ms", "timeout_ms", "healthy_after", "unhealthy_after"];

/// Reads how the places of a resource's upstream are looked at.
pub(super) fn read(resource: &Section<'_>) -> Option<HealthCheck> {
    let entry = resource.entry("health_check")?;
    let section = entry.section("health_check", format!("`health_check` of {}", resource.what()).into())?;
    section.only(&KEYS);
    let target = section.needed_text("path")?;
    let target = checked(&section, "path", target, is_target, "a path and perhaps a query, `/healthz`")?;
    let milliseconds = |key: &str, least: u64, most: u64, default: u64| {
        Duration::from_millis(section.number(key, least..=most).unwrap_or(default))
    };
    let times = |key: &str, default: u32| {
        let read = section.number(key, 1..=100).and_then(|times| u32::try_from(times).ok());
        read.unwrap_or(default)
    };
    Some(HealthCheck {
        target: target.value,
        interval: milliseconds("interval_ms", 100, 3_600_000, 5_000),
        timeout: milliseconds("timeout_ms", 1, 60_000, 1_000),
        healthy_after: times("healthy_after", 1),
        unhealthy_after: times("unhealthy_after", 2),
    })
}

fn is_target(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= limits::NAME_BYTES
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}
