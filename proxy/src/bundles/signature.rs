//! Signatures over bundles: which files, of which zone, in which order of revisions.
//!
//! A bundle's signature is the file `bundle.sig` in its folder, or `<zone>.sig` beside a bundle of one file. It is
//! made over the zone's id, a revision and the digest of every document, by a key that `caracal.toml` trusts. It is
//! checked before anything in a document is looked at.

use std::fmt;

use caracal_policies::{BundleSource, Problem, Report};
use serde::{Deserialize, Serialize};

use super::{digest_of, problem};
use crate::config::BundlesConfig;
use crate::ledger::PublicKey;

/// How the signature is called among the files of a bundle.
pub const FILE: &str = "bundle.sig";
/// The extension of a signature beside a bundle of one file.
pub(super) const EXTENSION: &str = "sig";
const SCHEMA: u32 = 1;

/// What a good signature proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Counts what its signers released; files only go to higher ones.
    pub revision: u64,
    /// Who signed.
    pub key: PublicKey,
    /// Digest of the documents.
    pub documents: [u8; 32],
}

/// The highest revision the files of a zone had, below which they do not go again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// The revision.
    pub revision: u64,
    /// Digest of the documents that had it: 64 hexadecimal digits.
    pub documents: String,
}

impl Signed {
    /// As the lowest that may follow.
    #[must_use]
    pub fn floor(&self) -> Floor {
        Floor { revision: self.revision, documents: hex::encode(self.documents) }
    }
}

/// A signature as its file says it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignatureFile {
    schema: u32,
    pub(super) zone: String,
    pub(super) revision: u64,
    key: String,
    signature: String,
}

impl SignatureFile {
    pub(super) fn new(zone: &str, revision: u64, key: &PublicKey, signature: &[u8]) -> Self {
        let signature = hex::encode(signature);
        Self { schema: SCHEMA, zone: zone.to_owned(), revision, key: key.to_string(), signature }
    }

    fn parse(text: &str) -> Option<Self> {
        toml::from_str(text).ok().filter(|file: &Self| file.schema == SCHEMA && file.revision > 0)
    }
}

/// As its file says it: one line a member.
impl fmt::Display for SignatureFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schema, zone, revision, key, signature } = self;
        // INVARIANT: a zone's id has neither quotes nor backslashes.
        write!(f, "schema = {schema}\nzone = \"{zone}\"\nrevision = {revision}\nkey = \"{key}\"\n")?;
        writeln!(f, "signature = \"{signature}\"")
    }
}

/// What is signed. The first line says what kind of statement it is, so that it can never stand for another.
pub(super) fn statement(zone: &str, revision: u64, documents: &[u8; 32]) -> Vec<u8> {
    let documents = hex::encode(documents);
    format!("caracal-bundle:1\nzone {zone}\nrevision {revision}\ndocuments sha256:{documents}\n").into_bytes()
}

/// The digest of the documents of a bundle: everything but the signature.
#[must_use]
pub fn documents(source: &BundleSource) -> [u8; 32] {
    digest_of(source.files.iter().filter(|file| file.path != FILE))
}

/// The revision that the signature of a bundle claims, whoever made it.
#[must_use]
pub fn claimed_revision(source: &BundleSource) -> Option<u64> {
    let text = source.files.iter().find(|file| file.path == FILE)?;
    SignatureFile::parse(&text.text).map(|file| file.revision)
}

/// Checks the signature of a bundle. Nothing without trusted keys; nor for an unsigned bundle, unless one is required.
///
/// # Errors
/// `bundle_unsigned`, `bundle_signature_malformed`, `bundle_key_unknown` or `bundle_signature_wrong`.
pub fn check(source: &BundleSource, zone: &str, rules: &BundlesConfig) -> Result<Option<Signed>, Report> {
    if rules.trusted_keys.is_empty() {
        return Ok(None);
    }
    let place = place(&source.root);
    let Some(text) = source.files.iter().find(|file| file.path == FILE) else {
        return if rules.require_signature { Err(unsigned(&place)) } else { Ok(None) };
    };
    let parsed = SignatureFile::parse(&text.text).and_then(|file| {
        let key: PublicKey = file.key.parse().ok()?;
        let signature = hex::decode(&file.signature).ok()?;
        Some((file, key, signature))
    });
    let Some((file, key, signature)) = parsed else { return Err(malformed(&place)) };
    if !rules.trusted_keys.contains(&key) {
        return Err(one(
            "bundle_key_unknown",
            &place,
            "the bundle is signed with a key that is not trusted here",
            key.to_string(),
            "one of `[bundles] trusted_keys` in caracal.toml",
            "have it signed by one of them, or add this key if you know whose it is",
        ));
    }
    let documents = documents(source);
    if file.zone != zone || !key.verifies(&statement(zone, file.revision, &documents), &signature) {
        let found =
            if file.zone == zone { String::new() } else { format!("a signature for `{}`", file.zone) };
        return Err(one(
            "bundle_signature_wrong",
            &place,
            "the signature is not over these documents, this zone and this revision",
            found,
            "a signature that was made after the last change",
            "nothing in the bundle may change after `caracal bundle sign`",
        ));
    }
    Ok(Some(Signed { revision: file.revision, key, documents }))
}

/// Checks that the files of a zone do not go back: to a lower revision, or to other documents under one they had.
///
/// # Errors
/// `bundle_revision_old`.
pub fn check_revision(source: &BundleSource, signed: &Signed, floor: &Floor) -> Result<(), Report> {
    let same = signed.floor() == *floor;
    if signed.revision > floor.revision || same {
        return Ok(());
    }
    Err(one(
        "bundle_revision_old",
        &place(&source.root),
        "the files go back to an earlier revision",
        format!("revision {}", signed.revision),
        &format!("a higher revision than {}, which was in force", floor.revision),
        "sign what is meant with a new revision, or use `caracal rollback`",
    ))
}

fn unsigned(place: &str) -> Report {
    one(
        "bundle_unsigned",
        place,
        "the bundle is not signed",
        String::new(),
        "a signature by one of `[bundles] trusted_keys` in caracal.toml",
        "sign it with `caracal bundle sign`",
    )
}

fn malformed(place: &str) -> Report {
    one(
        "bundle_signature_malformed",
        place,
        "the signature cannot be read",
        String::new(),
        "a whole file as `caracal bundle sign` writes it",
        "sign the bundle again",
    )
}

/// Where the signature of a bundle is.
pub(super) fn place(root: &str) -> String {
    match root.strip_suffix(".toml") {
        Some(single) => format!("{single}.{EXTENSION}"),
        None => format!("{root}/{FILE}"),
    }
}

fn one(code: &'static str, file: &str, message: &str, found: String, expected: &str, hint: &str) -> Report {
    let problem: Problem = problem(code, file, message, found, expected, hint);
    Report { problems: vec![problem] }
}

#[cfg(test)]
mod tests;
