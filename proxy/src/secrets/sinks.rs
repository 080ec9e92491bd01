//! Notification sinks against the secrets file.

use caracal_policies::Problem;

use super::{SecretRefused, SecretsTable};
use crate::broker::dial;
use crate::config::{Config, SinkConfig};

/// Checks that the secret of each sink exists, is for the sink's zone, and is for the sink's host.
#[must_use]
pub fn check_sinks(config: &Config, table: &SecretsTable) -> Vec<Problem> {
    config.sinks.iter().filter_map(|sink| check(sink, table)).collect()
}

fn check(sink: &SinkConfig, table: &SecretsTable) -> Option<Problem> {
    let secret = &sink.secret;
    let refused = table.get(&sink.zone, &secret.name, &secret.key, &dial(&sink.url)).err()?;
    let (code, hint) = match refused {
        SecretRefused::Unknown => ("secret_unknown", "add the entry and the key to the secrets file"),
        SecretRefused::ZoneNotAllowed => ("secret_zone", "add the zone to the entry's `zones`"),
        SecretRefused::HostNotAllowed => ("secret_host", "add the host to the entry's `hosts`"),
        SecretRefused::InsecureScheme => ("secret_insecure", "use an https URL"),
    };
    Some(Problem {
        code,
        place: secret.place.clone(),
        message: format!("the sink `{}` cannot sign: {refused}", sink.name),
        found: format!("`secret://{}/{}` for {}", secret.name, secret.key, sink.url.host()),
        expected: "an entry of the secrets file that lists the sink's zone and host".to_owned(),
        hint: hint.to_owned(),
    })
}
