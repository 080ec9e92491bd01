//! The watched secrets file: upstream credentials, and where each may go. A value may stand in a file of its own.
//!
//! A value is held in a type that is wiped on drop and never printed. An entry names the zones that may use it
//! and the hosts it may be sent to; [`SecretsTable::get`] repeats that check against what is dialled.

mod bundle;
mod destination;
mod edit;
pub(crate) mod envelope;
mod files;
mod fingerprint;
mod lookout;
mod open;
mod parse;
pub(crate) mod sealed;
pub(crate) mod set;
mod sinks;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use caracal_plugins::Scrubber;
use caracal_policies::{Report, Scheme};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::config::SecretsConfig;

pub use bundle::check_bundle;
pub use destination::{Destination, is_loopback_host};
pub use fingerprint::{FingerprintKey, FingerprintKeyError};
pub(crate) use lookout::{Lookout, scrubber};
pub use sinks::check_sinks;

/// One secret value.
///
/// Shape: one line of printable text, at least one byte, or a key in PEM over several lines; wiped when dropped; `Debug`
/// shows the fingerprint only.
pub struct Secret {
    value: SecretString,
    fingerprint: Box<str>,
    lookout: Lookout,
    /// The file that holds it, as the secrets file names it.
    file: Option<Box<str>>,
    /// Unix milliseconds since when it has been this value, as far as this process knows.
    since: i64,
}

/// What may be told of one value.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'t> {
    /// Name of the entry.
    pub name: &'t str,
    /// The key in it.
    pub key: &'t str,
    /// The keyed fingerprint.
    pub fingerprint: &'t str,
    /// The file that holds the value, as the secrets file names it; none when it stands there itself.
    pub file: Option<&'t str>,
    /// Unix milliseconds since when it has been this value, as far as this process knows.
    pub since: i64,
    /// Whether the entry is marked as a throw-away value.
    pub demo: bool,
}

impl Secret {
    /// The value itself, for the code that writes it into an upstream request.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }

