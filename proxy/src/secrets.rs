//! The watched secrets file: upstream credentials, and where each may go.
//!
//! A value is held in a type that is wiped on drop and never printed. An entry names the zones that may use it
//! and the hosts it may be sent to; [`SecretsTable::get`] repeats that check against what is dialled.

mod destination;
mod fingerprint;
mod open;
mod parse;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use caracal_policies::{Problem, Report, Resource, Scheme, SecretRef, Zone};
use secrecy::{ExposeSecret, SecretString};

pub use destination::{Destination, is_loopback_host};
pub use fingerprint::{FingerprintKey, FingerprintKeyError};

/// Shortest secret that a response may be searched for; shorter ones occur by chance.
const MIN_SCRUBBED_BYTES: usize = 12;

/// The plugin that searches responses for the injected secret.
const SCRUB_PLUGIN: &str = "response_scrub";

/// One secret value.
///
/// Shape: one line of printable text, at least one byte; wiped when dropped; `Debug` shows the fingerprint only.
pub struct Secret {
    value: SecretString,
    fingerprint: Box<str>,
}

impl Secret {
    /// The value itself, for the code that writes it into an upstream request.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }

    /// 16 hex characters that tell two values apart and give nothing away: HMAC-SHA256 under a key of this
    /// state folder, so they mean nothing outside it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.fingerprint.to_string()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.fingerprint)
    }
}

/// What is about to be dialled, for the check of a secret's destination.
#[derive(Clone, Copy, Debug)]
pub struct Dial<'a> {
    /// Whether the connection is TLS.
    pub scheme: Scheme,
    /// Host name or address without brackets, as in the upstream URL.
    pub host: &'a str,
    /// Port that is dialled.
    pub port: u16,
    /// Whether the connection stays on this host.
    pub loopback: bool,
}

/// Why a secret is not handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretRefused {
    /// There is no such entry, or it has no such key.
    #[error("the secret is unknown")]
    Unknown,
    /// The entry does not list the zone.
    #[error("the secret is not for this zone")]
    ZoneNotAllowed,
    /// The entry does not list the host.
    #[error("the secret is not for this host")]
    HostNotAllowed,
    /// The connection would be plaintext to another host.
    #[error("the secret does not travel unencrypted")]
    InsecureScheme,
}

/// One entry of the secrets file.
#[derive(Debug)]
struct Entry {
    zones: Vec<Box<str>>,
    hosts: Vec<Destination>,
    demo: bool,
    values: BTreeMap<Box<str>, Secret>,
}

/// Every secret of one version of the secrets file. Immutable.
#[derive(Debug)]
pub struct SecretsTable {
    entries: BTreeMap<Box<str>, Entry>,
    digest: [u8; 32],
}

impl SecretsTable {
    /// Opens, checks and reads a secrets file.
    ///
    /// Shape: `mounted` allows group-read for one of our own groups and nothing else.
    ///
    /// # Errors
    /// Every problem, each with its place; no text in it comes from a value.
    pub fn load(path: &Path, mounted: bool, key: &FingerprintKey) -> Result<Self, Report> {
        let text = open::read(path, mounted).map_err(|problem| Report { problems: vec![*problem] })?;
        Self::parse(&path.display().to_string(), &text, key)
    }

    /// Reads the text of a secrets file; `shown` is its name in reports.
    ///
    /// # Errors
    /// Every problem, each with its place; no text in it comes from a value.
    pub fn parse(shown: &str, text: &str, key: &FingerprintKey) -> Result<Self, Report> {
        let entries = parse::entries(shown, text, key).map_err(|problems| Report { problems })?;
        Ok(Self { entries, digest: key.digest(text.as_bytes()) })
    }

    /// A table without entries.
    #[must_use]
    pub const fn empty() -> Self {
        Self { entries: BTreeMap::new(), digest: [0; 32] }
    }

