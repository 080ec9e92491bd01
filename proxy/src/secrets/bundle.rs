//! A bundle's providers against the secrets file.

use caracal_plugins::Scrubber;
use caracal_policies::{Problem, Provider, Resource, SecretRef, TokenSource, Zone};

use super::{Dial, Secret, SecretRefused, SecretsTable, is_loopback_host};
use crate::{broker, trust};

/// The plugin that searches responses for the injected secret.
const SCRUB_PLUGIN: &str = "response_scrub";

/// Checks a zone's providers against a table: each secret must exist, be for this zone, and be for the upstream
/// of every resource that uses it.
#[must_use]
pub fn check_bundle(zone: &Zone, table: &SecretsTable) -> Vec<Problem> {
    let mut problems = Vec::new();
    for provider in zone.providers() {
        for reference in provider.secrets() {
            match check_reference(zone, reference, table) {
                Some(problem) => problems.push(problem),
                None => problems.extend(check_use(zone, provider, reference, table)),
            }
        }
    }
    for resource in zone.resources() {
        problems.extend(check_client(zone, resource, table));
        for reference in resource.provider.iter().flat_map(|provider| provider.secrets()) {
            problems.extend(check_upstream(zone, resource, reference, table));
        }
    }
    problems
}

/// Whether the key of a client certificate is there, for this upstream, and the certificate's own.
fn check_client(zone: &Zone, resource: &Resource, table: &SecretsTable) -> Option<Problem> {
    let client = resource.tls.client.as_ref()?;
    let reference = &client.key;
    if let Some(problem) = check_reference(zone, reference, table) {
        return Some(problem);
    }
    if let Some(problem) = check_upstream(zone, resource, reference, table) {
        return Some(problem);
    }
    let key = table.entries.get(reference.name.as_str())?.values.get(reference.key.as_str())?;
    let message = trust::client_pair(&client.chain, key.expose()).err()?;
    let hint =
        "write the key between `'''` and `'''` in the secrets file, and its own certificate in the bundle";
    Some(used(reference, "client_key", message, "a certificate chain and the private key of its first", hint))
}

/// Whether a secret that is there has the form its provider needs, and may go to the provider's token endpoint.
fn check_use(
    zone: &Zone,
    provider: &Provider,
    reference: &SecretRef,
    table: &SecretsTable,
) -> Option<Problem> {
    let secret = table.entries.get(reference.name.as_str())?.values.get(reference.key.as_str())?;
    let signs = provider.private_key.as_ref().is_some_and(|key| std::ptr::eq(key, reference));
    if signs {
        let certificate = provider.service_token().and_then(|token| token.certificate.as_deref());
        if let Err(message) = broker::check_key(secret.expose(), certificate) {
            let hint = "write the key between `'''` and `'''` in the secrets file, and its own certificate in the bundle";
            return Some(used(reference, "private_key", message, "a private key that can sign", hint));
        }
    } else if secret.expose().contains('\n') {
        let expected = "one line; only a `private_key` has several";
        let hint = "refer to another key of the entry";
        return Some(used(
            reference,
            "secret_lines",
            "a key in PEM is no credential to send",
            expected,
            hint,
        ));
    }
    let token = provider.service_token()?;
    // The endpoint that an issuer names is known, and checked, only when it is asked.
    let TokenSource::Endpoint(endpoint) = &token.source else { return None };
    let revocation = token.consent().and_then(|consent| consent.revocation_endpoint.as_ref());
    let (endpoint, refused) = [endpoint].into_iter().chain(revocation).find_map(|endpoint| {
        let found = table.get(zone.id(), &reference.name, &reference.key, &broker::dial(endpoint));
        found.err().map(|refused| (endpoint, refused))
    })?;
    let found = format!("`{}` to {}:{}", spelled(reference), endpoint.host(), endpoint.port());
    Some(Problem {
        found,
        ..used(
            reference,
            "secret_host",
            "the secret is not for this endpoint of the authorization server",
            "endpoints that the entry's `hosts` list",
            if refused == SecretRefused::HostNotAllowed {
                "only the owner of the secrets file can widen where a secret goes"
            } else {
                "the endpoint must be https, or on loopback"
            },
        )
    })
}

fn used(reference: &SecretRef, code: &'static str, message: &str, expected: &str, hint: &str) -> Problem {
    Problem { expected: expected.to_owned(), ..refer(reference, code, message, hint) }
}

fn check_reference(zone: &Zone, reference: &SecretRef, table: &SecretsTable) -> Option<Problem> {
    let Some(entry) = table.entries.get(reference.name.as_str()) else {
        return Some(refer(
            reference,
            "secret_unknown",
            "the secrets file has no such entry",
            "add the entry",
        ));
    };
    if !entry.values.contains_key(reference.key.as_str()) {
        return Some(refer(reference, "secret_key_unknown", "the entry has no such key", "add the key"));
    }
    let hint = "the entry's `zones` decide; only the owner of the secrets file can add one";
    (!entry.allows_zone(zone.id()))
        .then(|| refer(reference, "secret_zone", "the secret is not for this zone", hint))
}