    /// What looks for it in answers, unless it is too short.
    pub(crate) fn scrubber(&self) -> Option<Arc<Scrubber>> {
        self.lookout.of(self.expose())
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

/// What is in a sealed secrets file, as it was written.
///
/// # Errors
/// Why it does not open, with place and remedy.
pub(crate) fn unseal(config: &SecretsConfig) -> Result<Zeroizing<String>, Report> {
    let key = FingerprintKey::unkept();
    match sealed::read(config, sealed::credentials_dir().as_deref(), &key, None) {
        Ok(sealed::Text::Plain(text)) => Ok(text),
        Ok(sealed::Text::Sealed(opened)) => Ok(Zeroizing::new(opened.text().to_owned())),
        Err(problem) => Err(Report { problems: vec![*problem] }),
    }
}

/// Every secret of one version of the secrets file. Immutable.
#[derive(Debug)]
pub struct SecretsTable {
    entries: BTreeMap<Box<str>, Entry>,
    digest: [u8; 32],
    /// What fingerprints are made with, for credentials that are derived from these.
    key: FingerprintKey,
    /// What it was read from, if that is sealed at rest.
    opened: Option<sealed::Opened>,
}

impl SecretsTable {
    /// Opens, checks and reads the secrets file and the files it names.
    ///
    /// Shape: `mounted` allows group-read for one of our own groups and nothing else.
    ///
    /// # Errors
    /// Every problem, each with its place; no text in it comes from a value.
    pub fn load(config: &SecretsConfig, key: &FingerprintKey) -> Result<Self, Report> {
        Self::read(config, sealed::credentials_dir().as_deref(), key, None)
    }

    /// As [`SecretsTable::load`], for files of which this table is an earlier version: what is sealed is opened again
    /// only when it or its key has changed.
    ///
    /// # Errors
    /// As [`SecretsTable::load`].
    pub fn load_again(&self, config: &SecretsConfig) -> Result<Self, Report> {
        Self::read(config, sealed::credentials_dir().as_deref(), &self.key, self.opened.as_ref())
    }

    fn read(
        config: &SecretsConfig,
        credentials: Option<&Path>,
        key: &FingerprintKey,
        before: Option<&sealed::Opened>,
    ) -> Result<Self, Report> {
        let text = sealed::read(config, credentials, key, before)
            .map_err(|problem| Report { problems: vec![*problem] })?;
        let files = files::Files { folder: config.files_dir.as_deref(), mounted: config.mounted };
        let shown = config.file.display().to_string();
        match text {
            sealed::Text::Plain(text) => Self::of(&shown, &text, key, files),
            sealed::Text::Sealed(opened) => {
                let table = Self::of(&shown, opened.text(), key, files)?;
                Ok(Self { opened: Some(opened), ..table })
            }
        }
    }

    /// Reads the text of a secrets file that names no others; `shown` is its name in reports.
    ///
    /// # Errors
    /// Every problem, each with its place; no text in it comes from a value.
    pub fn parse(shown: &str, text: &str, key: &FingerprintKey) -> Result<Self, Report> {
        Self::of(shown, text, key, files::Files { folder: None, mounted: false })
    }

    fn of(shown: &str, text: &str, key: &FingerprintKey, files: files::Files<'_>) -> Result<Self, Report> {
        let (entries, read) =
            parse::entries(shown, text, key, files).map_err(|problems| Report { problems })?;
        let mut digests = key.digest(text.as_bytes()).to_vec();
        digests.extend(read);
        Ok(Self { entries, digest: key.digest(&digests), key: key.clone(), opened: None })
    }

    /// The same table, knowing since when each value has been what it is: for those that `before` had too, what
    /// that one says, for the others `now`.
    #[must_use]
    pub fn dated(mut self, before: &Self, now: i64) -> Self {
        for (name, entry) in &mut self.entries {
            for (key, secret) in &mut entry.values {
                let earlier = before.entries.get(name).and_then(|entry| entry.values.get(key));
                secret.since = earlier
                    .filter(|earlier| earlier.fingerprint == secret.fingerprint)
                    .map_or(now, |earlier| earlier.since);
            }
        }
        self
    }

    /// A table without entries.
    #[must_use]
    pub fn empty() -> Self {
        Self { entries: BTreeMap::new(), digest: [0; 32], key: FingerprintKey::unkept(), opened: None }
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

    /// The fingerprint of one value, whoever asks: it opens nothing.
    #[must_use]
    pub fn fingerprint(&self, name: &str, key: &str) -> Option<&str> {
        self.entries.get(name)?.values.get(key).map(|secret| &*secret.fingerprint)
    }

    /// The fingerprint of a credential that was got with one of these, made as theirs are.
    #[must_use]
    pub fn fingerprint_of(&self, derived: &str) -> Box<str> {
        self.key.fingerprint(derived)
    }

    /// Whether an entry is marked as a throw-away value that a demonstration may show.
    #[must_use]
    pub fn is_demo(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.demo)
    }

    /// What may be told of every value, sorted by name and key.
    pub fn listed(&self) -> impl Iterator<Item = Listed<'_>> {
        self.entries.iter().flat_map(|(name, entry)| {
            entry.values.iter().map(move |(key, secret)| Listed {
                name,
                key,
                fingerprint: &secret.fingerprint,
                file: secret.file.as_deref(),
                since: secret.since,
                demo: entry.demo,
            })
        })
    }

    /// Entry name, key and fingerprint of every value, sorted.
    pub fn fingerprints(&self) -> impl Iterator<Item = (&str, &str, String)> {
        self.entries.iter().flat_map(|(name, entry)| {
            entry.values.iter().map(move |(key, secret)| (name.as_ref(), key.as_ref(), secret.fingerprint()))
        })
    }

    /// Whether both tables were read from the same bytes, in the secrets file and the files it names.
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