    /// Looks up one value for one connection.
    ///
    /// Cost: two ordered lookups and a scan of the entry's lists; no allocation.
    ///
    /// # Errors
    /// [`SecretRefused`], in this order: unknown, zone, host, scheme.
    pub fn get(&self, zone: &str, name: &str, key: &str, dial: &Dial<'_>) -> Result<&Secret, SecretRefused> {
        let entry = self.entries.get(name).ok_or(SecretRefused::Unknown)?;
        let secret = entry.values.get(key).ok_or(SecretRefused::Unknown)?;
        if !entry.allows_zone(zone) {
            return Err(SecretRefused::ZoneNotAllowed);
        }
        if !entry.hosts.iter().any(|host| host.matches(dial.host, dial.port)) {
            return Err(SecretRefused::HostNotAllowed);
        }
        match dial.scheme {
            Scheme::Http if !dial.loopback => Err(SecretRefused::InsecureScheme),
            Scheme::Http | Scheme::Https => Ok(secret),
        }
    }

    /// Whether an entry is marked as a throw-away value that a demonstration may show.
    #[must_use]
    pub fn is_demo(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.demo)
    }

    /// Entry name, key and fingerprint of every value, sorted.
    pub fn fingerprints(&self) -> impl Iterator<Item = (&str, &str, String)> {
        self.entries.iter().flat_map(|(name, entry)| {
            entry.values.iter().map(move |(key, secret)| (name.as_ref(), key.as_ref(), secret.fingerprint()))
        })
    }

    /// Whether both tables were read from the same bytes.
    pub(crate) fn same_text(&self, other: &Self) -> bool {
        self.digest == other.digest
    }

    /// What a newer table changes, in words that name entries and keys and no values.
    #[must_use]
    pub fn changes(&self, newer: &Self) -> Vec<String> {
        let flat = |table: &Self| -> BTreeMap<(String, String), String> {
            table.fingerprints().map(|(n, k, print)| ((n.to_owned(), k.to_owned()), print)).collect()
        };
        let (old, new) = (flat(self), flat(newer));
        let mut words = Vec::new();
        for ((name, key), print) in &new {
            match old.get(&(name.clone(), key.clone())) {
                None => words.push(format!("secret `{name}` gains key `{key}`")),
                Some(before) if before != print => words.push(format!("secret `{name}` key `{key}` changes")),
                Some(_) => {}
            }
        }
        words.extend(
            old.keys()
                .filter(|at| !new.contains_key(*at))
                .map(|(n, k)| format!("secret `{n}` loses key `{k}`")),
        );
        for (name, entry) in &newer.entries {
            if self.entries.get(name).is_some_and(|before| {
                before.zones != entry.zones || before.hosts != entry.hosts || before.demo != entry.demo
            }) {
                words.push(format!("secret `{name}` changes where it may go"));
            }
        }
        words
    }
}

impl Entry {
    fn allows_zone(&self, zone: &str) -> bool {
        self.zones.iter().any(|allowed| **allowed == *zone)
    }
}

/// Checks a zone's providers against a table: each secret must exist, be for this zone, and be for the upstream
/// of every resource that uses it.
#[must_use]
pub fn check_bundle(zone: &Zone, table: &SecretsTable) -> Vec<Problem> {
    let references = zone.providers().filter_map(|provider| provider.secret.as_ref());
    let mut problems: Vec<Problem> =
        references.filter_map(|reference| check_reference(zone, reference, table)).collect();
    for resource in zone.resources() {
        if let Some(reference) = resource.provider.as_ref().and_then(|provider| provider.secret.as_ref()) {
            problems.extend(check_upstream(zone, resource, reference, table));
        }
    }
    problems
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
    let dial = Dial {
        scheme: upstream.scheme,
        host: &upstream.host,
        port: upstream.port,
        loopback: is_loopback_host(&upstream.host),
    };
    let (code, message, expected) = match table.get(zone.id(), &reference.name, &reference.key, &dial) {
        Ok(secret) if too_short(secret, resource) => (
            "secret_too_short",
            "the secret is too short to be found in responses",
            "a secret of at least 12 bytes, or a resource without `response_scrub`",
        ),
        Err(SecretRefused::HostNotAllowed) => (
            "secret_host",
            "the secret is not for the upstream of this resource",
            "an upstream that the entry's `hosts` list",
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

fn too_short(secret: &Secret, resource: &Resource) -> bool {
    secret.expose().len() < MIN_SCRUBBED_BYTES
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
