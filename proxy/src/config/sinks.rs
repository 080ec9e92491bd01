//! `[zones.<id>.sinks.<name>]`: who is told what happens to approvals, checked.

use std::collections::BTreeMap;

use caracal_policies::{EndpointUrl, SecretRef};

use super::SinkConfig;
use super::checked::Checker;
use super::file::{FileSink, FileZone};

/// Sinks of one zone. Source: spec 6.7.
const MOST: usize = 20;
/// Bytes of a name. Source: spec 6.8.
const MOST_NAME: usize = 120;
/// What the type of every event of an approval begins with.
pub(crate) const EVENTS: &str = "step_up_";

impl Checker<'_> {
    pub(super) fn sinks(&mut self, zones: &BTreeMap<String, FileZone>) -> Vec<SinkConfig> {
        let mut checked = Vec::new();
        for (zone, file) in zones {
            if file.sinks.len() > MOST {
                self.add(
                    "sink_limit_reached",
                    &["zones", zone, "sinks"],
                    "the zone has too many sinks",
                    file.sinks.len().to_string(),
                    "at most 20 sinks",
                    "let one receiver pass on what it gets",
                );
            }
            checked.extend(file.sinks.iter().filter_map(|(name, sink)| self.sink(zone, name, sink)));
        }
        checked
    }

    fn sink(&mut self, zone: &str, name: &str, file: &FileSink) -> Option<SinkConfig> {
        let path = |key| ["zones", zone, "sinks", name, key];
        if !usable_name(name) {
            self.add(
                "sink_name",
                &["zones", zone, "sinks", name],
                "this name cannot be used for a sink",
                format!("`{name}`"),
                "1 to 120 letters, digits, `-`, `_` or `.`, beginning with a letter or digit",
                "the name stands in a header of every delivery",
            );
        }
        for event in &file.events {
            if !event.starts_with(EVENTS) || !event.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                self.add(
                    "sink_event",
                    &path("events"),
                    "sinks are not told of such events",
                    format!("\"{event}\""),
                    "types that begin with `step_up_`, such as \"step_up_issued\"",
                    "leave `events` out for all of them",
                );
            }
        }
        let url = EndpointUrl::parse(&file.url).map_err(|expected| {
            // The URL may hold a password, so it is not repeated.
            let hint = "use the receiver's https URL; what it needs to know stands in the body";
            let message = "this is no URL of a sink";
            self.add("invalid_sink_url", &path("url"), message, String::new(), expected, hint);
        });
        let secret = self.sink_secret(&path("secret"), &file.secret);
        let (zone, name, events) = (zone.to_owned(), name.to_owned(), file.events.clone());
        Some(SinkConfig { zone, name, url: url.ok()?, secret: secret?, events })
    }

    fn sink_secret(&mut self, path: &[&str], text: &str) -> Option<SecretRef> {
        let parts = text.strip_prefix("secret://").and_then(|rest| rest.split_once('/'));
        let parts = parts.filter(|(name, key)| usable_name(name) && usable_name(key));
        let Some((name, key)) = parts else {
            // Somebody may have written the secret itself here.
            self.add(
                "sink_secret",
                path,
                "this is no reference to a secret",
                String::new(),
                "`secret://<name>/<key>`, where <name> is a table of the secrets file",
                "write the secret into the secrets file and refer to it",
            );
            return None;
        };
        let place = self.document.place_of(path);
        Some(SecretRef { name: name.to_owned(), key: key.to_owned(), place })
    }
}

fn usable_name(name: &str) -> bool {
    name.len() <= MOST_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::parse;

    const GOOD: &str = "url = \"https://hooks.example/caracal\"\nsecret = \"secret://hooks/key\"\n";

    fn codes(sinks: &str) -> Vec<&'static str> {
        let text = format!("schema = 1\n[zones.z]\n{sinks}");
        match parse("caracal.toml", &text, Path::new(".")) {
            Ok(_) => Vec::new(),
            Err(report) => {
                assert!(!report.to_string().contains("hunter2"), "{report}");
                report.problems.iter().map(|problem| problem.code).collect()
            }
        }
    }

    #[test]
    fn a_sink_has_a_name_a_url_and_a_secret() {
        let config = parse(
            "caracal.toml",
            &format!("schema = 1\n[zones.z.sinks.ops]\n{GOOD}events = [\"step_up_issued\"]\n"),
            Path::new("."),
        )
        .unwrap();
        let [sink] = &*config.sinks else { panic!("{:?}", config.sinks) };
        assert_eq!((&*sink.zone, &*sink.name, &**sink.url.host()), ("z", "ops", "hooks.example"));
        assert_eq!((&*sink.secret.name, &*sink.secret.key, sink.secret.place.line), ("hooks", "key", 4));
        assert_eq!(sink.events, ["step_up_issued"]);
    }

    #[test]
    fn what_cannot_be_a_sink_is_refused_without_repeating_what_may_be_secret() {
        let url =
            |url: &str| format!("[zones.z.sinks.a]\nurl = \"{url}\"\nsecret = \"secret://hooks/key\"\n");
        for (sinks, expected) in [
            (format!("[zones.z.sinks.a]\n{GOOD}"), &[][..]),
            (url("http://127.0.0.1:9/x"), &[]),
            (url("http://hooks.example/x"), &["invalid_sink_url"]),
            (url("https://u:hunter2@hooks.example/x"), &["invalid_sink_url"]),
            (url("https://hooks.example/x?token=hunter2"), &["invalid_sink_url"]),
            (format!("[zones.z.sinks.\"a b\"]\n{GOOD}"), &["sink_name"]),
            (format!("[zones.z.sinks.a]\n{GOOD}events = [\"token_exchange\"]\n"), &["sink_event"]),
            (
                "[zones.z.sinks.a]\nurl = \"https://h.example\"\nsecret = \"hunter2\"\n".to_owned(),
                &["sink_secret"],
            ),
            ("[zones.z.sinks.a]\nurl = \"https://h.example\"\n".to_owned(), &["missing_key"]),
        ] {
            assert_eq!(codes(&sinks), expected, "{sinks}");
        }
        let many =
            |count: usize| (0..count).map(|at| format!("[zones.z.sinks.s{at}]\n{GOOD}")).collect::<String>();
        assert!(codes(&many(20)).is_empty());
        assert_eq!(codes(&many(21)), ["sink_limit_reached"]);
    }
}