fn check_upstream(
    zone: &Zone,
    resource: &Resource,
    reference: &SecretRef,
    table: &SecretsTable,
) -> Option<Problem> {
    let upstream = &resource.upstream;
    // The secret goes to each target, and to whoever answers to `server_name`.
    let mut found = resource.destinations().map(|(host, port)| {
        let dial = Dial { scheme: upstream.scheme, host, port, loopback: is_loopback_host(host) };
        table.get(zone.id(), &reference.name, &reference.key, &dial)
    });
    let worst = found.try_fold(None, |_, secret| secret.map(Some)).transpose()?;
    let (code, message, expected) = match worst {
        Ok(secret) if is_sent(resource) && too_short(secret, resource) => (
            "secret_too_short",
            "the secret is too short to be found in responses",
            "a secret of at least 12 bytes, or a resource without `response_scrub`",
        ),
        Err(SecretRefused::HostNotAllowed) => (
            "secret_host",
            "the secret is not for the upstream of this resource",
            "an upstream, and targets and a `server_name` if there are any, that the entry's `hosts` list",
        ),
        Err(SecretRefused::InsecureScheme) => (
            "secret_insecure",
            "the secret would travel unencrypted",
            "an https upstream, or one on loopback",
        ),
        // The other refusals are about the reference and told there, once.
        Ok(_) | Err(SecretRefused::Unknown | SecretRefused::ZoneNotAllowed) => return None,
    };
    Some(Problem {
        code,
        place: resource.place.clone(),
        message: message.to_owned(),
        found: format!("`{}` to {}", spelled(reference), upstream.authority()),
        expected: expected.to_owned(),
        hint: "only the owner of the secrets file can widen where a secret goes".to_owned(),
    })
}

/// Whether the upstream gets the secret itself, not a token that was got with it.
fn is_sent(resource: &Resource) -> bool {
    resource.provider.as_ref().is_some_and(|provider| provider.service_token().is_none())
}

fn too_short(secret: &Secret, resource: &Resource) -> bool {
    secret.expose().len() < Scrubber::MIN_SECRET_BYTES
        && resource.plugins.iter().any(|plugin| plugin.name == SCRUB_PLUGIN)
}

fn refer(reference: &SecretRef, code: &'static str, message: &str, hint: &str) -> Problem {
    Problem {
        code,
        place: reference.place.clone(),
        message: message.to_owned(),
        found: format!("`{}`", spelled(reference)),
        expected: "an entry of the secrets file that lists this zone".to_owned(),
        hint: hint.to_owned(),
    }
}

fn spelled(reference: &SecretRef) -> String {
    format!("secret://{}/{}", reference.name, reference.key)
}

#[cfg(test)]
mod tests {
    use caracal_policies::{Assigned, BundleSource, SourceFile, compile};

    use super::super::FingerprintKey;
    use super::*;

    fn codes(provider: &str, hosts: &str, secret: &str) -> Vec<&'static str> {
        let text = format!(
            "schema = 1\n[zone]\nid = \"z\"\n[[providers]]\nidentifier = \"provider://p\"\n{provider}\n\
             [[resources]]\nidentifier = \"resource://r\"\nupstream_url = \"https://api.example\"\n\
             scopes = [\"a\"]\ncredential_provider = \"provider://p\"\n"
        );
        let files = vec![SourceFile { path: "z.toml".into(), text }];
        let source = BundleSource { root: "bundles/z.toml".into(), files };
        let zone = compile(&source, "z", &Assigned::default()).unwrap_or_else(|report| panic!("{report}"));
        let text =
            format!("schema = 1\n[secrets.s]\nzones = [\"z\"]\nhosts = {hosts}\nk = '''\n{secret}'''\n");
        let table = SecretsTable::parse("s", &text, &FingerprintKey::unkept())
            .unwrap_or_else(|report| panic!("{report}"));
        check_bundle(&zone, &table).iter().map(|problem| problem.code).collect()
    }

    #[test]
    fn a_service_tokens_secret_is_for_both_hosts_and_of_the_right_form() {
        const TOKEN: &str = "kind = \"oauth2_client_credentials\"\ntoken_endpoint = \"https://id.example/t\"\nclient_id = \"c\"\n";
        const BOTH: &str = "[\"id.example\", \"api.example\"]";
        let client = format!("{TOKEN}client_secret = \"secret://s/k\"");
        let key = format!("{TOKEN}client_auth_method = \"private_key_jwt\"\nprivate_key = \"secret://s/k\"");
        let sent = "kind = \"bearer_token\"\nsecret = \"secret://s/k\"".to_owned();
        let found =
            client.replace("token_endpoint = \"https://id.example/t\"", "issuer = \"https://id.example\"");
        let own = rcgen::generate_simple_self_signed(vec!["c".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(vec!["c".to_owned()]).unwrap();
        let certified = |certificate: &str| format!("{key}\ncertificate = '''\n{certificate}'''");
        let pem = own.signing_key.serialize_pem();
        for (provider, hosts, secret, expected) in [
            (&client, BOTH, "word", &[][..]),
            (&client, "[\"api.example\"]", "word", &["secret_host"]),
            (&client, "[\"id.example\"]", "word", &["secret_host"]),
            (&client, "[\"id.example:444\", \"api.example\"]", "word", &["secret_host"]),
            // Which endpoint the issuer names is known only when it is asked.
            (&found, "[\"api.example\"]", "word", &[]),
            (&client, BOTH, &pem, &["secret_lines"]),
            (&sent, BOTH, &pem, &["secret_lines"]),
            (&key, BOTH, &pem, &[]),
            (&key, BOTH, "word", &["private_key"]),
            (&certified(&own.cert.pem()), BOTH, &pem, &[]),
            (&certified(&other.cert.pem()), BOTH, &pem, &["private_key"]),
        ] {
            assert_eq!(codes(provider, hosts, secret), expected, "{provider} {hosts}");
        }
    }
}
