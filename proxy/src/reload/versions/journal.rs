//! Which versions of a zone were in force: numbered, with time and author, oldest first.

use std::collections::BTreeSet;
use std::io;

use serde::{Deserialize, Serialize};

use super::Entry;
use crate::bundles::signature::{Floor, Signed};

const SCHEMA: u32 = 1;
/// Most entries: a bundle that goes to and fro must not make the journal grow.
const MOST_ENTRIES: usize = 1_000;
/// Fewest digits that name a version.
const FEWEST_DIGITS: usize = 4;

/// The activations of one zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Journal {
    schema: u32,
    /// The version that the files said last.
    files: Option<String>,
    /// The highest revision that signed files had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    floor: Option<Floor>,
    activations: Vec<Activation>,
}

/// One version that came into force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Activation {
    /// Counts the activations of the zone.
    pub(crate) number: u64,
    /// The digest of the files: 64 hexadecimal digits.
    pub(crate) version: String,
    /// The digest of the zone, as `caracal check` and `caracal status` show it.
    pub(crate) digest: String,
    /// When, in Unix milliseconds.
    pub(crate) at: i64,
    /// By whom.
    pub(crate) by: By,
    /// Its revision, where a signature was checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revision: Option<u64>,
}

/// Who had a version come into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum By {
    /// The files said so.
    Files,
    /// An operator with this user id said so.
    Operator(u32),
}

/// Why a word names no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfound {
    /// It is no digest nor the beginning of one.
    #[error("a version is named by at least four hexadecimal digits of its digest")]
    NoDigest,
    /// Nothing kept is called so.
    #[error("no kept version is called so; `caracal versions` lists them")]
    Unknown,
    /// Versions that differ are called so.
    #[error("several kept versions are called so; write more digits")]
    Ambiguous,
}

impl Default for Journal {
    fn default() -> Self {
        Self { schema: SCHEMA, files: None, floor: None, activations: Vec::new() }
    }
}

impl Journal {
    pub(super) fn parse(bytes: &[u8]) -> io::Result<Self> {
        let journal: Self = serde_json::from_slice(bytes)?;
        if journal.schema == SCHEMA {
            Ok(journal)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "another release wrote it"))
        }
    }

    pub(super) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    /// The version that came into force last.
    pub(crate) fn in_force(&self) -> Option<&str> {
        self.activations.last().map(|last| last.version.as_str())
    }

    /// The version that the files said last.
    pub(crate) fn files(&self) -> Option<&str> {
        self.files.as_deref()
    }

    /// The highest revision that signed files had.
    pub(crate) const fn floor(&self) -> Option<&Floor> {
        self.floor.as_ref()
    }

    /// The version that is in force instead of what the files said last.
    pub(crate) fn pinned(&self) -> Option<&str> {
        self.in_force().filter(|version| Some(*version) != self.files())
    }

    /// What the files said before they said `version`, or before it was last in force where they never did; passing
    /// over what says the same.
    pub(crate) fn earlier(&self, version: &str) -> Option<&Activation> {
        let last = |files: bool| {
            let is = |one: &Activation| one.version == version && (!files || one.by == By::Files);
            self.activations.iter().rposition(is)
        };
        let place = last(true).or_else(|| last(false))?;
        let digest = &self.activations.get(place)?.digest;
        let mut before = self.activations.iter().take(place).rev();
        before.find(|one| one.by == By::Files && one.digest != *digest)
    }

    /// The kept versions by their last activation, newest first.
    pub(crate) fn newest_first(&self) -> Vec<&Activation> {
        let mut seen = BTreeSet::new();
        self.activations.iter().rev().filter(|one| seen.insert(one.version.as_str())).collect()
    }

    /// The kept version a word names: the beginning of a digest, of the zone or of the files, with or without
    /// `sha256:`. Of versions that grant the same, the newest.
    ///
    /// # Errors
    /// When it names none, or several that differ.
    pub(crate) fn find(&self, word: &str) -> Result<&Activation, Unfound> {
        let digits = word.strip_prefix("sha256:").unwrap_or(word).to_ascii_lowercase();
        if digits.len() < FEWEST_DIGITS || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Unfound::NoDigest);
        }
        let begins = |text: &str| text.strip_prefix("sha256:").unwrap_or(text).starts_with(&digits);
        let mut found =
            self.newest_first().into_iter().filter(|one| begins(&one.digest) || begins(&one.version));
        let first = found.next().ok_or(Unfound::Unknown)?;
        if found.all(|other| other.digest == first.digest) { Ok(first) } else { Err(Unfound::Ambiguous) }
    }

    /// Whether that is in force already, as after a restart.
    pub(super) fn is_in_force(&self, version: &str, entry: &Entry<'_>) -> bool {
        self.in_force() == Some(version) && (entry.by != By::Files || self.files() == Some(version))
    }

    pub(super) fn add(&mut self, version: String, entry: &Entry<'_>) {
        let number = self.activations.last().map_or(0, |last| last.number).saturating_add(1);
        let Entry { digest, at, by, signed } = *entry;
        if by == By::Files {
            self.files = Some(version.clone());
            let own = signed.map(Signed::floor);
            self.floor = own.into_iter().chain(self.floor.take()).max_by_key(|floor| floor.revision);
        }
        let revision = signed.map(|signed| signed.revision);
        self.activations.push(Activation { number, version, digest: digest.to_string(), at, by, revision });
    }

    /// Forgets all but the `most` versions that were in force last and what the files said last, and gives those.
    pub(super) fn keep(&mut self, most: usize) -> BTreeSet<String> {
        let excess = self.activations.len().saturating_sub(MOST_ENTRIES);
        self.activations.drain(..excess);
        let newest = self.newest_first().into_iter().take(most).map(|one| one.version.clone());
        let kept: BTreeSet<String> = newest.chain(self.files.clone()).collect();
        self.activations.retain(|one| kept.contains(&one.version));
        kept
    }
}
